"""Experts: networks trained on the real training set, their parameters kept epoch by epoch.

Cached for every run that wants the same. One process a core on a CPU where that is repaid; killed, the training of
each expert goes on from its last epoch, and the buffer has the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from dd_bench.data.dataset import RealSet
from dd_bench.models.architecture import Architecture
from dd_bench.runtime import checkpoint
from dd_bench.runtime.context import RunContext
from dd_bench.runtime.progress import Progress
from dd_bench.runtime.runtime import Runtime
from dd_bench.runtime.seeding import seed_for
from dd_bench.runtime.workers import run_in_processes
from dd_bench.teachers import expert_buffer
from dd_bench.teachers.expert_buffer import ExpertBuffer, Header, Storage
from dd_bench.training.batches import fetch_split
from dd_bench.training.compilation import repays_compilation
from dd_bench.training.loop import GradientRule, train
from dd_bench.training.parameter_vector import FunctionalNetwork, flatten
from dd_bench.training.recipe import Recipe


class ExpertGradientRule(GradientRule, Protocol):
    """How experts descend, where it is not the gradient of the loss."""

    def describe(self) -> dict[str, Any]:
        """Returns what identifies it in a cache key."""

    def compiled(self) -> ExpertGradientRule:
        """Returns the same for a run that repays compilation."""


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
    """Returns the buffer of `count` experts of a network, training those that are missing.

    Args:
        real: trained on its training split.
        architecture: the network of the experts.
        recipe: by which they are trained, up to the last of `epochs`.
        ctx: of the run; its seed does not matter, so that all seeds of a sweep share the experts.
        count: number of experts.
        epochs: whose snapshots are kept, ascending; 0 is the initialisation.
        dtype: of the snapshots on the disk.
        gradient_rule: instead of the gradient of the loss.
        exact: in float32 whatever the runtime; a bfloat16 network does not see a perturbation of a thousandth.

    Raises:
        Diverged: an expert is not finite.
        ValueError: the entry of the cache is damaged.
    """
    runtime = ctx.runtime.exact() if exact else ctx.runtime
    recipe = recipe.model_copy(update={"epochs": max(1, *epochs)})
    said = {**recipe.identity(), "gradient_rule": gradient_rule.describe() if gradient_rule else None}
    order = tuple(FunctionalNetwork(architecture.fresh(0, ctx.device)).order)
    header = Header(
        count,
        epochs,
        order,
        dtype,
        architecture.describe(),
        (real.digest, len(real.train)),
        real.preprocess.digest,
        said,
        real.preprocess.config(),
    )

    def build(folder: Path) -> float:
        images = count * recipe.epochs * len(real.train)
        compiled = repays_compilation(images, real.shape, runtime)
        how = gradient_rule.compiled() if gradient_rule is not None and compiled else gradient_rule
        training = Training(real.train_only(), architecture, recipe, header, how, runtime, compiled, folder)
        return _train_all(training)

    depends_on = {
        "real": [real.digest, len(real.train)],
        "preprocess": real.preprocess.digest,
        "flip": real.flip,
        "architecture": architecture.describe(),
        "recipe": said,
        "count": count,
        "epochs": list(epochs),
        "dtype": dtype,
        "autocast": runtime.autocast,
        "device": ctx.device.type,
    }
    entry = ctx.cache.entry("experts", depends_on, build)
    checkpoint.remove(entry)  # only now: a kill before this costs nothing
    try:
        return ExpertBuffer(entry)
    except ValueError as error:
        raise ValueError(f"{error}. To build it anew: rm -r {entry}") from error


@dataclass(frozen=True)
class Training:
    """What the training of every expert shares."""

    real: RealSet
    architecture: Architecture
    recipe: Recipe
    header: Header
    gradient_rule: ExpertGradientRule | None
    runtime: Runtime
    compiled: bool
    folder: Path

    def kept(self, expert: int) -> Path:
        """The checkpoint of an expert; it stays until the buffer is in the cache."""
        return self.folder / f"expert{expert}.checkpoint.safetensors"


def _train_all(training: Training) -> float:
    """Trains the experts that are not finished; returns the seconds that earlier attempts took."""
    count, epochs = training.header.experts, training.recipe.epochs
    if not expert_buffer.create(training.folder, training.header):
        checkpoint.remove(training.folder)  # of snapshots that are gone
    state = [checkpoint.spent(training.kept(i)) for i in range(count)]
    jobs = [i for i, (done, _) in enumerate(state) if done < epochs]
    workers = min(training.runtime.workers, len(jobs))
    start = sum(done for done, _ in state)
    with Progress("experts", count * epochs, start) as progress:
        if workers > 1 and training.runtime.repays_processes(len(jobs) * epochs * len(training.real.train)):
            for _ in run_in_processes(
                _train, training, jobs, workers, lambda ticks: progress.advance_to(start + ticks, {})
            ):
                pass
        else:
            done = start

            def tick() -> None:
                nonlocal done
                done += 1
                progress.advance_to(done, {})

            for i in jobs:
                _train(training, i, tick)
    return sum(seconds for _, seconds in state) / max(1, min(training.runtime.workers, count))


def _train(training: Training, expert: int, tick: Callable[[], None]) -> None:
    split, runtime, seed = training.real.train, training.runtime, seed_for(0, "expert", expert)
    net = training.architecture.fresh(seed_for(seed, "init"), runtime.device)

    def keep(epoch: int) -> None:
        if epoch in training.header.epochs:
            expert_buffer.write(training.folder, training.header, expert, epoch, flatten(net))

    def after(epoch: int) -> None:
        keep(epoch)
        tick()

    keep(0)
    train(
        net,
        fetch_split(split),
        len(split),
        training.recipe,
        seed=seed_for(seed, "train"),
        runtime=runtime,
        flip=training.real.flip,
        compiled=training.compiled,
        on_epoch=after,
        gradient_rule=training.gradient_rule,
        checkpoint=training.kept(expert),
    )


def released_experts(
    folder: str, real: RealSet, architecture: Architecture, window: Iterable[int], init_epoch: int | None
) -> ExpertBuffer:
    """Returns the buffer in a folder that the user names, after asking whether this run can follow it.

    Args:
        folder: where it lies.
        real: what the run distils.
        architecture: the network of the run.
        window: the epochs that are matched.
        init_epoch: the epoch that images or labels start from, or None.

    Raises:
        ValueError: it is no buffer, or does not fit this run.
    """
    found = ExpertBuffer(Path(folder))
    if reason := check_buffer(found, real, architecture, window):
        raise ValueError(reason)
    if init_epoch is not None and init_epoch not in found.header.epochs:
        raise ValueError(
            f"the start asks for epoch {init_epoch}, the buffer {found.path} holds "
            f"{list(found.header.epochs)}. Use method.experts.init_epoch={found.header.epochs[-1]}"
        )
    return found


def check_buffer(
    found: ExpertBuffer, real: RealSet, architecture: Architecture, epochs: Iterable[int]
) -> str | None:
    """Returns why a buffer made elsewhere cannot be followed in this run, and what to change, or None."""
    header = found.header
    if header.architecture != architecture.describe():
        return (
            f"the experts of {found.path} are {header.architecture}, this run distils with "
            f"{architecture.describe()}. Use their network (model=...), or method.experts.source=null"
        )
    order = tuple(FunctionalNetwork(architecture.fresh(0, torch.device("cpu"))).order)
    if tuple(map(_as_tuples, header.order)) != tuple(map(_as_tuples, order)):
        return (
            f"the experts of {found.path} hold their parameters in another order than this network. Use "
            "method.experts.source=null"
        )
    if header.preprocess != real.preprocess.digest:
        theirs = header.preprocessing.get("kind")
        return (
            f"the experts of {found.path} were trained under the preprocessing "
            f"{header.preprocessing or header.preprocess}, this run's is {real.preprocess.config()}. Use "
            + (f"dataset.preprocess={theirs} and the data they were fitted to" if theirs else "theirs")
            + ", or method.experts.source=null"
        )
    if header.real != (real.digest, len(real.train)):
        return (
            f"the experts of {found.path} were trained on other data than {real.name} with "
            f"{len(real.train)} images. Use their dataset, or method.experts.source=null"
        )
    missing = sorted(set(epochs) - set(header.epochs))
    if missing:
        first, last = _longest_run(header.epochs)
        return (
            f"the window asks for epoch {missing[0]}, the buffer {found.path} holds {list(header.epochs)}. "
            f"Use method.window.first>={first} and method.window.stop - 1 + method.expert_epochs <= {last}"
        )
    return None


def _as_tuples(value: Any) -> Any:
    """Returns nested lists as tuples: JSON knows no tuples."""
    return tuple(map(_as_tuples, value)) if isinstance(value, list | tuple) else value


def _longest_run(epochs: tuple[int, ...]) -> tuple[int, int]:
    """Returns the ends of the longest run of consecutive epochs."""
    best = start = end = epochs[0]
    length = 0
    for epoch in epochs:
        start = epoch if epoch > end + 1 else start
        end = epoch
        if end - start > length:
            best, length = start, end - start
    return best, best + length
