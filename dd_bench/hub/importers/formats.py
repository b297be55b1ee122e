"""Read the images and labels of released sets that are files of tensors, in the three formats that authors use.

    images.pt and labels.pt      two tensors
    data.pt                      a pair of tensors [images, labels]
    res_*.pt                     a dictionary whose entry `data` is a list of sets; each set is a pair of tensors

The functions return what the files contain. Other modules decide which class a label is (`class_order`), whether soft
labels are probabilities (`soft_labels`) and whether images are pixels or network inputs (`preprocessing`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dd_bench.hub.importers.torch_files import check_tensor, load_file


class Released(NamedTuple):
    """The content of released files.

    Attributes:
        images: `(n, c, h, w)`, pixels or network inputs, of any real dtype.
        labels: integers `(n,)`, or probabilities or logits `(n, k)`.
    """

    images: Tensor
    labels: Tensor


def read_pairs(images: Sequence[Path], labels: Sequence[Path]) -> Released:
    """Read a set whose images and labels are in different files, one tensor each, in one or several shards.

    Raises:
        ValueError: the numbers of files or their order differ, a file does not contain a tensor, or the numbers of
            images and labels of a shard differ.
    """
    if len(images) != len(labels):
        raise ValueError(
            f"--labels must give one file per file of images, got {len(labels)} for {len(images)}. "
            "Example: images_0.pt images_1.pt --labels labels_0.pt labels_1.pt"
        )
    shards = []
    for x, y in zip(images, labels, strict=True):
        if len(images) > 1 and _number(x) != _number(y):
            raise ValueError(
                f"files of images and labels must be in the same order, but {x.name} is paired with {y.name}. "
                "Example: images_0.pt images_1.pt --labels labels_0.pt labels_1.pt"
            )
        shards.append(_released(load_file(x), load_file(y), x, y))
    return _concatenated(shards, images)


def read_files(paths: Sequence[Path], index: int | None) -> Released:
    """Read a set from files that contain both images and labels: one `res_*.pt`, or one or several `data.pt`.

    Args:
        paths: the files.
        index: the number of the set in `res_*.pt`; None if there is only one set.

    Raises:
        ValueError: a file has another format, or `index` is missing, out of range or not applicable.
    """
    if index is not None and len(paths) > 1:
        raise ValueError(
            f"--index requires one file with a list of sets, such as res_*.pt, got {len(paths)} files"
        )
    return _concatenated([_read_file(path, index) for path in paths], paths)


def _read_file(path: Path, index: int | None) -> Released:
    content = load_file(path)
    if _is_pair(content):
        if index is not None:
            raise ValueError(
                f"--index requires a file with a list of sets, such as res_*.pt, but {path} contains one set"
            )
        return _released(content[0], content[1], path, path)
    data = content.get("data") if isinstance(content, dict) else None
    if not isinstance(data, list) or not data:
        found = f"a {type(content).__name__}"
        if isinstance(content, dict):
            found = "'data' that is no list of sets" if "data" in content else "a dictionary without 'data'"
        elif isinstance(content, Tensor):
            found += ". If it contains the images, add the file of labels: --labels labels.pt"
        raise ValueError(
            f"{path} must contain two tensors [images, labels], or a dictionary in which 'data' is a list of such pairs"
            f", got {found}"
        )
    if index is None and len(data) > 1:
        raise ValueError(f"{path} contains {len(data)} sets. Use one of --index 0 to --index {len(data) - 1}")
    if not 0 <= (index or 0) < len(data):
        raise ValueError(
            f"--index must be in 0..{len(data) - 1}, because {path} contains {len(data)} set(s), got {index}. "
            "Example: --index 0"
        )
    if not _is_pair(pair := data[index or 0]):
        types = [type(t).__name__ for t in pair] if isinstance(pair, list | tuple) else type(pair).__name__
        raise ValueError(f"{path}: set {index or 0} must be two tensors [images, labels], got {types}")
    return _released(pair[0], pair[1], path, path)


def _is_pair(content: Any) -> bool:
    return (
        isinstance(content, list | tuple)
        and len(content) == 2
        and all(isinstance(t, Tensor) for t in content)
    )


def _released(images: Any, labels: Any, images_file: Path, labels_file: Path) -> Released:
    """Check one shard."""
    x, y = check_tensor(images, str(images_file)), check_tensor(labels, str(labels_file))
    if y.ndim not in (1, 2):
        raise ValueError(f"labels in {labels_file} must have shape (n,) or (n, k), got {tuple(y.shape)}")
    if x.ndim != 4 or not 0 < len(x) == len(y):
        raise ValueError(
            f"images in {images_file} must have shape (n, c, h, w) with one image per label, got {tuple(x.shape)} "
            f"for {len(y)} labels"
        )
    return Released(x, y)


def _concatenated(shards: Sequence[Released], files: Sequence[Path]) -> Released:
    first = shards[0]
    for shard, file in zip(shards, files, strict=True):
        for name, tensor, expected in zip(("images", "labels"), shard, first, strict=True):
            if tensor.dtype != expected.dtype or tensor.shape[1:] != expected.shape[1:]:
                raise ValueError(
                    f"all shards must contain {name} of the same dtype and shape, but those of {file.name} are "
                    f"{tensor.dtype} {tuple(tensor.shape[1:])} and those of {files[0].name} are {expected.dtype} "
                    f"{tuple(expected.shape[1:])}"
                )
    return first if len(shards) == 1 else Released(*(torch.cat(parts) for parts in zip(*shards, strict=True)))


def _number(path: Path) -> str:
    """Return the last number in the name of a file; empty if there is none."""
    numbers = re.findall(r"[0-9]+", path.stem)
    return numbers[-1].lstrip("0") or "0" if numbers else ""
