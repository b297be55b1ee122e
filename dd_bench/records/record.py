"""The record: what a run leaves behind, and all that a leaderboard reads. One JSON file, named by its digest.

Nothing here imports torch, so that boards render without it. A number from a paper never enters a record.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping
from datetime import datetime
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, field_validator

from dd_bench.records.intervals import std, t_interval
from dd_bench.runtime.files import canonical, parse_json, write_atomic

SCHEMA_VERSION = 2
SHARES = ("accuracy", "auc", "balanced_accuracy", "robust_accuracy", "hidden", "lrs", "ars")
"""Main metrics that are shares in [0, 1]; so is what stands beside them."""


DIFFERENCES = ("forgetting", "hlr", "ior")
"""But for these, which are differences of shares, in [-1, 1]."""

Word = Annotated[str, StringConstraints(max_length=200)]
Described = Annotated[str, StringConstraints(max_length=2000)]  # a choice, with every key that differs
Count = Annotated[int, Field(ge=0, lt=2**63)]
Seconds = Annotated[float, Field(ge=0, lt=1e15, allow_inf_nan=False)]


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Score(_Frozen):
    """One fresh network's value of one metric."""

    metric: Word
    value: float = Field(gt=-1e15, lt=1e15, allow_inf_nan=False)
    set: int = Field(ge=0, description="which synthetic set, 0-based")
    network: int = Field(ge=0, description="which fresh network on that set, 0-based")
    seed: int = Field(ge=0, description="seed of that network")
    unit: int | None = Field(
        default=None, description="what networks share beside the set; None: nothing, each stands for itself"
    )


class ProtocolId(_Frozen):
    """Which protocol trained the fresh networks."""

    name: Described
    version: int = Field(ge=1)


class Code(_Frozen):
    """The code that ran."""

    version: str
    numbers: int
    revision: str | None
    dirty: bool | None


class TeacherId(_Frozen):
    """One teacher of a run; in a list, the order says which guides what."""

    name: Word
    digest: str | None = Field(
        default=None, description="sha256 of weights and class names; None: not loaded"
    )
    accuracy: float | None = Field(
        default=None, ge=0, le=1, description="on the test data, if it was measured"
    )


class Summary(_Frozen):
    """Mean and spread of one metric, with the two sources of variance kept apart.

    `std` is the sample standard deviation over all networks of all sets, `std_networks` the pooled one within a
    set, `std_sets` that of the set means (None with one set). The 95 % interval of the mean is Student's t over
    independent units: the set means if there are several sets, else the networks of the one set, or the means of
    those that share a unit (an order of the classes); None with n=1. That of a share ends at 0 and 1.
    """

    mean: float
    std: float | None
    std_networks: float | None
    std_sets: float | None
    ci_low: float | None
    ci_high: float | None
    num_sets: int
    num_networks: int = Field(description="fresh networks in all")


