"""Mathematics of the methods for linear probes: pyramid images, losses, gradients in parts, and the baselines."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from dd_bench.data.class_subset import ClassSubset
from dd_bench.distillation.clusters import nearest_unused
from dd_bench.distillation.coreset import build_coreset
from dd_bench.methods._probing.chunks import feature_gradients
from dd_bench.methods._probing.pyramid import Pyramid, colour_root
from dd_bench.methods._probing.views import ProbeViews
from dd_bench.methods.clp_dd import probe_loss
from dd_bench.methods.lgm import matching_loss
from dd_bench.training.linear_head import one_hot, ridge_weights, unit_rows


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.fixture
def pyramid(make_ctx, train_blobs):
    return Pyramid(train_blobs, 3, level_every=5, lr=0.1, ctx=make_ctx())


def test_schedule_of_the_pyramid(pyramid):
    """Levels of 1, 2, 4 and 8 pixels; the old ones shrink so that the levels are averaged; Adam is restarted."""
    assert [tuple(level.shape) for level in pyramid.levels] == [(3, 1, s, s) for s in (1, 2, 4, 8)]
    assert [pyramid.levels_at(step) for step in (0, 4, 5, 10, 15, 99)] == [1, 1, 2, 3, 4, 4]
    first = pyramid.levels[0].detach().clone()
    pyramid.images().sum().backward()
    pyramid.optimizer.step()
    assert pyramid.levels[1].grad is None and len(pyramid.optimizer.state) == 1
    pyramid.levels[0].data.copy_(first)
    for step in range(16):
        pyramid.grow(step)
    assert pyramid.count == 4 and not pyramid.optimizer.state
    assert torch.allclose(pyramid.levels[0], first / 4)
    second = pyramid._noise(1)
    assert torch.allclose(pyramid.levels[1], second / 2 * (2 / 3) * (3 / 4))
    assert torch.allclose(pyramid.levels[3], pyramid._noise(3) / 4)


def test_images_are_sums_of_levels(pyramid):
    for step in (0, 5):
        pyramid.grow(step)
    coarse, fine = (F.interpolate(p, (8, 8), mode="bilinear") for p in pyramid.levels[:2])
    assert torch.allclose(pyramid.images(), torch.sigmoid(2 * (coarse + fine)))


def test_levels_of_images_that_are_not_square(make_blobs, make_ctx):
    pyramid = Pyramid(make_blobs((4, 4), (3, 6, 11)), 2, level_every=1, lr=0.1, ctx=make_ctx())
    sizes = [tuple(level.shape[2:]) for level in pyramid.levels]
    assert sizes == [(1, 1), (2, 2), (4, 4), (6, 8), (6, 11)]
    assert pyramid.images().shape == (2, 3, 6, 11)


def test_colour_root(real_set, make_blobs):
    """Independent values get the correlations of the training images' colours."""
    real = real_set(4, 3)
    root = colour_root(real, torch.Generator().manual_seed(0))
    pixels = real.train.pixels(torch.arange(len(real.train))).double().transpose(0, 1).flatten(1)
    assert torch.allclose(
        torch.corrcoef((root @ root.T).double().inverse()),
        torch.corrcoef(torch.cov(pixels).inverse()),
        atol=1e-3,
    )
    assert float(root.norm(dim=0).max()) == pytest.approx(1)
    assert colour_root(make_blobs(), torch.Generator()).tolist() == [[1.0]]


def test_lgm_loss_is_zero_for_the_real_batch():
    z, y, weight = normal(12, 5), torch.arange(12) % 3, normal(3, 5, seed=1)
    assert float(matching_loss(z, y, z, y, weight)) == pytest.approx(0, abs=1e-12)
    assert float(matching_loss(z, y, z.repeat(2, 1), y.repeat(2), weight)) == pytest.approx(0, abs=1e-12)
    assert 0 < float(matching_loss(z, y, z, y.roll(1), weight)) < 2


def test_clp_loss_of_all_real_images_is_that_of_the_ridge_probe():
    z, y = normal(40, 6), torch.arange(40) % 4
    head = F.normalize(ridge_weights(unit_rows(z), one_hot(y, 4, z.dtype), 0.01), dim=0)
    expected = F.cross_entropy(unit_rows(z) @ head / 0.1, y)
    assert float(probe_loss(z, y, z, one_hot(y, 4, z.dtype), 0.01, 0.1)) == pytest.approx(
        float(expected), abs=1e-12
    )


