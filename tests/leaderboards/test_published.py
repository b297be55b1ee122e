import json
from pathlib import Path

import pytest

from dd_bench.leaderboards import published as module
from dd_bench.leaderboards.published import Published, load_published

FOLDER = Path(module.__file__).parent / "published"
CHOSEN = {"full", "random", "herding", "kcenter", "kmeans"}
MATCHED = {"dc", "dsa", "dm", "datadam", "ncfm", "mtt", "ftd", "tesla", "datm"}
RECOVERED = {"sre2l", "cda", "rded", "infer", "infer_dyn", "sre2l++", "dwa", "g_vbsm", "edc"}
METHODS = CHOSEN | MATCHED | RECOVERED


def test_every_committed_file_is_valid():
    sets = load_published(FOLDER)
    assert [s.dataset for s in sets] == [
        "cifar10",
        "cifar100",
        "cifar100_resnet18",
        "cifar10_resnet18",
        "fashion_mnist",
        "imagefruit",
        "imagemeow",
        "imagenet1k",
        "imagenet1k_64",
        "imagenet1k_resnet101",
        "imagenet1k_resnet50",
        "imagenette",
        "imagesquawk",
        "imagewoof",
        "imageyellow",
        "mnist",
        "svhn",
        "tiny_imagenet",
        "tiny_imagenet_resnet101",
        "tiny_imagenet_resnet18",
        "tiny_imagenet_resnet50",
    ]
    for s in sets:
        assert (FOLDER / f"{s.dataset}.json").exists()
        assert {c.method for c in s.cells} <= METHODS
        assert {c.method for c in s.cells if c.ipc is None} <= {"full"}


def test_what_is_from_memory_says_so():
    for s in load_published(FOLDER):
        for c in s.cells:
            assert c.verified is c.source.startswith("read "), c
            assert c.verified is not c.source.startswith("from memory"), c


def test_a_few_numbers_that_were_read():
    sets = {s.dataset: s for s in load_published(FOLDER)}

    def value(dataset, method, ipc):
        first = sets[dataset].at(method, ipc)[0]
        return first.mean, first.std, first.verified

    assert value("fashion_mnist", "dc", 10) == (82.3, 0.4, True)
    assert value("fashion_mnist", "random", 10) == (73.8, 0.7, False)
    assert value("svhn", "dsa", 50) == (84.4, 0.4, True)
    assert value("tiny_imagenet", "ncfm", 1) == (18.2, 0.5, True)
    assert value("cifar10", "ftd", 1) == (46.8, 0.3, True)  # the paper's own before others' quotes
    assert value("cifar100", "datm", 50) == (55.0, 0.2, True)
    assert value("imagesquawk", "mtt", 10) == (52.3, 1.0, True)
    assert value("cifar10", "full", 50) == (84.8, 0.1, True)  # at any IPC
    assert value("cifar100_resnet18", "infer", 10) == (45.2, None, True)
    assert value("cifar100_resnet18", "edc", 10) == (63.7, None, False)
    assert value("imagenet1k", "sre2l", 50) == (46.8, None, True)
    assert value("imagenet1k_resnet101", "cda", 200) == (68.4, None, True)
    assert sets["fashion_mnist"].at("datadam", 1) == []  # none was found


CELL = {"method": "dc", "ipc": 1, "mean": 70.5, "std": 0.6, "protocol": "p", "source": "s", "verified": True}


@pytest.mark.parametrize(
    "cell",
    [
        {"mean": 170.5},
        {"ipc": 0},
        {"source": ""},
        {"protocol": ""},
        {"verified": None},
        {"std": -1},
        {"note": "unknown field"},
    ],
)
def test_cells_that_are_refused(tmp_path, cell):
    text = json.dumps({"dataset": "x", "model": "convnet", "unit": "percent", "cells": [CELL | cell]})
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(ValueError, match=r"x\.json"):
        load_published(tmp_path)


def test_no_field_has_a_default_that_hides_where_a_number_is_from():
    assert all(field.is_required() for field in Published.model_fields.values())


def test_one_file_a_dataset_and_one_number_a_source(tmp_path):
    with pytest.raises(ValueError, match="no such folder"):
        load_published(tmp_path / "none")
    head = {"model": "convnet", "unit": "percent"}
    for name in ("cifar10", "CIFAR-10"):
        (tmp_path / f"{name}.json").write_text(json.dumps({**head, "dataset": name, "cells": [CELL]}))
    with pytest.raises(ValueError, match="several files"):
        load_published(tmp_path)
    (tmp_path / "CIFAR-10.json").write_text(json.dumps({**head, "dataset": "svhn", "cells": [CELL, CELL]}))
    with pytest.raises(ValueError, match="two numbers"):
        load_published(tmp_path)
