"""The mathematics of methods for nodes: quotas, coverage, PageRank, gradients in closed form, and edges."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.tree import DecisionTreeClassifier

from dd_bench.data.node_dataset import NodeSplit
from dd_bench.data.nodes import NodeGraph
from dd_bench.data.planetoid import planetoid
from dd_bench.methods._nodes.coverage import greedy_coverage, nearest_neighbours, personalised_pagerank
from dd_bench.methods._nodes.neighbourhoods import Neighbourhoods
from dd_bench.methods._nodes.pge import EdgeGenerator, learned_graph, normalised, propagated
from dd_bench.methods._nodes.quota import check_quota, quota
from dd_bench.methods._nodes.surrogate import AdjacencyPowers, AdjacencyRows, Surrogate, gradient_distance
from dd_bench.methods._nodes.tree import smoothed_features, tree_columns
from dd_bench.methods.bonsai import costs, fill, matched, neighbourhood
from dd_bench.models.node_networks import NodeGAT
from dd_bench.synthetic.nodes import NodeSet

CPU = torch.device("cpu")
FILES = Path(__file__).resolve().parents[3] / "shared" / "data" / "nodes"


@pytest.mark.parametrize(
    ("counts", "nodes", "expected"),
    [
        ([20, 20, 20], 15, [5, 5, 5]),
        ([90, 9, 1], 10, [8, 1, 1]),
        ([50, 3, 3, 3], 4, [1, 1, 1, 1]),
        ([46, 46, 4, 2, 2], 5, [1, 1, 1, 1, 1]),  # the floors and the ones are 2 + 2 + 1 + 1 + 1
        ([48, 44, 2, 2, 2, 2], 7, [1, 2, 1, 1, 1, 1]),
    ],
)
def test_quota(counts, nodes, expected):
    assert quota(torch.tensor(counts), 100, nodes) == expected


def hinted(reason, ipc, nodes):
    """Return (ipc, nodes) of each hint of `check_quota`."""
    for hint in reason.partition("Use ")[2].split(", or "):
        values = {"method.nodes": str(nodes), "ipc": ipc} | dict(pair.split("=") for pair in hint.split())
        n = values["method.nodes"]
        yield int(values["ipc"]), None if n in ("null", "None") else int(n)


@pytest.mark.parametrize(
    "counts", [[10, 10, 10], [90, 9, 1], [49, 51, 1, 1, 1], [2, 2, 2], [30, 3, 3], [7, 1, 20]]
)
def test_hints_about_the_number_of_nodes_work(counts):
    names = tuple("abcde"[: len(counts)])
    real = SimpleNamespace(
        train=SimpleNamespace(counts=torch.tensor(counts)), class_names=names, num_classes=len(counts)
    )
    for nodes in [None, *range(1, sum(counts) + 10, 3), 10**9]:
        for ipc in (1, 2, 3, 10, 14, 100):
            reason = check_quota(real, ipc, nodes)
            sizes = quota(real.train.counts, ipc, nodes)
            few = nodes is not None and nodes < len(counts)
            assert nodes is None or few or sum(sizes) == nodes
            assert (reason is None) == (
                not few and all(s <= min(n, ipc) for s, n in zip(sizes, counts, strict=True))
            )
            for fitting in hinted(reason, ipc, nodes) if reason else ():
                assert check_quota(real, *fitting) is None, (ipc, nodes, reason)
    if counts == [10, 10, 10]:
        assert {*hinted(check_quota(real, 10, 40), 10, 40)} == {(10, 30)}
        assert check_quota(real, 2, 8).endswith("Use method.nodes=6, or ipc=4")


def test_random_nodes_fill_their_bytes(make_method, make_ctx, node_gcn, blocks):
    real = blocks.train_only()

    def run(**changes):
        return make_method("random_nodes", **changes).distill(
            real, 10, make_ctx(architecture=node_gcn(blocks))
        )

    syn = run(bytes=600)
    size = sum(syn.stored_bytes().values())
    counts = torch.bincount(syn.labels).tolist()
    assert 500 < size <= 600 and max(counts) - min(counts) <= 1
    everything = run(bytes=10**6)
    assert torch.bincount(everything.labels).tolist() == [10, 10, 10]
    smoothed = run(hops=2)
    x = blocks.train.graph.propagated(2)
    assert torch.equal(smoothed.features, x[list(smoothed.source)])
    tree = run(features="tree", bytes=600)
    assert torch.equal(tree.columns, make_bonsai_columns(blocks))
    assert torch.equal(tree.features, blocks.train.graph.features[list(tree.source)][:, tree.columns])
    assert sum(tree.stored_bytes().values()) <= 600 and len(tree.labels) > len(syn.labels)


def make_bonsai_columns(blocks):
    """Return the columns of the features that Bonsai stores, by its definition: those in a tree's inner nodes."""
    train = blocks.train
    a = train.graph.adjacency.summed.to_dense() + torch.eye(120)
    inverse = torch.diag(1 / a.sum(1))
    h = (inverse @ a @ inverse @ train.graph.features)[train.index]
    tree = DecisionTreeClassifier(max_depth=50, random_state=0).fit(h.numpy(), train.labels.numpy()).tree_
    return torch.tensor(sorted({int(f) for f in tree.feature if f >= 0}))


