"""Tests of WMDD and LPLD: barycentres, statistics of classes, their loss and its gradient."""

import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import linprog

from dd_bench.methods._recovery.barycenter import Barycenter, barycenter, class_barycenters, transport
from dd_bench.methods._recovery.class_matching import ClassMatching
from dd_bench.methods._recovery.class_statistics import ClassTeacher, class_statistics
from dd_bench.teachers.teachers import teacher_of

GENERATOR = torch.Generator().manual_seed(0)


def normal(*shape):
    return torch.randn(*shape, generator=GENERATOR, dtype=torch.float64)


class TestBarycenter:
    def test_transport_is_optimal(self):
        """The cost is that of the linear program with marginals 1 / m and 1 / n."""
        b, z = normal(3, 2), normal(12, 2)
        owner = transport(b, z)
        assert torch.bincount(owner).tolist() == [4, 4, 4]
        cost = torch.cdist(b, z).square()  # (m, n)
        ours = float(cost[owner, torch.arange(12)].mean())
        rows = torch.kron(torch.eye(3), torch.ones(1, 12)), torch.kron(torch.ones(1, 3), torch.eye(12))
        masses = torch.cat([torch.full((3,), 1 / 3), torch.full((12,), 1 / 12)])
        exact = linprog(cost.flatten().numpy(), A_eq=torch.cat(rows).numpy(), b_eq=masses.numpy())
        assert ours == pytest.approx(exact.fun, rel=1e-6)

    def test_clusters_of_equal_size(self):
        """The atoms are the means of separated clusters; the points are in random order."""
        centres = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]], dtype=torch.float64)
        z = (centres[:, None] + 0.1 * normal(3, 20, 2)).flatten(0, 1)
        means = z.view(3, 20, 2).mean(1)
        atoms = barycenter(z[torch.randperm(60, generator=GENERATOR)], 3, 100)
        order = torch.cdist(means, atoms).argmin(1)
        torch.testing.assert_close(atoms[order], means)

    def test_each_round_lowers_the_cost(self):
        z, costs = normal(40, 3), []
        for rounds in range(1, 6):
            b = barycenter(z, 4, rounds)
            costs.append(float((z - b[transport(b, z)]).square().sum()))
        assert costs == sorted(costs, reverse=True) and costs[-1] < costs[0]

    def test_one_atom_is_the_mean_and_all_atoms_are_the_points(self):
        z = normal(6, 3)
        torch.testing.assert_close(barycenter(z, 1, 10), z.mean(0, keepdim=True))
        torch.testing.assert_close(barycenter(z, 6, 10), z)

    def test_atoms_of_real_images(self, make_teacher, make_ctx, train_blobs):
        """The mean of the atoms is that of the features; a multiple of the IPC is used, here all but one image."""
        ctx = make_ctx()
        teacher = teacher_of(make_teacher(), train_blobs, ctx.cache, ctx.runtime, None)
        settings = Barycenter(images=1000, rounds=100)
        atoms = class_barycenters(train_blobs, 4, teacher, settings, ctx)
        index = train_blobs.train.of_class(0)  # 20 images
        with torch.no_grad():
            features = teacher.net.embed(train_blobs.train.inputs(index))
        assert atoms.shape == (3, 4, features.shape[1])
        torch.testing.assert_close(atoms[0].mean(0), features.mean(0), rtol=1e-4, atol=1e-5)


@pytest.fixture
def teacher(make_teacher, make_ctx, train_blobs):
    ctx = make_ctx()
    return teacher_of(make_teacher(activation="swish"), train_blobs, ctx.cache, ctx.runtime, None)


def inputs_of_norms(net, x):
    """The inputs of the BatchNorm layers, in order of execution."""
    seen = []
    hooks = [
        m.register_forward_pre_hook(lambda m, z: seen.append(z[0]))
        for m in net.modules()
        if isinstance(m, torch.nn.BatchNorm2d)
    ]
    with torch.no_grad():
        net(x)
    for hook in hooks:
        hook.remove()
    return seen


