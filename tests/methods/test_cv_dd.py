"""Tests of CV-DD and SRe2L++: committees, their weights and loss, and error messages."""

import math

import pytest
import torch
import torch.nn.functional as F

from dd_bench.distillation.batchnorm_statistics import HookedTeacher
from dd_bench.methods._recovery.committee import Committee, committees, prior_weights
from dd_bench.methods.sre2l import SRe2L
from dd_bench.methods.sre2l_pp import SRe2LPlusPlus
from dd_bench.teachers.teachers import teacher_of


def test_committees_are_all_groups():
    pairs = committees(5, 2)
    assert pairs == [(i, j) for i in range(5) for j in range(5) if i < j], "the order of the released code"
    assert committees(1, 1) == [(0,)]


def test_weights_are_the_softmax_of_the_prior():
    a, b = prior_weights([63.0, 68.5], 5.0)
    assert a == pytest.approx(1 / (1 + math.exp(5.5 / 5))) and a + b == pytest.approx(1)
    assert prior_weights([60.0, 60.0, 60.0], 5.0) == pytest.approx([1 / 3] * 3)


@pytest.fixture
def two(make_teacher, make_ctx, train_blobs):
    ctx = make_ctx()
    specs = (make_teacher("one"), make_teacher("two", width=4))
    return [HookedTeacher(teacher_of(spec, train_blobs, ctx.cache, ctx.runtime, None)) for spec in specs]


def test_loss_is_the_weighted_sum(two, train_blobs):
    """sum_j w_j (CE_j + 0.3 (10 d_j1 + d_j2)), and its gradient."""
    x, y = train_blobs.train.inputs(torch.arange(6)).requires_grad_(), torch.arange(6) % 3
    parts = Committee(two, [0.25, 0.75], 0.3, 10.0, autocast=False, compiled=False)(0, x, y)
    expected = x.new_zeros(())
    for w, teacher in zip([0.25, 0.75], two, strict=True):
        logits, d = teacher(x)
        expected = expected + w * (F.cross_entropy(logits, y) + 0.3 * (10 * d[0] + d[1]))
    torch.testing.assert_close(parts.loss, expected)
    assert len(parts.layers) == len(parts.distances) == 4 and parts.layers[0].startswith("one/")
    torch.testing.assert_close(torch.autograd.grad(parts.loss, x)[0], torch.autograd.grad(expected, x)[0])


def test_a_committee_of_one_equals_sre2l(make_method, make_ctx, train_blobs):
    same = {"iterations": 3, "init": "real"}
    one = make_method("cv_dd", **same).distill(train_blobs, 2, make_ctx(work="cv_dd"))
    sre2l = make_method("sre2l", **same, **{"views.smallest": 0.08, "views.flip": True})
    assert torch.equal(one.images, sre2l.distill(train_blobs, 2, make_ctx(work="sre2l")).images)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"members": 1}, ["one", "one", "two", "two"]),  # slot 0, then slot 1
        ({"members": 1, "weights": "prior", "prior": [50.0, 60.0]}, ["one", "one", "two", "two"]),
        ({"members": 1, "committees": [[1]]}, ["two"] * 4),
        ({"members": 1, "committees": [[1], [0]]}, ["two", "two", "one", "one"]),
        ({"members": 2}, ["one", "two"] * 4),
        ({"members": 2, "committee": "cycle"}, ["one", "two"] * 2),
    ],
)
def test_teachers_of_the_slots(
    make_method, make_ctx, train_blobs, make_teacher, monkeypatch, changes, expected
):
    used, original = [], HookedTeacher.forward
    monkeypatch.setattr(HookedTeacher, "forward", lambda s, x: used.append(s.teacher.name) or original(s, x))
    ctx = make_ctx(teachers=(make_teacher("one"), make_teacher("two", width=4)))
    make_method("cv_dd", iterations=2, **changes).distill(train_blobs, 2, ctx)
    assert used == expected


def test_check_teachers(make_method, make_teacher, train_blobs):
    one = (make_teacher("one"),)
    reason = make_method("cv_dd", members=2).check_teachers(train_blobs, 2, one)
    assert "method.members must be <= the number of teachers, 1, got 2" in reason
    reason = make_method("cv_dd", members=1, committees=[[0], [1]]).check_teachers(train_blobs, 2, one)
    assert "positions of teachers, 0 to 0, got [[0], [1]]. Example: method.committees=[[0]]" in reason
    for prior in (None, [60.0, 61.0]):
        method = make_method("cv_dd", weights="prior", prior=prior)
        assert "one number in method.prior for each of 1 teachers" in method.check_teachers(
            train_blobs, 2, one
        )
    assert make_method("cv_dd", weights="prior", prior=[60.0]).check_teachers(train_blobs, 2, one) is None


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"committee": "mean"}, "method.committee must be sum or cycle, got mean"),
        ({"weights": "best"}, "method.weights must be equal or prior, got best"),
        ({"members": 0}, "method.members must be >= 1, got 0"),
        (
            {"members": 2, "committees": [[0, 0]]},
            "groups of 2 different teachers (method.members), got [[0, 0]]",
        ),
        ({"members": 2, "committees": []}, "Example: method.committees=[[0, 1]]"),
        ({"committee_temperature": 0.0}, "method.committee_temperature must be > 0, got 0.0"),
    ],
)
def test_invalid_arguments_raise(make_method, changes, reason):
    with pytest.raises(ValueError, match="method") as error:
        make_method("cv_dd", **changes)
    assert reason in str(error.value)


def test_sre2l_plus_plus_differs_from_sre2l_in_its_configuration_only(make_method):
    own = {k for k in vars(SRe2LPlusPlus) if not k.startswith("__")}
    assert own <= {"citation", "_abc_impl"} and issubclass(SRe2LPlusPlus, SRe2L)
    assert make_method("sre2l_pp").patches.pick == "medium"
