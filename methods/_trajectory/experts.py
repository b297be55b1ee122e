"""Settings of the experts of a run: how they are trained and which epochs are stored."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from dd_bench.api import DistillContext, ExpertBuffer, RealSet, Recipe, Storage, experts, released_experts

from .gradient_rules import GSAM, ExpertGradient, GradientPenalty


class ExpertSettings(BaseModel):
    """The keys of `method.experts`; see `conf/method/mtt.yaml`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    count: int = Field(ge=1)
    keep: Literal["window", "all"]
    init_epoch: int | None = Field(ge=0)
    dtype: Storage
    precision: Literal["auto", "fp32"]
    source: str | None
    flat: GSAM
    loss_scale: tuple[Annotated[float, Field(ge=0, allow_inf_nan=False)], ...]
    gradient_penalty: GradientPenalty
    recipe: Recipe

    def check(self, last: int, init_epoch: int | None) -> None:
        """Check that the recipe is long enough for the last epoch of the window and for `init_epoch`.

        A buffer from `source` has its own recipe and is checked when it is opened.

        Raises:
            ValueError: The experts are trained for too few epochs, or the recipe gives a number of steps.
        """
        if self.source is not None:
            return
        if self.recipe.steps is not None:
            raise ValueError(
                "method.experts.recipe.steps must be null, because snapshots are stored after epochs, got "
                f"{self.recipe.steps}. Use method.experts.recipe.epochs"
            )
        if last > self.recipe.epochs:
            raise ValueError(
                f"the window requires epoch {last} (method.window.stop - 1 + method.expert_epochs), but the experts "
                f"are trained for {self.recipe.epochs} epochs. Use method.experts.recipe.epochs={last}, or a smaller "
                "method.window.stop or method.expert_epochs"
            )
        if init_epoch is not None and init_epoch > self.recipe.epochs:
            raise ValueError(
                f"method.experts.init_epoch must be null, or at most {self.recipe.epochs}, the number of epochs of the "
                f"experts, got {init_epoch}. Example: method.experts.init_epoch=null"
            )

    def buffer(
        self, real: RealSet, first: int, last: int, init_epoch: int | None, ctx: DistillContext
    ) -> ExpertBuffer:
        """Return the expert buffer; the experts are trained if they are not cached.

        Args:
            real: The set that the experts are trained on.
            first: First epoch of the window.
            last: Last epoch that a segment can reach.
            init_epoch: Epoch that initialises images or labels, or None.
            ctx: Context of the run.

        Raises:
            ValueError: The buffer in `source` is missing, is damaged, or does not match this run.
        """
        if self.source is not None:
            ctx.note("the experts come from method.experts.source: recipe and number are theirs")
            return released_experts(self.source, real, ctx.architecture, range(first, last + 1), init_epoch)
        epochs = {*range(first, last + 1), *([] if init_epoch is None else [init_epoch])}
        if self.keep == "all":
            epochs = set(range(self.recipe.epochs + 1))
        gradient_rule = ExpertGradient(self.flat, self.loss_scale, self.gradient_penalty)
        return experts(
            real,
            ctx.architecture,
            self.recipe,
            ctx,
            count=self.count,
            epochs=tuple(sorted(epochs)),
            dtype=self.dtype,
            gradient_rule=gradient_rule or None,
            exact=self.precision == "fp32",
        )
