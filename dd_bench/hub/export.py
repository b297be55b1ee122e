"""Export a synthetic set as a folder of PNG files, or as a Parquet file.

All training images are exported, even if the set stores fewer images and decodes them (multi-formation, canvases,
compensators).
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor

from dd_bench.hub.folder_layout import class_folders, write_labels
from dd_bench.runtime.cache import publish
from dd_bench.runtime.files import write_atomic
from dd_bench.synthetic import storage
from dd_bench.synthetic.base import SyntheticImages, SyntheticSet


class Exported(NamedTuple):
    """The exported folder or file.

    Attributes:
        images: number of exported images.
        clipped: fraction of the pixel values that were outside [0, 1] and were clipped, because 8 bits cannot
            represent them.
    """

    path: Path
    images: int
    clipped: float


def png_folder(syn: SyntheticSet, folder: Path) -> Exported:
    """Write `<class>/<number>.png`, and `labels.csv` if the set has soft labels.

    The names of the class folders begin with the label, e.g. `03_dress`. Pixels are stored in 8 bits. This is exact for
    real images in a coreset. Other images are rounded and clipped to [0, 1].

    Raises:
        ValueError: the set does not contain images, or they are neither grey nor RGB.
        FileExistsError: `folder` exists.
    """
    pixels, labels, clipped = _to_uint8(syn)
    classes = labels if labels.ndim == 1 else labels.argmax(1)
    names = class_folders(syn.class_names)
    width = len(str(len(pixels) - 1))
    files = [f"{names[c]}/{i:0{width}d}.png" for i, c in enumerate(classes.tolist())]

    def fill(scratch: Path) -> None:
        for name in names:
            (scratch / name).mkdir()
        for name, image in zip(files, pixels, strict=True):
            (scratch / name).write_bytes(_png(image))
        if labels.ndim == 2:
            write_labels(scratch, files, labels, syn.class_names)

    return Exported(publish(folder, fill), len(pixels), clipped)


def parquet(syn: SyntheticSet, path: Path) -> Exported:
    """Write one Parquet file that Hugging Face `datasets` loads as an image and a class label per row.

    The columns are `image` and `label`. A set with soft labels also has a column `soft_label` with lists of
    probabilities, and `label` is their argmax. Pixels are stored as in `png_folder`.

    Raises:
        ImportError: `datasets` is not installed.
        ValueError: see `png_folder`.
        FileExistsError: `path` exists.
    """
    if path.exists():
        raise FileExistsError(f"{path} exists. Remove it first, or choose another path")
    try:
        from datasets import ClassLabel, Dataset, Features, Value, disable_progress_bars
        from datasets import Image as ImageFeature
        from datasets import List as ListFeature
    except ImportError as error:
        raise ImportError(
            "Parquet export requires datasets, which is not installed. Use: pip install 'dd-bench[parquet]'"
        ) from error
    pixels, labels, clipped = _to_uint8(syn)
    columns = {"image": [{"bytes": _png(image), "path": None} for image in pixels]}
    features = {"image": ImageFeature(), "label": ClassLabel(names=list(syn.class_names))}
    columns["label"] = (labels if labels.ndim == 1 else labels.argmax(1)).tolist()
    if labels.ndim == 2:
        features["soft_label"], columns["soft_label"] = ListFeature(Value("float32")), labels.tolist()
    disable_progress_bars()
    content = io.BytesIO()
    Dataset.from_dict(columns, features=Features(features)).to_parquet(content)
    write_atomic(path, content.getvalue())
    return Exported(path, len(pixels), clipped)


def export_command(arguments: Sequence[str]) -> int:
    """Write a synthetic set as a folder of PNG files, or as a Parquet file if TO ends in .parquet."""
    from dd_bench.hub.hub import located, print_result

    parser = argparse.ArgumentParser("dd-bench export", description=export_command.__doc__)
    parser.add_argument("set", help="folder or URL of the set")
    parser.add_argument("to", type=Path, help="folder or .parquet file to create; it must not exist")
    args = parser.parse_args(arguments)

    def export() -> str:
        write = parquet if args.to.suffix == ".parquet" else png_folder
        exported = write(storage.load(located(args.set))[0], args.to)
        clipped = f"; {100 * exported.clipped:.2f} % of the pixels were outside [0, 1] and were clipped"
        return f"{exported.path}: {exported.images} images" + (clipped if exported.clipped else "")

    return print_result(export)


def _images(syn: SyntheticSet) -> SyntheticImages:
    if not isinstance(syn, SyntheticImages):
        raise ValueError(
            f"only sets of images can be exported, got a set of kind {syn.kind!r}. "
            "Read the tensors in its synthetic.safetensors instead"
        )
    return syn


def _to_uint8(syn: SyntheticSet) -> tuple[Tensor, Tensor, float]:
    """Return all training images as uint8 `(n, c, h, w)`, their labels, and the fraction of pixels outside [0, 1]."""
    inputs, labels = _images(syn).materialise(torch.device("cpu"))
    pixels = syn.preprocess.inverse(inputs)
    if pixels.shape[1] not in (1, 3):
        raise ValueError(f"images must have 1 or 3 channels (grey or RGB), got {pixels.shape[1]}")
    tolerance = 1e-4  # rounding error of inverting the preprocessing in float32
    clipped = ((pixels < -tolerance) | (pixels > 1 + tolerance)).float().mean()
    return (pixels.clamp(0, 1) * 255).round().byte(), labels, float(clipped)


def _png(image: Tensor) -> bytes:
    content = io.BytesIO()
    channels_last = image.permute(1, 2, 0).numpy()
    Image.fromarray(channels_last[..., 0] if len(image) == 1 else channels_last).save(content, format="PNG")
    return content.getvalue()
