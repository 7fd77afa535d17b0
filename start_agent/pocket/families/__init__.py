"""The families of problems of the pocket reasoner, each with levels 1 (easy) to 3 (hard)."""

from start_agent.pocket.families import arithmetic, numbers, stories
from start_agent.pocket.families.base import LEVELS, Draft, Family

FAMILIES: dict[str, Family] = {
    family.name: family for family in (*arithmetic.FAMILIES, *numbers.FAMILIES, *stories.FAMILIES)
}

__all__ = ["FAMILIES", "LEVELS", "Draft", "Family"]
