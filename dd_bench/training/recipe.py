"""Training recipes: optimiser, schedule, epochs and augmentation of one network."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Literal, Self, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError, model_validator

from dd_bench.runtime.suggestions import MissingKeyError, unknown_key
from dd_bench.training.augment import BoxKind
from dd_bench.training.views import ViewRecipe

Schema = TypeVar("Schema", bound=BaseModel)


class Recipe(BaseModel):
    """How one network is trained; used for fresh networks, teachers and experts.

    Attributes:
        milestones: numbers of epochs after which the learning rate is multiplied by `gamma`; with `steps`, numbers of
            steps.
        reset_optimizer: whether to reset momentum at a milestone, as DC's released evaluation does by re-creating SGD.
        augment: list of ops joined by underscores, see `dd_bench.training.augment`, or none.
        augment_style: `dsa` applies one op of the list to a batch; `idc` applies several, as in IDC and NCFM;
            `per_image` applies one op to each image, as DC's evaluation does; its ops are in
            `dd_bench.training.per_image_augment`.
        cutmix: probability of mixing a batch by CutMix; `cutmix_beta` is the parameter b of Beta(b, b).
        schedule: `milestones`; `cosine`, which decays to zero over the epochs; or `half_cosine`, which decays to half
            of the learning rate (RDED).
        warmup: number of epochs before the schedule, with a learning rate that rises linearly from a hundredth of `lr`.
        decay_filter: parameters with weight decay: `all`, or `weights_only`, those with at least two dimensions.
        views: augmentation by views, instead of `augment` and `cutmix`.
        steps: number of training steps, independent of the number of samples, instead of `epochs`.
        cutmix_box: how CutMix's box is rounded to pixels; see `dd_bench.training.augment.cutmix_box`.
        batchnorm_momentum: share of a batch in the running statistics of BatchNorm layers; null: the network's, 0.1.
        epochs_by_size: pairs (most images, epochs), smallest first. A set of at most so many images is trained for
            these epochs instead of `epochs`, and its `milestones` are moved in proportion, rounded down.
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
    augment_style: Literal["dsa", "idc", "per_image"]
    align_corners: bool
    cutmix: float = Field(ge=0, le=1)
    cutmix_beta: float = Field(gt=0)
    # The following keys were added later. `identity` omits them at their defaults, so keys of older results stay valid.
    schedule: Literal["milestones", "cosine", "half_cosine"] = "milestones"
    warmup: int = Field(default=0, ge=0)
    decay_filter: Literal["all", "weights_only"] = "all"
    views: ViewRecipe | None = None
    steps: int | None = Field(default=None, ge=1)
    cutmix_box: BoxKind = "exact"
    batchnorm_momentum: float | None = Field(default=None, gt=0, le=1)
    epochs_by_size: tuple[tuple[PositiveInt, PositiveInt], ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.views is not None and (self.augment != "none" or self.cutmix):
            raise ValueError(
                "`views` replaces `augment` and `cutmix`. With `views`, use augment=none and cutmix=0, "
                f"got augment={self.augment} and cutmix={self.cutmix}"
            )
        if self.schedule != "milestones" and self.milestones:
            raise ValueError(f"schedule={self.schedule} requires milestones=[], got {list(self.milestones)}")
        if self.warmup >= self.epochs and self.warmup:
            raise ValueError(f"warmup must be < epochs={self.epochs}, got {self.warmup}. Example: warmup=0")
        if self.steps is not None and (self.epochs != 1 or self.warmup):
            raise ValueError(
                "`steps` replaces `epochs` and `warmup`. With `steps`, use epochs=1 and warmup=0, got "
                f"epochs={self.epochs} and warmup={self.warmup}"
            )
        if self.steps is not None and max(self.milestones, default=0) >= self.steps:
            raise ValueError(
                f"with `steps`, milestones are numbers of steps and must be < steps={self.steps}, got "
                f"{list(self.milestones)}. Example: milestones=[]"
            )
        sizes = [size for size, _ in self.epochs_by_size]
        if sizes != sorted(set(sizes)) or (sizes and (self.steps is not None or self.warmup)):
            raise ValueError(
                "epochs_by_size must be pairs [most images, epochs] with ascending numbers of images, without `steps` "
                f"and `warmup`, got {[list(pair) for pair in self.epochs_by_size]}. Example: [[10, 3000], [100, 2000]]"
            )
        return self

    def with_epochs(self, n: int) -> Recipe:
        """Return the recipe for `n` samples, with `epochs` computed from `steps` or `epochs_by_size` if one is set."""
        if self.epochs_by_size:
            epochs = next((epochs for size, epochs in self.epochs_by_size if n <= size), self.epochs)
            milestones = tuple(m * epochs // self.epochs for m in self.milestones)
            return self.model_copy(update={"epochs": epochs, "milestones": milestones, "epochs_by_size": ()})
        if self.steps is None:
            return self
        return self.model_copy(update={"epochs": math.ceil(self.steps / self.steps_per_epoch(n))})

    def samples(self, n: int) -> int:
        """Return the total number of samples that training on `n` samples processes."""
        if self.steps is None:
            return self.with_epochs(n).epochs * n
        epochs, left = divmod(self.steps, self.steps_per_epoch(n))
        return epochs * n + min(n, left * self.batch_size)

    def match_steps(self, n: int, other: int) -> Recipe:
        """Return a recipe that takes the same number of steps on `n` samples as this recipe on `other` samples.

        The number of epochs is rounded up.
        """
        if self.epochs_by_size:
            return self.with_epochs(other).match_steps(n, other)
        steps, target = self.steps_per_epoch(n), self.steps_per_epoch(other)
        if self.steps is not None or steps == target:
            return self
        return self.model_copy(
            update={
                "epochs": math.ceil(self.epochs * target / steps),
                "milestones": tuple(round(m * target / steps) for m in self.milestones),
                "warmup": round(self.warmup * target / steps),
            }
        )

    def compressed(self, n: int) -> Recipe:
        """Return a recipe of `steps` that processes about as many samples as this recipe on `n` samples.

        It is for training on a larger set: all batches are full. The number of steps is rounded up, and milestones are
        moved in proportion. A recipe with `steps` does not change.

        Raises:
            ValueError: the recipe has a warm-up.
        """
        if self.steps is not None:
            return self
        recipe = self.with_epochs(n)
        steps = -(-recipe.epochs * n // recipe.batch_size)
        moved = sorted({max(1, round(m * steps / recipe.epochs)) for m in recipe.milestones})
        changed = {"steps": steps, "epochs": 1, "milestones": [m for m in moved if m < steps]}
        return Recipe.model_validate(recipe.model_dump() | changed)

    def steps_left(self, epoch: int, n: int) -> int | None:
        """Return the number of steps left at the start of `epoch` (0-based), or None if `steps` is not set.

        An epoch has `n` samples.
        """
        return None if self.steps is None else self.steps - epoch * self.steps_per_epoch(n)

    def steps_per_epoch(self, n: int) -> int:
        """Return the number of batches of `n` samples."""
        return math.ceil(n / self.batch_size)

    def identity(self) -> dict[str, Any]:
        """Return the fields that identify the recipe in a cache key.

        A field that was added later is omitted if it has its default value, so that older keys stay valid.
        """
        later = {
            "schedule": "milestones",
            "warmup": 0,
            "decay_filter": "all",
            "views": None,
            "steps": None,
            "cutmix_box": "exact",
            "batchnorm_momentum": None,
            "epochs_by_size": [],
        }
        values = self.model_dump(mode="json")
        return {k: v for k, v in values.items() if k not in later or v != later[k]}


def parse(model: type[Schema], values: dict[str, Any], group: str) -> Schema:
    """Validate a configuration group against its schema.

    Raises:
        MissingKeyError: a required key is missing.
        ValueError: a value is not valid. The message contains each wrong key, its value and the reason.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        problems: dict[str, list[str]] = {}
        if missing := [_path(values, e["loc"]) for e in error.errors() if e["type"] == "missing"]:
            raise MissingKeyError([f"{group}.{path}" for path in missing]) from None
        for e in error.errors():
            path = _path(values, e["loc"])
            if e["type"] == "extra_forbidden":
                problems[f"  {unknown_key(f'{group}.{path}', _fields(model, group))}"] = [""]
                continue
            problems.setdefault(f"  {group}.{path}={e['input']!r}: " if path else "  ", []).append(e["msg"])
        lines = [prefix + " or ".join(reasons) for prefix, reasons in problems.items()]
        raise ValueError("\n".join([f"configuration group {group!r} is not valid:", *lines])) from None


def _fields(model: type[BaseModel], path: str) -> Iterator[str]:
    """Yield the dotted keys of a schema and of the schemas in it."""
    for name, field in model.model_fields.items():
        yield f"{path}.{name}"
        for inner in (field.annotation, *get_args(field.annotation)):
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                yield from _fields(inner, f"{path}.{name}")


def _path(values: Any, location: tuple[str | int, ...]) -> str:
    """Return the dotted path of an error's location, without the union branches that pydantic appends."""
    keys = []
    for key in location:
        if not isinstance(values, dict | list | tuple):
            break
        keys.append(str(key))
        values = values.get(key) if isinstance(values, dict) else values[int(key)]
    return ".".join(keys)
