"""Tests of DELT: groups and rounds, late images, the start, and equality with SRe2L without rounds."""

import pytest
import torch

from dd_bench.methods._recovery.layout import assembled, units_of
from dd_bench.methods._recovery.rounds import Rounds, group_sizes

CPU = torch.device("cpu")


def images(ipc, rounds, iterations, classes=1):
    x = torch.zeros(classes * ipc, 1, 2, 2)
    return Rounds(x, torch.arange(classes).repeat_interleave(ipc), classes, rounds, iterations)


@pytest.mark.parametrize(
    ("ipc", "sizes"),
    [
        (50, [7, 7, 6, 6, 6, 6, 6, 6]),
        (10, [2, 2, 1, 1, 1, 1, 1, 1]),
        (3, [1, 1, 1, 0, 0, 0, 0, 0]),
        (1, [1, *[0] * 7]),
    ],
)
def test_group_sizes(ipc, sizes):
    assert group_sizes(ipc, 8) == sizes


def test_iterations_of_the_groups():
    """Group g of 8 takes part in 4000 - 500 g iterations, on average in 56 % of them."""
    rounds = images(8, 8, 4000)
    iterations = torch.zeros(8)
    rounds.x.copy_(torch.arange(8.0).view(8, 1, 1, 1))
    for step in range(4000):
        active = rounds.batch(step)[0][:, 0, 0, 0].long()
        iterations[active] += 1
    assert iterations.tolist() == [4000 - 500 * g for g in range(8)]
    assert float(iterations.mean()) / 4000 == pytest.approx((8 + 1) / (2 * 8))


def test_batch_has_the_first_images_of_every_class():
    rounds = images(3, 2, 4, classes=2)  # groups of 2 and 1
    rounds.x.copy_(torch.arange(6.0).view(6, 1, 1, 1))
    first, y = rounds.batch(1)
    assert first[:, 0, 0, 0].tolist() == [0, 1, 3, 4] and y.tolist() == [0, 0, 1, 1]
    x, y = rounds.batch(2)
    assert x is rounds.x and y.tolist() == [0, 0, 0, 1, 1, 1]
    assert rounds.shapes == 2


def test_late_images_wait_and_their_first_step_has_no_bias_correction():
    """An image that enters late has moments of zero: Adam's first step is (1 - b1) / sqrt(1 - b2) times the rate."""
    rounds = images(2, 2, 2000)
    optimizer = torch.optim.Adam([rounds.x.requires_grad_()], 0.1, (0.5, 0.9))
    for step in range(1001):
        if step == 1000:
            assert bool((rounds.x[1] == 0).all()) and not bool((rounds.x[0] == 0).any())
        optimizer.zero_grad()
        rounds.batch(step)[0].sum().backward()
        optimizer.step()
    torch.testing.assert_close(rounds.x[1].detach(), torch.full((1, 2, 2), -0.1 * 0.5 / 0.1**0.5))


def test_starts_from_the_middle_of_the_ranking(make_method, make_ctx, train_blobs):
    start = make_method("delt", iterations=0).distill(train_blobs, 3, make_ctx(work="delt"))
    ranked = make_method("ranked", **{"rank.pick": "medium"}).distill(train_blobs, 3, make_ctx(work="ranked"))
    assert torch.equal(start.images, ranked.images)


def test_one_round_in_slots_equals_sre2l(make_method, make_ctx, train_blobs):
    same = {"iterations": 3, "init": "real", "views.roll": [0, 2], "views.curriculum": "const"}
    delt = make_method("delt", rounds=1, layout="slot", **same).distill(train_blobs, 2, make_ctx(work="delt"))
    sre2l = make_method("sre2l", **same, **{"views.smallest": 0.08, "views.flip": True})
    assert torch.equal(delt.images, sre2l.distill(train_blobs, 2, make_ctx(work="sre2l")).images)


def test_layout_changes_the_statistics(make_method, make_ctx, train_blobs):
    slot, klass = (
        make_method("delt", rounds=1, layout=layout, init="real", statistics=10.0)
        .distill(train_blobs, 2, make_ctx(work=layout))
        .images
        for layout in ("slot", "class")
    )
    assert not torch.equal(slot, klass)


class TestUnits:
    def test_slots(self):
        units = units_of("slot", 5, 2, 2)
        assert [u.name for u in units[:3]] == ["slot0-class0", "slot0-class2", "slot0-class4"]
        assert [(u.number, u.slots, len(u.classes)) for u in units[3:]] == [
            (1, range(1, 2), 2),
            (1, range(1, 2), 2),
            (1, range(1, 2), 1),
        ]

    @pytest.mark.parametrize(("batch", "classes"), [(100, 2), (50, 1), (10, 1), (None, 5)])
    def test_classes(self, batch, classes):
        units = units_of("class", 5, 50, batch)
        assert units[0].classes == range(classes) and units[0].name == "class0"
        assert {u.slots for u in units} == {range(50)} and sum(len(u.classes) for u in units) == 5

    @pytest.mark.parametrize("layout", ["slot", "class"])
    def test_assembled_restores_the_order(self, train_blobs, layout):
        """The parts of a set of images, recovered unit by unit, are the set."""
        pixels = torch.arange(6).view(3, 2, 1, 1, 1).expand(3, 2, 1, 8, 8).to(torch.uint8)
        units = units_of(layout, 3, 2, 2)
        syn = assembled(train_blobs, 2, units, [u.of(pixels) for u in units])
        assert syn.images[:, 0, 0, 0].tolist() == list(range(6))
        assert syn.labels.tolist() == [0, 0, 1, 1, 2, 2]
        assert all(u.labels(CPU).tolist() == [c for c in u.classes for _ in u.slots] for u in units)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"rounds": 0}, "method.rounds must be >= 1, got 0"),
        ({"rounds": 2, "layout": "slot"}, "method.rounds=2 requires method.layout=class"),
        ({"rounds": 8, "iterations": 4}, "method.iterations must be >= method.rounds=8, got 4"),
        ({"layout": "rows"}, "method.layout must be slot or class, got rows"),
        ({"init": "zeros"}, "method.init must be noise, real, patches or ranked, got zeros"),
        ({"batch": 0}, "method.batch must be >= 1, got 0"),
    ],
)
def test_invalid_arguments_raise(make_method, changes, reason):
    with pytest.raises(ValueError, match="method") as error:
        make_method("delt", **changes)
    assert reason in str(error.value)
