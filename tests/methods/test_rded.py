"""Tests of RDED: ranking of patches by a teacher, arrangement into images, and error messages."""

import dataclasses
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from dd_bench.data.dataset import TensorSplit
from dd_bench.methods._recovery.patches import Patches, arranged, class_composites
from dd_bench.synthetic.images import ImageSet

CPU = torch.device("cpu")


def test_arranged_fills_cell_by_cell():
    """With two images of 2x2 cells, patch k * 2 + i is cell k of image i."""
    chosen = torch.arange(8.0).view(8, 1, 1, 1).expand(8, 1, 3, 3)
    grid = arranged(chosen, 2, 2, (1, 6, 6))
    assert grid[0, 0, ::3, ::3].tolist() == [[0, 2], [4, 6]]
    assert grid[1, 0, ::3, ::3].tolist() == [[1, 3], [5, 7]]
    assert bool((grid[0, 0, :3, :3] == 0).all() and (grid[0, 0, 3:, 3:] == 6).all())


def test_arranged_enlarges_cells_that_do_not_divide_the_image():
    assert arranged(torch.rand(4, 1, 3, 3), 1, 2, (1, 7, 7)).shape == (1, 1, 7, 7)


@pytest.mark.parametrize("factor", [1, 2])
def test_best_patches_are_selected(make_ctx, train_blobs, factor):
    """Every image is a constant grey, and the observer prefers bright patches, so the brightest images are selected."""
    n, side = 12, 8
    grey = torch.randperm(n, generator=torch.Generator().manual_seed(0)) * 20
    pixels = grey.view(n, 1, 1, 1).expand(n, 1, side, side).to(torch.uint8)
    split = TensorSplit(pixels.contiguous(), torch.zeros(n, dtype=torch.int64), 1, train_blobs.preprocess)
    real = dataclasses.replace(train_blobs, train=split)
    observer = SimpleNamespace(
        logits=lambda x, exact: torch.stack([x.mean((1, 2, 3)), torch.zeros(len(x))], 1)
    )
    patches = Patches(factor=factor, images=n, crops=3)
    images = class_composites(real, 2, 0, observer, patches, make_ctx())["pixels"]
    cell = side // factor
    seen = images[:, 0, ::cell, ::cell].flatten(1).T.flatten()  # cell-major
    assert seen.tolist() == sorted(grey.tolist(), reverse=True)[: 2 * factor**2]


def test_patches_are_more_realistic_than_random_crops(make_method, make_ctx, train_blobs):
    """The observer's loss is lower on the set than on random crops."""
    ctx = make_ctx()
    method = make_method("rded", **{"patches.images": 17, "patches.crops": 5})
    syn = method.distill(train_blobs, 2, ctx)
    (observer,) = ctx.teachers_of(train_blobs)
    images, labels = syn.materialise(CPU)
    best_loss = F.cross_entropy(observer.logits(images), labels, reduction="none")
    random = make_method("rded", **{"patches.images": 2, "patches.crops": 1})
    images, labels = random.distill(train_blobs, 2, make_ctx(work="random")).materialise(CPU)
    random_loss = F.cross_entropy(observer.logits(images), labels, reduction="none")
    assert isinstance(syn, ImageSet) and float(best_loss.mean()) < float(random_loss.mean())


def test_too_few_images_for_patches(make_method, train_blobs, make_architecture):
    method = make_method("rded", **{"patches.images": 3, "patches.factor": 2})
    reason = method.check_dataset(train_blobs, 1, make_architecture())
    assert "method.patches.images must be >= 4 for ipc=1" in reason


def test_no_crops_raises(make_method):
    with pytest.raises(ValueError, match=r"method\.patches\.crops=0"):
        make_method("rded", **{"patches.crops": 0})


def test_sre2l_starts_from_the_same_images(make_method, make_ctx, train_blobs, make_teacher):
    """The observer is the first teacher; without iterations SRe2L stores the initial images unchanged."""
    teachers = (make_teacher("one"), make_teacher("two", width=4))
    rded, start = (
        make_method(name, **changes).distill(train_blobs, 2, make_ctx(teachers=teachers, work=name))
        for name, changes in (("rded", {}), ("sre2l", {"init": "patches", "iterations": 0, "classes": 1}))
    )
    assert torch.equal(rded.images, start.images) and torch.equal(rded.labels, start.labels)
    alone = make_method("rded").distill(train_blobs, 2, make_ctx(teachers=teachers[:1], work="alone"))
    assert torch.equal(rded.images, alone.images)


def test_observer_needs_no_batchnorm(make_method, make_teacher, train_blobs):
    bare = make_teacher("bare", norm="instancenorm")
    assert make_method("rded").check_teachers(train_blobs, 1, (bare,)) is None
