"""A step of a recipe of the tests' own, which another program does in place of start-agent."""

from __future__ import annotations

from start_agent.recipes.steps import Step

NAME = "tests.support.steps:STEP"

STEP = Step(("test",), dict, lambda config: None)
