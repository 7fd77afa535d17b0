"""Base types of the request schemas."""

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

MAX_METADATA = 16  # pairs, as in OpenAI's API

Word = Annotated[str, Field(max_length=512)]
"""A short string, such as a name."""

Metadata = Annotated[dict[Annotated[str, Field(max_length=64)], Word], Field(max_length=MAX_METADATA)]
"""Metadata of a request."""


class Wire(BaseModel):
    """Base class: unknown fields are refused, and values are not converted."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def either(error: str) -> Discriminator:
    """Discriminates a union of ``Tag("text")``, ``Tag("list")`` and ``Tag("object")``, so that errors refer to one.

    Args:
        error: what is expected, for a value that is none of them.
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
"""Marks a field that accepts only neutral values; all others are refused as not supported."""

Many = Annotated[list[T], Field(fail_fast=True)]
"""A list that may be long: validation stops at its first error."""

Nothing = Annotated[list[Any], Field(max_length=0)]
"""An empty list."""
