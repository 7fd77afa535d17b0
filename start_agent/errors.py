"""The exceptions of start-agent.

::

    StartAgentError
    ├── InputError              what the user gave cannot be used; the message says what to do
    │   ├── ConfigError         an option or a configuration file
    │   ├── ModelError          a model name or folder
    │   ├── TokenizerError      a vocabulary whose tokens have no known bytes
    │   ├── PromptError         no chat template, or one that fails
    │   │   └── QuestionError   an empty question, or one that is longer than the context
    │   ├── TraceFormatError    a stored trace that cannot be read
    │   ├── RunDirectoryError   a run directory of another configuration, in use, or not to be read
    │   ├── DataError           a data set that cannot be read, or a column that it does not have
    │   ├── FolderInUseError    a folder that another process writes; a RunDirectoryError and a DataError as well
    │   ├── RowError            a trace that makes no training row: nothing in it is learned, or it is too long
    │   ├── MissingExtraError   a package that is not installed; names the command that installs it
    │   └── NameTakenError      another project's package answers to the name of one of ours; an ImportError as well
    ├── EngineError             the engine failed: infrastructure, never the model's fault
    │   └── WorkerError         a worker on another machine died, and with it what it was at
    ├── GradingError            a grader's process could not be started: infrastructure, no verdict
    ├── TrainingError           a training had to stop: its loss is no number any more
    ├── BatchError              a run had to stop: too many faults, a full disk; what is finished is on disk
    ├── StageError              a stage of a recipe failed; says which, and what it said last
    └── ReplayError             a controller took another action than the stored trace records

The packages ``hints`` and ``sandbox`` have trees of their own, ``HintError`` and ``SandboxError``. What a model
does wrong (a failing cell, endless repetition, no answer) is no exception at all: it is recorded in the trace.
"""

from __future__ import annotations

INPUT_ERROR = 2
"""The exit code of a command that was given something that cannot be used: an InputError, or a wrong command line."""


class StartAgentError(Exception):
    """The root: whoever catches this catches everything that start-agent itself raises."""


class InputError(StartAgentError):
    """What the user gave cannot be used. The message is one line that says what to do."""


class ConfigError(InputError):
    """An option or a configuration file is wrong."""


class ModelError(InputError):
    """A model cannot be found or is of a kind that the engine does not run."""


class TokenizerError(InputError):
    """A tokenizer whose tokens cannot be mapped to bytes."""


class PromptError(InputError):
    """A question that makes no usable prompt for this model."""


class QuestionError(PromptError):
    """It is the question's own fault: it is empty, or longer than the model's context."""


class TraceFormatError(InputError):
    """A stored trace that cannot be read."""


class RunDirectoryError(InputError):
    """A run directory that cannot be used: of another configuration, in use by another run, or damaged."""


class DataError(InputError):
    """A data set that cannot be found or read, or that lacks a column; the message lists the columns there are."""


class FolderInUseError(RunDirectoryError, DataError):
    """A run directory, data folder or folder of a recipe that another process is using.

    Attributes:
        process: its id, as far as the lock tells; 0 where it does not.
    """

    def __init__(self, folder: object, process: int) -> None:
        super().__init__(f"another run (process {process or 'unknown'}) is using {folder}")
        self.process = process


class RowError(InputError):
    """A trace that makes no row of a training set. ``reason`` is ``nothing_trained`` or ``too_long``."""

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
    """Another project's package answers to the name of one of ours."""


class EngineError(StartAgentError):
    """The engine failed. Retried by those who can; never graded, never trained on."""


class WorkerError(EngineError):
    """A worker on another machine died. What it was at is handed to the others."""


class GradingError(StartAgentError):
    """A grader could not do its work. There is no verdict: the answer is neither right nor wrong."""


class TrainingError(StartAgentError):
    """A training had to stop, by what it does and not by what it was given: the loss is no number any more."""


class BatchError(StartAgentError):
    """A run had to stop before its end. Everything finished is on disk; the same command goes on from there."""


class StageError(StartAgentError):
    """A stage of a recipe failed. What is done stays done; the same command goes on from there."""


class ReplayError(StartAgentError):
    """A controller took another action than the stored trace records."""


def first_line(error: BaseException) -> str:
    """The first line of an error's message, for one-line reports."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
