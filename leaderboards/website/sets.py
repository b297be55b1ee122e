"""The sets of the site: whole folders to download, listed in an index, or told where they were pushed to."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

from dd_bench.records.config_diff import changed_keys
from dd_bench.records.record import Record
from dd_bench.runtime.files import file_sha256
from dd_bench.runtime.terminal import sanitize
from dd_bench.synthetic.card import (
    CARD,
    INDEX,
    NAME,
    PREVIEW,
    PROVENANCE,
    README,
    TENSORS,
    TRANSFORM,
    Card,
    find_damaged_file,
    has_provenance,
    read_card,
)

from ..core.commands import distill_command
from .rows import Cells, column, entry_at

HERE = "SITE"
"""The address of the site in a command: its pages put in where they are read."""
FILES = (TENSORS, TRANSFORM, README, PREVIEW)
"""Files of a set that a site has beside its card: a stranger's may not be a page of it."""


class KnownSet(NamedTuple):
    """A set whose files lie beside the entries."""

    digest: str
    name: str
    card: Card
    picture: str | None  # file on the site
    made: str | None  # the command that distils it, if this suite does
    knobs: Sequence[str]  # of its method that are not the defaults
    where: str  # URL to pull it from
    files: Mapping[str, int]  # files on the site, and their bytes


def offer(sets_dir: Path, site: Path, elsewhere: str | None) -> dict[str, KnownSet]:
    """Copies the sets beside the entries to a site, or their pictures alone, and returns them by their digest.

    A set that is not whole, or has what no set of this suite has, is left out; stderr says why.

    Args:
        sets_dir: folder of sets.
        site: folder of the site; they come to lie in `sets` in it.
        elsewhere: URL of a folder where they were pushed under the same names, if that is where to pull them from.
    """
    known: dict[str, KnownSet] = {}
    cards = (*sets_dir.glob(f"*/{CARD}"), *sets_dir.glob(f"*/*/{CARD}"))
    for folder in sorted((path.parent for path in cards), key=attrgetter("name")):
        try:
            card = _card(folder)
            knobs, made = _knobs(card), _made(card)
        except (
            OSError,
            ValueError,
            TypeError,
            KeyError,
            AttributeError,
        ) as error:  # of a configuration of any shape
            sys.stderr.write(f"left out of the site: {folder}: {sanitize(str(error))}\n")
            continue
        digest = str(file_sha256(folder / CARD))
        if digest in known:
            sys.stderr.write(f"left out of the site: {folder} is {known[digest].name} once more\n")
            continue
        files = [*card.sha256, CARD, *([PROVENANCE] if has_provenance(folder) else [])]
        sizes = _copy(folder, site, files if elsewhere is None else [n for n in files if n == PREVIEW])
        known[digest] = KnownSet(
            digest=digest,
            name=folder.name,
            card=card,
            picture=f"sets/{folder.name}/{PREVIEW}" if PREVIEW in card.sha256 else None,
            made=made,
            knobs=knobs,
            where=f"{HERE + '/sets' if elsewhere is None else elsewhere.rstrip('/')}/{folder.name}",
            files=sizes if elsewhere is None else {},
        )
    if known and elsewhere is None:
        names = sorted(one.name for one in known.values())
        (site / ".nojekyll").touch()  # GitHub would make pages of README.md, and leave names with _ out
        (site / "sets" / INDEX).write_text(json.dumps({"sets": names}, indent=1) + "\n")
    return known


def pull_commands(known: KnownSet) -> list[tuple[str, str]]:
    """Returns what fetches a set, for a shell and for Python."""
    return [("Download its set, checked:", in_shell(known)), ("Or in Python:", in_python(known))]


def in_shell(known: KnownSet) -> str:
    """Returns the command that pulls a set."""
    return f"dd-bench pull {shlex.quote(known.where)} --digest {known.digest[:16]}"


