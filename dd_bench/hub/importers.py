"""Distilled sets as the field publishes them, made into artifacts: `dd-bench import`. Nothing in them is run.

    images.pt + labels.pt        two tensors: network inputs, and classes or soft labels
    res_*.pt                     a dictionary whose `data` is a list of [images, labels], a set each
    a folder of class folders    image files

Files `.pt` are pickles; `torch.load(weights_only=True)` makes tensors of them and refuses all that would run code.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dd_bench.data.dataset import RealSet
from dd_bench.data.folder import Decoder, decode_all, find_images
from dd_bench.records.config_diff import shipped_config
from dd_bench.runtime.files import file_sha256
from dd_bench.synthetic import storage
from dd_bench.synthetic.images import ImageSet


class Ignored:
    """Stands for what files of the field hold beside tensors, accuracies as numpy's numbers: nobody reads it."""

    def __init__(self, *_: Any):
        """Takes anything."""

    def __setstate__(self, _: Any) -> None:
        """Takes anything."""


IGNORED = [
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
    *(f"numpy.{name}" for name in ("dtype", "ndarray", "float64", "float32", "int64")),
    *(f"numpy.dtypes.{name}" for name in ("Float64DType", "Float32DType", "Int64DType")),
]


def read_pair(images: Path, labels: Path, real: RealSet, *, logits: bool, lr: float | None) -> ImageSet:
    """Returns the set of two files of tensors: network inputs `(n, c, h, w)`, and classes `(n,)` or rows `(n, k)`.

    Args:
        images: the inputs, preprocessed as `real` is.
        labels: of them.
        real: what they were distilled from.
        logits: rows of labels are logits, and become probabilities.
        lr: the learning rate that was distilled along.

    Raises:
        ValueError: a file is not of tensors, or they do not fit each other or `real`.
    """
    x, y = _tensor(images), _tensor(labels)
    return _of(real, x, y.softmax(1) if logits and y.ndim == 2 else y, lr)


def read_list(path: Path, index: int | None, real: RealSet) -> ImageSet:
    """Returns set number `index` of a file of several; it may be None where there is one alone.

    Raises:
        ValueError: the file is another, or which of several sets is not said.
    """
    content = _loaded(path)
    data = content.get("data") if isinstance(content, dict) else None
    if not isinstance(data, list) or not data:
        what = (
            "a tensor: with it belongs --labels labels.pt"
            if isinstance(content, Tensor)
            else "something else"
        )
        raise ValueError(
            f"{path} holds no list of sets, which is a dictionary with a list `data`. It holds {what}"
        )
    if index is None and len(data) > 1:
        raise ValueError(f"{path} holds {len(data)} sets. Use --index 0 to --index {len(data) - 1}")
    if not -len(data) <= (index or 0) < len(data):
        raise ValueError(f"--index {index}: {path} holds {len(data)} sets")
    pair = data[index or 0]
    if not (isinstance(pair, list | tuple) and len(pair) == 2 and all(isinstance(t, Tensor) for t in pair)):
        raise ValueError(f"{path}: set {index or 0} is no pair of images and labels")
    return _of(real, pair[0], pair[1], None)


def read_folder(folder: Path, real: RealSet) -> ImageSet:
    """Returns the set of a folder with one folder of images a class.

    Folders named as the classes are theirs, also where a sign of a name cannot be one of a folder's; numbered ones are
    the classes in label order; others are refused.

    Raises:
        ValueError: the folders are not the classes, or images are not of the size of `real`.
    """
    order = _in_label_order(folder, real)
    paths, labels = find_images(folder, {name: label for label, name in enumerate(order)})
    c, h, w = real.shape
    if h != w:
        raise ValueError(f"images of {h}x{w} in folders are not read; wanted square ones")
    pixels = decode_all(paths, _Exact(h, "squash"))
    if c == 1:
        if not all(torch.equal(pixels[:, 0], pixels[:, i]) for i in (1, 2)):
            raise ValueError(f"{folder} holds coloured images, and those of {real.name} are grey")
        pixels = pixels[:, :1].contiguous()
    return ImageSet(pixels, labels, "pixel", real.class_names, real.preprocess)


