"""Augmentation: comparison with slow per-image references, and distributions of the random values."""

import math

import pytest
import torch
import torch.nn.functional as F

from dd_bench.runtime.seeding import stream
from dd_bench.training.augment import OPS, Augment, Draw, beta_sample, cutmix, cutmix_box
from dd_bench.training.losses import mixed_loss

STRATEGY = "color_crop_cutout_flip_scale_rotate"
each_op = pytest.mark.parametrize("op", OPS)


def stream_of(seed=0):
    return stream("cpu", seed, "augment")


def images(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def draw_of(values, op=0):
    """Return a `Draw` with the given values, `(g, 3)` or `(g, b, 3)`."""
    return Draw(torch.full((len(values),), op), values, {})


def many(op, x, n, seed=0):
    """Apply `op` to n copies of the image `x`, each with its own draw, and return `(n, c, h, w)`."""
    augment = Augment(op)
    copies = x[None, None].expand(n, 1, *x.shape)
    return augment.apply(copies, augment.draw(n, stream_of(seed)))[:, 0]


def assert_uniform(values, low, high):
    """Check values of U(low, high): the range, and mean and variance within 5 standard deviations."""
    n, width = len(values), high - low
    assert low - 1e-5 <= float(values.min()) < low + 0.01 * width
    assert high - 0.01 * width < float(values.max()) <= high + 1e-5
    assert abs(float(values.mean()) - (low + high) / 2) < 5 * width / math.sqrt(12 * n)
    assert abs(float(values.var()) - width**2 / 12) < 5 * width**2 / math.sqrt(180 * n)


def assert_uniform_counts(counts):
    """Check that all counts are within 5 standard deviations of the mean."""
    n, share = int(counts.sum()), 1 / len(counts)
    assert float((counts.double() - n * share).abs().max()) < 5 * math.sqrt(n * share * (1 - share))


def slow_color(x, u):
    c, h, w = x.shape
    x = x + (u[0] - 0.5)
    out = x.clone()
    if c > 1:
        for i in range(h):
            for j in range(w):
                mean = sum(x[:, i, j]) / c
                out[:, i, j] = mean + 2 * u[1] * (x[:, i, j] - mean)
    mean = out.sum() / (c * h * w)
    return mean + (0.5 + u[2]) * (out - mean)


def slow_crop(x, u):
    _, h, w = x.shape
    reach_h, reach_w = int(0.125 * h + 0.5), int(0.125 * w + 0.5)
    down = math.floor(u[0] * (2 * reach_h + 1)) - reach_h
    right = math.floor(u[1] * (2 * reach_w + 1)) - reach_w
    out = torch.zeros_like(x)
    for i in range(h):
        for j in range(w):
            if 0 <= i + down < h and 0 <= j + right < w:
                out[:, i, j] = x[:, i + down, j + right]
    return out


def slow_holes(size):
    """Return the rows that the reference zeroes for each centre; indices outside the image are clamped."""
    side = int(0.5 * size + 0.5)
    centres = range(size + (1 - side % 2))  # torch.randint's upper end is excluded
    return [{min(max(c - side // 2 + i, 0), size - 1) for i in range(side)} for c in centres]


def slow_cutout(x, u):
    rows, cols = slow_holes(x.shape[1]), slow_holes(x.shape[2])
    out = x.clone()
    for i in rows[math.floor(u[0] * len(rows))]:
        for j in cols[math.floor(u[1] * len(cols))]:
            out[:, i, j] = 0
    return out


def slow_flip(x, u):
    return x[:, :, list(range(x.shape[2] - 1, -1, -1))] if u[0] < 0.5 else x


def slow_affine(x, theta, align_corners=False):
    grid = F.affine_grid(torch.tensor([theta], dtype=x.dtype), [1, *x.shape], align_corners=align_corners)
    return F.grid_sample(x[None], grid, "bilinear", "zeros", align_corners=align_corners)[0]


def slow_scale(x, u, **how):
    sx, sy = (1 / 1.2 + float(v) * (1.2 - 1 / 1.2) for v in u[:2])
    return slow_affine(x, [[sx, 0, 0], [0, sy, 0]], **how)


def slow_rotate(x, u, **how):
    angle = math.radians(30 * float(u[0]) - 15)
    return slow_affine(
        x, [[math.cos(angle), math.sin(-angle), 0], [math.sin(angle), math.cos(angle), 0]], **how
    )


SLOW = {
    "color": slow_color,
    "crop": slow_crop,
    "cutout": slow_cutout,
    "flip": slow_flip,
    "scale": slow_scale,
    "rotate": slow_rotate,
}


@each_op
@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 9, 7), (2, 10, 12)], ids=str)
def test_op_equals_the_reference(op, shape):
    x = images(2, 4, *shape)
    u = torch.rand(2, 4, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    u[0, 0], u[0, 1] = 0.0, 1 - 1e-12  # both ends
    out = Augment(op).apply(x, draw_of(u))
    for g in range(2):
        for b in range(4):
            torch.testing.assert_close(out[g, b], SLOW[op](x[g, b], u[g, b]), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("op", ["scale", "rotate"])
def test_align_corners_is_passed_on(op, align_corners):
    x, u = images(1, 1, 2, 6, 11), torch.tensor([[0.2, 0.9, 0.0]], dtype=torch.float64)
    out = Augment(op, align_corners=align_corners).apply(x, draw_of(u))
    torch.testing.assert_close(out[0, 0], SLOW[op](x[0, 0], u[0], align_corners=align_corners))


def test_align_corners_matters_only_for_rotation_of_non_square_images():
    """Both conventions sample the same positions around the centre, unless the units of x and y differ."""
    u = torch.tensor([[0.2, 0.9, 0.0]], dtype=torch.float64)
    for op, shape, same in (("scale", (6, 11), True), ("rotate", (8, 8), True), ("rotate", (6, 11), False)):
        x = images(1, 1, 2, *shape)
        aligned, other = (Augment(op, align_corners=a).apply(x, draw_of(u)) for a in (True, False))
        assert torch.allclose(aligned, other) == same, op


def test_color_ranges():
    """Brightness shifts the mean. Saturation and contrast scale the difference of the channels."""
    x = torch.zeros(2, 2, 2)
    x[0], x[1] = 1.0, -1.0  # mean 0 at every pixel; saturation and contrast both scale the difference
    out = many("color", x, 20_000)
    mean = out.mean((1, 2, 3))
    assert_uniform(mean, -0.5, 0.5)
    difference = (out[:, 0] - out[:, 1]).mean((1, 2)) / 2  # saturation * contrast
    assert float(difference.min()) >= -1e-5
    assert 2.7 < float(difference.max()) <= 3.0 + 1e-5
    assert abs(float(difference.mean()) - 1.0) < 0.03

    grey = torch.tensor([[[-1.0, 1.0]]])  # one channel: only contrast
    out = many("color", grey, 20_000, seed=1)
    assert_uniform((out[:, 0, 0, 1] - out[:, 0, 0, 0]) / 2, 0.5, 1.5)


def test_centres_of_saturation_and_contrast():
    x = images(1, 1, 3, 4, 4)
    u = torch.tensor([[0.5, 0.0, 0.5]], dtype=torch.float64)  # brightness 0, saturation 0, contrast 1
    out = Augment("color").apply(x, draw_of(u))
    torch.testing.assert_close(out, x.mean(2, keepdim=True).expand_as(x))
    u = torch.tensor([[0.5, 0.5, 0.0]], dtype=torch.float64)  # brightness 0, saturation 1, contrast 1/2
    out = Augment("color").apply(x, draw_of(u))
    torch.testing.assert_close(out, (x + x.mean()) / 2)


def test_saturation_of_one_channel_is_the_identity():
    x, u = images(1, 2, 1, 4, 4), torch.rand(1, 3, dtype=torch.float64)
    other = u.clone()
    other[0, 1] = 1 - u[0, 1]
    assert torch.equal(Augment("color").apply(x, draw_of(u)), Augment("color").apply(x, draw_of(other)))


@pytest.mark.parametrize(("size", "reach"), [(8, 1), (28, 4), (32, 4), (64, 8)])
def test_crop_shifts(size, reach):
    rows = torch.arange(size).float()[:, None].expand(size, size)
    x = torch.stack([rows, rows.T]) + 1  # 0 is the fill
    out = many("crop", x, 8_000)
    centre = size // 2
    down, right = (out[:, i, centre, centre].long() - 1 - centre for i in (0, 1))
    for shift in (down, right):
        assert set(shift.tolist()) == set(range(-reach, reach + 1))
        assert_uniform_counts(torch.bincount(shift + reach))
    assert abs(float(torch.corrcoef(torch.stack([down, right]).double())[0, 1])) < 5 / math.sqrt(8_000)
    for i in range(20):  # the empty rows and columns are zero
        assert int((out[i, 0] == 0).sum()) == size**2 - (size - abs(int(down[i]))) * (
            size - abs(int(right[i]))
        )


@pytest.mark.parametrize("size", [8, 9, 10, 28, 32])
def test_cutout_holes(size):
    """Holes of even side (sizes 8, 28, 32) may be centred on the far border, odd ones (9, 10) not; all are clipped."""
    out = many("cutout", torch.ones(2, size, size), 12_000)
    hole = out == 0
    assert bool((hole[:, 0] == hole[:, 1]).all())
    rows, cols = hole[:, 0].any(2), hole[:, 0].any(1)  # (n, size)
    assert bool((hole[:, 0] == rows[:, :, None] & cols[:, None, :]).all())  # a rectangle
    expected = [frozenset(h) for h in slow_holes(size)]
    for lines in (rows, cols):
        found = zip(*lines.unique(dim=0, return_counts=True), strict=True)
        spans = {frozenset(line.nonzero().flatten().tolist()): int(count) for line, count in found}
        assert set(spans) == set(expected)
        assert_uniform_counts(torch.tensor([spans[hole] for hole in expected]))


def test_flip_has_probability_one_half():
    x = images(1, 3, 4, dtype=torch.float32)
    out = many("flip", x, 10_000)
    flipped = (out == x.flip(2)).flatten(1).all(1)
    assert bool((flipped | (out == x).flatten(1).all(1)).all())
    assert_uniform_counts(torch.bincount(flipped.long()))


def ramps(size=16):
    """Return two channels with the x and y coordinates of the pixel centres in [-1, 1]."""
    line = (torch.arange(size) + 0.5) / size * 2 - 1
    return torch.stack([line.expand(size, size), line[:, None].expand(size, size)])


def test_scale_ranges():
    out = many("scale", ramps(), 20_000)
    at = ramps()[0, 10, 10]  # not at a border, so bilinear sampling of a ramp is exact
    across, down = out[:, 0, 10, 10] / at, out[:, 1, 10, 10] / at
    assert_uniform(across, 1 / 1.2, 1.2)
    assert_uniform(down, 1 / 1.2, 1.2)
    assert abs(float(torch.corrcoef(torch.stack([across, down]))[0, 1])) < 5 / math.sqrt(20_000)


def test_a_scale_above_one_shrinks_the_content():
    x = torch.zeros(1, 1, 1, 32, 32)
    x[..., 8:24, 8:24] = 1.0
    area = {
        u: float(Augment("scale").apply(x, draw_of(torch.full((1, 3), u))).sum()) for u in (0.0, 1 - 1e-6)
    }
    torch.testing.assert_close(area[1 - 1e-6], 16**2 / 1.2**2, rtol=0.05, atol=0)
    torch.testing.assert_close(area[0.0], 16**2 * 1.2**2, rtol=0.05, atol=0)


def test_rotate_ranges():
    out = many("rotate", ramps(), 20_000)
    at = ramps()[0, 10, 10]  # the pixel (at, at) has the value (at cos - at sin, at sin + at cos)
    cos = (out[:, 0, 10, 10] + out[:, 1, 10, 10]) / (2 * at)
    sin = (out[:, 1, 10, 10] - out[:, 0, 10, 10]) / (2 * at)
    torch.testing.assert_close(cos**2 + sin**2, torch.ones(20_000))
    assert_uniform(torch.rad2deg(torch.atan2(sin, cos)), -15.0, 15.0)


def test_one_op_is_drawn_uniformly():
    augment = Augment(STRATEGY)
    draw = augment.draw(12_000, stream_of())
    assert augment.choices == tuple(STRATEGY.split("_"))
    assert draw.always == {}
    assert_uniform_counts(torch.bincount(draw.op, minlength=6))
    assert_uniform(draw.values.flatten(), 0.0, 1.0)


def test_only_the_drawn_op_is_applied():
    augment, x = Augment(STRATEGY), images(40, 1, 2, 8, 8)
    draw = augment.draw(40, stream_of())
    out = augment.apply(x, draw)
    for g in range(40):
        op, u = augment.choices[int(draw.op[g])], draw.values[g].double()
        torch.testing.assert_close(out[g, 0], SLOW[op](x[g, 0], u), rtol=1e-6, atol=1e-6)


def test_one_draw_gives_the_same_transform_for_both_batches_of_a_class():
    augment, k = Augment(STRATEGY), 30
    real, syn = images(k, 5, 3, 8, 8), images(k, 3, 3, 8, 8, seed=1)
    syn[:, 2] = real[:, 4]  # the same image at another index
    draw = augment.draw(k, stream_of())
    assert len(draw.op.unique()) == 6
    assert torch.equal(augment.apply(syn, draw)[:, 2], augment.apply(real, draw)[:, 4])


def test_all_images_of_a_group_share_its_values_and_groups_differ():
    augment, k = Augment("color_scale_rotate"), 12
    x = images(1, 1, 3, 8, 8).expand(k, 4, 3, 8, 8)
    out = augment.apply(x, augment.draw(k, stream_of()))
    assert bool((out == out[:, :1]).all())
    assert len({tuple(g.flatten().tolist()) for g in out[:, 0]}) == k


@each_op
def test_per_image_values_differ_within_a_batch(op):
    x = images(1, 3, 8, 8).expand(64, 3, 8, 8)
    out = Augment(op).batch(x, stream_of())
    assert out.shape == x.shape
    distinct = len({tuple(image.flatten().tolist()) for image in out})
    assert distinct == {"flip": 2, "crop": 9}.get(op, distinct)
    assert distinct >= {"flip": 2, "crop": 9, "cutout": 30}.get(op, 64)


def test_a_mini_batch_draws_one_op():
    x = images(16, 1, 8, 8)
    augment, twin = Augment("crop_color"), stream_of(3)
    draw = augment.draw(1, twin, per_image=16)
    assert torch.equal(augment.batch(x, stream_of(3)), augment.apply(x[None], draw)[0])
    assert draw.op.shape == (1,)
    assert draw.values.shape == (1, 16, 3)


@pytest.mark.parametrize("style", ["dsa", "idc"])
@pytest.mark.parametrize("per_image", [None, 4])
def test_groups_are_independent(style, per_image):
    augment, k = Augment(STRATEGY, style=style), 20
    x = images(k, 4, 3, 8, 8)
    draw = augment.draw(k, stream_of(), per_image=per_image)
    whole = augment.apply(x, draw)
    for g in range(k):
        torch.testing.assert_close(whole[g], augment.apply(x[g : g + 1], draw[g : g + 1])[0], rtol=0, atol=0)


def test_draws_repeat_with_the_stream():
    augment = Augment(STRATEGY, style="idc")
    first, again, other = (augment.draw(50, stream_of(seed)) for seed in (5, 5, 6))
    assert torch.equal(first.op, again.op)
    assert torch.equal(first.values, again.values)
    assert all(torch.equal(first.always[op], again.always[op]) for op in augment.always)
    assert not torch.equal(first.values, other.values)
    assert not torch.equal(first.always["flip"], first.always["color"])  # each op has its own numbers


@each_op
def test_differentiable_in_the_pixels(op):
    augment = Augment(op)
    x = images(2, 2, 2, 5, 5).requires_grad_()
    draw = augment.draw(2, stream_of(1))
    assert torch.autograd.gradcheck(lambda x: augment.apply(x, draw), (x,))


def test_idc_style_is_differentiable():
    augment = Augment(STRATEGY, style="idc")
    x = images(2, 1, 2, 5, 5).requires_grad_()
    draw = augment.draw(2, stream_of())
    assert torch.autograd.gradcheck(lambda x: augment.apply(x, draw), (x,))


def test_dtype_is_kept():
    for dtype in (torch.float32, torch.float64):
        augment = Augment(STRATEGY)
        x = images(12, 2, 1, 8, 8, dtype=dtype)
        assert augment.apply(x, augment.draw(12, stream_of())).dtype == dtype


def test_flip_is_ignored_if_it_is_not_allowed():
    assert Augment(STRATEGY, flip_allowed=False).choices == ("color", "crop", "cutout", "scale", "rotate")
    assert "flip" not in Augment(STRATEGY, flip_allowed=False, style="idc").always
    assert not Augment("flip", flip_allowed=False)


@pytest.mark.parametrize("strategy", ["", "none"])
def test_no_augmentation(strategy):
    augment, x = Augment(strategy), images(2, 3, 1, 4, 4)
    assert not augment
    assert torch.equal(augment.apply(x, augment.draw(2, stream_of())), x)
    assert augment.batch(x[0], stream_of()) is x[0] or torch.equal(augment.batch(x[0], stream_of()), x[0])


def test_unknown_op():
    with pytest.raises(
        ValueError,
        match=r"must be none, or some of color, crop, .*, got 'blur' in 'color_blur'\. Example: color_crop",
    ):
        Augment("color_blur")


def test_idc_style_applies_flip_color_one_other_and_cutout_last():
    augment, k = Augment(STRATEGY, style="idc"), 60
    assert augment.always == ("flip", "color", "cutout")
    assert augment.choices == ("crop", "scale", "rotate")
    x = images(k, 2, 3, 8, 8)
    draw = augment.draw(k, stream_of())
    assert_uniform_counts(torch.bincount(draw.op, minlength=3))
    out = augment.apply(x, draw)
    for g in range(k):
        for b in range(2):
            expected = x[g, b]
            for op in ("flip", "color"):
                expected = SLOW[op](expected, draw.always[op][g].double())
            expected = SLOW[augment.choices[int(draw.op[g])]](expected, draw.values[g].double())
            expected = slow_cutout(expected, draw.always["cutout"][g].double())
            torch.testing.assert_close(out[g, b], expected, rtol=1e-5, atol=1e-5)


def test_idc_style_applies_only_listed_ops():
    assert Augment("color_crop_cutout", style="idc").always == ("color", "cutout")
    assert Augment("color_crop_cutout", style="idc").choices == ("crop",)
    only = Augment("color", style="idc")
    x = images(2, 2, 3, 4, 4)
    draw = only.draw(2, stream_of())
    torch.testing.assert_close(only.apply(x, draw), Augment("color").apply(x, draw_of(draw.always["color"])))


def test_cutmix_returns_the_kept_share():
    generator = torch.Generator().manual_seed(0)
    x = torch.arange(6).float()[:, None, None, None].expand(6, 2, 10, 12)
    seen = []
    for _ in range(200):
        out, partner, keep = cutmix(x, generator, 1.0)
        assert sorted(partner.tolist()) == list(range(6))
        pasted = torch.where((out == x).all(1), 0, 1)  # (n, h, w)
        moved = partner != torch.arange(6)
        boxes = pasted[moved]
        if len(boxes) and bool(boxes.any()):
            assert bool((boxes == boxes[0]).all())  # one box per batch
            inside = boxes[0].bool()
            assert bool((inside == inside.any(1)[:, None] & inside.any(0)[None]).all())
            torch.testing.assert_close(keep, 1 - inside.float().mean())
            assert bool((out[:, :, inside] == partner.float()[:, None, None]).all())
        seen.append(float(keep))
    assert 0 <= min(seen) < 0.3
    assert 0.97 < max(seen) <= 1


@pytest.mark.parametrize("beta", [0.3, 1.0, 4.0])
def test_cutmix_draws_its_area_from_beta(beta):
    generator = torch.Generator().manual_seed(1)
    keep = torch.stack([beta_sample(beta, generator) for _ in range(4000)])
    variance = 1 / (4 * (2 * beta + 1))
    assert 0 <= float(keep.min()) <= float(keep.max()) <= 1
    assert abs(float(keep.mean()) - 0.5) < 5 * math.sqrt(variance / 4000)
    assert abs(float(keep.var()) - variance) < 0.1 * variance


def test_mixed_loss_is_the_loss_of_mixed_labels():
    logits, labels = images(5, 3), torch.tensor([0, 1, 2, 1, 0])
    partner, keep = torch.tensor([4, 2, 0, 1, 3]), torch.tensor(0.3, dtype=torch.float64)
    hot = F.one_hot(labels, 3).double()
    mixed = keep * hot + (1 - keep) * hot[partner]
    torch.testing.assert_close(mixed_loss(logits, labels, partner, keep), F.cross_entropy(logits, mixed))


def test_cutmix_repeats_with_its_generator():
    x = images(4, 1, 6, 6)
    first, again = (cutmix(x, torch.Generator().manual_seed(3), 1.0) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


@pytest.mark.parametrize("size", [(8, 8), (28, 28), (9, 14)])
def test_a_truncated_box_has_whole_sides_as_in_the_released_codes(size):
    """The reference: int(side * sqrt(1 - keep)) // 2 pixels on each side of an integer centre, clipped."""
    h, w = size
    generator = torch.Generator().manual_seed(5)
    for _ in range(300):
        keep = torch.rand((), generator=generator, dtype=torch.float64)
        centre = torch.rand(2, generator=generator, dtype=torch.float64)
        expected = torch.zeros(h, w, dtype=torch.bool)
        spans = []
        for side, middle in zip(size, centre.tolist(), strict=True):
            half, pixel = int(side * math.sqrt(1 - float(keep))) // 2, int(middle * side)
            spans.append(slice(max(pixel - half, 0), min(pixel + half, side)))
        expected[spans[0], spans[1]] = True
        assert torch.equal(cutmix_box(size, keep, centre, "truncated"), expected)


def test_a_truncated_box_is_smaller_on_average():
    areas = {}
    for kind in ("exact", "truncated"):
        generator = torch.Generator().manual_seed(6)
        boxes = [
            cutmix_box((8, 8), *torch.rand(3, generator=generator).tensor_split([1]), kind)
            for _ in range(2000)
        ]
        areas[kind] = float(torch.stack(boxes).float().mean())
    assert areas["truncated"] < 0.8 * areas["exact"]


def test_cutmix_uses_the_kind_of_box():
    x = images(4, 1, 8, 8)
    exact, truncated = (
        [float(cutmix(x, torch.Generator().manual_seed(seed), 1.0, kind)[2]) for seed in range(20)]
        for kind in ("exact", "truncated")
    )
    assert exact != truncated and sum(exact) < sum(truncated)
