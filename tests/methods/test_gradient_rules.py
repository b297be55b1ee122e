"""How experts descend: adaptive GSAM in closed form, the input-gradient penalty, the factors of the loss."""

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
    """What is in `.grad`, as one vector."""
    return torch.cat([p.grad.flatten() for p in net.parameters()])


def plain_gradient(net, x, of=loss):
    return torch.cat([g.flatten() for g in torch.autograd.grad(of(net, x, LABELS), list(net.parameters()))])


def put(net, theta):
    torch.nn.utils.vector_to_parameters(theta, net.parameters())


def norm_of(x):
    return math.sqrt(sum(float(v) ** 2 for v in x))


def gsam_by_hand(net, x, rho, alpha, of=loss):
    """Section 3 of the specification, number by number: the direction, g, g', and what is taken off."""
    theta, g = flatten(net), plain_gradient(net, x, of)
    n = norm_of(theta.abs() * g)
    epsilon = torch.stack([rho * t * t * d / (n + 1e-12) for t, d in zip(theta, g, strict=True)])
    put(net, theta + epsilon)
    there = plain_gradient(net, x, of)
    put(net, theta)
    cosine = sum(float(a * b) for a, b in zip(g, there, strict=True)) / (norm_of(there) * norm_of(g) + 1e-12)
    across = g - cosine * norm_of(g) * there / (norm_of(there) + 1e-12)
    return there - alpha * across, g, there, across


@pytest.mark.parametrize(("rho", "alpha"), [(0.01, 0.3), (0.5, 1.0), (2.0, 0.0)])
@pytest.mark.parametrize("channels", [1, 3])
def test_gsam_is_the_closed_form(make_net, rho, alpha, channels):
    net = make_net(width=4, activation="swish", shape=(channels, 8, 8))
    x = images(channels)
    wanted, *_ = gsam_by_hand(net, x, rho, alpha)
    gradient_rule(rho, alpha)(net, loss, x, LABELS, x, 0)
    assert float((gradient(net) - wanted).norm()) < 1e-9 * float(wanted.norm())


def test_without_a_radius_it_is_the_gradient(make_net):
    net, x = make_net(), images()
    wanted = plain_gradient(net, x)
    for alpha in (0.0, 0.7):
        net.zero_grad()
        gradient_rule(0.0, alpha)(net, loss, x, LABELS, x, 0)
        torch.testing.assert_close(gradient(net), wanted)


def test_as_the_radius_goes_to_nothing_it_goes_to_the_gradient(make_net):
    """In proportion to it; whatever alpha is, as nothing is left that is orthogonal."""
    net, x = make_net(activation="swish"), images()
    wanted = plain_gradient(net, x)
    for alpha in (0.0, 1.0):
        apart = []
        for rho in (1e-4, 1e-5):
            net.zero_grad()
            gradient_rule(rho, alpha)(net, loss, x, LABELS, x, 0)
            apart.append(float((gradient(net) - wanted).norm() / wanted.norm()))
        assert apart[0] < 1e-3
        assert apart[1] == pytest.approx(apart[0] / 10, rel=0.05)


def test_what_is_taken_off_is_orthogonal_to_the_gradient_of_the_neighbour(make_net):
    """And it is all of the first gradient that is."""
    net, x, found = make_net(), images(), []
    g = plain_gradient(net, x)
    for alpha in (0.0, 1.0):
        net.zero_grad()
        gradient_rule(1.0, alpha)(net, loss, x, LABELS, x, 0)
        found.append(gradient(net))
    there, across = found[0], found[0] - found[1]
    assert float(across.norm()) > 1e-2 * float(g.norm())
    assert abs(float(across @ there)) < 1e-12 * float(across.norm() * there.norm())
    along = g - across
    assert float(F.cosine_similarity(along, there, dim=0).abs()) == pytest.approx(1, abs=1e-12)