def test_kmeans_of_one_node_per_class_is_the_class_mean(make_method, make_ctx, node_gcn, blocks):
    syn = make_method("kmeans_nodes").distill(blocks.train_only(), 1, make_ctx(architecture=node_gcn(blocks)))
    z = blocks.train.features(2)
    means = torch.stack([z[blocks.train.labels == c].mean(0) for c in range(3)])
    torch.testing.assert_close(syn.features, means)


class TestBonsai:
    def test_lazy_greedy_equals_naive_greedy(self):
        g = torch.Generator().manual_seed(0)
        points = torch.randn(60, 4, generator=g)
        covers = nearest_neighbours(points, 5, torch.arange(60))
        naive = torch.cdist(points, points).argsort(1)[:, :5]
        assert torch.equal(covers.sort(1).values, naive.sort(1).values)
        sets = [{i for i in range(60) if v in covers[i].tolist()} for v in range(60)]
        covered, order = set(), []
        while True:
            gains = [len(s - covered) if v not in order else 0 for v, s in enumerate(sets)]
            if max(gains) == 0:
                break
            order.append(gains.index(max(gains)))
            covered |= sets[order[-1]]
        found = greedy_coverage(covers, 60)
        assert found[: len(order)] == order and sorted(found) == list(range(60))

    def test_pagerank_equals_the_dense_solution(self):
        edges = torch.tensor([[0, 1, 1, 2, 0, 3], [1, 0, 2, 1, 3, 0]])
        rank = personalised_pagerank(edges, 5, torch.tensor([1, 4]), 0.85)
        a = torch.zeros(5, 5, dtype=torch.float64)
        a[edges[1], edges[0]] = 1.0
        start = torch.tensor([0, 0.5, 0, 0, 0.5], dtype=torch.float64)
        moves = a / a.sum(0).clamp_min(1)
        moves[:, a.sum(0) == 0] = start[:, None]
        solved = torch.linalg.solve(torch.eye(5) - 0.85 * moves, 0.15 * start)
        torch.testing.assert_close(rank, solved, atol=1e-8, rtol=0)

    def test_smoothed_features_equal_the_dense_formula(self, blocks):
        graph = blocks.train.graph
        a = graph.adjacency.summed.to_dense() + torch.eye(120)
        inverse = torch.diag(1 / a.sum(1))
        torch.testing.assert_close(smoothed_features(graph), inverse @ a @ inverse @ graph.features)

    @pytest.mark.parametrize("budget", [("bytes", 700), ("bonsai_bytes", 500), ("nodes", 12)])
    @pytest.mark.parametrize("context", [True, False])
    def test_budget(self, make_method, make_ctx, node_gcn, blocks, budget, context):
        unit, amount = budget
        method = make_method("bonsai", budget=unit, amount=amount, context=context)
        syn = method.distill(blocks.train_only(), 10, make_ctx(architecture=node_gcn(blocks)))
        size = {
            "bytes": sum(syn.stored_bytes().values()), "nodes": len(syn.labels),
            "bonsai_bytes": syn.paper_bytes()["Bonsai bytes"],
        }[unit]  # fmt: skip
        everything = not context and len(syn.labels) == 30
        assert size <= amount and (everything or size > 0.94 * amount), (
            "full up to the next node with its edges"
        )
        assert int(syn.stored_samples().min()) >= 1
        assert context or len(syn.labelled) == len(syn.labels)
        real = NodeSet.induced(blocks, torch.tensor(syn.source), syn.labels, columns=syn.columns).edges
        n, trained = len(syn.labels), set(syn.labelled.tolist())
        pairs = {int(i) for i in syn.edges[0] * n + syn.edges[1]}
        assert pairs <= {int(i) for i in real[0] * n + real[1]}
        if amount == 700:  # the second pass has all training nodes, and so all their edges
            assert pairs >= {int(a) * n + int(b) for a, b in real.t() if {int(a), int(b)} & trained}

    @pytest.mark.parametrize("binary", [True, False])
    def test_estimated_bytes_are_those_of_the_set(self, make_method, make_ctx, node_gcn, blocks, binary):
        """By the rule of Bonsai. Only the selection counts edges of nodes to themselves."""
        real = blocks
        if binary:
            graph = blocks.train.graph
            own = NodeGraph.of((graph.features > 0.5).float(), graph.adjacency.edges)
            train = NodeSplit(own, blocks.train.index, blocks.train.labels, 3, "transductive")
            real = replace(blocks, train=train)
        features = real.train.graph.features
        method = make_method("bonsai", budget="bonsai_bytes", amount=500, features="all", match_classes=False)
        syn = method.distill(real.train_only(), 40, make_ctx(architecture=node_gcn(real)))
        node_costs, edge_cost = costs(features, "bonsai_bytes")
        n, e = len(syn.labels), syn.edges.shape[1] // 2
        estimate = sum(node_costs[v] for v in syn.source) + edge_cost * e
        assert syn.paper_bytes()["Bonsai bytes"] == estimate - 4 * n
        assert estimate - 4 * n - 4 * e == (2 if binary else 4) * int(torch.count_nonzero(syn.features)) > 0

    def test_nodes_of_the_first_pass_are_those_of_the_highest_rank(
        self, make_method, make_ctx, node_gcn, blocks
    ):
        ctx = make_ctx(architecture=node_gcn(blocks))
        first, filled = (
            make_method("bonsai", amount=200, keep=keep).distill(blocks.train_only(), 40, ctx)
            for keep in ("first_pass", "budget")
        )
        assert set(first.source) < set(filled.source)
        assert sum(filled.stored_bytes().values()) <= 200

    def test_at_most_ipc_labelled_nodes(self, make_method, make_ctx, node_gcn, blocks):
        method = make_method("bonsai", budget="nodes", amount=60)
        syn = method.distill(blocks.train_only(), 2, make_ctx(architecture=node_gcn(blocks)))
        syn.check_ipc(2)

    def test_amount_below_one_node_per_class(self, make_method, make_ctx, node_gcn, blocks):
        method = make_method("bonsai", budget="bytes", amount=20)
        with pytest.raises(ValueError, match=r"method\.amount must be >= \d+ bytes for one node per class"):
            method.distill(blocks.train_only(), 10, make_ctx(architecture=node_gcn(blocks)))

    def test_classes_are_matched_by_removing_the_last(self):
        labels = torch.tensor([0, 0, 0, 0, 1, 1, -1])
        kept = matched([0, 4, 1, 2, 6, 5, 3], labels, torch.tensor([50, 50]), 2)
        assert kept == [0, 4, 1, 6, 5]

    def test_neighbourhoods_are_filled_up_to_the_budget(self):
        """Two triangles that share node 0, and a path: each edge is paid once, those among neighbours too."""
        neighbours = [[1, 2, 3, 4], [0, 2], [0, 1], [0, 4], [0, 3], [6], [5]]
        assert neighbourhood(0, neighbours) == {(0, 1), (0, 2), (0, 3), (0, 4), (1, 2), (3, 4)}
        both = fill([1, 3, 5, 0], neighbours, [1.0] * 7, 10.0, 1000)
        assert both.exemplars == [1, 3, 5, 0] and both.nodes == [1, 0, 2, 3, 4, 5, 6] and len(both.edges) == 7
        # 33 for node 1, 32 for node 3, 12 for node 5, nothing for node 0
        assert fill([1, 3, 5, 0], neighbours, [1.0] * 7, 10.0, 77).exemplars == [1, 3, 5, 0]
        assert fill([1, 3, 5, 0], neighbours, [1.0] * 7, 10.0, 76).exemplars == [1, 3, 0]
        assert fill([1, 3], neighbours, [1.0] * 7, 10.0, 5) == ([1], [1], set())

    @pytest.mark.needs_data
    @pytest.mark.skipif(not FILES.exists(), reason="the files of Cora are missing")
    def test_first_pass_on_cora(self):
        """0.5 % of the bytes by the rule of the released code, which selects 501 exemplars by its order of ties."""
        real = planetoid(
            name="cora", root=str(FILES), download=False, features="raw", split="random", setting="transductive",
            device=CPU,
        )  # fmt: skip
        train = real.train
        h = smoothed_features(train.graph)[train.index]
        columns = tree_columns(h, train.labels)
        covers = nearest_neighbours(h[:, columns], 5, torch.arange(len(train)))
        order = train.index[torch.tensor(greedy_coverage(covers, len(train)))].tolist()
        sender, receiver = train.graph.adjacency.edges.tolist()
        neighbours = [[] for _ in range(2708)]
        for a, b in zip(sender, receiver, strict=True):
            neighbours[a].append(b)
        node_costs, edge_cost = costs(train.graph.features[:, columns], "bonsai_bytes")
        found = fill(order, neighbours, node_costs, edge_cost, 39_016)
        assert (len(train), len(columns)) == (1516, 174)
        assert (len(found.exemplars), len(found.nodes)) == (484, 1716)


