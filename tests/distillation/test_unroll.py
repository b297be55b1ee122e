"""The gradient through a student's training, computed in three ways."""

import itertools
import weakref
from collections import Counter
from dataclasses import replace

import higher
import pytest
import torch
import torch.nn.functional as F

from dd_bench.data.digits import digits
from dd_bench.distillation.unroll import (
    GRADIENTS,
    CompiledDifferentiator,
    EagerDifferentiator,
    EpochTarget,
    InnerLoop,
    InnerStep,
    adjoint,
    truncated,
    unroll,
)
from dd_bench.models.convnet import ConvNet
from dd_bench.models.mlp import MLP
from dd_bench.runtime.seeding import stream
from dd_bench.training.augment import OPS, Augment
from dd_bench.training.batches import fetch_from
from dd_bench.training.loop import train
from dd_bench.training.losses import classification_loss
from dd_bench.training.parameter_vector import FunctionalNetwork, flatten

CPU = torch.device("cpu")
SHAPE, CLASSES, IMAGES = (3, 8, 8), 3, 6
NETWORKS = {
    "mlp": (MLP, {"width": 5, "depth": 1}),
    "convnet": (
        ConvNet,
        {"depth": 1, "width": 4, "norm": "instancenorm", "activation": "swish", "pooling": "avg"},
    ),
}
EVERYTHING = torch.arange(IMAGES)
RECURRING = [[0, 1, 2], [2, 3, 0], [4, 0, 1], [1, 2, 4], [3, 4, 2], [0, 3, 1]]  # image 5 is in none


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def close(got, expected, tolerance=1e-12):
    """Whether the norm of the difference is small relative to the norm of `expected`."""
    return float((got - expected).norm()) <= tolerance * float(expected.norm())


def cosine(a, b):
    return float(F.cosine_similarity(a.flatten(), b.flatten(), dim=0))


def identity(x):
    return x


def all_six_ops(size, steps=6):
    """Return views with fixed draws, as in the method; each op is used once."""
    augment = Augment("_".join(OPS), align_corners=True)
    views = []
    for i in range(steps):
        draw = augment.draw(1, stream(CPU, 0, "augment", i), per_image=size)
        draw = replace(draw, op=torch.tensor([i % len(OPS)]))
        views.append(lambda x, draw=draw: augment.apply(x[None], draw)[0])
    return views


def network(kind):
    cls, knobs = NETWORKS[kind]
    torch.manual_seed(0)
    return cls(SHAPE, CLASSES, **knobs).double()


def loss_on(flat, learned=False):
    return lambda theta, x, y: classification_loss(flat(theta, x), y.softmax(1) if learned else y)


def student(kind="convnet", *, steps=6, batches=None, learned=False, augmented=False, between=False, **how):
    """Return the training of a student, images, labels and lr, in float64."""
    net = network(kind)
    flat, start = FunctionalNetwork(net), flatten(net)
    indices = [torch.tensor(b) for b in batches] if batches else [EVERYTHING] * steps
    views = all_six_ops(len(indices[0])) if augmented else [identity]
    targets = [EpochTarget(len(indices), start + 0.1 * randn(flat.p, seed=1))]
    if between:
        targets = [
            EpochTarget(2, start + 0.05 * randn(flat.p, seed=2), 0.5),
            EpochTarget(4, start + 0.07 * randn(flat.p, seed=3), 1.5),
            *targets,
        ]
    inner = InnerLoop(
        EagerDifferentiator(loss_on(flat, learned), learned),
        start,
        [InnerStep(index, view) for index, view in zip(indices, itertools.cycle(views), strict=False)],
        targets,
        **how,
    )
    labels = randn(IMAGES, CLASSES, seed=4) if learned else torch.tensor([0, 0, 1, 1, 2, 2])
    return inner, randn(IMAGES, *SHAPE, seed=5), labels, torch.tensor(0.3, dtype=torch.float64)


def assert_equal_gradients(got, expected, tolerance=1e-12):
    assert close(got.loss, expected.loss, tolerance)
    assert close(got.images, expected.images, tolerance)
    assert close(got.lr, expected.lr, tolerance)
    assert (got.labels is None) == (expected.labels is None)
    assert got.labels is None or close(got.labels, expected.labels, tolerance)


