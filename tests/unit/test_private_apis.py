"""The private APIs of other packages that we use: each exists in the installed versions, and is listed here.

Upper bounds in ``pyproject.toml`` are majors, and what begins with an underscore may go in any minor release. A test
that fails here names what has gone and which of our files to look at; what vLLM has changed is found out at run time
as well (``engines/vllm/compatibility.py``).
"""

from __future__ import annotations

import ast
import importlib
import inspect
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, reduce
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Private:
    """``module:attribute`` of another package, what its parameters begin with, and which of our files needs it."""

    where: str
    user: str
    takes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.where.rpartition(".")[2]


TRAINER, SHELL = "start_agent/training/trainer.py", "sandbox/inside/shell.py"
SERVING, H11 = "start_agent/server/serving.py", "uvicorn.protocols.http.h11_impl:H11Protocol"
USED = [
    Private("transformers:Trainer._get_train_sampler", TRAINER, ("self", "train_dataset")),
    Private("transformers:Trainer._issue_warnings_after_load", TRAINER, ("self", "load_result")),
    Private("trl:SFTTrainer._save_checkpoint", TRAINER, ("self", "model", "trial")),
    Private("trl:SFTTrainer._send_telemetry", TRAINER, ("self",)),
    Private("transformers:PreTrainedConfig._attn_implementation", "start_agent/engines/transformers/passes.py"),
    Private(
        "transformers.cache_utils:CacheLayerMixin.get_mask_sizes",
        "start_agent/engines/transformers/cache.py",
        ("self", "query_length"),
    ),
    Private("transformers.cache_utils:get_layer_types_and_kwargs", "start_agent/engines/transformers/architecture.py"),
    Private("transformers.utils.hub:extract_commit_hash", "start_agent/models.py"),
    Private("ray._private.ray_constants:ENABLE_RAY_CLUSTER", "start_agent/batch/cluster.py"),
    Private("vllm.v1.core.sched.scheduler:Scheduler._preempt_request", "start_agent/engines/vllm/scheduler.py"),
    Private(
        "vllm.v1.core.sched.scheduler:Scheduler._update_request_with_output",
        "start_agent/engines/vllm/scheduler.py",
        ("self", "request", "new_token_ids"),
    ),
    Private("vllm.v1.executor.uniproc_executor:UniProcExecutor._init_executor", "start_agent/engines/vllm/process.py"),
    Private("IPython.core.interactiveshell:InteractiveShell._tee", SHELL, ("self", "channel")),
    Private("IPython.core.interactiveshell:InteractiveShell._inspect", SHELL, ("self", "meth", "oname", "namespaces")),
    Private("IPython.core.interactiveshell:InteractiveShell._format_exception_for_storage", SHELL, ("self",)),
    Private("IPython.core.interactiveshell:InteractiveShell.loop_runner", "sandbox/inside/build.py"),
    Private("IPython.core.history:HistoryManager._i", "sandbox/inside/shortcuts.py"),
    Private("IPython.core.history:HistoryManager._ii", "sandbox/inside/shortcuts.py"),
    Private("IPython.core.history:HistoryManager._iii", "sandbox/inside/shortcuts.py"),
    Private("IPython.core.history:HistoryManager._i00", "sandbox/inside/shortcuts.py"),
    Private("IPython.lib:pretty._repr_pprint", "sandbox/inside/shortcuts.py"),
    # Public by name, and documented nowhere.
    Private("uvicorn:Server.capture_signals", SERVING, ("self",)),
    Private("uvicorn:Server.startup", SERVING, ("self", "sockets")),
    Private(f"{H11}.connection_made", SERVING, ("self", "transport")),
    Private(f"{H11}.data_received", SERVING, ("self", "data")),
    Private(f"{H11}.on_response_complete", SERVING, ("self",)),
    Private(f"{H11}.connection_lost", SERVING, ("self", "exc")),
    Private("sympy:Float._prec", "start_agent/grading/expressions.py"),
    Private("asyncio:_set_running_loop", "sandbox/inside/loops.py"),
    Private("threading:_DummyThread", "sandbox/inside/earlier.py"),
    Private("threading:_shutdown", "sandbox/inside/fork.py"),
    Private("atexit:_run_exitfuncs", "sandbox/inside/fork.py"),
    Private("concurrent.futures.thread:_WorkItem", "sandbox/inside/earlier.py"),
    Private("multiprocessing.context:_concrete_contexts", "sandbox/inside/shared.py"),
]