def test_the_step_to_the_neighbour_has_the_adaptive_norm(make_net):
    """|epsilon / theta| = rho, along |theta| g; and a weight of zero stays there."""
    net, x, seen = make_net(), images(), []
    with torch.no_grad():
        net.classifier.weight[0] = 0.0
    theta, g = flatten(net), plain_gradient(net, x)

    def backward():
        seen.append(flatten(net))
        loss(net, x, LABELS).backward()

    backward()
    gsam(net, backward, GSAM(rho=0.7, alpha=0.0))
    here, there = seen
    assert torch.equal(here, theta)
    moved = (there - here)[theta != 0] / theta.abs()[theta != 0]
    assert float(moved.norm()) == pytest.approx(0.7, rel=1e-9)
    assert float(F.cosine_similarity(moved, (theta.abs() * g)[theta != 0], dim=0)) == pytest.approx(1)
    assert torch.equal(there[theta == 0], here[theta == 0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_the_weights_come_back_to_the_last_bit(make_net, dtype):
    """From a step so long that taking it back would round."""
    net, x = make_net().to(dtype), images().to(dtype)
    before = flatten(net)
    gradient_rule(1e4, 0.3, weight=2.0)(net, loss, x, LABELS, x, 0)
    assert torch.equal(flatten(net), before)
    assert bool(gradient(net).isfinite().all())


def test_where_nothing_slopes_it_stays(make_net):
    """No division by a gradient of zero."""
    net, x = make_net(), images()
    gradient_rule(0.5, 0.3)(net, lambda net, x, y: 0 * loss(net, x, y), x, LABELS, x, 0)
    assert not gradient(net).any()


def test_the_neighbour_s_gradient_is_of_the_penalty_and_the_factor_too(make_net):
    net, x, raw = make_net(width=4, activation="swish"), images(), randn(5, 1, 8, 8, seed=9)
    whole = lambda net, x, y: 0.6 * loss(net, x, y) + slow_penalty(net, raw, 2.0, "image")  # noqa: E731
    wanted, *_ = gsam_by_hand(net, x, 0.4, 0.3, whole)
    gradient_rule(0.4, 0.3, (0.6,), 2.0, "image")(net, loss, x, LABELS, raw, 0)
    torch.testing.assert_close(gradient(net), wanted, rtol=1e-8, atol=1e-11)


# The penalty


def slow_penalty(net, x, weight, norm):
    """One Jacobian `(k, c, h, w)` a sample, summed over the classes; differentiable."""
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
def test_the_penalty_is_that_of_a_jacobian_a_sample(make_net, norm, channels):
    net = make_net(width=4, activation="swish", shape=(channels, 8, 8))
    x = images(channels)
    wanted = torch.autograd.grad(slow_penalty(net, x, 2.0, norm), list(net.parameters()), allow_unused=True)
    add_penalty_gradient(net, x, GradientPenalty(weight=2.0, norm=norm))
    for p, g in zip(net.parameters(), wanted, strict=True):
        g = torch.zeros_like(p) if g is None else g  # the classifier's bias is in no slope
        torch.testing.assert_close(p.grad, g, rtol=1e-9, atol=1e-12)
    assert float(gradient(net).norm()) > 0


@each_norm
def test_the_penalty_s_gradient_against_finite_differences(make_net, norm):
    net, x, h = make_net(width=4, activation="swish", shape=(3, 8, 8)), images(3), 1e-6
    add_penalty_gradient(net, x, GradientPenalty(weight=1.5, norm=norm))
    theta, found = flatten(net), gradient(net)
    for direction in (randn(len(theta), seed=1), randn(len(theta), seed=2)):
        values = []
        for sign in (1, -1):
            put(net, theta + sign * h * direction)
            values.append(slow_penalty(net, x, 1.5, norm).detach())
        torch.testing.assert_close((values[0] - values[1]) / (2 * h), found @ direction, rtol=1e-6, atol=1e-9)


def test_over_one_channel_a_pixel_s_norm_is_its_absolute_value(make_net):
    """So the two norms differ even there."""
    net, x = make_net(activation="swish"), images()
    found = {}
    for norm in NORMS:
        net.zero_grad()
        add_penalty_gradient(net, x, GradientPenalty(weight=1.0, norm=norm))
        found[norm] = gradient(net)
    assert float((found["pixel"] - found["image"]).norm()) > 0.1 * float(found["pixel"].norm())


@each_norm
def test_it_is_added_to_the_gradient_of_the_augmented_batch_and_is_of_the_raw_one(make_net, norm):
    net, x, raw = make_net(), images(), randn(5, 1, 8, 8, seed=7)
    plain = plain_gradient(net, x)
    net.zero_grad()
    add_penalty_gradient(net, raw, GradientPenalty(weight=2.0, norm=norm))
    alone = gradient(net)
    net.zero_grad()
    gradient_rule(weight=2.0, norm=norm)(net, loss, x, LABELS, raw, 0)
    torch.testing.assert_close(gradient(net), plain + alone)
    assert not raw.requires_grad


@each_norm
def test_a_network_without_a_slope_has_a_finite_gradient(make_net, norm):
    """The root of a square of zero has none."""
    net = make_net()
    with torch.no_grad():
        for p in net.parameters():
            p.zero_()
    add_penalty_gradient(net, images(), GradientPenalty(weight=2.0, norm=norm))
    assert bool(gradient(net).isfinite().all())


@each_norm
def test_in_training_it_pulls_the_norm_to_one(make_net, norm):
    net, x = make_net(activation="swish"), images()
    optimizer, before = torch.optim.SGD(net.parameters(), lr=0.01), slow_penalty(net, x, 1.0, norm).detach()
    for _ in range(20):
        optimizer.zero_grad()
        add_penalty_gradient(net, x, GradientPenalty(weight=1.0, norm=norm))
        optimizer.step()
    assert bool(slow_penalty(net, x, 1.0, norm) < before)


@pytest.mark.slow
@each_norm
def test_the_compiled_penalty_is_the_same(make_net, norm):
    net, x = make_net(activation="swish", width=4), images()
    found = []
    for how in (gradient_rule(weight=2.0, norm=norm), gradient_rule(weight=2.0, norm=norm).compiled()):
        net.zero_grad()
        how(net, loss, x, LABELS, x, 0)
        found.append(gradient(net))
    torch.testing.assert_close(*found, rtol=1e-9, atol=1e-12)


# Factors of the loss, and the whole


def test_the_loss_has_a_factor_in_the_first_epochs(make_net):
    net, x = make_net(), images()
    plain = plain_gradient(net, x)
    for epoch, factor in enumerate([0.5, 0.75, 0.95, 1.0, 1.0]):
        net.zero_grad()
        gradient_rule(scale=(0.5, 0.75, 0.95))(net, loss, x, LABELS, x, epoch)
        torch.testing.assert_close(gradient(net), factor * plain)


def test_the_penalty_has_no_factor(make_net):
    net, x = make_net(), images()
    add_penalty_gradient(net, x, GradientPenalty(weight=2.0, norm="pixel"))
    alone = gradient(net)
    net.zero_grad()
    gradient_rule(scale=(0.25,), weight=2.0)(net, loss, x, LABELS, x, 0)
    got = gradient(net)
    net.zero_grad()
    torch.testing.assert_close(got, 0.25 * plain_gradient(net, x) + alone)


def test_what_was_in_the_gradient_of_a_step_is_not_in_the_next(make_architecture, recipe, runtime):
    """`train` with a plain gradient_rule is `train` without one, and a factor is a factor of the learning rate."""
    x = images().float()
    ends = []
    for how, lr in ((None, 0.05), (gradient_rule(1e-9), 0.05), (gradient_rule(scale=(0.5,) * 4), 0.1)):
        net = make_architecture(activation="swish").fresh(0, torch.device("cpu"))
        plan = recipe(epochs=4, lr=lr, momentum=0.0, weight_decay=0.0, milestones=(), batch_size=2)
        train(net, fetch_from(x, LABELS), 5, plan, seed=0, runtime=runtime, flip=False, gradient_rule=how)
        ends.append(flatten(net))
    for other in ends[1:]:
        torch.testing.assert_close(other, ends[0], rtol=1e-4, atol=1e-5)


def test_an_epoch_of_training_has_its_factor(make_architecture, recipe, runtime):
    """The second epoch of two is as without one: the first has a factor of zero, and moves nothing."""
    x, ends = images().float(), []
    for epochs, how in ((1, None), (2, gradient_rule(scale=(0.0,)))):
        net = make_architecture().fresh(0, torch.device("cpu"))
        plan = recipe(epochs=epochs, lr=0.05, momentum=0.0, weight_decay=0.0, milestones=(), batch_size=5)
        train(net, fetch_from(x, LABELS), 5, plan, seed=0, runtime=runtime, flip=False, gradient_rule=how)
        ends.append(flatten(net))
    torch.testing.assert_close(*ends)


@pytest.mark.parametrize(
    ("how", "wanted"),
    [
        (gradient_rule(), False),
        (gradient_rule(alpha=0.3), False),  # of nothing
        (gradient_rule(scale=(1.0, 1.0)), False),
        (gradient_rule(norm="image"), False),
        (gradient_rule(rho=0.01), True),
        (gradient_rule(scale=(1.0, 0.5)), True),
        (gradient_rule(weight=0.1), True),
    ],
    ids=lambda value: "" if isinstance(value, bool) else str(value.describe()),
)
def test_a_plain_one_is_none(how, wanted):
    assert bool(how) is wanted


def test_the_description_tells_descents_apart():
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
    said = [how.describe() for how in different]
    assert all(a != b for a, b in itertools.combinations(said, 2))
    assert gradient_rule(0.01, 0.3).describe() == gradient_rule(0.01, 0.3).describe()


def test_what_is_not_used_and_how_it_is_computed_are_not_described():
    """So that runs which differ in these alone share their experts."""
    assert gradient_rule(weight=2.0, alpha=0.3).describe() == gradient_rule(weight=2.0).describe()
    assert gradient_rule(0.01, norm="image").describe() == gradient_rule(0.01).describe()
    assert replace(gradient_rule(weight=2.0), fast=True).describe() == gradient_rule(weight=2.0).describe()