def combinations():
    """All combinations; half of them, which have every choice of any four factors together, are fast tests."""
    factors = ([0.0, 0.9], [False, True], [False, True], [None, RECURRING], [1.0, 1.7])
    for kind in NETWORKS:
        for picks in itertools.product((0, 1), repeat=len(factors)):
            values = [factor[pick] for factor, pick in zip(factors, picks, strict=True)]
            marks = pytest.mark.slow if sum(picks) % 2 else ()
            yield pytest.param(kind, *values, marks=marks, id="-".join([kind, *map(str, picks)]))


@pytest.mark.parametrize(("kind", "momentum", "learned", "between", "batches", "weight"), combinations())
def test_the_adjoint_is_the_gradient_of_the_unrolled_training(
    kind, momentum, learned, between, batches, weight
):
    """The views contain each op of the augmentation."""
    at = student(
        kind,
        batches=batches,
        learned=learned,
        augmented=True,
        between=between,
        momentum=momentum,
        weight=weight,
    )
    got, expected = adjoint(*at), unroll(*at)
    assert_equal_gradients(got, expected)
    assert (got.labels is not None) == learned
    assert all(float(d.norm()) > 0 for d in expected if d is not None)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("kind", NETWORKS)
def test_without_augmentation_too(kind, momentum):
    """The batch of a step is then used without a view, so there is no graph to differentiate through."""
    at = student(kind, batches=RECURRING, learned=True, between=True, momentum=momentum)
    assert_equal_gradients(adjoint(*at), unroll(*at))


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_unroll_against_finite_differences(momentum):
    """Central differences of the loss of a smooth network."""
    inner, images, labels, lr = student(
        batches=RECURRING, learned=True, augmented=True, between=True, momentum=momentum, weight=1.7
    )
    found, h = unroll(inner, images, labels, lr), 1e-5

    def slope(which, place):
        values = []
        for sign in (1, -1):
            moved = [images.clone(), labels.clone(), lr.clone()]
            moved[which][place] += sign * h
            values.append(unroll(inner, *moved).loss)
        return (values[0] - values[1]) / (2 * h)

    for place in [(0, 0, 3, 4), (1, 1, 4, 4), (2, 2, 5, 2), (4, 0, 2, 6)]:
        assert found.images[place] != 0
        torch.testing.assert_close(slope(0, place), found.images[place], rtol=1e-6, atol=1e-10)
    torch.testing.assert_close(slope(1, (2, 1)), found.labels[2, 1], rtol=1e-6, atol=1e-10)
    torch.testing.assert_close(slope(2, ()), found.lr, rtol=1e-6, atol=1e-10)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("kind", NETWORKS)
def test_higher_gives_the_same_derivatives(kind, momentum):
    """`higher` is an independent implementation of differentiable SGD; a tensor overrides its learning rate."""
    inner, images, labels, lr = student(kind, batches=RECURRING, between=True, momentum=momentum)
    found = unroll(inner, images, labels, lr)
    net, loss = network(kind), 0.0
    images, lr = images.requires_grad_(), lr.requires_grad_()
    optimizer = torch.optim.SGD(net.parameters(), lr=1.0, momentum=momentum)
    with higher.innerloop_ctx(net, optimizer, override={"lr": [lr]}) as (functional, differentiable):
        for i, step in enumerate(inner.steps):
            differentiable.step(F.cross_entropy(functional(images[step.index]), labels[step.index]))
            for target in inner.targets:
                if target.after == i + 1:
                    theta = torch.cat([p.flatten() for p in functional.parameters()])
                    difference = (theta - target.parameters).square().sum()
                    loss = (
                        loss + target.weight * difference / (inner.start - target.parameters).square().sum()
                    )
        d_images, d_lr = torch.autograd.grad(loss, [images, lr])
    assert close(found.loss, loss.detach(), 1e-11)
    assert close(found.images, d_images, 1e-10)
    assert close(found.lr, d_lr, 1e-10)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_truncated_is_exact_for_one_step(momentum):
    at = student(steps=1, learned=True, augmented=True, momentum=momentum)
    assert_equal_gradients(truncated(*at), unroll(*at))


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_truncated_is_not_exact_for_two_steps(momentum):
    at = student(steps=2, learned=True, augmented=True, momentum=momentum)
    cut, exact = truncated(*at), adjoint(*at)
    assert close(cut.loss, exact.loss)
    for a, b in ((cut.images, exact.images), (cut.labels, exact.labels), (cut.lr, exact.lr)):
        assert not close(a, b, 1e-3)


