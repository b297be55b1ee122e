"""Architecture search on a synthetic set: does it rank networks as the whole training set does?"""

from __future__ import annotations

import itertools
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
from ._references import Reference, of_length
from ._scoring import measurement, random_control

DESIGNS = 10_000
"""Balanced samples of the space that are tried for one without a repetition."""


class NAS(Evaluator):
    """Ranks ConvNets by what they learn from the set, and compares with what they learn from the whole training set.

    The space is every combination of the knobs in `space` (DC's 720: widths, depths, norms, activations, pooling), or
    `sample` of them, of which each value of a knob has as many as every other.

    Frozen for this suite where the papers (DC, DSA, DM, DataDAM, FTD) differ or are silent: proxies are ranked by
    accuracy on images held out of *train* (`dataset.val_fraction=0.1`), never on test; the reference is the test
    accuracy after `whole_epochs` on the rest of train, the mean of `whole_networks`; the top is the best `top` of the
    space by the reference. A set that was distilled without holding them out has seen these images.

    Repeat r trains every network once from seed r. Of each, for the set itself, for as many random images
    (`random ...`) and for the whole training set stopped after as many steps, at the first rate (`early ...`):

    - `spearman`, `kendall`: rank correlation with the reference over the space; `spearman_top` and `kendall_top` over
      the top, with the ends of their bootstrap intervals over networks (`_low`, `_high`), and of how much better the
      set does than the other two (`over random spearman_low`);
    - `performance`: reference accuracy of the network that is ranked first, beside `whole performance`, of the one that
      is best on the held-out images after the whole training;
    - `seconds` of all trainings, and how many networks were `not finite` at their end: these answer by chance.

    One training a network blurs a ranking: `mean of repeats: ...`, beside the last repeat, ranks by the mean accuracy
    over all of them, which is what is frozen for three or more. The reference is the same whatever the run's seed.
    Every training is cached on its own: a killed search goes on where it was.
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
        """Takes the space, how much of it, and how long the reference trains.

        Raises:
            ValueError: a value is out of range.
        """
        self.every = [dict(zip(space, values, strict=True)) for values in itertools.product(*space.values())]
        for name, value in (
            ("num_repeats", num_repeats),
            ("whole_epochs", whole_epochs),
            ("whole_networks", whole_networks),
        ):
            if value < 1:
                raise ValueError(f"evaluator.{name}={value}: wanted at least one")
        if sample is not None and not 3 <= sample <= len(self.every):
            raise ValueError(
                f"evaluator.sample={sample}: wanted 3 to {len(self.every)}, or null for all of them"
            )
        self.count = sample or len(self.every)
        if not 0 < top <= 1 or round(top * self.count) < 3:
            raise ValueError(
                f"evaluator.top={top} of {self.count} networks: wanted a share in (0, 1] that is three or more"
            )
        self.space, self.sample, self.num_repeats = space, sample, num_repeats
        self.whole_epochs, self.whole_networks, self.top = whole_epochs, whole_networks, top

    def check_protocol(self, protocol: Protocol) -> str | None:
        """See `Evaluator`."""
        if protocol.labels is not None or protocol.selection != "last" or protocol.lr_grid:
            return (
                f"evaluator nas trains hundreds of networks with their own labels to the last step, which protocol "
                f"{protocol.name} does not. Use protocol=nas-200"
            )
        return None

    def check_set(self, syn: SyntheticSet, real: RealSet) -> str | None:
        """See `Evaluator`."""
        if isinstance(syn, SyntheticImages):
            return None
        return f"evaluator nas measures images, this set holds {syn.kind}. Use evaluator=graph"

    def check_dataset(self, real: RealSet, architecture: Architecture) -> str | None:
        """See `Evaluator`; the first network of the space that cannot take the images is named.

        Raises:
            ValueError: the run's network lacks a knob of the space.
        """
        if real.modality != "image":
            return None  # no set of theirs is measured
        if real.val is None:
            return "networks are ranked on images held out of train, and there are none. Use dataset.val_fraction=0.1"
        for knobs in self.chosen():
            if reason := architecture.override(**knobs).check_shape():
                return f"of the space, {knobs}: {reason}. Use a smaller evaluator.space"
        return None

    def run(self, syn: SyntheticSet, real: RealSet, ctx: EvaluationContext) -> Iterator[Measurement]:
        """See `Evaluator`; one repeat of the whole search at a time."""
        assert isinstance(syn, SyntheticImages)
        networks = [ctx.architecture.override(**knobs) for knobs in self.chosen()]
        recipe = ctx.protocol.recipe
        whole = _Search(Reference(real, of_length(recipe, self.whole_epochs), ctx.runtime, ctx.cache.root))
        found = [whole.measured(networks, seed_for(0, "whole", i), ctx) for i in range(self.whole_networks)]
        reference, held_out = (np.mean([f[split] for f in found], 0) for split in ("test", "val"))
        done: dict[str, list[Array]] = {}  # the accuracies of each repeat, for their mean
        for repeat in range(self.num_repeats):
            last = repeat == self.num_repeats - 1
            if repeat in ctx.finished and (last or self.num_repeats - 1 in ctx.finished):
                continue
            seed, values, rankings = ctx.seed_for("evaluate", repeat), dict[str, float](), dict[str, Array]()
            for name, search in self._searches(whole, syn, real, repeat, ctx).items():
                each = search.measured(networks, seed, ctx)
                rankings[name] = each["val"]
                done.setdefault(name, []).append(each["val"])
                values |= {f"{name}{k}": v for k, v in agreement(each["val"], reference, self.top).items()}
                values[f"{name}seconds"] = float(each["seconds"].sum())
                values[f"{name}not finite"] = float((1 - each["finite"]).sum())
            if repeat in ctx.finished:
                continue
            values |= intervals(rankings, reference, self.top, seed)
            values["whole performance"] = float(reference[held_out.argmax()])
            values["whole seconds"] = float(sum(f["seconds"].sum() for f in found))
            if last:
                for name, repeats in done.items():
                    mean = agreement(np.mean(repeats, 0), reference, self.top)
                    values |= {f"mean of repeats: {name}{k}": v for k, v in mean.items()}
            yield measurement(repeat, seed, values)

    def _searches(
        self, whole: _Search, syn: SyntheticImages, real: RealSet, repeat: int, ctx: EvaluationContext
    ) -> dict[str, _Search]:
        """Returns the search on the set, on random images, and on the whole training set for as many steps."""
        images, labels = syn.network_inputs(ctx.device)
        recipe = ctx.protocol.at_rate(syn.lr).recipe
        steps = recipe.steps or recipe.epochs * recipe.steps_an_epoch(len(images))
        drawn = random_control(real, ctx, "random images", repeat)
        as_long = recipe.in_step_with(len(drawn.labels), len(images))
        return {
            "": whole.on(recipe, images, labels, syn.identity()),
            "random ": whole.on(as_long, *drawn.network_inputs(ctx.device), drawn.identity()),
            "early ": _Search(replace(whole.reference, recipe=_stopped(recipe, steps))),
        }

    def chosen(self) -> list[dict[str, Any]]:
        """Returns the knobs of the networks that are searched: all, or a balanced sample that no seed changes."""
        if self.sample is None:
            return self.every
        draws, sizes = np.random.default_rng(0), [len(values) for values in self.space.values()]
        for _ in range(DESIGNS):
            columns = [draws.permutation(np.resize(np.arange(size), self.sample)) for size in sizes]
            rows = sorted({tuple(map(int, row)) for row in zip(*columns, strict=True)})
            if len(rows) == self.sample:
                break
        else:  # so many that none is without a repetition
            rows = sorted(itertools.product(*map(range, sizes)), key=lambda _: draws.random())[: self.sample]
        names, values = list(self.space), list(self.space.values())
        return [dict(zip(names, (values[k][i] for k, i in enumerate(row)), strict=True)) for row in rows]


@dataclass(frozen=True)
class _Search:
    """One way to train every network of the space."""

    reference: Reference

    def on(self, recipe: Recipe, images: Inputs, labels: Tensor, identity: str) -> _Search:
        """Returns the search on these images instead of the training set."""
        return _Search(
            replace(self.reference, recipe=recipe, images=images, labels=labels, identity=identity)
        )

    def measured(
        self, networks: Sequence[Architecture], seed: int, ctx: EvaluationContext
    ) -> dict[str, Array]:
        """Returns what `Reference.of` says of each network, training what is not in the cache.

        Several runs that want one reference begin at different networks, so that they share the work.
        """
        n = len(networks)
        order = [(os.getpid() + i) % n for i in range(n)]
        missing = [i for i in order if not self.reference.known(networks[i], seed)]
        workers, began = min(ctx.runtime.workers, len(missing)), time.monotonic()
        if workers > 1:
            shared, jobs = (self.reference.shared(), list(networks)), [(i, seed) for i in missing]
            for _ in run_in_processes(_trained, shared, jobs, workers):
                pass
            ctx.cache.spent += time.monotonic() - began
        found = {i: self.reference.of(networks[i], seed, ctx.cache) for i in order}
        return {name: np.array([found[i][name] for i in range(n)]) for name in found[0]}


def _trained(
    shared: tuple[Reference, list[Architecture]], job: tuple[int, int], tick: Tick
) -> dict[str, float]:
    (reference, networks), (i, seed) = shared, job
    return reference.of(networks[i], seed)


def _stopped(recipe: Recipe, steps: int) -> Recipe:
    """Returns the recipe for the first so many steps, at its first rate: they may be less than an epoch."""
    return recipe.model_copy(
        update={"steps": steps, "epochs": 1, "milestones": (), "warmup": 0, "schedule": "milestones"}
    )
