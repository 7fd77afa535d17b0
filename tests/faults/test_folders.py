"""Files that code leaves on the disk are removed, however they are nested (tier 3, which uses a folder of the host)."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from sandbox import Outcome, Result, Sandbox, folders, guardian

Attack = Callable[..., Awaitable[Result]]

TIERS = (1, 3)

_BUILDINGS = {
    "deep": "for n in range(5_000): os.mkdir('d'); os.chdir('d')",
    "deep-without-rights": "for n in range(300): os.mkdir('d'); os.chdir('d')\nfor n in range(300):\n"
    "    os.chmod('.', 0)\n    os.chdir('..')",
    "no-rights": "os.mkdir('d')\nopen('d/f', 'w').write('x')\nos.chmod('d', 0)\nos.chmod('.', 0)",
    "files-without-rights": "for n in range(50): os.close(os.open(f'f{n}', os.O_CREAT, 0))",
    "links": "os.symlink('/', 'root')\nos.symlink('.', 'here')\nos.symlink('..', 'up')\nos.symlink('d' * 4000, 'long')",
    "odd-names": "for name in (b'a\\nb', b'\\xff\\xfe', b' ', b'-rf', b'*', b'moved-1', b'x' * 255): os.mkdir(name)",
    "pipes": "os.mkfifo('pipe') if hasattr(os, 'mkfifo') else None\nos.mkdir('d')\nos.mkfifo('d/pipe')",
    "many": "for n in range(1_500): open(f'{n}', 'w').close()",
    "wide-and-deep": "for a in range(12):\n    for b in range(12): os.makedirs(f'{a}/{b}/c/d/e')",
    "gone": "os.rmdir(os.getcwd())",
}


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    "building",
    [
        "for n in range(700): open(f'{n}', 'w').close()",
        "for n in range(15): os.makedirs(f'{n}/' + '/'.join('d' * 40))",
        "for n in range(9): open(f'{n}', 'wb').write(bytes(8 << 20))",
        "for n in range(700): os.mkdir('d'); os.chdir('d')",
    ],
    ids=["files", "folders", "bytes", "deep"],
)
async def test_much_is_not_the_hosts_to_remove(attack: Attack, building: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It took the host's processor time, and one of the few threads that asyncio has for whatever blocks."""
    removed: list[Path] = []
    remove = guardian.remove

    def seen(folder: Path) -> bool:
        removed.append(folder)
        return remove(folder)

    monkeypatch.setattr(guardian, "remove", seen)
    result = await attack(f"import os\ntry:\n    {building}\nexcept OSError: pass", 20)  # of a full disk in tier 1
    assert result.outcome is Outcome.OK
    assert removed == []


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("building", list(_BUILDINGS.values()), ids=list(_BUILDINGS))
async def test_nothing_is_left_of_it(attack: Attack, box: Sandbox, building: str) -> None:
    result = await attack(f"import os\ntry:\n    {building.replace(chr(10), chr(10) + '    ')}\nexcept OSError: pass")
    assert result.outcome is Outcome.OK
    assert box._folder is not None
    async with box.session() as session:  # and a kernel that is ready leaves no more than its home
        assert (await session.execute("6 * 7")).text == "42"


def _deep(folder: Path, depth: int) -> None:
    program = "import os, sys\nos.chdir(sys.argv[1])\nfor n in range(int(sys.argv[2])): os.mkdir('d'); os.chdir('d')"
    subprocess.run([sys.executable, "-c", program, str(folder), str(depth)], check=True)


