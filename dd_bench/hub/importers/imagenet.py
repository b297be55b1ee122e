"""The 1000 classes of ImageNet: class index, WordNet ID and names, from the lists that timm contains."""

from __future__ import annotations

import re
from functools import cache
from typing import Any


def is_wnid(name: str) -> bool:
    """Return whether a class name is a WordNet ID, such as n02086240."""
    return re.fullmatch("n[0-9]{8}", name) is not None


@cache
def wnids() -> tuple[str, ...]:
    """Return the WordNet IDs of the 1000 classes in the order of their class indices, which is their sorted order."""
    return tuple(_info().label_names())


def words(wnid: str) -> tuple[str, ...]:
    """Return ImageNet's names of one of its classes, the most common first; empty for another class."""
    return tuple(_info().label_name_to_description(wnid).split(", ")) if wnid in wnids() else ()


@cache
def _info() -> Any:
    from timm.data.imagenet_info import ImageNetInfo  # the import takes seconds

    return ImageNetInfo("imagenet-1k")
