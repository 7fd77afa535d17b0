"""Connects to a Ray cluster, or starts one on this machine for a single run.

Ray's usage reports are disabled; a local cluster has no dashboard and listens only on the loopback interface.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from start_agent.errors import InputError, MissingExtraError, first_line

_QUIET = {"RAY_USAGE_STATS_ENABLED": "0"}
_LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}  # also on Linux, "0" makes the node's address 127.0.0.1


@contextmanager
def connect(address: str | None = None) -> Iterator[None]:
    """Connect to the cluster at the address or ``RAY_ADDRESS``; without any, run one on this machine in this context.

    Raises:
        MissingExtraError: Ray is not installed.
        InputError: there is no cluster at the address.
    """
    address = address or os.environ.get("RAY_ADDRESS")
    ray = import_ray(_QUIET if address else _QUIET | _LOOPBACK)
    if not address:
        from ray._private import ray_constants

        # Ray may have read the environment already, if it was imported before, for example by vLLM.
        ray_constants.ENABLE_RAY_CLUSTER = False
    handler = signal.getsignal(signal.SIGTERM)
    own: dict[str, Any] = {} if address else {"include_dashboard": False}
    place, advice = address or "this machine", ""
    try:
        _probe(address or "")
        if address and "RAY_AUTH_MODE" not in os.environ:
            advice = "; if it needs a token, set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN unless it is in the home"
        ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL, **own)
    except (OSError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
        raise InputError(f"cannot use the Ray cluster at {place}: {first_line(error)}{advice}") from error
    try:
        signal.signal(signal.SIGTERM, handler)  # Ray replaces it
        yield
    finally:
        ray.shutdown()


def _probe(address: str) -> None:
    """Raise OSError if nothing listens at the address, as Ray would retry for minutes. Ignores names like ``auto``."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if port.isdigit():
        socket.create_connection((host, int(port)), timeout=10).close()


def count_workers(wanted: str, gpus: int) -> tuple[int, int]:
    """The number of workers, and the number of GPUs per worker: 0 on a cluster without GPUs.

    Args:
        wanted: a number, or ``auto``.
        gpus: GPUs per worker on a cluster with GPUs.

    Raises:
        InputError: the cluster has too few GPUs.
    """
    ray = import_ray()
    there = int(ray.cluster_resources().get("GPU", 0))
    if not there:
        gpus = 0
    if wanted == "auto":
        machines = sum(node["Alive"] for node in ray.nodes())
        number = there // gpus if gpus else machines
    else:
        number = int(wanted)
    if not number or number * gpus > there:
        raise InputError(f"--ray {wanted}: each worker needs {gpus} GPUs, but the cluster has {there}")
    return number, gpus


def import_ray(settings: Mapping[str, str] | None = None) -> ModuleType:
    """Import Ray, with environment variables that it reads at import."""
    for name, value in (settings or {}).items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError as error:
        raise MissingExtraError("ray", "ray") from error
    return ray
