"""`dd-bench import`: convert distilled sets that authors of papers have released to the format of dd_bench.

    images.pt + labels.pt        two tensors: network inputs, and classes or soft labels
    res_*.pt                     a dictionary whose entry `data` is a list of sets; each set is a pair [images, labels]
    a folder of class folders    image files

`.pt` files are pickles. They are read with `torch.load(weights_only=True)`, which never runs code from the file.
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
from dd_bench.data.image_decoder import Decoder, decode_all
from dd_bench.data.image_files import find_images, subfolders
from dd_bench.records.config_diff import shipped_config
from dd_bench.runtime.files import file_sha256
from dd_bench.runtime.terminal import sanitize
from dd_bench.synthetic import storage
from dd_bench.synthetic.images import ImageSet


class Ignored:
    """Placeholder for unused NumPy values in a file, such as accuracies."""

    def __init__(self, *_: Any):
        """Ignore all arguments."""

    def __setstate__(self, _: Any) -> None:
        """Ignore the state."""


IGNORED = [
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
    *(f"numpy.{name}" for name in ("dtype", "ndarray", "float64", "float32", "int64")),
    *(f"numpy.dtypes.{name}" for name in ("Float64DType", "Float32DType", "Int64DType")),
]


def read_pair(images: Path, labels: Path, real: RealSet, *, logits: bool, lr: float | None) -> ImageSet:
    """Read a set from two files with one tensor each.

    Args:
        images: file with network inputs `(n, c, h, w)`, preprocessed like `real`.
        labels: file with classes `(n,)` or soft labels `(n, k)`.
        real: the real set from which the images were distilled.
        logits: whether soft labels are logits. They are converted to probabilities.
        lr: the learning rate that was distilled with the images, or None.

    Raises:
        ValueError: a file does not contain a tensor, or the tensors do not match each other or `real`.
    """
    x, y = _tensor(images), _tensor(labels)
    return _image_set(real, x, y.softmax(1) if logits and y.ndim == 2 else y, lr)


def read_list(path: Path, index: int | None, real: RealSet) -> ImageSet:
    """Read set number `index` from a file with a list of sets. `index` may be None if there is only one set.

    Raises:
        ValueError: the file has another format, or `index` is missing or out of range.
    """
    content = _load(path)
    data = content.get("data") if isinstance(content, dict) else None
    if not isinstance(data, list) or not data:
        hint = (
            ". If it contains the images, add the file of labels: --labels labels.pt"
            if isinstance(content, Tensor)
            else ""
        )
        found = f"a {type(content).__name__}"
        if isinstance(content, dict):
            found = f"{data!r:.40} as 'data'" if "data" in content else "a dictionary without 'data'"
        raise ValueError(
            f"{path} must contain a dictionary in which 'data' is a list of sets, got {found}{hint}"
        )
    if index is None and len(data) > 1:
        raise ValueError(f"{path} contains {len(data)} sets. Use one of --index 0 to --index {len(data) - 1}")
    if not -len(data) <= (index or 0) < len(data):
        raise ValueError(
            f"--index must be in 0..{len(data) - 1}, because {path} contains {len(data)} set(s), got {index}"
        )
    pair = data[index or 0]
    if not (isinstance(pair, list | tuple) and len(pair) == 2 and all(isinstance(t, Tensor) for t in pair)):
        types = [type(t).__name__ for t in pair] if isinstance(pair, list | tuple) else type(pair).__name__
        raise ValueError(f"{path}: set {index or 0} must be two tensors [images, labels], got {types}")
    return _image_set(real, pair[0], pair[1], None)


def read_folder(folder: Path, real: RealSet) -> ImageSet:
    """Read a set from a folder with one subfolder of images per class.

    Subfolders are matched to classes by name, ignoring case and special characters. If all names end in numbers, their
    numerical order is the label order.

    Raises:
        ValueError: the subfolders do not match the classes, or the images do not have the size of `real`.
    """
    names = _in_label_order(folder, real)
    paths, labels = find_images(folder, {name: label for label, name in enumerate(names)})
    c, h, w = real.shape
    if h != w:
        raise ValueError(
            f"{folder}: only square images can be imported, but those of {real.name} are {h}x{w}"
        )
    pixels = decode_all(paths, _ExactDecoder(h, "squash"))
    if c == 1:
        if not all(torch.equal(pixels[:, 0], pixels[:, i]) for i in (1, 2)):
            raise ValueError(f"{folder} must contain grey images like {real.name}, got colour images")
        pixels = pixels[:, :1].contiguous()
    return ImageSet(pixels, labels, "pixel", real.class_names, real.preprocess)


def _in_label_order(folder: Path, real: RealSet) -> list[str]:
    """Return the names of the class folders in label order."""
    folders = subfolders(folder)
    if len(folders) != len(real.class_names):
        raise ValueError(
            f"{folder} must have a folder for each of the {len(real.class_names)} classes of {real.name}, "
            f"got {len(folders)} folders"
        )
    by_name = {_normalise(name): name for name in folders}
    classes = [_normalise(name) for name in real.class_names]
    if set(by_name) == set(classes):
        return [by_name[name] for name in classes]
    numbers = {name: re.search(r"[0-9]+$", name) for name in folders}
    if all(numbers.values()):
        return sorted(folders, key=lambda name: int(numbers[name][0]))  # type: ignore[index]
    others = sorted(by_name[name] for name in set(by_name) - set(classes))
    raise ValueError(
        f"{folder}: class folders must be named like the classes of {real.name} "
        f"({', '.join(real.class_names[:5])}, ...) or by their labels (0, 1, ...), got {others[:5]}"
    )


def _normalise(name: str) -> str:
    """Return a class name in lower case, without a label prefix such as `03_` and without special characters."""
    return re.sub(r"^[0-9]+_(?=[A-Za-z])|[^a-z0-9]", "", name.lower())


class _ExactDecoder(Decoder):
    """Read only images of the expected size, because resizing would change the set."""

    def __call__(self, path: Path) -> Tensor:
        from PIL import Image

        with Image.open(path) as image:
            if image.size != (self.size, self.size):
                raise ValueError(
                    f"{path} must have {self.size}x{self.size} pixels, got {image.size[0]}x{image.size[1]}"
                )
        return super().__call__(path)


def far_outside(syn: ImageSet) -> float:
    """Return the fraction of pixels outside [-0.5, 1.5].

    If it is large, the set was probably distilled with another preprocessing.
    """
    if syn.space != "input":
        return 0.0
    pixels = syn.preprocess.inverse(syn.images)
    return float(((pixels < -0.5) | (pixels > 1.5)).float().mean())


def import_command(arguments: Sequence[str]) -> int:
    """Convert a released synthetic set to dd_bench's format. Example: dd-bench import SOURCE dataset=cifar10 ..."""
    from dd_bench.pipeline.compose import USER_ERRORS

    parser = argparse.ArgumentParser("dd-bench import", description=import_command.__doc__)
    parser.add_argument("source", type=Path, help="images.pt, res_*.pt, or a folder of class folders")
    parser.add_argument(
        "overrides", nargs="*", help="overrides of the real set, e.g. dataset=cifar10 dataset.preprocess=zca"
    )
    parser.add_argument("--labels", type=Path, help="labels.pt, if SOURCE is images.pt")
    parser.add_argument("--logits", action="store_true", help="soft labels are logits, not probabilities")
    parser.add_argument("--lr", type=float, help="learning rate that was distilled with the images")
    parser.add_argument("--index", type=int, help="index of the set in res_*.pt; the first is 0")
    parser.add_argument("--name", required=True, help="name of the method on leaderboards, e.g. mtt-authors")
    parser.add_argument("--ipc", type=int, required=True, help="images per class")
    parser.add_argument(
        "--citation", action="append", default=[], help="the paper or the source of the files; repeatable"
    )
    parser.add_argument("--to", type=Path, required=True, help="folder to create")
    args = parser.parse_intermixed_args(arguments)
    try:
        folder, share = _import(args)
    except USER_ERRORS as error:
        sys.stderr.write(f"error: {sanitize(str(error))}\n")
        return 1
    if share > 0.1:
        sys.stderr.write(
            f"warning: after inverting the preprocessing, {100 * share:.1f} % of the pixels are far outside [0, 1]. "
            "The set may have been preprocessed differently. If it was ZCA-whitened, use dataset.preprocess=zca\n"
        )
    sys.stdout.write(sanitize(f"{folder}\n"))
    return 0


