"""The options of the HTTP engine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from start_agent.engines.base import REVISION
from start_agent.fields import Renamed, Runtime

ServerKind = Literal["auto", "vllm", "vllm-generate", "sglang", "llama.cpp"]


class HTTPOptions(BaseModel):
    """The server and how to connect to it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    base_url: Runtime[str] = Field("http://localhost:8000/v1", description="URL of the server, with or without /v1")
    server_kind: Runtime[ServerKind] = Field(
        "auto", description="kind of server; auto detects it. vllm-generate is vLLM's route /inference/v1/generate"
    )
    served_model: Runtime[str | None] = Field(None, description="the model's name on the server (default: --model)")
    revision: str | None = Field(None, description=REVISION)
    context_length: int | None = Field(None, ge=2, description="tokens in a trace; the server's limit if unset")
    max_num_seqs: Annotated[Runtime[int], Renamed("max_batch")] = Field(
        256, ge=1, description="most open traces; others wait. With llama.cpp at most one per slot"
    )
    max_connections: Runtime[int] = Field(256, ge=1, description="most concurrent requests")
    server_wait: Runtime[float] = Field(
        600.0, ge=0, description="seconds to wait for a server that is starting, restarting or overloaded"
    )
    http_retries: Runtime[int] = Field(
        5, ge=0, description="consecutive retries after an internal server error (HTTP 500)"
    )
    retry_pause: Runtime[float] = Field(
        0.5, ge=0, description="seconds before the first retry; the pause doubles with each retry"
    )
    connect_timeout: Runtime[float] = Field(10.0, gt=0, description="seconds to wait for a connection")
    read_timeout: Runtime[float] = Field(
        600.0, gt=0, description="seconds to wait for the next token, including time in the server's queue"
    )
    ca_file: Runtime[Path | None] = Field(
        None, description="PEM file of certificate authorities to trust in addition to the default (or SSL_CERT_FILE)"
    )
    server_priority: Runtime[bool] = Field(
        False, description="give open traces priority in vLLM, which must run with --scheduling-policy priority"
    )
