"""The YAML files in `conf/<group>/`, here and on `hydra.searchpath`. Does not import torch."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

from dd_bench.runtime.hidden import is_hidden


def choices(group: str, searchpath: Sequence[str] = ()) -> dict[str, str]:
    """Return a dict that maps the name of each YAML file of a group to its description, the first line of the file.

    Files in subfolders come last. Their names include the subfolder, e.g. `paper/cifar10/mtt_ipc1`.

    Args:
        group: the configuration group, e.g. `method`.
        searchpath: further folders of configurations, as in Hydra's key `hydra.searchpath`: `pkg://my_package.conf`,
            `file://FOLDER` or `FOLDER`.

    Raises:
        ValueError: a folder of `searchpath` does not exist.
    """
    found: dict[str, str] = {}
    folders = [resources.files("dd_bench.conf"), *map(_folder, searchpath)]
    for name, path in (file for f in folders if (f / group).is_dir() for file in _yaml_files(f / group)):
        if name in found:  # Hydra reads the first file
            continue
        comments = (line for line in path.read_text().splitlines() if not line.startswith("# @package"))
        found[name] = next(comments, "").removeprefix("#").strip()
    return dict(sorted(found.items(), key=lambda choice: (choice[0].count("/"), choice[0])))


def searchpath_of(overrides: Sequence[str]) -> list[str]:
    """Return the folders in overrides such as `hydra.searchpath=[pkg://my_package.conf]`.

    Raises:
        ValueError: the value of `hydra.searchpath` is not a list.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    found: list[str] = []
    for override in overrides:
        if not re.match(r"\+{0,2}hydra\.searchpath=", override):
            continue
        try:
            value = OverridesParser.create().parse_override(override).value()
        except HydraException:
            value = None
        if not isinstance(value, list):
            raise ValueError(
                f"hydra.searchpath must be a list, got {override}. Example: hydra.searchpath=[pkg://my_package.conf]"
            )
        found += map(str, value)
    return found


def check_searchpath(overrides: Sequence[str]) -> None:
    """Check the folders in overrides of `hydra.searchpath`. Hydra ignores folders that do not exist.

    Raises:
        ValueError: a folder does not exist, a package is not installed, or the scheme is unknown.
    """
    for source in searchpath_of(overrides):
        _folder(source)


def check_choices(overrides: Sequence[str]) -> None:
    """Check that overrides of groups are names. Hydra ends in a traceback for null, numbers, true and false.

    Raises:
        ValueError: the value of a group is none of its names, e.g. `experiment=null`.
    """
    conf = resources.files("dd_bench.conf")
    for override in overrides:
        found = re.fullmatch(r"\+?([a-z_]+)=([\w.,-]*)", override)
        if not found or not (conf / found[1]).is_dir():
            continue
        for value in found[2].split(","):
            if re.fullmatch(r"(?i)null|true|false|[-+]?[\d._]+(e[-+]?\d+)?", value):
                remove = f"To select none, leave out {found[1]}=. " if value == "null" else ""
                raise ValueError(
                    f"{found[1]} must be the name of a file in conf/{found[1]}, got {override}. {remove}"
                    f"To list all: dd-bench list {found[1]}"
                )


def ignore_missing_init() -> None:
    """Silence Hydra's warning for a package in `hydra.searchpath` without `__init__.py`, whose files it reads anyway.

    Folders and packages that do not exist are refused before, see `check_searchpath`.
    """
    warnings.filterwarnings("ignore", r"provider=hydra\.searchpath.* is not\s+available", UserWarning)


def _folder(source: str) -> Traversable:
    kind, _, where = source.rpartition("://")
    if kind not in ("pkg", "file", ""):
        raise ValueError(
            f"hydra.searchpath: a folder must be pkg://PACKAGE.FOLDER, file://FOLDER or FOLDER, got {source}. "
            "Example: hydra.searchpath=[pkg://my_package.conf]"
        )
    try:
        folder = resources.files(where.replace("/", ".").rstrip(".")) if kind == "pkg" else Path(where)
    except (ModuleNotFoundError, TypeError, ValueError) as error:
        raise ValueError(
            f"hydra.searchpath: {source} is not an installed package ({error}). Install it: pip install -e FOLDER, or "
            "give the folder of its YAML files: hydra.searchpath=[file://FOLDER]"
        ) from error
    if not folder.is_dir():
        raise ValueError(
            f"hydra.searchpath: {source} does not exist. It must be a folder with subfolders such as method/. "
            "Example: hydra.searchpath=[file:///home/me/my_package/conf]"
        )
    return folder


def _yaml_files(folder: Traversable, prefix: str = "") -> Iterator[tuple[str, Traversable]]:
    """Yield the YAML files of a folder and its subfolders, each with its name without suffix."""
    for path in folder.iterdir():
        if is_hidden(path.name):
            continue
        if path.is_dir():
            yield from _yaml_files(path, f"{prefix}{path.name}/")
        elif path.name.endswith(".yaml"):
            yield prefix + path.name.removesuffix(".yaml"), path
