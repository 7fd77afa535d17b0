"""The options of a run: defined once, for the command line, YAML and Python alike."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class BatchOptions(BaseModel):
    """How many traces, how many at once, and how much failing is borne."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    samples: int = Field(1, ge=1, description="traces for each problem, each with a seed of its own")
    concurrency: int = Field(256, ge=1, description="traces in flight at once")
    kernels: int | None = Field(
        None,
        ge=1,
        description="kernels at once; unset, one for each trace in flight, as far as half of the memory carries them",
    )
    retries: int = Field(2, ge=0, description="further tries of a trace whose engine, sandbox or grader failed")
    max_faults: int = Field(20, ge=1, description="stop when this many traces have failed at every try")


class RayOptions(BaseModel):
    """Whether a run is spread over the machines of a Ray cluster. None of it decides what the records say."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ray: str | None = Field(
        None,
        pattern=r"^(auto|[1-9]\d*)$",
        description="solve in so many Ray workers, each with an engine and kernels of its own; "
        "'auto' takes one for each GPU group, without GPUs one for each machine",
    )
    ray_address: str | None = Field(
        None, description="the cluster; unset, that of RAY_ADDRESS, or one on this machine for this run alone"
    )
    ray_restarts: int = Field(3, ge=0, description="times that each worker is begun again after it has died")


RUNTIME = frozenset(
    {"concurrency", "kernels", "retries", "max_faults", "threads", "max_batch", *RayOptions.model_fields}
)
"""Options that say how a run is carried out, not what it finds: they may change from one start to the next."""
