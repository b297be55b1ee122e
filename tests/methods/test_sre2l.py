"""SRe2L: one step by hand, the range of pixels, chunks, shards, teachers in turn, and what it refuses."""

import pytest
import torch
import torch.nn.functional as F

from dd_bench.distillation.batchnorm_statistics import HookedTeacher
from dd_bench.methods.sre2l import SRe2L

CPU = torch.device("cpu")


def test_one_step_is_adam_on_the_stated_loss(make_method, make_ctx, train_blobs, make_teacher):
    """A single iteration moves each pixel by the rate, against the sign of the gradient of CE + 0.5 L_BN."""
    method = make_method(
        "sre2l", iterations=1, lr_img=0.05, statistics=0.5, init="real", **{"views.roll": [0, 0]}
    )
    ctx = make_ctx()
    syn = method.distill(train_blobs, 1, ctx)
    (teacher,) = ctx.teachers_of(train_blobs)
    index = train_blobs.train.draw(1, ctx.generator("init"))[:, 0]
    x = train_blobs.train.inputs(index).requires_grad_()
    logits, distances = HookedTeacher(teacher)(x)
    weights = torch.tensor([10.0, 1.0])
    (F.cross_entropy(logits, torch.arange(3)) + 0.5 * (weights * distances).sum()).backward()
    moved = (train_blobs.preprocess.inverse(x - 0.05 * x.grad.sign()).clamp(0, 1) * 255).round()
    clear = x.grad.abs() > 1e-5  # Adam's first step is the sign, but for tiny gradients
    assert torch.equal(syn.images.float()[clear], moved[clear])


def test_pixels_stay_in_the_range_of_pixels(make_method, make_ctx, train_blobs):
    syn = make_method("sre2l", iterations=3, lr_img=100.0).distill(train_blobs, 1, make_ctx())
    inputs, _ = syn.materialise(CPU)
    assert float(inputs.min()) >= -2 - 1e-6 and float(inputs.max()) <= 2 + 1e-6  # (0 or 1 - .5) / .25
    assert syn.space == "pixel"


def test_chunks_of_classes_are_other_batches_of_the_same_start(make_method, make_ctx, train_blobs):
    whole, parts = (
        make_method("sre2l", iterations=0, init="real", classes=c).distill(
            train_blobs, 2, make_ctx(work=str(c))
        )
        for c in (None, 1)
    )
    assert torch.equal(whole.images, parts.images)


def test_or_the_first_alone_guides(make_method, make_ctx, train_blobs, make_teacher):
    two = (make_teacher("one"), make_teacher("two", width=4))
    both, one = (
        make_method("sre2l").distill(train_blobs, 1, make_ctx(teachers=t, work=str(len(t))))
        for t in (two, two[:1])
    )
    assert torch.equal(both.images, one.images)


def test_teachers_take_turns(make_method, make_ctx, train_blobs, make_teacher, monkeypatch):
    asked = []
    plain = HookedTeacher.forward
    monkeypatch.setattr(HookedTeacher, "forward", lambda s, x: asked.append(s.teacher.name) or plain(s, x))
    teachers = (make_teacher("one"), make_teacher("two", width=4))
    ctx = make_ctx(teachers=teachers)
    make_method("sre2l_multi", iterations=5).distill(train_blobs, 1, ctx)
    assert asked == ["one", "two", "one", "two", "one"]


def test_who_made_which_piece_changes_nothing(make_method, make_ctx, train_blobs, tmp_path):
    """A shard makes the last piece first, and dies; another run makes the rest."""
    method = make_method("sre2l", classes=1)
    whole = method.distill(train_blobs, 2, make_ctx(work="whole"))
    ctx = make_ctx(work="shards")
    plain = ctx.shards

    def shard(builds):
        plain(dict(list(builds.items())[::-2]))
        raise KeyboardInterrupt

    ctx.shards = shard
    with pytest.raises(KeyboardInterrupt):
        method.distill(train_blobs, 2, ctx)
    assert len(list((tmp_path / "shards" / "shards").glob("*.safetensors"))) == 3
    again = method.distill(train_blobs, 2, make_ctx(work="shards"))
    assert torch.equal(again.images, whole.images)


def test_several_teachers_in_turn_are_its_knobs(make_method):
    """`sre2l_multi` has a paper of its own to cite, and no code."""
    multi = make_method("sre2l_multi")
    assert isinstance(multi, SRe2L) and multi.citation != SRe2L.citation
    own = {k for k in vars(type(multi)) if not k.startswith("__")}
    assert own <= {"citation", "_abc_impl"}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"init": "zeros"}, "method.init='zeros' is unknown; take one of noise, real, patches"),
        ({"teachers": "each"}, "method.teachers='each' is unknown; take one of first, cycle"),
        ({"classes": 0}, "at least 1 class"),
        ({"patches.crops": 0}, "method.patches.crops=0"),
    ],
)
def test_what_cannot_be(make_method, changes, reason):
    with pytest.raises(ValueError, match="method") as error:
        make_method("sre2l", **changes)
    assert reason in str(error.value)


def test_starts_of_patches_are_cut_from_enough_images(make_method, train_blobs, make_architecture):
    method = make_method("sre2l", init="patches", **{"patches.images": 3, "patches.factor": 2})
    assert "ipc=1 is 4 patches a class" in method.check_dataset(train_blobs, 1, make_architecture())
