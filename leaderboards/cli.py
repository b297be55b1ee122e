"""The commands `dd-bench leaderboard build`, `table`, `plot`, `add`, `check` and `compare`."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from dd_bench.records.record import Record, load_record
from dd_bench.runtime.files import write_atomic
from dd_bench.runtime.terminal import sanitize

from .admission.consistency import (
    check_best_runs,
    check_complete,
    check_configuration,
    check_protocol,
    check_repeats,
)
from .admission.submission import check_baselines, check_budget, check_sets, check_unique_scores
from .arguments import board_names, command_parser
from .core.board_selection import BoardFilter
from .core.boards import boards
from .core.entries import ROOT, check_record, duplicates, entry_path, load_entries
from .core.published import load_published
from .render.markdown_blocks import embed, named_tables
from .render.paired_tests import compare, pairs_table
from .render.paper_table import paper_table
from .render.plot_style import LAYOUTS
from .render.plots import KINDS, Selection, draw
from .render.tables import build
from .website.site import build_site


def main(argv: Sequence[str]) -> int:
    """Run one command and return the exit status: 0, or 1 after printing an error to stderr."""
    parser = command_parser()
    args = parser.parse_args(argv)
    home = args.entries.parent if "entries" in args else ROOT
    if args.verb == "build" and args.site and args.into:
        parser.error("--into and --site cannot be combined: run the command once with each")
    if args.verb == "build" and args.sets_at is not None and not args.site:
        parser.error("--sets-at requires --site")
    if args.verb == "build" and args.docs is not None and not args.site:
        parser.error("--docs requires --site")
    if args.verb == "plot" and args.changed and list(args.format) != ["svg"]:
        parser.error("--changed requires --format svg")
    try:
        if args.verb == "build" and args.site:
            out = args.out or home / "site"
            sets = args.sets or home / "sets"
            count = build_site(args.entries, args.published, sets, out, args.sets_at, args.docs)
            _print(f"wrote {count} files to {out}; start with {out / 'index.html'}")
        elif args.verb == "build":
            _build(args.entries, args.published, args.out or home / "tables")
            if args.into:
                entries = load_entries(args.entries)
                tables = named_tables(boards(entries, load_published(args.published)), entries)
                for document in args.into:
                    _print(f"wrote {embed(document, tables)} tables to {document}")
        elif args.verb == "plot":
            out = args.out or home / "plots"
            _plot(args, out)
        elif args.verb == "table":
            _table(args, argv)
        elif args.verb == "add":
            _add(args.record, args.entries, args.sets or home / "sets", args.no_baseline)
        elif args.verb == "compare":
            if len(set(args.record)) < 2:
                raise ValueError(
                    f"compare requires at least 2 different records of one board, got {len(set(args.record))}. "
                    f"Example: dd-bench leaderboard compare {args.record[0]} OTHER.json"
                )
            _print(pairs_table(compare([load_record(path) for path in args.record])))
        else:
            _print(f"ok: {len(load_entries(args.entries))} entries in {args.entries} are valid and unchanged")
    except (ValueError, OSError, ImportError) as error:
        sys.stderr.write(f"{sanitize(str(error))}\n")
        return 1
    return 0


def _build(entries: Path, published: Path, out: Path) -> None:
    written = build(entries, published, out)
    _print(f"wrote {len(written)} files to {out}; start with {out / 'index.md'}")
    files = [p for p in (*out.glob("*--*"), *out.glob("*/*--*")) if p.suffix in (".md", ".csv", ".tex")]
    for path in sorted(set(files) - set(written)):
        _print(
            f"{path} was written by an earlier build and is not part of the current tables. You can delete it"
        )


def _plot(args: argparse.Namespace, out: Path) -> None:
    selection = Selection(
        BoardFilter(**board_names(args)), args.methods, args.ipcs, args.kinds, args.reference
    )
    written = draw(args.entries, out, args.changed, selection, args.format, LAYOUTS[args.layout])
    if not written and not args.changed:
        raise ValueError(
            "no plot can be drawn of the selected entries: each kind of plot requires several of them. Kinds: "
            f"{', '.join(KINDS)}. Example: dd-bench leaderboard plot --kinds ipc"
        )
    _print(f"wrote {len(written)} plots to {out}")


def _table(args: argparse.Namespace, argv: Sequence[str]) -> None:
    """Print a table, or write it to the file --out in the format of its suffix."""
    suffix = args.out.suffix.lstrip(".") if args.out else ""
    form = args.format or {"tex": "latex", "csv": "csv"}.get(suffix, "markdown")
    table = paper_table(
        args.entries,
        methods=args.methods,
        ipcs=args.ipcs,
        metrics=args.metrics,
        decimals=args.decimals,
        spread=args.spread,
        highlight=args.highlight,
        counts=not args.no_counts,
        published=not args.no_published,
        variants=args.variants,
        transposed=args.transpose,
        published_dir=args.published,
        command=f"dd-bench leaderboard {shlex.join(argv)}",
        **board_names(args),
    )
    texts = {"latex": lambda: table.latex(args.wide), "csv": table.csv, "markdown": table.markdown}
    text = texts[form]()
    if args.out is None:
        sys.stdout.write(text)
    else:
        write_atomic(args.out, text.encode())
        _print(f"wrote {args.out}")


def _add(paths: list[Path], folder: Path, sets: Path, no_baseline: bool) -> None:
    """Add all records or, if any check fails, none. Records that are already entries are skipped."""
    new: list[tuple[Path, Record]] = []
    for path in paths:
        record = load_record(path)
        try:
            check_record(record)
            check_protocol(record)
            check_complete(record)
            check_configuration(record)
            check_repeats(record)
            check_best_runs(record)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        new.append((path, record))
    old = [(folder / entry_path(r), r) for r in load_entries(folder)] if folder.exists() else []
    failed = {r.key: path for path, r in old if r.status != "done"}
    for path, record in list(new):
        there = folder / entry_path(record)
        if record.status != "done" and record.key in failed:  # the experiment was repeated and failed again
            there = failed[record.key]
        if there.exists():
            _print(f"already added: {there}")
            new.remove((path, record))
    if messages := duplicates(old + new):
        raise ValueError("\n".join(messages))
    check_unique_scores([r for _, r in new], [r for _, r in old])
    check_budget([r for _, r in new], [r for _, r in old + new])
    if not no_baseline:
        check_baselines([r for _, r in new], [r for _, r in old + new])
    remarks = check_sets([record for _, record in new], sets, [path for path, _ in new])
    for _, record in new:
        _print(f"added {record.save(folder / entry_path(record))}")
    for remark in remarks:
        _print(remark)


def _print(line: str) -> None:
    sys.stdout.write(sanitize(line) + "\n")
