"""Paged lists as in OpenAI's API: ``after``, ``limit``, ``order``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from start_agent.server.errors import APIError
from start_agent.server.response_items import JSON


class Paging(BaseModel):
    """Query parameters of a paged list."""

    model_config = ConfigDict(extra="forbid")

    after: str | None = None
    limit: int = Field(20, ge=1, le=100)
    order: Literal["asc", "desc"] = "desc"

    def page(self, items: Sequence[JSON]) -> JSON:
        """The list object.

        Args:
            items: all items in ascending order, each with an ``id``.

        Raises:
            APIError: 404, no item has the id ``after``.
        """
        ordered = list(items) if self.order == "asc" else list(reversed(items))
        if self.after is not None:
            ids = [item["id"] for item in ordered]
            if self.after not in ids:
                raise APIError(404, f"there is no {self.after[:64]!r} in the list", param="after", code="not_found")
            ordered = ordered[ids.index(self.after) + 1 :]
        data = ordered[: self.limit]
        return {
            "object": "list",
            "data": data,
            "first_id": data[0]["id"] if data else "",
            "last_id": data[-1]["id"] if data else "",
            "has_more": len(ordered) > len(data),
        }
