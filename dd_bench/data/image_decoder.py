"""Decode image files to 8-bit RGB of a given size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, ClassVar

import numpy as np
import torch
from PIL import Image, ImageColor
from torch import Tensor

from dd_bench.data.threads import in_chunks

EIGHT_BITS = ("1", "L", "P", "RGB", "RGBA", "LA", "PA", "CMYK", "YCbCr", "La", "RGBa", "LAB", "HSV")
"""Pillow's modes of at most 8 bits per channel. Pillow reads 16-bit RGB as RGB, by the high byte of each value."""
_CHUNK_BYTES = 4 << 20  # decoded images of one task


@dataclass(frozen=True)
class Decoder:
    """Read an image file into uint8 `(3, h, w)`. Greyscale is converted to RGB; EXIF rotation is ignored.

    Files with several images (animations, TIFF files with several pages) are errors, because it is not known which
    image is meant. JPEG files of cameras with more pictures (MPO) are read: their first image is the photograph.

    Greyscale of more than 8 bits is converted by its full range: a 16-bit value v becomes `round(v / 257)`. TIFF files
    in which 0 is white are inverted. Floats and 32-bit integers have no fixed range and raise an error.

    `squash` resizes both sides and ignores the aspect ratio, as MTT does for its 128-pixel ImageNet subsets. `crop`
    resizes the shorter side and takes the centre crop. Both interpolate the uint8 pixels bilinearly with antialiasing.

    Attributes:
        size: height and width in pixels, one integer if they are equal.
        resize: `squash` or `crop`.
        background: colour under transparent pixels, e.g. `white` or `#808080`. None: such pixels raise an error.
    """

    size: int | tuple[int, int]
    resize: str
    background: str | None = None

    BACKGROUND: ClassVar[str] = "dataset.background="
    """Option that sets `background`, for messages."""

    def __post_init__(self) -> None:
        if min(self.shape) < 1:
            raise ValueError(
                f"dataset.size must be an integer >= 1, got {self.size}. Example: dataset.size=64"
            )
        if self.resize not in ("squash", "crop"):
            raise ValueError(
                f"dataset.resize must be squash or crop, got {self.resize}. Example: dataset.resize=crop"
            )
        try:
            ImageColor.getrgb(self.background or "black")
        except (ValueError, AttributeError) as error:
            raise ValueError(
                f"{self.BACKGROUND.strip(' =')} must be a colour, got {self.background!r}. "
                f"Example: {self.BACKGROUND}white"
            ) from error

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the result."""
        return self.size if isinstance(self.size, tuple) else (self.size, self.size)

    def __call__(self, path: Path) -> Tensor:
        """Read one image.

        Raises:
            ValueError: the file is not an image, is damaged, or its pixels cannot be converted to 8-bit RGB.
        """
        return self._decode(path, path)

    def _decode(self, source: Path | BinaryIO, path: Path) -> Tensor:
        """Read one image from `source`; `path` names it in messages."""
        try:
            with Image.open(source) as file:
                self._check_size(file.size, path)
                image = self._to_rgb(file, path)
        except Unsupported:
            raise
        except Exception as error:  # Pillow raises many classes of errors for damaged files
            raise ValueError(
                f"cannot read the image {path}: {str(error) or type(error).__name__}. Download it again or delete it"
            ) from error
        h, w = self.shape
        if image.size != (w, h):
            image = self._resized(image, h, w)
        return torch.from_numpy(np.array(image)).permute(2, 0, 1)

    def _check_size(self, size: tuple[int, int], path: Path) -> None:
        """Raise `Unsupported` if an image of this width and height is not accepted."""

    def _to_rgb(self, image: Image.Image, path: Path) -> Image.Image:
        """Return the image as 8-bit RGB.

        Raises:
            Unsupported: the file has several images, the range of the values is unknown, or there are transparent
                pixels and no `background`.
        """
        if getattr(image, "is_animated", False) and image.format != "MPO":
            raise Unsupported(
                f"{path} must contain one image, got several (an animation or several pages). Save the one to use as a "
                "PNG file in its place, or delete the file"
            )
        if image.mode not in EIGHT_BITS:
            return _from_full_range(image, path).convert("RGB")
        if image.has_transparency_data:
            rgba = image.convert("RGBA")
            if rgba.getchannel("A").getextrema()[0] != 255:
                if self.background is None:
                    raise Unsupported(
                        f"{path} has transparent pixels. Choose the colour under them. "
                        f"Example: {self.BACKGROUND}white"
                    )
                return Image.alpha_composite(Image.new("RGBA", rgba.size, self.background), rgba).convert(
                    "RGB"
                )
        return image.convert("RGB")

    def _resized(self, image: Image.Image, h: int, w: int) -> Image.Image:
        from torchvision.transforms import functional as transforms  # the import takes seconds

        if self.resize == "squash":
            resized: Image.Image = transforms.resize(image, [h, w])
        else:
            resized = transforms.center_crop(transforms.resize(image, [h]), [h, w])
        return resized


def decoded_chunks(paths: Sequence[Path], decoder: Decoder) -> Iterator[Tensor]:
    """Yield all images in order, as chunks uint8 `(b, 3, h, w)` on the CPU. Chunks are decoded in parallel."""

    def decode(chunk: Sequence[Path]) -> Tensor:
        pixels = torch.empty(len(chunk), 3, *decoder.shape, dtype=torch.uint8)
        for i, path in enumerate(chunk):
            pixels[i] = decoder(path)
        return pixels

    h, w = decoder.shape
    return in_chunks(decode, paths, max(1, min(256, _CHUNK_BYTES // (3 * h * w))))


def decode_all(paths: Sequence[Path], decoder: Decoder) -> Tensor:
    """Return all images, uint8 `(n, 3, h, w)` on the CPU."""
    pixels = torch.empty(len(paths), 3, *decoder.shape, dtype=torch.uint8)
    done = 0
    for chunk in decoded_chunks(paths, decoder):
        pixels[done : done + len(chunk)] = chunk
        done += len(chunk)
    return pixels


class Unsupported(ValueError):
    """The file is intact, but cannot be converted to an 8-bit RGB image without a choice of the user."""


def _from_full_range(image: Image.Image, path: Path) -> Image.Image:
    """Scale unsigned greyscale of more than 8 bits to 8 bits."""
    bits, inverted = 16, False
    if image.format == "TIFF":
        tags = image.tag_v2  # type: ignore[attr-defined]
        bits = tags[258][0]  # BitsPerSample; 12 bits are read as I;16
        # PhotometricInterpretation 0, WhiteIsZero: Pillow inverts such images only up to 8 bits
        inverted = tags.get(262) == 0
    # Pillow opens PNG and PGM with 16 bits as I;16 or, by version and byte order, as I
    known = image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM"))
    if not known or "transparency" in image.info:
        kind = {"F": "32-bit floats", "I": "32-bit integers"}.get(image.mode, f"mode {image.mode}")
        raise Unsupported(
            f"{path} must have 8-bit pixels, or greyscale of 16 bits without transparency, got {kind}. Their range is "
            "not known. Convert the images to 8-bit PNG files first"
        )
    maximum = 2**bits - 1
    values = np.asarray(image).astype(np.int64).clip(0, maximum)
    if inverted:
        values = maximum - values
    return Image.fromarray(((values * 255 + maximum // 2) // maximum).astype(np.uint8))
