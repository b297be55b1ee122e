"""IDX, the file format of MNIST and Fashion-MNIST: a big-endian header followed by the raw bytes."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from dd_bench.data.locate import base_folder, downloading, not_found

PARTS = ("train", "t10k")


def load_idx(
    name: str,
    dataset: str,
    *,
    root: str | None,
    download: bool,
    extra_folders: Sequence[Path],
    fixes: Sequence[str],
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Return `((train pixels, labels), (test pixels, labels))`: uint8 `(n, 1, h, w)` and int64 `(n,)`.

    The files are read from the first complete folder: `root` (only if it is given, because
    `data/train-images-idx3-ubyte.gz` could be MNIST or Fashion-MNIST), torchvision's folder in `root` or `data`, and
    `extra_folders`. If no folder is complete and `download` is true, the files are downloaded.

    Args:
        name: name of the dataset.
        dataset: torchvision's name of it, `MNIST` or `FashionMNIST`.
        root: see above.
        download: see above.
        extra_folders: see above.
        fixes: further lines of the error message for missing files.

    Raises:
        FileNotFoundError: no folder contains the four files.
        ValueError: a file is damaged, or the numbers of images and labels differ.
    """
    base = base_folder(root)
    raw = base / dataset / "raw"
    folders = [*([] if root is None else [base]), raw, *extra_folders]
    folder = next((f for f in folders if _is_complete(f)), None)
    if folder is None and download:
        from torchvision import datasets  # the import takes seconds

        download_into = getattr(datasets, dataset)
        files = "the folder that contains the four files, plain or .gz"
        with downloading(name, " or ".join(download_into.mirrors), raw, files):
            download_into(str(base), download=True)  # verifies the md5 of each file
        folder = raw
    if folder is None:
        files = "train-images-idx3-ubyte, train-labels-idx1-ubyte and the same with t10k (plain or .gz)"
        raise not_found(name, files, folders, [*fixes, "dataset.root=FOLDER", "dataset.download=true"])
    train, test = (_read_part(folder, part) for part in PARTS)
    return train, test


def _file(folder: Path, part: str, kind: str) -> Path | None:
    stem = f"{part}-{kind}-ubyte"
    return next((p for p in (folder / f"{stem}.gz", folder / stem) if p.is_file()), None)


def _is_complete(folder: Path) -> bool:
    return all(_file(folder, part, kind) for part in PARTS for kind in ("images-idx3", "labels-idx1"))


def _read_part(folder: Path, part: str) -> tuple[Tensor, Tensor]:
    image_file, label_file = _file(folder, part, "images-idx3"), _file(folder, part, "labels-idx1")
    assert image_file is not None and label_file is not None
    pixels, labels = read_idx(image_file, rank=3), read_idx(label_file, rank=1)
    if len(pixels) != len(labels):
        raise ValueError(
            f"{image_file} and {label_file} must have the same length, got {len(pixels)} images and "
            f"{len(labels)} labels. Download both again"
        )
    return pixels[:, None], labels.long()


def read_idx(path: Path, rank: int) -> Tensor:
    """Read an IDX file of unsigned bytes, compressed with gzip if its name ends in .gz.

    Returns:
        A uint8 tensor with `rank` dimensions.

    Raises:
        ValueError: the gzip stream is damaged, or the header or the length is wrong.
    """
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{path} is not a complete gzip file ({error}). Download it again") from error
    # two zero bytes, the type code of uint8, the number of dimensions
    magic = struct.pack(">HBB", 0, 8, rank)
    header = 4 + 4 * rank
    if raw[:4] != magic or len(raw) < header:
        raise ValueError(
            f"{path} must start with {magic.hex()} (IDX, uint8, {rank} dimensions), got {raw[:4].hex()}"
        )
    shape = struct.unpack(f">{rank}I", raw[4:header])
    if len(raw) - header != math.prod(shape):
        raise ValueError(
            f"{path} must have {math.prod(shape)} bytes of data, because its header gives the shape {shape}, "
            f"got {len(raw) - header} bytes. Download it again"
        )
    return torch.frombuffer(bytearray(raw), dtype=torch.uint8, offset=header).view(shape)
