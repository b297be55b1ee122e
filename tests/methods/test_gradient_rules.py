"""Tests of the gradient rules of experts: adaptive GSAM, input-gradient penalty and loss factors."""

import itertools
import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from dd_bench.methods._trajectory.gradient_rules import (
    GSAM,
    ExpertGradient,
    GradientPenalty,
    add_penalty_gradient,
    gsam,
)
from dd_bench.training.batches import fetch_from
from dd_bench.training.loop import train
from dd_bench.training.parameter_vector import flatten

NONE = GradientPenalty(weight=0.0, norm="pixel")
LABELS = torch.tensor([0, 1, 2, 0, 1])
NORMS = ("pixel", "image")
each_norm = pytest.mark.parametrize("norm", NORMS)


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def images(channels=1):
    return randn(5, channels, 8, 8)


def gradient_rule(rho=0.0, alpha=0.0, scale=(), weight=0.0, norm="pixel"):
    return ExpertGradient(GSAM(rho=rho, alpha=alpha), scale, GradientPenalty(weight=weight, norm=norm))


def loss(net, x, y):
    return F.cross_entropy(net(x), y)


def gradient(net):
    """The flat gradient in `.grad`."""
    return torch.cat([p.grad.flatten() for p in net.parameters()])


def plain_gradient(net, x, loss_fn=loss):
    return torch.cat(
        [g.flatten() for g in torch.autograd.grad(loss_fn(net, x, LABELS), list(net.parameters()))]
    )


def put(net, theta):
    torch.nn.utils.vector_to_parameters(theta, net.parameters())


def norm_of(x):
    return math.sqrt(sum(float(v) ** 2 for v in x))


def gsam_by_hand(net, x, rho, alpha, loss_fn=loss):
    """Equation 13 of FTD, element by element: the result, g, g' and the orthogonal component."""
    theta, g = flatten(net), plain_gradient(net, x, loss_fn)
    n = norm_of(theta.abs() * g)
    epsilon = torch.stack([rho * t * t * d / (n + 1e-12) for t, d in zip(theta, g, strict=True)])
    put(net, theta + epsilon)
    neighbour = plain_gradient(net, x, loss_fn)
    put(net, theta)
    cosine = sum(float(a * b) for a, b in zip(g, neighbour, strict=True)) / (
        norm_of(neighbour) * norm_of(g) + 1e-12
    )
    orthogonal = g - cosine * norm_of(g) * neighbour / (norm_of(neighbour) + 1e-12)
    return neighbour - alpha * orthogonal, g, neighbour, orthogonal


@pytest.mark.parametrize(("rho", "alpha"), [(0.01, 0.3), (0.5, 1.0), (2.0, 0.0)])
@pytest.mark.parametrize("channels", [1, 3])
def test_gsam_closed_form(make_net, rho, alpha, channels):
    net = make_net(width=4, activation="swish", shape=(channels, 8, 8))
    x = images(channels)
    expected, *_ = gsam_by_hand(net, x, rho, alpha)
    gradient_rule(rho, alpha)(net, loss, x, LABELS, x, 0)
    assert float((gradient(net) - expected).norm()) < 1e-9 * float(expected.norm())


def test_rho_zero_is_the_plain_gradient(make_net):
    net, x = make_net(), images()
    expected = plain_gradient(net, x)
    for alpha in (0.0, 0.7):
        net.zero_grad()
        gradient_rule(0.0, alpha)(net, loss, x, LABELS, x, 0)
        torch.testing.assert_close(gradient(net), expected)


def test_converges_to_the_plain_gradient_for_small_rho(make_net):
    """The difference is proportional to rho for every alpha, because the orthogonal component vanishes too."""
    net, x = make_net(activation="swish"), images()
    expected = plain_gradient(net, x)
    for alpha in (0.0, 1.0):
        distances = []
        for rho in (1e-4, 1e-5):
            net.zero_grad()
            gradient_rule(rho, alpha)(net, loss, x, LABELS, x, 0)
            distances.append(float((gradient(net) - expected).norm() / expected.norm()))
        assert distances[0] < 1e-3
        assert distances[1] == pytest.approx(distances[0] / 10, rel=0.05)


