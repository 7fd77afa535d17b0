"""The options of the server."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class ServerOptions(BaseModel):
    """Where the server listens, who may use it, and how much it takes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = Field("127.0.0.1", min_length=1, description="address to listen at; 0.0.0.0 for all of the machine's")
    port: int = Field(8000, ge=0, le=65535, description="port to listen at; 0 for a free one")
    api_key_file: Path | None = Field(
        None,
        description="file of API keys, one a line, each a client of its own; START_AGENT_API_KEY holds one as well. "
        "Without keys anybody who reaches the server may use it",
    )
    model_name: str | None = Field(
        None, min_length=1, description="what clients call the model (vLLM: served-model-name); unset, its own name"
    )
    max_requests: int = Field(64, ge=1, description="rollouts that run at once")
    queue: int = Field(256, ge=0, description="rollouts that wait for a place; what is beyond is answered 429")
    request_timeout: float = Field(600.0, gt=0, description="seconds that a request may take, in the queue as well")
    max_body: int = Field(4 << 20, ge=1024, description="bytes of a request's body")
    stream_interval: int = Field(1, ge=1, description="tokens that a streamed event has at least, but for the first")
    reasoning_field: Literal["both", "reasoning", "reasoning_content"] = Field(
        "both", description="where chat completions have the thoughts"
    )
    cors: tuple[str, ...] = Field((), description="origin whose pages may use the server; * for all")
    allowed_hosts: tuple[str, ...] = Field(
        (), description="Host header that is answered; unset, of a server on loopback its own names, else all"
    )
    containers: int = Field(16, ge=0, description="containers (kernels that stay) at once")
    container_ttl: float = Field(1200.0, gt=0, description="seconds that a container stays after it was last used")
    state: Path | None = Field(None, description="SQLite file that keeps responses and conversations over restarts")
    timeout_graceful_shutdown: float = Field(
        30.0, ge=0, description="seconds that running requests have to finish after SIGTERM"
    )
