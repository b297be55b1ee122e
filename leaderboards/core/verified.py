"""What training anew said of entries: one file an entry in `leaderboards/verified`, beside and not in the entries."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import fmean
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError
from scipy.special import stdtrit

from dd_bench.records.intervals import std
from dd_bench.records.record import Code, Record
from dd_bench.runtime.files import canonical, write_atomic

LEVEL = 0.99
"""Confidence of the interval that a mean of networks trained anew is to lie in."""
LEAST = 5
"""Networks, of the entry and anew, below which other values than the entry's own say too little."""
Word = Literal["verified", "verified in part", "too few networks to tell", "out of tolerance"]


class Verdict(BaseModel):
    """One file of `leaderboards/verified`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    entry: str  # sha256 of the record
    of: int  # networks that the entry has
    networks: list[int]  # which were trained anew
    before: list[float]
    again: list[float]
    low: float  # ends of the interval for their mean
    high: float
    same: bool  # to the last digit
    verdict: Word
    code: Code
    device: str
    created: str

    def told(self) -> str:
        """Returns it in a line."""
        n = len(self.networks)
        how = f"the same to the last digit ({fmean(self.before):.4f})"
        if not self.same:
            how = f"mean {fmean(self.again):.4f}, where {self.low:.4f} to {self.high:.4f} was to be expected"
        return f"{self.verdict}: {n} of {self.of} networks trained anew, {how} ({self.created[:10]}, {self.device})"


def tolerance(values: list[float], count: int, spread: float | None = None) -> tuple[float, float]:
    """Returns the 99 % prediction interval for the mean of `count` more networks of the entry's population.

    Student's t of the entry's values with their standard error and that of the new mean; `spread` instead of their
    standard deviation, if it is smaller. Another machine trains other networks from the same seeds, as sums are rounded
    otherwise: it draws from the same population, and no more can be asked of it.

    Raises:
        ValueError: fewer than two values have no spread.
    """
    n = len(values)
    if n < 2:
        raise ValueError("an entry of one network has no spread to tell a tolerance from")
    own = std(values) if spread is None else min(std(values), spread)
    half = float(stdtrit(n - 1, (1 + LEVEL) / 2)) * own * (1 / n + 1 / count) ** 0.5
    return fmean(values) - half, fmean(values) + half


def judge(record: Record, again: dict[int, float], code: Code, device: str, created: str) -> Verdict:
    """Compares networks trained anew, by number, with the entry's own of the same numbers.

    - *verified*: all of them, the same to the last digit or with a mean in the tolerance. So that a forged spread does
      not widen it, the tolerance takes twice the spread of the new values, if that is less;
    - *verified in part*: some of them; the others may be anything;
    - *too few networks to tell*: other values, of fewer than `LEAST` networks, and not beyond the tolerance. What an
      entry of three networks allows is wider than what methods differ by.

    Raises:
        ValueError: the entry has no such networks, or one alone with another value.
    """
    values = {s.network: s.value for s in record.scores if s.metric == record.main_metric and s.set == 0}
    if missing := again.keys() - values.keys():
        raise ValueError(f"entry {record.digest[:16]} has no network {min(missing)}")
    numbers = sorted(again)
    before, new = [values[n] for n in numbers], [again[n] for n in numbers]
    same, whole = before == new, len(numbers) == len(values)
    if same:
        low, high = min(new), max(new)
    else:
        seen = 2 * std(new) if len(new) >= LEAST else None
        low, high = tolerance(list(values.values()), len(new), seen)
    verdict: Word = "verified" if whole else "verified in part"
    if not same and not low <= fmean(new) <= high:
        verdict = "out of tolerance"
    elif not same and min(len(values), len(new)) < LEAST:
        verdict = "too few networks to tell"
    return Verdict(
        entry=record.digest,
        of=len(values),
        networks=numbers,
        before=before,
        again=new,
        low=low,
        high=high,
        same=same,
        verdict=verdict,
        code=code,
        device=device,
        created=created,
    )


def save_verdict(verdict: Verdict, folder: Path, replace: bool = False) -> Path:
    """Writes it as `<first digits of the entry's digest>.json`.

    Raises:
        FileExistsError: there is one of more networks, or one out of tolerance, and it is not to be replaced.
        ValueError: what is there is no verdict.
    """
    path = folder / f"{verdict.entry[:16]}.json"
    old = _read(path) if path.exists() and not replace else None
    if old and (len(old.networks) > len(verdict.networks) or old.verdict == "out of tolerance"):
        raise FileExistsError(f"{path} stays, of {old.told()}. With --replace it would not")
    write_atomic(path, (canonical(verdict.model_dump(mode="json"), indent=2) + "\n").encode())
    return path


def verdicts(folder: Path) -> dict[str, str]:
    """Returns what was said of each entry, by its whole digest.

    Raises:
        ValueError: a file is not of this schema.
    """
    found = {}
    for path in sorted(folder.glob("*.json")):
        verdict = _read(path)
        found[verdict.entry] = verdict.told()
    return found


def _read(path: Path) -> Verdict:
    try:
        return Verdict.model_validate(json.loads(path.read_text()))
    except (OSError, ValueError, ValidationError) as error:
        raise ValueError(f"{path} is no verdict: {error}") from error
