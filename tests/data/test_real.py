"""The real set: drawing, class members, validation split, the view for methods, digests."""

import pytest
import torch

from dd_bench.data import dataset
from dd_bench.data.dataset import RealSet, TensorSplit, content_digest, cut_validation, tensor_set
from dd_bench.data.preprocess import Normalise

CPU = torch.device("cpu")
COUNTS = (7, 3, 12)


def arrays(counts=COUNTS, seed=0):
    g = torch.Generator().manual_seed(seed)
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    labels = labels[torch.randperm(len(labels), generator=g)]
    return torch.randint(0, 256, (len(labels), 2, 4, 5), generator=g, dtype=torch.uint8), labels


def split(counts=COUNTS):
    pixels, labels = arrays(counts)
    return TensorSplit(pixels, labels, len(counts), Normalise([0.5, 0.5], [0.2, 0.3]))


def real(train=None, test=None, names=("a", "b", "c"), val_fraction=0.0) -> RealSet:
    return tensor_set(
        "toy",
        train or arrays(),
        test or arrays((2, 2, 2), seed=1),
        class_names=names,
        preprocess=Normalise([0.5, 0.5], [0.2, 0.3]),
        flip=False,
        licence="none",
        citation="none",
        device=CPU,
        val_fraction=val_fraction,
    )


def test_counts_and_members_with_unequal_classes():
    s = split()
    assert tuple(s.counts.tolist()) == COUNTS
    assert s.members.shape == (3, 12)
    for c, count in enumerate(COUNTS):
        assert torch.equal(s.of_class(c), (s.labels == c).nonzero().flatten())
        assert bool((s.members[c, count:] == -1).all())


def test_draw_is_without_replacement_and_reproducible():
    s = split()
    first = s.draw(3, torch.Generator().manual_seed(5))
    assert first.shape == (3, 3)
    for c in range(3):
        assert bool((s.labels[first[c]] == c).all())
        assert len(set(first[c].tolist())) == 3
    assert torch.equal(first, s.draw(3, torch.Generator().manual_seed(5)))
    assert not torch.equal(first, s.draw(3, torch.Generator().manual_seed(6)))


def test_draw_is_uniform():
    s, g = split(), torch.Generator().manual_seed(0)
    drawn = torch.stack([s.draw(2, g)[2] for _ in range(3000)]).flatten()
    share = torch.bincount(drawn, minlength=len(s))[s.of_class(2)] / 3000
    # each of the 12 images is drawn with probability 1/6; the tolerance is five standard deviations
    assert float((share - 1 / 6).abs().max()) < 5 * (1 / 6 * 5 / 6 / 3000) ** 0.5


def test_draw_raises_if_the_smallest_class_has_too_few_images():
    with pytest.raises(ValueError, match=r"cannot draw 4 images per class .* class 1 has only 3"):
        split().draw(4, torch.Generator())


def test_inputs_pixels_and_batches_agree():
    s = split()
    index = torch.tensor([4, 0, 4])
    assert s.pixels(index).dtype == torch.uint8
    mean, std = torch.tensor([0.5, 0.5])[:, None, None], torch.tensor([0.2, 0.3])[:, None, None]
    torch.testing.assert_close(s.inputs(index), (s.pixels(index).float() / 255 - mean) / std)
    inputs, labels = (torch.cat(parts) for parts in zip(*s.batches(5), strict=True))
    assert torch.equal(inputs, s.inputs(torch.arange(len(s)))) and torch.equal(labels, s.labels)


def test_inputs_first_computed_in_inference_mode_support_autograd():
    s = split()
    with torch.inference_mode():
        next(s.batches(5))
    weight = torch.ones(5, requires_grad=True)
    (s.inputs(torch.tensor([0])) * weight).sum().backward()
    (next(s.batches(5))[0] * weight).sum().backward()


