"""The sets of the site: whole folders to download, listed in an index, or told where they were pushed to."""

from __future__ import annotations

import json
import re
import shutil
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from dd_bench.record import Record, file_sha256

from .commands import distill_command
from .entries import sets_in
from .site_rows import Cells, column, entry_at

HERE = "SITE"
"""The address of the site in a command: its pages put in where they are read."""
INDEX = "index.json"
"""What `dd-bench list --remote` reads from a web server that lists nothing: the names of the folders."""


class KnownSet(NamedTuple):
    """A set whose files lie beside the entries."""

    digest: str
    name: str
    card: Mapping[str, Any]
    picture: str | None  # file on the site
    made: str | None  # the command that distils it, if this suite does
    where: str  # URL to pull it from
    files: Mapping[str, int]  # files on the site, and their bytes


def offer(sets_dir: Path, site: Path, elsewhere: str | None) -> dict[str, KnownSet]:
    """Copies the sets beside the entries to a site, or their pictures alone, and returns them by their digest.

    A set that is not whole is left out: `dd-bench verify` says what is wrong with it.

    Args:
        sets_dir: folder of sets.
        site: folder of the site; they come to lie in `sets` in it.
        elsewhere: URL of a folder where they were pushed under the same names, if that is where to pull them from.
    """
    known = {}
    for digest, folder in sets_in(sets_dir).items():
        try:
            card = json.loads((folder / "card.json").read_bytes())
            hashes = dict(card["sha256"])
            made = _made(card)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
        if not (_safe(folder.name) and hashes and _whole(folder, hashes)):
            continue
        names = [*hashes, "card.json", "provenance.json"] if elsewhere is None else ["preview.png"]
        files = {}
        to = site / "sets" / folder.name
        for name in names:
            if (folder / name).is_file():
                to.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(folder / name, to / name)
                files[f"sets/{folder.name}/{name}"] = (to / name).stat().st_size
        picture = f"sets/{folder.name}/preview.png" if "preview.png" in hashes else None
        where = f"{elsewhere.rstrip('/') if elsewhere else HERE + '/sets'}/{folder.name}"
        known[digest] = KnownSet(
            digest, folder.name, card, picture, made, where, files if elsewhere is None else {}
        )
    if known and elsewhere is None:
        names = sorted(k.name for k in known.values())
        (site / "sets" / INDEX).write_text(json.dumps({"sets": names}, indent=1) + "\n")
    return known


def pull_commands(known: KnownSet) -> list[tuple[str, str]]:
    """Returns what fetches a set, for a shell and for Python."""
    digest = known.digest[:16]
    return [
        ("Download its set, checked:", f"dd-bench pull {known.where} --digest {digest}"),
        (
            "Or in Python:",
            f'import dd_bench\nsyn = dd_bench.load("{known.where}", digest="{digest}")\n'
            "train = dd_bench.tensor_dataset(syn)",
        ),
    ]


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
        column("bytes", "Bytes", title="of images or graphs, labels and what decodes them"),
        column("entries", "Entries", wide=True, title="that were measured on it"),
        column("licence", "Licence of the data", "text", wide=True, filter=True),
        column("digest", "Digest", "text", title="of its card, which has the hashes of all its files"),
    ]
    rows = []
    for one in sorted(
        known, key=lambda k: (str(k.card.get("dataset")), _ipc(k), str(k.card.get("method")), k.name)
    ):
        on = sorted(of[one.digest], key=lambda r: (r.created, r.key))
        size = sum(v for v in dict(one.card.get("stored_bytes") or {}).values() if isinstance(v, int))
        method: Any = str(one.card.get("method"))
        at = f"sets/{quote(one.name)}"
        cells: Cells = [{"text": method, "href": entry_at(on[0])} if on else method]
        cells += [str(one.card.get("dataset")), _ipc(one)]
        tensors = f"{at}/synthetic.safetensors"
        shown = {"text": f"{size:,}", "sort": size}
        cells.append(
            shown | ({"href": tensors} if f"sets/{one.name}/synthetic.safetensors" in one.files else {})
        )
        cells += [len(on), str(one.card.get("licence") or "")]
        card = {"text": one.digest[:16], "title": one.where}
        cells.append(card | ({"href": f"{at}/card.json"} if one.files else {}))
        rows.append({"cells": cells})
    return {"columns": columns, "rows": rows}


def _ipc(known: KnownSet) -> int:
    ipc = known.card.get("ipc")
    return ipc if isinstance(ipc, int) else 0


def _safe(name: str) -> bool:
    """Whether a name can stand in a URL and in a command as it is."""
    return re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._+=-]*", name) is not None


def _whole(folder: Path, hashes: Mapping[str, str]) -> bool:
    return all(_safe(str(name)) and file_sha256(folder / name) == wanted for name, wanted in hashes.items())


def _made(card: Mapping[str, Any]) -> str | None:
    """Returns the command that makes a set, None if its configuration is not one of this suite."""
    with suppress(ValueError):
        return distill_command(card["config"], card["method"], card["dataset"])
    return None
