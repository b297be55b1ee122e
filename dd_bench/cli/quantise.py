"""`dd-bench quantise`: make sets with fewer bits per value from the images of existing sets."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from dd_bench.records.config_diff import STORED
from dd_bench.runtime.command_help import command_parser
from dd_bench.runtime.suggestions import did_you_mean
from dd_bench.runtime.terminal import sanitize

if TYPE_CHECKING:
    from dd_bench.synthetic.quantisation import Quantiser
    from dd_bench.synthetic.quantised import QuantisedSet

_KEYS = ("bits", "per", "clip", "patch", "groups", "out")
_DEFAULTS = {"per": "image", "clip": "minmax", "patch": "4", "groups": "null", "out": "runs"}
_HELP = """\
keys:
  bits=8          bits per value: 8, 6, 4, 3, 2 or 1
  per=image       values with the same range: set, image, channel (of one image) or patch (of one channel)
  clip=minmax     range: minmax (all values) or mse (the range with the smallest squared error, for sets with outliers)
  patch=4         side of a patch in values
  groups=null     number of ranges that all cells share, found by k-means; null: a range for each cell
  out=runs        the new sets are in OUT/sets

A key can have several values. The command then makes a set for each combination.

examples:
  dd-bench quantise runs/sets/NAME bits=8
  dd-bench quantise runs/sets/NAME bits=8,4,2 per=set,image,patch
  dd-bench quantise runs/sets/NAME bits=2 per=patch patch=5 groups=64
  dd-bench evaluate set=runs/sets/NAME-4bit-image protocol=dc-300"""


def quantise_command(arguments: Sequence[str]) -> int:
    """Make sets with fewer bits per value from the images of existing sets, and print their sizes.

    The new sets store integer codes and, for each range, a minimum and a step in float16. Labels and all other fields
    are those of the old set. Networks are trained on the dequantised images.

    raw bits: codes, parameters, and soft labels; hard labels take no bits. entropy bits: the same with the order-0
    entropy of the codes and their histogram. zstd, PNG, WebP: bytes of the codes after lossless compression. s: seconds
    to quantise, save, load and compress the set.
    """
    parser = command_parser("quantise", quantise_command.__doc__)
    parser.epilog = _HELP
    parser.add_argument(
        "words", nargs="+", metavar="SET|KEY=VALUE", help="folders or URLs of sets, and the keys below"
    )
    args = parser.parse_args(arguments)
    out = Console(soft_wrap=True, width=None if sys.stdout.isatty() else 200)
    err = Console(stderr=True, soft_wrap=True)
    try:
        rows = list(quantised_rows(args.words))
    except (ValueError, OSError) as error:
        err.print(Text.assemble(("error:", "red"), " ", sanitize(str(error))))
        return 1
    table = Table(*rows[0], box=None)
    for row in rows:
        table.add_row(*(Text(sanitize(cell), overflow="fold") for cell in row.values()))
    out.print(table)
    return 0


def parse_words(words: Sequence[str]) -> tuple[list[str], list[Quantiser], Path]:
    """Return the sets, the quantisers of all combinations, and the output folder.

    Raises:
        ValueError: there is no set or no `bits`, or a key or a value is wrong.
    """
    from dd_bench.synthetic.quantisation import Quantiser

    sets = [word for word in words if "=" not in word.partition("://")[0]]
    values, given = dict(_DEFAULTS), set()
    for key, _, value in (word.partition("=") for word in words if word not in sets):
        if key not in _KEYS:
            raise ValueError(
                f"{key!r} is not one of the keys {', '.join(_KEYS)}{did_you_mean(get_close_matches(key, _KEYS, 1))}"
            )
        values[key] = value
        given.add(key)
    if "patch" in given and "patch" not in values["per"].split(","):
        raise ValueError(
            f"patch={values['patch']} has no effect with per={values['per']}. Use per=patch patch={values['patch']}"
        )
    if not sets or "bits" not in values:
        raise ValueError(
            f"{'a set' if not sets else 'bits'} is missing. Example: dd-bench quantise runs/sets/NAME bits=8"
        )
    choices = {key: [_value(key, text) for text in values[key].split(",")] for key in _KEYS[:-1]}
    combinations: list[dict[str, Any]] = [
        dict(zip(choices, found, strict=True)) for found in product(*choices.values())
    ]
    quantisers = dict.fromkeys(
        Quantiser(**(c if c["per"] == "patch" else c | {"patch": 4})) for c in combinations
    )
    return sets, list(quantisers), Path(values["out"])


def _value(key: str, text: str) -> Any:
    if key in ("per", "clip"):
        return text
    if key == "groups" and text == "null":
        return None
    return int(text) if text.isdecimal() else text


def set_name(name: str, quantiser: Quantiser) -> str:
    """Return the folder name of the new set, e.g. `dm-digits-ipc1-34a97630d786490e-4bit-image`."""
    q = quantiser
    parts = [f"{q.bits}bit", q.per + (str(q.patch) if q.per == "patch" else "")]
    parts += [f"g{q.groups}"] * bool(q.groups) + [q.clip] * (q.clip != "minmax")
    return "-".join([name, *parts])


def quantised_rows(words: Sequence[str]) -> Iterator[dict[str, str]]:
    """Make the missing sets, and yield the row of the table of each set."""
    from dd_bench.hub.hub import located
    from dd_bench.synthetic import storage
    from dd_bench.synthetic.card import read_provenance
    from dd_bench.synthetic.precision import quantise_set
    from dd_bench.synthetic.quantised import QuantisedSet

    sets, quantisers, out = parse_words(words)
    for where in sets:
        folder = located(where)
        syn, card = storage.load(folder)
        digest, provenance = storage.digest(folder), read_provenance(folder)
        notes = [
            *provenance.get("notes", []),
            f"quantised from the set {folder.resolve().name} ({digest[:16]})",
        ]
        for quantiser in quantisers:
            started = time.perf_counter()
            new = out / "sets" / set_name(folder.resolve().name, quantiser)
            if not new.exists():
                found, entry = quantise_set(syn, quantiser)
                config = card.config | {STORED: entry | {"from": digest}}
                storage.save_derived(
                    found, new, card=card, config=config, provenance=provenance | {"notes": notes}
                )
            stored, new_card = storage.load(new)
            entry = new_card.config.get(STORED, {})
            if entry.get("from") != digest or not isinstance(stored, QuantisedSet):
                raise ValueError(
                    f"{new} exists, but is not made from {folder}. Remove it, or use another out=FOLDER"
                )
            row = _row(new, stored, entry)
            yield row | {"s": f"{time.perf_counter() - started:.2f}"}


def _row(folder: Path, syn: QuantisedSet, entry: dict[str, Any]) -> dict[str, str]:
    from dd_bench.data.labels import label_mode

    parts, sizes = syn.stored_bytes(), syn.size_metrics()
    parameters = 8 * sum(parts.get(name, 0) for name in ("minimum", "step", "group"))
    labels = 8 * parts["labels"] if label_mode(syn.labels) == "soft" else 0
    snr = entry.get("snr_db")
    return {
        "set": str(folder),
        "raw bits": f"{8 * parts['codes'] + parameters + labels:,}",
        "of them parameters": f"{parameters:,}",
        "and labels": f"{labels:,}",
        "entropy bits": f"{sizes['entropy bits'] + parameters + labels:,}",
        **{
            name: f"{sizes[key]:,}" if key in sizes else "-"
            for name, key in (("zstd B", "zstd bytes"), ("PNG B", "PNG bytes"), ("WebP B", "WebP bytes"))
        },
        "SNR, dB": "lossless" if snr is None else f"{snr:.1f}",
    }