def test_validation_is_a_stratified_part_of_train():
    whole, cut = real(), real(val_fraction=0.34)
    assert cut.val is not None and whole.val is None
    assert cut.val.counts.tolist() == [2, 1, 4]  # round(0.34 n)
    assert (cut.train.counts + cut.val.counts).tolist() == list(COUNTS)
    both = torch.cat([s.pixels(torch.arange(len(s))) for s in (cut.train, cut.val)])
    rows = {bytes(p.numpy().tobytes()) for p in both}
    assert len(rows) == sum(COUNTS)  # no image twice
    assert rows == {bytes(p.numpy().tobytes()) for p in whole.train.pixels(torch.arange(len(whole.train)))}
    assert cut.digest == whole.digest


def test_invalid_validation_fraction():
    with pytest.raises(ValueError, match=r"must be in \[0, 1\)"):
        real(val_fraction=1.0)
    with pytest.raises(ValueError, match=r"leaves no training image of class 0"):
        cut_validation(split((1, 5)), 0.1)


def test_view_for_methods_has_no_test_and_validation_split():
    r = real(val_fraction=0.3)
    assert len(r.test) == 6
    view = r.train_only()
    assert view.val is None and view.train is r.train and view.digest == r.digest
    with pytest.raises(RuntimeError, match=r"dataset.val_fraction"):
        _ = view.test


def test_trials_are_scored_on_the_validation_split():
    """No split of a trial has test images. Its digest differs from that of every other validation split."""
    whole = real(val_fraction=0.3)
    trial = whole.validation_as_test()
    assert trial.test is whole.val and trial.train is whole.train and trial.val is None
    assert (whole.scored, trial.scored, trial.to(CPU).scored) == ("test", "validation", "validation")
    assert len({whole.digest, trial.digest, real(val_fraction=0.5).validation_as_test().digest}) == 3
    with pytest.raises(ValueError, match="toy must have a validation split, got none"):
        real().validation_as_test()


def test_digest_depends_on_pixels_labels_class_order_and_test_split():
    pixels, labels = arrays()
    other, moved = pixels.clone(), labels.clone()
    other[3, 1, 2, 2] += 1
    moved[0] = (moved[0] + 1) % 3
    digests = [
        real().digest,
        real(train=(other, labels)).digest,
        real(train=(pixels, moved)).digest,
        real(names=("b", "a", "c")).digest,
        real(test=arrays((2, 2, 3), seed=1)).digest,
    ]
    assert len(set(digests)) == 5
    assert real(train=(pixels, labels.int())).digest == digests[0]
    assert content_digest([pixels], ("a",)) != content_digest([pixels.view(-1, 2, 5, 4)], ("a",))


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ((torch.zeros(3, 1, 2, 2), torch.arange(3)), "images must be uint8"),
        ((torch.zeros(3, 2, 2, dtype=torch.uint8), torch.arange(3)), "images must be uint8"),
        ((torch.zeros(3, 2, 2, 2, dtype=torch.uint8), torch.arange(2)), "got 3 images and 2 labels"),
        (
            (torch.zeros(3, 2, 2, 2, dtype=torch.uint8), torch.arange(1, 4)),
            r"labels must be in 0\.\.2, got 1\.\.3",
        ),
        (
            (torch.zeros(2, 2, 2, 2, dtype=torch.uint8), torch.tensor([0, 2])),
            "got none of class 'b'",
        ),
    ],
)
def test_invalid_arrays(train, message):
    with pytest.raises(ValueError, match=message):
        real(train=train)


@pytest.mark.parametrize("limit", [0, 1 << 30], ids=["computed", "stored"])
def test_inputs_of_large_splits_are_computed_with_the_same_bits(make_blobs, monkeypatch, limit):
    """Stored float32 inputs take four times the memory of the uint8 pixels."""
    stored = make_blobs().train
    monkeypatch.setattr(dataset, "STORED_INPUTS", limit)
    split = make_blobs().train
    index = torch.tensor([5, 0, 5])
    assert torch.equal(split.inputs(index), stored.inputs(index))
    for (x, y), (u, v) in zip(split.batches(10), stored.batches(10), strict=True):
        assert torch.equal(x, u) and torch.equal(y, v)
    assert ("_inputs" in vars(split)) == (limit > 0)
