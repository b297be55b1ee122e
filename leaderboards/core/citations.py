"""BibTeX for a board: the papers of its methods and data, and the suite itself."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Mapping
from itertools import count
from typing import Any, NamedTuple

from dd_bench import __version__
from dd_bench.records.record import Record
from dd_bench.runtime.terminal import sanitize

_SUITE = f"""@software{{dd_bench,
  title = {{{{dd\\_bench}}: the benchmark suite for dataset distillation}},
  version = {{{__version__}}}
}}
"""


class Cards(NamedTuple):
    """Citations from the cards of the committed sets, by method and by dataset."""

    methods: dict[str, list[str]]
    data: dict[str, list[str]]

    @classmethod
    def of(cls, cards: Iterable[Mapping[str, Any]]) -> Cards:
        """Collect the citations of cards. The first card of each method and of each dataset is used."""
        found = cls({}, {})
        for card in cards:
            citations = card.get("citations")
            texts = [t for t in citations if isinstance(t, str)] if isinstance(citations, list) else []
            if texts:
                found.methods.setdefault(str(card.get("method")), texts[:-1])
                found.data.setdefault(str(card.get("dataset")), texts[-1:])
        return found


def cited(records: Iterable[Record], cards: Cards) -> dict[str, str]:
    """Return the citations of records by BibTeX key.

    A BibTeX key is the name of the method or dataset. A number follows if the method or dataset has several citations.
    """
    key_of: dict[str, str] = {}  # citation -> its key
    taken: set[str] = set()
    for record in records:
        own = record.config.get("method", {}).get("citation")
        for name, texts in (
            (record.method, [own] if isinstance(own, str) else cards.methods.get(record.method, [])),
            (record.dataset, cards.data.get(record.dataset, [])),
        ):
            for text in texts:
                if text not in key_of:
                    key_of[text] = _unused_key(name, taken)
                    taken.add(key_of[text])
    return dict(sorted((key, text) for text, key in key_of.items()))


def bibtex(citations: Mapping[str, str]) -> str:
    """Return BibTeX entries of the suite and the citations. The text of a citation is the note of a `@misc` entry."""
    return "\n".join([_SUITE, *(_entry(key, text) for key, text in citations.items())])


def _entry(key: str, text: str) -> str:
    year = re.findall(
        r"(?<![.:/0-9])(?:19|20)[0-9]{2}(?![.:/0-9])", text
    )  # digits of an arXiv number do not match
    safe = re.sub(r"([&%$#_{}])", r"\\\1", sanitize(text).replace("\\", ""))
    when = f",\n  year = {{{year[-1]}}}" if year else ""
    return f"@misc{{{key},\n  note = {{{safe}}}{when}\n}}\n"


def _unused_key(name: str, taken: Container[str]) -> str:
    key = re.sub(r"[^A-Za-z0-9_-]", "", name) or "it"
    return key if key not in taken else next(f"{key}-{i}" for i in count(2) if f"{key}-{i}" not in taken)
