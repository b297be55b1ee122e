"""IDX, the file format of MNIST and of the sets made after it: a big-endian header, then the bytes."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torchvision.datasets import MNIST

from dd_bench.data.locate import base_folder, not_found

PARTS = ("train", "t10k")


def load_idx(
    name: str,
    source: type[MNIST],
    *,
    root: str | None,
    download: bool,
    elsewhere: Sequence[Path],
    fixes: Sequence[str],
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Reads `((train pixels, labels), (test pixels, labels))`: uint8 `(n, 1, h, w)` and int64 `(n,)`.

    Looks into `root` itself if one is given (not into the default: a bare `data/train-images-idx3-ubyte.gz`
    could be MNIST or Fashion-MNIST), into torchvision's folder below it, then `elsewhere`; then `download`
    fetches.

    Raises:
        FileNotFoundError: no folder holds the four files.
        ValueError: a file is damaged, or images and labels do not go together.
    """
    base = base_folder(root)
    below = base / source.__name__ / "raw"
    folders = [*([] if root is None else [base]), below, *elsewhere]
    folder = next((f for f in folders if _complete(f)), None)
    if folder is None and download:
        source(str(base), download=True)  # verifies the md5 of each file
        folder = below
    if folder is None:
        what = "train-images-idx3-ubyte, train-labels-idx1-ubyte and their t10k twins (plain or .gz)"
        raise not_found(name, what, folders, [*fixes, "dataset.root=FOLDER", "dataset.download=true"])
    train, test = (_read_part(folder, part) for part in PARTS)
    return train, test


def _file(folder: Path, part: str, what: str) -> Path | None:
    stem = f"{part}-{what}-ubyte"
    return next((p for p in (folder / f"{stem}.gz", folder / stem) if p.is_file()), None)


def _complete(folder: Path) -> bool:
    return all(_file(folder, part, what) for part in PARTS for what in ("images-idx3", "labels-idx1"))


def _read_part(folder: Path, part: str) -> tuple[Tensor, Tensor]:
    image_file, label_file = _file(folder, part, "images-idx3"), _file(folder, part, "labels-idx1")
    assert image_file is not None and label_file is not None
    pixels, labels = read_idx(image_file, rank=3), read_idx(label_file, rank=1)
    if len(pixels) != len(labels):
        raise ValueError(f"{image_file} holds {len(pixels)} images but {label_file} {len(labels)} labels")
    return pixels[:, None], labels.long()


def read_idx(path: Path, rank: int) -> Tensor:
    """Reads an IDX file of unsigned bytes, gzip if its name ends in .gz: uint8, with `rank` dimensions.

    Raises:
        ValueError: the gzip stream is broken, or header and length are not those of such a file.
    """
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{path} is not a whole gzip file ({error}). Fetch it again") from error
    wanted = struct.pack(
        ">HBB", 0, 8, rank
    )  # two zeros, the code of unsigned bytes, the number of dimensions
    header = 4 + 4 * rank
    if raw[:4] != wanted or len(raw) < header:
        raise ValueError(
            f"{path} starts with {raw[:4].hex()}, an IDX file of {rank}-d bytes with {wanted.hex()}"
        )
    shape = struct.unpack(f">{rank}I", raw[4:header])
    if len(raw) - header != math.prod(shape):
        raise ValueError(
            f"{path} holds {len(raw) - header} bytes of data, its header says {shape}. Fetch it again"
        )
    return torch.frombuffer(bytearray(raw), dtype=torch.uint8, offset=header).view(shape)
