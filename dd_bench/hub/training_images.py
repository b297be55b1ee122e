"""The training images of a synthetic set, as exported files contain them.

All training images are exported, even if the set stores fewer images and decodes them (multi-formation, canvases,
compensators).
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor

from dd_bench.synthetic.base import SyntheticImages, SyntheticSet

_TOLERANCE = 1e-4  # rounding error of inverting the preprocessing in float32


class Exported(NamedTuple):
    """The exported folder or file.

    Attributes:
        images: number of exported images.
        clipped: fraction of the pixel values that were outside [0, 1] and were clipped in the 8-bit images.
        lossless: whether the network inputs can be restored without any rounding.
    """

    path: Path
    images: int
    clipped: float
    lossless: bool


class TrainingImages(NamedTuple):
    """The network inputs of a set, their labels, and 8-bit images of them.

    Attributes:
        inputs: network inputs, float32 `(n, c, h, w)`.
        labels: int64 `(n,)` or float32 `(n, k)`.
        pixels: the same images without preprocessing, rounded and clipped to uint8 `(n, c, h, w)`.
        clipped: fraction of the pixel values that were outside [0, 1].
        exact: whether the preprocessing of `pixels` gives `inputs` without any rounding, as for real images.
        class_names: names of the classes, in label order.
    """

    inputs: Tensor
    labels: Tensor
    pixels: Tensor
    clipped: float
    exact: bool
    class_names: tuple[str, ...]

    @classmethod
    def of(cls, syn: SyntheticSet) -> TrainingImages:
        """Decode all training images of a set.

        Raises:
            ValueError: the set does not contain images, or they are neither grey nor RGB.
        """
        if not isinstance(syn, SyntheticImages):
            raise ValueError(
                f"only sets of images can be exported, got a set of kind {syn.kind!r}. "
                "Read the tensors in its synthetic.safetensors instead"
            )
        inputs, labels = syn.materialise(torch.device("cpu"))
        values = syn.preprocess.inverse(inputs)
        if values.shape[1] not in (1, 3):
            raise ValueError(f"images must have 1 or 3 channels (grey or RGB), got {values.shape[1]}")
        clipped = ((values < -_TOLERANCE) | (values > 1 + _TOLERANCE)).float().mean()
        pixels = (values.clamp(0, 1) * 255).round().byte()
        exact = torch.equal(syn.preprocess(pixels.float() / 255), inputs)
        return cls(inputs, labels, pixels, float(clipped), exact, syn.class_names)

    @property
    def classes(self) -> Tensor:
        """Classes of the images, int64 `(n,)`: the labels, or the argmax of soft labels."""
        return self.labels if self.labels.ndim == 1 else self.labels.argmax(1)

    def exported(self, path: Path, *, with_inputs: bool) -> Exported:
        """Describe a file or folder that contains all images, with or without `inputs`."""
        return Exported(path, len(self.pixels), self.clipped, with_inputs or self.exact)


def png(image: Tensor) -> bytes:
    """Return the PNG file of a uint8 image `(c, h, w)`, grey or RGB."""
    content = io.BytesIO()
    channels_last = image.permute(1, 2, 0).numpy()
    Image.fromarray(channels_last[..., 0] if len(image) == 1 else channels_last).save(content, format="PNG")
    return content.getvalue()
