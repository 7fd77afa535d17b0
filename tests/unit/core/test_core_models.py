from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from start_agent.decoding.solver import Solver
from start_agent.engines.base import Sampling
from start_agent.engines.transformers import TransformersEngine, TransformersOptions
from start_agent.errors import ConfigError, ModelError
from start_agent.models import BOXED_INSTRUCTION, EMBEDDED, find, instruction_for, local_digests, resolve
from start_agent.pocket import weights_path
from start_agent.tokens.tokenizer import Tokenizer


def model(folder: Path, prompting: str | None = None) -> str:
    (folder / "config.json").write_text("{}")
    if prompting is not None:
        (folder / "start_agent.json").write_text(prompting)
    return str(folder)


def test_a_folder_may_say_how_its_model_is_asked(tmp_path: Path) -> None:
    assert resolve(model(tmp_path)).instruction == BOXED_INSTRUCTION
    assert resolve(model(tmp_path, '{"instruction": "Go."}')).instruction == "Go."
    assert resolve(model(tmp_path, '{"instruction": ""}')).instruction == ""


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"instruction": 1}', "\xff"])
def test_a_folder_that_says_nonsense(content: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"start_agent\.json must hold"):
        resolve(model(tmp_path, content))


@pytest.mark.parametrize("name", EMBEDDED)
def test_embedded_models_are_asked_bare_questions(name: str) -> None:
    choice = resolve(name)
    assert choice.instruction == "" and (Path(choice.location) / "model.safetensors").is_file()


def test_no_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"a folder without a config\.json"):
        resolve(str(tmp_path))
    with pytest.raises(ModelError, match="there is no folder"):
        resolve(str(tmp_path / "none"))


@pytest.mark.parametrize("name", ["", " ", "notes.txt", "adapters"])
def test_what_is_here_and_no_model(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.json").write_text("{}")  # so that the folder itself might be taken for one
    (tmp_path / "notes.txt").write_text("{}")
    (tmp_path / "adapters").mkdir()
    for file in ("config.json", "adapter_config.json", "adapter_model.safetensors"):
        (tmp_path / "adapters" / file).touch()
    with pytest.raises(ModelError, match=r"folder|adapters"):
        resolve(name)


@pytest.mark.parametrize("file", ["tokenizer.json", "model.safetensors", "config.json"])
async def test_a_damaged_file_is_one_line(file: str, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    folder = tmp_path / "model"
    shutil.copytree(weights_path(), folder)
    whole = (folder / file).read_bytes()
    (folder / file).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError) as caught:
        async with TransformersEngine(str(folder)):
            pass
    assert "\n" not in str(caught.value)


def test_a_solver_wants_an_open_engine() -> None:
    with pytest.raises(ConfigError, match="not open"):
        Solver(TransformersEngine("pocket"))


async def test_a_device_that_is_not_there_is_one_line() -> None:
    torch = pytest.importorskip("torch")
    if torch.backends.mps.is_available():
        pytest.skip("it is there")
    with pytest.raises(ConfigError, match="--device"):
        async with TransformersEngine("pocket", TransformersOptions(device="mps")):
            pass


async def test_a_damaged_gguf_file_is_one_line(tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    (tmp_path / "torn.gguf").write_bytes(b"GGUF\x03\0\0")
    with pytest.raises(ModelError):
        Tokenizer.from_pretrained(str(tmp_path / "torn.gguf"))


def test_the_digest_of_a_folder_is_that_of_its_content(tmp_path: Path) -> None:
    name = model(tmp_path)
    found = []
    for weights in (b"\0" * (5 << 20), b"\0" * (5 << 20) + b"\1", b"\1" + b"\0" * (5 << 20)):
        (tmp_path / "model.safetensors").write_bytes(weights)
        found.append(local_digests(name, "some/name-of-the-hub"))
    (tmp_path / "config.json").write_text('{"another": 1}')
    found.append(local_digests(name))
    assert all(list(digests) == [name] for digests in found)
    assert len({digests[name] for digests in found}) == 4
    (tmp_path / "README.md").write_text("says nothing of the weights")
    assert local_digests(name) == found[-1]


def test_what_ships_goes_by_its_name_wherever_it_is_installed() -> None:
    assert list(local_digests(*EMBEDDED)) == list(EMBEDDED)


def test_a_hub_that_does_not_answer_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import HfApi

    asked: list[tuple[str, str | None]] = []

    def dead(self: HfApi, name: str, *, revision: str | None = None, timeout: float) -> None:
        asked.append((name, revision))
        raise ConnectionError("no route to host")

    monkeypatch.setattr(HfApi, "model_info", dead)
    for look_up in (resolve, Tokenizer.from_pretrained):
        with pytest.raises(ModelError, match=r"^cannot find the model 'nobody/nothing' on the hub [^\n]*$"):
            look_up("nobody/nothing", revision="v1")
    for name in ("nobody/nothing", "./none", "no..name"):
        with pytest.raises(ModelError) as refused:
            find(name, "v1")
        assert all(repr(embedded) in str(refused.value) for embedded in EMBEDDED)
    assert asked == [("nobody/nothing", "v1")] * 3


@pytest.mark.parametrize("name", EMBEDDED)
def test_what_is_here_is_found_without_the_hub(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", lambda *a, **k: pytest.fail("the hub was asked"))
    assert find(name) == resolve(name).location
    assert Tokenizer.from_pretrained(name).eos_ids == Tokenizer.from_pretrained(resolve(name).location).eos_ids
    assert find(model(tmp_path)) == str(tmp_path)


async def test_an_engine_takes_the_names_that_the_command_line_takes() -> None:
    async with TransformersEngine("pocket") as engine:
        solver = Solver(engine, settings={"tools": False})
        assert (solver.instruction, solver.sampling) == ("", Sampling())
        assert (await solver.solve("What is 3 + 4?")).outcome is not None


def test_the_instruction_of_a_solver_is_the_models(tmp_path: Path) -> None:
    assert instruction_for("some/name-of-the-hub") == BOXED_INSTRUCTION
    assert instruction_for(model(tmp_path)) == BOXED_INSTRUCTION
    assert instruction_for("pocket") == ""
