"""The pages of the site, from the entries: those of all boards, and of each board with its entries."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from dd_bench.records.record import Record

from ..core.boards import Board, boards
from ..core.citations import Cards, bibtex, cited
from ..core.published import PublishedSet
from ..core.verified import verdicts
from ..render.cost import Point, points
from ..render.formatting import csv_text
from ..render.markup import PLAIN
from ..render.tables import latex, legend_of
from .entry_page import entry_page
from .fork_pool import Piece, in_forks
from .plots import continual_parts, cost_plot, cross_arch_parts
from .rows import board_rows, entry_at, every_row, listed, published_rows, track_rows
from .sets import KnownSet, in_python, in_shell, listing, offer, set_rows

TEMPLATES = Path(__file__).parent / "templates"
PAGES = (
    ("sets", "Sets"),
    ("cross_arch", "Other networks"),
    ("continual", "Continual learning"),
    ("published", "Published"),
)
MANY = 500
"""Entries from which on more processes write more than they cost."""
MOST_PICTURES = 60
"""Pictures on the page of a board; the others are on the pages of their entries."""


class Pages:
    """The pages of one build."""

    def __init__(
        self,
        folder: Path,
        entries: Sequence[Record],
        published: Sequence[PublishedSet],
        verified: Path,
    ):
        self.folder, self.entries, self.published = folder, entries, published
        self.made = boards(entries, published)
        self.sets: dict[str, KnownSet] = {}
        self.verdicts = verdicts(verified)
        self.costs: Mapping[Any, Sequence[Point]] = points(entries)
        newest = max((r.created[:10] for r in entries), default="never")
        self.about = f"{len(entries)} entries, the newest of {newest}."
        self.jinja = Environment(
            loader=FileSystemLoader(TEMPLATES), undefined=StrictUndefined, trim_blocks=True, autoescape=True
        )
        self.jinja.filters |= {"script": _script, "listed": listed}

    def offer(self, sets_dir: Path, elsewhere: str | None) -> None:
        """Takes in the sets beside the entries: see `offer` of `site_sets`."""
        self.sets = offer(sets_dir, self.folder, elsewhere)

    def write(self) -> None:
        """Writes every page and file.

        Raises:
            ValueError: two boards would be one file.
        """
        slugs = Counter(board.track.slug for board in self.made)
        if twice := [slug for slug, count in slugs.items() if count > 1]:
            raise ValueError(
                f"two boards would be written to {twice[0]}.html: their names differ in punctuation alone"
            )
        for name in ("boards", "data", "entries"):
            (self.folder / name).mkdir()
        pieces: list[Piece] = [self._of_all_boards]
        pieces += [partial(self._board_and_entries, board) for board in self.made]
        in_forks(pieces, forked=len(self.entries) > MANY)
        self._every_record()

    def _of_all_boards(self) -> None:
        self._page(
            "index",
            "index.html.j2",
            title="Boards",
            boards_table=board_rows(self.made),
            entries=len(self.entries),
            boards=len(self.made),
        )
        lead = "Every entry, whatever its board: to find one, not to compare."
        self._page("entries", "list.html.j2", title="Every entry", lead=lead, rows=every_row(self.made))
        self._page(
            "published",
            "list.html.j2",
            title="Published",
            rows=published_rows(self.published),
            lead=(
                "Numbers of papers, in percent, each under a protocol of its own. "
                "Those marked † are from memory, not re-read."
            ),
        )
        sets = list(self.sets.values())
        ways = [f"{listing(sets)}\n{in_shell(sets[0])}", in_python(sets[0])] if sets else []
        local = bool(sets and sets[0].files)
        rows = set_rows(sets, self.entries)
        self._page("sets", "sets.html.j2", title="Sets", rows=rows, ways=ways, local=local)
        parts = cross_arch_parts(self.entries)
        lead = (
            "What a set is worth to other networks than its own, from the same seeds; in brackets the difference ± "
            "half of its 95 % interval."
        )
        self._page(
            "cross_arch",
            "tables.html.j2",
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
            "tables.html.j2",
            title="Continual learning",
            lead=lead,
            parts=parts,
            plots=bool(parts),
            how="dd-bench evaluate set=FOLDER evaluator=continual ...",
        )

    def _board_and_entries(self, board: Board) -> None:
        self._board(board)
        template = self.jinja.get_template("entry.html.j2")
        for record in board.records:
            page = entry_page(
                record, board, self._sets_of(record), self.cards, self.verdicts.get(record.digest)
            )
            text = template.render(page, up="../", pages=PAGES, about=self.about, here=lambda _: "")
            (self.folder / entry_at(record)).write_text(text)
            (self.folder / entry_at(record)).with_suffix(".json").write_text(record.text())

    @cached_property
    def cards(self) -> Cards:
        """Citations in the cards of the known sets, by method and dataset.

        Several methods may be measured on one set, whose card names one of them (`infer`, `infer_dyn`).
        """
        cards = [known.card.model_dump() for known in self.sets.values()]
        named = {card["method"] for card in cards}
        others = {
            r.method: digest
            for r in self.entries
            if r.method not in named
            for digest in r.set_digests
            if digest in self.sets
        }
        cards += [self.sets[digest].card.model_dump() | {"method": name} for name, digest in others.items()]
        return Cards.of(cards)

    def _sets_of(self, record: Record) -> dict[str, KnownSet]:
        return {d: self.sets[d] for d in record.set_digests if d in self.sets}

    def _board(self, board: Board) -> None:
        t, slug = board.track, board.track.slug
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
            "track.html.j2",
            title=t.title,
            facts=facts,
            warnings=board.warnings,
            rows=track_rows(board, {p.record.key: p for p in found}, self.verdicts),
            plot=cost_plot(board, found),
            legend=legend_of(board, PLAIN),
            knobs=[*board.changed_knobs, *board.variants],
            pictures=shown[:MOST_PICTURES],
            downloads=[
                (kind, f"data/{slug}.{suffix}")
                for kind, suffix in (("CSV", "csv"), ("JSON", "json"), ("BibTeX", "bib"), ("LaTeX", "tex"))
            ],
        )
        data = self.folder / "data"
        (data / f"{slug}.csv").write_text(csv_text((board, record) for record in board.records))
        (data / f"{slug}.json").write_text(_list(record.text() for record in board.records))
        (data / f"{slug}.bib").write_text(bibtex(cited(board.records, self.cards)))
        (data / f"{slug}.tex").write_text(latex(board))

    def _every_record(self) -> None:
        """Writes the data of all boards: their lines one after the other, and each citation once."""
        data, records = self.folder / "data", [r for board in self.made for r in board.records]
        with (data / "records.csv").open("w", newline="") as file:
            file.write("" if self.made else csv_text([]))
            for i, board in enumerate(self.made):
                with (data / f"{board.track.slug}.csv").open(newline="") as lines:
                    file.writelines(islice(lines, min(i, 1), None))  # one header
        (data / "records.json").write_text(_list(record.text() for record in records))
        (data / "records.bib").write_text(bibtex(cited(records, self.cards)))

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


def _list(texts: Iterable[str]) -> str:
    return "[\n" + ",\n".join(texts) + "]\n"


def _script(value: Any) -> Markup:
    """Returns JSON that may stand inside a script element: nothing in it ends one."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return Markup(text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029"))
