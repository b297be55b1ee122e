"""CPU seconds of `dd-bench quantise` for every committed set of images, at 4 bits per value with a range per image.

    python benchmarks/quantise.py

The time of a set is that of loading it, quantising, saving and loading the new set with its preview, and compressing
the codes. It is the CPU time of the process, so that other processes of the machine change it little. The first set is
quantised twice: the first time, libraries are imported.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import report
import torch

from dd_bench.cli.quantise import quantised_rows
from dd_bench.synthetic.card import read_card

SETS = Path(__file__).parents[1] / "leaderboards" / "sets"


def seconds_of(folder: Path, bits: int) -> float:
    """Return the CPU seconds of the command for one set, without the start of the process."""
    with tempfile.TemporaryDirectory() as out:
        began = time.process_time()
        list(quantised_rows([str(folder), f"bits={bits}", f"out={out}"]))
        return time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sets", type=Path, default=SETS)
    parser.add_argument("--bits", type=int, default=4)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "quantise.json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    cards = {path.parent: read_card(path.parent) for path in sorted(args.sets.glob("*/*/card.json"))}
    folders = [folder for folder, card in cards.items() if card.kind == "images"]
    first = seconds_of(folders[0], args.bits)
    seconds = {folder.name: seconds_of(folder, args.bits) for folder in folders}
    slowest = max(seconds, key=seconds.__getitem__)
    figures = {
        "sets": len(seconds),
        "first": round(first, 2),
        "median": round(statistics.median(seconds.values()), 2),
        "slowest": round(seconds[slowest], 2),
        "slowest_set": slowest,
    }
    print(figures)
    report.write(args.out, {"settings": {"bits": args.bits}, **figures}, threads=1)


if __name__ == "__main__":
    main()
