"""Tests of the repository layout: packaging, import rules and length of modules."""

import ast
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest

from dd_bench.records.config_diff import shipped_target

ROOT = Path(__file__).resolve().parents[2]
PLUGINS = ("methods", "evaluators", "leaderboards")
PACKAGES = ("dd_bench", "conf", *PLUGINS)
MODULES = [p for package in PACKAGES for p in sorted((ROOT / package).rglob("*.py"))]
CORE = sorted((ROOT / "dd_bench").rglob("*.py"))
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]


@cache
def nodes(path: Path) -> list[ast.AST]:
    """All nodes of the syntax tree of a file, parsed once per session."""
    return list(ast.walk(ast.parse(path.read_text())))


def check_all(paths: Iterable[Path], violations: Callable[[Path], Iterable[str]]) -> None:
    """Fail if a file violates a rule, with the violations of all files."""
    found = [f"{dotted(path)}: {violation}" for path in paths for violation in violations(path)]
    assert not found, "\n" + "\n".join(found)


@cache
def imports(path: Path) -> list[tuple[str, ast.stmt]]:
    """The absolute name of every module (or `module.name`) that a file imports, including nested imports."""
    return list(_imports(path))


def _imports(path: Path) -> Iterator[tuple[str, ast.stmt]]:
    package = dotted(path).rpartition(".")[0]
    for node in nodes(path):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join(
                    filter(None, [*package.split(".")[: len(package.split(".")) - node.level + 1], base])
                )
            yield from ((f"{base}.{alias.name}", node) for alias in node.names)


