"""Tests that the examples of docs/contributing run as printed, in their own package."""

import ast
import re
from pathlib import Path

PAGES = Path(__file__).resolve().parents[2] / "docs" / "contributing"


def block(page, language):
    (found,) = re.findall(rf"^```{language}\n(.*?)^```", (PAGES / page).read_text(), re.DOTALL | re.MULTILINE)
    return found


def test_method_imports_the_api_only():
    imports = [n for n in ast.walk(ast.parse(block("method.md", "python"))) if isinstance(n, ast.ImportFrom)]
    assert [n.module for n in imports] == ["dd_bench.api"]


def test_method_and_evaluator_run_from_another_package(dd_bench, small, tmp_path, monkeypatch):
    package = tmp_path / "elsewhere" / "my_package"
    for group, name in (("method", "mine"), ("evaluator", "worst_class")):
        (package / "conf" / group).mkdir(parents=True)
        text = block(f"{group}.md", "python").replace("from ._scoring", "from dd_bench.evaluators._scoring")
        (package / f"{name}.py").write_text(text)
        text = block(f"{group}.md", "yaml").replace("dd_bench.evaluators.", "my_package.")
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
