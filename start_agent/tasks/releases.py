"""The releases of LiveCodeBench: which of its files each of them is made of.

The set grows by a file at a time, and figures are compared on a release or between two dates of contests. The names
are those of the set's own loading script, where they are called version tags: ``release_v5`` is all that was published
up to the fifth file, ``v5`` what that file added, ``v3_v5`` what three of them did.
"""

from __future__ import annotations

import re

from start_agent.errors import ConfigError

_NAME = re.compile(r"(?:release_)?v(?P<first>[1-9])(?:_v(?P<last>[1-9]))?")


def release_files(release: str) -> tuple[str, ...]:
    """The names of a release's files, in order. Which of them exist, the set knows.

    Raises:
        ConfigError: it is no name of a release.
    """
    found = _NAME.fullmatch(release)
    if found is None or (found["last"] and (release.startswith("release_") or found["last"] <= found["first"])):
        raise ConfigError(f"--release {release}: releases are named release_v5 (all up to v5), v5 (v5 alone), v3_v5")
    first, last = int(found["first"]), int(found["last"] or found["first"])
    if release.startswith("release_"):
        first = 1
    return tuple(f"test{'' if number == 1 else number}.jsonl" for number in range(first, last + 1))
