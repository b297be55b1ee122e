"""The example package of docs/contributing: its own tests, the commands of its README, and its installation."""

import hashlib
import importlib.util
import re
import shlex
import shutil
import site
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from dd_bench.data.preprocess import Normalise
from dd_bench.records.record import load_record
from dd_bench.synthetic.storage import load

EXAMPLE = Path(__file__).resolve().parents[2] / "docs" / "contributing" / "example_plugin"
PACKAGE = EXAMPLE / "example_plugin"
SHORT = ["evaluator.num_networks=2", "protocol.recipe.epochs=10"]

sys.path.insert(0, str(EXAMPLE))  # instead of installing it
_spec = importlib.util.spec_from_file_location("tests_of_the_example", EXAMPLE / "tests" / "test_example.py")
_module = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_module)
globals().update({name: value for name, value in vars(_module).items() if name.startswith("test_")})


def commands() -> list[list[str]]:
    """Return the arguments of the `dd-bench` lines of the README."""
    return [
        shlex.split(line)
        for line in re.findall(r"^    dd-bench (.*)$", (EXAMPLE / "README.md").read_text(), re.MULTILINE)
    ]


def source(name: str) -> str:
    return hashlib.sha256((PACKAGE / f"{name}.py").read_bytes()).hexdigest()[:16]


@pytest.mark.slow
def test_commands_of_its_readme(dd_bench, tmp_path):
    _, sweep, add, build, evaluate = commands()  # the first run is one of the sweep's
    done = dd_bench(*sweep, *SHORT)
    assert done.code == 0, done.text
    records = [load_record(p) for p in (tmp_path / "runs" / "records").glob("*.json")]
    assert {(r.method, r.ipc) for r in records} == {(m, n) for m in ("random", "group_means") for n in (1, 5)}
    for record in records:
        assert record.status == "done" and record.dataset == "shapes" and len(record.scores) == 2
        assert record.model == f"small_net(source={source('small_net')}, width=16)"
        assert record.config["dataset"]["_source_"] == source("shapes")
        if record.method == "group_means":
            assert record.config["method"]["_source_"] == source("group_means")
    sets = {path.name.rpartition("-")[0]: path for path in (tmp_path / "runs" / "sets").iterdir()}
    syn, card = load(sets["group_means-shapes-ipc5"])
    inputs, labels = syn.materialise(_module.torch.device("cpu"))
    assert inputs.shape == (20, 1, 16, 16) and labels.bincount().tolist() == [5] * 4
    assert card.class_names == ["disc", "square", "triangle", "cross"] and card.licence == "CC0-1.0"
    assert isinstance(syn.preprocess, Normalise)

    expanded = [str(p) for p in sorted(tmp_path.glob("runs/records/*.json"))]
    done = dd_bench(*(word for a in add for word in (expanded if "*" in a else [a])))
    assert done.code == 0 and len(list((tmp_path / "board" / "entries").rglob("*.json"))) == 4, done.text
    assert dd_bench(*build).code == 0
    (table,) = (tmp_path / "board" / "tables" / "shapes").glob("*.md")
    rows = re.findall(r"^\| (\w+) +\| +[*≈ ]*(\d+\.\d)", table.read_text(), re.MULTILINE)
    mean = {(r.method, r.ipc): 100 * r.summary().mean for r in records}
    assert dict(rows[:2]) == {m: f"{mean[m, 1]:.1f}" for m in ("random", "group_means")}

    folder = sets["group_means-shapes-ipc1"]
    done = dd_bench(*(word.replace("FOLDER", str(folder)) for word in evaluate), *SHORT)
    assert done.code == 0 and "group_means on shapes, ipc=1, quick" in done.text, done.text


def test_group_means_beat_random_images(tmp_path, monkeypatch):
    """Else the example would show how to write a method that does not work."""
    monkeypatch.chdir(tmp_path)
    words = [_module.SEARCHPATH, "dataset=shapes", "model=small_net", "ipc=1", "evaluator.num_networks=2"]
    ours, random = (
        _module.dd_bench.run([f"method={m}", *words]).summary().mean for m in ("group_means", "random")
    )
    assert ours > random + 0.1


@pytest.mark.slow
def test_it_installs(tmp_path):
    """Install a copy into a virtual environment that sees the packages of this one, and run its tests there."""
    copy = shutil.copytree(
        EXAMPLE, tmp_path / "copy", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info")
    )
    venv.create(tmp_path / "venv", with_pip=False)
    (installed,) = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    parents = [p for p in site.getsitepackages() if p.endswith("site-packages")]
    (installed / "parent.pth").write_text("".join(f"import site; site.addsitedir({p!r})\n" for p in parents))
    python = tmp_path / "venv" / "bin" / "python"
    install = [python, "-m", "pip", "install", "--no-deps", "--no-build-isolation", copy]
    subprocess.run(install, check=True, capture_output=True)
    yamls = {p.relative_to(PACKAGE) for p in PACKAGE.rglob("*.yaml")}
    assert len(yamls) == 3
    assert {
        p.relative_to(installed / "example_plugin") for p in installed.glob("example_plugin/**/*.yaml")
    } == yamls
    shutil.rmtree(copy / "example_plugin")  # so that the tests import the installed package
    done = subprocess.run([python, "-m", "pytest", "-q", "tests"], cwd=copy, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_page_shows_every_file():
    """The build includes them, so the code of page and package cannot differ."""
    page = (EXAMPLE.parent / "package.md").read_text()
    files = [
        p for p in EXAMPLE.rglob("*.*") if p.suffix in (".py", ".yaml", ".toml") and p.name != "__init__.py"
    ]
    included = set(
        re.findall(r"docs/contributing/example_plugin/([\w/]+\.(?:py|yaml|toml))\"?$", page, re.MULTILINE)
    )
    assert included == {p.relative_to(EXAMPLE).as_posix() for p in files if "build" not in p.parts}
