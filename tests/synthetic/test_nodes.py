"""Sets of nodes: both encodings of features and of edges, damaged files, and the control sets."""

from dataclasses import replace

import pytest
import torch

from dd_bench.data.nodes import NodeShape, undirected
from dd_bench.synthetic.node_pictures import feature_pictures
from dd_bench.synthetic.nodes import CONTEXT, NodeSet

N = 12


def make(kind="dense", edges="weighted", density=0.3, **changes) -> NodeSet:
    g = torch.Generator().manual_seed(0)
    x = torch.rand(N, 40, generator=g)
    if kind != "dense":
        x = x * (torch.rand(N, 40, generator=g) < 0.1)
        x[3] = 0
    if kind == "binary":
        x = (x > 0).float() / (x > 0).float().sum(1, keepdim=True).clamp_min(1)
    pairs = torch.triu_indices(N, N, 1)
    pairs = pairs[:, torch.rand(pairs.shape[1], generator=g) < density]
    weights = torch.rand(pairs.shape[1], generator=g) + 0.1 if edges == "weighted" else None
    both, weights = undirected(pairs, weights)
    none = torch.zeros(2, 0, dtype=torch.int64)
    labels = torch.arange(N) % 3
    labels[-1] = CONTEXT
    fields = {
        "features": x, "labels": labels, "edges": none if edges == "none" else both,
        "weights": weights, "shape": NodeShape(40), "class_names": ("a", "b", "c"),
    }  # fmt: skip
    return NodeSet(**fields | changes)


def restored(syn: NodeSet, **tensors) -> NodeSet:
    return NodeSet.restore(syn.config(), syn.tensors() | tensors, syn.class_names, syn.preprocess)


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("dense", {"features"}),
        ("sparse", {"feature_counts", "feature_columns", "feature_values"}),
        ("binary", {"feature_counts", "feature_columns", "node_values"}),
    ],
)
@pytest.mark.parametrize(
    ("edges", "density", "edge_names"),
    [
        ("none", 0.3, set()),
        ("plain", 0.3, {"edges"}),
        ("weighted", 0.2, {"edges", "edge_weights"}),
        ("weighted", 0.9, {"adjacency"}),
    ],
)
def test_a_restored_set_is_the_same(kind, names, edges, density, edge_names):
    syn = make(kind, edges, density)
    assert set(syn.tensors()) == {*names, *edge_names, "labels"}
    again = restored(syn)
    assert again.identity() == syn.identity()
    for name in ("features", "labels", "edges"):
        assert torch.equal(getattr(again, name), getattr(syn, name)), name
    assert (again.weights is None) == (syn.weights is None or not edge_names)
    assert syn.weights is None or not edge_names or torch.equal(again.weights, syn.weights)
    stored = sum(t.numel() * t.element_size() for t in syn.tensors().values())
    assert sum(syn.stored_bytes().values()) == stored <= 4 * N * 40 + N + 4 * N * (N - 1) // 2 + N


def test_columns_restrict_the_real_graph(blocks, node_gcn):
    x = blocks.train.graph.features
    columns = torch.tensor([1, 4, 7])
    nodes = torch.tensor([5, 60, 3])
    syn = NodeSet.induced(blocks, nodes, torch.tensor([0, CONTEXT, 2]), columns=columns)
    nodes = nodes[[0, 2, 1]]  # the context node is the last one
    assert torch.equal(syn.features, x[nodes][:, columns]) and syn.source == (5, 3, 60)
    assert torch.equal(syn.real_graph(blocks.test.graph).features, x[:, columns])
    assert tuple(syn.architecture(node_gcn(blocks)).shape) == (3,)
    graph, labels = syn.materialise(torch.device("cpu"))
    assert graph.nodes.tolist() == [0, 1] and labels.tolist() == [0, 2] and len(graph) == 2
    assert torch.equal(restored(syn).columns, columns)


def test_whole_training_graph(blocks):
    syn = NodeSet.coreset(blocks, torch.arange(len(blocks.train)), whole=True)
    assert len(syn.labels) == 120 and len(syn.labelled) == 30
    syn.check_whole(blocks.train.labels)
    with pytest.raises(ValueError, match="must have all 29 training nodes"):
        syn.check_whole(blocks.train.labels[1:])
    order = torch.tensor(syn.source)
    assert torch.equal(order[:30].sort().values, blocks.train.index)
    expected = blocks.train.graph.adjacency.summed.to_dense()[order][:, order]
    assert torch.equal(syn.graph.adjacency.summed.to_dense(), expected)


def test_ipc_counts_labelled_nodes():
    syn = make()
    assert syn.stored_samples().tolist() == [4, 4, 3]
    syn.check_ipc(4)
    with pytest.raises(ValueError, match="at most 3 nodes per class"):
        syn.check_ipc(3)
    soft = replace(syn, labels=torch.full((N, 3), 1 / 3))
    assert soft.stored_samples().tolist() == [4, 4, 4] and restored(soft).labels.shape == (N, 3)


