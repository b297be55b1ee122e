"""Tests of long tails, label noise and colour bias: exact numbers of images, the splits they change, and the digest."""

import pytest
import torch

from dd_bench.data.colour_bias import balanced_colours, biased_colours, palette
from dd_bench.data.label_noise import noisy_labels
from dd_bench.data.long_tail import class_sizes
from dd_bench.data.shifts import Shifts
from dd_bench.distillation.init import check_class_sizes

LABELS = torch.arange(5).repeat_interleave(40)


def test_class_sizes_decrease_exponentially():
    assert class_sizes(1000, 4, 1000) == [1000, 100, 10, 1]
    assert class_sizes(6000, 10, 100)[0] == 6000 and class_sizes(6000, 10, 100)[-1] == 60
    assert class_sizes(50, 3, 1) == [50, 50, 50]
    assert class_sizes(5, 3, 1000) == [5, 1, 1], "no class is empty"


def test_long_tail(real_set):
    real = real_set(val_fraction=0.25)
    shifted = Shifts(imbalance=10).apply(real)
    assert shifted.train.counts.tolist() == class_sizes(30, 3, 10) == [30, 9, 3]
    assert shifted.val.counts.tolist() == [10, 3, 1]
    assert torch.equal(shifted.test.pixels(torch.arange(60)), real.test.pixels(torch.arange(60)))
    reason = check_class_sizes(shifted, 5, 5)
    assert "ipc=5 exceeds the size of class 'cod' of blobs-lt10 (3 images)" in reason


def test_symmetric_noise_is_uniform_over_the_other_classes():
    labels = torch.arange(5).repeat_interleave(4000)
    noisy = noisy_labels(labels, 5, 0.4, "symmetric", "train")
    counts = torch.bincount(labels * 5 + noisy, minlength=25).view(5, 5)
    assert counts.diagonal().tolist() == [2400] * 5
    others = counts[~torch.eye(5, dtype=torch.bool)]
    assert int(others.min()) > 330 and int(others.max()) < 470


def test_asymmetric_noise_is_the_next_class():
    noisy = noisy_labels(LABELS, 5, 0.25, "asymmetric", "train")
    wrong = noisy != LABELS
    assert int(wrong.sum()) == 50 and torch.equal(noisy[wrong], (LABELS[wrong] + 1) % 5)


def test_noise_changes_the_training_labels_only(real_set):
    real = real_set(val_fraction=0.25)
    assert int(real.train.counts[0]) == 30  # cached before the labels change
    shifted = Shifts(label_noise=0.5).apply(real)
    for noisy, clean in ((shifted.train, real.train), (shifted.val, real.val)):
        assert float((noisy.labels != clean.labels).float().mean()) == 0.5
        assert noisy.counts.tolist() == torch.bincount(noisy.labels, minlength=3).tolist()
        assert torch.equal(noisy.inputs(torch.arange(9)), clean.inputs(torch.arange(9)))
    assert torch.equal(shifted.test.labels, real.test.labels)
    assert torch.equal(real.train.labels, real_set(val_fraction=0.25).train.labels)


def test_biased_colours():
    colours = biased_colours(LABELS, 5, 0.9, "train")
    for c in range(5):
        assert int((colours[c == LABELS] == c).sum()) == 36
    assert torch.equal(biased_colours(LABELS, 5, 1.0, "train"), LABELS)
    assert not bool((biased_colours(LABELS, 5, 0.0, "train") == LABELS).any())


def test_balanced_colours():
    counts = torch.bincount(LABELS * 5 + balanced_colours(LABELS, 5, "test"), minlength=25)
    assert counts.tolist() == [8] * 25


def test_colours_of_all_splits(real_set):
    real = real_set(val_fraction=0.25)
    shifted = Shifts(colour_bias=1.0).apply(real)
    assert shifted.shape == (3, 8, 8) and shifted.test.shape == (3, 8, 8)
    index = torch.arange(60)
    grey, colour = real.test.pixels(index).float(), shifted.test.pixels(index).float()
    expected = (grey * palette(3)[shifted.test.attributes][:, :, None, None]).round()
    assert torch.equal(colour, expected)
    assert torch.equal(shifted.train.attributes, shifted.train.labels)
    assert torch.equal(shifted.val.attributes, shifted.val.labels)
    assert torch.bincount(shifted.test.attributes).tolist() == [20, 20, 20]
    every = shifted.train.inputs(torch.arange(len(shifted.train)))
    torch.testing.assert_close(every.mean((0, 2, 3)), torch.zeros(3), atol=1e-3, rtol=0)
    kept = shifted.test.subset(torch.tensor([3, 1])).to(torch.device("cpu"))
    assert kept.attributes.tolist() == shifted.test.attributes[[3, 1]].tolist()


def test_a_shift_changes_the_name_and_the_digest(real_set):
    real = real_set()
    assert Shifts().apply(real) is Shifts(imbalance=1.0, label_noise=0).apply(real) is real
    shifts = [
        Shifts(imbalance=2), Shifts(imbalance=3), Shifts(label_noise=0.2), Shifts(colour_bias=0.9),
        Shifts(label_noise=0.2, label_noise_kind="asymmetric"), Shifts(imbalance=2, label_noise=0.2),
    ]  # fmt: skip
    found = [s.apply(real) for s in shifts]
    assert len({r.digest for r in found} | {real.digest}) == len({r.name for r in found} | {real.name}) == 7
    assert found[-1].name == "blobs-lt2-sym0.2"
    assert Shifts(imbalance=2.0).apply(real).digest == found[0].digest
    again = Shifts(imbalance=2, label_noise=0.2).apply(real)
    assert torch.equal(again.train.labels, found[-1].train.labels)
    assert torch.equal(again.train.pixels(torch.arange(9)), found[-1].train.pixels(torch.arange(9)))


@pytest.mark.parametrize(
    ("key", "value"),
    [("imbalance", 0.5), ("imbalance", "ten"), ("label_noise", 1.0), ("label_noise", None),
     ("label_noise_kind", "pairs"), ("colour_bias", 1.1)],
)  # fmt: skip
def test_invalid_values_raise(key, value):
    with pytest.raises(ValueError, match=rf"dataset.{key} must be .*, got .*Example: dataset.{key}="):
        Shifts(**{key: value})


def test_a_kind_of_noise_without_noise_raises():
    with pytest.raises(
        ValueError, match=r"no effect without label noise, .* Use dataset.label_noise=0.2 dataset.label"
    ):
        Shifts(label_noise_kind="asymmetric")


def test_unsupported_datasets_raise(blobs3, motifs):
    with pytest.raises(ValueError, match="requires greyscale images, but blobs has 3 channels"):
        Shifts(colour_bias=0.9).apply(blobs3)
    with pytest.raises(ValueError, match="require images of two or more classes"):
        Shifts(imbalance=2).apply(motifs)
