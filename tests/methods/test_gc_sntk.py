"""The mathematics of GC-SNTK: the tangent kernel against a network, and kernel ridge regression."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from dd_bench.data.nodes import Adjacency, undirected
from dd_bench.methods._nodes.structure_ntk import (
    KernelNodes,
    aggregation,
    relu_covariance,
    structure_ntk,
)
from dd_bench.methods.gc_sntk import standardisation

EDGES = undirected(torch.tensor([[0, 1, 2], [1, 2, 3]]))[0]
MEAN = aggregation(Adjacency(4, EDGES), "mean")


def features(n, d=3, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def nodes(d=3, blocks=2, layers=2):
    return KernelNodes.of_graph(features(4, d), MEAN, blocks, layers)


class TestKernel:
    def test_covariances_of_a_relu_are_expectations(self):
        """E[2 relu(u) relu(v)] and E[2 (u > 0) (v > 0)] for Gaussian (u, v), by numerical integration."""
        d, e, r = 1.3, 0.7, torch.tensor([-0.6, 0.0, 0.45, 0.9], dtype=torch.float64)
        g = np.random.default_rng(0)
        u, w = g.standard_normal((2, 2_000_000))
        s, derivative = relu_covariance(
            (d * e * r)[:, None], torch.full((4,), d).double(), torch.tensor([e]).double()
        )
        for i, c in enumerate(r.tolist()):
            v = c * u + math.sqrt(1 - c * c) * w
            assert float(s[i]) == pytest.approx(2 * d * e * float((u.clip(0) * v.clip(0)).mean()), abs=4e-3)
            assert float(derivative[i]) == pytest.approx(2 * float(((u > 0) & (v > 0)).mean()), abs=2e-3)

    def test_aggregation_is_the_mean_over_neighbours(self):
        a = torch.zeros(4, 4, dtype=torch.float64)
        a[EDGES[0], EDGES[1]] = 1
        a += torch.eye(4)
        expected = a / a.sum(1, keepdim=True)
        torch.testing.assert_close(MEAN.to_dense(), expected)
        torch.testing.assert_close(aggregation(Adjacency(4, EDGES), "sum").to_dense(), a)

    @pytest.mark.parametrize(("blocks", "layers"), [(1, 1), (2, 1), (1, 2)])
    def test_tangent_kernel_of_a_wide_network(self, blocks, layers):
        """The products of the gradients of a network of width 500, on a graph and on nodes without edges."""
        g, width, x, z = torch.Generator().manual_seed(0), 500, features(4), features(2, seed=1)
        depth = blocks * layers
        sizes = [3, *[width] * depth, 1]
        mean = MEAN.to_dense()
        found = torch.zeros(6, 6, dtype=torch.float64)
        draws = 16
        for _ in range(draws):
            weights = [
                torch.randn(b, a, generator=g, dtype=torch.float64, requires_grad=True)
                for a, b in pairwise(sizes)
            ]

            def outputs(f, matrix, weights=weights):
                f = f @ weights[0].t()
                for i, w in enumerate(weights[1:]):
                    if i % layers == 0 and matrix is not None:
                        f = matrix @ f
                    f = math.sqrt(2 / width) * f.relu() @ w.t()
                return f[:, 0]

            rows = []
            for f in [*outputs(x, mean), *outputs(z, None)]:
                gradients = torch.autograd.grad(f, weights, retain_graph=True)
                rows.append(torch.cat([gradient.flatten() for gradient in gradients]))
            jacobian = torch.stack(rows)
            found += jacobian @ jacobian.t() / draws
        real = nodes(blocks=blocks, layers=layers)
        syn = KernelNodes.without_edges(z, blocks)
        expected = torch.cat(
            [
                torch.cat([structure_ntk(real, real, layers), structure_ntk(real, syn, layers)], 1),
                torch.cat([structure_ntk(syn, real, layers), structure_ntk(syn, syn, layers)], 1),
            ]
        )
        scale = expected.diagonal().sqrt()
        assert float(((found - expected) / (scale[:, None] * scale)).abs().max()) < 0.08

    def test_recursion_by_hand(self):
        """One aggregation and two layers, with loops over pairs and neighbours."""
        x, a = features(4), MEAN.to_dense()
        s = [[float((a[i] @ x) @ (a[j] @ x)) for j in range(4)] for i in range(4)]
        d = [math.sqrt(s[i][i]) for i in range(4)]
        found = structure_ntk(*[nodes(blocks=1)] * 2, 2)
        for i in range(4):
            for j in range(i):
                cov, kernel = s[i][j], s[i][j]
                for _ in range(2):
                    r = cov / (d[i] * d[j])
                    slope = (math.pi - math.acos(r)) / math.pi
                    cov = d[i] * d[j] * (r * slope + math.sqrt(1 - r * r) / math.pi)
                    kernel = kernel * slope + cov
                assert float(found[i, j]) == pytest.approx(kernel)

    def test_kernel_is_symmetric_and_positive_semi_definite(self):
        a, b = nodes(), KernelNodes.without_edges(features(30, seed=2), 2)
        for side in (a, b):
            gram = structure_ntk(side, side, 2)
            torch.testing.assert_close(gram, gram.t())
            assert float(torch.linalg.eigvalsh(gram).min()) > -1e-3 * float(gram.trace()) / len(gram)
        torch.testing.assert_close(structure_ntk(a, b, 2), structure_ntk(b, a, 2).t())

    def test_a_graph_without_edges_has_the_kernel_of_its_nodes(self):
        none = aggregation(Adjacency(4, torch.zeros(2, 0, dtype=torch.int64)), "mean")
        a = KernelNodes.of_graph(features(4), none, 2, 2)
        b = KernelNodes.without_edges(features(4), 2)
        torch.testing.assert_close(structure_ntk(a, a, 2), structure_ntk(b, b, 2), rtol=1e-5, atol=1e-5)

    def test_gradients_equal_finite_differences(self):
        real = nodes(d=2)

        def kernel(x):
            return structure_ntk(real, KernelNodes.without_edges(x, 2), 2)

        assert torch.autograd.gradcheck(kernel, features(3, 2, seed=3).requires_grad_())


class TestMethod:
    def test_prediction_is_ridge_regression(self, make_method):
        method, real, x = make_method("gc_sntk", ridge=0.1), nodes(), features(5, seed=4)
        y = torch.rand(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        syn = KernelNodes.without_edges(x, 2)
        k = structure_ntk(syn, syn, 2).numpy()
        inverse = np.linalg.inv(k + 0.1 * np.trace(k) / 5 * np.eye(5))
        expected = structure_ntk(real, syn, 2).numpy() @ inverse @ y.numpy()
        torch.testing.assert_close(method.predict(real, x, y), torch.from_numpy(expected))
        interpolated = make_method("gc_sntk", ridge=1e-9).predict(syn, x, y)
        torch.testing.assert_close(interpolated, y, atol=1e-4, rtol=0)

    def test_the_loss_decreases(self, make_method, make_ctx, node_gcn, blocks):
        ctx = make_ctx(architecture=node_gcn(blocks))
        method = make_method("gc_sntk", iterations=60, lr=0.1)
        syn = method.distill(blocks.train_only(), 2, ctx)
        losses = torch.tensor(ctx.rows.losses)
        assert float(losses[-1]) < 0.5 * float(losses[0])
        mean, std = standardisation(blocks.train.graph.features)
        z = (blocks.train.graph.features - mean) / std
        for _ in range(2):
            z = blocks.train.graph.adjacency.normalised @ z
        edges = blocks.train.graph.adjacency.subgraph(blocks.train.index)
        targets = KernelNodes.of_graph(z[blocks.train.index].double(), aggregation(edges, "mean"), 2, 2)
        found = method.predict(targets, (syn.features - mean) / std, syn.labels)
        truth = torch.nn.functional.one_hot(blocks.train.labels, 3).double()
        assert float((found - truth).square().mean()) < 1.05 * float(losses[-1])
        assert float((found.argmax(1) == blocks.train.labels).double().mean()) > 0.8

    def test_batches_of_large_graphs(self, make_method, make_ctx, node_gcn, blocks):
        ctx = make_ctx(architecture=node_gcn(blocks))
        make_method("gc_sntk", batch_real=12).distill(blocks.train_only(), 2, ctx)
        assert all(map(math.isfinite, ctx.rows.losses)) and len(ctx.rows.losses) == 3

    def test_soft_labels_are_stored_and_counted(self, make_method, make_ctx, node_gcn, blocks):
        ctx = make_ctx(architecture=node_gcn(blocks))
        syn = make_method("gc_sntk").distill(blocks.train_only(), 2, ctx)
        assert syn.labels.shape == (6, 3) and syn.stored_bytes()["labels"] == 4 * 6 * 3

    def test_standardisation(self):
        x = torch.stack([torch.arange(5.0), torch.full((5,), 3.0)], 1)
        mean, std = standardisation(x)
        assert mean.tolist() == [2.0, 3.0] and std.tolist() == pytest.approx([math.sqrt(2), 1.0])

    def test_ridge_must_be_positive(self, make_method):
        with pytest.raises(ValueError, match=r"method\.ridge must be > 0, got 0"):
            make_method("gc_sntk", ridge=0)
