"""The arguments of `dd-bench leaderboard`, with a description and an example of each command."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, get_args

from dd_bench.runtime.command_help import HelpFormatter, examples

from .core.entries import RECORDS, ROOT
from .render.cells import COSTS, Spread
from .render.legend import Highlight
from .render.paper_table import PUBLISHED
from .render.plot_style import LAYOUTS, PAGE
from .render.plots import FORMATS, KINDS


class Verb(NamedTuple):
    """One command: one line for the list of commands, a description, and example commands."""

    summary: str
    description: str
    examples: Sequence[str]


VERBS = {
    "build": Verb(
        "write all boards as Markdown, CSV and LaTeX, or as a website",
        "Write all boards as Markdown, CSV and LaTeX; with --site, as a website; with --into, also into documents.",
        (
            "dd-bench leaderboard build --entries runs/records",
            "dd-bench leaderboard build --into PAPER.md",
            "dd-bench leaderboard build --site --out site",
        ),
    ),
    "table": Verb(
        "print a table for a paper: selected methods, IPCs, metrics and boards, as LaTeX, Markdown or CSV",
        "Print one table of selected boards, methods, IPCs and metrics, as Markdown, as LaTeX for booktabs, or as CSV "
        "with unrounded numbers. Several boards are shown side by side. The caption has the protocol, n and the "
        "meaning of ±; marks are explained below the table. In Python: dd_bench.leaderboards.paper_table.",
        (
            "dd-bench leaderboard table --entries runs/records --dataset digits",
            "dd-bench leaderboard table --dataset fashion_mnist digits --protocol dc-300 --model 'convnet(width=32)'"
            " --methods random dc dm --ipcs 1 10 --no-published --wide --out table.tex",
        ),
    ),
    "plot": Verb(
        "write plots of accuracy against IPC and cost, of differences, and across networks",
        "Write plots of boards: accuracy against IPC, bytes and seconds, differences from random images, other "
        "networks and class-incremental learning. Needs matplotlib (pip install 'dd-bench[plots]').",
        (
            "dd-bench leaderboard plot --entries runs/records",
            "dd-bench leaderboard plot --dataset digits --kinds ipc forest --methods random dm --layout column"
            " --format pdf,png --out figures",
        ),
    ),
    "add": Verb(
        "check records and copy them to the entries",
        "Check records of runs and copy them to the folder of entries: all of them, or none if a check fails.",
        ("dd-bench leaderboard add runs/records/*.json",),
    ),
    "check": Verb(
        "check that all entries are valid, unchanged and unique",
        "Check that all entries are valid, were not changed after they were added, and are unique.",
        ("dd-bench leaderboard check --entries leaderboards/entries",),
    ),
    "compare": Verb(
        "paired t-tests between records whose networks have the same seeds, with Holm's correction",
        "Compare records of one board by paired t-tests over networks of the same seeds, with Holm's correction over "
        "all pairs.",
        ("dd-bench leaderboard compare runs/records/A.json runs/records/B.json",),
    ),
}


def command_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="dd-bench leaderboard",
        description="Write tables, plots and a website of records and entries, and add records to the entries.",
        epilog="example:\n  dd-bench leaderboard table --entries runs/records\n\n"
        "dd-bench leaderboard COMMAND --help describes each command.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    subparsers = parser.add_subparsers(dest="verb", required=True, metavar="COMMAND")
    verbs = {}
    for name, verb in VERBS.items():
        verbs[name] = subparsers.add_parser(
            name,
            help=verb.summary,
            description=verb.description,
            epilog=examples(tuple(verb.examples)),
            formatter_class=HelpFormatter,
        )
    for name in VERBS.keys() - {"compare"}:
        records = f", or of the records of your runs, e.g. runs/{RECORDS}"
        verbs[name].add_argument(
            "--entries",
            type=Path,
            default=ROOT / "entries",
            help="folder of entries (default: %(default)s)" + records * (name not in ("add", "check")),
        )
    _build_arguments(verbs["build"])
    _table_arguments(verbs["table"])
    _plot_arguments(verbs["plot"])
    _add_arguments(verbs["add"])
    verbs["compare"].add_argument(
        "record", nargs="+", type=Path, help="two or more records or entries of the same board"
    )
    return parser


def _build_arguments(parser: argparse.ArgumentParser) -> None:
    _published(parser)
    parser.add_argument("--site", action="store_true", help="write static web pages instead of tables")
    parser.add_argument(
        "--sets-at",
        metavar="URL",
        help="URL of the folder to which the sets were pushed; the site links to the sets and has only their pictures",
    )
    parser.add_argument(
        "--docs",
        metavar="ADDRESS",
        help="address of the documentation relative to the site, to which its pages link, e.g. docs/index.html",
    )
    parser.add_argument(
        "--into",
        type=Path,
        nargs="+",
        action="extend",
        default=[],
        metavar="DOCUMENT",
        help="Markdown files in which to fill the blocks <!-- table NAME -->",
    )
    _sets(parser)
    parser.add_argument(
        "--out",
        type=Path,
        help="output folder (default: tables, or site with --site, next to the folder of entries)",
    )


def _table_arguments(parser: argparse.ArgumentParser) -> None:
    _board_arguments(parser)
    parser.add_argument(
        "--variants", action="store_true", help="also show the rows METHOD #2 and higher, which are variants"
    )
    parser.add_argument(
        "--metrics",
        nargs="+",
        default=[],
        metavar="METRIC",
        help=f"metrics of the records, and {' and '.join(COSTS)} (default: the main metric)",
    )
    layout = parser.add_argument_group("layout")
    layout.add_argument(
        "--format", choices=("markdown", "latex", "csv"), help="default: by the suffix of --out"
    )
    layout.add_argument(
        "--decimals", type=int, metavar="N", help="decimals (default: 1 for accuracies in percent, else 4)"
    )
    layout.add_argument(
        "--spread",
        choices=get_args(Spread),
        default="std",
        help="± is the standard deviation, half the width of the 95%% interval, or left out (default: std)",
    )
    layout.add_argument(
        "--highlight",
        choices=get_args(Highlight),
        default="ranks",
        help="ranks: the best in bold, and ≈ (LaTeX: underlined) for those not significantly different from it; best: "
        "only the best; none (default: ranks)",
    )
    layout.add_argument(
        "--no-counts", action="store_true", help="show n only in the caption, not in each cell"
    )
    layout.add_argument(
        "--no-published", action="store_true", help="leave out the columns of published numbers"
    )
    layout.add_argument("--transpose", action="store_true", help="methods as columns, IPCs as rows")
    layout.add_argument("--wide", action="store_true", help="LaTeX: use table*, over both columns of a page")
    layout.add_argument(
        "--out", type=Path, metavar="FILE", help=".md, .tex or .csv (default: print the table)"
    )
    _published(parser)


def _plot_arguments(parser: argparse.ArgumentParser) -> None:
    _board_arguments(parser)
    parser.add_argument(
        "--kinds", nargs="+", default=[], metavar="KIND", help=f"{', '.join(KINDS)} (default: all)"
    )
    parser.add_argument(
        "--reference",
        metavar="METHOD",
        help="method from which forest plots show differences (default: random images)",
    )
    parser.add_argument(
        "--format",
        type=_formats,
        default=("svg",),
        metavar="FORMATS",
        help=f"{', '.join(FORMATS)}, several separated by commas (default: svg)",
    )
    parser.add_argument(
        "--layout",
        choices=tuple(LAYOUTS),
        default=PAGE.name,
        help="page: for the web; column: 3.3 inches, one column of a paper with 8 pt text; wide: 6.9 inches, both "
        "columns (default: page)",
    )
    parser.add_argument("--changed", action="store_true", help="write only plots whose entries have changed")
    parser.add_argument(
        "--out", type=Path, help="output folder (default: plots, next to the folder of entries)"
    )


def _formats(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    if unknown := [name for name in names if name not in FORMATS]:
        raise argparse.ArgumentTypeError(
            f"must be of {', '.join(FORMATS)}, separated by commas, got {unknown[0]!r}. Example: --format svg,pdf"
        )
    return names


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("record", nargs="+", type=Path, help="record of a run, a JSON file in runs/records")
    parser.add_argument(
        "--no-baseline", action="store_true", help="also add records whose board has no random baseline"
    )
    _sets(parser)


def _board_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that select boards, rows and IPCs."""
    group = parser.add_argument_group("selection", "all that are not given are selected")
    for name, text in (
        (
            "board",
            "paths in leaderboards/tables without suffix, e.g. 'digits/dc-300-v1--hard--convnet_width=32'",
        ),
        ("dataset", "names of datasets, in the order of the columns"),
        ("protocol", "names of protocols"),
        ("labels", "hard, soft, static, replay or online"),
        ("evaluator", "names of evaluators (default: those that measure how well networks learn)"),
        ("model", "names of networks, e.g. convnet or 'convnet(width=32)'"),
        ("selection", "last, best_on_val, ..."),
    ):
        group.add_argument(f"--{name}", nargs="+", default=[], metavar="NAME", help=text)
    group.add_argument(
        "--methods",
        nargs="+",
        default=[],
        metavar="METHOD",
        help="rows, in this order, e.g. random dm 'dm #2'",
    )
    group.add_argument("--ipcs", nargs="+", type=int, default=[], metavar="IPC", help="images per class")


def board_names(args: argparse.Namespace) -> dict[str, list[str]]:
    """Return the parsed names of `_board_arguments` that select boards."""
    fields = ("board", "dataset", "protocol", "labels", "evaluator", "model", "selection")
    return {field: getattr(args, field) for field in fields}


def _published(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--published", type=Path, default=PUBLISHED, help="folder of published numbers")


def _sets(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--sets", type=Path, help="folder of sets (default: the folder sets next to that of the entries)"
    )
