"""SFGC: start epochs, target epochs, and experts that take full-batch steps. `test_geom.py` tests the student."""

from itertools import product

import pytest
import torch
import torch.nn.functional as F

from dd_bench.methods._nodes.trajectories import Student

CPU = torch.device("cpu")
SETTINGS = {"stop": 30, "every": 10, "expert_epochs": 15, "recipe.epochs": 40}


def test_epochs_that_are_stored(make_method):
    method = make_method("sfgc", **SETTINGS)
    starts = [t for t in range(40) if t < 30 and t % 10 == 0]
    assert list(method.starts) == starts == [0, 10, 20]
    assert method.epochs() == {0, 10, 20, 15, 25, 35}
    assert list(make_method("sfgc", **SETTINGS | {"stop": 21}).starts) == [0, 10, 20], "below `stop`"
    assert list(make_method("sfgc", **SETTINGS | {"stop": 20}).starts) == [0, 10]


def test_segments_end_a_fixed_number_of_epochs_after_their_start(make_method, make_ctx, node_gcn, blocks):
    """Each expert and each multiple of `every` is drawn about equally often, and the expert stays the same."""

    class Buffer:
        def __len__(self):
            return 2

        def snapshot(self, expert, epoch, device):
            return expert, epoch

    method, ctx = make_method("sfgc", **SETTINGS), make_ctx(architecture=node_gcn(blocks))
    drawn = [method._segment(Buffer(), step, ctx) for step in range(300)]
    assert all(target == (expert, start + 15) for (expert, start), target in drawn)
    counts = {pair: sum(first == pair for first, _ in drawn) for pair in product(range(2), (0, 10, 20))}
    assert sum(counts.values()) == 300 and min(counts.values()) > 25


def test_the_first_iteration_matches_the_steps_of_an_expert(
    make_method, make_ctx, node_gcn, blocks, monkeypatch
):
    """Start and target are an expert after t and t + M steps of gradient descent on all training nodes."""
    changes = {"iterations": 1, "count": 1, "stop": 5, "every": 2, "expert_epochs": 3, "syn_steps": 2}
    method = make_method("sfgc", **changes, **{"recipe.epochs": 7})
    real, ctx, used = blocks.train_only(), make_ctx(architecture=node_gcn(blocks)), []
    match = Student.match

    def record(self, start, target, x, labels, lr):
        found = match(self, start, target, x, labels, lr)
        used.append((start.clone(), target.clone(), x.detach().clone(), labels, float(lr), float(found.loss)))
        return found

    monkeypatch.setattr(Student, "match", record)
    method.distill(real, 2, ctx)
    ((start, target, x, labels, lr, loss),) = used

    a, train = real.train.graph.adjacency.normalised.to_dense(), real.train
    net = ctx.architecture.fresh(0, CPU)
    shapes = [p.shape for p in net.parameters()]
    names = [name for name, _ in net.named_parameters()]

    def descent(theta, features, edges, index, y, rate, steps):
        """Gradient descent of a GCN of two layers with a dense adjacency, from and to flat parameters."""
        for _ in range(steps):
            theta = theta.detach().requires_grad_()
            parts = dict(zip(names, theta.split([s.numel() for s in shapes]), strict=True))
            p = {name: parts[name].view(shape) for name, shape in zip(names, shapes, strict=True)}
            w1, w2 = (p[name] for name in names if p[name].ndim == 2)
            b1, b2 = (p[name] for name in names if p[name].ndim == 1)
            h = (edges @ features @ w1.t() + b1).relu()
            logits = (edges @ h @ w2.t() + b2)[index]
            (gradient,) = torch.autograd.grad(F.cross_entropy(logits, y), theta)
            theta = theta.detach() - rate * gradient
        return theta

    buffer, rate = method.buffer(real, ctx), method.recipe.lr
    (t,) = {t for t in method.starts if torch.equal(start, buffer.snapshot(0, t, CPU))}
    expert = descent(
        buffer.snapshot(0, 0, CPU), train.graph.features, a, train.index, train.labels, rate, t + 3
    )
    torch.testing.assert_close(target, expert, atol=1e-5, rtol=1e-4)
    student = descent(start, x, torch.eye(len(x)), torch.arange(len(x)), labels, lr, 2)
    expected = (student - target).square().sum() / (start - target).square().sum()
    assert loss == pytest.approx(float(expected), rel=1e-3)
