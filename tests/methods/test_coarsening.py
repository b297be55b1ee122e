"""The mathematics of coarsening: heavy-edge matching, the products with P, labels, and the nodes that are stored."""

import numpy as np
import pytest
import scipy.sparse
import torch

from dd_bench.methods._nodes.matching import CoarseGraph, coarsen, heavy_edges, indicator, match
from dd_bench.methods.coarsening import keep, mean_features


def adjacency(edges, v, weights=None):
    i, j = np.array(edges).T
    w = np.ones(len(i), dtype=np.int64) if weights is None else np.array(weights)
    return scipy.sparse.csr_matrix((np.r_[w, w], (np.r_[i, j], np.r_[j, i])), shape=(v, v))


def votes_of(labels, classes):
    """Return the votes of training nodes with these labels; -1 for other nodes."""
    found = np.zeros((len(labels), classes), dtype=np.int64)
    for node, label in enumerate(labels):
        if label >= 0:
            found[node, label] = 1
    return found


def random_graph(v=60, e=150, classes=3, trained=30, seed=0):
    g = np.random.default_rng(seed)
    path = [(i, i + 1) for i in range(v - 1)]  # connected
    pairs = {tuple(sorted(g.choice(v, 2, replace=False))) for _ in range(e)} | set(path)
    labels = np.full(v, -1)
    labels[g.permutation(v)[:trained]] = np.arange(trained) % classes
    return adjacency(sorted(pairs), v), votes_of(labels, classes)


def test_heavy_edges_by_hand():
    """A path with weights 1, 4, 1: shares 1/1 + 1/5, 4/5 + 4/5 and 1/5 + 1/1."""
    weights = adjacency([(0, 1), (1, 2), (2, 3)], 4, [1, 4, 1])
    assert heavy_edges(weights).tolist() == [[1, 2], [0, 1], [2, 3]]


def test_matching_contracts_a_node_once_and_the_heaviest_edges_first():
    a, votes = random_graph()
    graph = CoarseGraph(np.arange(60), a, votes)
    mate = match(graph, 3)
    assert (mate[mate] == np.arange(60)).all() and (mate != np.arange(60)).sum() > 40
    taken = set()
    for i, j in heavy_edges(a).tolist():  # greedy: an edge is left out only if one of its ends is taken
        if i not in taken and j not in taken:
            assert mate[i] == j
            taken |= {i, j}


def test_two_cliques_become_two_nodes():
    cliques = [(i + k, j + k) for k in (0, 4) for i in range(4) for j in range(i)]
    graph = coarsen(adjacency([*cliques, (3, 4)], 8), votes_of([0, 0, -1, 0, 1, 1, 1, -1], 2), 2)
    assert graph.assignment.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    assert graph.weights.toarray().tolist() == [[12, 1], [1, 12]]
    assert graph.votes.tolist() == [[3, 0], [0, 3]] and graph.labels.tolist() == [0, 1]


@pytest.mark.parametrize("target", [20, 11, 3])
def test_products_with_p(target):
    """P has one 1 in each row, A' = P^T A P, the votes are P^T Y, and X' are the means of the features."""
    a, votes = random_graph()
    graph = coarsen(a, votes, target)
    p = indicator(graph.assignment).toarray()
    assert p.shape == (60, len(graph.votes)) and (p.sum(1) == 1).all() and (p.sum(0) >= 1).all()
    assert (p.T @ a.toarray() @ p == graph.weights.toarray()).all()
    assert (p.T @ votes == graph.votes).all()
    x = torch.randn(60, 5, generator=torch.Generator().manual_seed(0))
    expected = (p / p.sum(0)).T @ x.numpy()
    assert np.allclose(mean_features(graph, x), expected, atol=1e-6)
    assert int((graph.labels >= 0).sum()) == target


def test_labels_are_those_of_most_training_nodes():
    graph = CoarseGraph(
        np.arange(4), adjacency([(0, 1)], 4), np.array([[1, 2, 0], [2, 2, 1], [0, 0, 0], [0, 0, 1]])
    )
    assert graph.labels.tolist() == [1, 0, -1, 2]