def test_removed_component_is_orthogonal(make_net):
    """It is the whole component of the first gradient that is orthogonal to the gradient at the neighbour."""
    net, x, found = make_net(), images(), []
    g = plain_gradient(net, x)
    for alpha in (0.0, 1.0):
        net.zero_grad()
        gradient_rule(1.0, alpha)(net, loss, x, LABELS, x, 0)
        found.append(gradient(net))
    neighbour, orthogonal = found[0], found[0] - found[1]
    assert float(orthogonal.norm()) > 1e-2 * float(g.norm())
    assert abs(float(orthogonal @ neighbour)) < 1e-12 * float(orthogonal.norm() * neighbour.norm())
    along = g - orthogonal
    assert float(F.cosine_similarity(along, neighbour, dim=0).abs()) == pytest.approx(1, abs=1e-12)


def test_perturbation_has_adaptive_norm_rho(make_net):
    """|epsilon / theta| = rho in the direction |theta| g; parameters that are zero do not change."""
    net, x, seen = make_net(), images(), []
    with torch.no_grad():
        net.classifier.weight[0] = 0.0
    theta, g = flatten(net), plain_gradient(net, x)

    def backward():
        seen.append(flatten(net))
        loss(net, x, LABELS).backward()

    backward()
    gsam(net, backward, GSAM(rho=0.7, alpha=0.0))
    here, neighbour = seen
    assert torch.equal(here, theta)
    epsilon = (neighbour - here)[theta != 0] / theta.abs()[theta != 0]
    assert float(epsilon.norm()) == pytest.approx(0.7, rel=1e-9)
    assert float(F.cosine_similarity(epsilon, (theta.abs() * g)[theta != 0], dim=0)) == pytest.approx(1)
    assert torch.equal(neighbour[theta == 0], here[theta == 0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_parameters_are_restored_exactly(make_net, dtype):
    """The perturbation is so large that subtracting it again would round."""
    net, x = make_net().to(dtype), images().to(dtype)
    before = flatten(net)
    gradient_rule(1e4, 0.3, weight=2.0)(net, loss, x, LABELS, x, 0)
    assert torch.equal(flatten(net), before)
    assert bool(gradient(net).isfinite().all())


def test_zero_gradient(make_net):
    """There is no division by zero."""
    net, x = make_net(), images()
    gradient_rule(0.5, 0.3)(net, lambda net, x, y: 0 * loss(net, x, y), x, LABELS, x, 0)
    assert not gradient(net).any()


def test_gsam_with_penalty_and_loss_scale(make_net):
    net, x, raw = make_net(width=4, activation="swish"), images(), randn(5, 1, 8, 8, seed=9)
    whole = lambda net, x, y: 0.6 * loss(net, x, y) + slow_penalty(net, raw, 2.0, "image")  # noqa: E731
    expected, *_ = gsam_by_hand(net, x, 0.4, 0.3, whole)
    gradient_rule(0.4, 0.3, (0.6,), 2.0, "image")(net, loss, x, LABELS, raw, 0)
    torch.testing.assert_close(gradient(net), expected, rtol=1e-8, atol=1e-11)


# The penalty


def slow_penalty(net, x, weight, norm):
    """The penalty with one Jacobian `(k, c, h, w)` per sample, summed over classes; differentiable."""
    terms = []
    for sample in x:
        jacobian = torch.autograd.functional.jacobian(lambda at: net(at[None])[0], sample, create_graph=True)
        slope = jacobian.sum(0)  # (c, h, w)
        if norm == "image":
            terms.append((slope.square().sum().sqrt() - 1) ** 2)
        else:
            pixels = itertools.product(range(slope.shape[1]), range(slope.shape[2]))
            terms += [(slope[:, i, j].square().sum().sqrt() - 1) ** 2 for i, j in pixels]
    return weight * torch.stack(terms).mean()


@each_norm
@pytest.mark.parametrize("channels", [1, 3])
def test_penalty_equals_slow_implementation(make_net, norm, channels):
    net = make_net(width=4, activation="swish", shape=(channels, 8, 8))
    x = images(channels)
    expected = torch.autograd.grad(slow_penalty(net, x, 2.0, norm), list(net.parameters()), allow_unused=True)
    add_penalty_gradient(net, x, GradientPenalty(weight=2.0, norm=norm))
    for p, g in zip(net.parameters(), expected, strict=True):
        g = (
            torch.zeros_like(p) if g is None else g
        )  # the input gradient does not depend on the classifier's bias
        torch.testing.assert_close(p.grad, g, rtol=1e-9, atol=1e-12)
    assert float(gradient(net).norm()) > 0


@each_norm
def test_penalty_gradient_against_finite_differences(make_net, norm):
    net, x, h = make_net(width=4, activation="swish", shape=(3, 8, 8)), images(3), 1e-6
    add_penalty_gradient(net, x, GradientPenalty(weight=1.5, norm=norm))
    theta, found = flatten(net), gradient(net)
    for direction in (randn(len(theta), seed=1), randn(len(theta), seed=2)):
        values = []
        for sign in (1, -1):
            put(net, theta + sign * h * direction)
            values.append(slow_penalty(net, x, 1.5, norm).detach())
        torch.testing.assert_close((values[0] - values[1]) / (2 * h), found @ direction, rtol=1e-6, atol=1e-9)


def test_norms_differ_for_one_channel(make_net):
    """A pixel's norm is then the absolute value, which is not the norm over the image."""
    net, x = make_net(activation="swish"), images()
    found = {}
    for norm in NORMS:
        net.zero_grad()
        add_penalty_gradient(net, x, GradientPenalty(weight=1.0, norm=norm))
        found[norm] = gradient(net)
    assert float((found["pixel"] - found["image"]).norm()) > 0.1 * float(found["pixel"].norm())


@each_norm
def test_penalty_uses_the_batch_before_augmentation(make_net, norm):
    net, x, raw = make_net(), images(), randn(5, 1, 8, 8, seed=7)
    plain = plain_gradient(net, x)
    net.zero_grad()
    add_penalty_gradient(net, raw, GradientPenalty(weight=2.0, norm=norm))
    penalty_only = gradient(net)
    net.zero_grad()
    gradient_rule(weight=2.0, norm=norm)(net, loss, x, LABELS, raw, 0)
    torch.testing.assert_close(gradient(net), plain + penalty_only)
    assert not raw.requires_grad


@each_norm
def test_penalty_of_a_constant_network_has_finite_gradient(make_net, norm):
    """The square root has no derivative at 0."""
    net = make_net()
    with torch.no_grad():
        for p in net.parameters():
            p.zero_()
    add_penalty_gradient(net, images(), GradientPenalty(weight=2.0, norm=norm))
    assert bool(gradient(net).isfinite().all())


@each_norm
def test_training_decreases_the_penalty(make_net, norm):
    net, x = make_net(activation="swish"), images()
    optimizer, before = torch.optim.SGD(net.parameters(), lr=0.01), slow_penalty(net, x, 1.0, norm).detach()
    for _ in range(20):
        optimizer.zero_grad()
        add_penalty_gradient(net, x, GradientPenalty(weight=1.0, norm=norm))
        optimizer.step()
    assert bool(slow_penalty(net, x, 1.0, norm) < before)


@pytest.mark.slow
@each_norm
def test_compiled_penalty(make_net, norm):
    net, x = make_net(activation="swish", width=4), images()
    found = []
    for rule in (gradient_rule(weight=2.0, norm=norm), gradient_rule(weight=2.0, norm=norm).compiled()):
        net.zero_grad()
        rule(net, loss, x, LABELS, x, 0)
        found.append(gradient(net))
    torch.testing.assert_close(*found, rtol=1e-9, atol=1e-12)


# Loss factors and training


def test_loss_scale(make_net):
    net, x = make_net(), images()
    plain = plain_gradient(net, x)
    for epoch, factor in enumerate([0.5, 0.75, 0.95, 1.0, 1.0]):
        net.zero_grad()
        gradient_rule(scale=(0.5, 0.75, 0.95))(net, loss, x, LABELS, x, epoch)
        torch.testing.assert_close(gradient(net), factor * plain)


def test_loss_scale_does_not_scale_the_penalty(make_net):
    net, x = make_net(), images()
    add_penalty_gradient(net, x, GradientPenalty(weight=2.0, norm="pixel"))
    penalty_only = gradient(net)
    net.zero_grad()
    gradient_rule(scale=(0.25,), weight=2.0)(net, loss, x, LABELS, x, 0)
    got = gradient(net)
    net.zero_grad()
    torch.testing.assert_close(got, 0.25 * plain_gradient(net, x) + penalty_only)


def test_gradients_do_not_accumulate_between_steps(make_architecture, recipe, runtime):
    """A plain rule equals no rule, and a constant loss factor equals a factor of the learning rate."""
    x = images().float()
    ends = []
    for rule, lr in ((None, 0.05), (gradient_rule(1e-9), 0.05), (gradient_rule(scale=(0.5,) * 4), 0.1)):
        net = make_architecture(activation="swish").fresh(0, torch.device("cpu"))
        plan = recipe(epochs=4, lr=lr, momentum=0.0, weight_decay=0.0, milestones=(), batch_size=2)
        train(net, fetch_from(x, LABELS), 5, plan, seed=0, runtime=runtime, flip=False, gradient_rule=rule)
        ends.append(flatten(net))
    for other in ends[1:]:
        torch.testing.assert_close(other, ends[0], rtol=1e-4, atol=1e-5)


def test_loss_scale_of_an_epoch_in_training(make_architecture, recipe, runtime):
    """With a factor of 0 in the first of two epochs, the result equals that of one epoch."""
    x, ends = images().float(), []
    for epochs, rule in ((1, None), (2, gradient_rule(scale=(0.0,)))):
        net = make_architecture().fresh(0, torch.device("cpu"))
        plan = recipe(epochs=epochs, lr=0.05, momentum=0.0, weight_decay=0.0, milestones=(), batch_size=5)
        train(net, fetch_from(x, LABELS), 5, plan, seed=0, runtime=runtime, flip=False, gradient_rule=rule)
        ends.append(flatten(net))
    torch.testing.assert_close(*ends)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (gradient_rule(), False),
        (gradient_rule(alpha=0.3), False),  # alpha has no effect without rho
        (gradient_rule(scale=(1.0, 1.0)), False),
        (gradient_rule(norm="image"), False),
        (gradient_rule(rho=0.01), True),
        (gradient_rule(scale=(1.0, 0.5)), True),
        (gradient_rule(weight=0.1), True),
    ],
    ids=lambda value: "" if isinstance(value, bool) else str(value.describe()),
)
def test_bool(rule, expected):
    assert bool(rule) is expected


def test_descriptions_of_different_rules_differ():
    different = [
        gradient_rule(0.01, 0.3),
        gradient_rule(0.02, 0.3),
        gradient_rule(0.01, 0.4),
        gradient_rule(0.01, 0.3, (0.5,)),
        gradient_rule(0.01, 0.3, (0.5, 0.6)),
        gradient_rule(0.01, 0.3, (0.6, 0.5)),
        gradient_rule(weight=1.0),
        gradient_rule(weight=2.0),
        gradient_rule(weight=2.0, norm="image"),
        gradient_rule(0.01, 0.3, weight=2.0),
    ]
    descriptions = [rule.describe() for rule in different]
    assert all(a != b for a, b in itertools.combinations(descriptions, 2))
    assert gradient_rule(0.01, 0.3).describe() == gradient_rule(0.01, 0.3).describe()


def test_description_omits_unused_and_computational_settings():
    """Runs that differ only in these share their experts."""
    assert gradient_rule(weight=2.0, alpha=0.3).describe() == gradient_rule(weight=2.0).describe()
    assert gradient_rule(0.01, norm="image").describe() == gradient_rule(0.01).describe()
    assert replace(gradient_rule(weight=2.0), fast=True).describe() == gradient_rule(weight=2.0).describe()
