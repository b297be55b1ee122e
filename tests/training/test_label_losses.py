"""The mathematics of soft labels: cosine loss, calibrated temperatures, phases and temperature schedules."""

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError

from dd_bench.training.label_recipe import LabelRecipe, TemperatureSchedule, check_used
from dd_bench.training.label_schedule import LabelSchedule
from dd_bench.training.losses import (
    SmoothedTarget,
    SoftTarget,
    Temperatures,
    calibrated,
    distillation_loss,
    target_loss,
)

PLAIN = {
    "kind": "replay", "loss": "kl", "temperature": 20.0, "scaled": False, "hard_weight": 0.0, "mix_space": "logits",
    "teacher_mode": "eval", "pool": 1, "top": None, "source": None,
}  # fmt: skip
G = torch.Generator().manual_seed(0)
TEACHER, STUDENT = 3 * torch.randn(8, 5, generator=G), torch.randn(8, 5, generator=G)
Y = torch.randint(5, (8,), generator=G)
STUDENT = 0.15 * TEACHER + 0.1 * STUDENT  # the student agrees with the teacher, on a smaller scale
PARTNER, KEEP = torch.arange(8).roll(1), torch.tensor(0.3)


def labels(**values):
    return LabelRecipe(**PLAIN | values)


class TestCosine:
    def target(self, mixed=False, **values):
        mixture = (PARTNER, KEEP) if mixed else (None, None)
        return SoftTarget(TEACHER.double(), Y, *mixture, labels(loss="cosine", **values))

    def test_does_not_depend_on_the_scale_of_the_logits(self):
        loss = distillation_loss(STUDENT.double(), self.target())
        assert torch.allclose(distillation_loss(7 * STUDENT.double(), self.target()), loss)
        assert distillation_loss(3 * TEACHER.double(), self.target()) == pytest.approx(0)
        assert distillation_loss(-TEACHER.double(), self.target()) == pytest.approx(2)

    @pytest.mark.parametrize("mixed", [False, True])
    def test_gradient(self, mixed):
        """Compared with finite differences."""
        target = self.target(mixed, refine=0.1, hard_smoothing=0.1)
        student = STUDENT.double().requires_grad_()
        assert torch.autograd.gradcheck(lambda x: distillation_loss(x, target), student)
        # the cosine is constant along the logits themselves
        distillation_loss(student, target).backward()
        assert torch.allclose(
            (student.grad * student).sum(1), torch.zeros(8, dtype=torch.float64), atol=1e-12
        )

    def test_refined_labels_of_the_released_code(self):
        """GIFT: unit vectors of logits and of labels with 0.9 for the true class and 0.1 / (k - 1) for the others."""
        h = torch.full((8, 5), 0.1 / 4, dtype=torch.float64).scatter(1, Y[:, None], 0.9)
        for mixed, label in ((False, h), (True, 0.3 * h + 0.7 * h[PARTNER])):
            z = F.normalize(TEACHER.double(), dim=1) + 0.1 * F.normalize(label, dim=1)
            expected = (1 - F.cosine_similarity(STUDENT.double(), z)).mean()
            target = self.target(mixed, refine=0.1, hard_smoothing=0.1)
            assert torch.allclose(distillation_loss(STUDENT.double(), target), expected)

    def test_mixtures_of_two_networks(self):
        keep = torch.tensor([0.3, 0.8])
        recipe = labels(loss="cosine", refine=1.0)
        partner = torch.cat([torch.arange(4).roll(1), 4 + torch.arange(4).roll(1)])
        both = distillation_loss(STUDENT, SoftTarget(TEACHER, Y, partner, keep, recipe))
        each = [
            distillation_loss(STUDENT[s], SoftTarget(TEACHER[s], Y[s], partner[:4], k, recipe))
            for s, k in zip((slice(4), slice(4, 8)), keep, strict=True)
        ]
        assert torch.allclose(both, sum(each) / 2)


