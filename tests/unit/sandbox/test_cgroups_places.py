"""Where cgroups can be created: as root, in a container, in a user's session."""

from __future__ import annotations

from pathlib import Path

import pytest

from sandbox import Limits, cgroups, guardian
from sandbox.cgroups import Groups

_V1 = """\
32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
35 31 0:32 {root} /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
39 31 0:36 / /sys/fs/cgroup/pids rw,relatime shared:7 - cgroup cgroup rw,pids
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
"""
_V2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"


@pytest.mark.parametrize(
    ("memberships", "mounts", "version", "places"),
    [
        ("8:pids:/\n4:memory:/a/b\n0::/\n", _V1.format(root="/"), 1, ["memory/a/b", "pids"]),
        ("8:pids:/\n4:memory:/docker/b\n", _V1.format(root="/docker/b"), 1, ["memory", "pids"]),
        ("8:pids:/\n4:memory:/elsewhere\n", _V1.format(root="/docker/b"), 1, ["memory", "pids"]),
        ("0::/user.slice/x.scope\n", _V2, 2, ["user.slice/x.scope"]),
    ],
    ids=["root", "container", "another-root", "version-2"],
)
def test_places(memberships: str, mounts: str, version: int, places: list[str]) -> None:
    assert cgroups._places(memberships, mounts) == (version, [Path("/sys/fs/cgroup", place) for place in places])


@pytest.mark.parametrize(
    ("memberships", "mounts", "reason"),
    [
        ("8:pids:/\n4:memory:/\n", _V1.format(root="/").replace("rw,pids", "rw,cpuset"), "of pids are not mounted"),
        ("0::/\n", "", "cgroups are not mounted"),
    ],
)
def test_no_places(memberships: str, mounts: str, reason: str) -> None:
    with pytest.raises(cgroups._Unusable, match=reason):
        cgroups._places(memberships, mounts)


def _tree(root: Path, *names: str) -> None:
    for path in (root, *(root / name for name in names)):
        path.mkdir(exist_ok=True)
        (path / "cgroup.procs").touch()
        (path / "cgroup.subtree_control").write_text("memory pids")
        (path / "memory.max").write_text("max\n")


def test_above_a_limit_there_is_no_place(tmp_path: Path) -> None:
    _tree(tmp_path / "mount", "slice", "slice/scope")
    own = tmp_path / "mount" / "slice" / "scope"
    assert list(cgroups._from_here_up(own)) == [own, own.parent, own.parent.parent]
    (own.parent / "memory.max").write_text("1000000\n")
    assert list(cgroups._from_here_up(own)) == [own, own.parent]


def test_groups_of_version_2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As far as files that are no cgroups can show it."""
    _tree(tmp_path / "mount", "scope")
    (tmp_path / "mount" / "scope" / "cgroup.subtree_control").unlink()  # processes are in it: it hands nothing down
    (tmp_path / "kernels-x").mkdir()
    monkeypatch.setattr(cgroups, "_places", lambda *_: (2, [tmp_path / "mount" / "scope"]))
    monkeypatch.setattr(Path, "mkdir", _mkdir_as_linux)
    monkeypatch.setattr(Path, "rmdir", _rmdir_as_linux)
    groups = Groups(tmp_path / "kernels-x")
    assert str(groups) == "memory and processes of each kernel (version 2)"
    home = tmp_path / "mount" / "kernels-x"
    assert (tmp_path / "kernels-x" / guardian.GROUPS).read_text() == f"{home}\n"
    group = groups.make(Limits(memory_in_sum_bytes=1000, disk_bytes=10, processes=7))
    assert group is not None and len(group.entries) == 1
    assert {path.name: path.read_text() for path in group.folders[0].iterdir() if path.stat().st_size} == {
        "memory.max": "1030",
        "memory.swap.max": "0",
        "memory.oom.group": "1",
        "pids.max": "7",
        "cgroup.subtree_control": "memory pids",
    }
    assert not group.has_overflowed()
    events = group.folders[0] / "memory.events"
    events.write_text("low 0\nmax 3\noom 0\noom_kill 2\n")
    assert not group.has_overflowed()  # killed for want of memory elsewhere
    events.write_text("low 0\nmax 3\noom 1\noom_kill 2\n")
    assert group.has_overflowed()
    guardian.clear(tmp_path / "kernels-x")
    assert not home.exists() and not (tmp_path / "kernels-x").exists()


_mkdir, _rmdir = Path.mkdir, Path.rmdir


def _mkdir_as_linux(path: Path) -> None:
    _mkdir(path)
    for name in ("cgroup.procs", "memory.max", "memory.swap.max", "memory.oom.group", "pids.max", "memory.events"):
        (path / name).touch()
    (path / "cgroup.subtree_control").write_text("memory pids")


def _rmdir_as_linux(path: Path) -> None:
    for file in path.iterdir():
        if file.is_file():
            file.unlink()
    _rmdir(path)
