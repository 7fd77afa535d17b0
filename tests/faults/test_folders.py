"""What code leaves on the disk, where it has a folder of the host's (tier 3), is removed, however it is built."""

from __future__ import annotations

import subprocess
import sys
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


def test_an_orphan_that_cannot_be_removed_keeps_nobody_from_opening(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    orphans = [tmp_path / f"kernels-{name}" for name in ("stubborn", "plain")]
    for path in orphans:
        path.mkdir()
        (path / "file").touch()
    clear = guardian.clear
    monkeypatch.setattr(guardian, "clear", lambda path: False if "stubborn" in path.name else clear(path))
    held = folders.make()
    assert [path.exists() for path in orphans] == [True, False]
    assert "stubborn" in caplog.text
    held.remove()
