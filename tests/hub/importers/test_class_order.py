"""Which class each numbered or named folder of a released set is. A wrong order gives wrong labels without an error."""

import pytest
import torch

from dd_bench.hub.importers.class_names import describe
from dd_bench.hub.importers.class_order import class_order, label_order, relabel
from dd_bench.records.config_diff import shipped_yaml

WOOF = tuple(shipped_yaml("dataset", "imagewoof")["classes"])  # in MTT's order, which is not sorted
INDICES = [193, 182, 258, 162, 155, 167, 159, 273, 207, 229]  # of ImageNet, in the same order
FASHION = ("T-shirt/top", "Trouser", "Pullover")


@pytest.mark.parametrize("prefix", ["", "new", "0"])
def test_imagenet_indices(prefix):
    """The folders of ImageWoof in SRe2L's format; sorted numbers would give no class its label."""
    order = class_order([f"{prefix}{i}" for i in sorted(INDICES)], WOOF)
    assert order.label_of == {f"{prefix}{i}": label for label, i in enumerate(INDICES)}
    assert order.rule == "by ImageNet index"


def test_order_of_wnids_has_to_be_chosen():
    """Authors count the classes in sorted order (RDED) or in the order of the dataset (MTT)."""
    names = [f"{i:05d}" for i in range(10)]
    with pytest.raises(
        ValueError, match=r"00000 can be n02096294 \(Australian terrier\).* or n02086240 \(Shih-Tzu\)"
    ):
        class_order(names, WOOF)
    assert class_order(names, WOOF, "label").label_of == {name: i for i, name in enumerate(names)}
    by_position = class_order(names, WOOF, "sorted").label_of
    assert [WOOF[by_position[name]] for name in names] == sorted(WOOF)


def test_numbers_of_sorted_classes_are_not_ambiguous():
    order = class_order([f"new{i:03d}" for i in range(10)], sorted(WOOF))
    assert order.label_of == {f"new{i:03d}": i for i in range(10)} and order.rule == "in label order"


def test_numbers_are_sorted_numerically():
    names = [f"new{i}" for i in range(11)]
    assert class_order(sorted(names), tuple("abcdefghijk")).label_of == {n: i for i, n in enumerate(names)}


@pytest.mark.parametrize(
    "names",
    [
        ["1", "2", "3"],
        ["155", "159", "162"],
        ["new1", "old0", "new2"],
        ["0", "00", "1"],
        ["ape", "dog", "eel"],
        ["n02086240", "n02087394", "n02088364"],
    ],
)
def test_unknown_classes_are_rejected(names):
    """Numbers that do not count the classes from 0, or with different prefixes, and unknown names."""
    with pytest.raises(ValueError, match=r"are not those of the dataset, ape, bee, cod, .* --classes FILE"):
        class_order(names, ("ape", "bee", "cod"))


def test_another_number_of_classes_is_rejected():
    with pytest.raises(ValueError, match="one class for each of the 3 classes of the dataset, got 2: 0, 1"):
        class_order(["0", "1"], FASHION)


@pytest.mark.parametrize(
    ("names", "class_names"),
    [
        (["T-shirt_top", "pullover", "TROUSER"], FASHION),
        (["0_T-shirt_top", "2_Pullover", "1_Trouser"], FASHION),
        (["Shih-Tzu", "beagle", "dingo"], ("n02086240", "n02088364", "n02115641")),
        (["n02086240", "beagle", "n02115641"], ("n02086240", "n02088364", "n02115641")),
        (["new007", "new010", "new005"], ("10", "5", "7")),
        (["c", "c++", "C"], ("C", "c", "c++")),
    ],
)
def test_classes_by_name(names, class_names):
    order = class_order(names, class_names)
    pairs = {name: class_names[label] for name, label in order.label_of.items()}
    assert order.rule == "by name" and len(set(pairs.values())) == 3
    for name, class_name in pairs.items():
        word = describe(class_name).lower().replace("/", "_")
        assert name.lower().lstrip("012_") in word or name.endswith(class_name)