def test_the_last_step_of_truncated_is_exact():
    """No later step depends on its weights."""
    at = student(batches=[[0, 1], [2, 3], [4, 5]])
    cut, exact = truncated(*at).images, unroll(*at).images
    assert close(cut[4:], exact[4:])
    assert not close(cut[2:4], exact[2:4], 1e-3)
    assert not close(cut[:2], exact[:2], 1e-3)


def test_truncated_is_equation_eleven():
    """-2 lr (theta_N - target)' dg_i/dX_i / D for X_i, and -2 (theta_N - target)' G / D for lr, where G = sum g_i."""
    inner, images, labels, lr = student(steps=5)
    loss, target, d_images = inner.differentiator.loss, inner.targets[0].parameters, torch.zeros_like(images)
    thetas, total = [inner.start], torch.zeros_like(inner.start)
    for _ in range(5):
        theta = thetas[-1].clone().requires_grad_()
        (g,) = torch.autograd.grad(loss(theta, images, labels), theta)
        total = total + g
        thetas.append(thetas[-1] - lr * g)
    difference, distance = thetas[-1] - target, (inner.start - target).square().sum()
    for theta in thetas[:-1]:
        theta, x = theta.clone().requires_grad_(), images.clone().requires_grad_()
        (g,) = torch.autograd.grad(loss(theta, x, labels), theta, create_graph=True)
        d_images -= 2 * lr / distance * torch.autograd.grad(difference @ g, x)[0]
    found = truncated(inner, images, labels, lr)
    assert close(found.loss, difference.square().sum() / distance)
    assert close(found.images, d_images)
    assert close(found.lr, -2 * (difference @ total) / distance)


def quadratic(n=5, p=4, d=3):
    """Return an inner loop with loss theta' A theta / 2 - theta' B x and one image per step, A, B and the images."""
    a, b = randn(p, p, seed=1), randn(p, d, seed=2)
    a = a @ a.T

    def loss(theta, x, y):
        return theta @ a @ theta / 2 - theta @ b @ x.sum((0, 2, 3))

    start, target = randn(p, seed=3), randn(p, seed=4)
    steps = [InnerStep(torch.tensor([i]), identity) for i in range(n)]
    return (
        InnerLoop(EagerDifferentiator(loss, False), start, steps, [EpochTarget(n, target)]),
        a,
        b,
        randn(n, d, 1, 1, seed=5),
    )


def test_closed_form_for_a_quadratic_loss():
    """dtheta_N/dx_i = lr (1 - lr A)^(N - 1 - i) B; truncated replaces the power by the identity."""
    inner, a, b, images = quadratic()
    lr, n, one = torch.tensor(0.05, dtype=torch.float64), len(images), torch.eye(4, dtype=torch.float64)
    theta = inner.start
    for x in images:
        theta = theta - lr * (a @ theta - b @ x.flatten())
    target = inner.targets[0].parameters
    pull = 2 * (theta - target) / (inner.start - target).square().sum()
    for gradient in (adjoint, unroll, truncated):
        found = gradient(inner, images, torch.zeros(n), lr)
        for i in range(n):
            after = one if gradient is truncated else torch.matrix_power(one - lr * a, n - 1 - i)
            assert close(found.images[i].flatten(), lr * b.T @ after @ pull)


def linear(momentum=0.0):
    """Return an inner loop whose loss is linear in theta, so no gradient depends on the weights from earlier steps."""
    b = randn(4, 3, seed=2)

    def loss(theta, x, y):
        return theta @ b @ x.mean((0, 2, 3)).tanh() + 0 * theta.square().sum()

    steps = [InnerStep(torch.tensor(i), identity) for i in ([0, 1], [1, 2], [2, 0])]
    start = randn(4, seed=3)
    inner = InnerLoop(
        EagerDifferentiator(loss, False), start, steps, [EpochTarget(3, start + randn(4, seed=4))], momentum
    )
    return inner, randn(3, 3, 2, 2, seed=5), torch.zeros(3), torch.tensor(0.2, dtype=torch.float64)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_truncated_is_exact_for_a_loss_linear_in_the_weights(momentum):
    at = linear(momentum)
    assert_equal_gradients(truncated(*at), unroll(*at))