def test_a_class_keeps_its_last_node():
    """The only node of class 1 has a heavy edge to a node of class 0, with which it would have class 0."""
    a = adjacency([(0, 1), (1, 2), (2, 3)], 4, [5, 1, 1])
    votes = votes_of([0, 1, 0, 0], 2)
    for target in (3, 2):
        graph = coarsen(a, votes, target)
        assert graph.labels.tolist() == [0, 1, 0] and graph.assignment.tolist() == [0, 1, 2, 2]


def test_unconnected_nodes_cannot_be_contracted():
    graph = coarsen(adjacency([(0, 1)], 5), votes_of([0, 0, 0, 1, -1], 2), 2)
    assert len(graph.votes) == 4 and int((graph.labels >= 0).sum()) == 3


def test_nodes_that_are_stored():
    """One of each class first, then those with more training nodes; at most two of a class."""
    votes = np.array([[5, 0, 0], [4, 0, 0], [3, 0, 0], [0, 1, 0], [0, 0, 0], [0, 0, 2], [0, 0, 1]])
    graph = CoarseGraph(np.arange(7), adjacency([(0, 1)], 7), votes)
    assert keep(graph, 9, 2).tolist() == [0, 1, 3, 5, 6]
    assert keep(graph, 4, 2).tolist() == [0, 1, 3, 5]
    assert keep(graph, 3, 9).tolist() == [0, 3, 5]


def test_large_graphs_need_memory_linear_in_edges():
    """A dense matrix of this graph would have 80 GB."""
    v = 100_000
    ring = np.arange(v)
    a = adjacency(np.stack([ring, (ring + 1) % v], 1), v)
    labels = np.full(v, -1)
    labels[:: v // 100] = np.arange(100) % 4
    graph = coarsen(a, votes_of(labels, 4), 90)
    assert int((graph.labels >= 0).sum()) == 90 and len(graph.votes) < 2000


class TestMethod:
    def run(self, make_method, make_ctx, node_gcn, real, ipc, **changes):
        method = make_method("coarsening", **changes)
        assert method.check_dataset(real.train_only(), ipc, node_gcn(real)) is None
        return method.distill(real.train_only(), ipc, make_ctx(architecture=node_gcn(real)))

    def test_number_of_nodes(self, make_method, make_ctx, node_gcn, blocks):
        syn = self.run(make_method, make_ctx, node_gcn, blocks, 10, nodes=8)
        assert len(syn.labels) == 8 and set(syn.labels.tolist()) == {0, 1, 2}
        syn = self.run(make_method, make_ctx, node_gcn, blocks, 3)
        assert 3 <= len(syn.labels) <= 9 and int(torch.bincount(syn.labels).max()) <= 3
        reason = make_method("coarsening", nodes=31).check_dataset(blocks.train_only(), 9, node_gcn(blocks))
        assert "method.nodes must be in 3..30" in reason and reason.endswith("Example: method.nodes=15")
        assert make_method("coarsening", nodes=2).check_dataset(blocks.train_only(), 9, node_gcn(blocks))

    def test_edges_are_those_of_the_coarse_graph(self, make_method, make_ctx, node_gcn, blocks):
        """Of all nodes if each is its own coarse node: the graph of the training nodes."""
        syn = self.run(make_method, make_ctx, node_gcn, blocks, 10, nodes=30)
        train = blocks.train
        order = train.labels.argsort(stable=True)
        expected = train.graph.adjacency.subgraph(train.index[order])
        assert torch.equal(syn.edges, expected.edges) and bool((syn.weights == 1).all())
        torch.testing.assert_close(syn.features, train.graph.features[train.index[order]])

    def test_weights_count_the_edges_between_coarse_nodes(self, make_method, make_ctx, node_gcn, blocks):
        syn = self.run(make_method, make_ctx, node_gcn, blocks, 30, nodes=6)
        assert syn.weights.dtype == torch.float32 and float(syn.weights.max()) > 1
        assert bool((syn.weights == syn.weights.round()).all())
        assert float(syn.weights.sum()) < blocks.train.graph.adjacency.edges.shape[1]
