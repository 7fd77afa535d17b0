"""The options of the server."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

# As browsers send it (RFC 6454): lower case, no path. Extensions of browsers have schemes of their own.
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://(?:[a-z0-9._-]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?")


class ServerOptions(BaseModel):
    """Address, authentication and limits of the server."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = Field("127.0.0.1", min_length=1, description="address to listen on; 0.0.0.0 for all interfaces")
    port: int = Field(8000, ge=0, le=65535, description="port to listen on; 0 for a free one")
    api_key_file: Path | None = Field(
        None,
        description="file of API keys, one per line and client; START_AGENT_API_KEY may hold another one. Without "
        "keys anyone who can reach the server may use it",
    )
    model_name: str | None = Field(
        None, min_length=1, description="the model's name for clients, vLLM's served-model-name (default: its own)"
    )
    max_requests: int = Field(64, ge=1, description="maximum number of running rollouts")
    queue: int = Field(256, ge=0, description="maximum number of waiting rollouts; more are answered with 429")
    request_timeout: float = Field(600.0, gt=0, description="timeout of a request in seconds, including the queue")
    max_body: int = Field(4 << 20, ge=1024, description="maximum bytes of a request's body")
    stream_interval: int = Field(1, ge=1, description="minimum tokens per streamed event, except for the first")
    reasoning_field: Literal["both", "reasoning", "reasoning_content"] = Field(
        "both", description="field of chat completions for the thoughts"
    )
    cors: tuple[str, ...] = Field(
        (), description="origin whose pages may use the server, such as https://page.example; * for all"
    )
    allowed_hosts: tuple[str, ...] = Field(
        (), description="accepted Host header (default: loopback names for a server on loopback, otherwise all)"
    )
    containers: int = Field(16, ge=0, description="maximum number of containers (kernels that stay open)")
    container_ttl: float = Field(1200.0, gt=0, description="seconds until an idle container is closed")
    state: Path | None = Field(None, description="SQLite file that keeps responses and conversations over restarts")
    timeout_graceful_shutdown: float = Field(
        30.0, ge=0, description="seconds that running requests have to finish after SIGTERM"
    )

    @field_validator("cors")
    @classmethod
    def _origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            if origin != "*" and not _ORIGIN.fullmatch(origin):
                raise ValueError(f"{origin!r} is not an origin: expected scheme://host[:port] without a path, or *")
        return origins
