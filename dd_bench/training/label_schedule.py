"""How labels change during a training: phases with soft and with class labels, and the temperature of each epoch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from dd_bench.training.label_recipe import LabelRecipe


@dataclass(frozen=True)
class LabelSchedule:
    """The labels of each epoch of a training.

    Attributes:
        recipe: the labels.
        epochs: number of epochs of the training.
    """

    recipe: LabelRecipe
    epochs: int

    @property
    def is_constant(self) -> bool:
        """Whether all epochs have soft labels at one temperature."""
        recipe = self.recipe
        return recipe.phases is None and recipe.temperature_schedule is None and not recipe.calibrates

    @cached_property
    def _soft_before(self) -> list[int]:
        """Number of epochs with soft labels before each epoch, and before the end of the training."""
        phases = self.recipe.phases or (("soft", self.epochs),)
        total, end, before = sum(epochs for _, epochs in phases), 0, [0]
        for labels, epochs in phases:
            end += epochs
            while len(before) <= round(end * self.epochs / total):
                before.append(before[-1] + (labels == "soft"))
        return before

    @property
    def soft_epochs(self) -> int:
        """Number of epochs with soft labels."""
        return self._soft_before[-1]

    def soft_epoch(self, epoch: int) -> int | None:
        """Return the number of epochs with soft labels before `epoch` (0-based), or None if it has class labels."""
        before = self._soft_before
        return before[epoch] if before[epoch + 1] > before[epoch] else None

    @property
    def stored_epochs(self) -> int:
        """Number of epochs whose labels are stored, for `replay`."""
        recipe = self.recipe
        if recipe.stored_epochs is not None:
            return min(recipe.stored_epochs, self.soft_epochs)
        return -(-self.soft_epochs // recipe.pool)

    def stored_batches(self, per_epoch: int) -> int | None:
        """Return the number of stored batches, or None if whole epochs are stored. An epoch has `per_epoch` batches."""
        recipe, soft = self.recipe, self.soft_epochs * per_epoch
        if recipe.pool_unit == "epoch":
            return None
        return -(-soft // recipe.pool) if recipe.stored_epochs is None else self.stored_epochs * per_epoch

    def temperature(self, epoch: int) -> float:
        """Return the teacher's temperature in `epoch` (0-based)."""
        schedule, start = self.recipe.temperature_schedule, self.recipe.temperature
        return start if schedule is None else schedule.at(epoch, start)
