"""Synthetic sets of the site: their folders with an index, or links to the URL that the sets were pushed to."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from dd_bench.records.config_diff import changed_keys
from dd_bench.runtime import untrusted
from dd_bench.runtime.terminal import sanitize
from dd_bench.synthetic.card import (
    CARD,
    INDEX,
    NAME,
    PREVIEW,
    PROVENANCE,
    TENSORS,
    Card,
    find_damaged_file,
    has_provenance,
    read_card,
)

from ..core.commands import distill_command
from ..core.entries import set_cards

SITE = "SITE"
"""Placeholder for the address of the site in commands; `site.js` replaces it by the address that the reader uses."""


LOADER = """import dd_bench
syn = dd_bench.load({url}, digest="{digest}")
train = syn.dataset()  # a torch Dataset"""
"""Three lines of Python that load a set; `{url}` is a string literal."""


class Picture(NamedTuple):
    """A picture on the site, with its size in pixels: a page reserves its place before the picture is loaded."""

    file: str
    width: int
    height: int


class KnownSet(NamedTuple):
    """A set whose files are available."""

    digest: str
    name: str
    path: str  # relative to the folder of sets: `<dataset>/<name>`, or `<name>`
    card: Card
    picture: Picture | None  # preview
    command: str | None  # command that distils it, if its method is shipped
    changed: Sequence[str]  # hyper-parameters of its method that differ from the defaults
    url: str  # from which the set can be pulled
    files: Mapping[str, int]  # files on the site, and their bytes

    @property
    def samples(self) -> str:
        """What it is a set of: `images`, `graphs` or `nodes`."""
        return {"graphs": "graphs", "trees": "graphs", "nodes": "nodes"}.get(self.card.kind, "images")


def copy_sets(sets_dir: Path, site: Path, sets_at: str | None) -> dict[str, KnownSet]:
    """Copy the sets to the site and return them by digest. If `sets_at` is set, copy only their pictures.

    A set that is damaged or has unexpected files is left out, with a message on stderr.

    Args:
        sets_dir: folder of sets.
        site: folder of the site; sets are copied to its subfolder `sets`.
        sets_at: URL of the folder to which the sets were pushed under the same names; None to copy them to the site.
    """
    known: dict[str, KnownSet] = {}
    for folder in sorted((path.parent for path in set_cards(sets_dir)), key=attrgetter("name")):
        try:
            card = _card(folder)
            changed, command = _changed(card), _distill_command(card)
        # A configuration may have any structure.
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            sys.stderr.write(sanitize(f"left out of the site: {folder}: {error}\n"))
            continue
        digest = untrusted.sha256(folder / CARD, untrusted.MAX_JSON)
        if digest in known:
            sys.stderr.write(sanitize(f"left out of the site: {folder} is a copy of {known[digest].name}\n"))
            continue
        files = [*card.sha256, CARD, *([PROVENANCE] if has_provenance(folder) else [])]
        sizes = _copy(folder, site, files if sets_at is None else [n for n in files if n == PREVIEW])
        known[digest] = KnownSet(
            digest=digest,
            name=folder.name,
            path=folder.relative_to(sets_dir).as_posix(),
            card=card,
            picture=_picture(folder, card, site) if PREVIEW in card.sha256 else None,
            command=command,
            changed=changed,
            url=f"{SITE + '/sets' if sets_at is None else sets_at.rstrip('/')}/{folder.name}",
            files=sizes if sets_at is None else {},
        )
    if known and sets_at is None:
        names = sorted(one.name for one in known.values())
        (site / ".nojekyll").touch()  # GitHub Pages would render README.md and omit names that start with `_`
        (site / "sets" / INDEX).write_text(json.dumps({"sets": names}, indent=1) + "\n")
    return known


def pull_commands(known: KnownSet) -> list[tuple[str, str]]:
    """Return the commands that download a set, for a shell and for Python."""
    return [("Download and check the set:", pull_command(known)), ("Or in Python:", python_code(known))]


def pull_command(known: KnownSet) -> str:
    """Return the command that pulls a set."""
    return f"dd-bench pull {shlex.quote(known.url)} --digest {known.digest[:16]}"


def python_code(known: KnownSet) -> str:
    """Return three lines of Python that load a set."""
    return LOADER.replace("{url}", json.dumps(known.url)).replace("{digest}", known.digest[:16])


def list_command(known: Sequence[KnownSet]) -> str:
    """Return the command that lists all sets."""
    return f"dd-bench list --remote {shlex.quote(known[0].url.rpartition('/')[0])}"


def _card(folder: Path) -> Card:
    """Return the card of a set that can be published.

    Raises:
        ValueError: the reason why the set cannot be published.
    """
    if not re.fullmatch(NAME, folder.name) or folder.name == INDEX:
        raise ValueError(f"the name of the folder must be valid in a URL and not {INDEX}, got {folder.name}")
    card = read_card(folder)
    if TENSORS not in card.sha256:
        raise ValueError(f"the card of the set must list {TENSORS} under sha256, got {sorted(card.sha256)}")
    if folder.is_symlink():
        raise ValueError(f"{folder.name} must be a folder, got a symbolic link")
    if wrong := find_damaged_file(folder, card):
        raise ValueError(f"{wrong[0].name} is missing or was changed")
    return card


def _picture(folder: Path, card: Card, site: Path) -> Picture:
    """Return the preview of a set.

    Previews of nodes are drawn again, because those of older versions are nearly white.
    """
    file = f"sets/{folder.name}/{PREVIEW}"
    with suppress(OSError, ValueError):
        if card.kind == "nodes":
            from dd_bench.synthetic.preview import preview_png  # imports torch, which few sites need
            from dd_bench.synthetic.storage import load

            content = preview_png(load(folder)[0])
            file = f"pictures/{folder.name}.png"
            (site / file).parent.mkdir(exist_ok=True)
            (site / file).write_bytes(content)
            return Picture(file, *_size(site / file))
    return Picture(file, *_size(folder / PREVIEW))


def _size(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


def _copy(folder: Path, site: Path, names: Sequence[str]) -> dict[str, int]:
    """Copy files of a set to the site, and return their sizes in bytes by path on the site."""
    sizes = {}
    for name in names:
        to = site / "sets" / folder.name / name
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / name, to)
        sizes[f"sets/{folder.name}/{name}"] = to.stat().st_size
    return sizes


def _changed(card: Card) -> list[str]:
    method = card.config.get("method")
    return changed_keys("method", card.method, method) if isinstance(method, dict) else []


def _distill_command(card: Card) -> str | None:
    """Return the command that distils a set; None if overrides cannot express its configuration."""
    with suppress(ValueError, KeyError):
        return distill_command(card.config, card.method, card.dataset)
    return None
