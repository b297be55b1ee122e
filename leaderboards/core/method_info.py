"""What a method is: its family, paper, code, description and default hyper-parameters, without importing torch.

The family and the links are in `published/methods.yaml`. The title is the first comment of the method's YAML file, and
the description is the docstring of its class, which is parsed and not imported. Methods of other packages have neither.
"""

from __future__ import annotations

import ast
import re
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from pydantic import BaseModel, ConfigDict, Field

from dd_bench.records.config_diff import shipped_target

from .yaml_file import read_yaml

METHODS = Path(__file__).resolve().parents[1] / "published" / "methods.yaml"

Family = Literal[
    "reference",
    "selection",
    "coreset",
    "matching",
    "trajectory",
    "decoupled",
    "generative",
    "graphs",
    "other",
]
FAMILIES: tuple[Family, ...] = get_args(Family)
REAL: tuple[Family, ...] = ("reference", "selection", "coreset")
"""Families whose sets are samples of the training set, unchanged."""


class Links(BaseModel):
    """One line of `methods.yaml`. Methods with published numbers have one too, if they are not implemented here."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    family: Family
    venue: str | None = Field(
        default=None, min_length=1, description="where the paper appeared, with the year"
    )
    paper: str | None = Field(default=None, pattern="^https://")
    code: str | None = Field(default=None, pattern="^https://")


class MethodInfo(NamedTuple):
    """A method as its page describes it. Texts are empty if they are not known."""

    name: str
    links: Links
    title: str  # one line, with the paper
    description: str  # docstring of the class
    config: str  # text of the YAML file


@cache
def load_links(path: Path = METHODS) -> dict[str, Links]:
    """Read the families and links of methods.

    Raises:
        ValueError: the file is not valid.
    """
    return read_yaml(path, dict[str, Links], "methods")


def links_of(method: str) -> Links:
    """Return the family and links of a method. A variant, such as `datadam_released`, has those of its method."""
    known, name = load_links(), method.partition(" #")[0]
    while name not in known and "_" in name:
        name = name.rpartition("_")[0]
    return known.get(name, Links(family="other"))


def selects_real(method: str) -> bool:
    """Return whether the sets of a method are unchanged samples of the training set, also random ones."""
    return links_of(method).family in REAL


def publication_month(method: str) -> tuple[int, int] | None:
    """Return the year and month of a method's paper, from its arXiv identifier; None without one."""
    found = re.fullmatch(r"https://arxiv\.org/abs/(\d\d)(\d\d)\.\d+", links_of(method).paper or "")
    return (2000 + int(found[1]), int(found[2])) if found else None


@cache
def method_info(method: str) -> MethodInfo:
    """Return what is known about a method."""
    config = shipped_text("method", method)
    return MethodInfo(method, links_of(method), comment(config), _description(method), config)


@cache
def shipped_text(group: str, name: str) -> str:
    """Return the text of `conf/<group>/<name>.yaml` of this package; '' if the file does not exist."""
    if not re.fullmatch("[A-Za-z0-9_-]{1,100}", name):
        return ""
    path = resources.files("dd_bench.conf") / group / f"{name}.yaml"
    return path.read_text() if path.is_file() else ""


def comment(text: str) -> str:
    """Return the first line of a YAML file without `#`; '' if it is not a comment."""
    first = text.partition("\n")[0]
    return first.lstrip("# ").strip() if first.startswith("#") else ""


def _description(method: str) -> str:
    """Return the docstring of the class of a shipped method."""
    node = _class_of(method)
    return (ast.get_docstring(node) or "") if node else ""


@cache
def is_deterministic(method: str) -> bool:
    """Return whether the class of a shipped method states that its sets do not depend on the seed."""
    node = _class_of(method)
    return any(
        isinstance(line, ast.Assign)
        and ast.unparse(line.targets[0]) == "deterministic"
        and ast.unparse(line.value) == "True"
        for line in (node.body if node else ())
    )


def _class_of(method: str) -> ast.ClassDef | None:
    """Return the class that the YAML file of a shipped method names."""
    module, _, name = (shipped_target("method", method) or "").rpartition(".")
    package, _, stem = module.rpartition(".")
    if package != "dd_bench.methods":
        return None
    source = resources.files(package) / f"{stem}.py"
    body = ast.parse(source.read_text()).body if source.is_file() else []
    return next((n for n in body if isinstance(n, ast.ClassDef) and n.name == name), None)
