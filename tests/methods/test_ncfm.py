"""Tests of NCFM: distance of characteristic functions, blended network, sampling network and both updates."""

import math

import pytest
import torch

from dd_bench.data.decode import encode
from dd_bench.distillation.init import random_index
from dd_bench.methods import ncfm
from dd_bench.methods._ncfm.frequencies import REPEATS, FrequencySampler
from dd_bench.methods.ncfm import characteristic, lerp, unit_embedding
from dd_bench.teachers.feature_networks import feature_network, untrained_feature_network

IDENTICAL = 300 * math.sqrt(2e-12) * 1.01  # distance of identical sets per class, due to the terms of 1e-12


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def unit(*shape, seed=0):
    x = randn(*shape, seed=seed)
    return x / x.norm(dim=-1, keepdim=True)


def slow_function(features, t):
    """The mean of exp(i <t, f>), one complex number per frequency."""
    return torch.stack(
        [sum(torch.exp(1j * (f @ row).to(torch.complex128)) for f in features) / len(features) for row in t]
    )


def test_characteristic_function_equals_slow_implementation():
    features, t = unit(2, 4, 6), randn(5, 6, seed=1)
    re, im = characteristic(features, t)
    for c in range(2):
        torch.testing.assert_close(torch.complex(re[c], im[c]), slow_function(features[c], t))


def test_alpha_one_half_is_distance_over_sqrt_two(make_method):
    real, syn, t = unit(3, 7, 6), unit(3, 2, 6, seed=1), randn(20, 6, seed=2)
    expected = 0.0
    for c in range(3):
        gap = (slow_function(real[c], t) - slow_function(syn[c], t)).abs()
        expected = expected + 300 * (gap / math.sqrt(2)).mean()
    got = make_method("ncfm").characteristic_match(real, syn, t)
    torch.testing.assert_close(got, expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.5, 1.0])
def test_alpha_weights_amplitude_and_phase(make_method, alpha):
    real, syn, t = unit(1, 7, 6), unit(1, 3, 6, seed=1), randn(20, 6, seed=2)
    a, b = slow_function(real[0], t), slow_function(syn[0], t)
    amplitude = (a.abs() - b.abs()) ** 2
    phase = 2 * (a.abs() * b.abs() - (a * b.conj()).real)
    expected = 300 * torch.sqrt(alpha * amplitude + (1 - alpha) * phase).mean()
    got = make_method("ncfm", alpha=alpha).characteristic_match(real, syn, t)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


def test_identical_sets_have_zero_distance_and_finite_gradient(make_method):
    real, t = unit(2, 5, 6), randn(50, 6, seed=1)
    syn = real.clone().requires_grad_()
    loss = make_method("ncfm").characteristic_match(real, syn, t)
    loss.backward()
    assert 0 <= float(loss.detach()) < 2 * IDENTICAL
    assert syn.grad.isfinite().all()


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_gradient_against_finite_differences(make_method, alpha):
    real, t = unit(2, 5, 6), randn(10, 6, seed=1)
    syn, match = unit(2, 3, 6, seed=2).requires_grad_(), make_method("ncfm", alpha=alpha).characteristic_match
    assert torch.autograd.gradcheck(lambda s: match(real, s, t), (syn,), atol=1e-4)
    t.requires_grad_()
    assert torch.autograd.gradcheck(lambda t: match(real, syn.detach(), t), (t,), atol=1e-4)


def test_match_is_invariant_to_image_order(make_method):
    real, syn, t = unit(1, 5, 6), unit(1, 4, 6, seed=1), randn(10, 6)
    match = make_method("ncfm").characteristic_match
    torch.testing.assert_close(match(real, syn, t), match(real.flip(1), syn.flip(1), t))


def test_unit_embedding(make_net):
    net, images = make_net(), randn(3, 4, 1, 8, 8)
    embedding = unit_embedding(net, images)
    assert embedding.shape == (3, 4, net.classifier.in_features)
    torch.testing.assert_close(embedding.norm(dim=2), torch.ones(3, 4, dtype=torch.float64))
    direction = net.embed(images[1])[2]
    torch.testing.assert_close(embedding[1, 2], direction / direction.norm())


def test_image_gradient_of_the_loss_against_finite_differences(make_method, make_net):
    net, real, t = make_net(activation="swish").requires_grad_(False), randn(2, 5, 1, 8, 8), randn(16, 72)
    syn = randn(2, 2, 1, 8, 8, seed=1).requires_grad_()
    expected, match = unit_embedding(net, real), make_method("ncfm").characteristic_match
    loss = lambda x: match(expected, unit_embedding(net, x), t)  # noqa: E731
    assert torch.autograd.gradcheck(loss, (syn,), fast_mode=True, atol=1e-4)


