"""Views: numbers by seed, epoch and image, crops as in torchvision, and mixtures with their partners and shares."""

import pytest
import torch
from torchvision.transforms.v2.functional import resized_crop

from dd_bench.training.views import (
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


def test_an_epoch_shows_each_image_once_in_another_order_than_the_next():
    x, v = images(), views()
    first, second = ([view.index.tolist() for view in v.epoch(x, e)] for e in (0, 1))
    assert all(sorted(i for part in parts for i in part) == list(range(12)) for parts in (first, second))
    assert first != second
    assert [len(part) for part in first] == [5, 5, 2]


def test_what_is_shown_of_an_image_does_not_depend_on_its_batch():
    """Same seed, epoch and image: the same view, whatever the batch size."""
    x, shown = images(), {}
    for size in (1, 5, 12):
        for view in views(batch_size=size, **ALL).epoch(x, 3):
            for i, seen in zip(view.index.tolist(), view.x, strict=True):
                shown.setdefault(i, []).append(seen)
    for seen in shown.values():
        assert torch.allclose(seen[0], seen[1], atol=1e-6) and torch.allclose(seen[0], seen[2], atol=1e-6)


@pytest.mark.parametrize("other", [{"seed": 1}, {"epoch": 4}])
def test_another_seed_or_epoch_is_another_view(other):
    x, epoch = images(), other.pop("epoch", 3)
    one = next(views(batch_size=12, **ALL).epoch(x, 3))
    two = next(views(batch_size=12, **ALL, **other).epoch(x, epoch))
    assert not torch.equal(one.x[one.index.argsort()], two.x[two.index.argsort()])


def test_without_any_change_images_are_shown_as_they_are():
    x = images()
    for view in views(scale=(1.0, 1.0)).epoch(x, 0):
        assert torch.equal(view.x, x[view.index]) or torch.allclose(view.x, x[view.index], atol=1e-6)
        assert view.mixture is None


def test_flip_is_dropped_where_it_changes_the_class():
    assert Views(recipe(flip=True), 4, seed=0, batch_size=2, flip_allowed=False).recipe.flip is False
    assert Views(recipe(flip=True), 4, seed=0, batch_size=2, flip_allowed=True).recipe.flip is True


def test_a_crop_is_torchvisions():
    """Cut first, then enlarged: no pixel outside of the box contributes."""
    x, box = images(6, 9), boxes((9, 9), (0.1, 1.0), torch.rand(6, 22))
    ours = crop(x, box)
    theirs = [resized_crop(i, *b, [9, 9], antialias=False) for i, b in zip(x, box.tolist(), strict=True)]
    assert torch.allclose(ours, torch.stack(theirs), atol=1e-5)


def test_boxes_have_the_wanted_area_and_ratio_and_lie_inside():
    box = boxes((64, 64), (0.2, 0.8), torch.rand(2000, 22, generator=torch.Generator().manual_seed(0)))
    top, left, h, w = box.T
    assert bool((top >= 0).all() and (left >= 0).all() and (top + h <= 64).all() and (left + w <= 64).all())
    area, ratio = (h * w) / 64**2, w / h
    assert float(area.min()) > 0.18 and float(area.max()) < 0.83
    assert float(ratio.min()) > 0.72 and float(ratio.max()) < 1.39
    assert 0.47 < float(area.mean()) < 0.53


def test_no_box_that_fits_is_the_whole_image():
    """At the beginning of a curriculum the area is 1, and only a square fits."""
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
    shown = augment_images(x, view_numbers(200, 0, 0), recipe(pad=2))
    found = 0
    for before, after in zip(x, shown, strict=True):
        padded = torch.nn.functional.pad(before, (2, 2, 2, 2))
        found += any(torch.equal(padded[:, i : i + 8, j : j + 8], after) for i in range(5) for j in range(5))
    assert found == 200


def test_showing_is_differentiable():
    x = images(2, 4).double().requires_grad_()
    u = view_numbers(2, 0, 0).double()
    assert torch.autograd.gradcheck(lambda x: augment_images(x, u, recipe(**ALL)), (x,), atol=1e-6)


@pytest.mark.parametrize("mix", ["mixup", "cutmix"])
def test_a_mixture_matches_its_description(mix):
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
