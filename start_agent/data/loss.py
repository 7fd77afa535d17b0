"""Options for loss masking: which spans of a trace are in the loss."""

from __future__ import annotations

import random
from enum import StrEnum
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from start_agent.seeds import derive_seed


class HintLoss(StrEnum):
    """How hints are treated."""

    MASK = "mask"
    """Hints are in the context but not in the loss, as in the paper."""
    DROP = "drop"
    """Hints are removed from the text, except their opening fence, which is in the loss, as in STaR."""
    TRAIN = "train"
    """Hints are in the loss, like the model's own tokens."""
    MIX = "mix"
    """One of the above for each trace, drawn with the weights ``mix_mask``, ``mix_drop`` and ``mix_train``."""


class InsertedLoss(StrEnum):
    """How tool outputs and notices are treated."""

    MASK = "mask"
    TRAIN = "train"


class LossPolicy(BaseModel):
    """Which tokens of a trace are in the loss. The model's own tokens always are, including the end of sequence.

    A mix is drawn once per trace, from ``loss_seed`` and the trace's key, so that it is reproducible.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    hint: HintLoss = Field(HintLoss.MASK, description="hints: mask (no loss), drop from the text, train, or a mix")
    train_hint_fence: bool = Field(False, description="include the opening fence of masked hints in the loss")
    mask_before_hint: bool = Field(
        False, description="no loss before the first hint of a trace, where the base model writes the same anyway"
    )
    mask_connective: bool = Field(False, description="no loss on the connective before a hint")
    mix_mask: float = Field(0.5, ge=0, description="weight of 'mask' in a mix")
    mix_drop: float = Field(0.5, ge=0, description="weight of 'drop' in a mix")
    mix_train: float = Field(0.0, ge=0, description="weight of 'train' in a mix")
    tool_output: InsertedLoss = Field(InsertedLoss.MASK, description="tool outputs: mask (no loss), or train")
    notice: InsertedLoss = Field(InsertedLoss.MASK, description="notices to the model: mask (no loss), or train")
    loss_seed: int | None = Field(
        None, ge=0, description="seed of a mix, combined with the key of each trace (default: --seed)"
    )

    @model_validator(mode="after")
    def _mix_of_something(self) -> Self:
        if self.hint is HintLoss.MIX and not sum(self._weights()):
            raise ValueError("a mix needs a positive weight: set mix_mask, mix_drop or mix_train")
        return self

    def seeded(self, seed: int) -> Self:
        """The same policy with ``loss_seed`` set: by default the seed of the selection, or 0 if there is no mix."""
        if self.loss_seed is not None:
            return self
        return self.model_copy(update={"loss_seed": seed if self.hint is HintLoss.MIX else 0})

    def hint_loss(self, key: str) -> HintLoss:
        """How hints of the trace with this key are treated; never ``MIX``."""
        if self.hint is not HintLoss.MIX:
            return self.hint
        drawn = random.Random(derive_seed(self.loss_seed or 0, f"hint loss {key}"))
        return drawn.choices((HintLoss.MASK, HintLoss.DROP, HintLoss.TRAIN), self._weights())[0]

    def _weights(self) -> tuple[float, float, float]:
        return (self.mix_mask, self.mix_drop, self.mix_train)
