"""Tests that the examples of README and docs/contributing run as printed, in their own package."""

import ast
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
METHOD, EVALUATOR = "docs/contributing/method.md", "docs/contributing/evaluator.md"


def block(page, language):
    """The first block of a language on a page."""
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / page).read_text(), re.DOTALL | re.MULTILINE)[0]


def test_method_imports_the_api_only():
    imports = [n for n in ast.walk(ast.parse(block(METHOD, "python"))) if isinstance(n, ast.ImportFrom)]
    assert [n.module for n in imports] == ["dd_bench.api"]


@pytest.mark.parametrize("method", [METHOD, "README.md"])
def test_method_and_evaluator_run_from_another_package(method, dd_bench, small, tmp_path, monkeypatch):
    package = tmp_path / "elsewhere" / "my_package"
    for name in [name for name in sys.modules if name.partition(".")[0] == "my_package"]:
        monkeypatch.delitem(sys.modules, name)
    for page, group, name in ((method, "method", "mine"), (EVALUATOR, "evaluator", "worst_class")):
        (package / "conf" / group).mkdir(parents=True)
        text = block(page, "python").replace("from ._scoring", "from dd_bench.evaluators._scoring")
        (package / f"{name}.py").write_text(text)
        text = block(page, "yaml").replace("dd_bench.evaluators.", "my_package.")
        (package / "conf" / group / f"{name}.yaml").write_text(text)
    for folder in (package, package / "conf"):
        (folder / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path / "elsewhere")
    words = [w for w in small("random") if not w.startswith("method=")]
    choices = ["method=mine", "method.iterations=3", "evaluator=worst_class"]
    done = dd_bench("run", "hydra.searchpath=[pkg://my_package.conf]", *choices, *words)
    assert done.code == 0, done.text
    (card,) = tmp_path.rglob("card.json")
    assert '"_choice_": "mine"' in card.read_text() and '"_source_"' in card.read_text()
    assert "my_package" not in card.read_text()  # the import path is not part of a method's identity
    (record,) = tmp_path.rglob("records/*.json")
    assert '"main_metric": "worst_class"' in record.read_text()