class TestGradientMatching:
    @pytest.mark.parametrize("hidden", [None, 6])
    def test_gradients_in_closed_form_equal_autograd(self, hidden):
        g = torch.Generator().manual_seed(0)
        surrogate = Surrogate.draw(5, 3, hidden, g)
        z = torch.randn(7, 5, generator=g, requires_grad=True)
        labels = torch.tensor([0, 1, 2, 0, 1, 2, 0])
        parameters = [p.requires_grad_() for p in (*surrogate.weights, *surrogate.biases)]
        h = z
        count = len(surrogate.weights)
        for i in range(count):
            h = h @ parameters[i] + parameters[count + i]
            h = h.relu() if i + 1 < count else h
        loss = torch.nn.functional.cross_entropy(h, labels)
        expected = torch.autograd.grad(loss, parameters, create_graph=True)
        found = surrogate.gradients(z, labels)
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b)
        second, reference = (
            torch.autograd.grad(sum((g * g).sum() for g in gradients), z, retain_graph=True)[0]
            for gradients in (found, expected)
        )
        torch.testing.assert_close(second, reference)

    def test_gradients_of_a_gcn_equal_autograd(self, blocks):
        """Two layers of GCN on the whole graph, the loss of some training nodes."""
        train, g = blocks.train, torch.Generator().manual_seed(0)
        surrogate = Surrogate.draw(train.graph.features.shape[1], 3, 6, g)
        parameters = [p.requires_grad_() for p in (*surrogate.weights, *surrogate.biases)]
        (w1, w2), (b1, b2) = surrogate
        members, a = torch.tensor([0, 5, 7]), train.graph.adjacency.normalised.to_dense()
        labels = train.labels[members]
        logits = a @ (a @ train.graph.features @ w1 + b1).relu() @ w2 + b2
        loss = torch.nn.functional.cross_entropy(logits[train.index[members]], labels)
        nodes, rows = Neighbourhoods(blocks).rows(train.index[members])
        found = surrogate.gradients(train.graph.propagated(1)[nodes], labels, AdjacencyRows(rows))
        for x, y in zip(found, torch.autograd.grad(loss, parameters), strict=True):
            torch.testing.assert_close(x, y)
        assert len(nodes) < train.graph.adjacency.v
        torch.testing.assert_close(rows, a[train.index[members]][:, nodes])

    @staticmethod
    def sgc1(surrogate, x, a):
        """Return A A (relu(X W1 + b1) W2 + b2), with dense matrices, and the parameters."""
        w1, w2, b1, b2 = parameters = [p.clone().requires_grad_() for w in surrogate for p in w]
        return a @ (a @ (torch.clamp(x @ w1 + b1, min=0) @ w2 + b2)), parameters

    def test_gradients_of_sgc1_equal_autograd(self):
        """The logits are propagated, not the features, and second derivatives reach X' and A'."""
        g = torch.Generator().manual_seed(0)
        x = torch.randn(7, 5, generator=g, requires_grad=True)
        half = torch.rand(7, 7, generator=g).div(7).requires_grad_()
        a = half + half.t()  # the edge generator is symmetric, too
        labels, index = torch.tensor([2, 0, 1]), torch.tensor([1, 4, 6])
        surrogate = Surrogate.draw(5, 3, 6, g)
        for bias in surrogate.biases:
            bias.normal_(generator=g)
        logits, parameters = self.sgc1(surrogate, x, a)
        loss = torch.nn.functional.cross_entropy(logits[index], labels)
        expected = torch.autograd.grad(loss, parameters, create_graph=True)
        found = surrogate.gradients(x, labels, AdjacencyPowers(a, 2, index))
        torch.testing.assert_close(found, list(expected))
        seconds = [
            torch.autograd.grad(sum((p * p).sum() for p in gradients), (x, half), retain_graph=True)
            for gradients in (found, expected)
        ]
        torch.testing.assert_close(seconds[0], seconds[1])
        other = surrogate.gradients((a @ (a @ x))[index], labels)  # features are propagated
        assert not torch.allclose(other[0], expected[0], rtol=0.1)

    @pytest.mark.parametrize("batch_real", [4, 256])
    def test_sgc1_in_gcond(self, make_method, make_ctx, node_gcn, blocks, batch_real):
        """The gradients that an update compares, of the real graph and of the set, and the loss of the surrogate."""
        changes = {"surrogate": "sgc1", "hidden": 6, "edge_hidden": 4, "batch_real": batch_real}
        method, ctx = make_method("gcond", **changes), make_ctx(architecture=node_gcn(blocks))
        graph, sizes = blocks.train.graph, [2, 1, 3]
        g = torch.Generator().manual_seed(0)
        surrogate = Surrogate.draw(graph.features.shape[1], 3, 6, g)
        z, labels, hops = method._batches(blocks, ctx)(1, (0, 0))
        assert len(labels) == min(batch_real, 10) and set(labels.tolist()) == {1}
        assert {int(i) for i in hops.nodes} <= set(blocks.train.index[blocks.train.of_class(1)].tolist())
        logits, parameters = self.sgc1(surrogate, graph.features, graph.adjacency.normalised.to_dense())
        loss = torch.nn.functional.cross_entropy(logits[hops.nodes], labels)
        expected = list(torch.autograd.grad(loss, parameters))
        torch.testing.assert_close(surrogate.gradients(z, labels, hops), expected)

        x, own = torch.randn(6, graph.features.shape[1], generator=g), torch.tensor([0, 0, 1, 2, 2, 2])
        edges = EdgeGenerator(x.shape[1], 4)
        a = edges(x).detach() + torch.eye(6)
        logits, parameters = self.sgc1(surrogate, x, a / (a.sum(0).sqrt()[:, None] * a.sum(1).sqrt()))
        z, hops = method._synthetic(x, edges, sizes)[2]
        loss = torch.nn.functional.cross_entropy(logits[3:], own[3:])
        expected = list(torch.autograd.grad(loss, parameters, retain_graph=True))
        torch.testing.assert_close(surrogate.gradients(z, own[3:], hops), expected)
        ((z, hops),) = method._synthetic(x, edges, [6])
        with torch.no_grad():
            surrogate.train_(
                z, own, 1, torch.optim.SGD([*surrogate.weights, *surrogate.biases], lr=1.0), hops
            )
        moved = [
            before - after
            for before, after in zip(parameters, [p for w in surrogate for p in w], strict=True)
        ]
        loss = torch.nn.functional.cross_entropy(logits, own)
        torch.testing.assert_close(moved, list(torch.autograd.grad(loss, parameters)), atol=1e-6, rtol=1e-4)
        one, other = (
            make_method("gcond", iterations=1, outer=2, **changes)
            .distill(blocks.train_only(), 2, ctx)
            .features
            for ctx in (make_ctx(architecture=node_gcn(blocks), work=str(i)) for i in range(2))
        )
        assert torch.equal(one, other) and bool(torch.isfinite(one).all())

    @pytest.mark.parametrize(
        "changes",
        [
            {"surrogate": "sgc", "hidden": 6},
            {"surrogate": "sgc1"},
            {"surrogate": "gcn"},
            {"surrogate": "gcn", "hidden": 6},
            {"surrogate": "gcn", "structure": "none", "hidden": 6, "hops": 1},
        ],
    )
    def test_hints_about_the_surrogate_lead_to_a_method(self, make_method, changes):
        with pytest.raises(ValueError, match=r"method\.surrogate=") as error:
            make_method("gcond", **changes)
        for hint in str(error.value).partition("Use ")[2].split(", or "):
            pairs = (pair.removeprefix("method.").split("=") for pair in hint.split())
            make_method("gcond", **changes | {k: int(v) if v.isdigit() else v for k, v in pairs})

    def test_distance(self):
        a, b = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))
        bias = torch.ones(3)
        cos = sum(1 - torch.nn.functional.cosine_similarity(a[:, j], b[:, j], dim=0) for j in range(3))
        assert float(gradient_distance([a, bias], [b, -bias], "cos")) == pytest.approx(float(cos), rel=1e-4)
        mse = (a - b).square().sum() + 12.0
        assert float(gradient_distance([a, bias], [b, -bias], "mse")) == pytest.approx(float(mse))
        assert float(gradient_distance([a], [3 * a], "cos")) == pytest.approx(0, abs=1e-4)

    def test_a_surrogate_is_trained_as_by_one_adam(self):
        """Two calls with one optimiser are Adam of torch on the same layer, without a restart and without decay."""
        g = torch.Generator().manual_seed(0)
        z, labels = torch.randn(30, 5, generator=g), torch.arange(30) % 3
        surrogate, layer = Surrogate.draw(5, 3, None, g), torch.nn.Linear(5, 3)
        with torch.no_grad():
            layer.weight.copy_(surrogate.weights[0].t())
            layer.bias.copy_(surrogate.biases[0])
        expected, optimizer = torch.optim.Adam(layer.parameters(), lr=0.05), surrogate.optimizer(0.05)
        for _ in range(8):
            expected.zero_grad()
            torch.nn.functional.cross_entropy(layer(z), labels).backward()
            expected.step()
        surrogate.train_(z, labels, 5, optimizer)
        surrogate.train_(z, labels, 3, optimizer)
        torch.testing.assert_close(surrogate.weights[0], layer.weight.detach().t(), rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(surrogate.biases[0], layer.bias.detach(), rtol=1e-4, atol=1e-6)

    @torch.no_grad()
    def test_edges_of_the_generator(self):
        torch.manual_seed(0)
        generator, x = EdgeGenerator(4, 8), torch.randn(6, 4)
        a = generator(x)
        assert torch.equal(a, a.t()) and float(a.diagonal().abs().sum()) == 0
        assert 0 <= float(a.min()) <= float(a.max()) <= 1
        order = torch.randperm(6)
        torch.testing.assert_close(generator(x[order]), a[order][:, order])
        pairs = torch.cat([x.repeat_interleave(6, 0), x.repeat(6, 1)], 1)
        weight = torch.cat([generator.sender.weight, generator.receiver.weight], 1)
        h = pairs @ weight.t() + generator.sender.bias
        h = generator.middle(generator.norms[0](h).relu())
        m = generator.out(generator.norms[1](h).relu()).view(6, 6)
        torch.testing.assert_close(a, ((m + m.t()) / 2).sigmoid() * (1 - torch.eye(6)))

    def test_propagation_equals_that_of_a_set(self, blocks):
        g = torch.Generator().manual_seed(0)
        x, a = torch.randn(5, 8, generator=g), torch.rand(5, 5, generator=g)
        a = ((a + a.t()) / 2).fill_diagonal_(0)
        pairs = (a > 0).nonzero().t()
        syn = NodeSet.of(blocks, x, torch.tensor([0, 1, 2, 0, 1]), pairs, a[pairs[0], pairs[1]])
        torch.testing.assert_close(propagated(x, a, 2), syn.graph.propagated(2))

    def test_networks_on_learned_edges_equal_the_dense_formula(self, blocks, node_gcn):
        """The logits, and their gradients with respect to the features and to all entries of A'."""
        g = torch.Generator().manual_seed(0)
        x, a = torch.randn(5, 8, generator=g), torch.rand(5, 5, generator=g)
        a = ((a + a.t()) / 2).fill_diagonal_(0)
        net = node_gcn(blocks).fresh(0, CPU).eval()
        (w1, b1), (w2, b2) = (tuple(conv.parameters()) for conv in net.convs)
        (w1, b1), (w2, b2) = (sorted(pair, key=lambda p: -p.ndim) for pair in ((w1, b1), (w2, b2)))

        def dense(x, a):
            m = normalised(a)
            return m @ ((m @ x @ w1.t() + b1).relu() @ w2.t()) + b2

        results = []
        for forward in (lambda x, a: net(learned_graph(x, a)), dense):
            leaves = x.clone().requires_grad_(), a.clone().requires_grad_()
            logits = forward(*leaves)
            results.append((logits, *torch.autograd.grad(logits.square().sum(), leaves)))
        off = 1 - torch.eye(5)  # entries on the diagonal are 0 and no edges
        (found, of_x, of_a), (expected, expected_of_x, expected_of_a) = results
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(of_x, expected_of_x, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(of_a * off, expected_of_a * off, rtol=1e-4, atol=1e-4)

    @pytest.mark.parametrize("name", ["gcond", "gcondx", "doscondx", "gcdm"])
    def test_the_loss_decreases(self, make_method, make_ctx, node_gcn, blocks, name):
        fast = {"lr_features": 0.05} | ({"lr_edges": 0.01} if name == "gcond" else {})
        ctx = make_ctx(architecture=node_gcn(blocks))
        make_method(name, iterations=40, **fast).distill(blocks.train_only(), 2, ctx)
        losses = torch.tensor(ctx.rows.losses)
        assert float(losses[-10:].mean()) < 0.7 * float(losses[:10].mean())


def test_embeddings_of_coresets(make_method, make_ctx, node_gcn, blocks):
    """With one node per class, herding takes the node nearest to the class mean, in the chosen embedding."""
    z = blocks.train.features(2).double()
    nearest = []
    for c in range(3):
        own = z[blocks.train.of_class(c)]
        nearest.append(int(blocks.train.of_class(c)[(own - own.mean(0)).square().sum(1).argmin()]))
    method = make_method("herding_nodes", embedding="propagated")
    syn = method.distill(blocks.train_only(), 1, make_ctx(architecture=node_gcn(blocks)))
    assert list(syn.source) == blocks.train.index[nearest].tolist()
    assert np.allclose(syn.features, blocks.train.graph.features[list(syn.source)])


@pytest.mark.parametrize("embedding", ["features", "propagated"])
def test_kcenter_of_nodes_is_farthest_first_in_each_class(make_method, make_ctx, node_gcn, blocks, embedding):
    """Naive loops: the node nearest to the mean of its class, then the one farthest from all that are chosen."""
    z = blocks.train.features(2 if embedding == "propagated" else 0).double()
    chosen = []
    for c, size in enumerate((3, 3, 3)):
        own = [i for i in range(len(blocks.train)) if int(blocks.train.labels[i]) == c]
        mean = sum(z[i] for i in own) / len(own)
        picked = [min(own, key=lambda i: float((z[i] - mean).norm()))]
        while len(picked) < size:
            rest = [i for i in own if i not in picked]
            picked.append(max(rest, key=lambda i: min(float((z[i] - z[j]).norm()) for j in picked)))
        chosen += [int(blocks.train.index[i]) for i in picked]
    method = make_method("kcenter_nodes", embedding=embedding)
    syn = method.distill(blocks.train_only(), 3, make_ctx(architecture=node_gcn(blocks)))
    assert list(syn.source) == chosen and syn.labels.tolist() == [0] * 3 + [1] * 3 + [2] * 3


def test_the_loss_of_gcdm_equals_naive_loops(make_method, make_ctx, node_gcn, blocks):
    """sum_c n'_c / n' |mean of the hidden layer of class c, real - synthetic|^2, at the initial features."""
    real, nodes = blocks.train_only(), 7
    make = lambda work: make_ctx(architecture=node_gcn(blocks), work=work)  # noqa: E731
    start = make_method("gcdm", iterations=0, nodes=nodes).distill(real, 5, make("start"))
    ctx = make("gcdm")
    make_method("gcdm", iterations=1, outer=1, nodes=nodes).distill(real, 5, ctx)
    parameters = dict(ctx.network(ctx.architecture, 0).named_parameters())
    weight = next(p for p in parameters.values() if p.ndim == 2)  # of the first layer, (8, d)
    bias = next(p for p in parameters.values() if p.ndim == 1)
    a, sizes = blocks.train.graph.adjacency.normalised.to_dense(), torch.bincount(start.labels).tolist()
    assert sum(sizes) == nodes and len(set(sizes)) > 1, "classes have different weights"
    expected = 0.0
    for c, size in enumerate(sizes):
        of_real = [
            sum(a[i, j] * (weight @ blocks.train.graph.features[j]) for j in range(len(a))) + bias
            for i in blocks.train.index[blocks.train.labels == c].tolist()
        ]
        of_syn = [weight @ start.features[i] + bias for i in range(nodes) if int(start.labels[i]) == c]
        means = [sum(h.clamp_min(0) for h in part) / len(part) for part in (of_real, of_syn)]
        expected += size / nodes * float((means[0] - means[1]).square().sum().detach())
    assert ctx.rows.losses == [pytest.approx(expected, rel=1e-4)]


def test_gcdm_trains_the_network_between_two_updates(make_method, make_ctx, node_gcn, blocks):
    """Two updates with three steps of Adam between them, written with torch's modules."""
    real, values = blocks.train_only(), {"iterations": 1, "outer": 2, "lr_features": 0.03, "lr_net": 0.02}
    make = lambda work: make_ctx(architecture=node_gcn(blocks), work=work)  # noqa: E731
    x = make_method("gcdm", iterations=0).distill(real, 2, make("start")).features.requires_grad_()
    labels = torch.arange(3).repeat_interleave(2)
    ctx = make("trained")
    syn = make_method("gcdm", inner=3, **values).distill(real, 2, ctx)
    net = ctx.network(ctx.architecture, 0).eval()
    of_x, of_net = torch.optim.Adam([x], lr=0.03), torch.optim.Adam(net.parameters(), lr=0.02)
    losses = []
    for update in range(2):
        h, found = net.embed(blocks.train.graph.at(blocks.train.index)), net.embed(without_edges(x))
        means = [torch.stack([e[y == c].mean(0) for c in range(3)]) for e, y in
                 ((h.detach(), blocks.train.labels), (found, labels))]  # fmt: skip
        loss = (means[0] - means[1]).square().sum() / 3
        of_x.zero_grad()
        loss.backward()
        of_x.step()
        losses.append(float(loss.detach()))
        for _ in range(3 if update == 0 else 0):
            of_net.zero_grad()
            torch.nn.functional.cross_entropy(net(without_edges(x.detach())), labels).backward()
            of_net.step()
    torch.testing.assert_close(syn.features, x.detach())
    assert ctx.rows.losses == [pytest.approx(sum(losses) / 2, rel=1e-4)]
    untrained = make_method("gcdm", inner=0, **values).distill(real, 2, make("untrained"))
    assert not torch.allclose(untrained.features, syn.features)


def test_gcdm_with_learned_edges(make_method, make_ctx, node_gcn, blocks):
    """The first iterations change the edges only, and the loss decreases; a network without edge weights is refused."""
    real, arch = blocks.train_only(), node_gcn(blocks)
    values = {"structure": "pge", "edge_hidden": 16, "lr_features": 0.05, "lr_edges": 0.01}

    def run(iterations, **changes):
        ctx = make_ctx(architecture=arch, work=f"{iterations}{changes}")
        return make_method("gcdm", iterations=iterations, **values, **changes).distill(real, 2, ctx), ctx

    (start, _), (ten, ctx), (more, _) = run(0), run(10), run(11, inner=1)
    assert torch.equal(start.features, ten.features) and not torch.equal(start.features, more.features)
    assert start.edges.shape == ten.edges.shape == (2, 30) and not torch.equal(start.weights, ten.weights)
    losses = torch.tensor(ctx.rows.losses)
    assert len(losses) == 10 and bool((losses > 0).all())
    some, _ = run(10, threshold=0.5)
    assert some.edges.shape[1] < 30 and float(some.weights.min()) > 0.5
    gat = replace(arch, make=NodeGAT, knobs={**arch.knobs, "heads": 1}, name="node_gat")
    for structure, expected in (("none", None), ("pge", "Use method.structure=none, or model=node_gcn")):
        reason = make_method("gcdm", structure=structure).check_dataset(real, 2, gat)
        assert reason is expected or reason.endswith(expected)


def without_edges(x):
    return NodeGraph.of(x, torch.zeros(2, 0, dtype=torch.int64))


def test_numbers_of_steps_of_gcdm(make_method):
    for key, value, least in (("inner", -1, 0), ("outer", 0, 1)):
        with pytest.raises(ValueError, match=f"method.{key} must be >= {least}, got {value}"):
            make_method("gcdm", **{key: value})
