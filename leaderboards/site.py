"""The site: boards, entries, drawings and files as static pages that need no server, also from a folder on a disk.

    index.html  entries.html  cross_arch.html  continual.html  published.html
    boards/<track>.html   entries/<digest>.html, .json   data/   pictures/   site.css  site.js  plotly.min.js

The same entries give the same bytes. A page of an entry keeps its address for as long as the entry is not changed.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from dd_bench.record import Record, file_sha256

from .boards import Board, boards
from .citations import bibtex, cited
from .cost import Point, points
from .entries import load_entries, sets_in
from .figures import csv_text, printed
from .markup import PLAIN
from .published import PublishedSet, load_published
from .site_entry import KnownSet, entry_page
from .site_plots import continual_parts, cost_plot, cross_arch_parts
from .site_rows import board_rows, column, entry_at, every_row, track_rows
from .tables import changed_knobs, latex, legend_of
from .verified import verdicts

_TEMPLATES = Path(__file__).parent / "templates"
PAGES = (("cross_arch", "Other networks"), ("continual", "Continual learning"), ("published", "Published"))
MARKER = ".dd_bench-site"
"""File that lists what a build wrote: the next one removes that and nothing else."""
MOST_PICTURES = 60
"""Pictures on the page of a board; the others are on the pages of their entries."""


def build_site(entries_dir: Path, published_dir: Path, sets_dir: Path, out: Path) -> int:
    """Writes the site to `out` and returns the number of files; where an entry is refused, the old site stays.

    What an earlier build wrote is replaced, and what others put beside it stays; another folder is left alone.

    Raises:
        ImportError: plotly is not installed.
        ValueError: an entry or a file of published numbers is refused.
        FileExistsError: `out` holds something else.
    """
    try:
        plotly = import_module("plotly.offline").get_plotlyjs()
    except ImportError as error:
        raise ImportError("the site needs plotly. Use: pip install 'dd-bench[site]'") from error
    old = _written_before(out)
    entries, published = load_entries(entries_dir), load_published(published_dir)
    out.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
    try:
        site = _Site(scratch, entries, boards(entries, published), published, entries_dir)
        site.pictures(sets_dir)
        site.write_pages()
        for name in ("site.css", "site.js"):
            shutil.copy(_TEMPLATES / "site" / name, scratch / name)
        (scratch / "plotly.min.js").write_text(plotly)
        files = sorted(str(p.relative_to(scratch)) for p in scratch.rglob("*") if p.is_file())
        (scratch / MARKER).write_text("\n".join(files) + "\n")
        scratch.chmod(0o755)
        _replace(out, scratch, old)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    return len(files)


def _written_before(out: Path) -> list[str] | None:
    """Returns the files of the build that is at `out`, None if nothing is there.

    Raises:
        FileExistsError: there is something that no build wrote.
    """
    if not out.exists() or not any(out.iterdir()):
        return None
    if not (out / MARKER).is_file():
        raise FileExistsError(f"{out} holds something else. Use another --out")
    return [MARKER, *(out / MARKER).read_text().splitlines()]


def _replace(out: Path, scratch: Path, old: list[str] | None) -> None:
    """Puts the new build where the old one is; what others have put beside it (.git, CNAME) stays."""
    if old is None:
        if out.exists():
            out.rmdir()
        scratch.replace(out)
        return
    for name in old:
        if not Path(name).is_absolute() and ".." not in Path(name).parts:
            (out / name).unlink(missing_ok=True)
    for path in sorted(scratch.rglob("*")):
        to = out / path.relative_to(scratch)
        to.mkdir(exist_ok=True) if path.is_dir() else path.replace(to)
    shutil.rmtree(scratch)


class _Site:
    """The pages of one build."""

    def __init__(
        self,
        folder: Path,
        entries: Sequence[Record],
        made: Sequence[Board],
        published: Sequence[PublishedSet],
        source: Path,
    ):
        self.folder, self.entries, self.made, self.published, self.source = (
            folder,
            entries,
            made,
            published,
            source,
        )
        self.sets: dict[str, KnownSet] = {}
        self.verdicts = verdicts(source.parent / "verified")
        self.costs: Mapping[Any, Sequence[Point]] = points(entries)
        newest = max((r.created[:10] for r in entries), default="never")
        self.about = f"{len(entries)} entries, the newest of {newest}."
        self.jinja = Environment(
            loader=FileSystemLoader(_TEMPLATES), undefined=StrictUndefined, trim_blocks=True, autoescape=True
        )
        self.jinja.filters["script"] = _script

    def pictures(self, sets_dir: Path) -> None:
        """Copies the pictures of the sets beside the entries, and remembers their cards."""
        for digest, folder in sets_in(sets_dir).items():
            try:
                card = json.loads((folder / "card.json").read_bytes())
                pictured = card["sha256"]["preview.png"]
                card["config"], card["method"], card["dataset"]
            except (OSError, ValueError, KeyError, TypeError):
                continue  # `dd-bench verify` says what is wrong with it
            picture = None
            if pictured and file_sha256(folder / "preview.png") == pictured:
                picture = f"pictures/{digest[:16]}.png"
                (self.folder / "pictures").mkdir(exist_ok=True)
                shutil.copy(folder / "preview.png", self.folder / picture)
            self.sets[digest] = KnownSet(f"leaderboards/sets/{folder.name}", card, picture)

    def write_pages(self) -> None:
        """Writes every page and file."""
        self._page(
            "index",
            "site/index.html.j2",
            title="Boards",
            boards_table=board_rows(self.made),
            entries=len(self.entries),
            boards=len(self.made),
        )
        lead = "Every entry, whatever its board: to find one, not to compare."
        self._page("entries", "site/list.html.j2", title="Every entry", lead=lead, rows=every_row(self.made))
        self._page(
            "published",
            "site/list.html.j2",
            title="Published",
            rows=_published(self.published),
            lead=(
                "Numbers of papers, in percent, each under a protocol of its own. "
                "Those marked † are from memory, not re-read."
            ),
        )
        parts = cross_arch_parts(self.entries)
        lead = (
            "What a set is worth to other networks than its own, from the same seeds; in brackets the difference ± "
            "half of its 95 % interval."
        )
        self._page(
            "cross_arch",
            "site/tables.html.j2",
            title="Other networks",
            lead=lead,
            parts=parts,
            plots=False,
            how="dd-bench evaluate set=FOLDER evaluator=cross_arch ...",
        )
        parts = continual_parts(self.entries)
        lead = (
            "Classes that come in parts, learned from the set alone: accuracy on all classes so far, with 95 % "
            "intervals."
        )
        self._page(
            "continual",
            "site/tables.html.j2",
            title="Continual learning",
            lead=lead,
            parts=parts,
            plots=bool(parts),
            how="dd-bench evaluate set=FOLDER evaluator=continual ...",
        )
        for board in self.made:
            self._board(board)
        everything = [(board, record) for board in self.made for record in board.records]
        self._data("records", everything)
        template = self.jinja.get_template("site/entry.html.j2")
        (self.folder / "entries").mkdir()
        for board, record in everything:
            page = entry_page(
                record, board, self._sets_of(record), self.cards, self.verdicts.get(record.digest)
            )
            text = template.render(page, up="../", pages=PAGES, about=self.about, here=lambda _: "")
            (self.folder / entry_at(record)).write_text(text)
            (self.folder / entry_at(record)).with_suffix(".json").write_text(record.text())

    @property
    def cards(self) -> list[Mapping[str, Any]]:
        """The cards of the sets beside the entries."""
        return [known.card for known in self.sets.values()]

    def _sets_of(self, record: Record) -> dict[str, KnownSet]:
        return {d: self.sets[d] for d in record.set_digests if d in self.sets}

    def _board(self, board: Board) -> None:
        t, slug = board.track, board.track.slug
        if (self.folder / "boards" / f"{slug}.html").exists():
            raise ValueError(
                f"two boards would be written to {slug}.html: their names differ in punctuation alone"
            )
        found = self.costs.get(t, [])
        facts = [
            ("Dataset", t.dataset),
            ("Metric", t.metric),
            ("Protocol", f"{t.protocol} v{t.version}"),
            ("Selection", t.selection),
        ]
        facts += [
            ("Labels", f"{t.label_mode} of {t.teachers}" if t.teachers else t.label_mode),
            ("Evaluator", t.evaluator),
            ("Network", t.model),
        ]
        shown = [
            {"file": known.picture, "entry": entry_at(r), "label": f"{r.method}, IPC {r.ipc}"}
            for r in board.records
            for known in list(self._sets_of(r).values())[:1]
            if known.picture
        ]
        self._page(
            f"boards/{slug}",
            "site/track.html.j2",
            title=t.title,
            facts=facts,
            warnings=board.warnings,
            rows=track_rows(board, {p.record.key: p for p in found}, self.verdicts),
            plot=cost_plot(board, found),
            legend=legend_of(board, PLAIN),
            knobs=[*changed_knobs(board), *board.variants],
            pictures=shown[:MOST_PICTURES],
            downloads=[
                (kind, f"data/{slug}.{suffix}")
                for kind, suffix in (("CSV", "csv"), ("JSON", "json"), ("BibTeX", "bib"), ("LaTeX", "tex"))
            ],
        )
        self._data(slug, [(board, record) for record in board.records])
        (self.folder / "data" / f"{slug}.tex").write_text(latex(board))

    def _data(self, name: str, of: Sequence[tuple[Board, Record]]) -> None:
        folder = self.folder / "data"
        folder.mkdir(exist_ok=True)
        (folder / f"{name}.csv").write_text(csv_text(of))
        (folder / f"{name}.json").write_text("[\n" + ",\n".join(record.text() for _, record in of) + "]\n")
        (folder / f"{name}.bib").write_text(bibtex(cited((record for _, record in of), self.cards)))

    def _page(self, name: str, template: str, **values: Any) -> None:
        path = self.folder / f"{name}.html"
        path.parent.mkdir(exist_ok=True)

        def here(page: str) -> str:
            return Markup(' aria-current="page"') if page == name else ""

        up = "../" * name.count("/")
        text = self.jinja.get_template(template).render(
            values, up=up, pages=PAGES, about=self.about, here=here
        )
        path.write_text(text)


def _published(published: Sequence[PublishedSet]) -> dict[str, Any]:
    columns = [
        column("dataset", "Dataset", "text", filter=True),
        column("network", "Network", "text", filter=True),
    ]
    columns += [
        column("method", "Method", "text", filter=True),
        column("ipc", "IPC", filter=True),
        column("number", "Published, %"),
    ]
    columns += [
        column("protocol", "Protocol", "text", wide=True),
        column("source", "Source", "text", wide=True),
    ]
    rows = []
    for s in published:
        for c in s.cells:
            value = {"text": printed(c) + "†" * (not c.verified), "sort": c.mean}
            rows.append(
                {"cells": [s.dataset, s.model, c.method, c.ipc or "all", value, c.protocol, c.source]}
            )
    return {"columns": columns, "rows": rows}


def _script(value: Any) -> Markup:
    """Returns JSON that may stand inside a script element: nothing in it ends one."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return Markup(text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029"))
