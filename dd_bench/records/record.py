"""The record of a run: one JSON file that contains everything that a leaderboard reads.

This module does not import torch, so leaderboards are rendered without it. Records never contain numbers from papers.
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

from pydantic import (
    BaseModel,
    ConfigDict,
    FailFast,
    Field,
    StringConstraints,
    ValidationError,
    field_validator,
)

from dd_bench.records.environment import Environment
from dd_bench.records.intervals import std, t_interval
from dd_bench.records.metric_names import all_runs_metric
from dd_bench.records.tuning import Tuning
from dd_bench.runtime import untrusted
from dd_bench.runtime.files import canonical, write_atomic

SCHEMA_VERSION = 3
"""Version of new records. Version 3 has the field `environment`."""
READABLE_VERSIONS = (2, 3)
SHARES = ("accuracy", "auc", "balanced_accuracy", "robust_accuracy", "hidden", "lrs", "ars")
"""Main metrics in [0, 1]. A record with such a main metric has only metrics in [0, 1], except `DIFFERENCES`."""
DIFFERENCES = ("forgetting", "hlr", "ior")
"""Metrics that are differences of shares, in [-1, 1]."""

Word = Annotated[str, StringConstraints(max_length=200)]
Described = Annotated[str, StringConstraints(max_length=2000)]  # a name with its changed keys, see `describe`
Count = Annotated[int, Field(ge=0, lt=2**63)]
Seconds = Annotated[float, Field(ge=0, lt=1e15, allow_inf_nan=False)]


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Score(_Frozen):
    """The value of one metric for one fresh network."""

    metric: Word
    value: float = Field(gt=-1e15, lt=1e15, allow_inf_nan=False)
    set: int = Field(ge=0, lt=2**31, description="0-based index of the synthetic set")
    network: int = Field(ge=0, lt=2**31, description="0-based index of the fresh network on that set")
    seed: int = Field(ge=0, description="seed of that network")
    unit: int | None = Field(
        default=None,
        description="networks with the same unit are not independent, e.g. they share an order of the classes; "
        "None: the network is independent",
    )


class ProtocolId(_Frozen):
    """The protocol that trained the fresh networks."""

    name: Described
    version: int = Field(ge=1)


class Code(_Frozen):
    """Version and git revision of the code. `numbers` is `NUMBERS_VERSION`, which changes if results change."""

    version: str
    numbers: int
    revision: str | None
    dirty: bool | None


class TeacherId(_Frozen):
    """One teacher of a run. Its position in `Record.teachers` determines its role."""

    name: Word
    digest: str | None = Field(
        default=None, description="sha256 of weights and class names; None: not loaded"
    )
    accuracy: float | None = Field(default=None, ge=0, le=1, description="test accuracy; None: not measured")


class Summary(_Frozen):
    """Mean of one metric, its standard deviations by source of variance, and its confidence interval.

    `std` is the sample standard deviation over all networks of all sets. `std_networks` is the pooled standard
    deviation within a set. `std_sets` is the standard deviation of the set means (None for one set).

    `ci_low` and `ci_high` are the 95 % confidence interval of the mean by Student's t over the independent values of
    `Record.sample`. The interval is None for fewer than two values, and is clipped to [0, 1] for shares.
    """

    mean: float
    std: float | None
    std_networks: float | None
    std_sets: float | None
    ci_low: float | None
    ci_high: float | None
    num_sets: int
    num_networks: int = Field(description="fresh networks of all sets")


class Record(_Frozen):
    """One run, or the reason why it was skipped or diverged."""

    schema_version: int = SCHEMA_VERSION
    key: str = Field(
        description="content key; equal for repetitions of an experiment on one kind of device, in one precision"
    )
    status: Literal["done", "skipped", "diverged"]
    reason: str | None = None
    created: str = Field(description="UTC, ISO 8601")

    method: Word
    dataset: Word
    model: Described = Field(description="evaluated network, with the values that differ from its YAML")
    ipc: int = Field(ge=1, lt=2**31)
    protocol: ProtocolId
    evaluator: Described
    selection: Literal["last", "best_on_val", "best_on_test"]
    label_mode: Word
    main_metric: Word

    scores: Annotated[list[Score], FailFast()] = []
    config: dict[str, Any]
    seeds: dict[str, int]
    seconds: dict[str, Seconds] = Field(default={}, description="wall-clock time by stage")
    peak_memory: dict[str, Count] = Field(
        default={}, description="bytes by stage: resident (CPU) or allocated (CUDA)"
    )
    stored_bytes: dict[str, Count] = Field(default={}, description="bytes of one synthetic set by part")
    teacher_forwards: Count = Field(
        default=0, description="images passed through teachers while one network is trained"
    )
    teachers: Annotated[list[TeacherId], FailFast()] = Field(
        default=[], description="teachers used to distil or label the set, in the order of teacher="
    )
    sizes: dict[str, Count] = Field(
        default={}, description="sizes of one graph set: samples, nodes, and bytes as counted in papers"
    )
    real_digest: str
    set_digests: list[str] = []
    code: Code
    device: str
    environment: Environment | None = Field(
        default=None,
        description="device, precision, flags and versions of torch; None in records of version 2",
    )
    versions: dict[str, str]
    notes: list[str] = []
    split: Literal["test", "validation"] = Field(
        default="test",
        description="split that the networks were scored on; validation in trials of dd-bench tune",
    )
    tuning: Tuning | None = Field(
        default=None, description="search that chose the hyper-parameters; None: none was given"
    )

    @field_validator("created")
    @classmethod
    def _check_created(cls, created: str) -> str:
        datetime.fromisoformat(created)
        return created

    def sample(self, metric: str | None = None) -> list[float]:
        """Return the independent values of a metric, `main_metric` by default.

        If there are several sets, these are the means of the sets. If there is one set (see `has_one_set`), they are
        the values of its networks. Networks with the same `unit` (e.g. the same class order) are not independent, so
        they give one value, their mean.
        """
        metric = metric or self.main_metric
        if not self.has_one_set(metric):
            return [fmean(v) for v in self.by_set(metric)]
        units: dict[tuple[str, int], list[float]] = defaultdict(list)
        for score in sorted(self._scores.get(metric, ()), key=lambda s: s.network):
            key = ("network", score.network) if score.unit is None else ("unit", score.unit)
            units[key].append(score.value)
        return [fmean(v) for v in units.values()]

    def summary(self, metric: str | None = None) -> Summary:
        """Summarise one metric, `main_metric` by default.

        Raises:
            ValueError: the record has no score of that metric.
        """
        metric = metric or self.main_metric
        if metric not in self._summaries:
            self._summaries[metric] = self._summarise(metric)
        return self._summaries[metric]

    def _summarise(self, metric: str) -> Summary:
        by_set = self.by_set(metric)
        if not by_set:
            raise ValueError(
                f"record {self.digest[:12]} ({self.status}) has no score {metric!r}, only {sorted(self.metrics)}"
            )
        values = [x for v in by_set for x in v]
        total_std = std(values) if len(values) > 1 else None
        dof = sum(len(v) - 1 for v in by_set)
        if len(by_set) == 1:
            pooled_std = total_std
        else:
            squares = sum((len(v) - 1) * std(v) ** 2 for v in by_set if len(v) > 1)
            pooled_std = (squares / dof) ** 0.5 if dof else None
        sample = self.sample(metric)
        low = high = None
        if len(sample) > 1:
            low, high = t_interval(sample)
            if self.is_share and metric not in DIFFERENCES:
                low, high = max(0.0, low), min(1.0, high)
        return Summary(
            mean=fmean(sample),
            std=total_std,
            std_networks=pooled_std,
            std_sets=std([fmean(v) for v in by_set]) if len(by_set) > 1 else None,
            ci_low=low,
            ci_high=high,
            num_sets=len(by_set),
            num_networks=len(values),
        )

    @property
    def all_runs_metric(self) -> str:
        """The metric that has a value of every network: `main_metric`, or `auc` if that is e.g. `auc_best5`."""
        return all_runs_metric(self.main_metric)

    @property
    def is_share(self) -> bool:
        """Whether the main metric, and therefore every metric except `DIFFERENCES`, is in [0, 1]."""
        return self.all_runs_metric in SHARES

    def by_set(self, metric: str) -> list[list[float]]:
        """Return the networks' values of a metric, one list per set."""
        by_set: dict[int, list[float]] = defaultdict(list)
        for score in self._scores.get(metric, ()):
            by_set[score.set].append(score.value)
        return list(by_set.values())

    def has_one_set(self, metric: str) -> bool:
        """Return whether the values of a metric are of one set, or of several that are equal.

        A selection that keeps every training image gives the same set for every seed. The networks of such sets have
        the same values, so their means have no spread.
        """
        by_set = self.by_set(metric)
        return all(values == by_set[0] for values in by_set)

    @property
    def metrics(self) -> list[str]:
        """Names of the measured metrics, in order of first appearance."""
        return list(self._scores)

    def text(self) -> str:
        """Return the canonical JSON: sorted keys, an indent of two spaces, and a final newline."""
        return self._text

    def with_text(self, text: str) -> Self:
        """Set the text of the file of this record and return `self`. Old entries thus keep their bytes and digest."""
        self.__dict__["_text"] = text
        return self

    @cached_property
    def _text(self) -> str:
        # fields that were added later are omitted if empty, so the digests of older records do not change
        exclude: dict[str, Any] = {
            name: True
            for name in ("teacher_forwards", "teachers", "sizes", "environment", "tuning")
            if not getattr(self, name)
        }
        if self.split == "test":
            exclude["split"] = True
        if all(score.unit is None for score in self.scores):
            exclude["scores"] = {"__all__": {"unit"}}
        return canonical(self.model_dump(mode="json", exclude=exclude), indent=2) + "\n"

    @cached_property
    def _scores(self) -> dict[str, list[Score]]:
        """Scores by metric, in order of first appearance. The scores of a metric are sorted by set, then by network."""
        scores: dict[str, list[Score]] = defaultdict(list)
        for score in self.scores:
            scores[score.metric].append(score)
        return {metric: sorted(v, key=lambda s: (s.set, s.network)) for metric, v in scores.items()}

    @cached_property
    def _summaries(self) -> dict[str, Summary]:
        return {}

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy without the cached properties of the original."""
        copied = super().model_copy(update=update, deep=deep)
        for name in ("digest", "_text", "_scores", "_summaries"):
            copied.__dict__.pop(name, None)
        return copied

    @cached_property
    def digest(self) -> str:
        """Sha256 of `text()`. Its first 16 hex digits are part of the file name of an entry."""
        return hashlib.sha256(self.text().encode()).hexdigest()

    def save(self, path: Path) -> Path:
        """Write the record atomically and return `path`."""
        write_atomic(path, self.text().encode())
        return path


def load_record(path: Path) -> Record:
    """Read and validate a record. The file may come from an untrusted source.

    Raises:
        ValueError: the file is missing, not a regular file or not JSON, has another schema version, or has a missing,
            unknown or out-of-range field or one of another type.
    """
    try:
        content = untrusted.read_bytes(path)
    except OSError as error:
        raise ValueError(f"{path} is not a record: {error}") from error
    return parse_record(content, path)


def parse_record(content: bytes, path: Path) -> Record:
    """Parse and validate the content of a record file, see `load_record`. Error messages name `path`."""
    try:
        data = untrusted.parse_json(content)
    except ValueError as error:
        raise ValueError(f"{path} is not a record: {error}") from error
    version = data.get("schema_version") if isinstance(data, dict) else None
    if type(version) is not int or version not in READABLE_VERSIONS:
        raise ValueError(
            f"{path}: schema_version must be {' or '.join(map(str, READABLE_VERSIONS))}, "
            f"got {untrusted.shorten(repr(version))}"
        )
    try:
        return Record.model_validate(data, strict=True)
    except ValidationError as error:
        raise ValueError(f"{path} is not a valid record: {untrusted.problems(error)}") from error
