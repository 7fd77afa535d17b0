"""The releases of LiveCodeBench and the files that belong to each.

Each release adds one file, and published figures refer to a release or to a range of contest dates. The names are the
version tags of the data set's own loading script: ``release_v5`` is everything up to the fifth file, ``v5`` only the
fifth file, ``v3_v5`` the third to the fifth.
"""

from __future__ import annotations

import re

from start_agent.errors import ConfigError

_NAME = re.compile(r"(?:release_)?v(?P<first>[1-9])(?:_v(?P<last>[1-9]))?")


def release_files(release: str) -> tuple[str, ...]:
    """The names of a release's files, in order; whether they exist is not checked.

    Raises:
        ConfigError: it is not the name of a release.
    """
    found = _NAME.fullmatch(release)
    if found is None or (found["last"] and (release.startswith("release_") or found["last"] <= found["first"])):
        raise ConfigError(f"--release {release}: use a name like release_v5 (all up to v5), v5 (v5 alone) or v3_v5")
    first, last = int(found["first"]), int(found["last"] or found["first"])
    if release.startswith("release_"):
        first = 1
    return tuple(f"test{'' if number == 1 else number}.jsonl" for number in range(first, last + 1))
