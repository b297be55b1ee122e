"""Export a synthetic set as a Parquet file for Hugging Face `datasets`."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from dd_bench.hub.training_images import Exported, TrainingImages, png
from dd_bench.runtime.files import write_atomic
from dd_bench.synthetic.base import SyntheticSet


def parquet(syn: SyntheticSet, path: Path, *, lossless: bool = True) -> Exported:
    """Write one Parquet file with one row per training image.

    The columns are:

    - `image`: the pixels in 8 bits, rounded and clipped, for viewing.
    - `label`: the class. For soft labels, it is their argmax.
    - `soft_label`: probabilities, float32 `(k,)`, if the set has soft labels.
    - `input`: the network input, float32 `(c, h, w)`, if `lossless`. `inputs()` of the set has the same bits.

    Raises:
        ImportError: `datasets` is not installed.
        ValueError: the set does not contain images, or they are neither grey nor RGB.
        FileExistsError: `path` exists.
    """
    if path.exists():
        raise FileExistsError(f"{path} exists. Remove it first, or choose another path")
    images = TrainingImages.of(syn)
    write_atomic(path, parquet_bytes(images, lossless=lossless))
    return images.exported(path, with_inputs=lossless)


def parquet_bytes(images: TrainingImages, *, lossless: bool) -> bytes:
    """Return the content of the file, see `parquet`.

    Raises:
        ImportError: `datasets` is not installed.
    """
    try:
        from datasets import Array3D, ClassLabel, Dataset, Features, Value, disable_progress_bars
        from datasets import Image as ImageFeature
        from datasets import List as ListFeature
    except ImportError as error:
        raise ImportError(
            "Parquet export requires datasets, which is not installed. Use: pip install 'dd-bench[parquet]'"
        ) from error
    columns: dict[str, Any] = {"image": [{"bytes": png(image), "path": None} for image in images.pixels]}
    features = {"image": ImageFeature(), "label": ClassLabel(names=list(images.class_names))}
    columns["label"] = images.classes.tolist()
    if images.labels.ndim == 2:
        features["soft_label"], columns["soft_label"] = ListFeature(Value("float32")), images.labels.tolist()
    if lossless:
        features["input"] = Array3D(shape=tuple(images.inputs.shape[1:]), dtype="float32")
        columns["input"] = list(images.inputs.numpy())
    disable_progress_bars()
    content = io.BytesIO()
    Dataset.from_dict(columns, features=Features(features)).to_parquet(content)
    return content.getvalue()
