"""What the requests of all routes are made of."""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)
from pydantic_core import PydanticCustomError

T = TypeVar("T")

MAX_METADATA = 16  # pairs, as OpenAI

Word = Annotated[str, Field(max_length=512)]
"""A name, or a word about a request."""

Metadata = Annotated[dict[Annotated[str, Field(max_length=64)], Word], Field(max_length=MAX_METADATA)]
"""Pairs of words about a request."""


class Wire(BaseModel):
    """A part of a request: nothing unknown, nothing converted."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def either(error: str) -> Discriminator:
    """For a union of ``Tag("text")``, ``Tag("list")`` and ``Tag("object")``: errors speak of the one that was meant.

    Args:
        error: what is expected, where it is none of them.
    """
    return Discriminator(_shape, custom_error_type="union_shape", custom_error_message=f"expected {error}")


def _shape(value: Any) -> str | None:
    shapes: tuple[tuple[type, str], ...] = ((str, "text"), (list, "list"), (dict, "object"), (BaseModel, "object"))
    return next((name for kind, name in shapes if isinstance(value, kind)), None)


def _refuse(value: Any, check: ValidatorFunctionWrapHandler) -> Any:
    try:
        return check(value)
    except ValidationError as error:
        raise PydanticCustomError("unsupported", "is not supported here: leave it out") from error


NEUTRAL = WrapValidator(_refuse)
"""Marks a field whose type has the values alone that ask for nothing: all others are refused as not supported."""

Many = Annotated[list[T], Field(fail_fast=True)]
"""A list that may be long: of what is wrong in it, the first is enough."""

Nothing = Annotated[list[Any], Field(max_length=0)]
"""An empty list."""