def _in_label_order(folder: Path, real: RealSet) -> list[str]:
    """Returns the names of the class folders, by label."""
    found = [p.name for p in folder.iterdir() if p.is_dir()]
    if len(found) != len(real.class_names):
        raise ValueError(
            f"{folder} has {len(found)} class folders, {real.name} has {len(real.class_names)} classes"
        )
    by_name = {_plain(name): name for name in found}
    wanted = [_plain(name) for name in real.class_names]
    if set(by_name) == set(wanted):
        return [by_name[name] for name in wanted]
    numbers = {name: re.search(r"[0-9]+$", name) for name in found}
    if all(numbers.values()):
        return sorted(found, key=lambda name: int(numbers[name][0]))  # type: ignore[index]
    others = sorted(by_name[name] for name in set(by_name) - set(wanted))
    raise ValueError(
        f"{folder} has the class folders {others[:5]}, which are no classes of {real.name} and no numbers. Name them "
        f"as the classes ({', '.join(real.class_names[:5])}, ...), or by their labels: 0, 1, ..."
    )


def _plain(name: str) -> str:
    """Returns a name without the signs that a folder's cannot have, or that people write in two ways."""
    return re.sub(r"^[0-9]+_(?=[A-Za-z])|[^a-z0-9]", "", name.lower())


class _Exact(Decoder):
    """Reads images of the wanted size only: a set that was resized is another set."""

    def __call__(self, path: Path) -> Tensor:
        from PIL import Image

        with Image.open(path) as image:
            if image.size != (self.size, self.size):
                raise ValueError(
                    f"{path} has {image.size[0]}x{image.size[1]} pixels, wanted {self.size}x{self.size}"
                )
        return super().__call__(path)


def outside(syn: ImageSet) -> float:
    """Returns the share of pixels beyond [0, 1] by more than a half: many of them tell of another preprocessing."""
    if syn.space != "input":
        return 0.0
    pixels = syn.preprocess.inverse(syn.images)
    return float(((pixels < -0.5) | (pixels > 1.5)).float().mean())


def import_verb(arguments: Sequence[str]) -> int:
    """`dd-bench import SOURCE dataset=...`: makes of a released set an artifact like any other."""
    from dd_bench.pipeline.compose import USER_ERRORS

    parser = argparse.ArgumentParser("dd-bench import", description=import_verb.__doc__)
    parser.add_argument("source", type=Path, help="images.pt, res_*.pt, or a folder of class folders")
    parser.add_argument(
        "overrides", nargs="*", help="what it was distilled from: dataset=cifar10 dataset.preprocess=zca"
    )
    parser.add_argument("--labels", type=Path, help="labels.pt, beside images.pt")
    parser.add_argument("--logits", action="store_true", help="soft labels are logits, not probabilities")
    parser.add_argument("--lr", type=float, help="the learning rate that was distilled along, if one was")
    parser.add_argument("--index", type=int, help="which of the sets in res_*.pt")
    parser.add_argument("--name", required=True, help="of the method on boards, e.g. mtt-authors")
    parser.add_argument("--ipc", type=int, required=True, help="images per class")
    parser.add_argument(
        "--citation", action="append", default=[], help="of the paper, or where the files are from"
    )
    parser.add_argument("--to", type=Path, required=True, help="folder to make")
    args = parser.parse_intermixed_args(arguments)
    try:
        folder, share = _imported(args)
    except USER_ERRORS as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    if share > 0.1:
        sys.stderr.write(
            f"warning: {100 * share:.1f} % of the pixels are far outside [0, 1] once the preprocessing is undone. "
            "Was the set distilled under another? Use dataset.preprocess=zca, if it was whitened\n"
        )
    sys.stdout.write(f"{folder}\n")
    return 0


