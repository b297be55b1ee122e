"""The house: what is packaged is what is there, imports go one way, modules stay short."""

import ast
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from omegaconf import OmegaConf

ROOT = Path(__file__).resolve().parents[2]
PLUGINS = ("methods", "evaluators", "leaderboards")
PACKAGES = ("dd_bench", "conf", *PLUGINS)
MODULES = [p for package in PACKAGES for p in sorted((ROOT / package).rglob("*.py"))]
CORE = sorted((ROOT / "dd_bench").rglob("*.py"))
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]


def imports(path: Path) -> Iterator[tuple[str, ast.stmt]]:
    """The absolute name of every module (or `module.name`) that a file imports, nested imports included."""
    package = dotted(path).rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text())):
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
    """`methods/dm.py` is `dd_bench.methods.dm`, a package is `dd_bench.methods.__init__`."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts if parts[0] == "dd_bench" else ("dd_bench", *parts))


def test_every_package_is_listed():
    """An unlisted package is silently missing from the wheel."""
    on_disk = set()
    for package in PACKAGES:
        on_disk |= {dotted(p).removesuffix(".__init__") for p in (ROOT / package).rglob("__init__.py")}
    assert set(SETTINGS["packages"]) == on_disk
    folders = {p.parent for p in MODULES}
    assert all((f / "__init__.py").exists() for f in folders), "a folder of modules without __init__.py"
    assert {v for v in SETTINGS["package-dir"].values()} == set(PACKAGES)


def test_no_init_among_tests():
    assert not list((ROOT / "tests").rglob("__init__.py"))


@pytest.mark.parametrize("path", CORE, ids=dotted)
def test_the_core_imports_no_plugin(path):
    for name, _ in imports(path):
        assert not name.startswith(tuple(f"dd_bench.{p}" for p in PLUGINS)), f"{dotted(path)} imports {name}"


@pytest.mark.parametrize("path", CORE, ids=dotted)
def test_the_core_names_no_method(path):
    """Docstrings may; a comparison with a method's name may not. 'random' and 'full' are English words too."""
    methods = {p.stem for p in (ROOT / "conf" / "method").glob("*.yaml")} - {"random", "full"}
    told = [n.value for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Constant)]
    assert not methods & {text for text in told if isinstance(text, str)}


@pytest.mark.parametrize("path", [p for p in MODULES if p.parent.name == "methods"], ids=dotted)
def test_a_method_imports_only_its_base_class_and_its_helpers(path):
    tree = ast.parse(path.read_text())
    bases = {
        b.id
        for n in ast.walk(tree)
        if isinstance(n, ast.ClassDef)
        for b in n.bases
        if isinstance(b, ast.Name)
    }
    for name, _ in imports(path):
        assert not name.startswith(("dd_bench.evaluators", "dd_bench.leaderboards", "methods", "evaluators"))
        if name.startswith("dd_bench.methods."):
            module, *_, what = name.split(".")[2:]
            assert module.startswith("_") or what in bases, (
                f"{dotted(path)} imports {what} of {module} and is no variant"
            )


def test_the_modules_of_methods_are_the_targets_of_their_configurations():
    """Modules with a leading underscore are helpers."""
    files = (ROOT / "conf" / "method").glob("*.yaml")
    targets = {OmegaConf.load(file)._target_.rpartition(".")[0] for file in files}
    assert {dotted(p) for p in (ROOT / "methods").glob("*.py") if not p.name.startswith("_")} == targets


@pytest.mark.parametrize("package", ["evaluators", "leaderboards"])
def test_evaluators_and_leaderboards_import_no_method(package):
    for path in (ROOT / package).rglob("*.py"):
        for name, _ in imports(path):
            assert not name.startswith(("dd_bench.methods", "methods")), f"{dotted(path)} imports {name}"


@pytest.mark.parametrize("path", [p for p in MODULES if p.parent.name == "leaderboards"], ids=dotted)
def test_leaderboards_import_no_torch(path):
    for name, _ in imports(path):
        assert name.split(".")[0] not in ("torch", "torchvision", "kornia", "timm"), name


@pytest.mark.parametrize("module", ["dd_bench", "dd_bench.records.record", "dd_bench.cli.main"])
def test_boards_render_without_torch(module):
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0, f"importing {module} loads torch"


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_nothing_unpickles(path):
    """A set from a stranger must not run code: no pickle, and no torch.load but of data, where releases are read."""
    for name, _ in imports(path):
        assert name.split(".")[0] not in ("pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"), (
            name
        )
    for node in ast.walk(ast.parse(path.read_text())):
        if (
            isinstance(node, ast.Call)
            and ast.unparse(node.func) == "torch.load"
            and path.name == "released.py"
        ):
            assert {k.arg: ast.unparse(k.value) for k in node.keywords}["weights_only"] == "True"
            continue
        if isinstance(node, ast.Attribute) and node.attr in ("load", "save") and path.name != "released.py":
            assert ast.unparse(node.value) != "torch", f"line {node.lineno}"
        if isinstance(node, ast.keyword):
            assert node.arg != "allow_pickle", f"line {node.lineno}"


@pytest.mark.parametrize("path", CORE, ids=dotted)
def test_only_seeding_seeds(path):
    """Every random number comes from a named stream."""
    if path.name == "seeding.py":
        return
    called = {n.attr for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Attribute)}
    assert not called & {"manual_seed", "manual_seed_all", "seed_all", "initial_seed"}


def test_modules_are_short():
    lengths = {dotted(p): len(p.read_text().splitlines()) for p in MODULES}
    assert {name: n for name, n in lengths.items() if n > 500} == {}
    assert not [p for p in MODULES if p.name in ("utils.py", "helpers.py", "common.py", "misc.py")]


@pytest.mark.slow
def test_the_wheel_is_whole(tmp_path):
    """Built from a copy, as setuptools would reuse what an earlier build left; imported away from the checkout."""
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
