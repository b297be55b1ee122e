"""Views: dependence on seed, epoch and image, crops as in torchvision, and mixtures."""

import pytest
import torch
from torchvision.transforms.v2.functional import resized_crop

from dd_bench.training.cells import cell_boxes
from dd_bench.training.views import (
    ViewDraw,
    ViewRecipe,
    Views,
    augment_images,
    boxes,
    crop,
    draw_mixture,
    strips,
    view_numbers,
)

PLAIN = {"patches": 1, "pad": 0, "scale": None, "flip": False, "mix": "none", "alpha": 1.0}


def recipe(**values):
    return ViewRecipe(**PLAIN | values)


def images(n=12, side=8):
    return torch.rand(n, 2, side, side, generator=torch.Generator().manual_seed(1))


def views(n=12, batch_size=5, seed=0, flip=True, **values):
    return Views(recipe(**values), n, seed=seed, batch_size=batch_size, flip_allowed=flip)


ALL = {"patches": 2, "pad": 2, "scale": (0.2, 1.0), "flip": True}


def test_an_epoch_contains_each_image_once_in_a_new_order():
    x, v = images(), views()
    first, second = ([view.index.tolist() for view in v.epoch(x, e)] for e in (0, 1))
    assert all(sorted(i for part in parts for i in part) == list(range(12)) for parts in (first, second))
    assert first != second
    assert [len(part) for part in first] == [5, 5, 2]


def test_view_of_an_image_does_not_depend_on_its_batch():
    """The same seed, epoch and image give the same view for every batch size."""
    x, seen = images(), {}
    for size in (1, 5, 12):
        for view in views(batch_size=size, **ALL).epoch(x, 3):
            for i, image in zip(view.index.tolist(), view.x, strict=True):
                seen.setdefault(i, []).append(image)
    for a, b, c in seen.values():
        assert torch.allclose(a, b, atol=1e-6) and torch.allclose(a, c, atol=1e-6)


@pytest.mark.parametrize("other", [{"seed": 1}, {"epoch": 4}])
def test_another_seed_or_epoch_gives_another_view(other):
    x, epoch = images(), other.pop("epoch", 3)
    one = next(views(batch_size=12, **ALL).epoch(x, 3))
    two = next(views(batch_size=12, **ALL, **other).epoch(x, epoch))
    assert not torch.equal(one.x[one.index.argsort()], two.x[two.index.argsort()])


def test_identity_recipe_leaves_images_unchanged():
    x = images()
    for view in views(scale=(1.0, 1.0)).epoch(x, 0):
        assert torch.equal(view.x, x[view.index]) or torch.allclose(view.x, x[view.index], atol=1e-6)
        assert view.mixture is None


def test_flip_is_ignored_if_it_is_not_allowed():
    assert Views(recipe(flip=True), 4, seed=0, batch_size=2, flip_allowed=False).recipe.flip is False
    assert Views(recipe(flip=True), 4, seed=0, batch_size=2, flip_allowed=True).recipe.flip is True


def test_crop_equals_torchvision():
    """The image is cut before it is resized, so pixels outside the box do not contribute."""
    x, box = images(6, 9), boxes((9, 9), (0.1, 1.0), torch.rand(6, 22))
    ours = crop(x, box)
    theirs = [resized_crop(i, *b, [9, 9], antialias=False) for i, b in zip(x, box.tolist(), strict=True)]
    assert torch.allclose(ours, torch.stack(theirs), atol=1e-5)


def test_boxes_have_the_expected_area_and_ratio_and_are_inside_the_image():
    box = boxes((64, 64), (0.2, 0.8), torch.rand(2000, 22, generator=torch.Generator().manual_seed(0)))
    top, left, h, w = box.T
    assert bool((top >= 0).all() and (left >= 0).all() and (top + h <= 64).all() and (left + w <= 64).all())
    area, ratio = (h * w) / 64**2, w / h
    assert float(area.min()) > 0.18 and float(area.max()) < 0.83
    assert float(ratio.min()) > 0.72 and float(ratio.max()) < 1.39
    assert 0.47 < float(area.mean()) < 0.53


