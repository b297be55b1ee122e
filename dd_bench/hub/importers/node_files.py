"""Read released sets of nodes: files of features, of a dense adjacency, and of labels.

GCond's repository has the folder `saved_ours` with pairs of files, `feat_cora_0.25_0.pt` and `adj_cora_0.25_0.pt`,
without labels. Its code computes the labels from those of the training nodes and from the ratio in the names.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from dd_bench.data.dataset import RealSet
from dd_bench.data.node_dataset import training_nodes
from dd_bench.data.nodes import undirected
from dd_bench.hub.importers.arguments import Arguments
from dd_bench.hub.importers.soft_labels import labels_of
from dd_bench.hub.importers.torch_files import check_tensor, load_file
from dd_bench.synthetic.nodes import NodeSet

SYMMETRY = 1e-6
"""Largest difference of the two entries of an edge that is a rounding error."""
EXAMPLE = "Example: dd-bench import feat_cora_0.25_0.pt adj_cora_0.25_0.pt dataset=planetoid --ipc 5 ..."


def read_nodes(args: Arguments, real: RealSet) -> tuple[NodeSet, list[Path], list[str]]:
    """Return the set, the files that were read, and lines about what was found in them.

    Raises:
        ValueError: an option applies to images only, a file does not contain the expected tensor, or the labels are
            neither given nor those of GCond.
    """
    _check_options(args)
    features, weights = _features_and_weights(args.sources, real)
    n, d = features.shape
    if args.labels:
        labels = labels_of(
            check_tensor(load_file(args.labels[0]), str(args.labels[0])), logits=args.logits
        ).squeeze()
        note = f"labels: {args.labels[0].name}"
    else:
        ratio = _ratio(args.sources)
        labels = gcond_labels(training_nodes(real).labels, ratio, real.num_classes)
        note = f"labels: GCond's for the ratio {ratio:g} of the training nodes"
    if len(labels) != n:
        raise ValueError(f"there must be one label per node, got {len(labels)} labels for {n} nodes")
    edges = None
    if weights is not None:
        pairs = weights.triu(1).nonzero().t()
        edges, values = undirected(pairs, weights[pairs[0], pairs[1]])
        syn = NodeSet.of(real, features, labels, edges, values)
    else:
        syn = NodeSet.of(real, features, labels)
    count = 0 if edges is None else edges.shape[1] // 2
    return syn, [*args.sources, *args.labels], [f"{n} nodes with {d} features, {count} edges", note]


def gcond_labels(train: Tensor, ratio: float, num_classes: int) -> Tensor:
    """Return the labels of the synthetic nodes of GCond, in their order.

    The classes are sorted by the number of training nodes, and equal ones by their first appearance among the training
    nodes. Each has `ratio` times as many nodes as in the training split, rounded down, but at least one; the last one
    has the rest of `ratio` times all training nodes.

    Raises:
        ValueError: the last class has no node left.
    """
    counts = torch.bincount(train, minlength=num_classes).tolist()
    classes = sorted(dict.fromkeys(train.tolist()), key=counts.__getitem__)
    sizes = [max(1, int(counts[c] * ratio)) for c in classes[:-1]]
    sizes.append(int(len(train) * ratio) - sum(sizes))
    if sizes[-1] < 1:
        raise ValueError(f"the ratio {ratio:g} leaves no node for class {classes[-1]}. Add --labels FILE")
    return torch.tensor(classes).repeat_interleave(torch.tensor(sizes))


def _check_options(args: Arguments) -> None:
    """Raise ValueError for options that apply to sets of images only."""
    given = {
        "--index": args.index is not None,
        "--lr": args.lr is not None,
        "--factor": args.factor != 1,
        "--classes": args.classes is not None,
        "--pixels": args.pixels,
        "--mean": args.mean is not None,
        "--range": args.range is not None,
        "--background": args.background is not None,
        "--resize": args.resize,
        "--force": args.force,
    }
    for flag in (flag for flag, value in given.items() if value):
        raise ValueError(f"{flag} applies to images only. Leave it out")
    if len(args.sources) > 2 or len(args.labels) > 1 or args.sources[0].is_dir():
        raise ValueError(
            "a set of nodes must have a file of features, at most one of the adjacency and at most one of labels, got "
            f"{len(args.sources)} and {len(args.labels)}. {EXAMPLE}"
        )


def _features_and_weights(sources: Sequence[Path], real: RealSet) -> tuple[Tensor, Tensor | None]:
    """Return the features `(n, d)` and the symmetric weights of all pairs `(n, n)`, from files in any order."""
    d = training_nodes(real).graph.features.shape[1]
    tensors = {path: check_tensor(load_file(path), str(path)).float() for path in sources}
    (path, features), *others = sorted(tensors.items(), key=lambda item: item[0].name.startswith("adj"))
    if features.ndim != 2 or features.shape[1] != d or not len(features):
        raise ValueError(
            f"features must have shape (n, {d}) like those of {real.name}, got {tuple(features.shape)} in {path}. The "
            "name of the file of the adjacency must start with adj"
        )
    if not bool(torch.isfinite(features).all()):
        raise ValueError(f"all features must be finite, but those in {path} are not")
    if not others:
        return features, None
    path, weights = others[0]
    n = len(features)
    if tuple(weights.shape) != (n, n):
        raise ValueError(f"the adjacency must have shape ({n}, {n}), got {tuple(weights.shape)} in {path}")
    if not bool(torch.isfinite(weights).all()) or bool((weights < 0).any()):
        raise ValueError(f"all weights of edges must be finite and >= 0, but those in {path} are not")
    if float((weights - weights.t()).abs().max()) > SYMMETRY:
        raise ValueError(f"the adjacency in {path} must be symmetric, because edges have no direction")
    if bool(weights.diagonal().any()):
        raise ValueError(
            f"the diagonal of the adjacency in {path} must be 0. Networks add an edge of weight 1 from each node to "
            "itself"
        )
    return features, weights


def _ratio(sources: Sequence[Path]) -> float:
    """Return the share of training nodes in the names of GCond's files, e.g. 0.25."""
    found = {m[1] for path in sources if (m := re.fullmatch(r".*_([0-9]*\.?[0-9]+)_[0-9]+\.pt", path.name))}
    if len(found) != 1 or not 0 < float(ratio := found.pop()) <= 1:
        raise ValueError(
            "without --labels, the names of the files must have the ratio of GCond, as in feat_cora_0.25_0.pt, got "
            f"{', '.join(path.name for path in sources)}. Add --labels FILE"
        )
    return float(ratio)
