"""BibTeX for a board: the papers of its methods and data, and the suite itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from dd_bench.records.bibtex import keyed
from dd_bench.records.record import Record


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
    """Return the citations of records by BibTeX key, see `keyed`."""
    pairs = []
    for record in records:
        own = record.config.get("method", {}).get("citation")
        method = [own] if isinstance(own, str) else cards.methods.get(record.method, [])
        pairs += [(record.method, method), (record.dataset, cards.data.get(record.dataset, []))]
    return keyed(pairs)