def test_largest_central_box_if_no_try_fits():
    """With a relative area of 1, as at the start of a curriculum, only a square fits."""
    box = boxes((32, 32), (1.0, 1.0), torch.rand(200, 22))
    assert bool((box[:, 2:] == 32).float().mean() > 0.8)
    assert boxes((32, 32), (4.0, 4.0), torch.rand(1, 22)).tolist() == [[0, 0, 32, 32]]
    assert boxes((10, 40), (4.0, 4.0), torch.rand(1, 22)).tolist() == [[0, 13, 10, 13]]


def test_strips_are_a_permutation_of_strips():
    rows = strips(8, 4, torch.rand(50, 4))
    assert all(sorted(row) == list(range(8)) for row in rows.tolist())
    assert all(row[i + 1] == row[i] + 1 for row in rows.tolist() for i in (0, 2, 4, 6))
    with pytest.raises(ValueError, match=r"views\.patches must divide 8"):
        strips(8, 3, torch.rand(1, 4))


def test_a_shift_moves_by_whole_pixels_and_fills_with_zero():
    x = images(200)
    shifted = augment_images(x, view_numbers(200, 0, 0), recipe(pad=2))
    found = 0
    for before, after in zip(x, shifted, strict=True):
        padded = torch.nn.functional.pad(before, (2, 2, 2, 2))
        found += any(torch.equal(padded[:, i : i + 8, j : j + 8], after) for i in range(5) for j in range(5))
    assert found == 200


def test_augmentation_is_differentiable():
    x = images(2, 4).double().requires_grad_()
    u = view_numbers(2, 0, 0).double()
    assert torch.autograd.gradcheck(lambda x: augment_images(x, u, recipe(**ALL)), (x,), atol=1e-6)


