"""How one network is trained: optimiser, schedule, epochs, augmentation."""

from __future__ import annotations

import math
from typing import Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from dd_bench.training.views import ViewRecipe

Schema = TypeVar("Schema", bound=BaseModel)


class Recipe(BaseModel):
    """How one network is trained: fresh networks, teachers and experts all use it.

    Attributes:
        milestones: the learning rate is multiplied by `gamma` after this many epochs.
        reset_optimizer: forget momentum at a milestone, as DC's released evaluation does by re-creating SGD.
        augment: an underscore list of ops (`dd_bench.training.augment`), or none.
        augment_style: how that list is read: `dsa`, one of its ops; `idc`, as IDC and NCFM do.
        cutmix: probability of mixing a batch; `cutmix_beta` is the parameter of Beta(b, b).
        schedule: `milestones`; `cosine` to zero over the epochs; `half_cosine`, to half of the rate (RDED).
        warmup: epochs over which the rate rises linearly from a hundredth, before the cosine begins.
        decay_filter: which parameters decay: `all`, or `weights_only`, those of two dimensions or more.
        views: augmentation by views, instead of `augment` and `cutmix`.
        steps: number of training steps, whatever the size of the set, instead of `epochs`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    optimizer: Literal["sgd", "adam", "adamw"]
    lr: float = Field(gt=0)
    momentum: float = Field(ge=0, lt=1)
    weight_decay: float = Field(ge=0)
    batch_size: int = Field(ge=1)
    epochs: int = Field(ge=1)
    milestones: tuple[int, ...]
    gamma: float = Field(gt=0, le=1)
    reset_optimizer: bool
    augment: str
    augment_style: Literal["dsa", "idc"]
    align_corners: bool
    cutmix: float = Field(ge=0, le=1)
    cutmix_beta: float = Field(gt=0)
    # keys from here on were added later: at their defaults, the keys of older results do not change
    schedule: Literal["milestones", "cosine", "half_cosine"] = "milestones"
    warmup: int = Field(default=0, ge=0)
    decay_filter: Literal["all", "weights_only"] = "all"
    views: ViewRecipe | None = None
    steps: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.views is not None and (self.augment != "none" or self.cutmix):
            raise ValueError(
                "views and augment or cutmix both set the augmentation. Use augment=none, cutmix=0"
            )
        if self.schedule != "milestones" and self.milestones:
            raise ValueError(f"schedule={self.schedule} has no milestones. Use milestones=[]")
        if self.warmup >= self.epochs and self.warmup:
            raise ValueError(f"warmup={self.warmup} leaves no epoch of epochs={self.epochs} after it")
        if self.steps is not None and (self.epochs != 1 or self.milestones or self.warmup):
            raise ValueError(
                "steps sets the length of the training, so epochs, milestones and warmup must not. "
                "Use epochs=1, milestones=[], warmup=0"
            )
        return self

    def lasting(self, n: int) -> Recipe:
        """Return the recipe for `n` samples, with the number of epochs that its steps take."""
        if self.steps is None:
            return self
        return self.model_copy(update={"epochs": math.ceil(self.steps / self.steps_an_epoch(n))})

    def samples(self, n: int) -> int:
        """Return the number of samples that a training on `n` samples processes in all."""
        if self.steps is None:
            return self.epochs * n
        whole, left = divmod(self.steps, self.steps_an_epoch(n))
        return whole * n + min(n, left * self.batch_size)

    def in_step_with(self, n: int, other: int) -> Recipe:
        """Return the recipe that trains on `n` samples for as many steps as this one does on `other` samples."""
        steps, wanted = self.steps_an_epoch(n), self.steps_an_epoch(other)
        if self.steps is not None or steps == wanted:
            return self
        return self.model_copy(
            update={
                "epochs": math.ceil(self.epochs * wanted / steps),
                "milestones": tuple(round(m * wanted / steps) for m in self.milestones),
                "warmup": round(self.warmup * wanted / steps),
            }
        )

    def steps_of(self, epoch: int, n: int) -> int | None:
        """Return the number of steps left at the start of `epoch` (0-based) of `n` samples; None: whole epochs."""
        return None if self.steps is None else self.steps - epoch * self.steps_an_epoch(n)

    def steps_an_epoch(self, n: int) -> int:
        """Return the number of batches in `n` samples."""
        return math.ceil(n / self.batch_size)

    def identity(self) -> dict[str, Any]:
        """Return what identifies it in a key; keys that were added later are left out at their default."""
        later = {"schedule": "milestones", "warmup": 0, "decay_filter": "all", "views": None, "steps": None}
        values = self.model_dump(mode="json")
        return {k: v for k, v in values.items() if k not in later or v != later[k]}


def parse(model: type[Schema], values: dict[str, Any], group: str) -> Schema:
    """Check a configuration group against its schema.

    Raises:
        ValueError: which key is wrong, what came, and where the right values are listed.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        problems: dict[str, list[str]] = {}
        for e in error.errors():
            where = _path(values, e["loc"])
            problems.setdefault(f"  {group}.{where}={e['input']!r}: " if where else "  ", []).append(e["msg"])
        lines = [where + " or ".join(what) for where, what in problems.items()]
        raise ValueError("\n".join([f"configuration group {group!r} is not valid:", *lines])) from None


def _path(values: Any, location: tuple[str | int, ...]) -> str:
    """Return the keys of an error's location, without the tried branches of a union that pydantic appends."""
    keys = []
    for key in location:
        if not isinstance(values, dict | list | tuple):
            break
        keys.append(str(key))
        values = values.get(key) if isinstance(values, dict) else values[int(key)]
    return ".".join(keys)
