"""The method of CONTRIBUTING.md runs as it is printed, in a package of its own; it imports `dd_bench.api` alone."""

import ast
import re
from pathlib import Path

TEXT = (Path(__file__).resolve().parents[2] / "CONTRIBUTING.md").read_text()


def block(language):
    (found,) = re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)
    return found


def test_it_imports_the_api_alone():
    imports = [n for n in ast.walk(ast.parse(block("python"))) if isinstance(n, ast.ImportFrom)]
    assert [n.module for n in imports] == ["dd_bench.api"]


def test_it_runs_from_a_package_of_its_own(dd_bench, small, tmp_path, monkeypatch):
    package = tmp_path / "elsewhere" / "my_package"
    (package / "conf" / "method").mkdir(parents=True)
    (package / "mine.py").write_text(block("python"))
    (package / "conf" / "method" / "mine.yaml").write_text(block("yaml"))
    for folder in (package, package / "conf"):
        (folder / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path / "elsewhere")
    words = [w for w in small("random") if not w.startswith("method=")]
    done = dd_bench(
        "run", "hydra.searchpath=[pkg://my_package.conf]", "method=mine", "method.iterations=3", *words
    )
    assert done.code == 0, done.text
    (card,) = tmp_path.rglob("card.json")
    assert '"_choice_": "mine"' in card.read_text() and '"_source_"' in card.read_text()
    assert "my_package" not in card.read_text(), "its path is no part of what it is"
