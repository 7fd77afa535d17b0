"""The exceptions of start-agent.

::

    StartAgentError
    ├── InputError              invalid input; the message says what to do
    │   ├── ConfigError         an option or a configuration file
    │   ├── ModelError          a model name or folder
    │   ├── TokenizerError      a vocabulary whose tokens cannot be mapped to bytes
    │   ├── PromptError         no chat template, or one that fails
    │   │   └── QuestionError   an empty question, or an invalid conversation
    │   │       └── ContextLengthError  a prompt that leaves no room in the model's context
    │   ├── TraceFormatError    a stored trace that cannot be read
    │   ├── RunDirectoryError   a run directory that is in use, unreadable, or of another configuration
    │   ├── DataError           a data set that cannot be read, or a missing column
    │   ├── FolderInUseError    a folder that another process uses; also a RunDirectoryError and a DataError
    │   ├── RowError            a trace that makes no training row: no token is trained on, or it is too long
    │   ├── MissingExtraError   a package that is not installed; names the command that installs it
    │   └── NameTakenError      another package shadows one of ours; also an ImportError
    ├── EngineError             the engine failed: infrastructure, never the model's fault
    │   └── WorkerError         a worker on another machine died
    ├── GradingError            a grader's process could not be started: infrastructure, no verdict
    ├── TrainingError           training diverged
    ├── BatchError              a run stopped early: too many faults, or a full disk; finished records are on disk
    ├── StageError              a stage of a recipe failed; names it and its last message
    └── ReplayError             a controller took another action than the stored trace records

The packages ``hints`` and ``sandbox`` have their own trees, ``HintError`` and ``SandboxError``. Faults of the model
(a failing cell, endless repetition, no answer) are not exceptions: they are recorded in the trace.
"""

from __future__ import annotations

from collections.abc import Iterable

INPUT_ERROR = 2
"""The exit code of a command with invalid input: an InputError, or a wrong command line."""


class StartAgentError(Exception):
    """The base class of all exceptions that start-agent raises."""


class InputError(StartAgentError):
    """Invalid input. The message is one line that says what to do."""


class ConfigError(InputError):
    """An option or a configuration file is wrong."""


class ModelError(InputError):
    """A model cannot be found or is of a kind that the engine does not run."""


class TokenizerError(InputError):
    """A tokenizer whose tokens cannot be mapped to bytes."""


class PromptError(InputError):
    """A question that cannot be rendered as a prompt for this model."""


class QuestionError(PromptError):
    """The question itself is invalid: empty, or longer than the model's context."""


class ContextLengthError(QuestionError):
    """The prompt is longer than the model's context, or fills it."""


class TraceFormatError(InputError):
    """A stored trace that cannot be read."""


class RunDirectoryError(InputError):
    """A run directory that cannot be used: of another configuration, in use by another run, or damaged."""


class DataError(InputError):
    """A data set that cannot be found or read, or that lacks a column; the message lists its columns."""


class FolderInUseError(RunDirectoryError, DataError):
    """A run directory, data folder or folder of a recipe that another process is using.

    Attributes:
        process: that process's id; 0 if the lock does not tell.
    """

    def __init__(self, folder: object, process: int) -> None:
        super().__init__(f"another run (process {process or 'unknown'}) is using {folder}")
        self.process = process


class RowError(InputError):
    """A trace that makes no training row. ``reason`` is ``nothing_trained`` or ``too_long``."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class MissingExtraError(InputError):
    """A needed package is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"the package {package!r} is not installed: run  pip install 'start-agent[{extra}]'")
        self.package = package
        self.extra = extra


class NameTakenError(InputError, ImportError):
    """Another project's package shadows one of ours."""


class EngineError(StartAgentError):
    """The engine failed. Batch runs retry; such a trace is never graded or trained on."""


class WorkerError(EngineError):
    """A worker on another machine died. Its work is rescheduled on the others."""


class GradingError(StartAgentError):
    """A grader failed. There is no verdict: the answer is neither right nor wrong."""


class TrainingError(StartAgentError):
    """Training diverged: the loss or the gradient norm is NaN or infinite."""


class BatchError(StartAgentError):
    """A run stopped early. Finished records are on disk; the same command resumes it."""


class StageError(StartAgentError):
    """A stage of a recipe failed. Finished stages are kept; the same command resumes the recipe."""


class ReplayError(StartAgentError):
    """A controller took another action than the stored trace records."""


def first_line(error: BaseException) -> str:
    """The first line of an error's message, for one-line reports."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A suggestion of similarly spelled known words; empty if there are none."""
    import difflib  # only where there is something to suggest

    close = difflib.get_close_matches(word, list(dict.fromkeys(known)), n=3)
    return f"did you mean {' or '.join(map(repr, close))}?" if close else ""