class TestTemperatures:
    def kl(self, s, t):
        p, q = (TEACHER / t).softmax(1), (STUDENT / s).softmax(1)
        return (p * (p / q).log()).sum(1).mean()

    @pytest.mark.parametrize("scale", [1.0, 2.0])
    def test_calibration_equals_a_brute_force_search(self, scale):
        p = (TEACHER / 4).softmax(1)
        best = min((self.kl(scale * i / 100, 4.0), scale * i / 100) for i in range(1, 101))[1]
        assert calibrated(STUDENT, p, 1, scale).item() == pytest.approx(best)
        assert 0.3 < best < 0.9, "the best temperature is inside the grid"

    def test_each_network_has_its_own_temperature(self):
        logits = torch.cat([STUDENT, 3 * STUDENT])
        p = (TEACHER / 4).softmax(1).repeat(2, 1)
        first, second = calibrated(logits, p, 2, 4.0).tolist()
        assert first == calibrated(STUDENT, p[:8], 1, 4.0).item()
        assert second == pytest.approx(3 * first, abs=0.07) and second > first

    def test_loss_at_two_temperatures(self):
        """The calibrated temperature is used from the next step on."""
        student, recipe = torch.ones(1), labels(temperature=4.0, student_temperature="calibrated")
        now = Temperatures(torch.tensor(4.0), student, calibrate=True)
        target = SoftTarget(TEACHER, Y, None, None, recipe, now)
        assert torch.allclose(distillation_loss(STUDENT, target), self.kl(1.0, 4.0))
        assert student.item() == calibrated(STUDENT, (TEACHER / 4).softmax(1), 1).item() != 1
        after = target._replace(temperatures=now._replace(calibrate=False))
        assert torch.allclose(distillation_loss(STUDENT, after), self.kl(student.item(), 4.0))

    def test_ratio_to_the_temperature_of_the_teacher(self):
        """The student starts at the teacher's temperature. The state is the ratio of the two."""
        ratio, recipe = torch.ones(1), labels(student_temperature="calibrated_ratio")
        now = Temperatures(torch.tensor(2.0), ratio, calibrate=True)
        target = SoftTarget(TEACHER, Y, None, None, recipe, now)
        assert torch.allclose(distillation_loss(STUDENT, target), self.kl(2.0, 2.0))
        best = calibrated(STUDENT, (TEACHER / 2).softmax(1), 1, 2.0)
        assert torch.allclose(2 * ratio, best) and ratio < 1

    def test_schedule_of_lpqld(self):
        schedule = TemperatureSchedule(decay=0.7, every=30, minimum=2.0)
        assert [schedule.at(e, 20.0) for e in (0, 29, 30, 60)] == pytest.approx([20, 20, 14, 9.8])
        assert schedule.at(299, 20.0) == 2.0


class TestPhases:
    def schedule(self, epochs=300, **values):
        return LabelSchedule(labels(**values), epochs)

    def test_soft_hard_soft(self):
        """HALD on ImageNet-1K, 10 images per class."""
        s = self.schedule(phases=(("soft", 75), ("hard", 150), ("soft", 75)), stored_epochs=10)
        assert s.soft_epochs == 150 and s.stored_epochs == 10
        assert [s.soft_epoch(e) for e in (0, 74, 75, 224, 225, 299)] == [0, 74, None, None, 75, 149]

    def test_scaled_to_the_epochs(self):
        s = self.schedule(epochs=10, phases=(("soft", 75), ("hard", 150), ("soft", 75)))
        found = [s.soft_epoch(e) for e in range(10)]
        assert found == [0, 1, None, None, None, None, None, None, 2, 3]

    def test_stored_epochs_and_batches(self):
        """A pool need not divide the training; incomplete epochs and batches are rounded up."""
        assert self.schedule(pool=40).stored_epochs == 8 and self.schedule(pool=40).stored_batches(10) is None
        assert self.schedule(pool=40, pool_unit="batch").stored_batches(10) == 75
        assert self.schedule(epochs=7, pool=40, pool_unit="batch").stored_batches(3) == 1
        assert self.schedule(stored_epochs=7, pool_unit="batch").stored_batches(3) == 21

    def test_smoothed_classes(self):
        expected = F.cross_entropy(STUDENT, Y, label_smoothing=0.8)
        assert torch.allclose(target_loss(STUDENT, SmoothedTarget(Y, None, None, 0.8)), expected)
        other = F.cross_entropy(STUDENT, Y[PARTNER], label_smoothing=0.8)
        mixed = target_loss(STUDENT, SmoothedTarget(Y, PARTNER, KEEP, 0.8))
        assert torch.allclose(mixed, 0.3 * expected + 0.7 * other)
        pair = torch.stack([KEEP, KEEP])
        partner = torch.cat([torch.arange(4).roll(1), 4 + torch.arange(4).roll(1)])
        two = target_loss(STUDENT, SmoothedTarget(Y, partner, pair, 0.8))
        one = [
            target_loss(STUDENT[i], SmoothedTarget(Y[i], partner[:4], KEEP, 0.8))
            for i in (slice(4), slice(4, 8))
        ]
        assert torch.allclose(two, sum(one) / 2)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"pool": 2, "stored_epochs": 3}, "only one of pool and stored_epochs"),
        ({"loss": "mse", "rest": "zero"}, "rest=zero requires loss=kl, got loss=mse. Use rest=share"),
        ({"loss": "cosine", "student_temperature": "calibrated"}, "Use student_temperature=same"),
        ({"refine": 0.1}, "refine requires loss=cosine"),
        ({"phases": (("hard", 3),)}, "phases must contain soft labels"),
    ],
)
def test_inconsistent_labels(values, message):
    with pytest.raises(ValidationError, match=message):
        labels(**values)