@pytest.mark.parametrize("gradient", GRADIENTS.values(), ids=GRADIENTS)
def test_the_loss_is_relative_to_the_distance_of_the_target(gradient):
    """For a linear loss, c times the learning rate moves c times as far, and so does not change the loss of a target
    at c times the distance.
    """
    inner, images, labels, lr = linear(momentum=0.5)
    (target,) = inner.targets
    far = replace(
        inner,
        targets=[replace(target, parameters=inner.start + 7 * (target.parameters - inner.start))],
    )
    near, scaled = gradient(inner, images, labels, lr), gradient(far, images, labels, 7 * lr)
    assert close(scaled.loss, near.loss)
    assert close(scaled.images, near.images)
    assert close(7 * scaled.lr, near.lr)


@pytest.mark.parametrize("gradient", GRADIENTS.values(), ids=GRADIENTS)
def test_constant_weights_do_not_change_the_result(gradient):
    """The objective is not divided by the number of parameters."""
    inner, images, labels, lr = student(momentum=0.9)
    plain, p = inner.differentiator.loss, len(inner.start)
    differentiator = EagerDifferentiator(lambda theta, x, y: plain(theta[:p], x, y), False)
    more = randn(10 * p, seed=8)
    (target,) = inner.targets
    target = replace(target, parameters=torch.cat([target.parameters, more]))
    wide = replace(
        inner, differentiator=differentiator, start=torch.cat([inner.start, more]), targets=[target]
    )
    assert_equal_gradients(gradient(wide, images, labels, lr), gradient(inner, images, labels, lr))


@pytest.mark.parametrize("gradient", GRADIENTS.values(), ids=GRADIENTS)
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_learning_rate_of_zero(gradient, momentum):
    """The loss is then the sum of the target weights; its gradient is zero in the images, but not in lr."""
    inner, images, labels, _ = student(momentum=momentum)
    zero = torch.zeros((), dtype=torch.float64)
    found = gradient(inner, images, labels, zero)
    assert float(found.loss) == 1.0
    assert not found.images.any()
    assert float(found.lr.abs()) > 0
    three = student(between=True, momentum=momentum)[0]
    assert float(gradient(three, images, labels, zero).loss) == pytest.approx(0.5 + 1.5 + 1.0, rel=1e-15)


@pytest.mark.parametrize("gradient", GRADIENTS.values(), ids=GRADIENTS)
def test_loss_is_zero_if_the_target_is_the_end_of_the_training(gradient):
    inner, images, labels, lr = student(batches=RECURRING, learned=True, augmented=True, momentum=0.9)
    theta, velocity = inner.start, torch.zeros_like(inner.start)
    for step in inner.steps:
        g = inner.differentiator.gradient(theta, step.view(images[step.index]), labels[step.index])
        velocity = 0.9 * velocity + g
        theta = theta - lr * velocity
    found = gradient(replace(inner, targets=[EpochTarget(6, theta)]), images, labels, lr)
    assert float(found.loss) < 1e-28
    assert all(float(d.abs().max()) < 1e-13 for d in found[1:])


@pytest.mark.parametrize("gradient", GRADIENTS.values(), ids=GRADIENTS)
def test_gradient_of_an_image_in_several_batches_is_the_sum(gradient):
    """It equals the sum of the gradients of copies that are each in one batch, also for an image twice in a batch."""
    batches = [[0, 1, 0], [1, 2, 5], [0, 2, 1]]
    inner, images, labels, lr = student(batches=batches, learned=True, momentum=0.5)
    shared = gradient(inner, images, labels, lr)
    flat = torch.tensor(batches).flatten()
    own = [InnerStep(torch.arange(3 * i, 3 * i + 3), identity) for i in range(3)]
    copies = gradient(replace(inner, steps=own), images[flat], labels[flat], lr)
    assert close(copies.loss, shared.loss)
    for name in ("images", "labels"):
        collected = torch.zeros_like(getattr(shared, name)).index_add_(0, flat, getattr(copies, name))
        assert close(getattr(shared, name), collected)
        assert not getattr(shared, name)[[3, 4]].any(), "in no batch"


@pytest.mark.parametrize("gradient", GRADIENTS.values(), ids=GRADIENTS)
def test_arguments_do_not_change(gradient):
    """The images have no gradient, and the results have no graph."""
    inner, *at = student(batches=RECURRING, learned=True, augmented=True, momentum=0.9)
    before = [inner.start.clone(), *(t.clone() for t in at)]
    found = gradient(inner, *at)
    assert all(torch.equal(a, b) for a, b in zip([inner.start, *at], before, strict=True))
    assert not any(t.requires_grad or t.grad is not None for t in [inner.start, *at])
    assert not any(d.requires_grad for d in found)
    assert all(d.shape == t.shape for d, t in zip(found[1:], at, strict=True))


