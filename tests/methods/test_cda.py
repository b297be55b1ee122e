"""Tests of CDA: the schedule of the minimum crop area, and equality with SRe2L in all else."""

import math

import pytest
import torch

from dd_bench.methods._recovery.views import RecoverViews
from dd_bench.methods.cda import CDA
from dd_bench.methods.sre2l import SRe2L


def views_of(curriculum, milestone=1.0):
    return RecoverViews(smallest=0.08, curriculum=curriculum, milestone=milestone, flip=False, roll=(0, 0))


@pytest.mark.parametrize("milestone", [0.5, 1.0])
@pytest.mark.parametrize(("curriculum", "middle"), [("step", 1.0), ("linear", 0.54), ("cosine", 0.54)])
def test_area_at_start_middle_and_end(curriculum, middle, milestone):
    views, end = views_of(curriculum, milestone), int(milestone * 1000)
    areas = [views.area(t, 1000) for t in (0, end // 2, end, end + 100)]
    assert areas == pytest.approx([1.0, middle, 0.08, 0.08])


def test_area_at_a_quarter_of_the_schedule():
    assert views_of("linear").area(250, 1000) == pytest.approx(0.08 + 0.92 * 0.75)
    assert views_of("cosine").area(250, 1000) == pytest.approx(0.08 + 0.92 * (1 + math.cos(math.pi / 4)) / 2)


def test_area_is_constant_for_milestone_zero_and_const():
    assert {views_of(c, 0.0).area(t, 10) for c in ("step", "linear", "cosine") for t in range(10)} == {0.08}
    assert {views_of("const").area(t, 10) for t in range(10)} == {0.08}


def test_milestone_zero_equals_sre2l_with_crops(make_method, make_ctx, train_blobs):
    knobs = {"iterations": 3, "lr_img": 0.1, "statistics": 0.05, "views.smallest": 0.3}
    knobs |= {"views.flip": True, "views.roll": [-4, 4]}
    sre2l = make_method("sre2l", **knobs).distill(train_blobs, 1, make_ctx(work="sre2l"))
    none, full = (
        make_method("cda", **knobs, **{"views.milestone": m}).distill(
            train_blobs, 1, make_ctx(work=f"milestone {m}")
        )
        for m in (0.0, 1.0)
    )
    assert torch.equal(none.images, sre2l.images)
    assert not torch.equal(full.images, sre2l.images)


def test_cda_differs_from_sre2l_in_its_configuration_only(make_method):
    own = {k for k in vars(CDA) if not k.startswith("__")}
    assert own <= {"citation", "_abc_impl"} and issubclass(CDA, SRe2L)


def test_area_above_one_raises(make_method):
    with pytest.raises(ValueError, match=r"method\.views\.smallest=1\.5"):
        make_method("cda", **{"views.smallest": 1.5})
