"""The mathematics of GEOM, and of its parts that SFGC uses too: curriculum, window, student, losses, soft labels."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch.func import functional_call

from dd_bench.data.node_dataset import NodeSplit
from dd_bench.data.nodes import NodeGraph, undirected
from dd_bench.methods._nodes.curriculum import Curriculum, CurriculumGradient, difficulty
from dd_bench.methods._nodes.trajectories import Student
from dd_bench.methods.geom import Segment, knowledge_gradients, repaired
from dd_bench.training.loop import train


def split(edges, labels, index=None, classes=3):
    """Return a transductive split of a graph with one feature; the labels are those of the nodes at `index`."""
    index = torch.arange(len(labels)) if index is None else torch.tensor(index)
    v = max(max(max(e) for e in edges), int(index.max())) + 1
    graph = NodeGraph.of(torch.ones(v, 1), undirected(torch.tensor(edges).t())[0])
    return NodeSplit(graph, index, torch.tensor(labels), classes, "transductive")


class TestCurriculum:
    @pytest.mark.parametrize("pacing", ["linear", "root", "geometric"])
    def test_share(self, pacing):
        """GEOM's formulas: with start l and t of T steps."""
        curriculum = Curriculum(start=0.75, over=1500, pacing=pacing)
        for t in (0, 1, 400, 1499, 1500, 4000):
            log = math.log2(0.75)
            expected = {
                "linear": 0.75 + 0.25 * t / 1500,
                "root": math.sqrt(0.75**2 + (1 - 0.75**2) * t / 1500),
                "geometric": 2 ** (log - log * t / 1500),
            }[pacing]
            assert curriculum.share(t) == pytest.approx(min(1.0, expected))
        assert curriculum.share(1500) == 1.0

    def test_difficulty_is_the_entropy_of_labelled_neighbours(self):
        """A path 0-1-2-3 with classes a a b -, and node 4 alone. Node 3 has no label, so it does not count."""
        train = split([(0, 1), (1, 2), (2, 3), (3, 4)], [0, 0, 1, 2], index=[0, 1, 2, 4])
        one_of_three = -(1 / 3 * math.log(1 / 3) + 2 / 3 * math.log(2 / 3))
        expected = torch.tensor([0, one_of_three, math.log(2), 0], dtype=torch.float64)
        torch.testing.assert_close(difficulty(train), expected)

    def test_equal_difficulties_are_exactly_equal(self):
        """Stars whose centres have the same numbers of neighbours of other classes, in all orders of the classes."""
        edges, labels = [], []
        for classes in ((0, 1, 2, 2, 2), (1, 2, 0, 0, 0), (2, 0, 1, 1, 1)):
            centre = len(labels)
            edges += [(centre, centre + i) for i in range(1, 5)]
            labels += classes
        values = difficulty(split(edges, labels))[[0, 5, 10]]
        assert values[0] > 0 and len(values.unique()) == 1
        order = CurriculumGradient.of(Curriculum(start=1, over=1, pacing="root"), split(edges, labels)).order
        assert [i for i in order.tolist() if i in (0, 5, 10)] == [0, 5, 10]

    def test_chosen_nodes_are_the_easiest(self, blocks):
        rule = CurriculumGradient.of(Curriculum(start=0.5, over=10, pacing="linear"), blocks.train)
        hard = difficulty(blocks.train)
        assert [len(rule.chosen(epoch)) for epoch in (0, 5, 10, 11)] == [15, 22, 30, 30]
        assert float(hard[rule.chosen(0)].max()) <= float(hard[rule.order[15:]].min())
        tiny = CurriculumGradient(Curriculum(start=0.01, over=10, pacing="linear"), rule.order)
        assert len(tiny.chosen(0)) == 1

    def test_gradient_is_that_of_the_loss_of_the_chosen_nodes(self, blocks, node_gcn):
        rule = CurriculumGradient.of(Curriculum(start=0.5, over=10, pacing="linear"), blocks.train)
        net = node_gcn(blocks).fresh(0, torch.device("cpu"))
        chosen = rule.chosen(3)
        logits = net(blocks.train.graph)[blocks.train.index[chosen]]
        expected = torch.autograd.grad(
            F.cross_entropy(logits, blocks.train.labels[chosen]), [*net.parameters()]
        )
        view = blocks.train.graph.at(blocks.train.index)

        def loss(net, x, y):
            return F.cross_entropy(net(x), y)

        rule(net, loss, view, blocks.train.labels, view, 3)
        for parameter, gradient in zip(net.parameters(), expected, strict=True):
            torch.testing.assert_close(parameter.grad, gradient)

    def test_training_on_all_nodes_is_training_without_a_curriculum(self, blocks, node_gcn, recipe, runtime):
        recipe = recipe(batch_size=1000, epochs=4, momentum=0.0)

        def trained(start):
            net = node_gcn(blocks).fresh(0, torch.device("cpu"))
            curriculum = Curriculum(start=start, over=10, pacing="root") if start else None
            rule = CurriculumGradient.of(curriculum, blocks.train) if curriculum else None
            fetch = lambda index: (blocks.train.inputs(index), blocks.train.labels[index])  # noqa: E731
            train(net, fetch, 30, recipe, seed=0, runtime=runtime, flip=False, gradient_rule=rule)
            return torch.cat([p.detach().flatten() for p in net.parameters()])

        assert torch.equal(trained(1.0), trained(None))
        assert not torch.equal(trained(0.5), trained(None))


