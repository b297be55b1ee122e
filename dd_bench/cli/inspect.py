"""`dd-bench list`, `show` and `verify`: list configuration choices, print records and sets, check their integrity."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import webbrowser
from collections import Counter
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from dd_bench.pipeline.choices import choices, searchpath_of
from dd_bench.records.config_diff import STORED
from dd_bench.records.environment import Environment
from dd_bench.records.record import Record, load_record
from dd_bench.runtime.command_help import command_parser
from dd_bench.runtime.suggestions import did_you_mean
from dd_bench.runtime.terminal import sanitize
from dd_bench.synthetic.card import read_card, read_provenance

GROUPS = ("method", "dataset", "model", "evaluator", "protocol", "teacher", "runtime", "logger", "experiment")
_WIDTH = None if sys.stdout.isatty() else 200  # columns, if the output is a file or a pipe
_out, _err = Console(soft_wrap=True, width=_WIDTH), Console(stderr=True, soft_wrap=True)


class _Table(Table):
    """A table of untrusted text: markup and control characters in a cell have no effect."""

    def add_row(self, *cells: str) -> None:  # type: ignore[override]
        super().add_row(*map(_plain, cells))


def _plain(text: str) -> Text:
    return Text(sanitize(text))


def _error(kind: str, error: Exception) -> None:
    _err.print(Text.assemble((f"{kind}:", "red"), " ", _plain(str(error))))


def list_choices(arguments: list[str]) -> int:
    """Print the choices of each configuration group (method, dataset, ...); with --remote, the synthetic sets at a URL.

    Without GROUP, choices in subfolders are counted and not listed.
    """
    parser = command_parser("list", list_choices.__doc__, "dd-bench list", "dd-bench list method dataset")
    parser.add_argument(
        "group",
        nargs="*",
        help=f"one or several of {', '.join(GROUPS)} (default: all); hydra.searchpath=[pkg://my_package.conf] adds the "
        "choices of another package",
    )
    parser.add_argument(
        "--remote", metavar="URL", help="list the synthetic set at this URL, or the sets in its subfolders"
    )
    args = parser.parse_args(arguments)
    if args.remote:
        return _list_remote(args.remote)
    searchpath = [a for a in args.group if a.startswith("hydra.searchpath=")]
    words = [word for word in args.group if word not in searchpath]
    groups = [word if word in GROUPS else word.removesuffix("s") for word in words]
    for group, word in zip(groups, words, strict=True):
        if group not in GROUPS:
            near = did_you_mean(get_close_matches(group, GROUPS, 1))
            parser.error(
                f"GROUP must be one of {', '.join(GROUPS)}, got {word!r}{near or '. Example: dd-bench list method'}"
            )
    try:
        _print_choices(groups, searchpath_of(searchpath))
    except ValueError as error:
        parser.error(str(error))
    return 0


def _print_choices(groups: Sequence[str], searchpath: Sequence[str]) -> None:
    for group in groups or GROUPS:
        found = choices(group, searchpath)
        title = f"{group}= ({len(found)})"
        table = _Table(title=title, title_justify="left", box=None, show_header=False, padding=(0, 2))
        table.add_column(no_wrap=True, style="bold")
        table.add_column(overflow="fold")
        for name, text in found.items():
            if groups or "/" not in name:
                table.add_row(name, text)
        if not groups:
            folders = Counter(name.rpartition("/")[0] for name in found if "/" in name)
            for folder, count in folders.items():
                table.add_row(f"{folder}/", f"{count} more; to list them: dd-bench list {group}")
        _out.print(table)


def _list_remote(url: str) -> int:
    from dd_bench.hub.hub import sets_at  # imports torch

    try:
        found = sets_at(url)
    except (ValueError, OSError, ImportError) as error:
        _error("error", error)
        return 1
    table = _Table(
        *(Column(name, overflow="fold") for name in ("method", "dataset", "ipc", "bytes", "digest", "URL"))
    )
    for url, digest, card in sorted(found, key=lambda f: (f.card.dataset, f.card.ipc, f.card.method, f.url)):
        size = f"{sum(card.stored_bytes.values()):,}"
        table.add_row(card.method, card.dataset, str(card.ipc), size, digest[:16], url)
    _out.print(table)
    return 0


def show(arguments: list[str]) -> int:
    """Print records (.json files) and synthetic sets (folders); with --open, show the images of the sets."""
    parser = command_parser("show", show.__doc__, "dd-bench show runs/records")
    parser.add_argument(
        "path", nargs="+", type=Path, help="a record, the folder of a synthetic set, or a folder of records"
    )
    parser.add_argument(
        "--open",
        action="store_true",
        help="write a contact sheet with the images and the name of every class, print its path, and open it",
    )
    args = parser.parse_args(arguments)
    failed = 0
    for path in args.path:
        try:
            _check_exists(path)
            if (path / "card.json").is_file():
                _show_set(path)
                if args.open:
                    _open_contact_sheet(path)
            elif path.is_dir():
                _show_records(path)
            else:
                _show_record(load_record(path))
        except (ValueError, OSError) as error:
            _error("error", error)
            failed = 1
    return failed


def verify(arguments: list[str]) -> int:
    """Check sets (hashes, shapes, ranges) and records (schema); exit with status 1 if one is damaged."""
    from dd_bench.synthetic import storage  # imports torch, which the other commands do not need

    parser = argparse.ArgumentParser("dd-bench verify", description=verify.__doc__)
    parser.add_argument("path", nargs="+", type=Path, help="the folder of a synthetic set, or a record")
    damaged = 0
    for path in parser.parse_args(arguments).path:
        try:
            _check_exists(path)
            if path.is_dir():
                syn, card = storage.load(path)
                size = sum(syn.stored_bytes().values())
                summary = f"{card.method} on {card.dataset}, ipc={card.ipc}, {size:,} bytes"
            else:
                record = load_record(path)
                summary = f"{record.status}, {len(record.scores)} score(s), digest {record.digest[:16]}"
            _out.print(_plain(f"ok  {path}: {summary}"))
        except FileNotFoundError as error:
            _error("error", error)
            damaged = 1
        except (ValueError, OSError) as error:
            _error("damaged", error)
            damaged = 1
    return damaged


def _check_exists(path: Path) -> None:
    """Raise FileNotFoundError if a file or folder does not exist."""
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist")


def _show_records(folder: Path) -> None:
    if (folder / "records").is_dir():  # the value of `out=`
        folder = folder / "records"
    records = [load_record(path) for path in sorted(folder.glob("*.json"))]
    if not records:
        raise ValueError(
            f"{folder} is neither a synthetic set nor a folder of records. Example: dd-bench show runs"
        )
    names = ("method", "dataset", "ipc", "model", "protocol", "score", "n", "bytes", "key")
    table = _Table(*(Column(name, overflow="fold") for name in names))
    for r in sorted(records, key=lambda r: (r.dataset, r.protocol.name, r.model, r.ipc, r.method)):
        size = f"{sum(r.stored_bytes.values()):,}"
        n = f"{r.summary().num_sets}x{len(r.scores) // r.summary().num_sets}" if r.scores else ""
        table.add_row(r.method, r.dataset, str(r.ipc), r.model, r.protocol.name, _score(r), n, size, r.key)
    _out.print(table)


def _score(record: Record) -> str:
    if record.status != "done":
        return record.status
    s = record.summary()
    return f"{100 * s.mean:.2f}" if s.std is None else f"{100 * s.mean:.2f} ± {100 * s.std:.2f}"


def _show_record(record: Record) -> None:
    table = _Table(show_header=False, box=None)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("status", record.status + (f": {record.reason}" if record.reason else ""))
    table.add_row("run", f"{record.method} on {record.dataset}, ipc={record.ipc}, {record.model}")
    table.add_row(
        "protocol", f"{record.protocol.name} v{record.protocol.version}, selection {record.selection}"
    )
    for metric in record.metrics:
        s = record.summary(metric)
        interval = (
            "" if s.ci_low is None or s.ci_high is None else f", 95 % CI {s.ci_low:.4f} to {s.ci_high:.4f}"
        )
        spread = "".join(
            f", {name} {value:.4f}"
            for name, value in (("std", s.std), ("within sets", s.std_networks), ("between sets", s.std_sets))
            if value is not None
        )
        table.add_row(
            metric, f"{s.mean:.4f}{spread}{interval} ({s.num_networks} networks on {s.num_sets} set(s))"
        )
        values = [f"{score.value:.4f}" for score in record.scores if score.metric == metric]
        table.add_row("", " ".join(values))
    table.add_row("labels", f"{record.label_mode}; stored bytes {record.stored_bytes}")
    table.add_row("seconds", ", ".join(f"{stage} {value:.1f}" for stage, value in record.seconds.items()))
    table.add_row("peak memory", ", ".join(f"{s} {v / 2**20:.0f} MiB" for s, v in record.peak_memory.items()))
    code = record.code
    table.add_row("code", f"{code.version}, revision {code.revision}{' (changed)' if code.dirty else ''}")
    table.add_row("device", record.device)
    if record.environment is not None:
        table.add_row("environment", record.environment.summary())
        table.add_row("flags", record.environment.flags_text())
    for note in record.notes:
        table.add_row("note", note)
    table.add_row("key", record.key)
    _out.print(table)


def _open_contact_sheet(folder: Path) -> None:
    """Write the contact sheet of a set into a temporary folder, because a set has no other files, and open it."""
    from dd_bench.synthetic import storage  # imports torch
    from dd_bench.synthetic.contact_sheet import contact_sheet_png

    syn, _ = storage.load(folder)
    path = Path(tempfile.mkdtemp(prefix="dd-bench-")) / f"{folder.resolve().name}.png"
    path.write_bytes(contact_sheet_png(syn))
    _out.print(_plain(f"contact sheet: {path}"))
    display = sys.platform in ("win32", "darwin") or {"DISPLAY", "WAYLAND_DISPLAY"} & set(os.environ)
    if not display or not webbrowser.open(path.as_uri()):
        _err.print(_plain("no viewer was opened, because there is no graphical display"))


def _show_set(folder: Path) -> None:
    card = read_card(folder)
    provenance = read_provenance(folder)
    table = _Table(show_header=False, box=None)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("set", f"{card.method} on {card.dataset}, ipc={card.ipc}, seed {card.seed}")
    table.add_row(
        "images",
        f"{card.set.get('image_shape')} in space {card.set.get('space')!r}, factor {card.set.get('factor')}",
    )
    table.add_row(
        "classes", ", ".join(card.class_names[:20]) + (" ..." if len(card.class_names) > 20 else "")
    )
    table.add_row("stored bytes", ", ".join(f"{k} {v:,}" for k, v in card.stored_bytes.items()))
    if isinstance(stored := card.config.get(STORED), dict):
        snr = stored.get("snr_db")
        error = "no error" if snr is None else f"root mean square error {stored.get('rmse')}, SNR {snr} dB"
        table.add_row("precision", f"{stored.get('precision')}: {error}")
    table.add_row("preprocess", str(card.preprocess))
    table.add_row("licence", card.licence)
    if "seconds" in provenance:
        table.add_row(
            "seconds", ", ".join(f"{stage} {value:.1f}" for stage, value in provenance["seconds"].items())
        )
        table.add_row("device", provenance.get("device", ""))
    if "environment" in provenance:
        table.add_row("environment", Environment(**provenance["environment"]).summary())
    table.add_row("preview", str(folder / "preview.png"))
    _out.print(table)
