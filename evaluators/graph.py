"""Fresh graph networks trained on a synthetic set, and the controls that are needed to interpret their scores.

On several datasets, the number of nodes alone reaches the published numbers, and selecting the best step on validation
graphs hides how much the labels contribute. Therefore the last step is scored and every record contains the controls.
Only a legacy protocol such as `mirage-legacy` scores the best epoch, to reproduce a paper.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from dd_bench.api import (
    GRAPH_METRICS,
    VALIDATION,
    Checkpoints,
    Curve,
    Diverged,
    EvaluationContext,
    Evaluator,
    GraphMetric,
    GraphSplit,
    LabelledBatches,
    Measurement,
    Protocol,
    RealSet,
    Split,
    SyntheticGraphs,
    SyntheticSet,
    Target,
    Weighted,
    generator,
    graph_score,
    majority,
    recorded_curve,
    seed_for,
    size_only,
    train,
    training_graphs,
)

from ._candidates import BestStep, candidate_steps, part_of, unsupported
from ._scoring import check_at_least, measurement

BATCH = 1000  # graphs per batch in scoring


@dataclass(frozen=True)
class Splits:
    """Validation and test batches, the same for all networks. `val` is empty if there is no validation split.

    Graphs are on the device and labels on the CPU, where scores are computed.
    """

    val: list[tuple[object, Tensor]]
    test: list[tuple[object, Tensor]]


class Graph(Evaluator):
    """Scores of `num_networks` fresh networks on the test graphs, trained under the run's protocol.

    - `auc`, `accuracy`, `balanced_accuracy`: scores after the last step. `metric` names the score that is ranked.
    - `best_val`: `metric` at the step that is best on the validation graphs. There are `eval_points` candidate steps,
      or a few less if this number does not divide the number of steps.

    Under a protocol with `selection: best_on_val`, the candidates are every `eval_every`-th epoch from `eval_from` on,
    where epoch 0 is the untrained network. The scores are then

    - `auc`, `accuracy`, `balanced_accuracy`: scores at the candidate with the highest `metric` on the validation
      graphs, the first of equal candidates;
    - `val`: `metric` of that candidate on the validation graphs;
    - `last`: `metric` after the last step, for comparison.

    Under both selection rules, there are the controls
    - `untrained`: `metric` of the network before its first step.
    - `permuted`: `metric` of a network trained on the same set with permuted labels, selected by the same rule. The
      whole training set does not have this control, because it is not a distilled set and its training is expensive.
    - `size_only`: `metric` of logistic regression on the number of nodes, fitted to the training graphs.
    - `majority`: `metric` of always predicting the most frequent class.

    `size_only` and `majority` are the same for every network.
    """

    repeats = ("num_networks", "eval_points")
    validation_scores = True

    def __init__(self, *, num_networks: int, metric: str, eval_points: int):
        """Take the number of networks per set, the ranked metric, and the number of evaluations on validation graphs.

        Raises:
            ValueError: A value is unknown or out of range.
        """
        check_at_least(1, num_networks=num_networks, eval_points=eval_points)
        if metric not in GRAPH_METRICS:
            raise ValueError(f"evaluator.metric must be one of {', '.join(GRAPH_METRICS)}, got {metric}")
        self.num_networks, self.eval_points = num_networks, eval_points
        self.main_metric = metric
        self.metric: GraphMetric = metric  # type: ignore[assignment]  # checked above

    def check_protocol(self, protocol: Protocol) -> str | None:
        """See `Evaluator`. Nothing is selected on test graphs, and graphs are not augmented."""
        return unsupported(protocol, "graph", "mirage-legacy", "graph-500")

    def check_set(self, syn: SyntheticSet, real: RealSet) -> str | None:
        """See `Evaluator`."""
        if isinstance(syn, SyntheticGraphs):
            return None
        return (
            f"evaluator graph requires a set of graphs, got a set of kind {syn.kind}. Use evaluator=accuracy"
        )

    def run(self, syn: SyntheticSet, real: RealSet, ctx: EvaluationContext) -> Iterator[Measurement]:
        """See `Evaluator`."""
        assert isinstance(syn, SyntheticGraphs) and isinstance(real.test, GraphSplit)
        train_split = training_graphs(real)
        yield Measurement(notes=tuple(syn.caveats(ctx.architecture)))
        constant = {f.__name__: f(self.metric, train_split, real.test) for f in (size_only, majority)}
        selects = ctx.protocol.selection == "best_on_val"
        if selects and real.val is None:
            raise ValueError(
                f"protocol {ctx.protocol.name} requires validation graphs, got none in {real.name}. Use "
                "protocol=graph-500"
            )
        splits = Splits(_batches(real.val), _batches(real.test))
        for network in range(self.num_networks):
            if network in ctx.finished:
                continue
            seed = ctx.seed_for("evaluate", network)
            checkpoints = [part_of(ctx.unfinished(syn), network, labels) for labels in ("true", "permuted")]
            values = self._scores(syn, seed, splits, ctx, checkpoints[0])
            if not syn.whole:
                shuffled, test = (
                    syn.permute_labels(generator("cpu", seed, "permuted")),
                    splits if selects else replace(splits, val=[]),
                )
                values["permuted"] = self._scores(shuffled, seed, test, ctx, checkpoints[1])[self.metric]
            yield measurement(network, seed, {**values, **constant})
            for checkpoint in checkpoints:
                if checkpoint is not None:
                    checkpoint.remove()

    def _scores(
        self,
        syn: SyntheticGraphs,
        seed: int,
        splits: Splits,
        ctx: EvaluationContext,
        checkpoint: Checkpoints | None,
    ) -> dict[str, float]:
        """Train one network and return its scores. Its initial weights and batch order depend on `seed` only."""
        net = ctx.architecture.fresh(seed_for(seed, "init"), ctx.device)
        n, recipe = len(syn.labels), ctx.protocol.recipe
        candidates = candidate_steps(ctx.protocol, n, self.eval_points) if splits.val else frozenset()

        def predictions(batches: list[tuple[object, Tensor]]) -> tuple[Tensor, Tensor]:
            logits, labels = _predictions(net, batches)
            if not bool(torch.isfinite(logits).all()):
                raise Diverged(
                    f"the logits of a fresh network are not finite with protocol.recipe.lr={recipe.lr}. "
                    "Use a smaller value"
                )
            return logits, labels

        def test_scores() -> dict[str, float]:
            logits, labels = predictions(splits.test)
            return {metric: graph_score(metric, logits, labels) for metric in GRAPH_METRICS}

        best, folder = BestStep(), ctx.curves(syn)

        def evaluate_step(step: int, curve: Curve | None = None) -> None:
            if curve is not None:
                curve.end_epoch(step)
            if step not in candidates:
                return
            value = graph_score(self.metric, *predictions(splits.val))
            if curve is not None:
                curve.add(step, f"val_{self.metric}", value)
            if value > best.on_val:
                best.on_val, best.on_test = value, test_scores()

        untrained = test_scores()[self.metric]
        evaluate_step(0)
        fetch, labelled_batches = _labelled_batches(
            syn, recipe.batch_size, seed_for(seed, "train"), ctx.device
        )
        steps = recipe.steps or recipe.epochs * recipe.steps_per_epoch(n)
        with recorded_curve(folder, ctx.architecture.name, [seed], steps) as curve:
            train(
                net,
                fetch,  # type: ignore[arg-type]  # returns graphs instead of a tensor
                n,
                recipe,
                seed=seed_for(seed, "train"),
                runtime=ctx.runtime.in_float32(),
                flip=False,
                on_step=partial(evaluate_step, curve=curve) if candidates or curve else None,
                on_loss=None if curve is None else curve.add_loss,
                labelled_batches=labelled_batches,
                checkpoint=checkpoint,
                state={"best": best},
            )
        last = test_scores()
        if ctx.protocol.selection == "best_on_val":
            values = best.on_test | {VALIDATION: best.on_val, "last": last[self.metric]}
        else:
            values = last | ({"best_val": best.on_test[self.metric]} if candidates else {})
        return values | {"untrained": untrained}


def _labelled_batches(
    syn: SyntheticGraphs, batch_size: int, seed: int, device: torch.device
) -> tuple[object, LabelledBatches | None]:
    """Return a function that fetches a batch by index, and a function that yields weighted batches.

    The second function is None if `syn.weighting` is `none`. Every batch is then drawn uniformly.
    """
    graphs, labels = syn.materialise(device)
    weights = syn.weights().to(device)
    all_graphs = graphs[torch.arange(len(graphs), device=device)]

    def fetch(index: Tensor) -> tuple[object, Tensor]:
        one_batch = len(labels) <= batch_size  # the batch is then the whole set in order, at every step
        return all_graphs if one_batch else graphs[index], labels[index]

    if syn.weighting == "none":
        return fetch, None

    def weighted_batches(epoch: int) -> Iterator[tuple[Tensor, Tensor, Target]]:
        n, size = len(labels), min(batch_size, len(labels))
        rng = generator(device, seed, "drawn", epoch)
        for _ in range(-(-n // batch_size)):
            if syn.weighting == "sampling":
                index = torch.multinomial(weights, size, replacement=True, generator=rng)
                target: Target = labels[index]
            else:
                index = torch.randperm(n, generator=rng, device=device)[:size]
                target = Weighted(labels[index], weights[index])
            batch = graphs[index]
            yield batch, batch, target  # type: ignore[misc]

    return fetch, weighted_batches


def _batches(split: Split | None) -> list[tuple[object, Tensor]]:
    """Return the batches of a split, with labels on the CPU."""
    return [] if split is None else [(graphs, labels.cpu()) for graphs, labels in split.batches(BATCH)]


@torch.no_grad()
def _predictions(net: torch.nn.Module, batches: list[tuple[object, Tensor]]) -> tuple[Tensor, Tensor]:
    """Return the logits `(n, k)` in eval mode and the labels `(n,)`, on the CPU; the mode of `net` is restored.

    Waits for the device once, because the metrics are computed on the CPU, with scikit-learn.
    """
    training = net.training
    net.eval()
    logits = torch.cat([net(graphs) for graphs, _ in batches]).cpu()
    net.train(training)
    return logits, torch.cat([labels for _, labels in batches])