def test_sizes():
    sizes = make("binary", "plain").size_metrics()
    edges = make("binary", "plain").edges.shape[1] // 2
    ones = int(torch.count_nonzero(make("binary").features))
    assert sizes == {
        "nodes": N, "labelled nodes": N - 1, "edges": edges, "GCond bytes": 4 * N * (40 + N),
        "Bonsai bytes": 2 * ones + 4 * edges,
    }  # fmt: skip
    assert make(edges="none").size_metrics()["GCond bytes"] == 4 * N * 40


def test_controls():
    syn, g = make(density=0.5), torch.Generator().manual_seed(0)
    assert syn.without_edges().edges.numel() == 0
    moved = syn.permute_edges(g)
    assert not torch.equal(moved.edges, syn.edges)
    assert torch.equal(moved.weights.sort().values, syn.weights.sort().values)
    cut = syn.threshold_edges(0.5)
    assert cut.weights is None and cut.edges.shape[1] == int((syn.weights > 0.5).sum())
    shuffled = syn.permute_labels(g).labels
    assert int(shuffled[-1]) == CONTEXT and not torch.equal(shuffled, syn.labels)
    assert torch.bincount(shuffled[shuffled >= 0]).tolist() == [4, 4, 3]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"edges": torch.tensor([[0], [1]]), "weights": None}, "edges must be in both directions"),
        (
            {"edges": torch.tensor([[0, 1], [1, 0]]), "weights": torch.tensor([0.5, 0.7])},
            "edges must be in both directions",
        ),
        ({"edges": torch.tensor([[0, 1], [1, 0]]), "weights": torch.zeros(2)}, "must be > 0, got 0"),
        ({"labels": torch.full((N,), CONTEXT)}, "at least one must have a label"),
        ({"labels": torch.arange(N) % 4 - 1}, "nodes without a class must be the last ones"),
        ({"whole": True, "source": (*range(1, N), 1)}, "must have the sources 0, 1"),
        ({"labels": torch.full((N,), 3)}, r"must be in 0\.\.2, got 3"),
        ({"features": torch.zeros(N, 39)}, "features must have 40 columns, got 39"),
        ({"columns": torch.arange(40).flip(0)}, "columns must ascend"),
        ({"source": (0, 1)}, "source must have 12 indices"),
    ],
)
def test_inconsistent_sets(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(make(), **changes)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"feature_counts": torch.full((N,), 200).byte()}, "feature_counts must be"),
        ({"feature_columns": torch.full((1,), 3).byte()}, "feature_counts must be"),
        ({"feature_values": torch.full((2,), 0.5)}, "feature_values must be float32"),
        ({"edges": torch.full((2, 1), 99).byte()}, r"edges must be pairs of nodes in 0\.\.11"),
        ({"labels": torch.zeros(N + 1).byte()}, "labels must have at most one value per node, 12, got 13"),
        ({"adjacency": torch.zeros(4)}, "adjacency must be float32"),
    ],
)
def test_damaged_files(tensors, message):
    with pytest.raises(ValueError, match=message):
        restored(make("sparse", "plain"), **tensors)


def test_features_of_a_stranger_are_limited():
    """A small file cannot make the reader allocate a matrix of any size."""
    syn = make("sparse")
    with pytest.raises(ValueError, match="at most 268,435,456 features"):
        NodeSet.restore(syn.config() | {"shape": [1 << 30]}, syn.tensors(), syn.class_names, syn.preprocess)


def test_pictures_show_the_features_that_are_typical_of_a_class():
    """Of bags of words, nearly all features are zero: a picture of all of them is white."""
    k, d, n = 3, 1000, 30
    classes, g = torch.arange(n) % k, torch.Generator().manual_seed(0)
    x = (torch.rand(n, d, generator=g) < 0.01).float()
    for c in range(k):
        x[classes == c, 100 * c : 100 * c + 8] = 1.0
    pictures = feature_pictures(x, classes, torch.arange(n))
    assert pictures.shape == (n, 1, k, 8) and pictures.min() >= 0 and pictures.max() <= 0.93
    rows = pictures[:, 0].mean(2)  # of each class, (n, k)
    assert torch.equal(rows.argmin(1), classes)
    assert rows.gather(1, classes[:, None]).max() < 0.1 and rows.mean() < 0.7


@pytest.mark.parametrize("features", [torch.zeros(4, 5), torch.randn(4, 5), torch.eye(4, 5)])
@pytest.mark.parametrize("classes", [torch.zeros(4, dtype=torch.int64), torch.tensor([0, 2, 2, 30])])
def test_pictures_of_any_features_are_grey_values(features, classes):
    pictures = feature_pictures(features, classes, torch.arange(4))
    assert pictures.shape[-1] == 5 and pictures.min() >= 0 and pictures.max() <= 1
