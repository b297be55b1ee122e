"""Measure the synthetic sets of a run, network by network. Each score is written to disk immediately."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

from dd_bench.contracts import EvaluationContext
from dd_bench.evaluation.curves import CurveReader
from dd_bench.pipeline import provenance
from dd_bench.pipeline.parts import RunParts
from dd_bench.pipeline.report import Outcome
from dd_bench.pipeline.score_log import ScoreLog
from dd_bench.runtime.files import content_key
from dd_bench.runtime.outer_loop import Diverged
from dd_bench.runtime.progress import Progress
from dd_bench.synthetic import storage
from dd_bench.synthetic.base import SyntheticSet
from dd_bench.synthetic.card import read_provenance

_log = logging.getLogger(__name__)


def measure(run: RunParts, sets: Callable[[], list[Path]], log: ScoreLog) -> Outcome:
    """Measure every synthetic set with fresh networks, continuing where a killed run stopped.

    Args:
        run: method, dataset, network, evaluator and other parts of the run.
        sets: function that distils the missing sets and returns the folders of all sets.
        log: log of the scores measured so far. New scores are added to it.
    """
    outcome = Outcome(provenance.Stages(run.runtime.device), notes=list(run.notes))
    stages = outcome.stages
    try:
        outcome.folders = sets()
        for index, folder in enumerate(outcome.folders):
            syn, _ = storage.load(folder)
            syn.check_whole(run.real.train.labels)
            if reason := run.evaluator.check_set(syn, run.real) or run.check_labels(syn):
                return outcome.finish("skipped", reason)
            made = read_provenance(folder)
            ctx = EvaluationContext(
                seed=run.seed,
                runtime=run.runtime,
                cache=run.cache(),
                architecture=run.architecture,
                protocol=run.protocol,
                ipc=run.ipc,
                teachers=run.teachers,
                measure=run.test_accuracy,
                finished=log.finished(index),
                work=log.unfinished,
                checkpoint_seconds=run.config["checkpoint_seconds"],
                curve_folder=log.curves if run.logger else None,
                set_seconds=sum(made.get("seconds", {}).values()) or None,
                set_device=made.get("device"),
            )
            with stages.measure("evaluate"):
                _score(run, index, syn, ctx, log, outcome)
            outcome.add_cached(ctx.cache)
    except Diverged as error:
        return outcome.finish("diverged", str(error))
    stages.seconds["evaluate"] = round(stages.seconds["evaluate"] + log.seconds_before, 3)
    outcome.scores = log.scores
    return outcome.finish("done", None)


def _score(
    run: RunParts, index: int, syn: SyntheticSet, ctx: EvaluationContext, log: ScoreLog, outcome: Outcome
) -> None:
    for note in log.notes(index):
        outcome.note(note)
    prefix = f"set {index}/" if run.num_sets > 1 else ""
    curves = CurveReader(
        log.curves,
        lambda loop, step, values: run.logger.log(prefix + loop, step, values),
        run.architecture.name,
        content_key(syn.identity()) if run.logger else "",
    )
    name = "networks" if run.num_sets == 1 else f"networks of set {index}"
    done = len(ctx.finished)
    with Progress(name, run.evaluator.total_networks(), done, lines=False) as progress:
        began = time.monotonic()
        for measurement in run.evaluator.run(syn, run.real, ctx):
            outcome.label_cost = measurement.label_cost or outcome.label_cost
            for note in measurement.notes:
                outcome.note(note)
            for text in measurement.results:
                outcome.note(text, logging.INFO)
            if not measurement.scores:
                continue
            scores = [s.model_copy(update={"set": index}) for s in measurement.scores]
            log.add(scores, time.monotonic() - began, [*measurement.notes, *measurement.results])
            began = time.monotonic()
            values = ", ".join(f"{s.metric} {s.value:.4f}" for s in scores)
            _log.info("set %d, network %d: %s", index, scores[0].network, values)
            run.logger.log(f"{prefix}scores", scores[0].network, {s.metric: s.value for s in scores})
            curves.forward({s.seed: s.network for s in scores})
            done += 1
            progress.advance_to(done, {s.metric: s.value for s in scores[:1]})
    curves.forward({}, all_finished=True)
