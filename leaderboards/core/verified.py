"""Results of retraining the networks of entries, one file per entry in `leaderboards/verified`."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError
from scipy.special import stdtrit

from dd_bench.records.intervals import std
from dd_bench.records.record import Code, Record
from dd_bench.runtime import untrusted
from dd_bench.runtime.files import canonical, write_atomic

CONFIDENCE = 0.99
"""Confidence level of the prediction interval for the mean of the retrained networks."""
MIN_NETWORKS = 5
"""If values differ, a verdict requires at least this many networks in the entry and as many retrained networks."""
VerdictName = Literal["verified", "verified in part", "too few networks to tell", "out of tolerance"]


class Verdict(BaseModel):
    """One file of `leaderboards/verified`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    entry: str  # sha256 of the record
    of: int  # number of networks of the entry
    networks: list[int]  # indices of the retrained networks
    before: list[float]  # their values in the entry
    again: list[float]  # their values after retraining
    low: float  # ends of the interval for the mean of `again`
    high: float
    same: bool  # whether `before` and `again` are exactly equal
    verdict: VerdictName
    code: Code
    device: str
    created: str

    def summary(self) -> str:
        """Return the verdict as one line of text."""
        n = len(self.networks)
        how = f"values identical (mean {fmean(self.before):.4f})"
        if not self.same:
            how = f"mean {fmean(self.again):.4f}, expected {self.low:.4f} to {self.high:.4f}"
        return (
            f"{self.verdict}: {n} of {self.of} networks retrained, {how} ({self.created[:10]}, {self.device})"
        )

    def mark(self, record: Record) -> str:
        """Return the verdict on `record` for a board, e.g. `verified, other machine`."""
        other = machine(self.device) != machine(record.device)
        return self.verdict + ", other machine" * other


def machine(device: str) -> str:
    """Return the processor and the number of cores in the `device` of a record or verdict, without the precision."""
    return device.rpartition(" (")[0] or device


def tolerance(values: list[float], count: int, spread: float | None = None) -> tuple[float, float]:
    """Return the 99 % prediction interval for the mean of `count` new networks, given the `values` of the entry.

    The interval uses Student's t, with the standard errors of the entry's mean and of the new mean. Both use the
    smaller of `spread` and the standard deviation of `values`. Another machine rounds sums differently and trains
    different networks from the same seeds, so means are compared instead of single networks.

    Raises:
        ValueError: there are fewer than two values.
    """
    n = len(values)
    if n < 2:
        raise ValueError(f"a tolerance requires an entry with at least 2 networks, got {n}")
    own = std(values) if spread is None else min(std(values), spread)
    half = float(stdtrit(n - 1, (1 + CONFIDENCE) / 2)) * own * (1 / n + 1 / count) ** 0.5
    return fmean(values) - half, fmean(values) + half


def compare_retrained(
    record: Record, again: dict[int, float], code: Code, device: str, created: str
) -> Verdict:
    """Compare retrained networks with the networks of an entry that have the same indices.

    - *verified*: all networks were retrained, and their values are identical or their mean is within the tolerance. The
      tolerance uses twice the standard deviation of the new values if this is smaller than the standard deviation of
      the entry. A forged spread of the entry therefore cannot widen the tolerance.
    - *verified in part*: as above, but only some networks were retrained; the others were not checked.
    - *too few networks to tell*: the values differ, their mean is within the tolerance, but the entry has fewer than
      `MIN_NETWORKS` networks or fewer were retrained. With three networks the tolerance is wider than the usual
      differences between methods.
    - *out of tolerance*: the mean is outside the tolerance.

    Raises:
        ValueError: the entry does not have these networks, or it has only one network and the new value differs.
    """
    values = {s.network: s.value for s in record.scores if s.metric == record.all_runs_metric and s.set == 0}
    if missing := again.keys() - values.keys():
        raise ValueError(f"entry {record.digest[:16]} has no network {min(missing)}, only {sorted(values)}")
    numbers = sorted(again)
    before, new = [values[n] for n in numbers], [again[n] for n in numbers]
    same = before == new
    if same:
        low, high = min(new), max(new)
    else:
        spread = 2 * std(new) if len(new) >= MIN_NETWORKS else None
        low, high = tolerance(list(values.values()), len(new), spread)
    verdict: VerdictName = "verified" if len(numbers) == len(values) else "verified in part"
    if not same and not low <= fmean(new) <= high:
        verdict = "out of tolerance"
    elif not same and min(len(values), len(new)) < MIN_NETWORKS:
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
    """Write a verdict to `<first 16 hex digits of the entry's digest>.json`.

    Raises:
        FileExistsError: `replace` is false, and the existing verdict covers more networks or is `out of tolerance`.
        ValueError: the existing file is not a verdict.
    """
    path = folder / f"{verdict.entry[:16]}.json"
    old = _read(path) if path.exists() and not replace else None
    if old and (len(old.networks) > len(verdict.networks) or old.verdict == "out of tolerance"):
        raise FileExistsError(
            f"{path} was not replaced. It contains the verdict {old.summary()}. To replace it, add --replace"
        )
    write_atomic(path, (canonical(verdict.model_dump(mode="json"), indent=2) + "\n").encode())
    return path


def verdicts(folder: Path) -> dict[str, Verdict]:
    """Return the verdicts in a folder by the digest of their entry.

    Raises:
        ValueError: a file is not a verdict.
    """
    found = [_read(path) for path in sorted(folder.glob("*.json"))]
    return {verdict.entry: verdict for verdict in found}


def _read(path: Path) -> Verdict:
    try:
        return Verdict.model_validate(untrusted.parse_json(untrusted.read_bytes(path)), strict=True)
    except ValidationError as error:
        raise ValueError(f"{path} is not a valid verdict: {untrusted.problems(error)}") from error
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is not a valid verdict: {error}") from error