def _import(args: argparse.Namespace) -> tuple[Path, float]:
    from dd_bench.pipeline.compose import load_real_set

    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.+-]*", args.name):
        raise ValueError(
            f"--name must contain only letters, digits, _ . + and -, got {args.name!r}. Example: --name mtt-authors"
        )
    if not any(word.startswith("dataset=") for word in args.overrides):
        raise ValueError(
            "the real set is missing. Add its overrides. Example: dataset=cifar10 dataset.preprocess=zca"
        )
    if other := [word for word in args.overrides if not re.match(r"[+~]{0,2}dataset[=.]", word)]:
        raise ValueError(f"only overrides of dataset are allowed, got {other[0]}. Example: dataset=cifar10")
    if shipped_config("method", args.name):
        raise ValueError(
            f"--name must not be the name of a method of dd_bench, got {args.name}. Example: --name {args.name}-authors"
        )
    real, config = load_real_set(args.overrides)
    if real.modality != "image":
        raise ValueError(f"only sets of images can be imported, but {real.name} consists of {real.modality}s")
    files = [args.source]
    pair = args.labels is not None
    for flag, given in (("--lr", args.lr is not None), ("--logits", args.logits)):
        if given and not pair:
            raise ValueError(f"{flag} requires a file of labels. Example: --labels labels.pt")
    if args.index is not None and (pair or args.source.is_dir()):
        raise ValueError("--index requires a file with a list of sets, such as res_*.pt")
    if args.source.is_dir():
        syn = read_folder(args.source, real)
        files = sorted(p for p in args.source.rglob("*") if p.is_file())
    elif pair:
        syn = read_pair(args.source, args.labels, real, logits=args.logits, lr=args.lr)
        files += [args.labels]
    else:
        syn = read_list(args.source, args.index, real)
    syn.check_ipc(args.ipc)
    digests = {
        str(f.relative_to(args.source)) if args.source.is_dir() else f.name: str(file_sha256(f))
        for f in files
    }
    released = {"files": digests} if len(digests) < 9 else {"files": len(digests), "sha256": _digest(digests)}
    folder = storage.save(
        syn,
        args.to,
        real=real,
        method=args.name,
        ipc=args.ipc,
        seed=0,
        config={"dataset": config, "released": released},
        citations=[*args.citation, real.citation],
        provenance={"notes": [f"imported from {args.source.name}, which others made"]},
    )
    return folder, far_outside(syn)


