"""The options of a batch run, for the command line, YAML and Python."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from start_agent.fields import MayGrow, Runtime


class BatchOptions(BaseModel):
    """Samples per problem, concurrency and fault tolerance."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    samples: MayGrow[int] = Field(1, ge=1, description="samples per problem, each with its own seed")
    concurrency: Runtime[int] = Field(256, ge=1, description="maximum traces in flight")
    kernels: Runtime[int | None] = Field(
        None,
        ge=1,
        description="maximum concurrent kernels (default: one per trace in flight, capped by half of the memory)",
    )
    retries: Runtime[int] = Field(2, ge=0, description="retries of a trace whose engine, sandbox or grader failed")
    max_faults: Runtime[int] = Field(20, ge=1, description="stop when this many traces have failed all attempts")


class RayOptions(BaseModel):
    """Options for distributing a run over a Ray cluster. They do not affect the records."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ray: Runtime[str | None] = Field(
        None,
        pattern=r"^(auto|[1-9]\d*)$",
        description="number of Ray workers, each with its own engine and kernels; "
        "'auto' for one per GPU group, or per machine without GPUs",
    )
    ray_address: Runtime[str | None] = Field(
        None, description="address of the cluster (default: RAY_ADDRESS, or a local cluster for this run)"
    )
    ray_restarts: Runtime[int] = Field(3, ge=0, description="maximum restarts per worker")
