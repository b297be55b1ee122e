"""Protocols: how fresh networks are trained and which score is reported.

A protocol has a name and a version. Every change that affects results needs a new name or version, and a ranking never
mixes two protocols.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from dd_bench.training.label_recipe import LabelRecipe
from dd_bench.training.recipe import Recipe

Selection = Literal["last", "best_on_val", "best_on_test"]


class ProbeRecipe(BaseModel):
    """How linear heads on a frozen backbone are trained: by `recipe`, or by a closed form.

    Attributes:
        ridge: if set, the head is the solution of ridge regression without intercept, on features of unit length. This
            is the strength of the penalty, relative to the mean squared length of the features. `recipe` and the keys
            below are then not used. null: the head is trained with `recipe`.
        views: number of augmented views of each image, whose features are computed once; epoch e uses view e modulo
            this number. null: new views in each epoch.
        init_std: standard deviation of the initial weights. The initial bias is zero.
        rate_images: the learning rate of `recipe` is for batches of this many images. It is multiplied by the number of
            images per batch and divided by this number.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    ridge: float | None = Field(gt=0)
    views: int | None = Field(ge=1)
    init_std: float = Field(ge=0)
    rate_images: int = Field(ge=1)


class Protocol(BaseModel):
    """The keys of `conf/protocol/*.yaml`.

    Attributes:
        selection: `last` scores the network after its last step. `best_on_val` scores the epoch that is best on a
            validation split of the *training* data. `best_on_test` exists only to reproduce published results.
        eval_every: number of epochs between two evaluations for `best_on_val` and `best_on_test`; 0 for `last`.
        eval_from: first epoch that may be evaluated.
        lr_grid: learning rates to try, one training each; `selection` selects the best. Empty: only `recipe.lr`.
        learned_lr: use the learning rate that was distilled with the set, or `recipe.lr` if the set has none.
        keep: number of networks of a set that are reported, those with the best scores on the validation split, as some
            papers do; null: all networks. See `dd_bench.records.best_runs`.
        labels: soft labels of teachers, which require `recipe.views`; null: the labels stored in the set.
        probe: how linear heads on a backbone are trained, for `evaluator=linear_probe`; null: whole networks are
            trained.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    version: int = Field(ge=1)
    selection: Selection
    eval_every: int = Field(ge=0)
    eval_from: int = Field(ge=0)
    lr_grid: tuple[float, ...]
    # The next two have a default, because older records do not contain these keys.
    learned_lr: bool = False
    keep: int | None = Field(default=None, ge=1)
    labels: LabelRecipe | None = None
    probe: ProbeRecipe | None = None
    recipe: Recipe

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.selection == "last") != (self.eval_every == 0):
            raise ValueError(
                "eval_every must be 0 with selection=last and >= 1 with best_on_val or best_on_test, "
                f"got eval_every={self.eval_every} with selection={self.selection}"
            )
        if self.eval_from > self.recipe.epochs:
            raise ValueError(
                f"eval_from must be <= epochs={self.recipe.epochs}, got {self.eval_from}. "
                f"Use protocol.eval_from={self.recipe.epochs} or less"
            )
        if self.probe is not None and (self.labels is not None or self.selection != "last"):
            raise ValueError(
                "probe requires labels=null and selection=last, because heads are trained on the labels of the set, "
                f"got selection={self.selection} and {'labels' if self.labels else 'no labels'}. Use "
                "protocol=probe-1000"
            )
        if self.probe is not None and self.probe.views is not None and self.recipe.views is None:
            raise ValueError(
                f"probe.views={self.probe.views} requires recipe.views, got null. Use probe.views=null for training "
                "without augmentation"
            )
        if self.labels is not None and self.recipe.views is None:
            raise ValueError(
                "labels require recipe.views, got recipe.views=null. Set protocol.recipe.views as in protocol=rded-300"
            )
        if self.lr_grid and self.learned_lr:
            raise ValueError(
                "only one of lr_grid and learned_lr can set the learning rate, got both. "
                "Use lr_grid=[] or learned_lr=false"
            )
        if self.lr_grid and self.selection == "last":
            raise ValueError(
                "lr_grid requires selection=best_on_val or best_on_test, got selection=last. Use lr_grid=[]"
            )
        if self.keep is not None and self.selection != "best_on_val":
            raise ValueError(
                "keep requires selection=best_on_val, because it selects networks by their scores on the validation "
                f"split, got keep={self.keep} with selection={self.selection}. Use keep=null"
            )
        return self

    @property
    def uses_teachers(self) -> bool:
        """Whether networks are trained on labels from the run's teachers."""
        return self.labels is not None and self.labels.kind != "hard"

    def with_learned_lr(self, lr: float | None) -> Protocol:
        """Return the protocol with the learning rate `lr`. Nothing changes if `lr` is None or `learned_lr` is false."""
        if not self.learned_lr or lr is None:
            return self
        return self.model_copy(update={"recipe": self.recipe.model_copy(update={"lr": lr})})

    def for_size(self, n: int) -> Protocol:
        """Return the protocol for a set of `n` images, if its recipe has `epochs_by_size`.

        `eval_every` and `eval_from` change in proportion to the epochs, so that the number of evaluations stays.
        """
        if not self.recipe.epochs_by_size:
            return self
        recipe = self.recipe.with_epochs(n)
        every, start = (
            value * recipe.epochs // self.recipe.epochs for value in (self.eval_every, self.eval_from)
        )
        if self.eval_every:
            every = max(1, every)
        return self.model_copy(update={"recipe": recipe, "eval_every": every, "eval_from": start})

    def recipes(self) -> list[Recipe]:
        """Return one recipe for each learning rate to try."""
        return [self.recipe.model_copy(update={"lr": lr}) for lr in self.lr_grid] or [self.recipe]