class Record(_Frozen):
    """One run, or the reason why there is none."""

    schema_version: int = SCHEMA_VERSION
    key: str = Field(description="content key: same key, same experiment")
    status: Literal["done", "skipped", "diverged"]
    reason: str | None = None
    created: str = Field(description="UTC, ISO 8601")

    method: Word
    dataset: Word
    model: Described = Field(description="network evaluated on, with the knobs that differ from its YAML")
    ipc: int = Field(ge=1, lt=2**31)
    protocol: ProtocolId
    evaluator: Described
    selection: Literal["last", "best_on_val", "best_on_test"]
    label_mode: Word
    main_metric: Word

    scores: list[Score] = []
    config: dict[str, Any]
    seeds: dict[str, int]
    seconds: dict[str, Seconds] = Field(default={}, description="wall-clock by stage")
    peak_memory: dict[str, Count] = Field(
        default={}, description="bytes by stage: resident (CPU) or allocated (CUDA)"
    )
    stored_bytes: dict[str, Count] = Field(default={}, description="one synthetic set, by part")
    teacher_forwards: Count = Field(
        default=0, description="images through teachers while one network is trained"
    )
    teachers: list[TeacherId] = Field(
        default=[], description="that guided the set or labelled it, in their order"
    )
    sizes: dict[str, Count] = Field(
        default={}, description="of one set of graphs: samples, nodes, bytes as papers count"
    )
    real_digest: str
    set_digests: list[str] = []
    code: Code
    device: str
    versions: dict[str, str]
    notes: list[str] = []

    @field_validator("created")
    @classmethod
    def _a_time(cls, created: str) -> str:
        datetime.fromisoformat(created)
        return created

    def sample(self, metric: str | None = None) -> list[float]:
        """Returns the independent values of a metric: set means if there are several sets, else the networks'.

        Networks of the one set that share a unit are one value, their mean.
        """
        metric = metric or self.main_metric
        by_set = self.by_set(metric)
        if len(by_set) > 1:
            return [fmean(v) for v in by_set]
        units: dict[tuple[str, int], list[float]] = defaultdict(list)
        for score in sorted(self._scores.get(metric, ()), key=lambda s: s.network):
            alone = ("network", score.network)
            units[alone if score.unit is None else ("unit", score.unit)].append(score.value)
        return [fmean(v) for v in units.values()]

    def summary(self, metric: str | None = None) -> Summary:
        """Summarises one metric, `main_metric` by default.

        Raises:
            ValueError: the record has no score of that metric.
        """
        metric = metric or self.main_metric
        if metric not in self._summaries:
            self._summaries[metric] = self._summarised(metric)
        return self._summaries[metric]

    def _summarised(self, metric: str) -> Summary:
        by_set = self.by_set(metric)
        if not by_set:
            raise ValueError(f"record {self.digest[:12]} ({self.status}) has no score {metric!r}")
        values = [x for v in by_set for x in v]
        spread = std(values) if len(values) > 1 else None
        freedom = sum(len(v) - 1 for v in by_set)
        if len(by_set) == 1:
            within = spread
        else:
            squares = sum((len(v) - 1) * std(v) ** 2 for v in by_set if len(v) > 1)
            within = (squares / freedom) ** 0.5 if freedom else None
        sample = self.sample(metric)
        low = high = None
        if len(sample) > 1:
            low, high = t_interval(sample)
            if self.main_metric in SHARES and metric not in DIFFERENCES:
                low, high = max(0.0, low), min(1.0, high)
        return Summary(
            mean=fmean(sample),
            std=spread,
            std_networks=within,
            std_sets=std([fmean(v) for v in by_set]) if len(by_set) > 1 else None,
            ci_low=low,
            ci_high=high,
            num_sets=len(by_set),
            num_networks=len(values),
        )

    def by_set(self, metric: str) -> list[list[float]]:
        """Returns every network's value of a metric, set by set."""
        by_set: dict[int, list[float]] = defaultdict(list)
        for score in self._scores.get(metric, ()):
            by_set[score.set].append(score.value)
        return list(by_set.values())

    @property
    def metrics(self) -> list[str]:
        """Names of the metrics measured, in order of first appearance."""
        return list(self._scores)

    def text(self) -> str:
        """Returns the canonical JSON: sorted keys, two-space indent, a newline at the end."""
        return self._text

    def with_text(self, text: str) -> Self:
        """Remembers the text that the record was read from, and returns it: an old entry keeps its bytes and digest."""
        self.__dict__["_text"] = text
        return self

    @cached_property
    def _text(self) -> str:
        # a key that came later is written only where it says something: older records keep their digest
        later: dict[str, Any] = {
            name: True for name in ("teacher_forwards", "teachers", "sizes") if not getattr(self, name)
        }
        if all(score.unit is None for score in self.scores):
            later["scores"] = {"__all__": {"unit"}}
        return canonical(self.model_dump(mode="json", exclude=later), indent=2) + "\n"

    @cached_property
    def _scores(self) -> dict[str, list[Score]]:
        """Scores by metric, in order of first appearance; of one, set by set and network by network."""
        scores: dict[str, list[Score]] = defaultdict(list)
        for score in self.scores:
            scores[score.metric].append(score)
        return {metric: sorted(of, key=lambda s: (s.set, s.network)) for metric, of in scores.items()}

    @cached_property
    def _summaries(self) -> dict[str, Summary]:
        return {}

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Returns a copy that remembers nothing of what was computed from the original."""
        copied = super().model_copy(update=update, deep=deep)
        for name in ("digest", "_text", "_scores", "_summaries"):
            copied.__dict__.pop(name, None)
        return copied

    @cached_property
    def digest(self) -> str:
        """Sha256 of `text()`; its first 16 hex digits name the file of an entry."""
        return hashlib.sha256(self.text().encode()).hexdigest()

    def save(self, path: Path) -> Path:
        """Writes the record atomically and returns `path`."""
        write_atomic(path, self.text().encode())
        return path


def load_record(path: Path) -> Record:
    """Reads and checks a record.

    Raises:
        ValueError: not JSON, of another schema version, or a field missing, unknown or out of range.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path} is not a record: {error}") from error
    return parse_record(content, path)


def parse_record(content: bytes, path: Path) -> Record:
    """Returns the record that a file holds; `path` is for the messages of what `load_record` refuses."""
    try:
        data = parse_json(content)
    except ValueError as error:
        raise ValueError(f"{path} is not a record: {error}") from error
    version = data.get("schema_version") if isinstance(data, dict) else None
    if version != SCHEMA_VERSION:
        raise ValueError(f"{path}: schema_version={version!r}, this version reads {SCHEMA_VERSION}")
    try:
        return Record.model_validate(data)
    except ValidationError as error:
        raise ValueError(f"{path} is not a valid record:\n{error}") from error
