"""README and documentation: links lead somewhere, examples run, and tables of speed are those of the figures."""

import ast
import fnmatch
import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import dd_bench
from dd_bench.cli.main import HYDRA_COMMANDS, OTHER_COMMANDS
from dd_bench.records.config_diff import shipped_yaml

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(p for p in (ROOT / "docs").rglob("*.md") if "example_plugin" not in p.parts)
DOCUMENTS = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CODE_OF_CONDUCT.md")]


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of a language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def commands(text: str) -> Iterator[list[str]]:
    """The words of each `dd-bench ...` line of an indented or fenced block."""
    for line in re.findall(r"^ *(?:\$ |PYTHONPATH=\S+ )?(dd-bench [a-z].*)$", text, re.MULTILINE):
        yield shlex.split(line, comments=True)


def test_the_readme_is_short():
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) <= 150
    assert not [line for line in lines if len(line) > 140 and not line.startswith("|")]
    text = "\n".join(lines)
    assert "make test" in text
    count = {group: len(list((ROOT / "conf" / group).glob("*.yaml"))) for group in ("method", "protocol")}
    assert f"runs {count['method']} methods" in text and f"| Protocols | {count['protocol']} " in text


def test_the_version_is_current():
    assert f"\nversion: {dd_bench.__version__}\n" in (ROOT / "CITATION.cff").read_text()
    assert (
        f"\ndd-bench {dd_bench.__version__}\n" in (ROOT / "docs" / "get_started" / "install.md").read_text()
    )


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
    pages = [*PAGES, *(ROOT / "docs").rglob("*.ipynb")]
    missing = [p for p in pages if f"{p.relative_to(ROOT / 'docs').as_posix()}\n" not in text]
    assert not missing


def test_python_examples_are_valid():
    for page in (*PAGES, *DOCUMENTS):
        for example in blocks(page.read_text(), "python"):
            ast.parse(example, str(page))


def module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"{path.parent.name}_{path.stem}", path)
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def test_tables_of_speed_are_those_of_the_figures():
    tables = module(ROOT / "benchmarks" / "tables.py")
    used = "".join(page.read_text() for page in tables.PAGES)
    assert all(f"<!-- speed {name} -->" in used for name in tables.TABLES)
    for page in tables.PAGES:
        assert tables.filled(page.read_text()) == page.read_text(), f"{page}: run make tables"


def test_tables_and_numbers_are_those_of_the_entries():
    tables = module(ROOT / "docs" / "tables.py")
    found = tables.sources()
    for page in tables.PAGES:
        text = page.read_text()
        assert tables.filled(text, found, page.name) == text, f"{page}: run make tables"


def test_commands_name_what_exists():
    """Commands, choices of groups, and keys of the chosen YAML. Composing each command would take too long here."""
    wrong, seen = [], 0
    conf = ROOT / "conf"
    experiments = [p.stem for p in (conf / "experiment").glob("*.yaml")]
    for page in (*PAGES, *DOCUMENTS):
        for _, command, *words in commands(page.read_text()):
            if command not in HYDRA_COMMANDS:
                wrong += (
                    []
                    if command in OTHER_COMMANDS or command.startswith("--")
                    else [f"{page}: command {command}"]
                )
                continue
            seen += 1
            pairs = [w.split("=", 1) for w in words if re.match("[a-z_.]+=", w)]
            own = any(w.startswith("hydra.searchpath") for w in words)  # choices of the reader's package
            chosen = dict(pairs)
            for key, value in pairs:
                group, _, path = key.partition(".")
                if key == "experiment" and (pattern := re.match(r"glob\(\[?([^,\])]+)", value)):
                    if not fnmatch.filter(experiments, pattern[1]):
                        wrong.append(f"{page}: {key}={value}")
                elif not path and (conf / group).is_dir() and not own and value != "mine":
                    names = value.strip("[]").split(",")
                    missing = [n for n in names if not (conf / group / f"{n}.yaml").is_file()]
                    wrong += [f"{page}: {key}={n}" for n in missing if n not in ("worst_class", "dmm")]
                elif path and group in chosen and "," not in chosen[group] and not own:
                    *parents, last = path.split(".")
                    values = shipped_yaml(group, chosen[group])
                    for parent in parents:
                        values = values.get(parent) or {}
                    wrong += [] if last in values else [f"{page}: {key}={value}"]
    assert not wrong, "\n".join(wrong)
    assert seen > 60
