"""Fresh networks of node classification trained on a synthetic set, and the controls needed to interpret their scores.

A distilled set can owe its accuracy to its features, its edges or its labels. The best of several hundred steps on more
validation labels than training labels flatters every set. Therefore the last step is scored, and every record contains
the same set without each of its parts. Only legacy protocols score the best step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from dd_bench.api import (
    VALIDATION,
    Checkpoints,
    Curve,
    CurveFolder,
    Diverged,
    EvaluationContext,
    Evaluator,
    Measurement,
    NodeGraph,
    NodeSet,
    NodeSplit,
    Protocol,
    RealSet,
    StackedBest,
    SyntheticSet,
    generator,
    label_propagation,
    largest_class,
    recorded_curve,
    seed_for,
    train,
    training_nodes,
)

from ._candidates import candidate_steps, part_of, unsupported
from ._scoring import check_at_least, measurement

THRESHOLD = 0.5
CONTROLS = ("permuted", "mlp", "no_edges", "permuted_edges", "thresholded_edges")


@dataclass(frozen=True)
class ScoredSplit:
    """A split on which networks are scored: a view of its graph, and its labels."""

    graph: NodeGraph
    labels: Tensor

    @classmethod
    def of(cls, split: NodeSplit, syn: NodeSet) -> ScoredSplit:
        """Take a split, with the features that the set uses."""
        return cls(syn.real_graph(split.graph).at(split.index), split.labels)

    def without_edges(self) -> ScoredSplit:
        """Return the same nodes without edges."""
        return ScoredSplit(self.graph.without_edges(), self.labels)


class Node(Evaluator):
    """Test accuracy of `num_networks` fresh networks, trained on all nodes of the set at each step.

    - `accuracy`: after the last step.
    - `best_val`: at the step that is best on the validation nodes, of `eval_points` candidate steps or a few less.

    Under a protocol with `selection: best_on_val`, the candidates are every `eval_every`-th epoch from `eval_from` on,
    and the scores are `accuracy` at the best candidate, `val`, its accuracy on the validation nodes, and `last`, after
    the last step.

    The controls are selected by the same rule:

    - `untrained`: the network before its first step.
    - `permuted`: trained on the set with permuted labels.
    - `mlp`: trained and tested without edges, so the network is an MLP.
    - `no_edges`: trained without the edges of the set, tested with the real edges. Only for sets with edges.
    - `permuted_edges`: trained with the same edges among other nodes of the set. Only for sets with edges.
    - `thresholded_edges`: only edges with a weight above 0.5, without weights. Only for sets with edge weights.
    - `label_propagation`: from as many random training nodes per class, without features or training. Only in the
      transductive setting.
    - `majority`: always predicting the most frequent class.

    The whole training set has no `permuted` control and none that changes edges, because its training is expensive.
    """

    main_metric = "accuracy"
    repeats = ("num_networks", "eval_points")
    validation_scores = True

    def __init__(self, *, num_networks: int, eval_points: int, controls: Sequence[str]):
        """Take the number of networks per set, the number of candidate steps, and the controls that require training.

        Raises:
            ValueError: A value is unknown or out of range.
        """
        check_at_least(1, num_networks=num_networks, eval_points=eval_points)
        if unknown := [name for name in controls if name not in CONTROLS]:
            raise ValueError(
                f"evaluator.controls must be a list of {', '.join(CONTROLS)}, got {unknown[0]}. "
                "Example: evaluator.controls=[permuted,mlp]"
            )
        self.num_networks, self.eval_points, self.controls = num_networks, eval_points, tuple(controls)

    def check_protocol(self, protocol: Protocol) -> str | None:
        """See `Evaluator`. Nothing is selected on test nodes, and each step uses the whole graph."""
        return unsupported(protocol, "node", "node-600-legacy", "node-last", batch_size=1)

    def check_dataset(self, real: RealSet, architecture: object) -> str | None:
        """See `Evaluator`."""
        if real.modality == "node":
            return None
        other = "graph" if real.modality == "graph" else "accuracy"
        return (
            f"evaluator node requires nodes of a graph, but dataset {real.name!r} contains {real.modality}s. "
            f"Use evaluator={other}"
        )

    def check_set(self, syn: SyntheticSet, real: RealSet) -> str | None:
        """See `Evaluator`."""
        if isinstance(syn, NodeSet):
            return None
        other = "graph" if syn.modality == "graph" else "accuracy"
        return f"evaluator node requires a set of nodes, got a set of kind {syn.kind}. Use evaluator={other}"

    def run(self, syn: SyntheticSet, real: RealSet, ctx: EvaluationContext) -> Iterator[Measurement]:
        """See `Evaluator`."""
        assert isinstance(syn, NodeSet) and isinstance(real.test, NodeSplit)
        if ctx.protocol.selection == "best_on_val" and real.val is None:
            raise ValueError(
                f"protocol {ctx.protocol.name} requires validation nodes, got none in {real.name}. "
                "Use protocol=node-last"
            )
        yield Measurement(notes=tuple(syn.caveats(ctx.architecture)))
        nodes, counts = training_nodes(real), syn.stored_samples()
        test = ScoredSplit.of(real.test, syn)
        val = ScoredSplit.of(real.val, syn) if isinstance(real.val, NodeSplit) else None
        for network in range(self.num_networks):
            if network in ctx.finished:
                continue
            seed = ctx.seed_for("evaluate", network)
            unfinished = ctx.unfinished(syn)
            parts = [part_of(unfinished, network, name) for name in ("true", *CONTROLS)]
            values = _scores(syn, val, test, seed, ctx, self.eval_points, parts[0], ctx.curves(syn))
            values["majority"] = largest_class(nodes, real.test)
            propagation_accuracy = label_propagation(
                nodes, real.test, counts, generator("cpu", seed, "labels")
            )
            if propagation_accuracy is not None:
                values["label_propagation"] = propagation_accuracy
            for name, part in zip(CONTROLS, parts[1:], strict=True):
                if name in self.controls and applies(name, syn, ctx):
                    values[name] = self._control(name, syn, val, test, seed, ctx, part)
            yield measurement(network, seed, values)
            for part in parts:
                if part is not None:
                    part.remove()

    def _control(
        self,
        name: str,
        syn: NodeSet,
        val: ScoredSplit | None,
        test: ScoredSplit,
        seed: int,
        ctx: EvaluationContext,
        checkpoint: Checkpoints | None,
    ) -> float:
        """Return the accuracy of a network on the set without one of its parts."""
        changed: dict[str, Callable[[], NodeSet]] = {
            "permuted": lambda: syn.permute_labels(generator("cpu", seed, "permuted")),
            "mlp": syn.without_edges,
            "no_edges": syn.without_edges,
            "permuted_edges": lambda: syn.permute_edges(generator("cpu", seed, "permuted edges")),
            "thresholded_edges": lambda: syn.threshold_edges(THRESHOLD),
        }
        if name == "mlp":
            val, test = None if val is None else val.without_edges(), test.without_edges()
        select = val if ctx.protocol.selection == "best_on_val" else None
        return _scores(changed[name](), select, test, seed, ctx, self.eval_points, checkpoint)["accuracy"]


def applies(control: str, syn: NodeSet, ctx: EvaluationContext) -> bool:
    """Return whether a control differs from the set itself, for the network of the run."""
    uses_edges = getattr(ctx.architecture.make, "uses_edges", True)
    if syn.whole:
        return control == "mlp" and uses_edges
    return {
        "permuted": True,
        "mlp": uses_edges,
        "no_edges": uses_edges and syn.edges.numel() > 0,
        "permuted_edges": uses_edges and syn.edges.numel() > 0,
        "thresholded_edges": uses_edges and syn.weights is not None,
    }[control]


def _scores(
    syn: NodeSet,
    val: ScoredSplit | None,
    test: ScoredSplit,
    seed: int,
    ctx: EvaluationContext,
    eval_points: int,
    checkpoint: Checkpoints | None,
    folder: CurveFolder | None = None,
) -> dict[str, float]:
    """Train one network and return its scores. Its initial weights and its dropout depend on `seed` only.

    No step waits for the device: the weights of the best step stay on it, and are tested at the end.

    The curve of the network, the loss and the accuracy on the validation nodes, is written to `folder`; None to write
    none.

    Raises:
        Diverged: the logits are not finite.
    """
    net = syn.architecture(ctx.architecture).fresh(seed_for(seed, "init"), ctx.device)
    graph, labels = syn.materialise(ctx.device)
    candidates = candidate_steps(ctx.protocol, 1, eval_points) if val is not None else frozenset()
    best = StackedBest([net])

    def accuracy(split: ScoredSplit) -> Tensor:
        logits = predictions(net, split.graph)
        right = (logits.argmax(1) == split.labels).float().mean().double()
        return torch.where(torch.isfinite(logits).all(), right, torch.nan)

    def evaluate_step(step: int, curve: Curve | None = None) -> None:
        if curve is not None:
            curve.end_epoch(step)
        if step not in candidates:
            return
        assert val is not None
        value = accuracy(val)
        if curve is not None:
            curve.add(step, "val_accuracy", value)
        weights = (*net.named_parameters(), *net.named_buffers())
        best.update(value[None], {name: t.detach()[None] for name, t in weights})

    untrained = accuracy(test)
    evaluate_step(0)
    recipe = ctx.protocol.recipe
    steps = recipe.steps or recipe.epochs * recipe.steps_per_epoch(1)
    with recorded_curve(folder, ctx.architecture.name, [seed], steps) as curve:
        train(
            net,
            lambda index: (graph, labels),  # type: ignore[arg-type, return-value]  # a graph instead of a tensor
            1,
            recipe,
            seed=seed_for(seed, "train"),
            runtime=ctx.runtime.in_float32(),
            flip=False,
            on_step=partial(evaluate_step, curve=curve) if candidates or curve else None,
            on_loss=None if curve is None else curve.add_loss,
            checkpoint=checkpoint,
            state=best.tensors(),
        )
    found = [untrained, accuracy(test)]
    if candidates:
        best.restore([net])
        found += [best.value[0], accuracy(test)]
    values = torch.stack(found).tolist()
    if not all(value >= 0 for value in values):
        raise Diverged(
            "the logits of a fresh network are not finite with protocol.recipe.lr="
            f"{ctx.protocol.recipe.lr}. Use a smaller value"
        )
    last = values[1]
    if ctx.protocol.selection == "best_on_val":
        scores = {"accuracy": values[3], VALIDATION: values[2], "last": last}
    else:
        scores = {"accuracy": last, **({"best_val": values[3]} if candidates else {})}
    return scores | {"untrained": values[0]}


@torch.no_grad()
def predictions(net: torch.nn.Module, graph: NodeGraph) -> Tensor:
    """Return the logits of the nodes of `graph` in eval mode; the mode of `net` is restored."""
    training = net.training
    net.eval()
    logits: Tensor = net(graph)
    net.train(training)
    return logits