def test_tens_of_thousands_of_folders_in_each_other(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    _deep(folder, 20_000)
    assert guardian.remove(folder) and not folder.exists()


def test_no_link_is_followed(tmp_path: Path) -> None:
    folder, kept = tmp_path / "folder", tmp_path / "kept"
    for path in (folder, kept):
        path.mkdir()
    (kept / "file").write_text("x")
    (folder / "link").symlink_to(kept)
    (folder / "d").mkdir()
    (folder / "d" / "link").symlink_to(kept)
    assert guardian.remove(folder)
    assert (kept / "file").read_text() == "x"
    (tmp_path / "alias").symlink_to(kept)
    assert not guardian.remove(tmp_path / "alias") and (kept / "file").exists()


def test_an_orphan_that_cannot_be_removed_does_not_prevent_opening(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clear = guardian.clear
    with tempfile.TemporaryDirectory(prefix="o-") as name:  # the names of pytest's own folders may be too long
        monkeypatch.setattr("tempfile.tempdir", name)
        orphans = [Path(name) / f"kernels-{kind}" for kind in ("stubborn", "plain")]
        for path in orphans:
            path.mkdir()
            (path / "file").touch()
        monkeypatch.setattr(guardian, "clear", lambda path: False if "stubborn" in path.name else clear(path))
        held = folders.make()
        assert held.path.parent == Path(name)
        assert [path.exists() for path in orphans] == [True, False]
        assert "stubborn" in caplog.text
        held.remove()


_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

_MOUNTED = """
import os, sys
from pathlib import Path
from sandbox import guardian
from sandbox.inside import system

folder, kept = map(Path, sys.argv[1:])
system.unshare(system.CLONE_NEWNS)
system.mount("none", "/", None, system.MS_REC | system.MS_PRIVATE)
for place in (folder / "bound", folder / "d" / "bound"):
    system.mount(str(kept), str(place), None, system.MS_BIND)
system.mount(str(kept / "file"), str(folder / "d" / "file"), None, system.MS_BIND)
system.mount("tmpfs", str(folder / "d" / "memory"), "tmpfs", 0, "mode=755")
(folder / "d" / "memory" / "file").write_text("x")
modes = [oct((folder / name).stat().st_mode) for name in ("bound", "d/bound", "d/memory")]
assert not guardian.remove(folder)
left = sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
print(modes, [oct((folder / name).stat().st_mode) for name in ("bound", "d/bound", "d/memory")], left)
"""


@_ROOT
def test_no_mount_is_entered(tmp_path: Path) -> None:
    """Neither another file system nor, by a bind mount, another place of the same."""
    folder, kept = tmp_path / "folder", tmp_path / "kept"
    for path in (folder / "bound", folder / "d" / "bound", folder / "d" / "memory", folder / "e" / "f", kept):
        path.mkdir(parents=True)
    for path in (kept / "file", folder / "d" / "file", folder / "d" / "other", folder / "e" / "f" / "file"):
        path.write_text("x")
    command = [sys.executable, "-c", _MOUNTED, str(folder), str(kept)]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    left = ["bound", "bound/file", "d", "d/bound", "d/bound/file", "d/file", "d/memory", "d/memory/file"]
    assert done.stdout.strip() == f"{['0o40755'] * 3} {['0o40755'] * 3} {left}"
    assert (kept / "file").read_text() == "x"
    assert guardian.remove(folder)


@_ROOT
def test_what_is_another_users_is_left() -> None:
    """A folder of root's in an ordinary user's own; and what others have put where orphans are looked for."""
    user = 65_531
    with tempfile.TemporaryDirectory() as name:
        top = Path(name)
        top.chmod(0o1777)
        own = top / "own"
        for path in (own, own / "roots", own / "plain", top / "kernels-other"):
            path.mkdir()
        for path in (own / "roots" / "file", own / "plain" / "file", top / "kernels-other" / "file"):
            path.write_text("x")
        (top / "kernels-other" / guardian.GROUPS).write_text(f"{own}\n")
        (top / "kernels-link").symlink_to(top / "kernels-other")
        os.mkfifo(top / "kernels-pipe")
        for path in (own, own / "plain"):
            os.chown(path, user, user)
        if (child := os.fork()) == 0:
            try:
                os.setgroups([])
                os.setgid(user)
                os.setuid(user)
                gone = guardian.remove(own)
                folders._remove_orphans(top)
                os._exit(int(gone))
            finally:
                os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert [path.name for path in own.iterdir()] == ["roots"] and (own / "roots" / "file").read_text() == "x"
        assert sorted(path.name for path in top.iterdir()) == ["kernels-link", "kernels-other", "kernels-pipe", "own"]
        os.chown(top / "kernels-other", user, user)  # and what is another's is nothing for root to remove
        folders._remove_orphans(top)
        assert sorted(path.name for path in (top / "kernels-other").iterdir()) == ["file", guardian.GROUPS]
