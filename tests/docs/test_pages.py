"""README and documentation: links lead somewhere, examples run, and tables of speed are those of the figures."""

import ast
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(p for p in (ROOT / "docs").rglob("*.md") if p.name != "architecture.md")
DOCUMENTS = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CODE_OF_CONDUCT.md")]


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of a language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def test_the_readme_is_short():
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) <= 150
    assert not [line for line in lines if len(line) > 140 and not line.startswith("|")]
    assert "make test" in "\n".join(lines)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: p.name)
def test_relative_links_exist(path):
    """Those of `docs/` are checked by `make docs`."""
    text = re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    missing = [link for link in links if link and not (path.parent / link).exists()]
    assert not missing


def test_every_page_is_in_the_navigation():
    """Without a build: `mkdocs build --strict` finds it too, but `make test` does not run that."""
    text = (ROOT / "mkdocs.yml").read_text()
    missing = [p for p in PAGES if f"{p.relative_to(ROOT / 'docs').as_posix()}\n" not in text]
    assert not missing


def test_python_examples_are_valid():
    for page in (*PAGES, *DOCUMENTS):
        for example in blocks(page.read_text(), "python"):
            ast.parse(example, str(page))


def test_tables_of_speed_are_those_of_the_figures():
    path = ROOT / "benchmarks" / "tables.py"
    spec = importlib.util.spec_from_file_location("benchmark_tables", path)
    tables = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tables)
    used = "".join(page.read_text() for page in tables.PAGES)
    assert all(f"<!-- speed {name} -->" in used for name in tables.TABLES)
    for page in tables.PAGES:
        assert tables.filled(page.read_text()) == page.read_text(), f"{page}: run make tables"