class TestStatistics:
    def test_real_statistics_equal_a_plain_loop(self, teacher, make_ctx, train_blobs, monkeypatch):
        """Averages over batches of nearly equal size of the mean and of the biased variance."""
        monkeypatch.setattr("dd_bench.methods._recovery.class_statistics.BATCH", 9)
        found = class_statistics(train_blobs, teacher, make_ctx(fresh_cache=True))
        assert len(found) == 2 * len(teacher.norms)
        for c in range(3):
            batches = train_blobs.train.of_class(c).tensor_split([3, 2, 3][c])  # 20, 17 and 22 images
            layers = zip(
                *(inputs_of_norms(teacher.net, train_blobs.train.inputs(i)) for i in batches), strict=True
            )
            for name, zs in zip(teacher.norms, layers, strict=True):
                mean = sum(z.mean((0, 2, 3)) for z in zs) / len(zs)
                var = sum(z.var((0, 2, 3), correction=0) for z in zs) / len(zs)
                torch.testing.assert_close(found[f"{name}.mean"][c], mean)
                torch.testing.assert_close(found[f"{name}.var"][c], var)

    def test_distances_equal_a_plain_loop(self, teacher, make_ctx, train_blobs):
        """Two images of classes 0 and 2 each: the mean over classes of |var - V| + |mean - M|."""
        targets = class_statistics(train_blobs, teacher, make_ctx())
        hooked = ClassTeacher(teacher, targets)
        hooked.batch["classes"] = torch.tensor([0, 2])
        x = train_blobs.train.inputs(torch.arange(4))
        features, logits, distances = hooked.with_embedding(x)
        torch.testing.assert_close(logits, teacher.net(x))
        torch.testing.assert_close(features, teacher.net.embed(x))
        for name, z, d in zip(teacher.norms, inputs_of_norms(teacher.net, x), distances, strict=True):
            expected = 0.0
            for c, own in ((0, z[:2]), (2, z[2:])):
                expected += (own.var((0, 2, 3), correction=0) - targets[f"{name}.var"][c]).norm() / 2
                expected += (own.mean((0, 2, 3)) - targets[f"{name}.mean"][c]).norm() / 2
            torch.testing.assert_close(d, expected)

    def test_distance_is_zero_for_all_real_images_of_a_class(self, teacher, make_ctx, train_blobs):
        hooked = ClassTeacher(teacher, class_statistics(train_blobs, teacher, make_ctx()))
        hooked.batch["classes"] = torch.tensor([1])
        distances = hooked(train_blobs.train.inputs(train_blobs.train.of_class(1)))[1]
        assert float(distances.max()) < 1e-4


def objective(teacher, targets, atoms, dtype=torch.float32, **changes):
    hooked = ClassTeacher(teacher, {k: v.to(dtype) for k, v in targets.items()})
    hooked.net.to(dtype)
    values = {"ce_weight": 0.5, "weight": 0.3, "first_layer": 2.0, "autocast": False, "compiled": False}
    return ClassMatching(hooked, torch.tensor([0, 2]), atoms, **values | changes)


def test_loss(teacher, make_ctx, train_blobs):
    """0.5 CE + 0.3 (2 d_1 + d_2) + |F - B|, with the norm of the whole matrix."""
    targets, y = class_statistics(train_blobs, teacher, make_ctx()), torch.tensor([0, 0, 2, 2])
    x = train_blobs.train.inputs(torch.arange(4))
    atoms = torch.randn(teacher.net.embed(x).shape, generator=GENERATOR)
    loss = objective(teacher, targets, atoms)
    parts = loss(0, x, y)
    features, logits, d = loss.teacher.with_embedding(x)
    expected = 0.5 * F.cross_entropy(logits, y) + 0.3 * (2 * d[0] + d[1])
    torch.testing.assert_close(parts.loss, expected + (features - atoms).square().sum().sqrt())
    torch.testing.assert_close(objective(teacher, targets, None)(0, x, y).loss, expected)


def test_gradient_against_finite_differences(teacher, make_ctx, train_blobs):
    targets, y = class_statistics(train_blobs, teacher, make_ctx()), torch.tensor([0, 0, 2, 2])
    x = train_blobs.train.inputs(torch.arange(4)).double().requires_grad_()
    with torch.no_grad():
        atoms = normal(4, teacher.net.embed(x.float()).shape[1])
    loss = objective(teacher, targets, atoms, torch.float64)
    (gradient,) = torch.autograd.grad(loss(0, x, y).loss, x)
    v = normal(*x.shape)
    with torch.no_grad():
        up, down = (float(loss(0, x + s * 1e-5 * v, y).loss) for s in (1, -1))
    assert float((gradient * v).sum()) == pytest.approx((up - down) / 2e-5, rel=1e-5)


def test_without_its_parts_wmdd_equals_delt_with_one_round(make_method, make_ctx, train_blobs):
    same = {"iterations": 3, "init": "real", "first_layer": 10.0, "views.curriculum": "const", "batch": 4}
    wmdd = make_method("wmdd", statistics_of="all", smoke=False, **same, barycenter=None)
    delt = make_method("delt", rounds=1, **same, **{"views.roll": [0, 4]})
    first = wmdd.distill(train_blobs, 2, make_ctx(work="wmdd"))
    assert torch.equal(first.images, delt.distill(train_blobs, 2, make_ctx(work="delt")).images)


def test_lpld_recovers_one_class_at_a_time(make_method, make_ctx, train_blobs):
    method = make_method("lpld", iterations=1)
    assert [u.name for u in method.units(train_blobs, 4)] == ["class0", "class1", "class2"]
    assert len(method.distill(train_blobs, 4, make_ctx()).images) == 12


def test_errors(make_method, train_blobs, make_architecture):
    with pytest.raises(ValueError, match=r"method\.statistics_of must be all or class, got batch"):
        make_method("wmdd", statistics_of="batch")
    with pytest.raises(ValueError, match=r"method.ce_weight must be a number >= 0, got -1.0"):
        make_method("wmdd", ce_weight=-1.0)
    with pytest.raises(ValueError, match=r"method\.barycenter\.rounds=0"):
        make_method("wmdd", **{"barycenter.rounds": 0})
    reason = make_method("wmdd", **{"barycenter.images": 2}).check_dataset(
        train_blobs, 3, make_architecture()
    )
    assert reason.startswith("method.barycenter.images must be >= ipc=3, got 2")
    assert "'b'" in make_method("wmdd").check_dataset(train_blobs, 18, make_architecture())
