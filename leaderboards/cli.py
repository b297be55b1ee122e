"""`dd-bench leaderboard build|plot|add|check|compare`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from dd_bench.records.record import Record, load_record
from dd_bench.runtime.terminal import sanitize

from .admission.consistency import check_configuration, check_protocol, check_repeats, check_whole
from .admission.submission import check_baselines, check_sets, check_twins
from .core.boards import boards
from .core.entries import ROOT, check_record, duplicates, entry_path, load_entries
from .core.published import load_published
from .render.markdown_blocks import embed
from .render.paired_tests import compare, pairs_table
from .render.plots import draw
from .render.tables import build
from .website.site import build_site

_HERE = Path(__file__).parent


def main(argv: Sequence[str]) -> int:
    """Runs one verb and returns the exit status: 0, or 1 after saying on stderr what was refused and why."""
    parser = _parser()
    args = parser.parse_args(argv)
    if args.verb == "build" and args.site and args.into:
        parser.error("--into writes tables into a document, and --site pages: one at a time")
    if args.verb == "build" and args.sets_at is not None and not args.site:
        parser.error("--sets-at is of --site")
    try:
        if args.verb == "build" and args.site:
            out = args.out or ROOT / "site"
            count = build_site(args.entries, args.published, args.sets, out, args.sets_at)
            _say(f"{count} files in {out}; start with {out / 'index.html'}")
        elif args.verb == "build":
            _build(args.entries, args.published, args.out or ROOT / "tables")
            made = boards(load_entries(args.entries), load_published(args.published)) if args.into else []
            for document in args.into:
                _say(f"{embed(document, made)} tables in {document}")
        elif args.verb == "plot":
            written = draw(args.entries, args.out)
            _say(f"{len(written)} drawings in {args.out}")
        elif args.verb == "add":
            _add(args.record, args.entries, args.sets, args.no_baseline)
        elif args.verb == "compare":
            _say(pairs_table(compare([load_record(path) for path in args.record])))
        else:
            _say(f"{len(load_entries(args.entries))} entries in {args.entries}: all as they were added")
    except (ValueError, OSError, ImportError) as error:
        sys.stderr.write(f"{sanitize(str(error))}\n")
        return 1
    return 0


def _build(entries: Path, published: Path, out: Path) -> None:
    written = build(entries, published, out)
    _say(f"{len(written)} files in {out}; start with {out / 'index.md'}")
    files = [p for p in (*out.glob("*--*"), *out.glob("*/*--*")) if p.suffix in (".md", ".csv", ".tex")]
    stale = sorted(set(files) - set(written))
    for path in stale:
        _say(f"{path} is of an earlier build and no board of this one")


def _add(paths: list[Path], folder: Path, sets: Path, alone: bool) -> None:
    """Adds all of the records or none; one that is there already, to the byte, stays as it is."""
    new: list[tuple[Path, Record]] = []
    for path in paths:
        record = load_record(path)
        try:
            check_record(record)
            check_protocol(record)
            check_whole(record)
            check_configuration(record)
            check_repeats(record)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        new.append((path, record))
    old = [(folder / entry_path(r), r) for r in load_entries(folder)] if folder.exists() else []
    failed = {r.key: path for path, r in old if r.status != "done"}
    for path, record in list(new):
        there = folder / entry_path(record)
        if record.status != "done" and record.key in failed:  # it was tried again, and came to nothing again
            there = failed[record.key]
        if there.exists():
            _say(f"already there: {there}")
            new.remove((path, record))
    if twice := duplicates(old + new):
        raise ValueError("\n".join(twice))
    check_twins([r for _, r in new], [r for _, r in old])
    if not alone:
        check_baselines([r for _, r in new], [r for _, r in old + new])
    remarks = check_sets([record for _, record in new], sets)
    for _, record in new:
        _say(f"added {record.save(folder / entry_path(record))}")
    for remark in remarks:
        _say(remark)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="dd-bench leaderboard", description="Records in, tables out.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verb = {
        "build": verbs.add_parser("build", help="write every board as Markdown, CSV and LaTeX, or as a site"),
        "plot": verbs.add_parser(
            "plot", help="draw accuracy against cost, and class-incremental learning, as SVG"
        ),
        "add": verbs.add_parser("add", help="check records and copy them to the entries"),
        "check": verbs.add_parser("check", help="check that no entry was changed, broken or added twice"),
    }
    pairs = verbs.add_parser(
        "compare", help="paired t tests of records whose networks share seeds, with Holm"
    )
    pairs.add_argument("record", nargs="+", type=Path, help="records or entries of one protocol")
    verb["add"].add_argument("record", nargs="+", type=Path, help="record.json of a run")
    for sub in verb.values():
        sub.add_argument(
            "--entries", type=Path, default=ROOT / "entries", help="folder (default: %(default)s)"
        )
    verb["build"].add_argument(
        "--published", type=Path, default=_HERE / "published", help="folder of paper numbers"
    )
    verb["build"].add_argument(
        "--site", action="store_true", help="as static pages, to open from a folder or publish"
    )
    verb["build"].add_argument(
        "--sets-at",
        metavar="URL",
        help="folder where the sets were pushed under their names: the site leads there, and has pictures alone",
    )
    verb["build"].add_argument(
        "--into",
        type=Path,
        nargs="+",
        action="extend",
        default=[],
        metavar="DOCUMENT",
        help="Markdown files whose <!-- table NAME --> blocks are filled in",
    )
    verb["add"].add_argument("--no-baseline", action="store_true", help="though its board has no random row")
    for name in ("build", "add"):
        verb[name].add_argument(
            "--sets", type=Path, default=ROOT / "sets", help="folder of sets (default: %(default)s)"
        )
    verb["build"].add_argument(
        "--out", type=Path, help="folder (default: leaderboards/tables, or leaderboards/site)"
    )
    verb["plot"].add_argument(
        "--out", type=Path, default=ROOT / "plots", help="folder (default: %(default)s)"
    )
    return parser


def _say(line: str) -> None:
    sys.stdout.write(sanitize(line) + "\n")
