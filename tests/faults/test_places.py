"""The sandbox in the places in which people have Python, their projects and their homes."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from tests.support import layouts
from tests.support.layouts import opened

NAMES = {1: "bubblewrap (tier 1)", 2: "namespaces (tier 2)"}
WORK = "import scipy, sys, colorsys\nprint(scipy.__name__, sys.prefix)"

tiers = pytest.mark.parametrize("tier", [1, 2])


@tiers
def test_a_package_that_is_installed_and_no_checkout(tier: int, tmp_path: Path) -> None:
    python = layouts.virtual_environment(tmp_path / "venv")
    layouts.install(tmp_path / "venv")
    assert opened(python, tier, WORK, source=None, cwd=tmp_path) == [NAMES[tier], f"scipy {tmp_path}/venv"]


@tiers
@pytest.mark.parametrize("place", ["project", "src/project", "."])
def test_a_project_in_the_folder_of_its_virtual_environment(tier: int, place: str, tmp_path: Path) -> None:
    python = layouts.virtual_environment(tmp_path / "venv")
    project = tmp_path / "venv" / place
    shutil.copytree(layouts.ROOT / "sandbox", project / "sandbox")
    look = f"import os\nprint(os.path.exists({str(project / 'sandbox')!r}), sorted(os.listdir(sys.prefix)))"
    isolation, work, seen = opened(python, tier, WORK, look, source=project)
    assert (isolation, work) == (NAMES[tier], f"scipy {tmp_path}/venv")
    assert seen.startswith("False ['bin', 'include', 'lib'")


@tiers
def test_a_path_to_the_interpreter_that_is_not_plain(tier: int, tmp_path: Path) -> None:
    layouts.virtual_environment(tmp_path / "venv")
    (tmp_path / "work").mkdir()
    isolation, work = opened("../venv/bin/python", tier, WORK, cwd=tmp_path / "work")
    assert (isolation, work) == (NAMES[tier], f"scipy {tmp_path}/venv")


@tiers
def test_an_installation_in_the_home(tier: int, tmp_path: Path) -> None:
    python = layouts.installation(tmp_path / "conda")
    (tmp_path / "letter").write_text("private")
    look = f"import os\nos.listdir({str(tmp_path)!r})"
    told = opened(python, tier, WORK, look, env={"HOME": str(tmp_path)})
    assert told == [NAMES[tier], f"scipy {tmp_path}/conda", "['conda']"]


@tiers
@pytest.mark.parametrize("home", ["/", "", "/usr/local", "/nonexistent", None])
def test_a_home_that_is_none(tier: int, home: str | None) -> None:
    assert opened(sys.executable, tier, WORK, env={"HOME": home})[0] == NAMES[tier]


@tiers
@pytest.mark.parametrize("temporary", [".", "lib", "venv/lib"])
def test_a_folder_for_temporary_files_that_kernels_see(tier: int, temporary: str, tmp_path: Path) -> None:
    python = layouts.virtual_environment(tmp_path / "venv")
    (tmp_path / "lib").mkdir()
    name = temporary if temporary == "." else str(tmp_path / temporary)
    assert opened(python, tier, WORK, cwd=tmp_path, env={"TMPDIR": name})[0] == NAMES[tier]
