"""The arguments of `dd-bench import`."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dd_bench.records.config_diff import shipped_config
from dd_bench.runtime.command_help import command_parser
from dd_bench.runtime.files import NAME

OVERRIDE = r"[+~]{1,2}\w|[a-z_][\w.@]*="


@dataclass(frozen=True)
class Arguments:
    """The checked arguments.

    Attributes:
        sources: a folder of class folders, or one or several files of tensors.
        labels: the files of labels, one per source, or empty.
        overrides: overrides of the real set.
        classes: see `class_order`.
        index: the number of the set in a list of sets, or None.
        logits: whether soft labels are logits.
        lr: learning rate that was distilled with the images, or None.
        factor: multi-formation factor.
        pixels: whether the tensors are pixels, although some are outside [0, 1].
        mean: mean of the pixels per channel, with which the tensors were normalised, or None.
        std: like mean.
        range: the values of black and white, or None.
        background: colour under transparent pixels of image files, or None.
        resize: whether to resize image files to the size of the dataset.
        force: whether the preprocessing is not checked.
        name: name of the method.
        ipc: images per class.
        citations: of the paper, or the source of the files.
        to: the folder to create.
    """

    sources: list[Path]
    labels: list[Path]
    overrides: list[str]
    classes: str | None
    index: int | None
    logits: bool
    lr: float | None
    factor: int
    pixels: bool
    mean: list[float] | None
    std: list[float] | None
    range: list[float] | None
    background: str | None
    resize: bool
    force: bool
    name: str
    ipc: int
    citations: list[str]
    to: Path


def parse(words: Sequence[str], description: str | None) -> Arguments:
    """Parse and check the arguments.

    Raises:
        ValueError: an argument is wrong or does not apply to the files.
    """
    args = vars(_parser(description).parse_intermixed_args(words))
    words, labels = args.pop("words"), args.pop("labels")
    overrides = [word for word in (*words, *labels) if _is_override(word)]
    sources, labels = ([Path(w) for w in part if not _is_override(w)] for part in (words, labels))
    parsed = Arguments(sources, labels, overrides, **args)
    _check(parsed)
    return parsed


def _is_override(word: str) -> bool:
    """Return whether a word is an override, not a file. Overrides may follow `--labels FILE ...` directly."""
    return re.match(OVERRIDE, word) is not None and not Path(word).exists()


def _parser(description: str | None) -> argparse.ArgumentParser:
    example = "dd-bench import images.pt dataset=cifar10 --name dm --ipc 10 --to SET"
    found = command_parser("import", description, example)
    found.add_argument(
        "words",
        nargs="+",
        metavar="SOURCE",
        help="images.pt, data.pt or res_*.pt, or a folder of class folders; several files are shards; for nodes, "
        "feat_*.pt and adj_*.pt. Also overrides of the real set, e.g. dataset=cifar10 dataset.preprocess=zca",
    )
    found.add_argument(
        "--labels",
        nargs="+",
        action="extend",
        default=[],
        help="labels.pt, if SOURCE is images.pt; one file per shard",
    )
    found.add_argument("--logits", action="store_true", help="soft labels are logits, not probabilities")
    found.add_argument("--lr", type=float, help="learning rate that was distilled with the images")
    found.add_argument("--index", type=int, help="index of the set in res_*.pt; the first is 0")
    found.add_argument(
        "--factor", type=int, default=1, help="multi-formation factor of IDC: an image is cut into factor^2"
    )
    found.add_argument(
        "--classes",
        help="order of numbered classes: label (the dataset's labels), sorted (sorted class folders), or a CSV file "
        "with lines FOLDER,CLASS. For tensors, FOLDER is a number in the labels",
    )
    found.add_argument(
        "--pixels", action="store_true", help="the tensors are pixels, although some are outside [0, 1]"
    )
    found.add_argument(
        "--mean",
        type=_numbers,
        help="mean of each channel of pixels in [0, 1], with which the tensors were normalised, e.g. 0.5 or "
        "0.485,0.456,0.406; requires --std",
    )
    found.add_argument("--std", type=_numbers, help="standard deviation of each channel; requires --mean")
    found.add_argument(
        "--range",
        type=_numbers,
        metavar="LOW,HIGH",
        help="the values of black and white, e.g. 0,16 or --range=-1,1",
    )
    found.add_argument("--background", help="colour under transparent pixels of image files, e.g. white")
    found.add_argument(
        "--resize",
        action="store_true",
        help="resize image files to the size of the dataset, as dataset.resize does; the resized images are stored",
    )
    found.add_argument(
        "--force",
        action="store_true",
        help="read the tensors as inputs that were preprocessed like the dataset, even if they do not look like it",
    )
    found.add_argument("--name", required=True, help="name of the method on leaderboards, e.g. mtt-authors")
    found.add_argument("--ipc", type=int, required=True, help="images per class")
    found.add_argument(
        "--citation",
        action="append",
        default=[],
        dest="citations",
        help="the paper or the source of the files; repeatable",
    )
    found.add_argument("--to", type=Path, required=True, help="folder to create")
    return found


def _numbers(text: str) -> list[float]:
    """Parse numbers that are separated by commas."""
    return [float(word) for word in text.strip("[]").split(",")]


def _check(args: Arguments) -> None:
    """Raise ValueError for arguments that are wrong or do not apply to the files."""
    if not re.fullmatch(NAME, args.name):
        raise ValueError(
            f"--name must contain only letters, digits, _ . + and -, got {args.name!r}. Example: --name mtt-authors"
        )
    if shipped_config("method", args.name):
        raise ValueError(
            f"--name must not be the name of a method of dd_bench, got {args.name}. Example: --name {args.name}-authors"
        )
    if not any(word.startswith("dataset=") for word in args.overrides):
        raise ValueError(
            "the real set is missing. Add its overrides. Example: dataset=cifar10 dataset.preprocess=zca"
        )
    if other := [word for word in args.overrides if not re.match(r"[+~]{0,2}dataset[=.]", word)]:
        raise ValueError(f"only overrides of dataset are allowed, got {other[0]}. Example: dataset=cifar10")
    if not args.sources:
        raise ValueError(
            "the files of the set are missing. Example: dd-bench import images.pt --labels labels.pt ..."
        )
    if missing := [path for path in (*args.sources, *args.labels) if not path.exists()]:
        raise ValueError(f"the file {missing[0]} does not exist")
    folders = [source for source in args.sources if source.is_dir()]
    if folders and len(args.sources) > 1:
        raise ValueError(
            f"a folder of class folders must be the only source, got {len(args.sources)} sources"
        )
    if args.factor < 1:
        raise ValueError(f"--factor must be an integer >= 1, got {args.factor}. Example: --factor 2")
    if args.index is not None and (args.labels or folders):
        raise ValueError("--index requires a file with a list of sets, such as res_*.pt")
    if args.index is not None and args.index < 0:
        raise ValueError(f"--index must be >= 0, got {args.index}. The first set is --index 0")
    stated = {
        "--pixels": args.pixels,
        "--force": args.force,
        "--range": args.range is not None,
        "--mean": args.mean is not None or args.std is not None,
    }
    if len(chosen := [flag for flag, value in stated.items() if value]) > 1:
        raise ValueError(f"{chosen[0]} and {chosen[1]} exclude each other. Leave out one of them")
    if args.range and not (len(args.range) == 2 and -math.inf < args.range[0] < args.range[1] < math.inf):
        raise ValueError(
            f"--range must be two numbers LOW,HIGH with LOW < HIGH, got {args.range}. Example: --range 0,16"
        )
    if (args.mean is None) != (args.std is None):
        raise ValueError("--mean requires --std, and --std requires --mean. Example: --mean 0.5 --std 0.5")
    for flag, given in (("--background", bool(args.background)), ("--resize", args.resize)):
        if given and not folders:
            raise ValueError(f"{flag} requires a folder of images. Leave it out")
    for flag, given in (
        ("--labels", bool(args.labels)),
        ("--logits", args.logits),
        ("--lr", args.lr is not None),
        ("--pixels", args.pixels),
        ("--mean", args.mean is not None),
        ("--force", args.force),
    ):
        if given and folders:
            raise ValueError(f"{flag} requires files of tensors, but {folders[0]} is a folder of images")
