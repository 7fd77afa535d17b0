"""Run a model's Python as a notebook does, in isolated processes (kernels).

::

    async with Sandbox(limits=Limits(), size=8) as box:
        async with box.session() as session:
            result = await session.execute("x = 6*7\\nprint(x)", timeout=10.0)
    result.outcome, result.text

What code does wrong is a `Result` with an `Outcome`, file operations that fail raise a `FileError`; what the
infrastructure does wrong raises a `SandboxError`.
"""

from sandbox.base import BaseSandbox, Session, Stats
from sandbox.capacity import most_kernels
from sandbox.errors import (
    FileError,
    FileNameError,
    FileNotFound,
    FileRefused,
    FilesLost,
    FilesUnsupported,
    FileTooLarge,
    HostFull,
    KernelProtocolError,
    KernelStartError,
    NotAFile,
    SandboxClosed,
    SandboxError,
    SandboxFaulty,
    SandboxUnavailable,
    TooManyFiles,
)
from sandbox.fake import FakeSandbox
from sandbox.files import FileInfo
from sandbox.limits import Limits
from sandbox.result import Image, Outcome, Result
from sandbox.sandbox import Sandbox

__all__ = [
    "BaseSandbox",
    "FakeSandbox",
    "FileError",
    "FileInfo",
    "FileNameError",
    "FileNotFound",
    "FileRefused",
    "FileTooLarge",
    "FilesLost",
    "FilesUnsupported",
    "HostFull",
    "Image",
    "KernelProtocolError",
    "KernelStartError",
    "Limits",
    "NotAFile",
    "Outcome",
    "Result",
    "Sandbox",
    "SandboxClosed",
    "SandboxError",
    "SandboxFaulty",
    "SandboxUnavailable",
    "Session",
    "Stats",
    "TooManyFiles",
    "most_kernels",
]
