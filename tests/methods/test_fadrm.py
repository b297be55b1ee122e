"""Tests of FADRM: the residual connection, blocks, sizes, resuming, and equality with SRe2L for one block."""

import pytest
import torch

from dd_bench.methods._recovery.engine import Engine
from dd_bench.methods._recovery.objective import Objective, Parts
from dd_bench.methods._recovery.residual import Residual, ResidualImages, resized
from dd_bench.methods._recovery.views import RecoverViews

NO_VIEWS = RecoverViews(smallest=None, curriculum="const", milestone=1.0, flip=False, roll=(0, 0))


class Towards(Objective):
    """The squared distance of every pixel from a value, or no gradient at all."""

    def __init__(self, value):
        self.value, self.shapes = value, []

    def __call__(self, step, x, y):
        self.shapes.append(tuple(x.shape[2:]))
        loss = 0 * x.sum() if self.value is None else (x - self.value).square().sum()
        return Parts(loss + 1, loss.detach(), (), torch.zeros(0))


def residual(blocks=(1, 1, 1), alpha=0.5, sizes=None):
    return Residual(blocks=blocks, alpha=alpha, sizes=sizes)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_images_stay_with_a_rate_of_zero(make_method, make_ctx, train_blobs, alpha):
    """The mixture of the initial image with itself is the initial image, up to the rounding to 8 bits."""
    changes = {"iterations": 4, "lr_img": 0.0, "residual.blocks": [1, 1, 2], "residual.alpha": alpha}
    end = make_method("fadrm", **changes).distill(train_blobs, 2, make_ctx(work="end"))
    start = make_method("fadrm", iterations=0).distill(train_blobs, 2, make_ctx(work="start"))
    assert torch.equal(end.images, start.images)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 0.8])
def test_distance_from_the_start_shrinks(make_ctx, train_blobs, alpha):
    """Without gradients, x - p shrinks by alpha after each block but the last."""
    p = torch.zeros(2, 1, 8, 8)
    images = ResidualImages(p, torch.arange(2), residual((2, 2, 2, 2), alpha), 8)
    images.levels[8].fill_(1.0)
    Engine(train_blobs, NO_VIEWS, 8, 0.1, (0.5, 0.9)).optimise(images, Towards(None), "unit", make_ctx())
    torch.testing.assert_close(images.result(), torch.full_like(p, alpha**3))


def test_rate_is_one_cosine_over_all_blocks(train_blobs):
    engine = Engine(train_blobs, NO_VIEWS, 2000, 0.25, (0.5, 0.9))
    starts = residual((500,) * 4).starts(2000)
    assert starts == [0, 500, 1000, 1500]
    assert engine.rate(0) == 0.25 and engine.rate(starts[2]) == pytest.approx(0.25 / 2)


def test_blocks_are_scaled():
    assert residual((500,) * 4).starts(20) == [0, 5, 10, 15]
    assert residual((100, 300)).starts(200) == [0, 50]
    assert "at least one of method.iterations=3" in residual((500,) * 4).check(3)


def test_adam_starts_again_in_each_block(make_ctx, train_blobs):
    """A first step of Adam changes each pixel by the rate. Here each block has one step, and all of p is put back."""
    p = torch.zeros(1, 1, 8, 8)
    images = ResidualImages(p, torch.zeros(1, dtype=torch.int64), residual((1, 1), 0.0), 2)
    engine = Engine(train_blobs, NO_VIEWS, 2, 0.1, (0.5, 0.9))
    found = engine.optimise(images, Towards(1.0), "unit", make_ctx())
    torch.testing.assert_close(found, torch.full_like(p, engine.rate(1)), atol=1e-6, rtol=0)


def test_sizes(make_ctx, train_blobs):
    """Each block has images of its size; the result has that of the dataset."""
    p = torch.linspace(0, 1, 64).view(1, 1, 8, 8)
    images = ResidualImages(p, torch.zeros(1, dtype=torch.int64), residual((1, 2, 1), 0.5, (6, 8, 8)), 4)
    loss, engine = Towards(None), Engine(train_blobs, NO_VIEWS, 4, 0.1, (0.5, 0.9))
    found = engine.optimise(images, loss, "unit", make_ctx())
    assert loss.shapes == [(6, 6), (8, 8), (8, 8), (8, 8)] and images.shapes == 2
    blurred = 0.5 * resized(resized(p, 6), 8) + 0.5 * p
    torch.testing.assert_close(found, 0.5 * blurred + 0.5 * p)


