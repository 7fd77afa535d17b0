"""What the loss sees of a trace: the settings of a recipe."""

from __future__ import annotations

import random
from enum import StrEnum
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from start_agent.seeds import derive_seed


class HintLoss(StrEnum):
    """What becomes of the hints of a trace."""

    MASK = "mask"
    """They are read, not learned: no loss on them. The paper's way."""
    DROP = "drop"
    """They are taken out of the text, all but their opening fence, which is learned. STaR's way."""
    TRAIN = "train"
    """They are learned like the model's own words."""
    MIX = "mix"
    """One of the above for each trace, drawn by ``mix_mask``, ``mix_drop`` and ``mix_train``."""


class InsertedLoss(StrEnum):
    """What becomes of a tool's outputs, and of the notices."""

    MASK = "mask"
    TRAIN = "train"


class LossPolicy(BaseModel):
    """What the loss sees of a trace. What the model wrote itself is always learned, its end of sequence included.

    A mix is drawn for each trace as a whole, from ``loss_seed`` and the trace's key: the same everywhere.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    hint: HintLoss = Field(HintLoss.MASK, description="hints: no loss on them, taken out, learned, or a mix of these")
    train_hint_fence: bool = Field(False, description="learn the opening fence of a masked hint")
    mask_before_hint: bool = Field(
        False, description="no loss on what comes before the first hint of a trace: the base thinks so already"
    )
    mask_connective: bool = Field(False, description="no loss on the connective that a hint follows either")
    mix_mask: float = Field(0.5, ge=0, description="weight of 'mask' in a mix")
    mix_drop: float = Field(0.5, ge=0, description="weight of 'drop' in a mix")
    mix_train: float = Field(0.0, ge=0, description="weight of 'train' in a mix")
    tool_output: InsertedLoss = Field(InsertedLoss.MASK, description="outputs of tools: no loss on them, or learned")
    notice: InsertedLoss = Field(InsertedLoss.MASK, description="notices to the model: no loss on them, or learned")
    loss_seed: int | None = Field(
        None, ge=0, description="decides a mix, together with the key of each trace (default: --seed)"
    )

    @model_validator(mode="after")
    def _mix_of_something(self) -> Self:
        if self.hint is HintLoss.MIX and not sum(self._weights()):
            raise ValueError("a mix needs a weight above 0: set mix_mask, mix_drop or mix_train")
        return self

    def seeded(self, seed: int) -> Self:
        """With the seed of a mix, where none is given: that of the selection, or 0 where there is no mix."""
        if self.loss_seed is not None:
            return self
        return self.model_copy(update={"loss_seed": seed if self.hint is HintLoss.MIX else 0})

    def hint_loss(self, key: str) -> HintLoss:
        """What becomes of the hints of the trace with this key: never ``MIX``."""
        if self.hint is not HintLoss.MIX:
            return self.hint
        drawn = random.Random(derive_seed(self.loss_seed or 0, f"hint loss {key}"))
        return drawn.choices((HintLoss.MASK, HintLoss.DROP, HintLoss.TRAIN), self._weights())[0]

    def _weights(self) -> tuple[float, float, float]:
        return (self.mix_mask, self.mix_drop, self.mix_train)
