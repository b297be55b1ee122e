"""CIM: mosaics of anchors, enlarged cells, feature distances and their gradients, and a factor of one."""

import pytest
import torch
import torch.nn.functional as F

from dd_bench.methods.cim import cells, features, mosaics, paired_distance


def images(n, side=8, dtype=torch.float64):
    return torch.rand(n, 2, side, side, generator=torch.Generator().manual_seed(0), dtype=dtype)


def test_cells_map_to_their_anchors():
    """Anchor number k * ipc + i is cell k of image i. Constant anchors are recovered exactly."""
    anchors = torch.arange(12.0).view(12, 1, 1, 1).expand(12, 2, 8, 8)
    mosaic = mosaics(anchors, 2)
    assert mosaic.shape == (3, 2, 8, 8)
    for i in range(3):
        corners = mosaic[i, 0, ::4, ::4]
        assert corners.tolist() == [[i, 3 + i], [6 + i, 9 + i]]
    assert torch.equal(cells(mosaic, 2), anchors)


def test_anchors_are_shrunk_by_nearest_neighbours_and_cells_enlarged_bilinearly():
    anchors = images(4)
    small = anchors[:, :, ::2, ::2]
    assert torch.equal(mosaics(anchors, 2)[0, :, :4, 4:], small[1])
    expected = F.interpolate(small, (8, 8), mode="bilinear", align_corners=False)
    assert torch.allclose(cells(mosaics(anchors, 2), 2), expected)


def test_factor_one_changes_nothing(make_method, make_ctx, train_blobs):
    anchors = images(3)
    assert torch.equal(mosaics(anchors, 1), anchors) and torch.equal(cells(anchors, 1), anchors)
    changes = {"factor": 1, "smoke": False, "iterations": 4}
    sets = [
        make_method("cim", **changes | {"iterations": n}).distill(train_blobs, 2, make_ctx(work=str(n)))
        for n in (0, 4)
    ]
    assert torch.equal(sets[0].images, sets[1].images)
    ctx = make_ctx(work="losses")
    make_method("cim", **changes).distill(train_blobs, 2, ctx)
    assert all(loss == 0 for loss in ctx.rows.losses)


def test_loss_decreases(make_method, make_ctx, train_blobs):
    ctx = make_ctx()
    make_method("cim", smoke=False, iterations=40, factor=2).distill(train_blobs, 1, ctx)
    losses = ctx.rows.losses  # 40 steps of each of three classes
    for first in range(0, 120, 40):
        assert sum(losses[first + 35 : first + 40]) < 0.9 * sum(losses[first : first + 5])


def test_distances():
    a, b = torch.tensor([[1.0, 2.0], [0.0, 0.0]]), torch.tensor([[0.0, 4.0], [0.0, 1.0]])
    assert float(paired_distance(a, b, "l1")) == pytest.approx(1.5 + 0.5)
    assert float(paired_distance(a, b, "l2")) == pytest.approx(2.5 + 0.5)


@pytest.mark.parametrize("layer", ["embedding", 0, -1, "classifier"])
def test_gradient_of_the_images_by_finite_differences(make_net, layer):
    net = make_net(norm="none", activation="swish").eval().requires_grad_(False)
    anchors = images(4)[:, :1]
    target = features(net, anchors, layer)
    start = mosaics(anchors, 2)

    def loss(delta):
        moved = features(net, cells(start + delta, 2), layer)
        return paired_distance(target, moved, "l2")

    delta = 0.1 * torch.rand_like(start)
    delta.requires_grad_()
    (gradient,) = torch.autograd.grad(loss(delta), delta)
    direction = torch.randn(delta.shape, generator=torch.Generator().manual_seed(1), dtype=delta.dtype)
    step = 1e-5
    with torch.no_grad():
        slope = (loss(delta + step * direction) - loss(delta - step * direction)) / (2 * step)
    assert float((gradient * direction).sum()) == pytest.approx(float(slope), rel=1e-5, abs=1e-9)


def test_layers(make_net):
    net = make_net(depth=2).eval()
    x = torch.rand(3, 1, 8, 8, dtype=torch.float64)
    assert torch.equal(features(net, x, "classifier"), features(net, x, "embedding"))
    assert features(net, x, 0).shape == (3, 8 * 12 * 12)
    with pytest.raises(ValueError, match=r"a number from -2 to 1.*got 7"):
        features(net, x, 7)
    with pytest.raises(ValueError, match=r"or the name of a module of the teacher.*got body"):
        features(net, x, "body")


def test_sides_must_be_divisible(make_method, make_blobs, make_architecture):
    reason = make_method("cim", factor=3).check_dataset(make_blobs(), 1, make_architecture())
    assert "must divide the sides of 8x8 images, got 3" in reason
    reason = make_method("cim", factor=2).check_dataset(make_blobs((20, 3, 9)), 4, make_architecture())
    assert "ipc=4 (16 real images per class)" in reason
