"""A set of images that is stored as codes of a few bits per value. Networks are trained on the dequantised images."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Self, get_args

import torch
from torch import Tensor

from dd_bench.data.inputs import LazyInputs
from dd_bench.data.preprocess import Preprocess
from dd_bench.runtime.packed_bits import bits_for, packed_size
from dd_bench.synthetic.base import Space, SyntheticImages, check_finite, check_shape, require_tensors
from dd_bench.synthetic.code_sizes import code_sizes
from dd_bench.synthetic.images import ImageSet
from dd_bench.synthetic.quantisation import Codes, Quantiser, dequantise, pack, quantise, unpack

SPACE = "code"
"""Value of `space` in the card of these sets."""
_GROUP = "group"
"""Name of the tensor with the group of each cell."""


@dataclass(frozen=True, eq=False)
class QuantisedSet(SyntheticImages):
    """Packed codes of images, float16 parameters, and the labels and fields of the set of images that they encode.

    Pixels with 8 bits are dequantised to float32, not rounded to 8 bits again. All stored tensors count in
    `stored_bytes`: the codes, both parameters, and the groups of cells.

    Attributes:
        codes: the codes of all values in the order of `(n, c, h, w)`, uint8, see `pack`.
        minimum: float16 `(g,)`: the value of code 0 of each group. In space "pixel", values are from 0 to 255.
        step: float16 `(g,)`: the difference of two levels of each group, > 0.
        group: packed group of each cell, with the smallest sufficient number of bits; None if each cell is a group.
        quantiser: bits per value, and the cells.
        shape: shape of the images, `(n, c, h, w)`.
        decoded_space: space of the quantised images, see `ImageSet`.
        labels, class_names, preprocess, factor, source, whole, lr, canvas: see `ImageSet`.
    """

    kind: ClassVar[str] = "codes"
    main_tensors: ClassVar[str] = "codes, minimum, step, labels"
    exact_ipc: ClassVar[bool] = True

    codes: Tensor
    minimum: Tensor
    step: Tensor
    group: Tensor | None
    labels: Tensor
    quantiser: Quantiser
    shape: tuple[int, int, int, int]
    decoded_space: Space
    class_names: tuple[str, ...]
    preprocess: Preprocess
    factor: int = 1
    source: tuple[int, ...] | None = None
    whole: bool = False
    lr: float | None = None
    canvas: int = 1

    def __post_init__(self) -> None:
        """Raise ValueError if a tensor or field does not have the shape, dtype or range that the class documents."""
        if self.decoded_space not in get_args(Space):
            raise ValueError(
                f"decoded_space must be one of {', '.join(get_args(Space))}, got {self.decoded_space!r}"
            )
        cells = self.quantiser.num_cells(self.shape)
        count = self.quantiser.groups or cells
        for name in ("minimum", "step"):
            tensor = getattr(self, name)
            if tensor.dtype != torch.float16 or tensor.shape != (count,):
                raise ValueError(
                    f"{name} must be float16 ({count},), got {tensor.dtype} {tuple(tensor.shape)}"
                )
            check_finite(f"values of {name}", tensor)
        if not bool((self.step > 0).all()):
            raise ValueError(f"step must be > 0, got {float(self.step.min()):g}")
        if (self.group is None) != (self.quantiser.groups is None):
            raise ValueError("a set must have the tensor 'group' if, and only if, its card has `groups`")
        _ = self.decoded  # checks the codes and all other fields

    @classmethod
    def of(cls, syn: ImageSet | QuantisedSet, quantiser: Quantiser) -> QuantisedSet:
        """Quantise the images of a set, or the dequantised images of a quantised set.

        Raises:
            ValueError: see `quantise`.
        """
        if isinstance(syn, QuantisedSet):
            images, values, space = syn.decoded, dequantise(syn.coded, syn.quantiser), syn.decoded_space
        else:
            images, values, space = syn, syn.images.float(), syn.space
        coded = quantise(values, quantiser)
        bits = _group_bits(quantiser)
        n, c, h, w = values.shape
        return cls(
            codes=pack(coded.codes, quantiser.bits),
            minimum=coded.minimum,
            step=coded.step,
            group=None if coded.group is None else pack(coded.group, bits),
            labels=images.labels,
            quantiser=quantiser,
            shape=(n, c, h, w),
            decoded_space=space,
            class_names=images.class_names,
            preprocess=images.preprocess,
            factor=images.factor,
            source=images.source,
            whole=images.whole,
            lr=images.lr,
            canvas=images.canvas,
        )

    @cached_property
    def coded(self) -> Codes:
        """The unpacked codes and the parameters."""
        codes = (
            unpack(self.codes, self.quantiser.bits, math.prod(self.shape)).to(torch.uint8).view(self.shape)
        )
        group = None
        if self.group is not None:
            cells = self.quantiser.num_cells(self.shape)
            group = unpack(self.group, _group_bits(self.quantiser), cells)
            if int(group.max()) >= len(self.minimum):
                raise ValueError(f"group must be from 0 to {len(self.minimum) - 1}, got {int(group.max())}")
        return Codes(codes, self.minimum, self.step, group)

    @cached_property
    def decoded(self) -> ImageSet:
        """The set of the dequantised images, in space "unit" if pixels were quantised, clipped to [0, 1]."""
        images, space = dequantise(self.coded, self.quantiser), self.decoded_space
        if space == "pixel":
            images, space = images / 255, "unit"
        if space == "unit":
            images = images.clamp(0, 1)
        return ImageSet(
            images,
            self.labels,
            space,
            self.class_names,
            self.preprocess,
            self.factor,
            self.source,
            self.whole,
            self.lr,
            self.canvas,
        )

    def materialise(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """See `SyntheticSet`."""
        return self.decoded.materialise(device)

    def materialise_lazily(self, device: torch.device) -> tuple[LazyInputs, Tensor]:
        """See `SyntheticSet`."""
        return self.decoded.materialise_lazily(device)

    def tensors(self) -> dict[str, Tensor]:
        """See `SyntheticSet`."""
        group = {} if self.group is None else {_GROUP: self.group}
        return {
            "codes": self.codes,
            "minimum": self.minimum,
            "step": self.step,
            **group,
            "labels": self.labels,
        }

    def describe_tensors(self) -> str:
        """See `SyntheticSet`."""
        shape, q, group = list(self.shape), self.quantiser, ""
        if self.group is not None:
            group = f"`group` has the packed group of each cell, {_group_bits(q)} bits each.\n"
        return f"""`codes` are integers of {q.bits} bits with the shape {shape}, the most significant bit first, without
