"""Experts: networks trained on the real training set, with snapshots of their parameters after selected epochs.

Experts are cached and shared between runs. On a CPU, several processes train them if that is faster. If a run is
killed, the training of each expert resumes after its last complete epoch, and the resulting buffer has the same bytes.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from dd_bench.data.dataset import RealSet
from dd_bench.models.architecture import Architecture
from dd_bench.models.network import Network
from dd_bench.runtime import checkpoint
from dd_bench.runtime.context import RunContext
from dd_bench.runtime.progress import Progress
from dd_bench.runtime.seeding import seed_for
from dd_bench.runtime.workers import Tick, run_in_processes
from dd_bench.teachers import expert_buffer
from dd_bench.teachers.expert_buffer import ExpertBuffer, Header, Storage
from dd_bench.teachers.trained_network import (
    RealTraining,
    cache_entry,
    checkpoint_in,
    reading_entry,
    trained_network,
)
from dd_bench.training.loop import GradientRule
from dd_bench.training.parameter_vector import FunctionalNetwork, flatten
from dd_bench.training.recipe import Recipe
from dd_bench.training.resume import saved_epochs

_log = logging.getLogger(__name__)


class ExpertGradientRule(GradientRule, Protocol):
    """A rule that replaces the gradient of the loss in the training steps of an expert."""

    def describe(self) -> dict[str, Any]:
        """Return the values that identify the rule in cache keys."""

    def compiled(self) -> ExpertGradientRule:
        """Return the compiled rule, for trainings that are long enough to save time by compilation."""


def experts(
    real: RealSet,
    architecture: Architecture,
    recipe: Recipe,
    ctx: RunContext,
    *,
    count: int,
    epochs: tuple[int, ...],
    dtype: Storage,
    gradient_rule: ExpertGradientRule | None,
    exact: bool = False,
) -> ExpertBuffer:
    """Return a buffer of `count` experts, training them if the buffer is not cached.

    Args:
        real: the real set; experts are trained on its training split.
        architecture: the network of the experts.
        recipe: how experts are trained. The number of epochs is replaced by the last of `epochs`.
        ctx: the context of the run. Its seed is not used, so that all seeds of a sweep share the experts.
        count: number of experts.
        epochs: epochs with a stored snapshot, ascending; 0 is the initialisation.
        dtype: data type of the stored snapshots.
        gradient_rule: computes the gradient of a training step; None for the gradient of the loss.
        exact: train in float32 regardless of the runtime. bfloat16 would round away weight perturbations of 0.1 %.

    Raises:
        Diverged: a parameter of an expert is not finite.
        ValueError: the cache entry is damaged.
    """
    recipe = recipe.model_copy(update={"epochs": max(1, *epochs)})
    runtime = ctx.runtime.in_float32() if exact else ctx.runtime
    training = RealTraining(real.train_only(), architecture, recipe, runtime)
    rule_identity = gradient_rule.describe() if gradient_rule else None
    header = Header(
        count,
        epochs,
        tuple(FunctionalNetwork(architecture.fresh(0, ctx.device)).order),
        dtype,
        architecture.describe(),
        (real.digest, len(real.train)),
        real.preprocess.digest,
        {**recipe.identity(), "gradient_rule": rule_identity},
        real.preprocess.config(),
    )

    def build(folder: Path) -> float:
        compiles = training.compiles(count)
        rule = gradient_rule.compiled() if gradient_rule is not None and compiles else gradient_rule
        return _train_all(ExpertTraining(training, header, rule, folder))

    key = {"gradient_rule": rule_identity, "count": count, "epochs": list(epochs), "dtype": dtype}
    entry = cache_entry(ctx.cache, "experts", training.identity() | key, build)
    with reading_entry(entry):
        return ExpertBuffer(entry)


@dataclass(frozen=True)
class ExpertTraining:
    """The arguments shared by the trainings of all experts."""

    training: RealTraining
    header: Header
    gradient_rule: ExpertGradientRule | None
    folder: Path

    def checkpoint(self, expert: int) -> Path:
        """Return the checkpoint of an expert. It is kept until the buffer is in the cache."""
        return checkpoint_in(self.folder, f"expert{expert}")


def _train_all(shared: ExpertTraining) -> float:
    """Train the unfinished experts, and return an estimate of the seconds that earlier, killed attempts took."""
    training, count, epochs = shared.training, shared.header.experts, shared.training.recipe.epochs
    if not expert_buffer.create(shared.folder, shared.header):
        checkpoint.remove(shared.folder)  # the checkpoints of snapshots that no longer exist
    state = [saved_epochs(shared.checkpoint(i)) for i in range(count)]
    jobs = [i for i, (done, _) in enumerate(state) if done < epochs]
    workers = min(training.runtime.workers, len(jobs))
    images = len(jobs) * epochs * len(training.real.train)
    start = sum(done for done, _ in state)
    n = len(training.real.train)
    _log.info("training %s experts: %s epochs of %s images each", f"{count:,}", f"{epochs:,}", f"{n:,}")
    with Progress("experts", count * epochs, start) as progress:
        if workers > 1 and training.runtime.uses_processes(images):
            for _ in run_in_processes(
                _train, shared, jobs, workers, lambda ticks: progress.advance_to(start + ticks, {})
            ):
                pass
        else:
            done = start

            def tick() -> None:
                nonlocal done
                done += 1
                progress.advance_to(done, {})

            for i in jobs:
                _train(shared, i, tick)
    return sum(seconds for _, seconds in state) / max(1, min(training.runtime.workers, count))


def _train(shared: ExpertTraining, expert: int, tick: Tick) -> None:
    """Train an expert and write its snapshots; call `tick` after every epoch."""
    header, seed = shared.header, seed_for(0, "expert", expert)

    def store(epoch: int, net: Network) -> None:
        if epoch in header.epochs:
            expert_buffer.write(shared.folder, header, expert, epoch, flatten(net))

    def after_epoch(epoch: int, net: Network) -> None:
        store(epoch, net)
        tick()

    store(0, shared.training.untrained(seed))
    trained_network(
        shared.training,
        seed,
        shared.checkpoint(expert),
        on_epoch=after_epoch,
        gradient_rule=shared.gradient_rule,
        networks=header.experts,
    )
