"""The commands `dd-bench leaderboard build`, `plot`, `add`, `check` and `compare`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from dd_bench.records.record import Record, load_record
from dd_bench.runtime.terminal import sanitize

from .admission.consistency import (
    check_best_runs,
    check_complete,
    check_configuration,
    check_protocol,
    check_repeats,
)
from .admission.submission import check_baselines, check_budget, check_sets, check_unique_scores
from .core.boards import boards
from .core.entries import RECORDS, ROOT, check_record, duplicates, entry_path, load_entries
from .core.published import load_published
from .render.markdown_blocks import embed
from .render.paired_tests import compare, pairs_table
from .render.plots import draw
from .render.tables import build
from .website.site import build_site

_HERE = Path(__file__).parent


def main(argv: Sequence[str]) -> int:
    """Run one command and return the exit status: 0, or 1 after printing an error to stderr."""
    parser = _parser()
    args = parser.parse_args(argv)
    home = args.entries.parent if "entries" in args else ROOT
    if args.verb == "build" and args.site and args.into:
        parser.error("--into and --site cannot be combined: run the command once with each")
    if args.verb == "build" and args.sets_at is not None and not args.site:
        parser.error("--sets-at requires --site")
    try:
        if args.verb == "build" and args.site:
            out = args.out or home / "site"
            count = build_site(args.entries, args.published, args.sets or home / "sets", out, args.sets_at)
            _print(f"wrote {count} files to {out}; start with {out / 'index.html'}")
        elif args.verb == "build":
            _build(args.entries, args.published, args.out or home / "tables")
            all_boards = (
                boards(load_entries(args.entries), load_published(args.published)) if args.into else []
            )
            for document in args.into:
                _print(f"wrote {embed(document, all_boards)} tables to {document}")
        elif args.verb == "plot":
            out = args.out or home / "plots"
            _print(f"wrote {len(draw(args.entries, out, args.changed))} plots to {out}")
        elif args.verb == "add":
            _add(args.record, args.entries, args.sets or home / "sets", args.no_baseline)
        elif args.verb == "compare":
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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dd-bench leaderboard",
        description="Add records to the leaderboards, and write tables and a website.",
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    verb = {
        "build": verbs.add_parser(
            "build", help="write all boards as Markdown, CSV and LaTeX, or as a website"
        ),
        "plot": verbs.add_parser(
            "plot",
            help="write SVG plots of accuracy against IPC and cost, and of differences from random images",
        ),
        "add": verbs.add_parser("add", help="check records and copy them to the entries"),
        "check": verbs.add_parser("check", help="check that all entries are valid, unchanged and unique"),
    }
    pairs = verbs.add_parser(
        "compare",
        help="paired t-tests between records whose networks have the same seeds, with Holm's correction",
    )
    pairs.add_argument("record", nargs="+", type=Path, help="records or entries of the same board")
    verb["add"].add_argument(
        "record", nargs="+", type=Path, help="record of a run, a JSON file in runs/records"
    )
    for sub in verb.values():
        sub.add_argument(
            "--entries",
            type=Path,
            default=ROOT / "entries",
            help=f"folder of entries (default: %(default)s), or of the records of your runs, e.g. runs/{RECORDS}",
        )
    verb["build"].add_argument(
        "--published", type=Path, default=_HERE / "published", help="folder of published numbers"
    )
    verb["build"].add_argument("--site", action="store_true", help="write static web pages instead of tables")
    verb["build"].add_argument(
        "--sets-at",
        metavar="URL",
        help="URL of the folder to which the sets were pushed; the site links to the sets and has only their pictures",
    )
    verb["build"].add_argument(
        "--into",
        type=Path,
        nargs="+",
        action="extend",
        default=[],
        metavar="DOCUMENT",
        help="Markdown files in which to fill the blocks <!-- table NAME -->",
    )
    verb["add"].add_argument(
        "--no-baseline", action="store_true", help="also add records whose board has no random baseline"
    )
    for name in ("build", "add"):
        verb[name].add_argument(
            "--sets", type=Path, help="folder of sets (default: the folder sets next to that of the entries)"
        )
    verb["build"].add_argument(
        "--out",
        type=Path,
        help="output folder (default: tables, or site with --site, next to the folder of entries)",
    )
    verb["plot"].add_argument(
        "--changed", action="store_true", help="write only plots whose entries have changed"
    )
    verb["plot"].add_argument(
        "--out", type=Path, help="output folder (default: plots, next to the folder of entries)"
    )
    return parser


def _print(line: str) -> None:
    sys.stdout.write(sanitize(line) + "\n")
