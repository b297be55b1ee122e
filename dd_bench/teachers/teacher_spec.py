"""The configuration of a teacher."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from dd_bench.data.preprocess import Normalise
from dd_bench.models.architecture import Architecture
from dd_bench.teachers import pretrained
from dd_bench.training.recipe import Recipe


class TeacherConfig(BaseModel):
    """The keys of `conf/teacher/*.yaml` except `model`.

    Attributes:
        weights: `squeeze` trains the network with `recipe`. `pretrained` uses the weights that the constructor of the
            network downloads.
        classes: class names of pretrained weights in the order of the logits: `imagenet` or a list. null for `squeeze`.
        keep: early epochs whose weights are saved in addition to the last. Each needs disk space and one evaluation on
            the test data. `keep` is not part of the teacher's identity. Epochs after the last are ignored.
        epoch: the epoch whose weights are used; null for the last. `accuracy~X`, with X in [0, 1], selects the epoch
            of `keep`, or the last epoch, whose accuracy on the validation split is closest to X. `keep` is then part of
            the identity. Methods cannot use it, because they have no validation split.
        recipe: the training recipe; null for pretrained weights.
        mean, std: normalisation with which pretrained weights were trained, one value per channel. null for
            `classes: imagenet`, whose values are known.
        trained_on: for `squeeze`, `dataset`, the classes of the run, or `other_classes`, those that `dataset.classes`
            leaves out. A teacher of other classes is only a backbone, see `dd_bench.teachers.backbones`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    weights: Literal["squeeze", "pretrained"]
    classes: Literal["imagenet"] | tuple[str, ...] | None
    keep: tuple[int, ...]
    epoch: (
        Annotated[int, Field(ge=1)] | Annotated[str, Field(pattern=r"^accuracy~(0(\.\d+)?|1(\.0+)?)$")] | None
    )
    recipe: Recipe | None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    trained_on: Literal["dataset", "other_classes"] = "dataset"

    @property
    def target_accuracy(self) -> float | None:
        """Validation accuracy in [0, 1] at which the training is stopped, or None."""
        return float(self.epoch.partition("~")[2]) if isinstance(self.epoch, str) else None


@dataclass(frozen=True)
class TeacherSpec:
    """A configured teacher, with its network bound to the dataset."""

    name: str
    architecture: Architecture
    config: TeacherConfig

    def __post_init__(self) -> None:
        """Raise ValueError if the configuration is inconsistent."""
        config, where = self.config, self.where
        if config.weights == "pretrained":
            if config.classes is not None:
                self.normalisation()
            return
        if (config.mean, config.std) != (None, None):
            raise ValueError(
                f"{where}.mean and {where}.std must be null with weights=squeeze, got {config.mean} and {config.std}. "
                "Remove both keys"
            )
        if config.recipe is None:
            raise ValueError(
                f"{where}.recipe must be a training recipe with weights=squeeze, got null. "
                "For an example, see conf/teacher/convnet_bn.yaml"
            )
        # with `steps`, the number of epochs depends on the dataset
        epochs = config.recipe.epochs if config.recipe.steps is None else None
        if isinstance(config.epoch, str):
            return
        if config.epoch is not None and epochs is not None and config.epoch > epochs:
            raise ValueError(
                f"{where}.epoch must be at most {where}.recipe.epochs={epochs}, got {config.epoch}"
            )
        if config.epoch not in (None, epochs, *config.keep):
            raise ValueError(
                f"{where}.epoch must be null or one of {where}.keep={list(config.keep)}, got {config.epoch}. "
                f"Use {where}.keep={[*config.keep, config.epoch]}"
            )

    @property
    def where(self) -> str:
        """Configuration key of the teacher."""
        return f"teachers.{self.name}"

    def describe(self) -> dict[str, Any]:
        """Return the identity of the teacher, without the data it is trained on."""
        recipe, unset = self.config.recipe, {"mean", "std"} if self.config.mean is None else set()
        unset |= (
            {"trained_on"} if self.config.trained_on == "dataset" else set()
        )  # older keys do not contain it
        return {
            "architecture": self.architecture.describe(),
            **self.config.model_dump(mode="json", exclude={"recipe", "keep", *unset}),
            "keep": [] if self.config.target_accuracy is None else list(self.config.keep),
            "recipe": recipe.identity() if recipe is not None and self.config.weights == "squeeze" else None,
        }

    def logit_names(self) -> tuple[str, ...]:
        """Return the class name of each logit of pretrained weights.

        Raises:
            ValueError: the configuration has no class names.
        """
        return pretrained.logit_names(self.config.classes, self.where)

    def normalisation(self) -> Normalise:
        """Return the normalisation with which pretrained weights were trained.

        Raises:
            ValueError: the normalisation is not known, or mean and std have different lengths.
        """
        return pretrained.normalisation(self.config.classes, self.config.mean, self.config.std, self.where)
