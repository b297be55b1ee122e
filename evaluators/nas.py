"""Architecture search: whether a synthetic set ranks networks in the same order as the whole training set."""

from __future__ import annotations

import itertools
import math
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import Tensor

from dd_bench.api import (
    Architecture,
    EvaluationContext,
    Evaluator,
    Inputs,
    Measurement,
    Progress,
    Protocol,
    RealSet,
    Recipe,
    SyntheticImages,
    SyntheticSet,
    Tick,
    run_in_processes,
    seed_for,
)

from ._rank_agreement import Array, agreement, intervals
from ._references import Reference, with_epochs
from ._scoring import check_at_least, check_images, measurement, random_control

DESIGNS = 10_000
"""Maximum number of balanced samples of the space that are drawn until one has no duplicates."""


class NAS(Evaluator):
    """Rank ConvNets by their accuracy after training on the set, and compare with training on the whole training set.

    The space contains all combinations of the values in `space` (DC's 720 networks: width, depth, norm, activation,
    pooling), or `sample` of them in which all values of a hyper-parameter are equally frequent.

    The papers (DC, DSA, DM, DataDAM, FTD) differ in some settings or do not specify them. Here, these settings are
    fixed. Networks are ranked by accuracy on images held out from the training set (`dataset.val_fraction=0.1`), never
    on test images. The reference is the test accuracy after `whole_epochs` epochs on the rest of the training set,
    averaged over `whole_networks` networks. The top is the fraction `top` of the space with the best reference. A set
    that was distilled without this split was distilled from the held-out images too.

    Each repeat trains every network once from its own seed: on the set, on as many random images (`random ...`), and on
    the whole training set for as many steps at the initial learning rate (`early ...`). The metrics of these rankings:

    - `spearman`, `kendall`: rank correlation with the reference over the space, and `spearman_top`, `kendall_top` over
      the top. `_low` and `_high` are the ends of their bootstrap intervals over networks. `over random spearman_low`
      is an end of the interval of the set's correlation minus the correlation of random images.
    - `performance`: reference accuracy of the network that is ranked first. `whole performance` is the reference
      accuracy of the network that is best on the held-out images after training on the whole training set.
    - `seconds`: time of all trainings. `not finite`: number of networks that diverged, whose accuracy is at chance.

    With one training per network, a ranking is noisy. `mean of repeats: ...`, stored with the last repeat, ranks by the
    mean accuracy over all repeats. With three or more repeats, these values are the ones to report. The reference does
    not depend on the run's seed. Every training is cached, so that a killed search resumes.
    """

    main_metric = "spearman"
    repeats = ("num_repeats",)
    smoke = (
        "evaluator.space={width:[2,4],depth:[1],norm:[none],activation:[relu],pooling:[avg,max]}",
        "evaluator.sample=null",
        "evaluator.num_repeats=2",
        "evaluator.whole_epochs=2",
        "evaluator.top=0.75",
    )

    def __init__(
        self,
        *,
        space: dict[str, list[Any]],
        sample: int | None,
        num_repeats: int,
        whole_epochs: int,
        whole_networks: int,
        top: float,
    ):
        """See `conf/evaluator/nas.yaml` for the arguments.

        Raises:
            ValueError: A value is out of range.
        """
        self.grid = [dict(zip(space, values, strict=True)) for values in itertools.product(*space.values())]
        check_at_least(1, num_repeats=num_repeats, whole_epochs=whole_epochs, whole_networks=whole_networks)
        if sample is not None and not 3 <= sample <= len(self.grid):
            raise ValueError(
                f"evaluator.sample must be in 3..{len(self.grid)}, or null for the whole space, got {sample}. "
                "Example: evaluator.sample=null"
            )
        self.count = sample or len(self.grid)
        if not 0 < top <= 1 or round(top * self.count) < 3:
            raise ValueError(
                f"evaluator.top must be in (0, 1] and select at least 3 of {self.count} networks, got {top}. "
                f"Example: evaluator.top={min(1.0, math.ceil(300 / self.count) / 100):g}"
            )
        self.space, self.sample, self.num_repeats = space, sample, num_repeats
        self.whole_epochs, self.whole_networks, self.top = whole_epochs, whole_networks, top

    def check_protocol(self, protocol: Protocol) -> str | None:
        """See `Evaluator`."""
        if protocol.labels is not None or protocol.selection != "last" or protocol.lr_grid:
            labels = "labels=null" if protocol.labels is None else f"labels.kind={protocol.labels.kind}"
            return (
                "evaluator nas requires a protocol with labels=null, selection=last and lr_grid=[], but protocol "
                f"{protocol.name} has {labels}, "
                f"selection={protocol.selection} and lr_grid={list(protocol.lr_grid)}. Use protocol=nas-200"
            )
        return None

    def check_set(self, syn: SyntheticSet, real: RealSet) -> str | None:
        """See `Evaluator`."""
        return check_images(syn)

    def check_dataset(self, real: RealSet, architecture: Architecture) -> str | None:
        """See `Evaluator`. Names the first network of the space that does not support the image shape.

        Raises:
            ValueError: The run's network does not have a hyper-parameter of the space.
        """
        if real.modality != "image":
            return None  # `check_set` rejects all sets of this dataset
        if real.val is None:
            return "evaluator nas ranks networks on a validation split. Use dataset.val_fraction=0.1"
        for settings in self.chosen():
            if reason := architecture.override(**settings).check_shape(real.train.labels.device):
                return f"network {settings} of evaluator.space: {reason}. Use a smaller evaluator.space"
        return None

    def run(self, syn: SyntheticSet, real: RealSet, ctx: EvaluationContext) -> Iterator[Measurement]:
        """See `Evaluator`. Each measurement is one repeat of the whole search."""
        assert isinstance(syn, SyntheticImages)
        networks = [ctx.architecture.override(**settings) for settings in self.chosen()]
        recipe = ctx.protocol.recipe
        whole = _Search(Reference(real, with_epochs(recipe, self.whole_epochs), ctx.runtime, ctx.cache.root))
        results = [whole.measure(networks, seed_for(0, "whole", i), ctx) for i in range(self.whole_networks)]
        reference, held_out = (np.mean([r[split] for r in results], 0) for split in ("test", "val"))
        accuracies: dict[str, list[Array]] = {}  # for each ranking, the accuracies of each repeat
        for repeat in range(self.num_repeats):
            last = repeat == self.num_repeats - 1
            if repeat in ctx.finished and (last or self.num_repeats - 1 in ctx.finished):
                continue
            seed, values, rankings = ctx.seed_for("evaluate", repeat), dict[str, float](), dict[str, Array]()
            for name, search in self._searches(whole, syn, real, repeat, ctx).items():
                result = search.measure(networks, seed, ctx)
                rankings[name] = result["val"]
                accuracies.setdefault(name, []).append(result["val"])
                values |= {f"{name}{k}": v for k, v in agreement(result["val"], reference, self.top).items()}
                values[f"{name}seconds"] = float(result["seconds"].sum())
                values[f"{name}not finite"] = float((1 - result["finite"]).sum())
            if repeat in ctx.finished:
                continue
            values |= intervals(rankings, reference, self.top, seed)
            values["whole performance"] = float(reference[held_out.argmax()])
            values["whole seconds"] = float(sum(r["seconds"].sum() for r in results))
            if last:
                for name, repeats in accuracies.items():
                    mean = agreement(np.mean(repeats, 0), reference, self.top)
                    values |= {f"mean of repeats: {name}{k}": v for k, v in mean.items()}
            yield measurement(repeat, seed, values)

    def _searches(
        self, whole: _Search, syn: SyntheticImages, real: RealSet, repeat: int, ctx: EvaluationContext
    ) -> dict[str, _Search]:
        """Return the searches on the set, on random images and on the whole training set, with equally many steps."""
        images, labels = syn.network_inputs(ctx.device)
        recipe = ctx.protocol.with_learned_lr(syn.lr).recipe
        steps = recipe.steps or recipe.epochs * recipe.steps_per_epoch(len(images))
        control = random_control(real, ctx, "random images", repeat)
        equal_steps = recipe.match_steps(len(control.labels), len(images))
        return {
            "": whole.on(recipe, images, labels, syn.identity()),
            "random ": whole.on(equal_steps, *control.network_inputs(ctx.device), control.identity()),
            "early ": _Search(replace(whole.reference, recipe=_early_stopped(recipe, steps))),
        }

    def chosen(self) -> list[dict[str, Any]]:
        """Return the hyper-parameters of the searched networks: all, or a balanced sample independent of any seed."""
        if self.sample is None:
            return self.grid
        rng, sizes = np.random.default_rng(0), [len(values) for values in self.space.values()]
        for _ in range(DESIGNS):
            columns = [rng.permutation(np.resize(np.arange(size), self.sample)) for size in sizes]
            rows = sorted({tuple(map(int, row)) for row in zip(*columns, strict=True)})
            if len(rows) == self.sample:
                break
        else:  # the sample is so large that balanced samples have duplicates: draw an unbalanced one
            rows = sorted(itertools.product(*map(range, sizes)), key=lambda _: rng.random())[: self.sample]
        names, values = list(self.space), list(self.space.values())
        return [dict(zip(names, (values[k][i] for k, i in enumerate(row)), strict=True)) for row in rows]


