"""BibTeX of what a board rests on: the papers of its methods and data, and the suite."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from dd_bench import __version__
from dd_bench.record import Record

_SUITE = f"""@software{{dd_bench,
  title = {{{{dd\\_bench}}: the benchmark suite for dataset distillation}},
  version = {{{__version__}}}
}}
"""


def cited(records: Iterable[Record], of_sets: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Returns the citations of records by a key for BibTeX: `method` or `dataset`, with a letter where there are two.

    Args:
        records: whose.
        of_sets: the citations in the cards of sets, by digest of the set; of one method all sets cite the same.
    """
    by_method: dict[str, Sequence[str]] = {}
    found: dict[str, str] = {}
    records = list(records)
    for record in records:
        for digest in record.set_digests:
            if digest in of_sets:
                by_method.setdefault(record.method, of_sets[digest])
    for record in records:
        own = record.config.get("method", {}).get("citation")
        texts = [own] if own else list(by_method.get(record.method, [])[:1])
        data = [text for text in by_method.get(record.method, [])[1:]]
        for name, text in [(record.method, t) for t in texts] + [(record.dataset, t) for t in data]:
            if text not in found.values():
                found[_free(name, found)] = text
    return dict(sorted(found.items()))


def bibtex(citations: Mapping[str, str]) -> str:
    """Returns BibTeX of citations by key, the suite first. A text stays whole: it is the note of a `@misc`."""
    return "\n".join([_SUITE, *(_entry(key, text) for key, text in citations.items())])


def _entry(key: str, text: str) -> str:
    year = re.findall(r"\b(?:19|20)[0-9]{2}\b", text)
    safe = re.sub(r"([&%$#_])", r"\\\1", text)
    when = f",\n  year = {{{year[-1]}}}" if year else ""
    return f"@misc{{{key},\n  note = {{{safe}}}{when}\n}}\n"


def _free(name: str, taken: Mapping[str, str]) -> str:
    key = re.sub(r"[^A-Za-z0-9_-]", "", name) or "it"
    letters = iter("bcdefghijklmnopqrstuvwxyz")
    tried = key
    while tried in taken:
        tried = f"{key}-{next(letters)}"
    return tried