def in_python(known: KnownSet) -> str:
    """Returns three lines that load a set."""
    lines = [
        "import dd_bench",
        f'syn = dd_bench.load({json.dumps(known.where)}, digest="{known.digest[:16]}")',
    ]
    return "\n".join([*lines, "train = syn.dataset()  # a torch TensorDataset"])


def listing(known: Sequence[KnownSet]) -> str:
    """Returns the command that lists all sets."""
    return f"dd-bench list --remote {shlex.quote(known[0].where.rpartition('/')[0])}"


def set_rows(known: Sequence[KnownSet], records: Sequence[Record]) -> dict[str, Any]:
    """Returns the table of all sets, with the entries that were measured on each."""
    of: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        for digest in record.set_digests:
            of[digest].append(record)
    columns = [
        column("method", "Method", "text", filter=True, title="leads to its first entry"),
        column("dataset", "Dataset", "text", filter=True),
        column("ipc", "IPC", filter=True),
        column(
            "knobs",
            "Not the defaults",
            "text",
            wide=True,
            title="hyper-parameters that differ from the YAML's",
        ),
        column("bytes", "Bytes", title="of images or graphs, labels and what decodes them"),
        column("tensors", "Tensors"),
        column(
            "folder",
            "Folder",
            "text",
            wide=True,
            title="leads to its card, which has the hashes of all other files",
        ),
        column("entries", "Entries", wide=True, title="that were measured on it"),
        column("licence", "Licence of the data", "text", wide=True, filter=True),
    ]
    rows = []
    for one in sorted(known, key=lambda k: (k.card.dataset, k.card.ipc, k.card.method, k.name)):
        on = sorted(of[one.digest], key=lambda r: (r.created, r.key))
        size = sum(one.card.stored_bytes.values())
        tensors, card = f"sets/{one.name}/{TENSORS}", f"sets/{one.name}/{CARD}"
        method: Any = {"text": one.card.method, "href": entry_at(on[0])} if on else one.card.method
        cells: Cells = [method, one.card.dataset, one.card.ipc, ", ".join(one.knobs)]
        cells.append({"text": f"{size:,}", "sort": size})
        cells.append({"text": "download", "href": tensors} if tensors in one.files else None)
        cells.append({"text": one.name, "title": one.digest} | ({"href": card} if card in one.files else {}))
        cells += [len(on), one.card.licence]
        rows.append({"cells": cells})
    return {"columns": columns, "rows": rows}


def _card(folder: Path) -> Card:
    """Returns the card of a set that can be published as it is.

    Raises:
        ValueError: why it cannot.
    """
    if not re.fullmatch(NAME, folder.name) or folder.name == INDEX:
        raise ValueError("its name cannot stand in an address")
    card = read_card(folder)
    if TENSORS not in card.sha256:
        raise ValueError(f"its card names no {TENSORS}")
    if others := sorted(set(card.sha256) - set(FILES)):
        raise ValueError(f"its card names {', '.join(others)}")
    for path in (folder, *(folder / name for name in [CARD, *card.sha256])):
        if path.is_symlink():
            raise ValueError(f"{path.name} is a link, which may lead anywhere")
    if wrong := find_damaged_file(folder, card):
        raise ValueError(f"{wrong[0].name} is missing or was changed")
    return card


def _copy(folder: Path, site: Path, names: Sequence[str]) -> dict[str, int]:
    """Copies files of a set to the site and returns their bytes, by their place there."""
    sizes = {}
    for name in names:
        to = site / "sets" / folder.name / name
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / name, to)
        sizes[f"sets/{folder.name}/{name}"] = to.stat().st_size
    return sizes


def _knobs(card: Card) -> list[str]:
    method = card.config.get("method")
    return changed_keys("method", card.method, method) if isinstance(method, dict) else []


def _made(card: Card) -> str | None:
    """Returns the command that makes a set, None if its configuration is not one of this suite."""
    with suppress(ValueError, KeyError):
        return distill_command(card.config, card.method, card.dataset)
    return None
