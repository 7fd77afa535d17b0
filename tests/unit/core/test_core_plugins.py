"""Plug-ins of installed packages, and errors for invalid ones."""

from __future__ import annotations

import asyncio
import pickle
from pathlib import Path

import pytest
from pydantic import BaseModel

from hints import HintLibrary
from start_agent.build import SolverConfig, _unpacked
from start_agent.decoding.hint_files import hint_paths
from start_agent.errors import ConfigError
from start_agent.plugins import Chosen, OptionsRegistry, Registry
from tests.support.distributions import Loud, Thing, install

GROUP = "start_agent.test"

MODULE = """
from tests.support.distributions import Loud, Thing

THIRD = Thing("third", Loud)
TAKEN = Thing("first")
class Nested:
    FOURTH = Thing("fourth")
"""


class Quiet(BaseModel):
    softness: int = 1
    loudness: int = 0


def registry() -> OptionsRegistry[Thing]:
    return OptionsRegistry("thing", GROUP, Thing, lambda: (Thing("first"), Thing("second", Quiet)))


def packaged(folder: Path, patch: pytest.MonkeyPatch, **entries: str) -> OptionsRegistry[Thing]:
    install(folder / "site", patch, name="things", modules={"my_things": MODULE}, entry_points={GROUP: entries})
    return registry()


def test_entries_of_installed_packages_are_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    things = packaged(tmp_path, monkeypatch, b="my_things:THIRD", a="my_things:Nested.FOURTH")
    assert list(things.known()) == ["first", "second", "fourth", "third"]
    assert things.find("third").options is Loud
    assert things.option_models()["third"] is Loud
    assert things.choose("third", {"loudness": 4, "other": 1}) == Chosen("third", Loud(loudness=4))


def test_an_entry_needs_no_installed_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    things = packaged(tmp_path, monkeypatch)
    assert things.find("my_things:THIRD").name == "third"
    chosen = things.choose("my_things:THIRD", {"loudness": 4})
    assert chosen == Chosen("my_things:THIRD", Loud(loudness=4))
    assert pickle.loads(pickle.dumps(chosen)) == chosen
    assert "third" not in things.known()


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("my_things:MISSING", "my_things:MISSING"),
        ("my_things:Loud", "expected Thing"),
        ("no_such_module:X", "no_such_module"),
        (":X", ":X"),
        ("my_things:", "my_things:"),
        ("firts", "did you mean 'first'?"),
        ("zzz", "known are first, second; or module:object"),
    ],
)
def test_what_is_not_there_is_one_line(place: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    things = packaged(tmp_path, monkeypatch)
    with pytest.raises(ConfigError) as raised:
        things.find(place)
    assert words in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize("place", ["my_things:TAKEN", "my_things:Loud", "my_things:MISSING", "no_such_module:X"])
def test_a_wrong_entry_point_names_its_package(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    things = packaged(tmp_path, monkeypatch, wrong=place)
    with pytest.raises(ConfigError) as raised:
        things.known()
    assert "'things'" in str(raised.value) and "'wrong'" in str(raised.value) and "\n" not in str(raised.value)


def test_a_module_that_fails_in_several_lines_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing = {"my_failing": "raise RuntimeError('first\\nsecond')"}
    install(tmp_path / "site", monkeypatch, name="things", modules=failing, entry_points={})
    with pytest.raises(ConfigError) as raised:
        registry().find("my_failing:X")
    assert "RuntimeError: first" in str(raised.value) and "\n" not in str(raised.value)


def test_options_of_others_are_refused() -> None:
    with pytest.raises(ConfigError, match="--softness is an option of --thing second, not of first"):
        registry().choose("first", {"softness": 2})
    assert registry().choose("second", {"softness": 2}).options == Quiet(softness=2)


def test_a_name_is_enough_where_there_are_no_options() -> None:
    names = Registry("thing", GROUP, Thing, lambda: (Thing("first"),))
    assert names.find("first") == Thing("first")


HINTS = """
version: 1
hints:
  - {id: mine.1, version: 1, domain: math, function: self_reflection, placement: connective, source: me, text: "hm, "}
"""


def hints_installed(folder: Path, patch: pytest.MonkeyPatch) -> Path:
    path = folder / "site" / "my_hints.yaml"
    source = f"from pathlib import Path\nPATH = Path({str(path)!r})\nTEXT = str(PATH)\nNUMBER = 3\n"
    entries = {"mine": "my_hints:PATH", "wrong": "my_hints:NUMBER", "broken": "my_hints:MISSING"}
    install(
        folder / "site",
        patch,
        name="my-hints",
        modules={"my_hints": source},
        entry_points={"start_agent.hints": entries},
    )
    path.write_text(HINTS)
    return path


def test_hint_files_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = hints_installed(tmp_path, monkeypatch)
    assert hint_paths(["mine", "my_hints:PATH", "my_hints:TEXT", path, "missing.yaml", "a/b"]) == [
        *(path, path, path, path),
        Path("missing.yaml"),
        Path("a/b"),
    ]
    assert "mine.1" in {hint.id for hint in HintLibrary.load(*hint_paths(["mine"]))}
    monkeypatch.chdir(tmp_path)
    Path("mine").write_text(HINTS)
    assert hint_paths(["mine"]) == [Path("mine")]  # an existing file takes precedence


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("mien", "did you mean 'mine'?"),
        ("zzz", "known are broken, mine, wrong"),
        ("wrong", "my-hints"),
        ("broken", "my-hints"),
        ("my_hints:NUMBER", "a int"),
        ("my_hints:NONE", "my_hints:NONE"),
    ],
)
def test_a_hint_file_that_is_not_there_is_one_line(
    name: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hints_installed(tmp_path, monkeypatch)
    with pytest.raises(ConfigError) as raised:
        hint_paths([name])
    assert words in str(raised.value) and "\n" not in str(raised.value)


def test_a_plugins_hint_file_travels_to_machines_without_the_plugin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = hints_installed(tmp_path, monkeypatch)
    config = SolverConfig.of(hint_files=("mine",))
    assert config.named_files == [path]
    packed = pickle.loads(pickle.dumps(config.packed()))
    path.unlink()
    monkeypatch.undo()

    async def there() -> set[str]:
        from contextlib import AsyncExitStack

        async with AsyncExitStack() as stack:
            local = _unpacked(packed, stack)
            return {hint.id for hint in HintLibrary.load(*hint_paths(local.solve.hint_files))}

    assert "mine.1" in asyncio.run(there())