def test_colours_of_an_image_do_not_depend_on_its_batch_or_on_other_networks():
    colour = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "lighting": 0.1, "mean": (0.5,) * 3}
    how = recipe(flip=True, colour=colour | {"std": (0.25,) * 3})
    x = torch.rand(6, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    one, two = (Views(how, 6, seed=s, batch_size=6, flip_allowed=True) for s in (0, 1))
    (whole,) = one.epoch(x, 2)
    parts = list(Views(how, 6, seed=0, batch_size=2, flip_allowed=True).epoch(x, 2))
    assert torch.allclose(torch.cat([v.x for v in parts]), whole.x, atol=1e-6)
    assert not torch.allclose(next(one.epoch(x, 3)).x, whole.x)
    joined = ViewDraw.join([next(v.draws(2)) for v in (one, two)])
    assert torch.allclose(one.view(joined, x[joined.index]).x[:6], whole.x, atol=1e-6)
    assert "colour" not in recipe().model_dump() and recipe().colour is None


@pytest.mark.parametrize("mix", ["mixup", "cutmix"])
def test_mixture_of_images_and_labels(mix):
    x, how = images(6), recipe(mix=mix, alpha=0.8)
    mixture = draw_mixture(6, (8, 8), how, torch.Generator().manual_seed(2))
    mixed, keep = mixture.images(x), float(mixture.keep)
    assert 0 <= keep <= 1
    own, other = x, x[mixture.partner]
    if mix == "mixup":
        assert torch.allclose(mixed, keep * own + (1 - keep) * other)
    else:
        assert bool(((mixed == own) | (mixed == other)).all())
        assert float((mixture.box).float().mean()) == pytest.approx(1 - keep)
    y = torch.rand(6, 3)
    assert torch.allclose(mixture.labels(y), keep * y + (1 - keep) * y[mixture.partner])


def test_mixtures_belong_to_a_batch():
    x, how = images(), {"mix": "mixup", "alpha": 0.8}
    once, again = ([v.mixture.keep.item() for v in views(**how).epoch(x, 0)] for _ in range(2))
    assert once == again and len(set(once)) == 3
    assert once != [v.mixture.keep.item() for v in views(**how).epoch(x, 1)]


def test_the_box_of_a_mixture_may_be_truncated():
    boxes = [
        draw_mixture(6, (8, 8), recipe(mix="cutmix", box=box), torch.Generator().manual_seed(3)).box
        for box in ("exact", "truncated")
    ]
    assert not torch.equal(*boxes)
    assert all(int(side.sum()) % 2 == 0 or side[[0, -1]].any() for side in (boxes[1].any(0), boxes[1].any(1)))


def test_a_recipe_with_an_exact_box_is_stored_as_before_the_key_existed():
    """Otherwise keys of teachers and headers of stored labels would change."""
    assert recipe().model_dump(mode="json") == PLAIN
    assert recipe(box="truncated").model_dump(mode="json") == {**PLAIN, "box": "truncated"}
    assert ViewRecipe.model_validate(PLAIN) == recipe()


def test_a_tile_shows_one_cell_or_the_whole_image():
    """Each cell has probability 1 / tile^2, and so has the whole image, so cells have 1 - 1 / tile^2 together."""
    u = torch.rand(40_000, 2, generator=torch.Generator().manual_seed(0))
    for factor in (2, 3):
        found, counts = cell_boxes((12, 24), factor, u).unique(dim=0, return_counts=True)
        boxes_of_cells = {
            (12 // factor * r, 24 // factor * c, 12 // factor, 24 // factor)
            for r in range(factor) for c in range(factor)
        }  # fmt: skip
        assert set(map(tuple, found.tolist())) == boxes_of_cells | {(0, 0, 12, 24)}
        share = dict(zip(map(tuple, found.tolist()), (counts / len(u)).tolist(), strict=True))
        cells = factor**2
        assert share[0, 0, 12, 24] == pytest.approx(1 / cells, abs=0.01)
        for box in boxes_of_cells:
            assert share[box] == pytest.approx((1 - 1 / cells) / cells, abs=0.01)
    with pytest.raises(ValueError, match=r"views\.tile must divide 12 and 24, got 5"):
        cell_boxes((12, 24), 5, u)


def test_tiles_are_enlarged_as_the_cells_of_cim():
    x, v = images(n=6), views(n=6, batch_size=6, tile=2)
    (view,) = v.epoch(x, 0)
    (draw,) = v.draws(0)
    for row, box, i in zip(
        view.x, cell_boxes((8, 8), 2, draw.cells).tolist(), view.index.tolist(), strict=True
    ):
        top, left, height, width = box
        part = x[i, :, top : top + height, left : left + width]
        expected = torch.nn.functional.interpolate(part[None], (8, 8), mode="bilinear", align_corners=False)[
            0
        ]
        assert torch.allclose(row, expected, atol=1e-5)


def test_one_op_of_dsa_for_each_image():
    x = images(n=60)
    flips, plain = views(n=60, batch_size=60, dsa="flip"), views(n=60, batch_size=60)
    (flipped,), (same,) = flips.epoch(x, 0), plain.epoch(x, 0)
    changed = (flipped.x != same.x).flatten(1).any(1)
    assert 15 < int(changed.sum()) < 45
    assert torch.equal(flipped.x[changed], same.x[changed].flip(3))
    not_allowed = Views(recipe(dsa="flip"), 60, seed=0, batch_size=60, flip_allowed=False)
    (kept,) = not_allowed.epoch(x, 0)
    assert torch.equal(kept.x, same.x)
    (cut,) = views(n=60, batch_size=60, dsa="cutout_crop").epoch(x, 0)
    assert bool((cut.x == 0).flatten(1).any(1).float().mean() > 0.8)


def test_later_keys_are_not_part_of_older_identities():
    assert not {"tile", "dsa", "colour", "box"} & set(recipe().model_dump())
    assert recipe(tile=2, dsa="flip").model_dump()["tile"] == 2