def _image_set(real: RealSet, images: Tensor, labels: Tensor, lr: float | None) -> ImageSet:
    if tuple(images.shape[1:]) != tuple(real.shape):
        raise ValueError(
            f"images must have shape (n, {', '.join(map(str, real.shape))}) like those of {real.name}, "
            f"got {tuple(images.shape)}"
        )
    labels = labels.float() if labels.is_floating_point() else labels.long()
    return ImageSet.of(real, images.float(), labels, "input", lr=lr)


def _tensor(path: Path) -> Tensor:
    content = _load(path)
    if not isinstance(content, Tensor) or content.is_sparse or content.is_meta or content.is_complex():
        kind = "a NumPy value" if isinstance(content, Ignored) else f"a {type(content).__name__}"
        if isinstance(content, Tensor):
            kind = f"{content.layout} {content.dtype} on {content.device}"
        raise ValueError(f"{path} must contain a dense tensor of real numbers, got {kind}")
    return content


def _load(path: Path) -> Any:
    """Load a file of `torch.save` that contains only data.

    Raises:
        ValueError: the file was not written by `torch.save`, or loading it would run code.
    """
    if not path.is_file():
        raise ValueError(f"the file {path} does not exist")
    try:
        with (
            torch.serialization.safe_globals([(Ignored, name) for name in IGNORED]),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")  # the error below already reports an invalid file
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # an untrusted file can cause any error
        called = re.search(r"GLOBAL ([\w.]+)", str(error))
        reason = f"it calls {called[1]}" if called else "it was not written by torch.save"
        raise ValueError(
            f"{path} was not loaded: {reason}. The file must contain only tensors. Example: torch.save(tensor, FILE)"
        ) from error


def _digest(files: dict[str, str]) -> str:
    lines = [f"{name} {digest}" for name, digest in sorted(files.items())]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
