"""A test's own stage of a recipe, run by another program instead of start-agent."""

from __future__ import annotations

from start_agent.recipes.steps import Step

NAME = "tests.support.steps:STEP"

STEP = Step(("test",), dict, lambda config: None)
