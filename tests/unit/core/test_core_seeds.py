"""One seed decides all random choices; seeds of parts are derived from it unless they are given."""

from __future__ import annotations

import pytest

from sandbox import Limits
from start_agent.batch.resume import ResumeRules
from start_agent.build import SolverConfig
from start_agent.data.select import SelectConfig
from start_agent.decoding.limits import SandboxOptions
from start_agent.errors import ConfigError
from start_agent.evaluation import RunConfig
from start_agent.fields import deciding


@pytest.mark.parametrize(
    ("options", "seed"),
    [
        ({"task": "gpqa_diamond", "seed": 7}, 7),
        ({"task": "gpqa_diamond", "seed": 7, "choice_seed": 3}, 3),
        ({"task": "gpqa_diamond"}, 0),
        ({"task": "gpqa_diamond", "seed": None}, 0),
        ({"task": "gsm8k", "seed": 7}, 0),  # nothing is shuffled: as older versions stored it
    ],
)
def test_the_seed_of_choices(options: dict[str, object], seed: int) -> None:
    assert RunConfig.of(**options).data.choice_seed == seed


@pytest.mark.parametrize(
    ("options", "seed"),
    [
        ({"hint": "mix", "seed": 7}, 7),
        ({"hint": "mix", "seed": 7, "loss_seed": 3}, 3),
        ({"hint": "mask", "seed": 7}, 0),
    ],
)
def test_the_seed_of_a_mix(options: dict[str, object], seed: int) -> None:
    config = SelectConfig.of(kind="rft", runs=["runs/a"], output_dir="data", **options)
    assert config.loss.loss_seed == seed


def test_the_sandboxes_bounds_are_options() -> None:
    assert SandboxOptions().limits == Limits()
    config = SolverConfig.of(sandbox_memory_mib=512, sandbox_output_chars=300, sandbox_cells=3)
    limits = config.sandbox.limits
    assert (limits.memory_bytes, limits.output_chars, limits.cells) == (512 << 20, 300, 3)
    with pytest.raises(ConfigError, match="--sandbox-processes"):
        SolverConfig.of(sandbox_processes=0)


def test_a_run_from_before_the_limits_were_options_resumes() -> None:
    config = RunConfig.of(task="gsm8k", seed=7)
    groups = config.solver.groups | {"data": config.data}
    now = {title: deciding(group) for title, group in groups.items()}
    old = {title: dict(values) for title, values in now.items() if title != "sandbox"}
    old["decoding"]["rounds"] = old["decoding"].pop("end_of_think_hints")
    assert config.rules.differences(old, now) == []
    other = now | {"sandbox": deciding(SandboxOptions(sandbox_output_chars=300))}
    assert config.rules.differences(old, other) == ["--sandbox-output-chars: 8000 there, 300 now"]
    assert isinstance(config.rules, ResumeRules)