@dataclass(frozen=True)
class _Search:
    """Training of every network of the space on the same data with the same recipe."""

    reference: Reference

    def on(self, recipe: Recipe, images: Inputs, labels: Tensor, identity: str) -> _Search:
        """Return the search that trains every network on these images instead of the training set."""
        return _Search(
            replace(self.reference, recipe=recipe, images=images, labels=labels, identity=identity)
        )

    def measure(
        self, networks: Sequence[Architecture], seed: int, ctx: EvaluationContext
    ) -> dict[str, Array]:
        """Return each value of `Reference.measure` for all networks `(n,)`; networks that are not cached are trained.

        The order depends on the process ID, so that several runs with the same reference share the work.
        """
        n = len(networks)
        order = [(os.getpid() + i) % n for i in range(n)]
        missing = [i for i in order if not self.reference.is_cached(networks[i], seed)]
        workers, began = min(ctx.runtime.workers, len(missing)), time.monotonic()
        if workers > 1:
            shared, jobs = (self.reference.shared(), list(networks)), [(i, seed) for i in missing]
            with Progress("networks of the space", len(jobs) * self.reference.epochs) as progress:
                for _ in run_in_processes(
                    _measure, shared, jobs, workers, lambda ticks: progress.advance_to(ticks, {})
                ):
                    pass
            ctx.cache.spent += time.monotonic() - began
        results = {i: self.reference.measure(networks[i], seed, ctx.cache) for i in order}
        return {name: np.array([results[i][name] for i in range(n)]) for name in results[0]}


def _measure(
    shared: tuple[Reference, list[Architecture]], job: tuple[int, int], tick: Tick
) -> dict[str, float]:
    (reference, networks), (i, seed) = shared, job
    return reference.measure(networks[i], seed, tick=tick)


def _early_stopped(recipe: Recipe, steps: int) -> Recipe:
    """Return the recipe with `steps` steps, which can be less than an epoch, and a constant learning rate."""
    return recipe.model_copy(
        update={"steps": steps, "epochs": 1, "milestones": (), "warmup": 0, "schedule": "milestones"}
    )