padding between them (numpy.unpackbits). {q.text}. A value in space
{self.decoded_space!r} is `minimum + step * code`, with the parameters of its cell. {group}
Space "pixel" is 0 to 255, "unit" is [0, 1], "input" is already preprocessed by `card.json`'s `preprocess`."""

    def config(self) -> dict[str, Any]:
        """See `SyntheticSet`."""
        fields = self.decoded.config()
        return fields | {
            "space": SPACE,
            "decoded_space": self.decoded_space,
            "stored_shape": list(self.shape),
            **self.quantiser.config(),
        }

    @classmethod
    def restore(
        cls,
        config: dict[str, Any],
        tensors: dict[str, Tensor],
        class_names: tuple[str, ...],
        preprocess: Preprocess,
    ) -> Self:
        """See `SyntheticSet`."""
        require_tensors(tensors, "codes", "minimum", "step", "labels")
        shape, canvas = config["stored_shape"], config.get("canvas", 1)
        if not isinstance(shape, list) or len(shape) != 4 or any(type(s) is not int or s < 1 for s in shape):
            raise ValueError(f"stored_shape must be four integers >= 1, got {str(shape)[:100]}")
        if type(canvas) is not int or canvas < 1:
            raise ValueError(f"canvas must be an integer >= 1, got {canvas!r}")
        quantiser = Quantiser(
            config["bits"], config["per"], patch=config.get("patch", 4), groups=config.get("groups")
        )
        if tensors["codes"].numel() != packed_size(math.prod(shape), quantiser.bits):  # before it is unpacked
            raise ValueError(
                f"codes must have {quantiser.bits} bits for each of the {math.prod(shape):,} values"
            )
        check_shape([shape[1], *(side // canvas for side in shape[2:])], config, preprocess)
        return cls(
            codes=tensors["codes"],
            minimum=tensors["minimum"],
            step=tensors["step"],
            group=tensors.get(_GROUP),
            labels=tensors["labels"],
            quantiser=quantiser,
            shape=(shape[0], shape[1], shape[2], shape[3]),
            decoded_space=config["decoded_space"],
            class_names=class_names,
            preprocess=preprocess,
            factor=config["factor"],
            source=None if config["source"] is None else tuple(config["source"]),
            whole=bool(config.get("whole", False)),
            lr=config.get("lr"),
            canvas=canvas,
        )

    def pictures(self) -> tuple[Tensor, Tensor]:
        """See `SyntheticSet`."""
        return self.decoded.pictures()

    def stored_samples(self) -> Tensor:
        """See `SyntheticSet`."""
        return self.decoded.stored_samples()

    def describe_samples(self) -> str:
        """See `SyntheticSet`."""
        return self.decoded.describe_samples()

    def decoding(self) -> dict[str, int | str]:
        """See `SyntheticSet`."""
        return self.decoded.decoding()

    def size_metrics(self) -> dict[str, int]:
        """See `SyntheticSet` and `code_sizes`."""
        return code_sizes(self.coded.codes, self.quantiser.bits)


def _group_bits(quantiser: Quantiser) -> int:
    return bits_for(quantiser.groups or 1)
