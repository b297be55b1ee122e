"""Tests of SRe2L: one explicit step, clamping, class chunks, alternating teachers and error messages."""

import pytest
import torch
import torch.nn.functional as F

from dd_bench.distillation.batchnorm_statistics import HookedTeacher
from dd_bench.methods.sre2l import SRe2L

CPU = torch.device("cpu")


def test_one_step_is_adam_on_the_documented_loss(make_method, make_ctx, train_blobs, make_teacher):
    """Adam's first step changes each pixel by -lr times the sign of the gradient of CE + 0.5 L_BN."""
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
    expected = (train_blobs.preprocess.inverse(x - 0.05 * x.grad.sign()).clamp(0, 1) * 255).round()
    large = x.grad.abs() > 1e-5  # where Adam's epsilon has no effect
    assert torch.equal(syn.images.float()[large], expected[large])


def test_pixels_are_clamped(make_method, make_ctx, train_blobs):
    syn = make_method("sre2l", iterations=3, lr_img=100.0).distill(train_blobs, 1, make_ctx())
    inputs, _ = syn.materialise(CPU)
    assert float(inputs.min()) >= -2 - 1e-6 and float(inputs.max()) <= 2 + 1e-6  # (0 or 1 - .5) / .25
    assert syn.space == "pixel"


def test_class_chunks_have_the_same_initial_images(make_method, make_ctx, train_blobs):
    whole, parts = (
        make_method("sre2l", iterations=0, init="real", classes=c).distill(
            train_blobs, 2, make_ctx(work=str(c))
        )
        for c in (None, 1)
    )
    assert torch.equal(whole.images, parts.images)


def test_first_teacher_only(make_method, make_ctx, train_blobs, make_teacher):
    two = (make_teacher("one"), make_teacher("two", width=4))
    both, one = (
        make_method("sre2l").distill(train_blobs, 1, make_ctx(teachers=t, work=str(len(t))))
        for t in (two, two[:1])
    )
    assert torch.equal(both.images, one.images)


def test_teachers_alternate(make_method, make_ctx, train_blobs, make_teacher, monkeypatch):
    used = []
    original = HookedTeacher.forward
    monkeypatch.setattr(HookedTeacher, "forward", lambda s, x: used.append(s.teacher.name) or original(s, x))
    teachers = (make_teacher("one"), make_teacher("two", width=4))
    ctx = make_ctx(teachers=teachers)
    make_method("sre2l_multi", iterations=5).distill(train_blobs, 1, ctx)
    assert used == ["one", "two", "one", "two", "one"]


def test_sre2l_multi_differs_from_sre2l_in_its_configuration_only(make_method):
    """`sre2l_multi` has its own citation and no code."""
    multi = make_method("sre2l_multi")
    assert isinstance(multi, SRe2L) and multi.citation != SRe2L.citation
    own = {k for k in vars(type(multi)) if not k.startswith("__")}
    assert own <= {"citation", "_abc_impl"}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"init": "zeros"}, "method.init must be one of noise, real, patches, got 'zeros'"),
        ({"teachers": "each"}, "method.teachers must be one of first, cycle, got 'each'"),
        ({"classes": 0}, "method.classes must be >= 1, or null for all classes in one batch, got 0"),
        ({"patches.crops": 0}, "method.patches.crops=0"),
    ],
)
def test_invalid_arguments_raise(make_method, changes, reason):
    with pytest.raises(ValueError, match="method") as error:
        make_method("sre2l", **changes)
    assert reason in str(error.value)


def test_too_few_images_for_patches(make_method, train_blobs, make_architecture):
    method = make_method("sre2l", init="patches", **{"patches.images": 3, "patches.factor": 2})
    reason = method.check_dataset(train_blobs, 1, make_architecture())
    assert "method.patches.images must be >= 4 for ipc=1" in reason
