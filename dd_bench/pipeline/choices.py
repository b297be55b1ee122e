"""The choices of a configuration group, which are the YAML files in `conf/<group>/`. Does not import torch."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import resources
from importlib.resources.abc import Traversable


def choices(group: str) -> dict[str, str]:
    """Return a dict that maps the name of each YAML file of a group to its description, the first line of the file.

    Files in subfolders come last. Their names include the subfolder, e.g. `paper/cifar10/mtt_ipc1`.
    """
    found = {}
    for name, path in _yaml_files(resources.files("dd_bench.conf") / group):
        comments = (line for line in path.read_text().splitlines() if not line.startswith("# @package"))
        found[name] = next(comments, "").removeprefix("#").strip()
    return dict(sorted(found.items(), key=lambda choice: (choice[0].count("/"), choice[0])))


def _yaml_files(folder: Traversable, prefix: str = "") -> Iterator[tuple[str, Traversable]]:
    """Yield the YAML files of a folder and its subfolders, each with its name without suffix."""
    for path in folder.iterdir():
        if path.is_dir():
            yield from _yaml_files(path, f"{prefix}{path.name}/")
        elif path.name.endswith(".yaml"):
            yield prefix + path.name.removesuffix(".yaml"), path
