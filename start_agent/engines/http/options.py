"""The options of the HTTP engine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from start_agent.engines.base import REVISION
from start_agent.fields import Renamed, Runtime

ServerKind = Literal["auto", "vllm", "vllm-generate", "sglang", "llama.cpp"]


class HTTPOptions(BaseModel):
    """Which server is asked, and how."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    base_url: Runtime[str] = Field("http://localhost:8000/v1", description="of the server, with or without its /v1")
    server_kind: Runtime[ServerKind] = Field(
        "auto", description="what the server is; auto asks it. vllm-generate is vLLM's route /inference/v1/generate"
    )
    served_model: Runtime[str | None] = Field(None, description="the model's name at the server (default: --model)")
    revision: str | None = Field(None, description=REVISION)
    context_length: int | None = Field(None, ge=2, description="tokens in a trace; the server's own limit where unset")
    max_num_seqs: Annotated[Runtime[int], Renamed("max_batch")] = Field(
        256, ge=1, description="traces that are open at once; others wait. With llama.cpp at most one for each slot"
    )
    max_connections: Runtime[int] = Field(256, ge=1, description="requests that are under way at once")
    server_wait: Runtime[float] = Field(
        600.0, ge=0, description="seconds to wait for a server that starts, restarts or is overloaded"
    )
    http_retries: Runtime[int] = Field(
        5, ge=0, description="retries in a row after a server's internal error (HTTP 500)"
    )
    retry_pause: Runtime[float] = Field(
        0.5, ge=0, description="seconds before the first retry; each later pause is doubled"
    )
    connect_timeout: Runtime[float] = Field(10.0, gt=0, description="seconds to wait for a connection")
    read_timeout: Runtime[float] = Field(
        600.0, gt=0, description="seconds to wait for the next token, in the server's queue too"
    )
    ca_file: Runtime[Path | None] = Field(
        None, description="PEM file of certificate authorities to trust besides the usual ones (or SSL_CERT_FILE)"
    )
    server_priority: Runtime[bool] = Field(
        False, description="ask vLLM for open traces to go first; it must run with --scheduling-policy priority"
    )
