"""A synthetic set for other people's code: a plain `TensorDataset`, a folder of PNG files, or a Parquet file.

Every training image is written, also where a set stores several in one (multi-formation, canvases, compensators).
"""

from __future__ import annotations

import argparse
import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import TensorDataset

from dd_bench.runtime.cache import publish
from dd_bench.runtime.files import write_atomic
from dd_bench.synthetic.base import SyntheticImages, SyntheticSet


def tensor_dataset(syn: SyntheticSet, device: str | torch.device = "cpu") -> TensorDataset:
    """Returns what a network trains on: preprocessed float32 images `(n, c, h, w)` and labels `(n,)` or `(n, k)`.

    Raises:
        ValueError: the set is no images.
    """
    return TensorDataset(*_images(syn).materialise(torch.device(device)))


class Written(NamedTuple):
    """What was exported."""

    path: Path
    images: int
    outside: float  # share of pixels beyond [0, 1], which 8 bits cannot hold: they were cut off


def png_folder(syn: SyntheticSet, folder: Path) -> Written:
    """Writes `<class>/<number>.png`, and `labels.csv` with the soft labels, if the set has such.

    Classes are folders in label order, `03_dress`. Eight bits a pixel: exact for selections of real images, rounded
    and cut off at 0 and 1 for others.

    Raises:
        ValueError: the set is no images, or they are neither grey nor RGB.
        FileExistsError: there is something at `folder`.
    """
    pixels, labels, outside = _eight_bits(syn)
    classes = labels if labels.ndim == 1 else labels.argmax(1)
    names = [f"{c:0{len(str(len(syn.class_names) - 1))}d}_{name}" for c, name in enumerate(syn.class_names)]
    names = ["".join(x if x.isalnum() or x in "_-" else "_" for x in name) for name in names]
    width = len(str(len(pixels) - 1))
    files = [f"{names[c]}/{i:0{width}d}.png" for i, c in enumerate(classes.tolist())]

    def fill(scratch: Path) -> None:
        for name in names:
            (scratch / name).mkdir()
        for name, image in zip(files, pixels, strict=True):
            (scratch / name).write_bytes(_png(image))
        if labels.ndim == 2:
            with (scratch / "labels.csv").open("w", newline="") as file:
                rows = csv.writer(file)
                rows.writerow(["file", *syn.class_names])
                rows.writerows([name, *row] for name, row in zip(files, labels.tolist(), strict=True))

    return Written(publish(folder, fill), len(pixels), outside)


def parquet(syn: SyntheticSet, path: Path) -> Written:
    """Writes one Parquet file with columns `image` and `label` that Hugging Face `datasets` reads back as they are.

    Soft labels are a column `soft_label` of lists beside the class of the largest. Pixels as in `png_folder`.

    Raises:
        ImportError: `datasets` is not installed.
        ValueError: see `png_folder`.
        FileExistsError: there is something at `path`.
    """
    if path.exists():
        raise FileExistsError(f"{path} exists. Remove it first, or choose another place")
    try:
        from datasets import ClassLabel, Dataset, Features, Value, disable_progress_bars
        from datasets import Image as ImageFeature
        from datasets import List as Many
    except ImportError as error:
        raise ImportError("Parquet needs datasets. Use: pip install 'dd-bench[parquet]'") from error
    pixels, labels, outside = _eight_bits(syn)
    columns = {"image": [{"bytes": _png(image), "path": None} for image in pixels]}
    features = {"image": ImageFeature(), "label": ClassLabel(names=list(syn.class_names))}
    columns["label"] = (labels if labels.ndim == 1 else labels.argmax(1)).tolist()
    if labels.ndim == 2:
        features["soft_label"], columns["soft_label"] = Many(Value("float32")), labels.tolist()
    disable_progress_bars()
    content = io.BytesIO()
    Dataset.from_dict(columns, features=Features(features)).to_parquet(content)
    write_atomic(path, content.getvalue())
    return Written(path, len(pixels), outside)


def export_verb(arguments: Sequence[str]) -> int:
    """`dd-bench export SET TO`: writes a set as a folder of PNG files, or as Parquet if TO ends in .parquet."""
    from dd_bench.hub.hub import answered, load

    parser = argparse.ArgumentParser("dd-bench export", description=export_verb.__doc__)
    parser.add_argument("set", help="folder or URL of the set")
    parser.add_argument("to", type=Path, help="a new folder, or a file .parquet")
    args = parser.parse_args(arguments)

    def written() -> str:
        made = (parquet if args.to.suffix == ".parquet" else png_folder)(load(args.set), args.to)
        share = f"{100 * made.outside:.2f} % of the pixels lay outside [0, 1] and were cut off"
        return f"{made.path}: {made.images} images" + (f"; {share}" if made.outside else "")

    return answered(written)


def _images(syn: SyntheticSet) -> SyntheticImages:
    if not isinstance(syn, SyntheticImages):
        raise ValueError(
            f"the set holds {syn.kind}, and only images can be exported. Its tensors are safetensors"
        )
    return syn


def _eight_bits(syn: SyntheticSet) -> tuple[Tensor, Tensor, float]:
    """Returns all training images as uint8 `(n, c, h, w)`, their labels, and the share of pixels beyond [0, 1]."""
    inputs, labels = _images(syn).materialise(torch.device("cpu"))
    pixels = syn.preprocess.inverse(inputs)
    if pixels.shape[1] not in (1, 3):
        raise ValueError(f"images of {pixels.shape[1]} channels are neither grey nor RGB")
    slack = 1e-4  # of undoing the preprocessing in float32
    outside = ((pixels < -slack) | (pixels > 1 + slack)).float().mean()
    return (pixels.clamp(0, 1) * 255).round().byte(), labels, float(outside)


def _png(image: Tensor) -> bytes:
    content = io.BytesIO()
    channels_last = image.permute(1, 2, 0).numpy()
    Image.fromarray(channels_last[..., 0] if len(image) == 1 else channels_last).save(content, format="PNG")
    return content.getvalue()
