"""The Ray cluster that a run is spread over: one that is there, or one of this machine's own for the run alone.

Ray is told to report no usage; a cluster of its own has no dashboard and listens on loopback alone.
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
_LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}  # off, also on Linux: the node's own address is 127.0.0.1


@contextmanager
def connect(address: str | None = None) -> Iterator[None]:
    """A cluster: the one at the address, or at ``RAY_ADDRESS``, else one on this machine that ends with the context.

    Raises:
        MissingExtraError: Ray is not installed.
        InputError: there is no cluster at the address.
    """
    address = address or os.environ.get("RAY_ADDRESS")
    ray = import_ray(_QUIET if address else _QUIET | _LOOPBACK)
    if not address:
        from ray._private import ray_constants

        # Ray has read the environment where somebody, such as vLLM, had imported it before us.
        ray_constants.ENABLE_RAY_CLUSTER = False
    handler = signal.getsignal(signal.SIGTERM)
    own: dict[str, Any] = {} if address else {"include_dashboard": False}
    place, advice = address or "this machine", ""
    try:
        _probe(address or "")
        if address and "RAY_AUTH_MODE" not in os.environ:
            advice = "; if it asks for a token, set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN where it is not at home"
        ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL, **own)
    except (OSError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
        raise InputError(f"cannot use the Ray cluster at {place}: {first_line(error)}{advice}") from error
    try:
        signal.signal(signal.SIGTERM, handler)  # Ray has put its own in its place
        yield
    finally:
        ray.shutdown()


def _probe(address: str) -> None:
    """Raise OSError where nobody listens: Ray would try for minutes. Names like ``auto`` are for Ray to judge."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if port.isdigit():
        socket.create_connection((host, int(port)), timeout=10).close()


def count_workers(wanted: str, gpus: int) -> tuple[int, int]:
    """How many workers, and how many GPUs each of them gets: none on a cluster without any.

    Args:
        wanted: a number, or ``auto``.
        gpus: that a worker needs where there are GPUs.

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
        raise InputError(f"--ray {wanted}: each worker needs {gpus} GPUs, and the cluster has {there}")
    return number, gpus


def import_ray(settings: Mapping[str, str] | None = None) -> ModuleType:
    """Ray, told by its environment what it reads when it is first imported."""
    for name, value in (settings or {}).items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError as error:
        raise MissingExtraError("ray", "ray") from error
    return ray