def test_lerp(make_net):
    into, untrained, trained = make_net(0), make_net(1), make_net(2)
    for u, expected in ((0.0, trained), (1.0, untrained)):
        lerp(into, untrained, trained, u)
        assert all(torch.equal(a, b) for a, b in zip(into.parameters(), expected.parameters(), strict=True))
    lerp(into, untrained, trained, 0.3)
    for p, a, b in zip(into.parameters(), untrained.parameters(), trained.parameters(), strict=True):
        torch.testing.assert_close(p, 0.3 * a + 0.7 * b)


def test_each_iteration_blends_a_random_pair_of_the_pool(
    monkeypatch, make_method, make_ctx, make_architecture, train_blobs
):
    seen = []

    def spy(into, start, end, u):
        seen.append((start, end, u))
        lerp(into, start, end, u)

    monkeypatch.setattr(ncfm, "lerp", spy)
    ctx, method = make_ctx(), make_method("ncfm", num_teachers=2, iterations=30)
    method.prepare(train_blobs, ctx)
    method.distill(train_blobs, 1, ctx)
    assert 0 <= min(u for *_, u in seen) < 0.2
    assert 0.8 < max(u for *_, u in seen) < 1
    starts = [untrained_feature_network(ctx.architecture, i, ctx) for i in range(2)]
    ends = [feature_network(train_blobs, ctx.architecture, method.recipe, i, ctx) for i in range(2)]
    used = set()
    for start, end, _ in seen:
        i = next(i for i in range(2) if same(start, starts[i]))
        assert same(end, ends[i])
        assert not same(start, end)
        used.add(i)
    assert used == {0, 1}


def same(a, b):
    return all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


def test_gaussian_frequencies(make_ctx):
    sampler = FrequencySampler(2000, 6, False, 1e-3, make_ctx())
    first = sampler.draw(0, 0)
    assert first.shape == (2000, 6)
    assert abs(float(first.mean())) < 0.05
    assert abs(float(first.std()) - 1) < 0.05
    assert torch.equal(first, sampler.draw(0, 0))
    assert not torch.equal(first, sampler.draw(1, 0))
    assert not torch.equal(first, sampler.draw(0, 1))
    assert sampler.state() == {}


