"""Findings of the suite: sentences whose numbers are read from entries, and that are shown only while they hold.

The file `published/findings.yaml` lists a sentence, its numbers, and a check (`claims`). A finding whose check is not
`reproduced`, whose entries are missing, or whose numbers are of other entries than its check, is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

from dd_bench.records.record import Record

from .claims import Check, verdict
from .quantities import Sources
from .selectors import NotMeasuredError
from .yaml_file import read_yaml

FINDINGS = Path(__file__).resolve().parents[1] / "published" / "findings.yaml"


class Finding(BaseModel):
    """One item of the file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    text: str  # with one {} for each of `values`
    values: list[str]
    check: Check


class Evidence(NamedTuple):
    """A sentence, the difference that supports it, and the entries that were compared."""

    text: str
    difference: str
    records: tuple[Record, ...]


def load_findings(path: Path = FINDINGS) -> list[Finding]:
    """Read the file of findings.

    Raises:
        ValueError: the file is not valid.
    """
    return read_yaml(path, list[Finding], "findings")


def evidence(findings: Sequence[Finding], entries: Sequence[Record]) -> Iterator[Evidence]:
    """Yield the findings that the entries support, in the order of the file."""
    sources = Sources(entries, [], Path())
    for finding in findings:
        try:
            quantity = sources.read(finding.check.read)
            numbers = [sources.read(line) for line in finding.values]
        except NotMeasuredError:
            continue
        compared = {record.key for record in quantity.records}
        if any(record.key not in compared for number in numbers for record in number.records):
            continue  # the sentence would have numbers of other entries than the check
        if verdict(finding.check, quantity, sources) == "reproduced":
            text = finding.text.format(*(number.text for number in numbers))
            yield Evidence(text, f"{finding.check.label}: {quantity.text}", quantity.records)
