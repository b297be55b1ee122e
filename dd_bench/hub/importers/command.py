"""The command `dd-bench import`: read released files, check them against the real set, and save a set with its card."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dd_bench.data.dataset import RealSet
from dd_bench.data.image_files import subfolders
from dd_bench.data.preprocess import Normalise
from dd_bench.hub.folder_layout import LABELS
from dd_bench.hub.importers import formats
from dd_bench.hub.importers.arguments import Arguments, parse
from dd_bench.hub.importers.class_order import class_order, label_order, relabel
from dd_bench.hub.importers.image_folder import read_folder
from dd_bench.hub.importers.node_files import read_nodes
from dd_bench.hub.importers.pixel_range import as_pixels, check_white, rescaled
from dd_bench.hub.importers.preprocessing import TOLERANCE, check_inputs
from dd_bench.hub.importers.soft_labels import labels_of
from dd_bench.hub.importers.torch_files import MAX_FILE
from dd_bench.runtime import untrusted
from dd_bench.runtime.terminal import sanitize
from dd_bench.synthetic import storage
from dd_bench.synthetic.base import Space, SyntheticSet
from dd_bench.synthetic.images import ImageSet
from dd_bench.synthetic.method_limits import check_method


def import_command(arguments: Sequence[str]) -> int:
    """Convert a released synthetic set to dd_bench's format. Example: dd-bench import SOURCE dataset=cifar10 ..."""
    from dd_bench.pipeline.compose import USER_ERRORS

    try:
        folder, notes = _import(parse(arguments, import_command.__doc__))
    except USER_ERRORS as error:
        sys.stderr.write(f"error: {sanitize(str(error))}\n")
        return 1
    sys.stderr.write(sanitize("".join(f"{note}\n" for note in notes)))
    sys.stdout.write(sanitize(f"{folder}\n"))
    return 0


def _import(args: Arguments) -> tuple[Path, list[str]]:
    """Import a set. Return its folder, and lines that describe what was found in the files."""
    from dd_bench.pipeline.compose import load_real_set

    real, config = load_real_set(args.overrides)
    if real.modality not in ("image", "node"):
        raise ValueError(
            f"only sets of images and of nodes can be imported, but {real.name} consists of {real.modality}s"
        )
    resize = str(config.get("resize", "squash")) if args.resize else None
    syn: SyntheticSet
    syn, files, notes = read_nodes(args, real) if real.modality == "node" else _read(args, real, resize)
    syn.check_ipc(args.ipc)
    digests = _digests(args, files)
    released: dict[str, Any] = {"files": digests}
    if len(digests) >= 9:
        released = {"files": len(digests), "sha256": _digest(digests)}
    if args.background:
        released["background"] = args.background
    if resize is not None:
        released["resize"] = resize
    if args.factor > 1:
        released["factor"] = args.factor  # required to load the set, see `check_method`
    card_config = {"dataset": config, "released": released}
    check_method(args.name, card_config, kind=syn.kind, whole=False, decoding=syn.decoding())
    folder = storage.save(
        syn,
        args.to,
        real=real,
        method=args.name,
        ipc=args.ipc,
        seed=0,
        config=card_config,
        citations=[*args.citations, real.citation],
        provenance={"notes": [f"imported from {args.sources[0].name}, which others made", *notes]},
    )
    return folder, notes


def _read(args: Arguments, real: RealSet, resize: str | None) -> tuple[ImageSet, list[Path], list[str]]:
    """Return the set, the files that were read, and one line for each thing that was found in them.

    `resize` is how image files are resized, see `read_folder`.
    """
    sources = args.sources
    names = real.class_names
    found = []
    if sources[0].is_dir():
        order = class_order(subfolders(sources[0]), names, args.classes)
        images, labels, files = read_folder(
            sources[0], order.label_of, real, args.ipc, args.background, resize
        )
        if labels.ndim == 2:
            labels = labels_of(labels, logits=False)
            found = [f"soft labels: {LABELS}"]
    else:
        files = [*sources, *args.labels]
        if args.labels:
            images, raw = formats.read_pairs(sources, args.labels)
        else:
            images, raw = formats.read_files(sources, args.index)
        labels = labels_of(raw, logits=args.logits)
        order = label_order(labels, names, args.classes)
        labels = relabel(labels, order)
    if tuple(images.shape[1:]) != tuple(real.shape):
        raise ValueError(
            f"images must have shape (n, {', '.join(map(str, real.shape))}) like those of {real.name}, "
            f"got {tuple(images.shape)}"
        )
    syn, note = _image_set(args, images, labels, real)
    return syn, files, [note, *found, order.summary(names)]