@pytest.mark.filterwarnings("ignore")  # what vLLM and TRL warn of when they are imported
@pytest.mark.parametrize("private", USED, ids=lambda private: private.where)
def test_it_is_there(private: Private) -> None:
    package = private.where.partition(":")[0].partition(".")[0]
    pytest.importorskip(package)
    release = getattr(importlib.import_module(package), "__version__", platform.python_version())
    said = f"{package} {release} has no {private.where} as {private.user} uses it"
    module, _, path = private.where.partition(":")
    try:
        found: Any = reduce(getattr, path.split("."), importlib.import_module(module))
    except (ImportError, AttributeError) as error:
        pytest.fail(f"{said}: {error}")
    if private.takes:
        parameters = tuple(inspect.signature(found).parameters)
        assert parameters[: len(private.takes)] == private.takes, f"{said}: it takes {parameters}"


NAMED_IN = [
    ("IPython.core.interactiveshell:InteractiveShell.run_code", "exec", "sandbox/inside/build.py"),
    ("IPython.core.interactiveshell:InteractiveShell.run_code", "eval", "sandbox/inside/build.py"),
    ("IPython.core.displayhook:DisplayHook.is_active.fget", "_is_active", SHELL),
    ("traitlets:HasTraits.setup_instance", "_trait_values", SHELL),
]
"""What one of our files sets on their objects and modules: a function of theirs that uses it, its name, our file."""


@pytest.mark.parametrize(("where", "name", "user"), NAMED_IN)
def test_it_is_used(where: str, name: str, user: str) -> None:
    module, _, path = where.partition(":")
    function: Any = reduce(getattr, path.split("."), importlib.import_module(module))
    assert name in function.__code__.co_names, f"{where} does not use {name}, which {user} sets"


@cache
def sources() -> dict[str, ast.Module]:
    """Our modules, by their paths in the repository."""
    files = [file for package in ("start_agent", "sandbox", "hints") for file in (ROOT / package).rglob("*.py")]
    return {str(file.relative_to(ROOT)): ast.parse(file.read_bytes()) for file in files}


def private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name != "_"


def names_of_ours() -> set[str]:
    """All names that our modules give to something themselves."""
    found: set[str] = set()
    for tree in sources().values():
        for node in ast.walk(tree):
            match node:
                case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                    found.add(name)
                case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                    found.add(name)
    return found


def accessed() -> Iterator[tuple[str, str]]:
    """What is taken by a private name from anything but ``self`` and ``cls``, and private modules that are imported."""
    for path, tree in sources().items():
        for node in ast.walk(tree):
            match node:
                case ast.Attribute(value=ast.Name(id="self" | "cls")):
                    pass
                case ast.Attribute(attr=name) if private(name):
                    yield path, name
                case ast.ImportFrom(module=str(module), names=names):
                    yield from ((path, name) for name in module.split(".") if private(name))
                    yield from ((path, alias.name) for alias in names if private(alias.name))


OF_PYTHON = {"_exit", "_getframe", "_replace"}
"""Private by name alone: documented by Python."""


def test_what_is_taken_from_others_is_listed() -> None:
    listed = {private.where for private in USED} | {name for _, name, _ in NAMED_IN}
    ours = names_of_ours() | OF_PYTHON
    missing = {
        f"{path}: {name}" for path, name in accessed() if name not in ours and not any(name in one for one in listed)
    }
    assert not missing, "list these in USED, so that a test fails where they go"


CLASSES = [
    ("start_agent.training.trainer", "RowsTrainer"),
    ("start_agent.engines.transformers.cache", "SlotCache"),
    ("start_agent.engines.transformers.cache", "_SlotLayer"),
    ("start_agent.engines.vllm.scheduler", "CheckingScheduler"),
    ("start_agent.engines.vllm.process", "OneProcess"),
    ("sandbox.inside.shell", "Shell"),
    ("sandbox.inside.shell", "DisplayHook"),
    ("sandbox.inside.shortcuts", "History"),
]
"""Our classes that override something private."""


@pytest.mark.filterwarnings("ignore")  # as above
@pytest.mark.parametrize(("module", "name"), CLASSES)
def test_what_is_overridden_is_listed(module: str, name: str) -> None:
    """An override of what is gone is never called, and nothing says so."""
    package = {"training": "trl", "engines": module.split(".")[2]}.get(module.split(".")[1], "IPython")
    pytest.importorskip(package)
    made = getattr(importlib.import_module(module), name)
    file = str(Path(module.replace(".", "/") + ".py"))
    body = next(node.body for node in sources()[file].body if isinstance(node, ast.ClassDef) and node.name == name)
    own = {node.name for node in body if isinstance(node, ast.FunctionDef)}
    own |= {
        target.id
        for node in body
        for target in ast.walk(node)
        if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(target, ast.Name)
    }
    inherited = {
        name
        for base in made.__mro__[1:]
        for name in vars(base)
        if not base.__module__.startswith(("start_agent", "sandbox"))
    }
    assert {name for name in own & inherited if private(name)} <= {private.name for private in USED} | {
        name for _, name, _ in NAMED_IN
    }