def test_later_keys_are_omitted_at_their_defaults():
    """The keys of older results contain only the older keys."""
    assert labels().model_dump(mode="json").keys() == PLAIN.keys()
    changed = labels(pool_unit="batch", label_bits=4).model_dump(mode="json")
    assert changed.keys() - PLAIN.keys() == {"pool_unit", "label_bits"}


@pytest.mark.parametrize(
    ("values", "unused"),
    [
        ({"kind": "hard", "label_bits": 4, "top": 2}, {"label_bits": "null", "top": "null"}),
        ({"kind": "hard", "student_temperature": "calibrated"}, {"student_temperature": "same"}),
        ({"kind": "hard", "hard_weight": 0.5}, {"hard_weight": "0.0"}),
        ({"kind": "online", "label_bits": 2, "pool": 16}, {"label_bits": "null", "pool": "1"}),
        ({"kind": "online", "mix_space": "probabilities"}, {"mix_space": "logits"}),
        ({"kind": "static", "pool": 16}, {"pool": "1"}),
        ({"kind": "static", "source": "labels"}, {"source": "null"}),
        ({"rest": "minimum"}, {"rest": "share"}),
        ({"hard_smoothing": 0.1}, {"hard_smoothing": "0.0"}),
        ({"loss": "cosine", "hard_smoothing": 0.1}, {"hard_smoothing": "0.0"}),
        ({"pool_unit": "batch"}, {"pool_unit": "epoch"}),
        ({"loss": "mse", "scaled": True}, {"scaled": "false"}),
        ({"loss": "mse", "temperature": 4.0}, {"temperature": "20.0"}),
        ({"phases": (("soft", 3), ("soft", 4))}, {"phases": "null"}),
    ],
)
def test_values_without_effect_are_refused(values, unused):
    """Equal trainings would have two records. The message has the overrides to use."""
    with pytest.raises(ValueError, match="no effect with ") as error:
        check_used(labels(**values), {"temperature": 20.0})
    use = str(error.value).partition(" Use ")[2].split(" ")
    assert sorted(use) == sorted(f"protocol.labels.{key}={value}" for key, value in unused.items())
    kept = {k: v for k, v in values.items() if k not in unused}
    check_used(labels(**kept), {"temperature": 20.0})


@pytest.mark.parametrize(
    "values",
    [
        {"kind": "hard", "hard_smoothing": 0.1, "temperature": 20.0},
        {"kind": "static", "top": 2, "rest": "zero", "label_bits": 4, "mix_space": "probabilities"},
        {"pool_unit": "batch", "stored_epochs": 3},
        {"pool_unit": "batch", "pool": 4},
        {"hard_smoothing": 0.8, "phases": (("soft", 3), ("hard", 4))},
        {"hard_smoothing": 0.1, "hard_weight": 1.0, "loss": "mse"},
        {"kind": "online", "teacher_mode": "train", "student_temperature": "calibrated", "scaled": True},
    ],
)
def test_values_with_an_effect(values):
    check_used(labels(**values), {"temperature": 20.0})


def test_a_protocol_file_may_have_values_without_effect():
    """A variant with hard labels inherits the labels of its protocol. Other values and other kinds are refused."""
    shipped = {**PLAIN, "kind": "hard", "loss": "mse"}
    check_used(labels(kind="hard", loss="mse"), shipped)
    check_used(labels(kind="hard", loss="kl"), shipped)
    with pytest.raises(ValueError, match=r"Use protocol.labels.loss=mse"):
        check_used(labels(kind="hard", loss="cosine"), shipped)
    with pytest.raises(ValueError, match=r"with kind=online. Use protocol.labels.pool=1"):
        check_used(labels(kind="online", pool=4), {**PLAIN, "pool": 4})