def _image_set(args: Arguments, images: Tensor, labels: Tensor, real: RealSet) -> tuple[ImageSet, str]:
    """Return the set, and one line that states whether its images are pixels or network inputs."""
    if not bool(torch.isfinite(images).all()):
        raise ValueError("all values of the images must be finite")
    is_float = images.is_floating_point()
    stated = _stated_pixels(args, images, real)
    if not (args.force and is_float) and (found := as_pixels(images if stated is None else stated)):
        pixels, note = found.images, found.text
        from_files = args.sources[0].is_dir()  # the format of an image file states its range
        if stated is None and not (from_files or args.pixels or args.force):
            check_white(images, found, real)
        space: Space = "unit" if pixels.is_floating_point() else "pixel"
        syn = ImageSet.of(real, pixels, labels, space, args.factor, lr=args.lr)
        return syn, f"images are pixels: {note}{_statement(args)}"
    if args.factor > 1:
        raise ValueError(
            f"--factor requires pixels in [0, 1], got {float(images.min()):.3g}..{float(images.max()):.3g}. "
            "Leave out --factor"
        )
    inputs = images.float() if stated is None else stated
    if args.pixels or stated is not None:
        note = f"images are pixels, preprocessed like the dataset{_statement(args)}"
        inputs = real.preprocess(inputs)
    elif args.force:
        note = f"images are inputs preprocessed by {real.preprocess.kind}, which was not checked (--force)"
    else:
        note = check_inputs(inputs, real)
    return ImageSet.of(real, inputs, labels, "input", lr=args.lr), note


def _stated_pixels(args: Arguments, images: Tensor, real: RealSet) -> Tensor | None:
    """Return the pixels by --range, or by --mean and --std; None without these options.

    Rounding errors at black and white are removed, so that normalised pixels are pixels again.
    """
    if args.range is not None:
        pixels = rescaled(images, *args.range)
    elif args.mean is not None and args.std is not None:
        c = real.shape[0]
        if not len(args.mean) == len(args.std) in (1, c):
            raise ValueError(
                f"--mean and --std must have one value, or one for each of the {c} channels, got {len(args.mean)} and "
                f"{len(args.std)}. Example: --mean 0.5 --std 0.5"
            )
        pixels = Normalise(args.mean * (c // len(args.mean)), args.std * (c // len(args.std))).inverse(
            images.float()
        )
    else:
        return None
    if (
        pixels.is_floating_point()
        and float(pixels.min()) >= -TOLERANCE
        and float(pixels.max()) <= 1 + TOLERANCE
    ):
        return pixels.clamp(0, 1)
    return pixels


def _statement(args: Arguments) -> str:
    """Return the stated range or normalisation of the files, for messages."""
    if args.range is not None:
        return ", by --range {:g},{:g}".format(*args.range)
    if args.mean is not None and args.std is not None:
        mean, std = (",".join(f"{value:g}" for value in values) for values in (args.mean, args.std))
        return f", by --mean {mean} --std {std}"
    return ""


def _digests(args: Arguments, files: Sequence[Path]) -> dict[str, str]:
    """Return the sha256 of each file that was read, by its path below the folder that contains them all."""
    base = args.sources[0]
    if not base.is_dir():
        if len({file.name for file in files}) == len(files):
            return {file.name: _sha256(file) for file in files}
        files = [file.resolve() for file in files]
        base = Path(os.path.commonpath([file.parent for file in files]))
    return {file.relative_to(base).as_posix(): _sha256(file) for file in files}


def _sha256(file: Path) -> str:
    return untrusted.sha256(file, MAX_FILE)


def _digest(files: dict[str, str]) -> str:
    lines = [f"{name} {digest}" for name, digest in sorted(files.items())]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
