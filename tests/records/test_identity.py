"""Parts of a run are identified by names and not by Python paths, so plug-in files can be moved."""

import json
import linecache
import shutil
from pathlib import Path

import pytest

from dd_bench.records.identity import identify, plugin_source

ROOT = Path(__file__).resolve().parents[2]
CHOICES = {
    "method": "ftd",
    "model": "convnet",
    "dataset": "digits",
    "model@teachers.a.model": "resnet18",
    "protocol": "quick",
    "logger": "console",
}


def config(**changes):
    return {
        "method": {"_target_": "dd_bench.methods.ftd.FTD", "ema": 0.9, "window": {"first": 0}},
        "model": {"_target_": "dd_bench.models.convnet.ConvNet", "_partial_": True, "width": 8},
        "teachers": {
            "a": {"model": {"_target_": "dd_bench.models.resnet.ResNet18", "norm": "x"}, "epoch": 1}
        },
        "protocol": {"name": "quick", "labels": None},
        "logger": {
            "_target_": "dd_bench.runtime.loggers.MultiLogger",
            "loggers": [{"_target_": "a.B", "x": 1}],
        },
        "ipc": 1,
    } | changes


class TestIdentify:
    def test_names_replace_targets(self):
        original = config()
        original["teachers"]["a"]["model"]["_target_"] = json.loads(
            json.dumps(target_of("model", "resnet18"))
        )
        identified = identify(original, CHOICES)
        assert identified["method"] == {"_choice_": "ftd", "ema": 0.9, "window": {"first": 0}}
        assert identified["model"] == {"_choice_": "convnet", "width": 8}
        assert identified["teachers"]["a"] == {"model": {"_choice_": "resnet18", "norm": "x"}, "epoch": 1}
        assert identified["protocol"] == original["protocol"] and identified["ipc"] == 1
        assert identified["logger"] == {"loggers": [{"x": 1}]}
        assert "_target_" not in json.dumps(identified) and "dd_bench." not in json.dumps(identified)

    def test_shipped_name_with_another_target_is_refused(self):
        with pytest.raises(
            ValueError,
            match=r"the target in the shipped conf/method/ftd\.yaml.* Use a YAML file with another name",
        ):
            identify(config(method={"_target_": "dd_bench.methods.dm.DM"}), CHOICES)

    def test_target_without_a_choice_is_refused(self):
        with pytest.raises(ValueError, match=r"must be selected by .* \+model@teachers\.b\.model=convnet"):
            identify({"teachers": {"b": {"model": {"_target_": "x.Y"}}}}, CHOICES)

    def test_external_plugin_is_identified_by_its_source(self, tmp_path, monkeypatch):
        monkeypatch.syspath_prepend(tmp_path)
        keys = []
        for name, text in (
            ("one", "class Mine: pass\n"),
            ("two", "class Mine: pass\n"),
            ("three", "class Mine: x = 1\n"),
        ):
            (tmp_path / f"plugin_{name}.py").write_text(text)
            method = {"_target_": f"plugin_{name}.Mine", "x": 1}
            keys.append(identify({"method": method}, {"method": "mine"})["method"])
        assert keys[0] == keys[1], "the module name does not matter"
        assert keys[0]["_source_"] != keys[2]["_source_"] and keys[0]["_choice_"] == "mine"

    def test_class_of_a_notebook_is_identified_by_its_cell(self):
        """`inspect.getsource` does not find it. An edited class must not get the record of its old version."""

        def source(number, text):
            name, names = f"<cell {number}>", {"__name__": "a_notebook"}
            linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
            exec(compile(text, name, "exec"), names)
            return plugin_source(names["Net"])

        text = "class Net:\n    def width(self): return 8\n"
        first, same, edited = source(1, text), source(2, text), source(3, text.replace("8", "16"))
        assert first == same != edited and len(first["_source_"]) == 16

    def test_shipped_classes_have_no_source(self):
        from dd_bench.methods.ftd import FTD

        assert plugin_source(FTD) == {}


def target_of(group, name):
    from dd_bench.records.config_diff import shipped_target

    return shipped_target(group, name)


MOVED = """
import sys
for name in [name for name in sys.modules if name.partition(".")[0] == "dd_bench"]:
    del sys.modules[name]  # imported by the fork server
sys.meta_path[:] = [f for f in sys.meta_path if "__editable__" not in repr(f)]
sys.path.insert(0, site)
from pathlib import Path
from dd_bench.leaderboards.cli import main
from dd_bench.pipeline.compose import RunConfig, compose
import dd_bench
assert Path(dd_bench.__file__).is_relative_to(site)
overrides = ["method=random", "model.width=8", f"out={site}/runs", "runtime=plain"]
run = compose(RunConfig.of(overrides))
print(run.set_key(0), run.record_key([run.set_key(0)]), run.architecture.describe())
folders = ["--entries", f"{site}/entries", "--sets", f"{site}/sets"]
assert main(["add", entry, "--no-baseline", *folders]) == 0
"""


def test_moving_and_renaming_plugins_does_not_change_keys(tmp_path, fork):
    """After a method, network, dataset and evaluator are moved, a committed entry is still accepted."""
    from dd_bench.pipeline.compose import RunConfig, compose

    entry = min((ROOT / "leaderboards" / "entries" / "digits").glob("digits-random-ipc1-*.json"))
    site = tmp_path / "moved"
    package = site / "dd_bench"
    skip = shutil.ignore_patterns("__pycache__", "entries", "sets", "tables", "plots", "verified")
    shutil.copytree(ROOT / "dd_bench", package, ignore=skip)
    for name in ("conf", "methods", "evaluators", "leaderboards"):
        shutil.copytree(ROOT / name, package / name, ignore=skip)
    for old, new, yaml in (
        ("methods/random_selection.py", "methods/other/drawn.py", "method/random.yaml"),
        ("models/convnet.py", "models/nets.py", "model/convnet.yaml"),
        ("data/digits.py", "data/numerals.py", "dataset/digits.yaml"),
        ("evaluators/accuracy.py", "evaluators/test_score.py", "evaluator/accuracy.yaml"),
    ):
        _move(package, old, new, package / "conf" / yaml)
    process = fork(MOVED, site=str(site), entry=str(entry))
    assert process.wait(timeout=120) == 0, (tmp_path / "printed.txt").read_text()
    run = compose(RunConfig.of(["method=random", "model.width=8", "runtime=plain"]))
    expected = [run.set_key(0), run.record_key([run.set_key(0)]), run.architecture.describe()]
    printed = (tmp_path / "printed.txt").read_text().splitlines()
    assert printed[0] == " ".join(map(str, expected)) and len(expected[0]) == 16


def _move(package, old, new, yaml):
    (package / new).parent.mkdir(exist_ok=True)
    (package / new).parent.joinpath("__init__.py").touch()
    before, after = (p.removesuffix(".py").replace("/", ".") for p in (old, new))
    (package / old).rename(package / new)
    for path in [*package.rglob("*.py"), yaml]:  # its imports, and the `_target_` of its YAML file
        text = before_text = path.read_text()
        text = text.replace(f"dd_bench.{before}", f"dd_bench.{after}")
        if path.parent == (package / old).parent:
            text = text.replace(
                f"from .{before.rpartition('.')[2]} import", f"from .{after.rpartition('.')[2]} import"
            )
        if text != before_text:
            path.write_text(text)