def test_learned_frequencies_are_a_scale_mixture_of_normals(make_ctx):
    ctx = make_ctx()
    plain = FrequencySampler(64, 6, False, 1e-3, ctx).draw(3, 1)
    t = FrequencySampler(64, 6, True, 1e-3, ctx).draw(3, 1)
    scales = (t / plain).view(64 // REPEATS, REPEATS, 6)
    torch.testing.assert_close(scales, scales[:, :1].expand_as(scales))  # 16 frequencies share a scale
    assert float(scales.abs().max()) <= 1
    assert len(scales[:, 0, 0].unique()) == 64 // REPEATS
    assert not t.requires_grad


def test_ascent_increases_the_distance(make_method, make_ctx):
    """The inner maximisation of the paper, on fixed sets."""
    real, syn = unit(1, 20, 8).float(), unit(1, 5, 8, seed=1).float()
    match, sampler = (
        make_method("ncfm").characteristic_match,
        FrequencySampler(512, 8, True, 1e-2, make_ctx()),
    )
    values = []
    for _ in range(4):
        values.append(float(match(real, syn, sampler.draw(0, 0))))
        for _ in range(15):
            sampler.ascend(lambda t: match(real, syn, t))
    assert values == sorted(values)
    assert values[-1] > 1.02 * values[0]


def test_ascent_uses_the_frequencies_of_the_last_draw(make_ctx):
    sampler, seen = FrequencySampler(32, 8, True, 1e-2, make_ctx()), []
    drawn = sampler.draw(2, 1)
    sampler.ascend(lambda t: seen.append(t.detach()) or t.sum())
    torch.testing.assert_close(seen[0], drawn)
    assert not torch.equal(sampler.draw(2, 1), drawn)


def test_too_few_frequencies_raise(make_method):
    with pytest.raises(ValueError, match=r"method.num_frequencies must be > 16 .* got 16"):
        make_method("ncfm", frequencies="network", num_frequencies=16)


@pytest.mark.parametrize("update", ["per_class", "joint"])
def test_sampling_network_resumes(make_method, make_ctx, train_blobs, update):
    changes = {"frequencies": "network", "iterations": 3, "lr_frequencies": 0.1, "update": update}
    method = lambda **more: make_method("ncfm", **changes, **more)  # noqa: E731
    uninterrupted = method().distill(train_blobs, 2, make_ctx(work="uninterrupted")).images
    with pytest.raises(KeyboardInterrupt):
        method().distill(train_blobs, 2, make_ctx(work="killed", killed_at=2))
    ctx = make_ctx(work="killed")
    assert torch.equal(uninterrupted, method().distill(train_blobs, 2, ctx).images)
    assert ctx.rows.started_at == 2
    gaussian = (
        make_method("ncfm", iterations=3, update=update).distill(train_blobs, 2, make_ctx(work="g")).images
    )
    assert not torch.equal(uninterrupted, gaussian)


def test_number_of_optimizer_steps_per_iteration(monkeypatch, make_method, make_ctx, train_blobs):
    for update, expected in (("per_class", 2 * 3), ("joint", 2)):
        steps, descend = [], ncfm.descend

        def spy(optimizer, loss, descend=descend, steps=steps):
            before = [p.detach().clone() for p in optimizer.param_groups[0]["params"]]
            descend(optimizer, loss)
            steps.append((before[0], optimizer.param_groups[0]["params"][0].detach().clone()))

        with monkeypatch.context() as patch:
            patch.setattr(ncfm, "descend", spy)
            make_method("ncfm", iterations=2, update=update).distill(train_blobs, 2, make_ctx(work=update))
        assert len(steps) == 2 * expected
        # All classes share one tensor, so after the first step AdamW's moments change every class at every step.
        changed = [(a != b).flatten(1).any(1).tolist() for a, b in steps]
        assert all(all(row) for row in changed[1:])


def test_image_optimizer_is_adamw_with_plateau_schedule(monkeypatch, make_method, make_ctx, train_blobs):
    optimizers, kind = [], torch.optim.AdamW

    def spy(*args, **kwargs):
        optimizers.append(kind(*args, **kwargs))
        return optimizers[-1]

    with monkeypatch.context() as patch:
        patch.setattr(ncfm.torch.optim, "AdamW", spy)
        make_method("ncfm", scale=0.0, calibration=0.0, iterations=7, plateau_patience=1).distill(
            train_blobs, 1, make_ctx()
        )
    group = optimizers[-1].param_groups[0]
    assert group["weight_decay"] == 5e-4
    assert group["betas"] == (0.9, 0.999)
    assert group["lr"] == pytest.approx(
        1e-3 * 0.5**3
    )  # a loss of 0 never improves: halved every second iteration


def test_pixels_are_clamped(make_method, make_ctx, train_blobs):
    syn = make_method("ncfm", lr_img=0.5).distill(train_blobs, 2, make_ctx())
    assert syn.space == "unit"
    assert float(syn.images.min()) == 0.0
    assert float(syn.images.max()) == 1.0


def test_classes_are_matched_to_their_own_real_images(monkeypatch, make_method, make_ctx, train_blobs):
    seen = []

    def spy(net, images):
        seen.append(images.detach())
        return unit_embedding(net, images)

    monkeypatch.setattr(ncfm, "unit_embedding", spy)
    make_method("ncfm", iterations=1, augment="none").distill(train_blobs, 2, make_ctx())
    assert len(seen) == 6  # real and synthetic images of each class
    for c, batch in enumerate(seen[::2]):
        assert batch.shape == (1, 8, 1, 8, 8)
        own = {tuple(x.flatten().tolist()) for x in train_blobs.train.inputs(train_blobs.train.of_class(c))}
        assert all(tuple(x.flatten().tolist()) in own for x in batch[0])


def test_matching_shares_the_augmentation_and_calibration_does_not(
    monkeypatch, make_method, make_ctx, train_blobs
):
    seen, apply = [], ncfm.Augment.apply

    def spy(self, x, draw):
        if draw.values.ndim == 2:
            seen.append((x.shape[:2], draw.values.clone()))
            assert self.always == ("color", "cutout")
        return apply(self, x, draw)

    monkeypatch.setattr(ncfm.Augment, "apply", spy)
    make_method("ncfm", iterations=1).distill(train_blobs, 2, make_ctx())
    (shape, real), rest = seen[0], seen[1:]
    assert shape == (3, 8)
    assert len(rest) == 2 * 3, "all classes are matched, then all classes are calibrated"
    for c, ((shape, matched), (_, calibrated)) in enumerate(zip(rest[:3], rest[3:], strict=True)):
        assert shape == (1, 2)
        assert torch.equal(matched[0], real[c])
        assert not torch.equal(calibrated[0], real[c])


def test_calibration_decreases_the_cross_entropy(make_method, make_ctx, make_blobs):
    real = make_blobs(counts=(40, 40, 40)).train_only()
    changes = {"scale": 0.0, "lr_img": 0.02, "augment": "none", "teacher.epochs": 20}
    ctx = make_ctx()
    net = feature_network(real, ctx.architecture, make_method("ncfm", **changes).recipe, 0, ctx)
    losses = []
    for iterations in (0, 15):
        method = make_method("ncfm", **changes, iterations=iterations)
        images, labels = method.distill(real, 2, make_ctx(work=str(iterations))).materialise(ctx.device)
        losses.append(float(torch.nn.functional.cross_entropy(net(images), labels).detach()))
    assert losses[1] < 0.8 * losses[0]


def test_teachers_get_no_gradients(monkeypatch, make_method, make_ctx, train_blobs):
    nets, make = [], ncfm.feature_network

    def spy(*args):
        nets.append(make(*args))
        return nets[-1]

    monkeypatch.setattr(ncfm, "feature_network", spy)
    make_method("ncfm").distill(train_blobs, 1, make_ctx())
    assert nets
    assert all(p.grad is None for net in nets for p in net.parameters())


def test_plateau_schedule_uses_both_losses(monkeypatch, make_method, make_ctx, train_blobs):
    """The schedule sees the matching loss plus the weighted cross-entropy, per class, as in the released code."""
    seen = []

    def step(self, metrics):
        seen.append(metrics)

    monkeypatch.setattr(ncfm.ReduceLROnPlateau, "step", step)
    for scale, calibration in ((300.0, 0.0), (0.0, 1.0), (300.0, 1.0)):
        make_method("ncfm", scale=scale, calibration=calibration, iterations=1, lr_img=0.0).distill(
            train_blobs, 2, make_ctx(work=f"{scale} {calibration}")
        )
    assert min(seen) > 0
    assert seen[2] == pytest.approx(seen[0] + seen[1], rel=1e-5)


@pytest.mark.parametrize("mosaic", ["nearest", "antialiased"])
def test_initial_mosaics(make_method, make_ctx, train_blobs, mosaic):
    ctx = make_ctx()
    syn = make_method("ncfm", iterations=0, factor=2, mosaic=mosaic).distill(train_blobs, 3, ctx)
    index = random_index(train_blobs, 3 * 4, make_ctx())
    pixels = train_blobs.train.pixels(index.flatten()).float() / 255
    assert torch.equal(syn.images, encode(pixels, 2, mosaic))
    assert torch.equal(syn.images[0, :, :4, :4], pixels[0, :, ::2, ::2]) == (mosaic == "nearest")
    assert syn.images.shape == (9, 1, 8, 8)
    images, labels = syn.materialise(ctx.device)
    assert images.shape == (36, 1, 8, 8)
    assert labels.tolist() == [0] * 12 + [1] * 12 + [2] * 12


def test_distillation_with_factor_two(make_method, make_ctx, train_blobs):
    for update in ("per_class", "joint"):
        start, end = (
            make_method("ncfm", iterations=i, factor=2, update=update).distill(
                train_blobs, 2, make_ctx(work=f"{update}{i}")
            )
            for i in (0, 2)
        )
        assert not torch.equal(start.images, end.images)


def test_check_dataset(make_method, make_architecture, train_blobs):
    architecture = make_architecture()
    assert make_method("ncfm", factor=2).check_dataset(train_blobs, 4, architecture) is None
    assert make_method("ncfm", factor=2).check_dataset(train_blobs, 5, architecture) == (
        "ipc=5 (20 real images per class) exceeds the size of class 'b' of blobs (17 images), "
        "and this method samples without replacement. Use ipc<=4"
    )


@pytest.mark.parametrize(
    ("key", "choices"),
    [
        ("update", "joint or per_class"),
        ("frequencies", "gaussian or network"),
        ("mosaic", "nearest or antialiased"),
    ],
)
def test_unknown_values_raise(make_method, key, choices):
    with pytest.raises(ValueError, match=f"method.{key} must be {choices}, got 'nope'"):
        make_method("ncfm", **{key: "nope"})
