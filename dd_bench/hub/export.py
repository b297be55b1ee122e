"""`dd-bench export`: write a synthetic set in a format that other software reads."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from dd_bench.hub.hub import located, print_result
from dd_bench.hub.parquet import parquet
from dd_bench.hub.png_folder import png_folder
from dd_bench.hub.release import nearby_records, release
from dd_bench.hub.training_images import Exported
from dd_bench.hub.webdataset import webdataset
from dd_bench.runtime.command_help import HelpFormatter
from dd_bench.synthetic import storage

PNG, PARQUET, WEBDATASET, HUB = "png", "parquet", "webdataset", "hub"
SUFFIXES = {".parquet": PARQUET, ".tar": WEBDATASET}
"""Formats by the suffix of the file to create. Without one of these, a folder of PNG files is written."""
_EXAMPLES = """\
formats:
  png         a folder with one folder of PNG files per class; 8 bits per value
  parquet     a file for Hugging Face datasets, with the columns image, label and input
  webdataset  a tar file with .png, .npy, .cls and .json for each image
  hub         a folder to upload to the Hugging Face Hub: dataset card, Parquet file, and the set

examples:
  dd-bench export SET images
  dd-bench export SET train.parquet
  dd-bench export SET train-000000.tar
  dd-bench export SET release --format hub --record runs/records/5edacfeb72d7f23c.json
"""


def export_command(arguments: Sequence[str]) -> int:
    """Write all training images of a synthetic set in a format that other software reads.

    Parquet and WebDataset files contain the network inputs in float32, without any loss, and 8-bit images for viewing.
    """
    parser = argparse.ArgumentParser(
        "dd-bench export",
        description=export_command.__doc__,
        epilog=_EXAMPLES,
        formatter_class=HelpFormatter,
    )
    parser.add_argument("set", help="folder or URL of the set")
    parser.add_argument("to", type=Path, help="folder or file to create; it must not exist")
    parser.add_argument(
        "--format",
        choices=[PNG, PARQUET, WEBDATASET, HUB],
        help="default: parquet if TO ends in .parquet, webdataset if it ends in .tar, otherwise png",
    )
    parser.add_argument(
        "--lossless",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="include the network inputs in float32 (default except for png), or only images in 8 bits",
    )
    parser.add_argument(
        "--record",
        type=Path,
        action="append",
        help="for hub: record of an evaluation of the set, or a folder of records; default: runs/records for "
        "runs/sets/NAME, and entries/DATASET for sets/DATASET/NAME. Can be repeated",
    )
    args = parser.parse_args(arguments)
    return print_result(lambda: _export(args.set, args.to, args.format, args.lossless, args.record))


def _export(
    where: str, to: Path, kind: str | None, lossless: bool | None, records: Sequence[Path] | None
) -> str:
    """Export a set and return the line to print.

    Raises:
        ValueError: the format stores 8 bits per value and `lossless` is True, or has no place for `records`.
    """
    kind = kind or SUFFIXES.get(to.suffix, PNG)
    if records and kind != HUB:
        raise ValueError(f"--record requires --format hub, got {kind}. Remove --record, or add --format hub")
    if kind == PNG and lossless:
        raise ValueError(
            "--lossless requires --format parquet or webdataset, got png, which has 8 bits per value. "
            "Example: dd-bench export SET train.parquet"
        )
    folder = located(where)
    if kind == HUB:
        found = nearby_records(folder) if records is None else records
        return summary(release(folder, to, found, lossless=lossless is not False))
    syn = storage.load(folder)[0]
    if kind == PNG:
        return summary(png_folder(syn, to))
    write = parquet if kind == PARQUET else webdataset
    return summary(write(syn, to, lossless=lossless is not False))


def summary(exported: Exported) -> str:
    """Return a line that describes what was written, and what was lost."""
    line = f"{exported.path}: {exported.images} images"
    if exported.lossless and not exported.clipped:
        return line
    share = f"{100 * exported.clipped:.2f} % of the pixels were outside [0, 1] and were clipped"
    if exported.lossless:
        return f"{line}, with lossless network inputs; in the 8-bit images, {share}"
    return f"{line}; {share}" if exported.clipped else f"{line}, rounded to 8 bits"