def dotted(path: Path) -> str:
    """The module name: `methods/dm.py` is `dd_bench.methods.dm`, a package is `dd_bench.methods.__init__`."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts if parts[0] == "dd_bench" else ("dd_bench", *parts))


def test_every_package_is_listed():
    """An unlisted package would be missing from the wheel without a warning."""
    on_disk = set()
    for package in PACKAGES:
        on_disk |= {dotted(p).removesuffix(".__init__") for p in (ROOT / package).rglob("__init__.py")}
    assert set(SETTINGS["packages"]) == on_disk
    folders = {p.parent for p in MODULES}
    assert all((f / "__init__.py").exists() for f in folders), "a package has no __init__.py"
    assert {v for v in SETTINGS["package-dir"].values()} == set(PACKAGES)


def test_tests_have_no_init():
    assert not list((ROOT / "tests").rglob("__init__.py"))


def test_core_does_not_import_plugins():
    plugins = tuple(f"dd_bench.{p}" for p in PLUGINS)
    check_all(CORE, lambda path: (f"imports {n}" for n, _ in imports(path) if n.startswith(plugins)))


def test_core_does_not_name_methods():
    """The core must not compare with a method's name; docstrings may contain it.

    'random' and 'full' are also English words, 'dsa' is also an augmentation, 'forgetting' is also a metric, and
    'neighbours' also a key of a dataset.
    """
    other = {"random", "full", "dsa", "forgetting", "neighbours"}
    methods = {p.stem for p in (ROOT / "conf" / "method").glob("*.yaml")} - other
    assert len(methods) > 20

    def named(path: Path) -> Iterator[str]:
        for n in nodes(path):
            if isinstance(n, ast.Constant) and isinstance(n.value, str) and n.value in methods:
                yield f"line {n.lineno} names {n.value}"

    check_all(CORE, named)


def test_methods_import_only_base_classes_and_helpers():
    def forbidden_imports(path: Path) -> Iterator[str]:
        classes = [n for n in nodes(path) if isinstance(n, ast.ClassDef)]
        bases = {b.id for n in classes for b in n.bases if isinstance(b, ast.Name)}
        for name, _ in imports(path):
            if name.startswith(("dd_bench.evaluators", "dd_bench.leaderboards", "methods", "evaluators")):
                yield f"imports {name}"
            if name.startswith("dd_bench.methods."):
                module, *_, what = name.split(".")[2:]
                if not module.startswith("_") and what not in bases:
                    yield f"imports {what} of {module}, which is not a base class"

    check_all([p for p in MODULES if p.parent.name == "methods"], forbidden_imports)


def test_method_modules_are_the_targets_of_their_configurations():
    """Modules with a leading underscore are helpers."""
    files = (ROOT / "conf" / "method").glob("*.yaml")
    targets = {str(shipped_target("method", file.stem)).rpartition(".")[0] for file in files}
    assert {dotted(p) for p in (ROOT / "methods").glob("*.py") if not p.name.startswith("_")} == targets


@pytest.mark.parametrize("package", ["evaluators", "leaderboards"])
def test_evaluators_and_leaderboards_do_not_import_methods(package):
    forbidden = ("dd_bench.methods", "methods")
    check_all(
        sorted((ROOT / package).rglob("*.py")),
        lambda path: (f"imports {name}" for name, _ in imports(path) if name.startswith(forbidden)),
    )


def test_leaderboards_do_not_import_torch():
    heavy = ("torch", "torchvision", "kornia", "timm")
    check_all(
        [p for p in MODULES if p.relative_to(ROOT).parts[0] == "leaderboards"],
        lambda path: (f"imports {name}" for name, _ in imports(path) if name.split(".")[0] in heavy),
    )


def test_only_hydra_patch_uses_private_parts_of_hydra():
    """A new version of Hydra may change its private parts; the only module that uses them checks the version."""
    texts = {path: path.read_text() for path in MODULES}
    users = {p for p, text in texts.items() if "hydra._" in text or "._return_value" in text}
    users |= {p for p in texts if "hydra" in texts[p] and any(n.startswith("hydra._") for n, _ in imports(p))}
    assert users == {ROOT / "dd_bench" / "cli" / "hydra_patch.py"}


@pytest.mark.parametrize("module", ["dd_bench", "dd_bench.records.record", "dd_bench.cli.main"])
def test_import_without_torch(module):
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0, f"importing {module} loads torch"


def test_no_module_unpickles():
    """Untrusted files must not run code.

    There is no pickle, except for the unpickler in `array_unpickler.py`, which refuses all but a few classes.
    `torch.load` is only used with weights_only=True in `torch_files.py`.
    """
    picklers = ("pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal")
    reads_data = []

    def unpickles(path: Path) -> Iterator[str]:
        own = path.name == "array_unpickler.py"
        yield from (
            f"imports {name}" for name, _ in imports(path) if name.split(".")[0] in picklers and not own
        )
        allowed = set()
        for node in nodes(path):  # ast.walk yields a call before its function
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
                arguments = {k.arg: ast.unparse(k.value) for k in node.keywords}
                if path.name == "torch_files.py" and arguments.get("weights_only") == "True":
                    allowed.add(node.func)
                    reads_data.append(path)
            if isinstance(node, ast.Attribute) and node.attr in ("load", "save") and node not in allowed:
                yield from (f"line {node.lineno}: {n}" for n in [ast.unparse(node)] if n.startswith("torch."))
            harmless = isinstance(node, ast.Attribute) and node.attr in ("Unpickler", "UnpicklingError")
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "pickle" and not harmless:
                yield f"line {node.lineno} uses pickle.{node.attr}"
            if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
                yield f"line {node.value.lineno} passes allow_pickle"

    check_all(MODULES, unpickles)
    assert reads_data, "torch_files.py was renamed or no longer uses torch.load"


def test_only_the_seeding_module_seeds():
    """All other random numbers come from named streams."""
    seeds = ("manual_seed", "manual_seed_all", "seed_all", "initial_seed")
    check_all(
        [p for p in CORE if p.name != "seeding.py"],
        lambda path: (
            f"line {n.lineno} uses {n.attr}"
            for n in nodes(path)
            if isinstance(n, ast.Attribute) and n.attr in seeds
        ),
    )


def test_modules_are_short():
    lengths = {dotted(p): len(p.read_text().splitlines()) for p in MODULES}
    assert {name: n for name, n in lengths.items() if n > 500} == {}
    assert not [p for p in MODULES if p.name in ("utils.py", "helpers.py", "common.py", "misc.py")]


@pytest.mark.slow
def test_wheel_is_complete(tmp_path):
    """The wheel is built from a copy, so that no files of an earlier build are reused, and imported elsewhere."""
    copy = tmp_path / "copy"
    for package in PACKAGES:
        shutil.copytree(ROOT / package, copy / package, ignore=shutil.ignore_patterns("__pycache__"))
    for path in ROOT.iterdir():
        if path.is_file():
            shutil.copy(path, copy)
    build = [sys.executable, "-m", "pip", "wheel", str(copy), "--no-deps", "--no-build-isolation"]
    subprocess.run([*build, "--wheel-dir", str(tmp_path)], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    for path in MODULES:
        assert dotted(path).replace(".", "/") + ".py" in names
    yamls = sorted((ROOT / "conf").rglob("*.yaml"))
    assert len(yamls) > 30
    assert {f"dd_bench/conf/{p.relative_to(ROOT / 'conf').as_posix()}" for p in yamls} <= names
    assert not [n for n in names if n.startswith(("tests/", "methods/", "conf/", "benchmarks/"))]
    data = {n for n in names if n.startswith("dd_bench/leaderboards/") and not n.endswith(".py")}
    expected = {ROOT / "leaderboards" / "hyperparameters.json"}
    expected |= {p for p in (ROOT / "leaderboards").glob("published/*.json")}
    expected |= {
        p for folder in ("render", "website") for p in (ROOT / "leaderboards" / folder).glob("templates/*")
    }
    assert data == {
        f"dd_bench/leaderboards/{p.relative_to(ROOT / 'leaderboards').as_posix()}" for p in expected
    }
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    code = (
        "import sys; sys.meta_path[:] = [f for f in sys.meta_path if '__editable__' not in repr(f)]; "
        f"sys.path.insert(0, {str(tmp_path / 'site')!r}); "
        "import dd_bench.methods.dm as dm; from importlib.resources import files; "
        "assert (files('dd_bench.conf') / 'config.yaml').is_file(); print(dm.__file__)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=tmp_path
    )
    assert done.stdout.startswith(str(tmp_path))
