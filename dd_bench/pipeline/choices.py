"""The choices of a configuration group, which are the YAML files in `conf/<group>/`. Does not import torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path


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


def _folder(source: str) -> Traversable:
    kind, _, where = source.rpartition("://")
    try:
        folder = resources.files(where.replace("/", ".")) if kind == "pkg" else Path(where)
    except ModuleNotFoundError as error:
        raise ValueError(f"hydra.searchpath: {source} is not an installed package ({error})") from error
    if not folder.is_dir():
        raise ValueError(f"hydra.searchpath: {source} does not exist")
    return folder


def _yaml_files(folder: Traversable, prefix: str = "") -> Iterator[tuple[str, Traversable]]:
    """Yield the YAML files of a folder and its subfolders, each with its name without suffix."""
    for path in folder.iterdir():
        if path.is_dir():
            yield from _yaml_files(path, f"{prefix}{path.name}/")
        elif path.name.endswith(".yaml"):
            yield prefix + path.name.removesuffix(".yaml"), path