@pytest.fixture
def student(blocks, node_gcn):
    """Function that returns a student of three steps on four nodes, its network, and a segment of random parameters."""

    def make(soft, steps=3):
        net = node_gcn(blocks).fresh(0, torch.device("cpu"))
        g = torch.Generator().manual_seed(0)
        p = sum(parameter.numel() for parameter in net.parameters())
        segment = Segment(*(0.5 * torch.randn(p, generator=g) for _ in range(3)))
        x = torch.randn(4, 8, generator=g)
        y = torch.randn(4, 3, generator=g) if soft else torch.tensor([0, 1, 2, 1])
        return Student(net, 4, steps, "adjoint", soft), net, segment, x, y

    return make


def mlp(net, theta, x):
    """Return the outputs of a GCN of two layers on nodes without edges, computed with plain products."""
    parts, values = {}, theta
    for name, parameter in net.named_parameters():
        parts[name], values = values[: parameter.numel()].view(parameter.shape), values[parameter.numel() :]
    h = (x @ parts["convs.0.lin.weight"].t() + parts["convs.0.bias"]).relu()
    return h @ parts["convs.1.lin.weight"].t() + parts["convs.1.bias"]


class TestLosses:
    def test_student_without_edges_is_an_mlp(self, student):
        of_nodes, net, segment, x, _ = student(False)
        torch.testing.assert_close(of_nodes.logits(segment.start, x), mlp(net, segment.start, x))
        named = of_nodes._flat.split(segment.start)
        graph = NodeGraph(x, of_nodes._no_edges)
        torch.testing.assert_close(functional_call(net, named, (graph,)), mlp(net, segment.start, x))

    @pytest.mark.parametrize("soft", [True, False])
    @pytest.mark.parametrize("beta", [0.0, 0.3])
    def test_gradients_equal_those_of_the_formula(self, student, make_method, soft, beta):
        """|student - target| / |start - target| + beta * loss of the last epoch, by automatic differentiation."""
        of_nodes, net, segment, x, y = student(soft)
        method = make_method("geom", labels="soft" if soft else "hard", beta=beta)
        lr = torch.tensor(0.3)
        ratio, knowledge, found = method.gradients(of_nodes, segment, x, y, lr)

        variables = [v.clone().requires_grad_() for v in ((x, y, lr) if soft else (x, lr))]
        a, *b, c = variables
        labels, theta = b[0].softmax(1) if soft else y, segment.start.clone().requires_grad_()
        for _ in range(3):
            loss = (
                -(labels * mlp(net, theta, a).log_softmax(1)).sum(1).mean()
                if soft
                else F.cross_entropy(mlp(net, theta, a), labels)
            )
            theta = theta - c * torch.autograd.grad(loss, theta, create_graph=True)[0]
        expected = (theta - segment.target).norm() / (segment.start - segment.target).norm()
        q = mlp(net, segment.last, a).log_softmax(1)
        own = (labels * (labels.log() - q)).sum(1).mean() if soft else F.nll_loss(q, labels)
        torch.testing.assert_close(ratio, expected.detach())
        torch.testing.assert_close(knowledge, own.detach())
        gradients = torch.autograd.grad(expected + beta * own, variables)
        for one, other in zip([g for g in found if g is not None], gradients, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)

    def test_kl_divergence_of_the_prediction_is_zero(self, student):
        of_nodes, net, segment, x, _ = student(True)
        loss, of_x, of_y = knowledge_gradients(
            of_nodes, segment.last, x, mlp(net, segment.last, x) + 1.5, True
        )
        for value in (loss, of_x, of_y):
            torch.testing.assert_close(value, torch.zeros_like(value), atol=1e-6, rtol=0)

    def test_repaired_labels(self):
        logits = torch.tensor([[3.0, 1.0, 2.0], [0.0, 5.0, 4.0]])
        found = repaired(logits, torch.tensor([0, 2]))
        assert found.tolist() == [[3.0, 1.0, 2.0], [0.0, 5.0, 5.0]]


