"""Fresh graph networks trained on a synthetic set, beside the controls without which no graph table says anything.

On several collections the number of nodes alone reaches the published numbers, and picking the step that is best on
validation graphs hides what the labels are worth. So the score is the last step's, and each record has the controls.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dd_bench.api import (
    GRAPH_METRICS,
    Diverged,
    EvaluationContext,
    Evaluator,
    GraphMetric,
    GraphSplit,
    LabelledBatches,
    Measurement,
    Protocol,
    RealSet,
    SyntheticGraphs,
    SyntheticSet,
    Target,
    Weighted,
    generator,
    graph_score,
    majority,
    seed_for,
    size_only,
    train,
    training_graphs,
)

from ._scoring import measurement

BATCH = 1000  # graphs scored at once


@dataclass(frozen=True)
class Splits:
    """What a network is scored on, each batched once for all networks."""

    val: list[tuple[object, Tensor]]
    test: list[tuple[object, Tensor]]


class Graph(Evaluator):
    """Trains `num_networks` fresh networks under the run's protocol, and scores each of them on the test graphs.

    - `auc`, `accuracy`, `balanced_accuracy` after the last step; `metric` says which of them is ranked;
    - `best_val`: `metric` at the step that was best on the validation graphs, one of `eval_points`, or of a
      few less where they do not divide the steps;
    - `untrained`: `metric` of the network before its first step;
    - `permuted`: `metric` of the network trained on the same set with its labels shuffled among its samples. The whole
      training set is no distilled set, and as dear as all else: it has no such control;
    - `size_only` and `majority`: of logistic regression on the number of nodes of the training graphs, and of always
      saying the most frequent class. They are the same for every network.
    """

    repeats = ("num_networks", "eval_points")

    def __init__(self, *, num_networks: int, metric: str, eval_points: int):
        """Takes the number of fresh networks a set, what ranks, and how often to look at the validation graphs."""
        if num_networks < 1:
            raise ValueError(f"evaluator.num_networks={num_networks}: at least one network must be trained")
        if metric not in GRAPH_METRICS:
            raise ValueError(f"evaluator.metric={metric}: wanted one of {', '.join(GRAPH_METRICS)}")
        if eval_points < 1:
            raise ValueError(f"evaluator.eval_points={eval_points}: wanted at least one")
        self.num_networks, self.eval_points = num_networks, eval_points
        self.main_metric = metric
        self.metric: GraphMetric = metric  # type: ignore[assignment]  # it is one of them

    def check_protocol(self, protocol: Protocol) -> str | None:
        """See `Evaluator`: the last step is scored, and graphs are shown as they are."""
        recipe = protocol.recipe
        for knob, value, wanted in (
            ("selection", protocol.selection, "last"),
            ("lr_grid", protocol.lr_grid, ()),
            ("labels", protocol.labels, None),
            ("recipe.augment", recipe.augment, "none"),
            ("recipe.cutmix", recipe.cutmix, 0),
            ("recipe.views", recipe.views, None),
        ):
            if value != wanted:
                return (
                    f"protocol {protocol.name} has {knob}={value if isinstance(value, str | float) else '...'}, which "
                    "evaluator graph does not know. Use protocol=graph-500"
                )
        return None

    def check_set(self, syn: SyntheticSet, real: RealSet) -> str | None:
        """See `Evaluator`."""
        if isinstance(syn, SyntheticGraphs):
            return None
        return f"evaluator graph measures graphs, this set holds {syn.kind}. Use evaluator=accuracy"

    def run(self, syn: SyntheticSet, real: RealSet, ctx: EvaluationContext) -> Iterator[Measurement]:
        """See `Evaluator`."""
        assert isinstance(syn, SyntheticGraphs) and isinstance(real.test, GraphSplit)
        train_split = training_graphs(real)
        yield Measurement(notes=tuple(syn.caveats(ctx.architecture)))
        constant = {f.__name__: f(self.metric, train_split, real.test) for f in (size_only, majority)}
        val = [] if real.val is None else list(real.val.batches(BATCH))
        splits = Splits(val, list(real.test.batches(BATCH)))  # type: ignore[arg-type]
        for network in range(self.num_networks):
            if network in ctx.finished:
                continue
            seed = ctx.seed_for("evaluate", network)
            values = self._scores(syn, seed, splits, ctx)
            if not syn.whole:
                shuffled = syn.permute_labels(generator("cpu", seed, "permuted"))
                values["permuted"] = self._scores(shuffled, seed, replace(splits, val=[]), ctx)[self.metric]
            yield measurement(network, seed, {**values, **constant})

    def _scores(
        self, syn: SyntheticGraphs, seed: int, splits: Splits, ctx: EvaluationContext
    ) -> dict[str, float]:
        """Trains one network from `seed`; the same seed starts and orders the same, whatever the labels."""
        net = ctx.architecture.fresh(seed_for(seed, "init"), ctx.device)
        n, recipe = len(syn.labels), ctx.protocol.recipe
        steps = recipe.steps or recipe.epochs * recipe.steps_an_epoch(n)

        def answers(batches: list[tuple[object, Tensor]]) -> tuple[Tensor, Tensor]:
            logits, labels = _answers(net, batches)
            if not bool(torch.isfinite(logits).all()):
                raise Diverged(
                    "the answers of a fresh network are not finite. Try a smaller protocol.recipe.lr than "
                    f"{recipe.lr}"
                )
            return logits, labels

        first = graph_score(self.metric, *answers(splits.test))
        best = (-1.0, first)

        def evaluate_step(step: int) -> None:
            nonlocal best
            if step % math.ceil(steps / self.eval_points) and step != steps:
                return
            value = graph_score(self.metric, *answers(splits.val))
            if value > best[0]:
                best = (value, graph_score(self.metric, *answers(splits.test)))

        fetch, labelled_batches = _labelled_batches(
            syn, recipe.batch_size, seed_for(seed, "train"), ctx.device
        )
        train(
            net,
            fetch,  # type: ignore[arg-type]  # graphs instead of a tensor
            n,
            recipe,
            seed=seed_for(seed, "train"),
            runtime=ctx.runtime.in_float32(),
            flip=False,
            on_step=evaluate_step if splits.val else None,
            labelled_batches=labelled_batches,
        )
        logits, labels = answers(splits.test)
        values = {metric: graph_score(metric, logits, labels) for metric in GRAPH_METRICS}
        return values | ({"best_val": best[1]} if splits.val else {}) | {"untrained": first}


def _labelled_batches(
    syn: SyntheticGraphs, batch_size: int, seed: int, device: torch.device
) -> tuple[object, LabelledBatches | None]:
    """Returns where batches come from, and how they are drawn if that is not the plain shuffle."""
    graphs, labels = syn.materialise(device)
    weights = syn.weights().to(device)
    every = graphs[torch.arange(len(graphs), device=device)]

    def fetch(index: Tensor) -> tuple[object, Tensor]:
        one_batch = len(labels) <= batch_size  # then it comes in order, and is the same at every step
        return every if one_batch else graphs[index], labels[index]

    if syn.weighting == "none":
        return fetch, None

    def drawn(epoch: int) -> Iterator[tuple[Tensor, Tensor, Target]]:
        n, size = len(labels), min(batch_size, len(labels))
        of = generator(device, seed, "drawn", epoch)
        for _ in range(-(-n // batch_size)):
            if syn.weighting == "sampling":
                index = torch.multinomial(weights, size, replacement=True, generator=of)
                target: Target = labels[index]
            else:
                index = torch.randperm(n, generator=of, device=device)[:size]
                target = Weighted(labels[index], weights[index])
            batch = graphs[index]
            yield batch, batch, target  # type: ignore[misc]

    return fetch, drawn


@torch.no_grad()
def _answers(net: torch.nn.Module, batches: list[tuple[object, Tensor]]) -> tuple[Tensor, Tensor]:
    """Returns logits `(n, k)` and labels `(n,)` in eval mode; the mode stays as it was."""
    training = net.training
    net.eval()
    logits = torch.cat([net(graphs) for graphs, _ in batches])
    net.train(training)
    return logits, torch.cat([labels for _, labels in batches])
