"""Architecture search on a synthetic set: does it rank networks as the whole training set does?"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kendalltau, spearmanr
from torch import Tensor

from dd_bench.architecture import Architecture
from dd_bench.base import Context, Evaluator
from dd_bench.inputs import Inputs
from dd_bench.processes import Tick, spread
from dd_bench.protocol import Protocol, Recipe
from dd_bench.real import RealSet
from dd_bench.record import Score
from dd_bench.synthetic import ImageSet, SyntheticImages, SyntheticSet

from .references import Reference, of_length

DRAWS = 1000
"""Resamples of a bootstrap interval."""
DESIGNS = 10_000
"""Balanced samples of the space that are tried for one without a repetition."""

Array = NDArray[np.float64]


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
      the top;
    - `performance`: reference accuracy of the network that is ranked first.

    `spearman_low` and `_high` (and so on) bound the 95 % bootstrap interval over networks of the set's correlations;
    `whole performance` is of the network that is best on the held-out images after the whole training.
    Every training is cached on its own: a killed search goes on where it was.
    """

    main_metric = "spearman"
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

    def refuses(self, protocol: Protocol) -> str | None:
        """See `Evaluator`."""
        if protocol.labels is not None or protocol.selection != "last" or protocol.lr_grid:
            return (
                f"evaluator nas trains hundreds of networks with their own labels to the last step, which protocol "
                f"{protocol.name} does not. Use protocol=nas-200"
            )
        return None

    def unsupported(self, syn: SyntheticSet, real: RealSet) -> str | None:
        """See `Evaluator`."""
        if isinstance(syn, SyntheticImages):
            return None
        return f"evaluator nas measures images, this set holds {syn.kind}. Use evaluator=graph"

    def unfit(self, real: RealSet) -> str | None:
        """See `Evaluator`."""
        if real.val is None:
            return "networks are ranked on images held out of train, and there are none. Use dataset.val_fraction=0.1"
        return None

    def run(self, syn: SyntheticSet, real: RealSet, ctx: Context) -> Iterator[list[Score]]:
        """See `Evaluator`; one repeat of the whole search at a time."""
        assert isinstance(syn, SyntheticImages)
        networks = [ctx.architecture.override(**knobs) for knobs in self.chosen()]
        whole = _Search(
            Reference(real, of_length(ctx.protocol.recipe, self.whole_epochs), ctx.runtime, ctx.cache.root)
        )
        found = [
            whole.accuracies(networks, ctx.seed_for("whole", i), ctx) for i in range(self.whole_networks)
        ]
        reference, held_out = (np.mean([f[split] for f in found], 0) for split in ("test", "val"))
        images, labels = syn.shown(ctx.device)
        recipe = ctx.protocol.at_rate(syn.lr).recipe
        steps = recipe.steps or recipe.epochs * recipe.steps_an_epoch(len(images))
        for repeat in range(self.num_repeats):
            if repeat in ctx.finished:
                continue
            seed = ctx.seed_for("evaluate", repeat)
            index = real.train.draw(
                self._per_class(real, ctx), ctx.generator("random images", repeat)
            ).flatten()
            drawn = ImageSet.coreset(real, index)
            beside = recipe.in_step_with(len(drawn.labels), len(images))
            proxies = {
                "": whole.on(recipe, images, labels, syn.identity()),
                "random ": whole.on(beside, *drawn.shown(ctx.device), drawn.identity()),
                "early ": _Search(replace(whole.reference, recipe=_stopped(recipe, steps))),
            }
            values = {"whole performance": float(reference[held_out.argmax()])}
            for name, search in proxies.items():
                ranked = search.accuracies(networks, seed, ctx)["val"]
                values |= {f"{name}{k}": v for k, v in self.agreement(ranked, reference).items()}
                if not name:
                    values |= self._intervals(ranked, reference, seed)
            yield [Score(metric=m, value=v, set=0, network=repeat, seed=seed) for m, v in values.items()]

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

    def agreement(self, ranked: Array, reference: Array) -> dict[str, float]:
        """Returns the rank correlations of two accuracies a network, and the reference's of the one ranked first."""
        best = np.argsort(-reference, kind="stable")[: round(self.top * len(reference))]
        return {
            "spearman": _spearman(ranked, reference),
            "kendall": _kendall(ranked, reference),
            "spearman_top": _spearman(ranked[best], reference[best]),
            "kendall_top": _kendall(ranked[best], reference[best]),
            "performance": float(reference[ranked.argmax()]),
        }

    def _intervals(self, ranked: Array, reference: Array, seed: int) -> dict[str, float]:
        """Returns the ends of 95 % bootstrap intervals over networks, of the space and of the top."""
        draws, n, found = np.random.default_rng(seed), len(reference), dict[str, list[float]]()
        for _ in range(DRAWS):
            again = draws.integers(n, size=n)
            for name, value in self.agreement(ranked[again], reference[again]).items():
                if name != "performance":
                    found.setdefault(name, []).append(value)
        ends = {name: np.quantile(values, (0.025, 0.975)) for name, values in found.items()}
        return {
            f"{name}_{end}": float(v)
            for name, pair in ends.items()
            for end, v in zip(("low", "high"), pair, strict=True)
        }

    def _per_class(self, real: RealSet, ctx: Context) -> int:
        return min(ctx.ipc, int(real.train.counts.min()))


@dataclass(frozen=True)
class _Search:
    """One way to train every network of the space."""

    reference: Reference

    def on(self, recipe: Recipe, images: Inputs, labels: Tensor, identity: str) -> _Search:
        """Returns the search on these images instead of the training set."""
        return _Search(
            replace(self.reference, recipe=recipe, images=images, labels=labels, identity=identity)
        )

    def accuracies(self, networks: Sequence[Architecture], seed: int, ctx: Context) -> dict[str, Array]:
        """Returns the accuracy of each network on `test` and `val`, training what is not in the cache."""
        jobs, workers = [(i, seed) for i in range(len(networks))], min(ctx.runtime.workers, len(networks))
        if workers > 1:
            lent = (self.reference.lent(), list(networks))
            found = {i: value for (i, _), value in spread(_trained, lent, jobs, workers)}
        else:
            found = {i: self.reference.of(networks[i], seed, ctx.cache) for i, _ in jobs}
        return {split: np.array([found[i][split] for i, _ in jobs]) for split in found[0]}


def _trained(
    lent: tuple[Reference, list[Architecture]], job: tuple[int, int], tick: Tick
) -> dict[str, float]:
    (reference, networks), (i, seed) = lent, job
    return reference.of(networks[i], seed)


def _stopped(recipe: Recipe, steps: int) -> Recipe:
    """Returns the recipe for the first so many steps, at its first rate: they may be less than an epoch."""
    return recipe.model_copy(
        update={"steps": steps, "epochs": 1, "milestones": (), "warmup": 0, "schedule": "milestones"}
    )


def _spearman(a: Array, b: Array) -> float:
    """Returns Spearman's rank correlation; 0 where one side ranks nothing."""
    return 0.0 if np.ptp(a) == 0 or np.ptp(b) == 0 else float(spearmanr(a, b).statistic)


def _kendall(a: Array, b: Array) -> float:
    """Returns Kendall's tau-b; 0 where one side ranks nothing."""
    return 0.0 if np.ptp(a) == 0 or np.ptp(b) == 0 else float(kendalltau(a, b).statistic)
