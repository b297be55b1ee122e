"""`dd-bench diff`: what differs between two synthetic sets, in their cards and in their tensors."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from dd_bench.runtime.command_help import command_parser
from dd_bench.runtime.terminal import sanitize

if TYPE_CHECKING:
    from torch import Tensor

    from dd_bench.synthetic.base import SyntheticSet
    from dd_bench.synthetic.card import Card


def diff_command(arguments: Sequence[str]) -> int:
    """Print what differs between two synthetic sets: configuration, bytes, images and labels.

    Like `diff`, exit with status 0 if the sets are equal, and with 1 if they differ.
    """
    parser = command_parser("diff", diff_command.__doc__, "dd-bench diff runs/sets/NAME other/sets/NAME")
    parser.add_argument("first", type=Path, metavar="SET", help="the folder of a synthetic set")
    parser.add_argument("second", type=Path, metavar="SET", help="the folder of another one")
    args = parser.parse_args(arguments)
    from dd_bench.synthetic import storage  # imports torch

    width = None if sys.stdout.isatty() else 200  # columns, if the output is a file or a pipe
    out, err = Console(soft_wrap=True, width=width), Console(stderr=True, soft_wrap=True)
    try:
        (one, card), (other, other_card) = storage.load(args.first), storage.load(args.second)
    except (ValueError, OSError) as error:
        err.print(Text.assemble(("error:", "red"), " ", sanitize(str(error))))
        return 2
    rows = [*card_differences(card, other_card), *tensor_differences(one, other)]
    if not rows:
        out.print("The sets are equal: configuration, preprocessing and all tensors.")
        return 0
    table = Table("", "first", "second", box=None)
    for row in rows:
        table.add_row(*(Text(sanitize(cell), overflow="fold") for cell in row))
    out.print(table)
    return 1


def card_differences(card: Card, other: Card) -> Iterator[tuple[str, str, str]]:
    """Yield the fields of the cards that differ, with both values. Hashes of files are not compared."""
    first, second = (_flat(c.model_dump(mode="json", exclude={"sha256"})) for c in (card, other))
    for key in sorted({**first, **second}):
        values = [str(fields.get(key, "(missing)")) for fields in (first, second)]
        if values[0] != values[1]:
            yield key, values[0], values[1]


def _flat(values: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= _flat(value, f"{path}{key}.") if isinstance(value, dict) else {f"{path}{key}": value}
    return found


def tensor_differences(one: SyntheticSet, other: SyntheticSet) -> Iterator[tuple[str, str, str]]:
    """Yield the stored tensors that differ: their shapes, or the differences of their values."""
    first, second = one.tensors(), other.tensors()
    for name in sorted({**first, **second}):
        a, b = first.get(name), second.get(name)
        if a is None or b is None or a.shape != b.shape or a.dtype != b.dtype:
            yield name, _describe(a), _describe(b)
        elif not bool((a == b).all()):
            yield name, _difference(a, b), ""
    if one.modality == other.modality == "image":
        (pixels, _), (other_pixels, _) = one.pictures(), other.pictures()
        if pixels.shape == other_pixels.shape and not bool((pixels == other_pixels).all()):
            yield "pixels in [0, 1]", _difference(pixels, other_pixels), ""


def _describe(tensor: Tensor | None) -> str:
    return (
        "(missing)" if tensor is None else f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"
    )


def _difference(a: Tensor, b: Tensor) -> str:
    """Return e.g. `10 of 640 values differ; absolute difference: max 0.5, mean 0.01`."""
    distance = (a.double() - b.double()).abs()
    return (
        f"{int((a != b).sum()):,} of {a.numel():,} values differ; "
        f"absolute difference: max {float(distance.max()):.4g}, mean {float(distance.mean()):.4g}"
    )
