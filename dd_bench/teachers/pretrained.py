"""Pretrained weights: the class of each logit, and the normalisation of the pixels that they were trained on."""

from __future__ import annotations

import importlib
from typing import Literal

from dd_bench.data.preprocess import Normalise

Classes = Literal["imagenet"] | tuple[str, ...] | None


def logit_names(classes: Classes, where: str) -> tuple[str, ...]:
    """Returns the class names of the logits, in order; those of ImageNet are WordNet ids, in the usual order.

    Args:
        classes: `imagenet`, the names, or None if the configuration has none.
        where: the teacher's key in the configuration, for the error.

    Raises:
        ValueError: the configuration has no class names.
    """
    if classes == "imagenet":
        info = importlib.import_module("timm.data").ImageNetInfo("imagenet-1k")
        return tuple(info.label_names())
    if classes is None:
        raise ValueError(
            f"{where}.classes=null: which logit is which class? Use classes=imagenet, or a list of names"
        )
    return classes


def normalisation(
    classes: Classes, mean: tuple[float, ...] | None, std: tuple[float, ...] | None, where: str
) -> Normalise:
    """Returns the normalisation of the pixels that the weights were trained on.

    Args:
        classes: `imagenet` has a known normalisation.
        mean: one value a channel, or None for that of `imagenet`.
        std: likewise.
        where: the teacher's key in the configuration, for the errors.

    Raises:
        ValueError: it is not known, or mean and std do not fit together.
    """
    if mean is None and std is None and classes == "imagenet":
        known = importlib.import_module("timm.data.constants")  # here: timm takes a second to import
        return Normalise(known.IMAGENET_DEFAULT_MEAN, known.IMAGENET_DEFAULT_STD)
    if mean is None or std is None:
        raise ValueError(
            f"{where}.mean={mean} and {where}.std={std}: which normalisation were its weights trained with? "
            f"Use '+{where}.mean=[0.5,0.5,0.5]' '+{where}.std=[0.5,0.5,0.5]' with their values, one a channel"
        )
    try:
        return Normalise(mean, std)
    except ValueError as error:
        raise ValueError(f"{where}.mean and {where}.std: {error}") from error
