"""Metadata of pretrained weights: the class name of each logit, and the normalisation of the inputs."""

from __future__ import annotations

import importlib
from typing import Literal

from dd_bench.data.preprocess import Normalise

Classes = Literal["imagenet"] | tuple[str, ...] | None


def logit_names(classes: Classes, where: str) -> tuple[str, ...]:
    """Return the class name of each logit. The names of ImageNet classes are WordNet ids.

    Args:
        classes: `imagenet`, a list of class names, or None if they are not configured.
        where: the teacher's configuration key, for the error message.

    Raises:
        ValueError: the configuration has no class names.
    """
    if classes == "imagenet":
        info = importlib.import_module("timm.data").ImageNetInfo("imagenet-1k")
        return tuple(info.label_names())
    if classes is None:
        raise ValueError(
            f"{where}.classes must give the class name of each logit, got null. Use {where}.classes=imagenet or a list "
            "of names"
        )
    return classes


def normalisation(
    classes: Classes, mean: tuple[float, ...] | None, std: tuple[float, ...] | None, where: str
) -> Normalise:
    """Return the normalisation with which the weights were trained.

    Args:
        classes: `imagenet` (its normalisation is known), a list of class names, or None if they are not configured.
        mean: one value per channel, or None for the known normalisation.
        std: one value per channel, or None for the known normalisation.
        where: the teacher's configuration key, for error messages.

    Raises:
        ValueError: the normalisation is not known, or mean and std have different lengths.
    """
    if mean is None and std is None and classes == "imagenet":
        known = importlib.import_module("timm.data.constants")  # importing timm takes a second
        return Normalise(known.IMAGENET_DEFAULT_MEAN, known.IMAGENET_DEFAULT_STD)
    if mean is None or std is None:
        raise ValueError(
            f"{where}.mean and {where}.std must be the values with which the weights were trained, one per channel, "
            f"got {mean} and {std}. Example: '+{where}.mean=[0.5,0.5,0.5]' '+{where}.std=[0.5,0.5,0.5]'"
        )
    try:
        return Normalise(mean, std)
    except ValueError as error:
        raise ValueError(f"{where}.mean and {where}.std: {error}") from error
