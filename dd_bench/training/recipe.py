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
        views: how images are shown, instead of `augment` and `cutmix`.
        steps: train for so many steps, whatever the size of the set, instead of `epochs`.
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
    schedule: Literal["milestones", "cosine", "half_cosine"] = "milestones"  # defaults from here on, so that
    warmup: int = Field(default=0, ge=0)  # what was made before there were these keys keeps its own
    decay_filter: Literal["all", "weights_only"] = "all"
    views: ViewRecipe | None = None
    steps: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.views is not None and (self.augment != "none" or self.cutmix):
            raise ValueError(
                "views and augment or cutmix both say how images are shown. Use augment=none, cutmix=0"
            )
        if self.schedule != "milestones" and self.milestones:
            raise ValueError(f"schedule={self.schedule} has no milestones. Use milestones=[]")
        if self.warmup >= self.epochs and self.warmup:
            raise ValueError(f"warmup={self.warmup} leaves nothing of epochs={self.epochs}")
        if self.steps is not None and (self.epochs != 1 or self.milestones or self.warmup):
            raise ValueError(
                "steps says how long to train: epochs, milestones and warmup cannot too. "
                "Use epochs=1, milestones=[], warmup=0"
            )
        return self

    def lasting(self, n: int) -> Recipe:
        """Returns the recipe for `n` samples: its epochs are those that its steps take."""
        if self.steps is None:
            return self
        return self.model_copy(update={"epochs": math.ceil(self.steps / self.steps_an_epoch(n))})

    def samples(self, n: int) -> int:
        """Returns how many samples a training on `n` passes; `self` lasts as long as its steps, see `lasting`."""
        if self.steps is None:
            return self.epochs * n
        whole, left = divmod(self.steps, self.steps_an_epoch(n))
        return whole * n + min(n, left * self.batch_size)

    def in_step_with(self, n: int, other: int) -> Recipe:
        """Returns the recipe under which `n` samples take as many steps as `other` samples do under this one."""
        mine, theirs = self.steps_an_epoch(n), self.steps_an_epoch(other)
        if self.steps is not None or mine == theirs:
            return self
        return self.model_copy(
            update={
                "epochs": math.ceil(self.epochs * theirs / mine),
                "milestones": tuple(round(m * theirs / mine) for m in self.milestones),
                "warmup": round(self.warmup * theirs / mine),
            }
        )

    def steps_of(self, epoch: int, n: int) -> int | None:
        """Returns how many steps there are in `epoch` (0-based) of `n` samples; None: all."""
        return None if self.steps is None else self.steps - epoch * self.steps_an_epoch(n)

    def steps_an_epoch(self, n: int) -> int:
        """Returns how many batches `n` samples are."""
        return math.ceil(n / self.batch_size)

    def identity(self) -> dict[str, Any]:
        """Returns what identifies it in a key: the keys that came later only where they say something."""
        later = {"schedule": "milestones", "warmup": 0, "decay_filter": "all", "views": None, "steps": None}
        said = self.model_dump(mode="json")
        return {k: v for k, v in said.items() if k not in later or v != later[k]}


def parse(model: type[Schema], values: dict[str, Any], group: str) -> Schema:
    """Checks a configuration group against its schema.

    Raises:
        ValueError: which key is wrong, what came, and where the right values are listed.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        lines: dict[str, list[str]] = {}
        for e in error.errors():
            where = _path(values, e["loc"])
            lines.setdefault(f"  {group}.{where}={e['input']!r}: " if where else "  ", []).append(e["msg"])
        told = [where + " or ".join(what) for where, what in lines.items()]
        raise ValueError("\n".join([f"configuration group {group!r} is not valid:", *told])) from None


def _path(values: Any, location: tuple[str | int, ...]) -> str:
    """The keys of an error's location; pydantic appends the tried branches of a union."""
    keys = []
    for key in location:
        if not isinstance(values, dict | list | tuple):
            break
        keys.append(str(key))
        values = values.get(key) if isinstance(values, dict) else values[int(key)]
    return ".".join(keys)
