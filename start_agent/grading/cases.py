"""Reads the tests of a code problem in LiveCodeBench's format, without unpickling.

Its private tests are JSON, or base64 of a zlib-compressed pickle of one JSON string. Unpickling can run arbitrary code;
this module inspects the pickle's opcodes instead and accepts only those that build a string.
"""

from __future__ import annotations

import base64
import binascii
import json
import pickletools
import zlib
from dataclasses import dataclass

from start_agent.errors import DataError
from start_agent.problem import CodeTests

MAX_BYTES = 512 << 20
"""Limit for the decompressed tests of one problem; the largest known are about a fifth of it."""

_STRINGS = frozenset({"SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "UNICODE"})
_NEUTRAL = frozenset({"PROTO", "FRAME", "MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT", "STOP"})


@dataclass(frozen=True, slots=True)
class Case:
    """One test: the program's input and its expected output. For a function both are JSON, one value per line."""

    input: str
    output: str


def read_cases(tests: CodeTests) -> list[Case]:
    """All tests of a problem, the public ones first.

    Raises:
        DataError: their format is unknown, or there are none.
    """
    cases = [*_cases(tests.public, "public"), *_cases(tests.private, "private")]
    if not cases:
        raise DataError("a code problem without tests cannot be graded")
    return cases


def _cases(text: str, which: str) -> list[Case]:
    if not text.strip():
        return []
    try:
        rows = json.loads(text if text.lstrip().startswith("[") else unpack(text))
        return [Case(_text(row["input"]), _text(row["output"])) for row in rows]
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise DataError(f"cannot read the {which} tests: {str(error)[:100]}") from error


def _text(raw: object) -> str:
    if not isinstance(raw, str):
        raise TypeError(f"expected a string, found {raw!r:.40}")
    return raw


def unpack(text: str) -> str:
    """Decode base64 of a zlib-compressed pickled string. Raises ValueError for anything else."""
    try:
        packed = base64.b64decode(text.strip(), validate=True)
        inflater = zlib.decompressobj()
        data = inflater.decompress(packed, MAX_BYTES)
    except (binascii.Error, zlib.error) as error:
        raise ValueError(f"neither JSON nor zlib-compressed base64 ({error})") from error
    if inflater.unconsumed_tail:
        raise ValueError(f"more than {MAX_BYTES >> 20} MiB")
    if not inflater.eof:
        raise ValueError("the compressed data ends too early")
    return unpickled_string(data)


def unpickled_string(data: bytes) -> str:
    """The value of a pickle of a single string, read without executing the pickle.

    Raises:
        ValueError: it contains anything else, or is damaged.
    """
    found: list[str] = []
    try:
        for opcode, value, _ in pickletools.genops(data):
            if opcode.name in _STRINGS and isinstance(value, str):
                found.append(value)
            elif opcode.name not in _NEUTRAL:
                raise ValueError(f"the pickle has an opcode that does not build a string ({opcode.name})")
    except ValueError:
        raise
    except Exception as error:  # pickletools does not wrap the errors that its readers raise on damaged data
        raise ValueError(f"damaged pickle ({type(error).__name__})") from error
    if len(found) != 1:
        raise ValueError(f"expected a pickle of one string, found {len(found)}")
    return found[0]
