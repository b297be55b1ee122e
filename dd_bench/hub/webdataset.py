"""Export a synthetic set as a tar file for WebDataset.

The tar file needs no pickle and no library: a sample is a group of files with the same name before the first dot.

    000017.png   the pixels in 8 bits, rounded and clipped, for viewing
    000017.npy   the network input, float32 (c, h, w)
    000017.cls   the class, a decimal number
    000017.json  {"class_name": ..., "soft_label": [...]}; soft_label only if the set has soft labels
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from dd_bench.hub.training_images import Exported, TrainingImages, png
from dd_bench.runtime.files import write_atomic
from dd_bench.synthetic.base import SyntheticSet


def webdataset(syn: SyntheticSet, path: Path, *, lossless: bool = True) -> Exported:
    """Write one tar file. The files of a sample are described above; `.npy` is omitted unless `lossless`.

    The same set always gives the same bytes.

    Raises:
        ValueError: the set does not contain images, or they are neither grey nor RGB.
        FileExistsError: `path` exists.
    """
    if path.exists():
        raise FileExistsError(f"{path} exists. Remove it first, or choose another path")
    images = TrainingImages.of(syn)
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in _files(images, lossless=lossless):
            member = tarfile.TarInfo(name)  # with time 0 and without an owner
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    write_atomic(path, content.getvalue())
    return images.exported(path, with_inputs=lossless)


def _files(images: TrainingImages, *, lossless: bool) -> Iterator[tuple[str, bytes]]:
    """Yield the names and contents of all files, sample after sample."""
    width = max(6, len(str(len(images.pixels) - 1)))
    for i, label in enumerate(images.classes.tolist()):
        key = f"{i:0{width}d}"
        yield f"{key}.png", png(images.pixels[i])
        if lossless:
            array = io.BytesIO()
            np.save(array, images.inputs[i].numpy())
            yield f"{key}.npy", array.getvalue()
        yield f"{key}.cls", str(label).encode()
        facts: dict[str, object] = {"class_name": images.class_names[label]}
        if images.labels.ndim == 2:
            facts["soft_label"] = images.labels[i].tolist()  # float32 values are exact in this notation
        yield f"{key}.json", json.dumps(facts).encode()
