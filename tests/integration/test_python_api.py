"""The functions of `import dd_bench`, as a notebook calls them."""

import functools
import json
import logging
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import dd_bench
from dd_bench.records.record import load_record

FAST = ["evaluator.num_networks=2", "model.width=8", "protocol.recipe.epochs=2"]


class Net(nn.Module):
    def __init__(self, in_channels, num_classes, width=4):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(in_channels, width, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()
        )
        self.head = nn.Linear(4 * width, num_classes)

    def forward(self, x):
        return self.head(self.body(x))


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def mine():
    images = torch.randint(0, 256, (60, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(60) % 3
    return dd_bench.from_tensors("mine", (images, labels), (images[:15], labels[:15].numpy()))


def test_lists_are_those_of_the_command_line():
    assert "ftd" in dd_bench.list_methods() and "digits" in dd_bench.list_datasets()
    assert dd_bench.list_protocols()["dc-300"].startswith("DC's evaluation")
    assert "convnet" in dd_bench.list_models() and "accuracy" in dd_bench.list_evaluators()
    assert "demo" in dd_bench.list_experiments()
    assert set(dd_bench.__all__) <= set(dir(dd_bench))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        dd_bench.nonsense  # noqa: B018


def test_it_is_the_machine_of_the_command_line(request, elsewhere):
    """The same keys, the same values; and each finds what the other has made."""
    ours = dd_bench.run(["method=random", "ipc=1", *FAST])
    command = request.getfixturevalue("dd_bench")
    assert command("run", "method=random", "ipc=1", *FAST, "out=other").code == 0
    (path,) = (elsewhere / "other" / "records").glob("*.json")
    theirs = load_record(path)
    assert theirs.key == ours.key and theirs.config | {"out": "runs", "cache": "runs/cache"} == ours.config
    assert [s.value for s in theirs.scores] == [s.value for s in ours.scores]
    assert load_record(elsewhere / "runs" / "records" / f"{ours.key}.json") == ours
    syn = dd_bench.distill("random", "digits", 1, overrides=["model.width=8"], out="other")
    assert [syn.folder] == [p.relative_to(elsewhere) for p in (elsewhere / "other" / "sets").iterdir()]


def test_a_set_is_distilled_looked_at_and_evaluated(elsewhere):
    syn = dd_bench.distill(
        "dm", "digits", 2, model="convnet", overrides=["method.iterations=2", "model.width=8"]
    )
    assert syn.card.method == "dm" and syn.card.licence and syn.folder.is_dir()
    assert syn.images().shape == syn.inputs().shape == (20, 1, 8, 8)
    assert 0 <= float(syn.images().min()) <= float(syn.images().max()) <= 1
    assert torch.equal(syn.stored.materialise(torch.device("cpu"))[0], syn.inputs())
    assert syn.labels.tolist() == [c for c in range(10) for _ in range(2)]
    assert syn._repr_png_()[:4] == b"\x89PNG" and "dm on digits, ipc=2" in repr(syn)
    inputs, labels = syn.dataset()[3]
    assert torch.equal(inputs, syn.inputs()[3]) and int(labels) == 1
    record = dd_bench.evaluate(syn, protocol="quick", num_networks=2, overrides=FAST[1:])
    again = dd_bench.evaluate(str(syn.folder), dataset="digits", num_networks=2, overrides=FAST[1:])
    assert record == again and len(record.scores) == 2 and record.config["set"] == syn.folder.name
    assert dd_bench.load(syn.folder).identity() == syn.identity()


def test_pixels_are_those_of_the_real_images():
    real = dd_bench.real_set("digits", "dataset.preprocess=zca")
    syn = dd_bench.distill("random", real, 1)
    assert syn.card.config["dataset"]["preprocess"] == "zca"
    pixels = real.train.pixels(torch.tensor(syn.stored.source)).float() / 255
    assert torch.allclose(syn.images(), pixels, atol=1e-4)
    assert not torch.allclose(syn.inputs(), pixels, atol=0.1)
    record = dd_bench.evaluate(syn, num_networks=1, overrides=FAST[1:])
    assert record.config["dataset"]["preprocess"] == "zca", "the card has the preprocessing"


def test_a_network_of_ones_own(elsewhere):
    syn = dd_bench.distill("dm", "digits", 1, model=Net, overrides=["method.iterations=2"])
    assert syn.card.config["model"]["_choice_"] == "Net"
    wide = functools.partial(Net, width=6)
    record = dd_bench.evaluate(syn, model=wide, num_networks=2, overrides=FAST[2:])
    assert record.config["model"] == {
        "_choice_": "Net",
        "_source_": record.config["model"]["_source_"],
        "width": 6,
    }
    assert record.model.startswith("Net(") and any("another network" in note for note in record.notes)
    with pytest.raises(ValueError, match="Net has no parameter 'depth'"):
        dd_bench.evaluate(syn, model=functools.partial(Net, depth=6))


def test_the_suites_names_stay_the_suites(elsewhere):
    def convnet(num_classes):
        return nn.Sequential(nn.Flatten(), nn.LazyLinear(num_classes))

    dd_bench.run(["method=random", "ipc=1", *FAST])
    other = dd_bench.evaluate(
        elsewhere / "runs" / "sets" / record_set(elsewhere), model=convnet, num_networks=1
    )
    assert other.config["model"]["_choice_"] == f"{__name__}.convnet"


def record_set(folder):
    (found,) = (folder / "runs" / "sets").iterdir()
    return found.name


def test_tensors_of_ones_own(mine, elsewhere):
    assert mine.class_names == ("0", "1", "2") and mine.shape == (1, 8, 8)
    whitened = mine.train.inputs(torch.arange(60))
    assert float(whitened.mean()) == pytest.approx(0, abs=1e-2)
    assert float(whitened.std()) == pytest.approx(1, abs=1e-2)
    syn = dd_bench.distill("kmeans", mine, 2, overrides=["model.width=8"])
    assert syn.card.dataset == "mine" and syn.card.config["dataset"] == {
        "_choice_": "mine",
        "digest": mine.digest,
    }
    record = dd_bench.evaluate(syn, dataset=mine, num_networks=1, overrides=FAST[1:])
    assert record.dataset == "mine" and record.real_digest == mine.digest
    with pytest.raises(
        ValueError,
        match=r"distilled from 'mine', and dataset 'mine' is not shipped .*. Add: dataset=REAL_SET",
    ):
        dd_bench.evaluate(syn)
    with pytest.raises(ValueError, match="cannot be evaluated on this dataset"):
        dd_bench.evaluate(syn, dataset="digits")


@pytest.mark.parametrize(
    ("name", "images", "labels", "message"),
    [
        ("digits", torch.zeros(4, 8, 8, dtype=torch.uint8), torch.zeros(4).long(), "a shipped dataset"),
        (
            "a",
            torch.zeros(4, 8, 8),
            torch.zeros(4).long(),
            r"uint8, got torch.float32. For floats in \[0, 1\]",
        ),
        (
            "a",
            torch.zeros(4, 8, 8, 3, dtype=torch.uint8),
            torch.zeros(4).long(),
            r"images.permute\(0, 3, 1, 2\)",
        ),
        ("a", torch.zeros(4, 8, 8, dtype=torch.uint8), torch.zeros(4), "labels must be integers"),
        ("a", torch.zeros(4, 8, 8, dtype=torch.uint8), torch.zeros(3).long(), "got 4 images and 3 labels"),
    ],
)
def test_tensors_that_are_refused(name, images, labels, message):
    with pytest.raises(ValueError, match=message):
        dd_bench.from_tensors(name, (images, labels), (images, labels))


def test_overrides_of_an_object_are_rejected(mine):
    """Else the record would have a value that was not used."""
    with pytest.raises(
        ValueError, match=r"dataset is a Python object, so the override dataset.preprocess=zca has no"
    ):
        dd_bench.distill("random", mine, 1, overrides=["dataset.preprocess=zca"])
    with pytest.raises(
        ValueError, match=r"model is a Python object, so the override \+model.width=8 has no effect"
    ):
        dd_bench.distill("random", mine, 1, model=Net, overrides=["+model.width=8"])


def test_a_folder_of_ones_own(elsewhere):
    from PIL import Image

    for split in ("train", "val"):
        for label in ("ape", "bee"):
            folder = elsewhere / "it's mine" / split / label
            folder.mkdir(parents=True)
            for i in range(3):
                Image.new("RGB", (10, 12), (90 * i, 30 if label == "ape" else 200, 9)).save(
                    folder / f"{i}.png"
                )
    real = dd_bench.from_folder("it's mine", "dataset.size=8")
    assert real.name == "it_s_mine" and real.class_names == ("ape", "bee") and real.shape == (3, 8, 8)
    syn = dd_bench.distill("random", real, 1)
    assert syn.images().shape == (2, 3, 8, 8)
    assert syn.card.config["dataset"]["root"] is None and str(elsewhere) not in str(syn.card)
    record = dd_bench.evaluate(syn, dataset=real, num_networks=1, overrides=FAST[1:])
    assert record.dataset == "it_s_mine" and str(elsewhere) not in record.model_dump_json()


def test_graphs_are_loaded_and_have_no_images():
    syn = dd_bench.distill("random_graphs", "motifs", 2)
    with pytest.raises(ValueError, match=r"a set of kind 'graphs' has no images. Use \.stored"):
        syn.images()
    assert len(syn.stored.labels) == 2 * len(syn.class_names)


def test_nothing_of_the_caller_is_changed(capsys, monkeypatch):
    from hydra.core.global_hydra import GlobalHydra

    monkeypatch.setattr(sys, "argv", ["notebook", "method=nonsense"])
    root = logging.getLogger()
    before = (list(root.handlers), root.level, GlobalHydra.instance().hydra, Path.cwd())
    dd_bench.run(["method=random", "ipc=1", *FAST], progress=False)
    assert (list(root.handlers), root.level, GlobalHydra.instance().hydra, Path.cwd()) == before
    assert capsys.readouterr().out == ""


def test_it_runs_inside_a_hydra_application():
    from hydra import compose, initialize_config_module

    with initialize_config_module("dd_bench.conf", version_base="1.3"):
        dd_bench.real_set("digits")
        assert compose("config", ["ipc=3"]).ipc == 3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["method=random,dm"], "Make one call for each value"),
        (["method=rnadom"], r"method=rnadom does not exist. Did you mean random"),
        (["ipc=0"], "ipc must be an integer >= 1, got 0"),
        (["method=mirage"], "graph"),
    ],
)
def test_errors_are_those_of_the_command_line(words, message):
    with pytest.raises(ValueError, match=message):
        dd_bench.run(words)


def test_a_bar_in_notebooks(monkeypatch, capsys):
    from dd_bench.runtime import progress

    monkeypatch.setattr(progress, "in_notebook", lambda: True)
    dd_bench.distill("dm", "digits", 1, overrides=["method.iterations=3", "model.width=8"])
    assert "distill:   0%" in capsys.readouterr().err  # later refreshes depend on the time that has passed
    dd_bench.distill("dm", "digits", 1, overrides=["method.iterations=4", "model.width=8"], progress=False)
    assert "distill:" not in capsys.readouterr().err


def test_a_record_is_plain_json(elsewhere):
    record = dd_bench.run(["method=random", "ipc=1", *FAST])
    data = json.loads((elsewhere / "runs" / "records" / f"{record.key}.json").read_text())
    assert data["method"] == "random" and record.summary().num_networks == 2
