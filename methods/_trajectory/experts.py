"""Which experts a run follows: how they are trained, and of which epochs it wants snapshots."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from dd_bench.api import DistillContext, ExpertBuffer, RealSet, Recipe, Storage, experts, released_experts

from .gradient_rules import GSAM, ExpertGradient, GradientPenalty


class ExpertSettings(BaseModel):
    """The keys of `method.experts`; `conf/method/mtt.yaml` says what they are."""

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
        """Raises ValueError unless the recipe reaches the window's last epoch, and the one that the start wants.

        A buffer made elsewhere has its own recipe, and is asked when it is opened.
        """
        if self.source is not None:
            return
        if last > self.recipe.epochs:
            raise ValueError(
                f"the window asks for epoch {last} (method.window.stop - 1 + method.expert_epochs), the experts "
                f"are trained for {self.recipe.epochs}. Use method.experts.recipe.epochs={last}, or a smaller "
                "method.window.stop or method.expert_epochs"
            )
        if init_epoch is not None and init_epoch > self.recipe.epochs:
            raise ValueError(
                f"method.experts.init_epoch={init_epoch}, but the experts are trained for "
                f"{self.recipe.epochs} epochs. Use method.experts.init_epoch=null"
            )

    def buffer(
        self, real: RealSet, first: int, last: int, init_epoch: int | None, ctx: DistillContext
    ) -> ExpertBuffer:
        """Returns the buffer, training it if it is missing.

        Args:
            real: what the experts are trained on.
            first: first epoch of the window.
            last: the last epoch it can ask for.
            init_epoch: the epoch that images or labels start from, or None.
            ctx: of the run.

        Raises:
            ValueError: the buffer named by `source` does not fit this run.
        """
        if self.source is not None:
            ctx.note("the experts come from method.experts.source: recipe and number are theirs")
            return released_experts(self.source, real, ctx.architecture, range(first, last + 1), init_epoch)
        wanted = {*range(first, last + 1), *([] if init_epoch is None else [init_epoch])}
        epochs = tuple(sorted(wanted))
        gradient_rule = ExpertGradient(self.flat, self.loss_scale, self.gradient_penalty)
        return experts(
            real,
            ctx.architecture,
            self.recipe,
            ctx,
            count=self.count,
            epochs=tuple(range(self.recipe.epochs + 1)) if self.keep == "all" else epochs,
            dtype=self.dtype,
            gradient_rule=gradient_rule or None,
            exact=self.precision == "fp32",
        )
