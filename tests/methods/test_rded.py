"""RDED: patches ranked by a teacher, dealt out over the images, and stored as they are."""

import dataclasses
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from dd_bench.data.dataset import TensorSplit
from dd_bench.methods._recovery.patches import Patches, arranged, class_composites
from dd_bench.synthetic.images import ImageSet

CPU = torch.device("cpu")


def test_ranks_are_dealt_out_cell_by_cell():
    """Two images of 2x2 cells: number k * 2 + i is cell k of image i."""
    chosen = torch.arange(8.0).view(8, 1, 1, 1).expand(8, 1, 3, 3)
    grid = arranged(chosen, 2, 2, (1, 6, 6))
    assert grid[0, 0, ::3, ::3].tolist() == [[0, 2], [4, 6]]
    assert grid[1, 0, ::3, ::3].tolist() == [[1, 3], [5, 7]]
    assert bool((grid[0, 0, :3, :3] == 0).all() and (grid[0, 0, 3:, 3:] == 6).all())


def test_cells_that_do_not_divide_the_image_are_enlarged():
    assert arranged(torch.rand(4, 1, 3, 3), 1, 2, (1, 7, 7)).shape == (1, 1, 7, 7)


@pytest.mark.parametrize("factor", [1, 2])
def test_ranks_by_a_scorer_that_likes_bright_images(make_ctx, train_blobs, factor):
    """Images of one grey each: their crops are of that grey, so the brightest images are the set, best first."""
    n, side = 12, 8
    grey = torch.randperm(n, generator=torch.Generator().manual_seed(0)) * 20
    pixels = grey.view(n, 1, 1, 1).expand(n, 1, side, side).to(torch.uint8)
    split = TensorSplit(pixels.contiguous(), torch.zeros(n, dtype=torch.int64), 1, train_blobs.preprocess)
    real = dataclasses.replace(train_blobs, train=split)
    observer = SimpleNamespace(
        logits=lambda x, exact: torch.stack([x.mean((1, 2, 3)), torch.zeros(len(x))], 1)
    )
    how = Patches(factor=factor, images=n, crops=3)
    found = class_composites(real, 2, 0, observer, how, make_ctx())["pixels"]
    cell = side // factor
    seen = found[:, 0, ::cell, ::cell].flatten(1).T.flatten()  # cell by cell, the images within
    assert seen.tolist() == sorted(grey.tolist(), reverse=True)[: 2 * factor**2]


def test_the_most_realistic_are_taken(make_method, make_ctx, train_blobs):
    """The set's images score better with the observer than most random crops of the class."""
    ctx = make_ctx()
    method = make_method("rded", **{"patches.images": 17, "patches.crops": 5})
    syn = method.distill(train_blobs, 2, ctx)
    (observer,) = ctx.teachers_of(train_blobs)
    images, labels = syn.materialise(CPU)
    ours = F.cross_entropy(observer.logits(images), labels, reduction="none")
    loose = make_method("rded", **{"patches.images": 2, "patches.crops": 1})
    images, labels = loose.distill(train_blobs, 2, make_ctx(work="loose")).materialise(CPU)
    theirs = F.cross_entropy(observer.logits(images), labels, reduction="none")
    assert isinstance(syn, ImageSet) and float(ours.mean()) < float(theirs.mean())


def test_too_few_images_to_cut_from(make_method, train_blobs, make_architecture):
    method = make_method("rded", **{"patches.images": 3, "patches.factor": 2})
    assert "ipc=1 is 4 patches a class" in method.check_dataset(train_blobs, 1, make_architecture())


def test_no_crops(make_method):
    with pytest.raises(ValueError, match=r"method\.patches\.crops=0"):
        make_method("rded", **{"patches.crops": 0})


def test_sre2l_starts_from_the_same_images(make_method, make_ctx, train_blobs, make_teacher):
    """The observer is the first teacher; images that are not optimised keep every bit."""
    teachers = (make_teacher("one"), make_teacher("two", width=4))
    rded, start = (
        make_method(name, **changes).distill(train_blobs, 2, make_ctx(teachers=teachers, work=name))
        for name, changes in (("rded", {}), ("sre2l", {"init": "patches", "iterations": 0, "classes": 1}))
    )
    assert torch.equal(rded.images, start.images) and torch.equal(rded.labels, start.labels)
    alone = make_method("rded").distill(train_blobs, 2, make_ctx(teachers=teachers[:1], work="alone"))
    assert torch.equal(rded.images, alone.images)


def test_its_observer_needs_no_batchnorm(make_method, make_teacher, train_blobs):
    bare = make_teacher("bare", norm="instancenorm")
    assert make_method("rded").check_teachers(train_blobs, 1, (bare,)) is None


def test_who_made_which_class_changes_nothing(make_method, make_ctx, train_blobs):
    method = make_method("rded")
    whole = method.distill(train_blobs, 2, make_ctx(work="whole"))
    ctx = make_ctx(work="shards")
    plain = ctx.shards

    def shard(builds):
        plain(dict(list(builds.items())[::-2]))
        raise KeyboardInterrupt

    ctx.shards = shard
    with pytest.raises(KeyboardInterrupt):
        method.distill(train_blobs, 2, ctx)
    again = method.distill(train_blobs, 2, make_ctx(work="shards"))
    assert torch.equal(again.images, whole.images)