def _imported(args: argparse.Namespace) -> tuple[Path, float]:
    from dd_bench.pipeline.compose import real_set

    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.+-]*", args.name):
        raise ValueError(
            f"--name {args.name!r}: wanted letters, digits, _ . + and -, to name folders and boards, as mtt-authors"
        )
    if not any(word.startswith("dataset=") for word in args.overrides):
        raise ValueError("what was it distilled from? Use e.g. dataset=cifar10 dataset.preprocess=zca")
    if other := [word for word in args.overrides if not re.match(r"[+~]{0,2}dataset[=.]", word)]:
        raise ValueError(f"{other[0]} says nothing of the dataset, which is all that is asked for here")
    if shipped_config("method", args.name):
        raise ValueError(
            f"--name {args.name} is a method of this suite, which did not make this set. Use --name {args.name}-authors"
        )
    real, config = real_set(args.overrides)
    if real.modality != "image":
        raise ValueError(f"{real.name} is of {real.modality}s, and released sets are of images")
    files = [args.source]
    pair = args.labels is not None
    for flag, given in (("--lr", args.lr is not None), ("--logits", args.logits)):
        if given and not pair:
            raise ValueError(f"{flag} is of a pair of tensors. Use it with --labels labels.pt")
    if args.index is not None and (pair or args.source.is_dir()):
        raise ValueError("--index is of res_*.pt, which hold several sets")
    if args.source.is_dir():
        syn = read_folder(args.source, real)
        files = sorted(p for p in args.source.rglob("*") if p.is_file())
    elif args.labels is not None:
        syn = read_pair(args.source, args.labels, real, logits=args.logits, lr=args.lr)
        files += [args.labels]
    else:
        syn = read_list(args.source, args.index, real)
    syn.check_ipc(args.ipc)
    of = {
        str(f.relative_to(args.source)) if args.source.is_dir() else f.name: str(file_sha256(f))
        for f in files
    }
    told = {
        "dataset": config,
        "released": {"files": of} if len(of) < 9 else {"files": len(of), "sha256": _both(of)},
    }
    folder = storage.save(
        syn,
        args.to,
        real=real,
        method=args.name,
        ipc=args.ipc,
        seed=0,
        config=told,
        citations=[*args.citation, real.citation],
        provenance={"notes": [f"imported from {args.source.name}, which others made"]},
    )
    return folder, outside(syn)


def _of(real: RealSet, images: Tensor, labels: Tensor, lr: float | None) -> ImageSet:
    if tuple(images.shape[1:]) != tuple(real.shape):
        raise ValueError(
            f"images are {tuple(images.shape)}, those of {real.name} are (n, {', '.join(map(str, real.shape))})"
        )
    labels = labels.float() if labels.is_floating_point() else labels.long()
    return ImageSet.of(real, images.float(), labels, "input", lr=lr)


def _tensor(path: Path) -> Tensor:
    content = _loaded(path)
    if not isinstance(content, Tensor) or content.is_sparse or content.is_meta or content.is_complex():
        kind = "NumPy value" if isinstance(content, Ignored) else type(content).__name__
        raise ValueError(f"{path} holds a {kind}, wanted a dense tensor of real numbers")
    return content


def _loaded(path: Path) -> Any:
    """Returns what a file of `torch.save` holds, if that is data alone.

    Raises:
        ValueError: it is no such file, or wants code to be run.
    """
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    try:
        with (
            torch.serialization.safe_globals([(Ignored, name) for name in IGNORED]),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")  # of files that are none: the error says it
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a stranger's bytes make the reader stumble over
        wants = re.search(r"GLOBAL ([\w.]+)", str(error))
        why = f"it wants {wants[1]} to be called" if wants else "torch.save wrote no such file"
        raise ValueError(
            f"{path} is not loaded: {why}. Wanted a file of tensors alone; save them with torch.save(tensor, FILE)"
        ) from error


def _both(of: dict[str, str]) -> str:
    return hashlib.sha256(
        "\n".join(f"{name} {digest}" for name, digest in sorted(of.items())).encode()
    ).hexdigest()
