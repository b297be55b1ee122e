"""Accuracy of the first images of each class of a set, and the IPC from which on selected images are as good."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from dd_bench.api import (
    EvaluationContext,
    ImageSet,
    Measurement,
    Protocol,
    QuantisedSet,
    RealSet,
    Recipe,
    SyntheticSet,
    class_embeddings,
    feature_network,
    generator,
    parse,
    representatives,
    seed_for,
)

from ._ipc_curve import describe_enough, describe_equivalent, describe_fit
from ._references import Reference
from ._scoring import check_at_least, check_images, measurement
from .accuracy import Accuracy

CONTROLS = ("random", "kmeans")
MakeSet = Callable[[int], ImageSet]
"""Maps the number of a network to the set that it is trained on."""


class Prefixes(Accuracy):
    """`accuracy` of the set, and of its prefixes: `set:K` is the accuracy on the first K images of each class.

    A set that was distilled at one IPC need not contain a good set of fewer images (nesting), and real images may reach
    the accuracy of the set at a larger IPC (scaling). The controls are measured at the same IPCs and at `extra` larger
    ones:

    - `random:K`: random real images. Network i has its own draw, whose first K images of each class are used.
    - `kmeans:K`: the images nearest to K centroids of each class, in the features of a network trained on the whole
      training set, as with `method=kmeans`.

    Network i has the same seed for all sets and IPCs, so that all comparisons are paired. It is trained as with
    `evaluator=accuracy`, on K images per class for the epochs of the protocol. All trainings are cached: the sets of a
    dataset share the controls, and a killed run continues.

    Notes of the record contain, for the set and the controls, a power law `limit - scale * ipc^-exponent` fitted to the
    mean accuracies, and for each control:

    - from which measured IPC on it is not significantly below the prefixes of the set (paired t intervals of 95 %), if
      there are at least five networks;
    - how many of its images per class reach the accuracy of the whole set: interpolated between measured IPCs for each
      network, with an interval over networks. Values beyond the measured IPCs are marked as extrapolated.

    Sets with soft labels must be sorted by class, as those of all methods here. A learned learning rate is used for all
    prefixes.
    """

    main_metric = "accuracy"
    smoke = (
        "evaluator.num_networks=2",
        "evaluator.ipcs=[1]",
        "evaluator.controls=[kmeans]",
        "evaluator.features.epochs=1",
    )

    def __init__(
        self,
        *,
        num_networks: int,
        ipcs: list[int],
        controls: list[str],
        extra: int,
        features: dict[str, Any],
        restarts: int,
    ):
        """See `conf/evaluator/prefixes.yaml` for the arguments.

        Raises:
            ValueError: a value is too small, a control is unknown, or the recipe is wrong.
        """
        super().__init__(num_networks=num_networks)
        if not ipcs:
            raise ValueError("evaluator.ipcs must not be empty, got []. Example: evaluator.ipcs=[1,10]")
        check_at_least(1, restarts=restarts)
        if min(ipcs) < 1:
            raise ValueError(
                f"evaluator.ipcs must be numbers >= 1, got {min(ipcs)}. Example: evaluator.ipcs=[1,10]"
            )
        check_at_least(0, extra=extra)
        if unknown := set(controls) - set(CONTROLS):
            raise ValueError(
                f"evaluator.controls must be a list of {' and '.join(CONTROLS)}, got {min(unknown)!r}. "
                "Example: evaluator.controls=[random]"
            )
        self.ipcs, self.controls, self.extra, self.restarts = sorted(set(ipcs)), controls, extra, restarts
        self.recipe = parse(Recipe, features, "evaluator.features")
        self._selections: dict[int, ImageSet] = {}

    def check_protocol(self, protocol: Protocol) -> str | None:
        """See `Evaluator`. The trainings are cached, without labels of teachers and without selection."""
        if protocol.selection == "last" and protocol.labels is None:
            return None
        labels = "labels=null" if protocol.labels is None else f"labels.kind={protocol.labels.kind}"
        return (
            "evaluator prefixes requires a protocol with selection=last and without labels of teachers, but protocol "
            f"{protocol.name} has selection={protocol.selection} and {labels}. Use protocol=dc-300 or mtt-1000"
        )

    def check_set(self, syn: SyntheticSet, real: RealSet) -> str | None:
        """See `Evaluator`."""
        if reason := check_images(syn):
            return reason
        if syn.whole:
            return (
                "evaluator prefixes requires a set with a fixed number of images per class, got the whole training "
                "set. Use evaluator=accuracy"
            )
        if not isinstance(syn, ImageSet | QuantisedSet):
            return (
                f"evaluator prefixes requires a set that stores only images and labels, got a set of kind {syn.kind}, "
                "whose parts belong to all images together. Use evaluator=accuracy"
            )
        return None

    def run(self, syn: SyntheticSet, real: RealSet, ctx: EvaluationContext) -> Iterator[Measurement]:
        """See `Evaluator`."""
        assert isinstance(syn, ImageSet | QuantisedSet), "check_set rejects other sets"
        syn = syn.decoded if isinstance(syn, QuantisedSet) else syn
        protocol = ctx.protocol.with_learned_lr(syn.lr)
        self._selections.clear()  # of another set's dataset
        curves = self._sets(syn, real, ctx)
        scores: dict[str, dict[int, list[float]]] = {name: {} for name in curves}
        for network in range(self.num_networks):
            seed, values = ctx.seed_for("evaluate", network), {}
            for name, sets in curves.items():
                used = protocol if name == "set" else ctx.protocol
                for ipc, make in sets.items():
                    value = _accuracy(make(network), used, seed, real, ctx)
                    scores[name].setdefault(ipc, []).append(value)
                    values[f"{name}:{ipc}"] = value
            values = {self.main_metric: scores["set"][ctx.ipc][-1]} | values
            if network not in ctx.finished:  # the notes need the scores of all networks
                yield measurement(network, seed, values)
        notes, smallest = [], int(real.train.counts.min())
        if protocol != ctx.protocol:
            notes.append(f"prefixes were trained at the set's learned rate {protocol.recipe.lr:.4g}")
        if self.controls and smallest < max(self._ipcs(ctx.ipc, cells_of(syn))[1]):
            notes.append(
                f"the controls are measured only at IPCs up to {smallest}, the size of the smallest real class"
            )
        yield Measurement(notes=notes, results=self._results(scores, ctx.ipc))

    def _results(self, scores: dict[str, dict[int, list[float]]], ipc: int) -> list[str]:
        measured = {name: curve for name, curve in scores.items() if curve}
        results = [describe_fit(name, curve) for name, curve in measured.items()]
        for name in self.controls:
            results.append(describe_enough(name, scores[name], scores["set"]))
            if name in measured:
                results.append(describe_equivalent(name, scores[name], scores["set"][ipc], ipc))
        return results

    def _ipcs(self, ipc: int, cells: int) -> tuple[list[int], list[int]]:
        """Return the IPCs of the prefixes of a set, and those of the controls if all classes are large enough.

        A prefix has complete stored images, with `cells` images each.
        """
        own = sorted({k for k in self.ipcs if k < ipc and k % cells == 0} | {ipc})
        return own, [*own, *[k for k in self.ipcs if k > ipc][: self.extra]]

    def _sets(self, syn: ImageSet, real: RealSet, ctx: EvaluationContext) -> dict[str, dict[int, MakeSet]]:
        """Return the functions that make the training sets, by name (`set` or a control) and IPC."""
        cells = cells_of(syn)
        own, shared = self._ipcs(ctx.ipc, cells)
        shared = [k for k in shared if k <= int(real.train.counts.min())]
        makers = {"random": partial(_random, real, ctx.seed), "kmeans": partial(self._kmeans, real, ctx)}
        sets: dict[str, dict[int, MakeSet]] = {
            "set": {k: partial(_same, prefix(syn, k // cells)) for k in own}
        }
        return sets | {name: {k: partial(makers[name], k) for k in shared} for name in self.controls}

    def _kmeans(self, real: RealSet, ctx: EvaluationContext, ipc: int, network: int) -> ImageSet:
        """Return the selection of k-means, which is the same for all networks and seeds of a run."""
        if ipc not in self._selections:
            net = feature_network(real, ctx.architecture, self.recipe, 0, ctx)
            chosen = []
            for c in range(real.num_classes):
                features = class_embeddings(net, real, c).double()
                rows = representatives(features, ipc, self.restarts, seed_for(0, "prefixes", "kmeans", c))
                chosen.append(real.train.of_class(c)[rows])
            self._selections[ipc] = ImageSet.coreset(real, torch.cat(chosen))
        return self._selections[ipc]


def cells_of(syn: ImageSet) -> int:
    """Return the number of images that a stored image counts as: a canvas has several."""
    return syn.canvas**2


def prefix(syn: ImageSet, stored: int) -> ImageSet:
    """Return the set of the first `stored` stored images of each class."""
    k, n = len(syn.class_names), len(syn.labels)
    classes = syn.labels if syn.labels.ndim == 1 else torch.arange(n) // (n // k)
    index = torch.cat([(classes == c).nonzero()[:stored, 0] for c in range(k)])
    source = None if syn.source is None else tuple(syn.source[i] for i in index.tolist())
    return replace(syn, images=syn.images[index], labels=syn.labels[index], source=source)


def _same(syn: ImageSet, network: int) -> ImageSet:
    return syn


def _random(real: RealSet, seed: int, ipc: int, network: int) -> ImageSet:
    """Return random real images. A draw of fewer images per class has the first ones of a larger draw."""
    rng = generator(real.train.labels.device, seed, "prefixes", "random", network)
    return ImageSet.coreset(real, real.train.draw(ipc, rng).flatten())


def _accuracy(syn: ImageSet, protocol: Protocol, seed: int, real: RealSet, ctx: EvaluationContext) -> float:
    """Return the test accuracy of a fresh network that is trained on the set; cached."""
    images, labels = syn.network_inputs(ctx.device)
    training = Reference(real, protocol.recipe, ctx.runtime, ctx.cache.root, images, labels, syn.identity())
    return training.measure(ctx.architecture, seed, ctx.cache)["test"]
