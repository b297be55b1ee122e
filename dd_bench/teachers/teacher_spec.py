"""Which teacher a run asks for: the keys of its configuration, bound to a dataset."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from dd_bench.data.preprocess import Normalise
from dd_bench.models.architecture import Architecture
from dd_bench.teachers import pretrained
from dd_bench.training.recipe import Recipe


class TeacherConfig(BaseModel):
    """The keys of `conf/teacher/*.yaml` except `model`.

    Attributes:
        weights: `squeeze`: trained here by `recipe`; `pretrained`: downloaded by the network's constructor.
        classes: of pretrained weights, the class names in the order of their logits: `imagenet` or a list.
        keep: early epochs whose weights are saved as well as the last; each costs its bytes and one evaluation on the
            test data, and does not change the identity of the teacher. Epochs past the last are ignored.
        epoch: the epoch whose weights are used; null: the last.
        recipe: of the training; null for pretrained weights.
        mean, std: normalisation of the pixels that pretrained weights were trained on, one value a channel; null for
            `classes: imagenet`, whose values are known.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    weights: Literal["squeeze", "pretrained"]
    classes: Literal["imagenet"] | tuple[str, ...] | None
    keep: tuple[int, ...]
    epoch: int | None = Field(ge=1)
    recipe: Recipe | None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None


@dataclass(frozen=True)
class TeacherSpec:
    """A teacher that a run asks for, bound to the dataset."""

    name: str
    architecture: Architecture
    config: TeacherConfig

    def __post_init__(self) -> None:
        """Raises ValueError if the configuration contradicts itself."""
        config, where = self.config, self.where
        if config.weights == "pretrained":
            if config.classes is not None:
                self.normalisation()
            return
        if (config.mean, config.std) != (None, None):
            raise ValueError(
                f"{where}.mean and .std are of pretrained weights, and weights=squeeze. Use null"
            )
        if config.recipe is None:
            raise ValueError(f"{where}.recipe=null: weights=squeeze needs a recipe to train by")
        epochs = config.recipe.epochs
        if config.epoch is not None and config.epoch > epochs:
            raise ValueError(f"{where}.epoch={config.epoch}, the training has {epochs}")
        if config.epoch not in (None, epochs, *config.keep):
            raise ValueError(
                f"{where}.epoch={config.epoch} is not kept. Use {where}.keep={[*config.keep, config.epoch]}"
            )

    @property
    def where(self) -> str:
        """The teacher's key in the configuration."""
        return f"teachers.{self.name}"

    def describe(self) -> dict[str, Any]:
        """Returns what identifies the teacher, except the data it is trained on."""
        recipe, known = self.config.recipe, {"mean", "std"} if self.config.mean is None else set()
        return {
            "architecture": self.architecture.describe(),
            **self.config.model_dump(mode="json", exclude={"recipe", "keep", *known}),
            "keep": [],
            "recipe": recipe.identity() if recipe is not None and self.config.weights == "squeeze" else None,
        }

    def logit_names(self) -> tuple[str, ...]:
        """Returns the class names of the logits of pretrained weights, in order.

        Raises:
            ValueError: the configuration has no class names.
        """
        return pretrained.logit_names(self.config.classes, self.where)

    def normalisation(self) -> Normalise:
        """Returns the normalisation of the pixels that pretrained weights were trained on.

        Raises:
            ValueError: it is not known, or mean and std do not fit together.
        """
        return pretrained.normalisation(self.config.classes, self.config.mean, self.config.std, self.where)
