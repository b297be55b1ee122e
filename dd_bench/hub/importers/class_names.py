"""Match the names of class folders with the classes of a real set: by name, by number or by ImageNet's class index."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from dd_bench.hub.folder_layout import class_folders
from dd_bench.hub.importers.imagenet import is_wnid, wnids, words


def by_name(names: Sequence[str], class_names: Sequence[str]) -> dict[str, int]:
    """Match names with class names; empty if one of them is unknown or ambiguous.

    Case, special characters and label prefixes such as `03_` are ignored. A name can be a class name, the name of its
    exported folder (see `folder_layout`), or ImageNet's name of a class that is a WordNet ID. If class names are
    numbers, a name can also be an equal number, e.g. `03`.
    """
    keys: dict[str, set[int]] = {}
    for label, class_name in enumerate(class_names):
        for alias in (class_name, *(words(class_name) if is_wnid(class_name) else ())):
            keys.setdefault(_normalise(alias), set()).add(label)
        if class_name.isdecimal():
            keys.setdefault(f"{int(class_name)}", set()).add(label)
    exact = {name: label for label, name in enumerate(class_folders(class_names))}
    exact |= {name: label for label, name in enumerate(class_names)}
    numbers = numbers_of(names)
    found = {}
    for name in names:
        forms = _normalise(name), _normalise(re.sub("^[0-9]+_", "", name)), str(numbers.get(name))
        candidates = next((keys[form] for form in forms if form in keys), set())
        if name in exact:
            candidates = {exact[name]}
        if len(candidates) != 1:
            return {}
        found[name] = next(iter(candidates))
    return found


def by_imagenet_index(numbers: Mapping[str, int], class_names: Sequence[str]) -> dict[str, int]:
    """Match ImageNet's class indices with class names that are WordNet IDs; empty if one does not match."""
    if not numbers or not all(map(is_wnid, class_names)) or max(numbers.values()) >= len(wnids()):
        return {}
    found = {name: wnids()[number] for name, number in numbers.items()}
    return (
        {n: class_names.index(c) for n, c in found.items()} if set(found.values()) == set(class_names) else {}
    )


def numbers_of(names: Sequence[str]) -> dict[str, int]:
    """Return the number at the end of each name; empty unless the names differ in this number only."""
    found = [re.fullmatch(r"(.*?)([0-9]+)", name) for name in names]
    if not all(found) or len({match[1] for match in found if match}) != 1:
        return {}
    numbers = {name: int(match[2]) for name, match in zip(names, found, strict=True) if match}
    return numbers if len(set(numbers.values())) == len(names) else {}


def _normalise(name: str) -> str:
    """Return a class name in lower case, without special characters."""
    return re.sub("[^a-z0-9]", "", name.lower())


def describe(class_name: str) -> str:
    """Return a class name, with ImageNet's name if it is a WordNet ID such as n02086240."""
    known = words(class_name) if is_wnid(class_name) else ()
    return f"{class_name} ({known[0]})" if known else class_name


def shown(names: Sequence[str]) -> str:
    """Return the first names, for a message."""
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
