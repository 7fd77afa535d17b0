"""The options of a run: defined once, for the command line, YAML and Python alike."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from start_agent.fields import MayGrow, Runtime


class BatchOptions(BaseModel):
    """Samples per problem, concurrency and fault tolerance."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    samples: MayGrow[int] = Field(1, ge=1, description="traces for each problem, each with a seed of its own")
    concurrency: Runtime[int] = Field(256, ge=1, description="traces in flight at once")
    kernels: Runtime[int | None] = Field(
        None,
        ge=1,
        description="maximum concurrent kernels (default: one per trace in flight, capped by half of the memory)",
    )
    retries: Runtime[int] = Field(2, ge=0, description="retries of a trace whose engine, sandbox or grader failed")
    max_faults: Runtime[int] = Field(20, ge=1, description="stop when this many traces have failed at every try")


class RayOptions(BaseModel):
    """Whether a run is spread over the machines of a Ray cluster. None of it decides what the records say."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ray: Runtime[str | None] = Field(
        None,
        pattern=r"^(auto|[1-9]\d*)$",
        description="solve in so many Ray workers, each with an engine and kernels of its own; "
        "'auto' takes one for each GPU group, without GPUs one for each machine",
    )
    ray_address: Runtime[str | None] = Field(
        None, description="the cluster; unset, that of RAY_ADDRESS, or one on this machine for this run alone"
    )
    ray_restarts: Runtime[int] = Field(3, ge=0, description="times that each worker is begun again after it has died")