def test_gradients_of_the_losses():
    real_z, real_y, y, weight = normal(8, 5), torch.arange(8) % 3, torch.arange(3), normal(3, 5, seed=2)
    z = normal(3, 5, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda z: matching_loss(real_z, real_y, z, y, weight), z)
    targets = one_hot(y, 3, z.dtype)
    assert torch.autograd.gradcheck(lambda z: probe_loss(real_z, real_y, z, targets, 0.1, 0.5), z)


def test_gradient_in_parts(make_ctx, train_blobs):
    backbone, x = (
        make_ctx().backbone_of(train_blobs),
        normal(7, 1, 8, 8, dtype=torch.float32).requires_grad_(),
    )
    gradient = normal(7, backbone.features(x).shape[1], seed=1, dtype=torch.float32)
    (expected,) = torch.autograd.grad(backbone.features(x), x, gradient)
    assert torch.allclose(feature_gradients(backbone, x.detach(), gradient, 3), expected, atol=1e-6)


@pytest.mark.parametrize("name", ["lgm", "clp_dd"])
def test_chunks_do_not_change_the_set(make_method, make_ctx, train_blobs, name):
    sets = [
        make_method(name, chunk=chunk).distill(train_blobs, 1, make_ctx(work=str(chunk))).images
        for chunk in (None, 4)
    ]
    assert (sets[0].int() - sets[1].int()).abs().max() <= 1


@pytest.mark.parametrize("name", ["lgm", "clp_dd"])
def test_loss_decreases(make_method, make_ctx, make_teacher, real_set, name):
    """On other classes than those of the backbone."""
    real = ClassSubset((0, 1)).apply(real_set(4)).train_only()
    ctx = make_ctx(teachers=(other_classes(make_teacher(num_classes=2)),))
    method = make_method(name, smoke=False, iterations=60, level_every=10, lr_img=0.05)
    method.distill(real, 1, ctx)
    losses = ctx.rows.losses
    assert sum(losses[-10:]) < 0.8 * sum(losses[:10])


def other_classes(spec):
    return replace(spec, config=spec.config.model_copy(update={"trained_on": "other_classes"}))


def test_clp_real_views(make_method, make_ctx, train_blobs):
    """Views of the real images are new at each count, and the set differs."""
    first, second = (
        make_method("clp_dd", real_views=views).distill(train_blobs, 1, make_ctx(work=str(views))).images
        for views in (None, 2)
    )
    assert not torch.equal(first, second)


def test_views():
    x = torch.full((2000, 1, 4, 4), 0.25)
    plain = {"scale": None, "flip": True, "noise_mean": 0.5, "noise_std": 0.2}
    real = type("Real", (), {"flip": True})
    assert torch.equal(ProbeViews(noise=0.0, **plain).apply(x, real, torch.Generator()), x)
    noisy = ProbeViews(noise=0.5, **plain).apply(x, real, torch.Generator().manual_seed(0)) - x
    changed = noisy.flatten(1).any(1)
    assert 0.45 < float(changed.double().mean()) < 0.55
    assert float(noisy[changed].mean()) == pytest.approx(0.5, abs=0.01)
    assert float(noisy[changed].std()) == pytest.approx(0.2, abs=0.01)


def test_centroid_is_the_image_nearest_to_the_mean_feature(make_method, make_ctx, train_blobs):
    ctx = make_ctx()
    syn, backbone = make_method("centroid").distill(train_blobs, 2, ctx), ctx.backbone_of(train_blobs)
    for c in range(3):
        index = train_blobs.train.of_class(c)
        z = backbone.split_features(train_blobs.train, index)
        near = (z - z.mean(0)).norm(dim=1).argsort()[:2]
        assert torch.equal(syn.images[2 * c : 2 * c + 2], train_blobs.train.pixels(index[near]))


def test_nearest_uses_each_candidate_once():
    candidates = torch.tensor([[0.0], [1.0], [5.0]])
    assert nearest_unused(torch.tensor([[0.4], [0.1], [9.0]]), candidates).tolist() == [0, 1, 2]


def test_neighbours_of_real_images_are_these_images(make_method, make_ctx, train_blobs):
    ctx = make_ctx()
    ctx.base = build_coreset(
        train_blobs, train_blobs.train.draw(2, torch.Generator().manual_seed(3)).flatten()
    )
    method = make_method("neighbours")
    assert method.check_base(ctx.base, train_blobs, 2, ctx.teachers) is None
    assert "must have ipc=3" in method.check_base(ctx.base, train_blobs, 3, ctx.teachers)
    assert torch.equal(method.distill(train_blobs, 2, ctx).images, ctx.base.images)
    assert "base=FOLDER" in method.check_teachers(train_blobs, 2, ctx.teachers)
    with pytest.raises(ValueError, match="Use base=FOLDER"):
        method.distill(train_blobs, 2, make_ctx(work="without"))
