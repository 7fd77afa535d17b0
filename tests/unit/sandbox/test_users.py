"""User ids of kernels, if root makes each a separate user: no two on this machine share one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox import HostFull, Sandbox, users

ROOT = Path(__file__).parents[3]

pytestmark = pytest.mark.skipif(not users.changes_users(), reason="only root makes kernels other users")

# Claims so many ids from the first on, says which, and ends when its standard input does.
_OTHER = """
import sys
from sandbox import users
users._PLACES, users.FIRST, users.LAST = sys.argv[1:2], int(sys.argv[2]), int(sys.argv[3])
users._claims._next = users.FIRST
print(*(users.claim() for _ in range(int(sys.argv[4]))), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """Six ids, of which the first is tried first, and a folder of their own for their locks."""
    monkeypatch.setattr(users, "_PLACES", (str(tmp_path),))
    monkeypatch.setattr(users, "LAST", users.FIRST + 5)
    monkeypatch.setattr(users, "_anywhere", lambda: users.FIRST)
    monkeypatch.setattr(users, "_claims", users._Claims())
    yield tmp_path
    for uid in range(users.FIRST, users.LAST + 1):
        users.release(uid)
    assert users._claims._file is None


def _other(folder: Path, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", _OTHER, folder, users.FIRST, users.LAST, count]
    return subprocess.Popen(list(map(str, command)), cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def _claimed(process: subprocess.Popen[str]) -> list[int]:
    assert process.stdout is not None
    return list(map(int, process.stdout.readline().split()))


def test_processes_have_different_ids_until_one_ends(few: Path) -> None:
    first = users.FIRST
    assert users.claim() == first
    with _other(few, 4) as other:
        assert _claimed(other) == [first + 1, first + 2, first + 3, first + 4]
        assert users.claim() == first + 5
        with pytest.raises(HostFull, match=r"all 6 user ids of kernels .* are in use on this machine"):
            users.claim()
        users.release(first)
        assert users.claim() == first
        other.kill()
    assert [users.claim() for _ in range(4)] == [first + 1, first + 2, first + 3, first + 4]


def test_an_id_is_used_again_as_late_as_can_be(few: Path) -> None:
    claimed = []
    for _ in range(7):
        uid = users.claim()
        assert uid is not None
        users.release(uid)
        claimed.append(uid - users.FIRST)
    assert claimed == [0, 1, 2, 3, 4, 5, 0]


def test_a_fork_has_none_of_its_parents(few: Path) -> None:
    first = users.FIRST
    assert users.claim() == first
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        try:
            users.release(first)  # which is not the child's to release
            os.write(writing, f"{users.claim()} {users.claim()}".encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reading, 100).decode() == f"{first + 1} {first + 2}"
    for end in (reading, writing):
        os.close(end)
    # The child's end has ended its locks, and not the parent's.
    with _other(few, 1) as other:
        assert _claimed(other) == [first + 1]
        other.kill()


@pytest.mark.parametrize("kind", ["another user's", "readable", "link", "pipe", "folder"])
def test_a_file_that_others_have_made_is_not_used(few: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    places = [few / name for name in ("open", "own")]
    for place in places:
        place.mkdir()
    monkeypatch.setattr(users, "_PLACES", [str(few / "missing"), *map(str, places)])
    file = places[0] / "sandbox-users-0"
    if kind == "link":
        (few / "target").touch(0o600)
        file.symlink_to(few / "target")
    elif kind == "pipe":
        os.mkfifo(file, 0o600)
    elif kind == "folder":
        file.mkdir()
    else:
        file.touch(0o600)
        os.chown(file, users.LAST if kind == "another user's" else 0, 0)
        file.chmod(0o600 if kind == "another user's" else 0o604)
    assert users.claim() == users.FIRST
    assert (places[1] / "sandbox-users-0").stat().st_mode & 0o777 == 0o600


def test_without_a_place_for_the_locks_there_is_an_error(few: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(users, "_PLACES", (str(few / "missing"),))
    with pytest.raises(FileNotFoundError):
        users.claim()


@pytest.mark.parametrize("tier", [1, 2])
async def test_sessions_with_no_id_left_are_refused_and_the_others_continue(few: Path, tier: int) -> None:
    with _other(few, 4) as other:
        _claimed(other)
        async with Sandbox(size=8, prestart=0, tier=tier) as box:  # type: ignore[arg-type]
            async with box.session() as first, box.session() as second:
                code = "import os\nos.getuid()"
                found = {(await session.execute(code)).text for session in (first, second)}
                assert found == {str(users.FIRST + 4), str(users.FIRST + 5)}
                with pytest.raises(HostFull, match="user ids"):
                    async with box.session():
                        pass
                assert (await first.execute("6 * 7")).text == "42"
            async with box.session() as third:
                assert (await third.execute(code)).text in found
            assert box.stats.faults == 2  # both attempts, and neither counts towards a faulty sandbox
        other.kill()
