"""Conformance of the configuration files: descriptions, composition, schemas and headers of experiments."""

import re
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf, open_dict

from dd_bench.records.config_diff import changed_keys, leaves, shipped_config, shipped_target, shipped_yaml
from dd_bench.records.identity import identify
from dd_bench.runtime.runtime import RuntimeConfig
from dd_bench.synthetic.precision import PRECISION_KEYS
from dd_bench.teachers.teacher_spec import TeacherConfig
from dd_bench.training.label_recipe import check_used
from dd_bench.training.protocol import Protocol
from dd_bench.training.recipe import parse

CONF = Path(str(files("dd_bench.conf")))
GROUPS = ("method", "dataset", "model", "evaluator", "protocol", "teacher", "runtime", "logger")
CHOICES = [p for group in GROUPS for p in sorted((CONF / group).glob("*.yaml"))]
EXPERIMENTS = sorted((CONF / "experiment").rglob("*.yaml"))


def name(path: Path) -> str:
    return f"{path.parent.name}={path.stem}"


class Composed(NamedTuple):
    """A configuration as composed by Hydra, and as stored in records."""

    cfg: DictConfig
    named: dict[str, Any]


def to_dict(config: DictConfig) -> dict[str, Any]:
    return OmegaConf.to_container(config, resolve=True)


@pytest.fixture(scope="module")
def composed():
    GlobalHydra.instance().clear()

    def composed(*overrides: str) -> Composed:
        cfg = compose("config", list(overrides), return_hydra_config=True)
        choices = cfg.hydra.runtime.choices
        with open_dict(cfg):
            del cfg["hydra"]
        return Composed(cfg, identify(to_dict(cfg), choices))

    with initialize_config_module("dd_bench.conf", version_base="1.3"):
        yield composed
    GlobalHydra.instance().clear()


def test_groups_are_complete():
    assert {p.parent.name for p in CHOICES} == set(GROUPS)
    groups = {p.name for p in CONF.iterdir() if p.is_dir() and not p.name.startswith("__")}
    assert groups - {"experiment", "hydra"} == set(GROUPS), "add the new group to GROUPS"


@pytest.mark.parametrize("path", CHOICES, ids=name)
def test_first_line_is_a_description(path):
    first = next(line for line in path.read_text().splitlines() if not line.startswith("# @package"))
    assert first.startswith("# ") and len(first) > 15, "`dd-bench list` prints the first line"
    assert path.read_text().endswith("\n") and "\t" not in path.read_text()


@pytest.mark.parametrize("path", CHOICES, ids=name)
def test_composes(path, composed):
    """Hydra's result equals that of `shipped_yaml`, which does not use Hydra, including choices of other groups."""
    group = path.parent.name
    cfg, named = composed(f"{group}={path.stem}")
    assert not OmegaConf.missing_keys(cfg)
    if group == "teacher":
        assert named["teachers"][path.stem] == shipped_config(group, path.stem)
        return  # several teachers can be combined, see below
    if group == "logger":  # the logger is not part of a result
        assert to_dict(cfg.logger) == shipped_yaml(group, path.stem) and "_target_" not in str(
            named["logger"]
        )
    else:
        of_every_method = dict.fromkeys(PRECISION_KEYS) if group == "method" else {}
        assert named[group] == shipped_config(group, path.stem) | of_every_method
    assert shipped_target(group, path.stem) == cfg[group].get("_target_")
    for choice in OmegaConf.load(path).get("defaults", []):
        for where, chosen in dict(choice).items() if OmegaConf.is_dict(choice) else ():
            other, _, place = where.removeprefix("override ").removeprefix("/").partition("@")
            if place.startswith("_global_"):  # for example, a graph dataset selects its network
                assert named[other] == shipped_config(other, chosen)
    if "_target_" in cfg[group]:
        assert callable(get_object(cfg[group]._target_))


@pytest.mark.parametrize("path", CHOICES + EXPERIMENTS, ids=name)
def test_derived_file_repeats_no_value_of_its_base(path):
    group = path.relative_to(CONF).parts[0]
    own = OmegaConf.to_container(OmegaConf.load(path))
    bases = [
        c.removesuffix("@_here_") for c in own.pop("defaults", []) if isinstance(c, str) and c != "_self_"
    ]
    for base in bases:
        inherited = dict(leaves(shipped_config(group, base)))
        repeated = {k: v for k, v in leaves(own) if k in inherited and inherited[k] == v}
        assert repeated == {}, f"already in {base}.yaml"


@pytest.mark.parametrize("path", [p for p in CHOICES if p.parent.name == "teacher"], ids=name)
def test_teachers_are_valid_and_can_be_combined(path, composed):
    cfg, _ = composed(f"teacher=[{path.stem},convnet_bn]") if path.stem != "convnet_bn" else composed()
    values = OmegaConf.to_container(cfg.teachers[path.stem], resolve=True)
    assert "convnet_bn" in cfg.teachers
    model = values.pop("model")
    assert callable(get_object(model["_target_"])) and model["_partial_"]
    config = parse(TeacherConfig, values, f"teachers.{path.stem}")
    assert (config.recipe is None) == (config.weights == "pretrained")


