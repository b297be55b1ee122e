"""Write the pages of the site: overview pages, one page per board and one page per entry."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cache, cached_property, partial
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from dd_bench.records.bibtex import bibtex
from dd_bench.records.record import Record
from dd_bench.runtime.terminal import sanitize

from ..core.boards import Board, boards, on_boards
from ..core.citations import Cards, cited
from ..core.entries import has_stored_precision
from ..core.findings import evidence, load_findings
from ..core.method_info import FAMILIES, links_of
from ..core.published import PublishedSet
from ..core.verified import verdicts
from ..render.cost import Point, points
from ..render.formatting import csv_text
from ..render.legend import QUOTED, legend_of
from ..render.markup import PLAIN
from ..render.tables import latex
from .addresses import dataset_url, entry_url, method_url, published_url
from .board_table import track_rows
from .cells import heading, html_list
from .dataset_page import dataset_page
from .entry_page import entry_page
from .fork_pool import Task, run_forked
from .matrix import marks_used
from .method_page import MAX_PICTURES, method_names, method_page, method_rows
from .overview import DatasetView, dataset_views, findings
from .overview_tables import board_rows, entry_rows
from .plots import continual_parts, cost_plot, cross_arch_parts
from .published_page import by_dataset, published_index, published_notes, published_rows
from .ranks_page import LEAD, NONE, rank_parts
from .sets import KnownSet, copy_sets, list_command, pull_command, python_code
from .sets_page import set_list, set_rows
from .table_data import packed

TEMPLATES = Path(__file__).parent / "templates"
PAGES = (
    ("ranks", "Mean ranks"),
    ("boards", "Boards"),
    ("methods", "Methods"),
    ("sets", "Sets"),
    ("cross_arch", "Cross-architecture"),
    ("continual", "Continual learning"),
    ("published", "Published"),
)
_HOW = Markup("No entries yet. Create one: <code>dd-bench evaluate set=FOLDER evaluator={} ...</code>")
BREAKS = re.compile(r"(?<=[_+/|=,])(?=\S)|(?<=[A-Za-z]\.)(?=[A-Za-z])|(?<=.)(?=\()")
"""Where a long name may be broken: after `_`, `=`, `,`, the dot of a setting and the like, and before a parenthesis."""
FORK_THRESHOLD = 500
"""Number of entries above which several processes are faster than one."""


class Pages:
    """The pages of one build."""

    def __init__(
        self,
        folder: Path,
        entries: Sequence[Record],
        published: Sequence[PublishedSet],
        verified: Path,
        docs: str | None = None,
    ):
        # sets with another precision are on no board, and so their entries have no page
        self.with_precision = [r for r in entries if has_stored_precision(r)]
        entries = on_boards(entries)
        self.folder, self.entries, self.published = folder, entries, published
        self.boards = boards(entries, published)
        # dozens of kinds of labels would hide the other boards; their boards are linked from their entries only
        self.listed = [board for board in self.boards if not board.track.compares_labels]
        self.sets: dict[str, KnownSet] = {}
        self.verdicts = verdicts(verified)
        self.costs: Mapping[Any, Sequence[Point]] = points(self.entries)
        newest = max((r.created[:10] for r in entries), default="never")
        self.about = f"{len(entries)} entries, the latest from {newest}."
        self.docs = docs
        self.jinja = _environment()

    def copy_sets(self, sets_dir: Path, sets_at: str | None) -> None:
        """Copy the sets to the site; see `copy_sets` in `sets.py`."""
        self.sets = copy_sets(sets_dir, self.folder, sets_at)

    def write(self) -> None:
        """Write all pages and files.

        Raises:
            ValueError: two boards have the same file name.
        """
        slugs = Counter(board.track.slug for board in self.boards)
        if repeated := [slug for slug, count in slugs.items() if count > 1]:
            raise ValueError(
                f"two boards would have the file {repeated[0]}.html: their names differ only in punctuation"
            )
        for name in ("boards", "data", "datasets", "entries", "methods", "published"):
            (self.folder / name).mkdir()
        tasks: list[Task] = [self._front_page, self._overviews, self._methods, self._datasets]
        tasks += [partial(self._board_and_entries, board) for board in self.boards]
        run_forked(tasks, forked=len(self.entries) > FORK_THRESHOLD)
        self._all_data()

    def _front_page(self) -> None:
        views = dataset_views(self.listed, self.cards, front=True)
        for view in views:
            self._views(view, "")
        found = evidence(load_findings(), self.entries)
        shown = {links_of(name).family for name in method_names(self.boards)}
        self._page(
            "index",
            "index.html.j2",
            title="Leaderboard",
            datasets=views,
            findings=findings(list(found), self.boards),
            families=[family for family in FAMILIES if family != "other" and family in shown],
            marks=marks_used([one.matrix for view in views for one in view.boards]),
            entries=len(self.entries),
            boards=len(self.boards),
        )

    def _views(self, view: DatasetView, up: str) -> None:
        """Write the boards of a dataset after the first to the file that its page loads when one of them is chosen."""
        if len(view.boards) > 1:
            template = self.jinja.get_template("views.js.j2")
            text = template.render(name=view.more, boards=view.boards[1:], up=up)
            (self.folder / view.more).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / view.more).write_text(text)

    def _published(self) -> None:
        lead = f"Numbers from papers in percent, each measured under its own protocol. †: {QUOTED}"
        rows = published_index(self.published)
        self._page("published", "list.html.j2", title="Published numbers", lead=lead, rows=rows)
        names = frozenset(method_names(self.boards))
        for dataset, found in by_dataset(self.published):
            name = published_url(dataset).removesuffix(".html")
            title, notes = f"Published numbers: {dataset}", published_notes(found)
            rows = published_rows(found, notes, names)
            self._page(name, "list.html.j2", title=title, lead=lead, rows=rows, notes=notes)

    def _methods(self) -> None:
        lead = "Every method with its family, paper, results and sets."
        rows = method_rows(self.boards)
        self._page("methods", "list.html.j2", title="Methods", lead=lead, rows=rows)
        names = method_names(self.boards)
        for name in names:
            page = method_page(name, names, self.listed, self.sets, self.cards)
            self._page(method_url(name).removesuffix(".html"), "method.html.j2", **page)

    def _datasets(self) -> None:
        views = {view.name: view for view in dataset_views(self.listed, self.cards, front=False)}
        for view in views.values():
            self._views(view, "../")
        for name in sorted({board.track.dataset for board in self.boards}):
            page = dataset_page(name, views.get(name), self.listed, self.sets, self.cards)
            self._page(dataset_url(name).removesuffix(".html"), "dataset.html.j2", **page)

    def _overviews(self) -> None:
        self._page("boards", "boards.html.j2", title="Boards", boards_table=board_rows(self.listed))
        lead = "Search the entries of all boards. Compare entries only within a board."
        self._page("entries", "list.html.j2", title="All entries", lead=lead, rows=entry_rows(self.boards))
        self._published()
        sets = list(self.sets.values())
        commands = [f"{list_command(sets)}\n{pull_command(sets[0])}", python_code(sets[0])] if sets else []
        local = bool(sets and sets[0].files)
        rows = set_rows(sets, [*self.entries, *self.with_precision])
        self._page(
            "sets",
            "sets.html.j2",
            title="Sets",
            rows=rows,
            commands=commands,
            local=local,
            listed=set_list(sets),
        )
        self._page(
            "ranks",
            "tables.html.j2",
            title="Mean ranks over datasets",
            lead=LEAD,
            parts=rank_parts(self.boards),
            plots=False,
            nothing=NONE,
        )
        lead = (
            "Accuracy of sets on other networks than the run's own, with the same seeds. ± is a standard "
            "deviation. Below it: difference from the run's own network with its 95 % interval."
        )
        self._page(
            "cross_arch",
            "tables.html.j2",
            title="Cross-architecture evaluation",
            lead=lead,
            parts=cross_arch_parts(self.entries),
            nothing=_HOW.format("cross_arch"),
        )
        lead = (
            "Class-incremental learning: networks are trained on a synthetic set whose classes arrive in parts. Values "
            "are accuracies on the classes seen so far, with 95 % intervals."
        )
        self._page(
            "continual",
            "tables.html.j2",
            title="Continual learning",
            lead=lead,
            parts=continual_parts(self.entries),
            nothing=_HOW.format("continual"),
        )

    def _board_and_entries(self, board: Board) -> None:
        self._board(board)
        template = self.jinja.get_template("entry.html.j2")
        for record in board.records:
            page = entry_page(
                record, board, self._sets_of(record), self.cards, self.verdicts.get(record.digest)
            )
            text = template.render(page, up="../", here=lambda _: "", **self._common)
            (self.folder / entry_url(record)).write_text(text)
            (self.folder / entry_url(record)).with_suffix(".json").write_text(record.text())

    @cached_property
    def cards(self) -> Cards:
        """Citations in the cards of the known sets, by method and dataset.

        Several methods may be evaluated on the same set (`infer`, `infer_dyn`), but its card names only one of them.
        """
        cards = [known.card.model_dump() for known in self.sets.values()]
        methods = {card["method"] for card in cards}
        others = {
            r.method: digest
            for r in self.entries
            if r.method not in methods
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
            ("Labels", f"{t.label_mode} ({t.teachers})" if t.teachers else t.label_mode),
            ("Evaluator", t.evaluator),
            ("Network", t.model),
        ]
        shown = [
            {"image": known.picture, "entry": entry_url(r), "label": f"{r.method}, IPC {r.ipc}"}
            | {"samples": known.samples}
            for r in board.records
            for known in list(self._sets_of(r).values())[:1]
            if known.picture
        ]
        self._page(
            f"boards/{slug}",
            "track.html.j2",
            title=heading(t),
            facts=facts,
            warnings=board.warnings,
            rows=track_rows(board, {p.record.key: p for p in found}, self.verdicts),
            plot=cost_plot(board, found),
            legend=legend_of(board, PLAIN),
            changed=[*board.changed_hyperparameters, *board.variants],
            pictures=shown[:MAX_PICTURES],
            pictures_title=f"Synthetic {shown[0]['samples']}" if shown else "",
            sets_link=f"../sets.html#{urlencode({'dataset': t.dataset})}",
            dataset_page=dataset_url(t.dataset),
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

    def _all_data(self) -> None:
        """Write the data of all boards to `records.csv`, `records.json` and `records.bib`."""
        data, records = self.folder / "data", [r for board in self.boards for r in board.records]
        with (data / "records.csv").open("w", newline="") as file:
            file.write("" if self.boards else csv_text([]))
            for i, board in enumerate(self.boards):
                with (data / f"{board.track.slug}.csv").open(newline="") as lines:
                    file.writelines(islice(lines, min(i, 1), None))  # one header
        (data / "records.json").write_text(_list(record.text() for record in records))
        (data / "records.bib").write_text(bibtex(cited(records, self.cards)))

    @property
    def _common(self) -> dict[str, Any]:
        return {"pages": PAGES, "about": self.about, "docs": self.docs}

    def _page(self, name: str, template: str, **values: Any) -> None:
        path = self.folder / f"{name}.html"
        path.parent.mkdir(exist_ok=True)

        def here(page: str) -> str:
            return Markup(' aria-current="page"') if page == name else ""

        up = "../" * name.count("/")
        text = self.jinja.get_template(template).render(values, up=up, here=here, **self._common)
        path.write_text(text)


@cache
def _environment() -> Environment:
    """Return the templates, which are compiled once per process."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        trim_blocks=True,
        autoescape=True,
        finalize=_finalize,
    )
    environment.filters |= {"script": _script, "html_list": html_list, "breakable": _breakable}
    return environment


def _finalize(value: Any) -> Any:
    """Strip control characters, such as right-to-left overrides, from every value that a template writes."""
    if isinstance(value, str):  # `Markup` is a `str`, and must not be escaped again
        return Markup(sanitize(value)) if isinstance(value, Markup) else sanitize(value)
    return value


def _breakable(text: str) -> Markup:
    """Return a text that may be broken as in `breakable` of `site.js`, so that names are not broken inside a word."""
    return Markup(BREAKS.sub("<wbr>", str(escape(sanitize(text)))))


def _list(texts: Iterable[str]) -> str:
    return "[\n" + ",\n".join(texts) + "]\n"


def _script(value: Any) -> Markup:
    """Return JSON that is safe inside a script element. Repetitions in the rows of a table are stored once."""
    if isinstance(value, dict) and "rows" in value:
        value = packed(value)
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return Markup(text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029"))