class SavedBytes:
    """Count the bytes that graphs store for backward passes; each live storage is counted once."""

    def __init__(self):
        self.users, self.now, self.peak = Counter(), 0, 0

    def pack(self, tensor):
        storage = tensor.untyped_storage()
        where, size = storage.data_ptr(), storage.nbytes()
        if not self.users[where]:
            self.now += size
            self.peak = max(self.peak, self.now)
        self.users[where] += 1
        box = Box(tensor)
        weakref.finalize(box, self.drop, where, size)
        return box

    def drop(self, where, size):
        self.users[where] -= 1
        if not self.users[where]:
            self.now -= size


class Box:
    def __init__(self, tensor):
        self.tensor = tensor


def peak_saved_bytes(gradient, steps, augmented):
    counter, at = SavedBytes(), student(steps=steps, learned=True, augmented=augmented, momentum=0.9)
    with torch.autograd.graph.saved_tensors_hooks(counter.pack, lambda box: box.tensor):
        gradient(*at)
    assert counter.now == 0
    return counter.peak


@pytest.mark.parametrize(("few", "augmented"), [(3, False), (6, True)])  # six steps use each op once
@pytest.mark.parametrize("gradient", [adjoint, truncated])
def test_memory_of_adjoint_does_not_depend_on_the_number_of_steps(gradient, few, augmented):
    assert peak_saved_bytes(gradient, 4 * few, augmented) == pytest.approx(
        peak_saved_bytes(gradient, few, augmented), rel=0.1
    )


@pytest.mark.parametrize(("few", "augmented"), [(3, False), (6, True)])
def test_memory_of_unroll_grows_with_the_number_of_steps(few, augmented):
    assert peak_saved_bytes(unroll, 4 * few, augmented) == pytest.approx(
        4 * peak_saved_bytes(unroll, few, augmented), rel=0.1
    )
    assert peak_saved_bytes(unroll, few, augmented) > 0.6 * few * peak_saved_bytes(adjoint, few, augmented)


@pytest.fixture(scope="module")
def trajectory(recipe, runtime):
    """Return a network, the weights after each of three epochs on digits, and an image of each class."""
    real = digits(preprocess="normalise", val_fraction=0.0, device=CPU)
    knobs = {"depth": 2, "width": 16, "norm": "instancenorm", "activation": "relu", "pooling": "avg"}
    torch.manual_seed(0)
    net, ends = ConvNet(real.shape, 10, **knobs), []
    plan = recipe(epochs=3, momentum=0.0, weight_decay=0.0, milestones=(), batch_size=64)
    images = real.train.inputs(torch.arange(len(real.train)))
    fetch = fetch_from(images, real.train.labels)
    train(
        net,
        fetch,
        len(images),
        plan,
        seed=0,
        runtime=runtime,
        flip=False,
        on_epoch=lambda epoch: ends.append(flatten(net).double()),
    )
    index = torch.stack([real.train.of_class(c)[0] for c in range(10)])
    return FunctionalNetwork(net.double()), ends, images[index].double()


def test_truncated_is_roughly_in_the_direction_of_the_gradient(trajectory):
    """With twenty steps on digits, it differs from the exact gradient, contrary to the claim of the paper."""
    flat, (start, _, end), images = trajectory
    steps = [InnerStep(torch.arange(10), identity) for _ in range(20)]
    inner = InnerLoop(EagerDifferentiator(loss_on(flat), False), start, steps, [EpochTarget(20, end)])
    at = inner, images, torch.arange(10), torch.tensor(0.01, dtype=torch.float64)
    exact, cut = adjoint(*at), truncated(*at)
    assert float(exact.loss) < 0.8, "the student approaches the target"
    assert 0.5 < cosine(cut.images, exact.images) < 0.999
    assert not close(cut.lr, exact.lr, 0.1)


@pytest.mark.slow
@pytest.mark.parametrize("learned", [False, True], ids=["hard", "learned"])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_compiled_equals_eager(learned, momentum):
    inner, *at = student(
        "convnet", batches=RECURRING, learned=learned, augmented=True, between=True, momentum=momentum
    )
    fast = replace(inner, differentiator=CompiledDifferentiator(inner.differentiator.loss, learned))
    for gradient in (adjoint, truncated):
        assert_equal_gradients(gradient(fast, *at), gradient(inner, *at))
