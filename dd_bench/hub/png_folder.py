"""Export a synthetic set as a folder of PNG files."""

from __future__ import annotations

from pathlib import Path

from dd_bench.hub.folder_layout import class_folders, write_labels
from dd_bench.hub.training_images import Exported, TrainingImages, png
from dd_bench.runtime.cache import publish
from dd_bench.synthetic.base import SyntheticSet


def png_folder(syn: SyntheticSet, folder: Path) -> Exported:
    """Write `<class>/<number>.png`, and `labels.csv` if the set has soft labels.

    The names of the class folders begin with the label, e.g. `03_dress`. Pixels are stored in 8 bits. This is exact for
    real images in a coreset. Other images are rounded and clipped to [0, 1].

    Raises:
        ValueError: the set does not contain images, or they are neither grey nor RGB.
        FileExistsError: `folder` exists.
    """
    images = TrainingImages.of(syn)
    names = class_folders(syn.class_names)
    width = len(str(len(images.pixels) - 1))
    files = [f"{names[c]}/{i:0{width}d}.png" for i, c in enumerate(images.classes.tolist())]

    def fill(scratch: Path) -> None:
        for name in names:
            (scratch / name).mkdir()
        for name, image in zip(files, images.pixels, strict=True):
            (scratch / name).write_bytes(png(image))
        if images.labels.ndim == 2:
            write_labels(scratch, files, images.labels, syn.class_names)

    return images.exported(publish(folder, fill), with_inputs=False)
