"""The record of a run: what was measured, with seconds, memory, sizes and provenance."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from dd_bench.api import LabelCost
from dd_bench.data.labels import label_mode
from dd_bench.pipeline import provenance
from dd_bench.pipeline.parts import RunParts
from dd_bench.records.config_diff import describe
from dd_bench.records.record import ProtocolId, Record, Score, TeacherId
from dd_bench.runtime.cache import Cache
from dd_bench.synthetic import storage
from dd_bench.synthetic.card import read_provenance

_log = logging.getLogger(__name__)
Status = Literal["done", "skipped", "diverged"]


@dataclass
class Outcome:
    """What measuring the sets of a run has found so far.

    Attributes:
        stages: seconds and peak memory by stage.
        folders: of the synthetic sets.
        notes: remarks, each once, in order.
        label_cost: of the labels that networks learned, where these are not the sets' own.
    """

    stages: provenance.Stages
    folders: list[Path] = field(default_factory=list)
    scores: Sequence[Score] = ()
    notes: list[str] = field(default_factory=list)
    label_cost: LabelCost | None = None
    status: Status = "done"
    reason: str | None = None

    def ended(self, status: Status, reason: str | None) -> Outcome:
        """Sets how the run ended, and returns the outcome."""
        self.status, self.reason = status, reason
        return self

    def note(self, text: str) -> None:
        """Keeps a remark, and logs it as a warning."""
        if text not in self.notes:
            self.notes.append(text)
            _log.warning(text)

    def add_cached(self, cache: Cache) -> None:
        """Moves the seconds of teachers, labels and references from the evaluation to stages of their own.

        Those are the whole price, also of what was cached.
        """
        seconds = self.stages.seconds
        seconds["evaluate"] -= cache.spent
        if reference := sum(s for name, s in cache.seconds.items() if name.startswith("reference-")):
            seconds["reference"] = round(reference, 3)
        if self.label_cost is not None:
            labels = sum(s for name, s in cache.seconds.items() if not name.startswith("reference-"))
            seconds["relabel"] = round(labels, 3)


def record_of(run: RunParts, key: str, outcome: Outcome) -> Record:
    """Returns the record of a run that ended."""
    labels, cost = run.protocol.labels, outcome.label_cost
    first = storage.load(outcome.folders[0])[0] if outcome.folders else None
    made = [read_provenance(folder) for folder in outcome.folders]
    own_labels = label_mode(first.labels) if first is not None else "unknown"
    recipe = {k: v for k, v in run.config["protocol"].items() if k not in ("name", "version")}
    measured = {k: v for k, v in run.config["evaluator"].items() if k not in run.evaluator.repeats}
    return Record(
        key=key,
        status=outcome.status,
        reason=outcome.reason,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        method=run.method_name,
        dataset=run.real.name,
        model=describe("model", run.architecture.name, run.config["model"]),
        ipc=run.ipc,
        protocol=ProtocolId(
            name=describe("protocol", run.protocol.name, recipe), version=run.protocol.version
        ),
        evaluator=describe("evaluator", run.evaluator_name, measured),
        selection=run.protocol.selection,
        label_mode=labels.kind if labels else own_labels,
        main_metric=run.evaluator.main_metric,
        scores=sorted(outcome.scores, key=lambda s: (s.set, s.network, s.metric)),
        config=run.config,
        seeds={"run": run.seed},
        seconds=_of_stages(dict(outcome.stages.seconds), made, "seconds"),
        peak_memory=_of_stages(dict(outcome.stages.peak_memory), made, "peak_memory"),
        stored_bytes=(first.stored_bytes() if first is not None else {})
        | ({"teacher labels": cost.label_bytes} if cost and cost.label_bytes else {}),
        teacher_forwards=cost.teacher_forwards if cost else 0,
        teachers=list(cost.teachers) if cost and cost.teachers else _guides(run, made),
        sizes=first.size_metrics() if first is not None else {},
        real_digest=run.real.digest,
        set_digests=[storage.digest(folder) for folder in outcome.folders],
        code=provenance.code(),
        device=run.runtime.describe(),
        versions=provenance.versions(),
        notes=list(dict.fromkeys([*(note for m in made for note in m.get("notes", [])), *outcome.notes])),
    )


def _of_stages(values: dict[str, Any], made: Sequence[dict[str, Any]], what: str) -> dict[str, Any]:
    """Adds the stages in which the sets were made: sets of one run share what was prepared, each is distilled apart."""
    for stage in ("prepare", "distill"):
        if found := [m[what][stage] for m in made if stage in m.get(what, {})]:
            total = what == "seconds" and stage == "distill"
            values[stage] = sum(found) if total else max(found)
            if what == "seconds":
                values[stage] = round(values[stage], 3)
    return values


def _guides(run: RunParts, made: Sequence[dict[str, Any]]) -> list[TeacherId]:
    """Returns the teachers that guided the sets; where a set does not name them, those that this run names."""
    named = next((m["teachers"] for m in made if "teachers" in m), None)
    if named is not None:
        return [TeacherId(**t) for t in named]
    return [TeacherId(name=t.name) for t in run.teachers] if run.method.uses_teachers else []
