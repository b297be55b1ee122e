"""The precision of the stored images of a set: `method.store` of a run, and `dd-bench quantise`.

Both write what they changed, and the error that it causes, to the key `STORED` of the configuration in the card.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from dd_bench.synthetic.base import SyntheticSet
from dd_bench.synthetic.images import ImageSet, unit_pixels
from dd_bench.synthetic.quantisation import BITS, Quantiser
from dd_bench.synthetic.quantised import QuantisedSet

FLOATS = {"float32": torch.float32, "float16": torch.float16}
STORES = (*FLOATS, *(f"uint{bits}" for bits in sorted(BITS, reverse=True)))
"""Values of `method.store`. `uint4` quantises to 4 bits per value, with the range of each image."""
PRECISION_KEYS = ("store", "bits")
"""Keys of every method in `conf/config.yaml`. They are part of content keys and records only if they are not null."""


def chosen_store(method: Mapping[str, Any]) -> str | None:
    """Return the precision that the values of a method choose: `store`, or the one of `bits`; None to keep its own."""
    bits = method.get("bits")
    return method.get("store") if bits is None else f"uint{bits}"


def check_store(method: Mapping[str, Any], kinds: tuple[str, ...], modality: str) -> str | None:
    """Return why the sets of a method cannot be stored with its `store` and `bits`, or None if they can.

    Args:
        method: the values of the method.
        kinds: kinds of the sets of the method.
        modality: modality of the dataset.
    """
    store, bits = method.get("store"), method.get("bits")
    if store is None and bits is None:
        return None
    if store is not None and store not in STORES:
        return f"method.store must be {', '.join(STORES)} or null, got {store!r}. Example: method.store=uint8"
    if bits is not None and (type(bits) is not int or bits not in BITS):
        return (
            f"method.bits must be {', '.join(map(str, BITS))} or null, got {bits!r}. Example: method.bits=4"
        )
    if store is not None and bits is not None:
        return f"method.bits={bits} stores images with {bits} bits. Use method.store=null"
    if modality != "image" or ImageSet.kind not in kinds:
        name = "store" if bits is None else "bits"
        return f"method.{name} requires a method that returns images, got {kinds[0]}. Use method.{name}=null"
    return None


def store_as(syn: SyntheticSet, store: str) -> tuple[SyntheticSet, dict[str, Any]]:
    """Return a set with the precision `store`, one of `STORES`, and the entry `stored` for its card.

    Images with 8 bits per value are not changed by `uint8`, and are stored in space "unit" by a floating-point type.
    """
    images = _images_of(syn)
    if store in FLOATS:
        is_input = images.space == "input"
        values = images.images if is_input else unit_pixels(images.images)
        stored = replace(images, images=values.to(FLOATS[store]), space="input" if is_input else "unit")
        return stored, {"precision": store, **_error(images, stored)}
    if store == "uint8" and images.space == "pixel":
        return images, {"precision": "uint8", **_error(images, images)}
    return quantise_set(images, Quantiser(int(re.sub(r"\D", "", store))))


def quantise_set(syn: SyntheticSet, quantiser: Quantiser) -> tuple[QuantisedSet, dict[str, Any]]:
    """Quantise the images of a set, and return the entry `stored` for the new card too.

    Raises:
        ValueError: the set does not have images alone, or its values cannot be quantised.
    """
    images = _images_of(syn)
    found = QuantisedSet.of(syn if isinstance(syn, QuantisedSet) else images, quantiser)
    entry = {"precision": quantiser.text, **quantiser.config(), "clip": quantiser.clip}
    return found, entry | _error(images, found.decoded)


def _images_of(syn: SyntheticSet) -> ImageSet:
    """Return a set of images, or the decoded images of a quantised set."""
    if isinstance(syn, QuantisedSet):
        return syn.decoded
    if not isinstance(syn, ImageSet):
        raise ValueError(
            f"only sets of images alone can be stored with another precision, got a set of kind {syn.kind!r}. Use a "
            "set of kind images or codes, e.g. of method=dm, or use this set as it is: dd-bench evaluate set=FOLDER"
        )
    return syn


def _error(before: ImageSet, after: ImageSet) -> dict[str, float | None]:
    """Return the error of the stored values: root mean square, maximum, and signal-to-noise ratio in decibels.

    Pixels are in [0, 1]; values in space "input" are network inputs. The ratio of an error of 0 is None.
    """
    values = [_values(syn) for syn in (before, after)]
    error = values[1] - values[0]
    power, noise = (float(x.square().mean()) for x in (values[0], error))
    ratio = 10 * math.log10(power / noise) if noise and power else None
    return {
        "rmse": _rounded(math.sqrt(noise)),
        "max_error": _rounded(float(error.abs().max())),
        "snr_db": None if ratio is None else round(ratio, 2),
    }


def _values(syn: ImageSet) -> Tensor:
    return (syn.images if syn.space == "input" else unit_pixels(syn.images)).double()


def _rounded(value: float) -> float:
    """Return a value with six significant digits, which do not depend on the order of a sum."""
    return float(f"{value:.6g}")
