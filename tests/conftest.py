"""Shared by all tests: vocabularies, hypothesis profiles, marks and xdist groups."""

from __future__ import annotations

import gc
import os
import signal
from pathlib import Path

import pytest
from hypothesis import settings

from tests.support import vocabularies

settings.register_profile("tests", deadline=None, derandomize=True, max_examples=60, database=None)
settings.register_profile("nightly", deadline=None, max_examples=1_500, database=None, print_blob=True)
settings.load_profile("tests")  # finds the same examples in every run

# A model in each of several processes: each takes one core rather than all of them wait for one another.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# Who starts the tests in the background of a shell has these ignored, and so would all that the tests start.
for _number, _handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGQUIT, signal.SIG_DFL)):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _handler)

_TESTS = Path(__file__).parent
_LONGEST_FIRST = ("server", "faults", "end_to_end", "slow")


@pytest.hookimpl(tryfirst=True)  # before pytest deselects by marks and xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark by folder; keep the tests of a file together, since they share what it has opened."""
    for item in items:
        folder, *_ = item.path.relative_to(_TESTS).parts
        if folder in ("faults", "end_to_end"):
            item.add_marker(folder)
        if folder == "real":
            item.add_marker("server")
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(str(item.path.relative_to(_TESTS))))
    # With several processes slow tests come first, so that no process runs one alone at the end.
    order = {name: place for place, name in enumerate(_LONGEST_FIRST)}
    items.sort(key=lambda item: min((order.get(mark.name, len(order)) for mark in item.iter_markers()), default=9))


@pytest.hookimpl(trylast=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """In a process of several: groups may be without effect, which only costs time, and is not seen."""
    if getattr(session.config.option, "loadgroup", False) and any("@" not in item.nodeid for item in session.items):
        raise pytest.UsageError("these versions of pytest and pytest-xdist do not group tests; see constraints.txt")
    # What has been imported stays: a collection, as each engine makes when it is closed, need not look at all of it.
    gc.collect()
    gc.freeze()


# The second of the large vocabularies takes as long as all the others.
_VOCABULARIES = [
    pytest.param(name, id=name, marks=pytest.mark.slow if name == vocabularies.REAL[1] else ())
    for name in vocabularies.NAMES
]


@pytest.fixture(scope="session", params=_VOCABULARIES)
def vocabulary(request: pytest.FixtureRequest) -> vocabularies.Vocabulary:
    """Each of the vocabularies in turn; the real ones are skipped where their data is absent."""
    if request.param in vocabularies.REAL and not vocabularies.QWEN_RANKS.is_file():
        pytest.skip(f"the Qwen vocabulary is not here (shared/data/tokenizers/{vocabularies.QWEN_RANKS.name})")
    return vocabularies.vocabulary(request.param)
