"""What all tests share: the vocabularies, hypothesis that finds the same examples in every run."""

from __future__ import annotations

import signal

import pytest
from hypothesis import settings

from tests.support import vocabularies

settings.register_profile("tests", deadline=None, derandomize=True, max_examples=150, database=None)
settings.load_profile("tests")


# Who starts the tests in the background of a shell has these ignored, and so would all that the tests start.
for _number, _handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGQUIT, signal.SIG_DFL)):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _handler)


@pytest.fixture(scope="session", params=vocabularies.NAMES)
def vocabulary(request: pytest.FixtureRequest) -> vocabularies.Vocabulary:
    """Each of the vocabularies in turn; the real ones are skipped where their data is absent."""
    if request.param in vocabularies.REAL and not vocabularies.QWEN_RANKS.is_file():
        pytest.skip(f"the Qwen vocabulary is not here (shared/data/tokenizers/{vocabularies.QWEN_RANKS.name})")
    return vocabularies.vocabulary(request.param)
