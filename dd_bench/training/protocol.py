"""A protocol: how fresh networks are trained and which score is reported. Named and versioned.

Anything that changes results is a new name or a new version; rankings never mix two protocols.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from dd_bench.training.losses import LabelRecipe
from dd_bench.training.recipe import Recipe

Selection = Literal["last", "best_on_val", "best_on_test"]


class Protocol(BaseModel):
    """The keys of `conf/protocol/*.yaml`.

    Attributes:
        selection: `last` scores the network after its last step; `best_on_val` the epoch that is best on a slice
            cut from *train*; `best_on_test` is a labelled legacy rule of reproductions.
        eval_every: epochs between two evaluations, for the two `best` rules; 0 with `last`.
        eval_from: the first epoch that may be evaluated.
        lr_grid: train once for each learning rate and select the best by the selection rule; empty: only `recipe.lr`.
        learned_lr: train at the learning rate that was distilled with the set; `recipe.lr` for a set without one.
        labels: soft labels of teachers; null: the set's own labels. Needs `recipe.views`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    version: int = Field(ge=1)
    selection: Selection
    eval_every: int = Field(ge=0)
    eval_from: int = Field(ge=0)
    lr_grid: tuple[float, ...]
    learned_lr: bool = False  # a default, so that records made before there was this key keep theirs
    labels: LabelRecipe | None = None
    recipe: Recipe

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.selection == "last") != (self.eval_every == 0):
            raise ValueError(
                f"selection={self.selection} with eval_every={self.eval_every}: `last` evaluates once (eval_every=0), "
                "the best_* rules need eval_every >= 1"
            )
        if self.eval_from > self.recipe.epochs:
            raise ValueError(
                f"eval_from={self.eval_from} with epochs={self.recipe.epochs}: no epoch would be evaluated. "
                f"Use protocol.eval_from={self.recipe.epochs} or less"
            )
        if self.labels is not None and self.recipe.views is None:
            raise ValueError(
                "labels are given to views, and recipe.views=null. Set protocol.recipe.views, as protocol=rded-300 does"
            )
        if self.lr_grid and self.learned_lr:
            raise ValueError("lr_grid and learned_lr both set the learning rate. Use one of them")
        if self.lr_grid and self.selection == "last":
            raise ValueError(
                "lr_grid selects a learning rate by score, so it needs selection=best_on_val or best_on_test"
            )
        return self

    @property
    def uses_teachers(self) -> bool:
        """Whether networks are trained on labels of the run's teachers."""
        return self.labels is not None and self.labels.kind != "hard"

    def at_rate(self, lr: float | None) -> Protocol:
        """Return the protocol for a set with the learned learning rate `lr`."""
        if not self.learned_lr or lr is None:
            return self
        return self.model_copy(update={"recipe": self.recipe.model_copy(update={"lr": lr})})

    def rates(self) -> list[Recipe]:
        """Return the recipe once for each learning rate to try."""
        return [self.recipe.model_copy(update={"lr": lr}) for lr in self.lr_grid] or [self.recipe]
