"""BibTeX entries of citations that are plain text, and of the suite."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Mapping, Sequence
from itertools import count

from dd_bench import __version__
from dd_bench.runtime.terminal import sanitize

_SUITE = f"""@software{{dd_bench,
  title = {{{{dd\\_bench}}: the benchmark suite for dataset distillation}},
  version = {{{__version__}}}
}}
"""


def keyed(citations: Iterable[tuple[str, Sequence[str]]]) -> dict[str, str]:
    """Return citations by BibTeX key, sorted by key.

    A key is the name of the method or dataset. A number follows if the method or dataset has several citations.

    Args:
        citations: names of methods and datasets, and their citations.
    """
    key_of: dict[str, str] = {}  # citation -> its key
    taken: set[str] = set()
    for name, texts in citations:
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
