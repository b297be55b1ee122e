"""Build the record of a run: scores, seconds, memory, sizes and provenance."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from dd_bench.data.labels import label_mode
from dd_bench.evaluation.fresh_networks import LabelCost
from dd_bench.pipeline import provenance
from dd_bench.pipeline.parts import RunParts
from dd_bench.records.best_runs import best_runs
from dd_bench.records.config_diff import STORED, describe
from dd_bench.records.metric_names import best_runs_metric
from dd_bench.records.overrides import without_local_paths
from dd_bench.records.record import ProtocolId, Record, Score, TeacherId
from dd_bench.runtime.cache import Cache
from dd_bench.synthetic import storage
from dd_bench.synthetic.card import read_provenance

_log = logging.getLogger(__name__)
Status = Literal["done", "skipped", "diverged"]


@dataclass
class Outcome:
    """The results of measuring the sets of a run.

    Attributes:
        stages: seconds and peak memory by stage.
        folders: folders of the synthetic sets.
        scores: scores of all networks; empty unless the status is `done`.
        notes: notes for the record, in the order in which they were added, without duplicates.
        label_cost: cost of the training labels; None if these are the labels stored in the sets.
        status: final status of the run.
        reason: why the run was skipped or has diverged.
    """

    stages: provenance.Stages
    folders: list[Path] = field(default_factory=list)
    scores: Sequence[Score] = ()
    notes: list[str] = field(default_factory=list)
    label_cost: LabelCost | None = None
    status: Status = "done"
    reason: str | None = None

    def finish(self, status: Status, reason: str | None) -> Outcome:
        """Set the final status and its reason, and return the outcome."""
        self.status, self.reason = status, reason
        return self

    def note(self, text: str, level: int = logging.WARNING) -> None:
        """Add a note and log it, if there is no equal note yet."""
        if text not in self.notes:
            self.notes.append(text)
            _log.log(level, text)

    def add_cached(self, cache: Cache) -> None:
        """Set the stages `relabel` and `reference`, and subtract the time spent on cache entries from `evaluate`.

        `relabel` and `reference` include the build time of entries that an earlier run has built.
        """
        seconds = self.stages.seconds
        seconds["evaluate"] -= cache.spent
        if reference := sum(s for name, s in cache.seconds.items() if name.startswith("reference-")):
            seconds["reference"] = round(reference, 3)
        if self.label_cost is not None:
            labels = sum(s for name, s in cache.seconds.items() if not name.startswith("reference-"))
            seconds["relabel"] = round(labels, 3)


def build_record(run: RunParts, key: str, outcome: Outcome) -> Record:
    """Return the record of a run that ended with `outcome`."""
    config = without_local_paths(run.config)
    labels, cost = run.protocol.labels, outcome.label_cost
    first, card = storage.load(outcome.folders[0]) if outcome.folders else (None, None)
    if card is not None and STORED in card.config:
        config[STORED] = card.config[STORED]
    provenances = [read_provenance(folder) for folder in outcome.folders]
    stored_mode = label_mode(first.labels) if first is not None else "unknown"
    recipe = {k: v for k, v in config["protocol"].items() if k not in ("name", "version")}
    metric, keep = run.evaluator.main_metric, run.protocol.keep
    scores = [*outcome.scores, *best_runs(outcome.scores, metric, keep)]
    evaluator = {k: v for k, v in config["evaluator"].items() if k not in run.evaluator.repeats}
    return Record(
        key=key,
        status=outcome.status,
        reason=outcome.reason,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        method=run.method_name,
        dataset=run.real.name,
        model=describe("model", run.architecture.name, config["model"]),
        ipc=run.ipc,
        protocol=ProtocolId(
            name=describe("protocol", run.protocol.name, recipe), version=run.protocol.version
        ),
        evaluator=describe("evaluator", run.evaluator_name, evaluator),
        selection=run.protocol.selection,
        label_mode=labels.kind if labels else stored_mode,
        main_metric=best_runs_metric(metric, keep),
        scores=sorted(scores, key=lambda s: (s.set, s.network, s.metric)),
        config=config,
        seeds={"run": run.seed},
        seconds=_with_set_stages(outcome.stages.seconds, provenances, "seconds"),
        peak_memory=run.loading.peak_memory
        | _with_set_stages(outcome.stages.peak_memory, provenances, "peak_memory"),
        stored_bytes=(first.stored_bytes() if first is not None else {})
        | ({"teacher labels": cost.label_bytes} if cost and cost.label_bytes else {}),
        teacher_forwards=cost.teacher_forwards if cost else 0,
        teachers=list(cost.teachers) if cost and cost.teachers else _guiding_teachers(run, provenances),
        sizes=(first.size_metrics() if first is not None else {})
        | ({"teacher bytes": cost.teacher_bytes} if cost and cost.teacher_bytes else {}),
        real_digest=run.real.digest,
        set_digests=[storage.digest(folder) for folder in outcome.folders],
        code=provenance.code(),
        device=run.runtime.describe(),
        environment=provenance.environment(run.runtime),
        versions=provenance.versions(),
        notes=list(
            dict.fromkeys([*(note for p in provenances for note in p.get("notes", [])), *outcome.notes])
        ),
        split=run.real.scored,
        tuning=run.tuning,
    )


def summary(record: Record) -> dict[str, float | str]:
    """Return the final results of a run for loggers: mean, spread and interval of each metric, seconds and bytes."""
    values: dict[str, float | str] = {"status": record.status, "record": record.key}
    if record.status == "done":
        for metric in record.metrics:
            s = record.summary(metric)
            parts = {"": s.mean, "_std": s.std, "_ci_low": s.ci_low, "_ci_high": s.ci_high}
            values |= {f"{metric}{end}": value for end, value in parts.items() if value is not None}
        values["networks"] = record.summary().num_networks
    values |= {f"seconds_{stage}": value for stage, value in record.seconds.items()}
    return values | {"stored_bytes": sum(record.stored_bytes.values())}


def _with_set_stages(
    stages: dict[str, Any], provenances: Sequence[dict[str, Any]], field: str
) -> dict[str, Any]:
    """Return a copy of `stages` to which the stages `prepare` and `distill` of the sets are added.

    The seconds of `distill` are summed over the sets. The seconds of `prepare` are the maximum over the sets, because
    the sets share the prepared cache entries. Peak memory is also the maximum.
    """
    stages = dict(stages)
    for stage in ("prepare", "distill"):
        if values := [p[field][stage] for p in provenances if stage in p.get(field, {})]:
            stages[stage] = sum(values) if (field, stage) == ("seconds", "distill") else max(values)
            if field == "seconds":
                stages[stage] = round(stages[stage], 3)
    return stages


def _guiding_teachers(run: RunParts, provenances: Sequence[dict[str, Any]]) -> list[TeacherId]:
    """Return the teachers that guided the sets, from the provenance of the sets or else from the configuration."""
    stored = next((p["teachers"] for p in provenances if "teachers" in p), None)
    if stored is not None:
        return [TeacherId(**t) for t in stored]
    return [TeacherId(name=t.name) for t in run.teachers] if run.method.uses_teachers else []