class TestSegments:
    def draws(self, method, make_ctx, steps=200):
        """Return the epochs that iterations read from a buffer."""

        class Buffer:
            def __len__(self):
                return 3

            def snapshot(self, expert, epoch, device):
                assert 0 <= expert < 3
                return epoch

        ctx = make_ctx()
        return [tuple(method._segment(Buffer(), step, ctx)) for step in range(steps)]

    @pytest.mark.parametrize("target", ["moving", "fixed"])
    def test_window_grows_by_one_epoch(self, make_method, make_ctx, target):
        window = {"window.stop": 40, "window.grow_from": 5, "window.grow_over": 35}
        method = make_method(
            "geom", **window, every=10, target=target, expert_epochs=100, **{"recipe.epochs": 150}
        )
        read = self.draws(method, make_ctx)
        for step, (start, goal, last) in enumerate(read):
            assert start % 10 == 0 and start <= min(40, 5 + step) - 1
            assert goal == (start + 100 if target == "moving" else 100) and last == 150
        assert {start for start, *_ in read[:5]} == {0} and {start for start, *_ in read} == {0, 10, 20, 30}
        assert {epoch for row in read for epoch in row} == method.epochs()

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"target": "fixed", "expert_epochs": 2}, r"expert_epochs > 2, the last start epoch, got 2"),
            ({"recipe.epochs": 4}, r"the window requires epoch 5 .* Use method\.recipe\.epochs=5"),
            ({"curriculum.start": 0.0}, r"method\.curriculum\.start"),
            ({"labels": "both"}, r"method\.labels must be soft or hard"),
            ({"beta": -1.0}, r"method\.beta must be >= 0"),
            ({"gradient": "none"}, r"method\.gradient must be adjoint"),
        ],
    )
    def test_wrong_arguments(self, make_method, changes, message):
        with pytest.raises(ValueError, match=message):
            make_method("geom", **changes)

    def test_smaller_batches_are_refused(self, make_method, blocks, node_gcn):
        method = make_method("geom", **{"recipe.batch_size": 29})
        reason = method.check_dataset(blocks.train_only(), 2, node_gcn(blocks))
        assert "must be >= 30" in reason and reason.endswith("Use method.recipe.batch_size=1000000")


class TestMethod:
    def test_soft_labels_are_stored_and_counted(self, make_method, make_ctx, node_gcn, blocks):
        real = blocks.train_only()
        method = make_method("geom", iterations=0)
        ctx = make_ctx(architecture=node_gcn(blocks))
        syn = method.distill(real, 2, ctx)
        assert syn.labels.shape == (6, 3) and syn.stored_bytes()["labels"] == 4 * 6 * 3
        student = Student(ctx.network(ctx.architecture, "student"), 6, 1, "adjoint", True)
        theta = method.buffer(real, ctx).snapshot(0, 6, torch.device("cpu"))
        classes = torch.tensor([0, 0, 1, 1, 2, 2])
        expected = repaired(student.logits(theta, syn.features), classes).softmax(1)
        torch.testing.assert_close(syn.labels, expected)
        moved = make_method("geom", iterations=3, lr_label=10.0).distill(
            real, 2, make_ctx(architecture=node_gcn(blocks), work="moved")
        )
        assert not torch.allclose(moved.labels, syn.labels)

    def test_snapshots_differ_between_epochs_and_experts(self, make_method, make_ctx, node_gcn, blocks):
        method = make_method("geom")
        buffer = method.buffer(blocks.train_only(), make_ctx(architecture=node_gcn(blocks)))
        stored = [
            buffer.snapshot(expert, epoch, torch.device("cpu"))
            for expert in range(2)
            for epoch in buffer.header.epochs
        ]
        assert sorted(buffer.header.epochs) == [0, 2, 3, 5, 6]
        assert all(not torch.equal(a, b) for i, a in enumerate(stored) for b in stored[:i])

    @pytest.mark.parametrize("labels", ["soft", "hard"])
    def test_the_loss_of_a_segment_decreases(self, make_method, make_ctx, node_gcn, blocks, labels):
        changes = {
            "labels": labels, "iterations": 24, "syn_steps": 5, "lr_features": 0.05, "lr_label": 0.5,
            "expert_epochs": 20, "recipe.epochs": 20, "count": 1, "window.stop": 1, "window.grow_from": None,
            "window.grow_over": None,
        }  # fmt: skip
        ctx = make_ctx(architecture=node_gcn(blocks))
        make_method("geom", **changes).distill(blocks.train_only(), 2, ctx)
        losses = torch.tensor(ctx.rows.losses)
        assert float(losses[-1]) < 0.8 * float(losses[0])
