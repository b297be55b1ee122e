"""Conformance of `conf/dataset/*.yaml`: descriptions, and keys that are exactly the arguments of the target."""

import inspect
from importlib.resources import files
from pathlib import Path

import pytest
import torch
from hydra.utils import get_method, instantiate

from dd_bench.data.class_subset import ClassSubset
from dd_bench.data.shifts import Shifts
from dd_bench.records.config_diff import shipped_yaml

FILES = sorted(Path(str(files("dd_bench.conf"))).glob("dataset/*.yaml"))
SUBSETS = ["imagefruit", "imagemeow", "imagenette", "imagesquawk", "imagewoof", "imageyellow"]


def test_shipped_datasets():
    shipped = {f.stem for f in FILES}
    assert {"digits", "fashion_mnist", "mnist", "svhn", "cifar10", "cifar100", "tiny_imagenet"} <= shipped
    assert {"image_folder", *SUBSETS} <= shipped


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
def test_keys_are_the_arguments_of_the_target(file):
    config = dict(shipped_yaml("dataset", file.stem))
    Shifts.take_from(config)
    assert config.pop("_partial_") is True
    function = get_method(config.pop("_target_"))
    arguments = inspect.signature(function).parameters
    if "classes" not in arguments and "classes" in config:  # images without class folders
        assert ClassSubset.take_from(config) == ClassSubset()
    assert all(a.kind is a.KEYWORD_ONLY and a.default is a.empty for a in arguments.values())
    assert set(config) == set(arguments) - {"device"}, "the YAML must contain every argument"
    first = file.read_text().splitlines()[0]
    assert first.startswith("# ") and len(first) > 20, "`dd-bench list` prints the first line"


def test_instantiation():
    config = dict(shipped_yaml("dataset", "digits"))
    assert Shifts.take_from(config) == Shifts(), "the shipped values change no data"
    assert ClassSubset.take_from(config) == ClassSubset(), "the shipped values select all classes"
    real = instantiate(config)(device=torch.device("cpu"))
    assert real.name == "digits" and real.licence and real.citation


@pytest.mark.parametrize("name", ["imagenette_224", "imagewoof_224", "imageidc", "imagenet100"])
def test_imagenet_subsets_of_generative_methods(name):
    config, small = shipped_yaml("dataset", name), shipped_yaml("dataset", name.removesuffix("_224"))
    assert (config["name"], config["size"], config["resize"], config["stream"]) == (name, 224, "crop", True)
    assert config["classes"] == small["classes"] and len(set(config["classes"])) == (
        100 if name == "imagenet100" else 10
    )


def test_imageidc_is_the_first_tenth_of_imagenet100():
    """IDC takes the first 10 classes of the list of ImageNet-100. The numbers are ImageNet's class indices."""
    from timm.data import ImageNetInfo

    folders = sorted(ImageNetInfo().label_names())
    classes = shipped_yaml("dataset", "imagenet100")["classes"]
    assert set(classes) <= set(folders)
    assert shipped_yaml("dataset", "imageidc")["classes"] == classes[:10]
    assert classes[:10] == [folders[i] for i in (452, 64, 374, 236, 993, 176, 882, 904, 503, 74)]


@pytest.mark.parametrize("name", SUBSETS)
def test_imagenet_subsets(name):
    """The folder names correspond to MTT's class indices in the sorted list of all ImageNet folders."""
    from timm.data import ImageNetInfo

    indices = {
        "imagenette": [0, 217, 482, 491, 497, 566, 569, 571, 574, 701],
        "imagewoof": [193, 182, 258, 162, 155, 167, 159, 273, 207, 229],
        "imagemeow": [281, 282, 283, 284, 285, 291, 292, 290, 289, 287],
        "imagesquawk": [84, 130, 88, 144, 145, 22, 96, 9, 100, 89],
        "imagefruit": [953, 954, 949, 950, 951, 957, 952, 945, 943, 948],
        "imageyellow": [309, 986, 954, 951, 987, 779, 599, 291, 72, 11],
    }[name]
    config = shipped_yaml("dataset", name)
    folders = sorted(ImageNetInfo().label_names())
    assert config["classes"] == [folders[i] for i in indices]
    assert (config["name"], config["size"], config["resize"]) == (name, 128, "squash")
