"""What training anew said of entries: one file an entry in `leaderboards/verified`, beside and not in the entries."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import fmean
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError
from scipy.special import stdtrit

from dd_bench.record import Code, Record, canonical, write_atomic

LEVEL = 0.99
"""Confidence of the interval that a mean of networks trained anew is to lie in."""


class Verdict(BaseModel):
    """One file of `leaderboards/verified`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    entry: str  # sha256 of the record
    networks: list[int]  # which were trained anew
    before: list[float]
    again: list[float]
    low: float  # ends of the interval for their mean
    high: float
    same: bool  # to the last digit
    verdict: Literal["verified", "out of tolerance"]
    code: Code
    device: str
    created: str

    def told(self) -> str:
        """Returns it in a line."""
        how = (
            "to the last digit" if self.same else f"mean {fmean(self.again):.4f} of {fmean(self.before):.4f}"
        )
        n = len(self.networks)
        return f"{self.verdict}: {n} network{'s' * (n > 1)} trained anew, {how} ({self.created[:10]}, {self.device})"


def tolerance(values: list[float], count: int) -> tuple[float, float]:
    """Returns the 99 % prediction interval for the mean of `count` more networks of the entry's population.

    Student's t of the entry's values with their standard error and that of the new mean. Another machine trains other
    networks from the same seeds, as sums are rounded otherwise: it draws from the same population, and no more can be
    asked of it.

    Raises:
        ValueError: fewer than two values have no spread.
    """
    n = len(values)
    if n < 2:
        raise ValueError("an entry of one network has no spread to tell a tolerance from")
    mean = fmean(values)
    spread = (sum((v - mean) ** 2 for v in values) / (n - 1)) ** 0.5
    half = float(stdtrit(n - 1, (1 + LEVEL) / 2)) * spread * (1 / n + 1 / count) ** 0.5
    return mean - half, mean + half


def judge(record: Record, again: dict[int, float], code: Code, device: str, created: str) -> Verdict:
    """Compares networks trained anew, by number, with the entry's own of the same numbers.

    Raises:
        ValueError: the entry has no such networks, or no spread and other values.
    """
    values = {s.network: s.value for s in record.scores if s.metric == record.main_metric and s.set == 0}
    if missing := again.keys() - values.keys():
        raise ValueError(f"entry {record.digest[:16]} has no network {min(missing)}")
    numbers = sorted(again)
    before, new = [values[n] for n in numbers], [again[n] for n in numbers]
    same = before == new
    low, high = (min(new), max(new)) if same else tolerance(list(values.values()), len(new))
    good = same or low <= fmean(new) <= high
    return Verdict(
        entry=record.digest,
        networks=numbers,
        before=before,
        again=new,
        low=low,
        high=high,
        same=same,
        verdict="verified" if good else "out of tolerance",
        code=code,
        device=device,
        created=created,
    )


def save_verdict(verdict: Verdict, folder: Path) -> Path:
    """Writes it as `<first digits of the entry's digest>.json`; a later one replaces it."""
    path = folder / f"{verdict.entry[:16]}.json"
    write_atomic(path, (canonical(verdict.model_dump(mode="json"), indent=2) + "\n").encode())
    return path


def verdicts(folder: Path) -> dict[str, str]:
    """Returns what was said of each entry, by its whole digest.

    Raises:
        ValueError: a file is not of this schema.
    """
    found = {}
    for path in sorted(folder.glob("*.json")):
        try:
            verdict = Verdict.model_validate(json.loads(path.read_text()))
        except (OSError, ValueError, ValidationError) as error:
            raise ValueError(f"{path} is no verdict: {error}") from error
        found[verdict.entry] = verdict.told()
    return found