def test_two_folders_of_one_class_are_rejected():
    with pytest.raises(ValueError, match="0_ape and 1_ape are the same class"):
        class_order(["0_ape", "1_ape", "2_bee"], ("ape", "bee", "cod"))


def test_file_of_classes(tmp_path):
    path = tmp_path / "classes.csv"
    path.write_text('a,Pullover\n"b",T-shirt/top\nc, Trouser\n')
    assert class_order(["c", "b", "a"], FASHION, str(path)).label_of == {"a": 2, "b": 0, "c": 1}
    path.write_text("155,Shih-Tzu\n162,n02088364\n")
    assert class_order(["155", "162"], ("n02088364", "n02086240"), str(path)).label_of == {"155": 1, "162": 0}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,Trouser\nb,Coat\nc,Pullover\n", "line 2: 'Coat' is not one of the classes"),
        ("a,Trouser\nb,Trouser\nc,Pullover\n", "a and b are the same class"),
        ("a,Trouser\na,Pullover\n", "line 2: must be FOLDER,CLASS"),
        ("a,Trouser\nb,Pullover\n", "has no line for c"),
        ("Trouser\nPullover\nT-shirt/top\n", r"line 1: must be FOLDER,CLASS .* Example: a,T-shirt/top"),
        (None, "must be label, sorted or a file"),
    ],
)
def test_wrong_files_of_classes_are_rejected(tmp_path, text, message):
    if text is not None:
        (tmp_path / "classes.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        class_order(["a", "b", "c"], FASHION, str(tmp_path / "classes.csv"))


def test_choice_requires_numbers():
    with pytest.raises(
        ValueError, match="--classes sorted requires classes numbered from 0 to 2, got x, y, z"
    ):
        class_order(["x", "y", "z"], FASHION, "sorted")


class TestTensors:
    """The same rules for numbers in a tensor of labels, and for the columns of soft labels."""

    def test_labels_are_unchanged_if_classes_are_sorted(self):
        labels = torch.tensor([2, 0, 1, 1])
        order = label_order(labels, FASHION)
        assert torch.equal(relabel(labels, order), labels) and order.rule == "in label order"

    def test_imagenet_indices(self):
        labels = torch.tensor(sorted(INDICES))
        assert torch.tensor(INDICES)[relabel(labels, label_order(labels, WOOF))].tolist() == sorted(INDICES)

    def test_order_of_wnids_has_to_be_chosen(self):
        """Tiny-ImageNet's labels are in the order of wnids.txt, those of torchvision's ImageFolder are sorted."""
        names, labels = ("n02124075", "n04067472", "n01443537"), torch.tensor([0, 1, 2])
        with pytest.raises(ValueError, match="the order of the numbered classes is not known"):
            label_order(labels, names)
        assert relabel(labels, label_order(labels, names, "sorted")).tolist() == [2, 0, 1]
        soft = torch.tensor([[0.7, 0.2, 0.1]])
        assert torch.equal(relabel(soft, label_order(soft, names, "sorted")), torch.tensor([[0.2, 0.1, 0.7]]))

    def test_missing_class(self):
        """The check of images per class reports it."""
        labels = torch.tensor([0, 0, 2])
        assert torch.equal(relabel(labels, label_order(labels, FASHION)), labels)

    def test_labels_of_another_dataset_are_rejected(self):
        with pytest.raises(ValueError, match="are not those of the dataset"):
            label_order(torch.tensor([1, 2, 3]), FASHION)


def test_summary():
    order = class_order([str(i) for i in sorted(INDICES)], WOOF)
    assert order.summary(WOOF, 2) == (
        "classes by ImageNet index: 193 -> n02096294 (Australian terrier), 182 -> n02093754 (Border terrier), ... "
        "(10 classes)"
    )