def test_resumes_between_and_within_blocks_of_different_sizes(make_ctx, train_blobs):
    def optimise(work, killed_at=None):
        p = torch.linspace(0, 1, 64).view(1, 1, 8, 8)
        images = ResidualImages(p, torch.zeros(1, dtype=torch.int64), residual((2, 1, 2), 0.5, (6, 8, 8)), 5)
        engine = Engine(train_blobs, NO_VIEWS, 5, 0.1, (0.5, 0.9))
        return engine.optimise(images, Towards(0.2), "unit", make_ctx(work=work, killed_at=killed_at))

    whole = optimise("whole")
    for stop in (1, 2, 3, 4):
        with pytest.raises(KeyboardInterrupt):
            optimise("killed", stop)
    assert torch.equal(optimise("killed"), whole)
    assert torch.equal(optimise("killed"), whole), "after the last step too"


def test_one_block_equals_sre2l(make_method, make_ctx, train_blobs):
    same = {"iterations": 3, "init": "real"}
    fadrm = make_method("fadrm", **same, **{"residual.blocks": [7]})
    sre2l = make_method("sre2l", **same, **{"views.smallest": 0.08, "views.flip": True})
    first = fadrm.distill(train_blobs, 2, make_ctx(work="fadrm"))
    assert torch.equal(first.images, sre2l.distill(train_blobs, 2, make_ctx(work="sre2l")).images)


def test_medium_patches_differ_from_the_best(make_method, make_ctx, train_blobs):
    starts = [
        make_method("fadrm", iterations=0, **{"patches.pick": pick, "patches.images": 17})
        .distill(train_blobs, 2, make_ctx(work=pick))
        .images
        for pick in ("easy", "medium", "hard")
    ]
    rded = make_method("rded", **{"patches.images": 17}).distill(train_blobs, 2, make_ctx(work="rded"))
    assert torch.equal(starts[0], rded.images)
    assert not torch.equal(starts[0], starts[1]) and not torch.equal(starts[1], starts[2])


def test_teachers_alternate(make_method, make_ctx, train_blobs, make_teacher, monkeypatch):
    from dd_bench.distillation.batchnorm_statistics import HookedTeacher

    used, original = [], HookedTeacher.forward
    monkeypatch.setattr(HookedTeacher, "forward", lambda s, x: used.append(s.teacher.name) or original(s, x))
    teachers = (make_teacher("one"), make_teacher("two", width=4))
    for name, expected in (("fadrm", ["one"] * 3), ("fadrm_plus", ["one", "two", "one"])):
        make_method(name, iterations=3).distill(train_blobs, 1, make_ctx(work=name, teachers=teachers))
        assert used[-3:] == expected


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"residual.blocks": []}, "residual.blocks"),
        ({"residual.blocks": [1, 0]}, "each block must have at least one iteration, got [1, 0]"),
        ({"residual.alpha": 1.5}, "method.residual.alpha=1.5"),
        ({"residual.sizes": [8]}, "method.residual.sizes must have one size for each block"),
        ({"iterations": 1}, "must have at least one of method.iterations=1"),
        ({"teachers": "each"}, "method.teachers must be first or cycle, got each"),
    ],
)
def test_invalid_arguments_raise(make_method, changes, reason):
    with pytest.raises(ValueError, match=r"residual|method") as error:
        make_method("fadrm", **changes)
    assert reason in str(error.value)


def test_sizes_that_the_images_or_teachers_do_not_have(
    make_method, train_blobs, make_architecture, make_teacher
):
    method = make_method("fadrm", **{"residual.sizes": [8, 6]})
    assert "must be the height of the images, 8 pixels" in method.check_dataset(
        train_blobs, 1, make_architecture()
    )
    method = make_method("fadrm", **{"residual.sizes": [4, 8]})
    assert method.check_dataset(train_blobs, 1, make_architecture()) is None
    reason = method.check_teachers(train_blobs, 1, (make_teacher(),))
    assert "teacher tiny" in reason and "images of 4 pixels" in reason