@pytest.mark.parametrize("path", [p for p in CHOICES if p.parent.name == "protocol"], ids=name)
def test_protocols_are_valid(path, composed):
    protocol = parse(Protocol, shipped_config("protocol", path.stem), "protocol")
    # protocols with teacher labels require controls with the same labels
    evaluator = "controls" if protocol.labels else "linear_probe" if protocol.probe else "accuracy"
    assert composed(f"protocol={path.stem}").named["evaluator"] == shipped_config("evaluator", evaluator)
    assert protocol.name == path.stem
    assert all(0 < m < protocol.recipe.epochs for m in protocol.recipe.milestones)


@pytest.mark.parametrize(
    "twin", [p for p in CHOICES if p.stem.endswith(("-hard", "-static", "-replay"))], ids=name
)
def test_label_variants_of_a_protocol_differ_in_the_labels_only(twin):
    """Otherwise a table of label kinds would also compare recipes."""
    base, _, kind = twin.stem.rpartition("-")
    assert changed_keys("protocol", base, shipped_config("protocol", twin.stem)) == [
        f"labels.kind={kind}",
        f"name={twin.stem}",
    ]


def test_published_protocols_are_unchanged():
    """Their numbers are compared with papers. A changed protocol needs a new name or version."""
    by_name = {
        n: Protocol.model_validate(shipped_config("protocol", n)) for n in ("dc-300", "dsa-1000", "mtt-1000")
    }
    steps = {n: (p.recipe.epochs, p.recipe.milestones, p.recipe.reset_optimizer) for n, p in by_name.items()}
    assert steps["dc-300"] == (301, (152,), True)
    assert steps["dsa-1000"] == steps["mtt-1000"] == (1001, (502,), True)
    for p in by_name.values():
        r = p.recipe
        assert (p.version, p.selection) == (1, "last")
        assert (r.optimizer, r.lr, r.momentum, r.weight_decay) == ("sgd", 0.01, 0.9, 5e-4)
        assert (r.batch_size, r.gamma) == (256, 0.1)
    assert by_name["dc-300"].recipe.augment == "none"
    for n in ("dsa-1000", "mtt-1000"):
        assert by_name[n].recipe.augment == "color_crop_cutout_flip_scale_rotate"
        assert by_name[n].recipe.align_corners is by_name[n].learned_lr is (n == "mtt-1000")


@pytest.mark.parametrize("path", [p for p in CHOICES if p.parent.name == "runtime"], ids=name)
def test_runtimes_are_valid(path):
    parse(RuntimeConfig, OmegaConf.to_container(OmegaConf.load(path)), "runtime")


def experiment_parameters(paths: list[Path]) -> Iterator[Any]:
    """Mark the experiments of papers as slow: there are many of them, and CI runs the slow tests of this folder too."""
    for path in paths:
        slow = pytest.mark.slow if "paper" in path.parts else ()
        yield pytest.param(path, marks=slow, id=str(path.relative_to(CONF / "experiment")))


@pytest.mark.parametrize("path", experiment_parameters(EXPERIMENTS))
def test_experiments_compose_and_have_a_complete_header(path, composed):
    lines = path.read_text().splitlines()
    text = "\n".join(line for line in lines if line.startswith("#"))
    header = text.lower()
    assert lines[0].startswith("# ")
    for word in ("command", "cost", "published", "measured"):
        assert word in header, f"the header of {path.name} has no {word!r}"
    choice = path.relative_to(CONF / "experiment").with_suffix("").as_posix()
    cfg, named = composed(f"experiment={choice}")
    assert not OmegaConf.missing_keys(cfg)
    protocol = parse(Protocol, to_dict(cfg.protocol), "protocol")
    if protocol.labels is not None:
        check_used(protocol.labels, shipped_config("protocol", protocol.name)["labels"])
    own, composed_values = dict(leaves(shipped_config("experiment", choice))), dict(leaves(named))
    assert own and own == {key: composed_values.get(key) for key in own}
    assert "experiment" not in cfg, "`# @package _global_` is missing"
    assert re.search(rf"experiment={choice}(?!\S)", text), "the header has the command of another experiment"
    never_run = re.search("# measured +not run here", header) is not None
    assert never_run == choice.startswith("paper/"), "paper/ contains exactly the experiments never run here"
    if never_run:
        dataset = cfg.dataset.get("name", named["dataset"]["_choice_"]).removesuffix("_64")
        dataset = dataset.replace("imagenette", "imagenet10")
        labels = cfg.protocol.name.rpartition("-")[0].replace("-", "_")
        names = (f"{named['method']['_choice_']}{part}_ipc{cfg.ipc}" for part in ("", f"_{labels}"))
        assert choice in {f"paper/{dataset}/{name}" for name in names}


def test_every_root_key_has_a_comment():
    lines = (CONF / "config.yaml").read_text().split("hydra:\n")[0].splitlines()
    keys = [line for line in lines if ":" in line and not line.startswith(("#", "defaults"))]
    assert len(keys) > 10 and all("#" in line for line in keys)
