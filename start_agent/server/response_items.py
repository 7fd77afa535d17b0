"""The output items of a response while they are generated: reasoning, code interpreter calls, messages."""

from __future__ import annotations

import base64
import secrets
from dataclasses import dataclass, field
from typing import Any, ClassVar

from sandbox import Result
from start_agent.decoding.segments import Segment

JSON = dict[str, Any]
"""A JSON object."""


def new_id(prefix: str) -> str:
    """A random id: ``resp_``, ``msg_``, ``cntr_`` … and 32 hexadecimal digits."""
    return f"{prefix}_{secrets.token_hex(16)}"


@dataclass(slots=True)
class Growing:
    """Base class of the items.

    Attributes:
        id: the item's id.
        index: its index in the response's output.
        texts: pieces of its text or code so far.
        spans: its spans: author and number of tokens.
    """

    prefix: ClassVar[str]

    id: str
    index: int
    texts: list[str] = field(default_factory=list)
    spans: list[JSON] = field(default_factory=list)

    @property
    def text(self) -> str:
        """The text or code so far."""
        return "".join(self.texts)

    def count(self, segment: Segment) -> None:
        """Count the tokens of a segment that belongs to the item."""
        if not segment.token_ids:
            return
        author = {"kind": segment.author.value, "cause": segment.cause}
        last = self.spans[-1] if self.spans else {}
        if last | author == last:
            last["tokens"] += len(segment.token_ids)
        else:
            self.spans.append(author | {"tokens": len(segment.token_ids)})

    def item(self, status: str) -> JSON:
        """The item as a new JSON object."""
        raise NotImplementedError

    def _extension(self, status: str, **more: Any) -> JSON:
        """The field ``start_agent``; only for items that have ended."""
        if status in ("in_progress", "interpreting"):
            return {}
        return {"start_agent": {"spans": [dict(span) for span in self.spans], **more}}


@dataclass(slots=True)
class Reasoning(Growing):
    """Thoughts: the text before the answer, including hints, without code."""

    prefix: ClassVar[str] = "rs"

    def part(self) -> JSON:
        """Its only content part."""
        return {"type": "reasoning_text", "text": self.text}

    def item(self, status: str) -> JSON:
        """See ``Growing``."""
        content = [self.part()] if self.texts else []
        base = {"id": self.id, "type": "reasoning", "status": status, "summary": [], "content": content}
        return base | self._extension(status)


@dataclass(slots=True)
class CodeCall(Growing):
    """A code block that is run, and its result.

    Attributes:
        container_id: the container's id.
        closed: whether the model has written the closing fence.
        started: whether the cell was sent to the sandbox.
        result: the cell's result.
        notice: what the model reads if the cell was not run.
    """

    prefix: ClassVar[str] = "ci"

    container_id: str = ""
    closed: bool = False
    started: bool = False
    result: Result | None = None
    notice: str | None = None

    def item(self, status: str) -> JSON:
        """See ``Growing``."""
        base = {
            "id": self.id,
            "type": "code_interpreter_call",
            "status": status,
            "code": self.text,
            "container_id": self.container_id,
            "outputs": None if status in ("in_progress", "interpreting") else self._outputs(),
        }
        return base | self._extension(status, cell=self._cell())

    def _outputs(self) -> list[JSON] | None:
        """What the model reads, and figures, which it does not see; None if the cell was not run."""
        if self.result is None:
            return None if self.notice is None else [{"type": "logs", "logs": self.notice}]
        logs = [{"type": "logs", "logs": self.result.text}] if self.result.text else []
        return [*logs, *({"type": "image", "url": data_url(image.mime, image.data)} for image in self.result.images)]

    def _cell(self) -> JSON:
        if self.result is None:
            return {"outcome": "failed" if self.started else "not_run"}
        lost = {"state_lost": True} if self.result.state_lost else {}
        return {"outcome": self.result.outcome.value, "seconds": round(self.result.duration_s, 6), **lost}


@dataclass(slots=True)
class Message(Growing):
    """The answer.

    Attributes:
        logprobs: log-probabilities of its tokens if requested; otherwise empty.
    """

    prefix: ClassVar[str] = "msg"

    logprobs: list[JSON] = field(default_factory=list)

    def part(self) -> JSON:
        """Its only content part."""
        return {"type": "output_text", "text": self.text, "annotations": [], "logprobs": list(self.logprobs)}

    def item(self, status: str) -> JSON:
        """See ``Growing``."""
        content = [self.part()] if self.texts else []
        base = {"id": self.id, "type": "message", "role": "assistant", "status": status, "content": content}
        return base | self._extension(status)


def data_url(mime: str, data: bytes) -> str:
    """Encode bytes as a ``data:`` URL."""
    return f"data:{mime};base64,{base64.b64encode(data).decode('ascii')}"
