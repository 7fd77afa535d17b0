"""The tests of a code problem, read from the form in which LiveCodeBench publishes them, without unpickling.

Its private tests are JSON, or base64 of zlib of a pickle that holds one string of JSON. Unpickling runs whatever
the file says; here the pickle's instructions are looked at instead, and only those that spell a string are allowed.
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
"""Of one problem's decompressed tests; the largest known have about a fifth of it."""

_STRINGS = frozenset({"SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "UNICODE"})
_IDLE = frozenset({"PROTO", "FRAME", "MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT", "STOP"})


@dataclass(frozen=True, slots=True)
class Case:
    """One test: what the program is given and what it must answer. In function form both are JSON, one value a line."""

    input: str
    output: str


def read_cases(tests: CodeTests) -> list[Case]:
    """All tests of a problem, the public ones first.

    Raises:
        DataError: they are in no known form, or there are none.
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
        raise DataError(f"{which} tests in no known form: {str(error)[:100]}") from error


def _text(raw: object) -> str:
    if not isinstance(raw, str):
        raise TypeError(f"expected a text, found {raw!r:.40}")
    return raw


def unpack(text: str) -> str:
    """The string in base64 of zlib of a pickled string. Raises ValueError for anything else."""
    try:
        packed = base64.b64decode(text.strip(), validate=True)
        inflater = zlib.decompressobj()
        data = inflater.decompress(packed, MAX_BYTES)
    except (binascii.Error, zlib.error) as error:
        raise ValueError(f"neither JSON nor base64 of zlib ({error})") from error
    if inflater.unconsumed_tail:
        raise ValueError(f"more than {MAX_BYTES >> 20} MiB")
    if not inflater.eof:
        raise ValueError("the compressed data ends too early")
    return unpickled_string(data)


def unpickled_string(data: bytes) -> str:
    """The value of a pickle that holds a single string; nothing in it is ever carried out.

    Raises:
        ValueError: it holds anything else, or is broken.
    """
    found: list[str] = []
    try:
        for opcode, value, _ in pickletools.genops(data):
            if opcode.name in _STRINGS and isinstance(value, str):
                found.append(value)
            elif opcode.name not in _IDLE:
                raise ValueError(f"a pickle that does more than spell a string ({opcode.name})")
    except ValueError:
        raise
    except Exception as error:  # pickletools lets slip what its readers raise on broken data
        raise ValueError(f"a broken pickle ({type(error).__name__})") from error
    if len(found) != 1:
        raise ValueError(f"a pickle of {len(found)} strings")
    return found[0]
