"""Every YAML describes itself, composes, and says what its group's schema wants; experiments say what they cost."""

from importlib.resources import files
from pathlib import Path

import pytest
from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.utils import get_object
from omegaconf import OmegaConf

from dd_bench.runtime.runtime import RuntimeConfig
from dd_bench.teachers.teacher_spec import TeacherConfig
from dd_bench.training.protocol import Protocol
from dd_bench.training.recipe import parse

CONF = Path(str(files("dd_bench.conf")))
GROUPS = ("method", "dataset", "model", "evaluator", "protocol", "teacher", "runtime", "logger")
CHOICES = [p for group in GROUPS for p in sorted((CONF / group).glob("*.yaml"))]
EXPERIMENTS = sorted((CONF / "experiment").rglob("*.yaml"))


def name(path: Path) -> str:
    return f"{path.parent.name}={path.stem}"


@pytest.fixture(scope="module")
def composed():
    GlobalHydra.instance().clear()
    with initialize_config_module("dd_bench.conf", version_base="1.3"):
        yield lambda *overrides: compose("config", overrides=list(overrides))
    GlobalHydra.instance().clear()


def test_there_is_something_in_each_group():
    assert {p.parent.name for p in CHOICES} == set(GROUPS)
    groups = {p.name for p in CONF.iterdir() if p.is_dir() and not p.name.startswith("__")}
    assert groups - {"experiment", "hydra"} == set(GROUPS), "a group that this test does not know"


@pytest.mark.parametrize("path", CHOICES, ids=name)
def test_describes_itself(path):
    first = next(line for line in path.read_text().splitlines() if not line.startswith("# @package"))
    assert first.startswith("# ") and len(first) > 15, "`dd-bench list` shows the first line"
    assert path.read_text().endswith("\n") and "\t" not in path.read_text()


@pytest.mark.parametrize("path", CHOICES, ids=name)
def test_composes(path, composed):
    cfg = composed(f"{path.parent.name}={path.stem}")
    assert not OmegaConf.missing_keys(cfg)
    if path.parent.name == "teacher":
        return  # several are composed side by side, see below
    part = OmegaConf.to_container(cfg[path.parent.name], resolve=True)
    said = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    for choice in said.pop("defaults", []):
        if choice == "_self_":
            continue
        (where, chosen), *_ = choice.items()
        group, _, place = where.removeprefix("override ").removeprefix("/").partition("@")
        wanted = OmegaConf.to_container(composed(f"{group}={chosen}")[group], resolve=True)
        if place.startswith("_global_"):  # what a dataset of graphs brings along
            assert cfg[group] == wanted
        else:  # what is put inside, as other networks are
            inner, _, key = place.rpartition(".")
            assert (part if key else {}).get(inner, part).pop(key) == wanted
            if not part.get(inner, True):
                del part[inner]
    assert part == said, "no defaults in two places"
    if "_target_" in part:
        assert callable(get_object(part["_target_"]))


@pytest.mark.parametrize("path", [p for p in CHOICES if p.parent.name == "teacher"], ids=name)
def test_teachers_are_valid_and_stand_side_by_side(path, composed):
    cfg = composed(f"teacher=[{path.stem},convnet_bn]") if path.stem != "convnet_bn" else composed()
    values = OmegaConf.to_container(cfg.teachers[path.stem], resolve=True)
    assert "convnet_bn" in cfg.teachers
    model = values.pop("model")
    assert callable(get_object(model["_target_"])) and model["_partial_"]
    config = parse(TeacherConfig, values, f"teachers.{path.stem}")
    assert (config.recipe is None) == (config.weights == "pretrained")


@pytest.mark.parametrize("path", [p for p in CHOICES if p.parent.name == "protocol"], ids=name)
def test_protocols_are_valid_and_named_after_their_file(path):
    values = OmegaConf.to_container(OmegaConf.load(path))
    brought = values.pop("defaults", [])
    protocol = parse(Protocol, values, "protocol")
    assert ("override /evaluator@_global_.evaluator" in str(brought)) == (protocol.labels is not None), (
        "where labels are told, random images are told them too"
    )
    assert protocol.name == path.stem
    assert all(0 < m < protocol.recipe.epochs for m in protocol.recipe.milestones)


@pytest.mark.parametrize(
    "twin", [p for p in CHOICES if p.stem.endswith(("-hard", "-static", "-replay"))], ids=name
)
def test_a_twin_differs_in_who_tells_the_answers_and_nothing_else(twin):
    """Else a table would compare recipes and call them labels."""
    stem, _, kind = twin.stem.rpartition("-")
    ours, theirs = (OmegaConf.to_container(OmegaConf.load(p)) for p in (twin, twin.with_name(f"{stem}.yaml")))
    assert (ours.pop("name"), ours["labels"].pop("kind")) == (twin.stem, kind)
    assert (theirs.pop("name"), theirs["labels"].pop("kind") != kind) == (stem, True)
    assert ours == theirs


def test_published_protocols_are_what_they_were():
    """Their numbers are compared with papers: whoever changes one adds a new name or version."""
    by_name = {p.stem: OmegaConf.load(p) for p in CHOICES if p.parent.name == "protocol"}
    steps = {
        n: (p.recipe.epochs, list(p.recipe.milestones), p.recipe.reset_optimizer) for n, p in by_name.items()
    }
    assert steps["dc-300"] == (301, [152], True)
    assert steps["dsa-1000"] == steps["mtt-1000"] == (1001, [502], True)
    for p in (by_name[n] for n in ("dc-300", "dsa-1000", "mtt-1000")):
        r = p.recipe
        assert (p.version, p.selection) == (1, "last")
        assert (r.optimizer, r.lr, r.momentum, r.weight_decay, r.batch_size, r.gamma) == (
            "sgd",
            0.01,
            0.9,
            5e-4,
            256,
            0.1,
        )
    assert by_name["dc-300"].recipe.augment == "none"
    for n in ("dsa-1000", "mtt-1000"):
        assert by_name[n].recipe.augment == "color_crop_cutout_flip_scale_rotate"
        assert by_name[n].recipe.align_corners is (n == "mtt-1000")


@pytest.mark.parametrize("path", [p for p in CHOICES if p.parent.name == "runtime"], ids=name)
def test_runtimes_are_valid(path):
    parse(RuntimeConfig, OmegaConf.to_container(OmegaConf.load(path)), "runtime")


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda p: p.stem)
def test_experiments_say_what_they_cost_and_gave(path, composed):
    lines = path.read_text().splitlines()
    header = "\n".join(line for line in lines if line.startswith("#")).lower()
    assert lines[0].startswith("# ")
    for word in ("command", "cost", "published", "measured"):
        assert word in header, f"the header of {path.name} has no {word!r}"
    choice = path.relative_to(CONF / "experiment").with_suffix("").as_posix()
    cfg = composed(f"experiment={choice}")
    assert not OmegaConf.missing_keys(cfg)
    parse(Protocol, OmegaConf.to_container(cfg.protocol, resolve=True), "protocol")
    assert "experiment" not in cfg, "`# @package _global_` is missing"
    assert f"experiment={choice}" in header, "the command of the header is of another experiment"


def test_the_root_says_what_each_key_is():
    lines = (CONF / "config.yaml").read_text().split("hydra:\n")[0].splitlines()
    keys = [line for line in lines if ":" in line and not line.startswith(("#", "defaults"))]
    assert len(keys) > 10 and all("#" in line for line in keys)
