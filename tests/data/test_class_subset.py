"""Tests of datasets with some of the classes of another one."""

import pytest
import torch

from dd_bench.data.class_subset import ClassSubset
from dd_bench.data.shifts import Shifts
from dd_bench.pipeline.compose import load_real_set


def test_selected_and_other_classes(real_set):
    real = real_set(4, val_fraction=0.25)
    part = ClassSubset((3, 0)).apply(real)
    assert part.name == "blobs-classes3+0" and part.class_names == ("dog", "ape")
    assert part.train.counts.tolist() == [30, 30] and part.val.counts.tolist() == [10, 10]
    assert part.test.counts.tolist() == [20, 20]
    assert torch.equal(part.train.pixels(part.train.of_class(0)), real.train.pixels(real.train.of_class(3)))
    assert torch.equal(part.test.inputs(part.test.of_class(1)), real.test.inputs(real.test.of_class(0)))
    assert part.others.class_names == ("bee", "cod") and part.others.train.counts.tolist() == [30, 30]
    assert part.others.val is None
    with pytest.raises(RuntimeError, match="reserved for evaluators"):
        _ = part.others.test
    assert part.train_only().others.digest == part.others.digest
    assert len({real.digest, part.digest, part.others.digest}) == 3
    assert part.others.digest == ClassSubset((1, 2)).apply(real).digest


def test_names_and_indices_are_equivalent(real_set):
    real = real_set(4)
    by_index, by_name = (ClassSubset(c).apply(real) for c in ((1, 2), ("bee", "cod")))
    assert by_index.digest == by_name.digest and by_index.name == by_name.name == "blobs-classes1-2"
    assert ClassSubset((0, 1, 2, 3)).apply(real).others is None
    assert ClassSubset().apply(real) is real


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ((0, 4), r"indices from 0 to 3, got 4"),
        (("bea",), r"got 'bea'\. Did you mean bee"),
        ((0, "ape"), r"must not contain a class twice"),
        ((True,), r"got True"),
    ],
)
def test_wrong_classes(real_set, classes, message):
    with pytest.raises(ValueError, match=message):
        ClassSubset(classes).apply(real_set(4))


def test_value_must_be_a_list():
    assert ClassSubset.take_from({"classes": None, "root": "."}) == ClassSubset()
    with pytest.raises(ValueError, match=r"Example: dataset\.classes=\[0,1,2,3,4\]"):
        ClassSubset.take_from({"classes": 5})


def test_graphs_have_no_subset(motifs):
    with pytest.raises(ValueError, match="requires images, got graphs"):
        ClassSubset((0,)).apply(motifs)


def test_shifts_are_added_to_the_selected_classes(real_set):
    part = Shifts(imbalance=4).apply(ClassSubset((0, 1)).apply(real_set(4)))
    assert part.name == "blobs-classes0-1-lt4" and part.train.counts.tolist() == [40, 10]
    assert part.others.train.counts.tolist() == [40, 40]
    assert Shifts(colour_bias=0.5).apply(ClassSubset((0, 1)).apply(real_set(4))).others is None


def test_key_of_the_configuration():
    real, config = load_real_set(["dataset=digits", "dataset.classes=[5,6,7,8,9]"])
    assert real.name == "digits-classes5-9" and real.class_names == tuple("56789")
    assert len(real.train) + len(real.others.train) == 1352
    assert config["classes"] == [5, 6, 7, 8, 9]
    assert real.preprocess.digest == real.others.preprocess.digest
