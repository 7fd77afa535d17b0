"""Other projects also have packages called ``sandbox`` and ``hints``."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from start_agent import names
from start_agent.errors import InputError, NameTakenError

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("name", ["sandbox", "hints"])
@pytest.mark.parametrize("kind", ["module", "package", "folder"])
def test_a_package_of_another_project_is_named(name: str, kind: str, tmp_path: Path) -> None:
    if kind == "module":
        (tmp_path / f"{name}.py").touch()
    else:
        (tmp_path / name).mkdir()
        (tmp_path / name / ("__init__.py" if kind == "package" else "notes")).touch()
    path = f"{ROOT}{os.pathsep}{tmp_path}" if kind == "folder" else f"{tmp_path}{os.pathsep}{ROOT}"
    done = subprocess.run(
        [sys.executable, "-P", "-c", "import start_agent"],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    # A folder that is no package loses against ours, wherever it is.
    if kind == "folder":
        assert (done.returncode, done.stderr) == (0, "")
    else:
        last = done.stderr.splitlines()[-1]
        assert last.startswith("start_agent.errors.NameTakenError") and f"{tmp_path}/{name}" in last


@pytest.mark.parametrize("module", [["-m", "start_agent"], ["-mstart_agent"], None])
def test_on_the_command_line_it_is_one_line(module: list[str] | None, tmp_path: Path) -> None:
    (tmp_path / "hints.py").touch()
    script = tmp_path / "start-agent"
    script.write_text("import sys\nfrom start_agent.cli.main import main\nsys.exit(main())\n")
    done = subprocess.run(
        [sys.executable, "-P", *(module or [str(script)]), "env"],
        env=os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("start-agent: ") and done.stderr.count("\n") == 1
    assert f"{tmp_path}/hints.py" in done.stderr


@pytest.mark.parametrize("command", [["-m", "theirs", "start-agent"], ["theirs/__init__.py"]])
def test_in_another_program_it_is_an_import_error(command: list[str], tmp_path: Path) -> None:
    (tmp_path / "hints.py").touch()
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "__init__.py").write_text(
        "try:\n    import start_agent\nexcept ImportError as error:\n    print(type(error).__name__)\n"
    )
    (tmp_path / "theirs" / "__main__.py").touch()
    done = subprocess.run(
        [sys.executable, *command],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "NameTakenError\n")


def test_one_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "_PACKAGES", ("hints", "not_there_at_all"))
    with pytest.raises(NameTakenError, match="not_there_at_all") as caught:
        names.check()
    assert isinstance(caught.value, InputError) and isinstance(caught.value, ImportError)
