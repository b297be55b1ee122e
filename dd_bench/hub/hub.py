"""Synthetic sets that come from elsewhere and go there: `dd-bench push`, `pull`, `list --remote`, and `dd_bench.load`.

A set is complete where its card is: pushing writes the card last, and a pulled set appears whole, after every hash and
shape was checked, or not at all. Pulled sets are kept by the digest of their card.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from dd_bench.hub.remote import Remote
from dd_bench.runtime.cache import locked
from dd_bench.runtime.files import file_sha256, write_atomic
from dd_bench.runtime.terminal import sanitize
from dd_bench.synthetic import storage
from dd_bench.synthetic.base import SyntheticSet
from dd_bench.synthetic.card import CARD, INDEX, NAME, PROVENANCE, Card, parse_card, tells_its_making


def home() -> Path:
    """Returns the folder of pulled sets: `sets` in `$DD_BENCH_HOME`, which is `~/.cache/dd_bench` if unset."""
    return Path(os.environ.get("DD_BENCH_HOME") or "~/.cache/dd_bench").expanduser() / "sets"


def load(where: str | Path, digest: str | None = None) -> SyntheticSet:
    """Returns the synthetic set in a folder or at a URL, checked; from a URL it is pulled once.

    Args:
        where: a folder, or a URL that fsspec opens: `hf://datasets/USER/NAME@REVISION`, `s3://`, `https://`.
        digest: of the set, or its first eight digits or more, if no other will do. A set that is here already is
            then not asked for.

    Raises:
        ValueError: the set is damaged, or another.
        OSError: it could not be had.
    """
    if "://" in str(where):
        return storage.load(pull(str(where), digest=digest))[0]
    digest = _asked(digest)
    syn, _ = storage.load(Path(where))
    _wanted(storage.digest(Path(where)), digest, str(where))
    return syn


def pull(url: str, to: Path | None = None, digest: str | None = None) -> Path:
    """Fetches a set and returns its folder: `to`, or one named by its digest under `home()`.

    A transfer that was cut goes on where it ended. With a `digest`, a set that is here already needs no connection.

    Raises:
        ValueError: what came is damaged or another set; what was wrong is thrown away.
        FileExistsError: there is something else at `to`.
        OSError: it could not be had, or nothing more can be written.
    """
    digest = _asked(digest)
    if digest and to is None and (kept := _kept(digest)):
        return kept
    there = Remote.at(url)
    try:
        card = there.read(CARD)
    except FileNotFoundError as error:
        here = there.url.removesuffix(f"/{CARD}")
        above = here.rpartition("/")[0]
        more = [above] if re.search(r"://.*[^/]", above) else []
        raise FileNotFoundError(
            f"{url} is no synthetic set: there is no {there.url}/{CARD}. What is beside it, and in it:"
            + "".join(f"\n    dd-bench list --remote {shlex.quote(place)}" for place in [*more, here])
        ) from error
    found = hashlib.sha256(card).hexdigest()
    _wanted(found, digest, url)
    with locked(home() / f".{found[:16]}.lock"):
        if to is None and (kept := _kept(found)):
            return kept
        if to is not None and to.exists():
            if (to / CARD).is_file() and storage.digest(to) == found:
                storage.load(to)
                return to
            raise FileExistsError(f"{to} exists. Remove it first, or choose another place")
        told = parse_card(card, f"{url}/{CARD}")
        partial = (home() if to is None else to.parent) / f".{found[:16]}.partial"
        partial.mkdir(parents=True, exist_ok=True)
        write_atomic(partial / CARD, card)
        try:
            _fetch(there, partial, told)
        except ValueError as error:  # it is not what was wanted, and will not be
            shutil.rmtree(partial)
            raise ValueError(str(error).replace(str(partial), there.url)) from error
        folder = to if to is not None else home() / _name(told, found)
        if to is None and folder.exists():
            shutil.rmtree(folder)  # what `_kept` did not take for a set
        partial.replace(folder)
    return folder


def push(folder: Path, url: str, replace: bool = False) -> str:
    """Copies a set there, checked, and returns its digest. What is there already is not sent again.

    Raises:
        ValueError: the set is damaged, or another one is there and is not to be replaced.
        OSError: it could not be written; a set that is not complete has no card.
    """
    card = storage.load(folder)[1]
    mine = storage.digest(folder)
    files = [*card.sha256, *([PROVENANCE] if tells_its_making(folder) else [])]
    there = Remote.at(url)
    theirs = there.digest(CARD)
    if theirs not in (None, mine) and not replace:
        raise ValueError(f"{url} holds another set ({str(theirs)[:16]}). Use another URL, or --replace")
    if url.startswith("hf://"):
        if theirs != mine:
            _to_hub(folder, url, [*files, CARD])
        return mine
    if theirs not in (None, mine):
        there.remove(CARD)  # first: or the old card would stand beside new files
        if PROVENANCE not in files:
            there.remove(PROVENANCE)  # of the making of another set
    for name in files:
        if there.digest(name) != file_sha256(folder / name):
            there.write(name, folder / name)
    if theirs != mine:
        there.write(CARD, folder / CARD)
    return mine


class Found(NamedTuple):
    """A set that lies somewhere else."""

    url: str
    digest: str
    card: Card


def sets_at(url: str) -> list[Found]:
    """Returns the set at a URL, or those in its folders.

    Raises:
        ValueError: there is none, or a card is not valid.
        OSError: it could not be read.
    """
    there = Remote.at(url)
    index = _index(there)
    own = there.read_all([CARD]) if index is None else {}
    names = [] if own else there.folders() if index is None else index
    cards = own or there.read_all([f"{name}/{CARD}" for name in names])
    for name in index or []:
        if f"{name}/{CARD}" not in cards:
            sys.stderr.write(f"left out: {there.url}/{INDEX} names {name}, which has no {CARD}\n")
    found = []
    for name, content in cards.items():
        where = f"{there.url}/{name}".removesuffix(f"/{CARD}")
        try:
            card = parse_card(content, where)
        except ValueError as error:
            if own:
                raise
            sys.stderr.write(f"left out: {sanitize(str(error))}\n")  # of somebody else, or of a later version
            continue
        found.append(Found(where, hashlib.sha256(content).hexdigest(), card))
    if not found:
        hint = f". If it is a site of dd_bench, its sets are in {there.url}/sets"
        raise ValueError(f"{url} holds no synthetic set, and none of its {len(names)} folders does{hint}")
    return found


def _index(there: Remote) -> list[str] | None:
    """Returns the names of the folders in the index of a web server; None if it has none, or another one.

    Raises:
        ValueError: it names what is no folder.
    """
    if not there.web:
        return None  # whatever else has folders lists them
    try:
        names = json.loads(there.read(INDEX))["sets"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None  # who asks next is told what is wrong with the server
    if not isinstance(names, list) or not all(isinstance(n, str) and re.fullmatch(NAME, n) for n in names):
        raise ValueError(f'{there.url}/{INDEX} is not {{"sets": [names of folders]}}')
    return sorted(set(names))


def push_verb(arguments: Sequence[str]) -> int:
    """`dd-bench push SET URL`: copies a synthetic set to a folder elsewhere, its card last."""
    parser = argparse.ArgumentParser("dd-bench push", description=push_verb.__doc__)
    parser.add_argument("set", type=Path, help="folder of the set")
    parser.add_argument("url", help="s3://BUCKET/FOLDER, hf://datasets/USER/NAME[/FOLDER], file:///FOLDER")
    parser.add_argument("--replace", action="store_true", help="another set that is there")
    args = parser.parse_args(arguments)
    return answered(lambda: f"{args.url}: {push(args.set, args.url, args.replace)}")


def pull_verb(arguments: Sequence[str]) -> int:
    """`dd-bench pull URL`: fetches a synthetic set, checks every hash, and prints its folder."""
    parser = argparse.ArgumentParser("dd-bench pull", description=pull_verb.__doc__)
    parser.add_argument("url", help="hf://datasets/USER/NAME[@REVISION][/FOLDER], s3://, https://, file://")
    parser.add_argument(
        "--to", type=Path, help="folder to make (default: one named by the digest, in the cache)"
    )
    parser.add_argument("--digest", help="of the set, or its first eight digits or more: no other will do")
    args = parser.parse_args(arguments)
    return answered(lambda: str(pull(args.url, args.to, args.digest)))


def answered(act: Callable[[], str]) -> int:
    """Prints what an act returns; what the user can mend is one line on stderr, and exit status 1."""
    try:
        sys.stdout.write(f"{sanitize(act())}\n")
    except (ValueError, OSError, ImportError) as error:
        sys.stderr.write(f"error: {sanitize(str(error))}\n")
        return 1
    return 0


def _fetch(there: Remote, partial: Path, card: Card) -> None:
    """Fills a folder with the files of a card and checks all.

    Raises:
        ValueError: a file is not what the card says, or they are no set.
        OSError: a file could not be had; what has arrived is kept.
    """
    for name, wanted in card.sha256.items():
        before = found = file_sha256(partial / name)
        if found != wanted:
            there.fetch(name, partial / name)
            found = file_sha256(partial / name)
        if found != wanted and before is not None:  # what was here was not its beginning
            (partial / name).unlink()
            there.fetch(name, partial / name)
            found = file_sha256(partial / name)
        if found != wanted:
            raise ValueError(
                f"{there.url}/{name} is not what its card says: sha256 {str(found)[:12]}, wanted {wanted[:12]}. "
                "Nothing of it was kept: pull again, or ask whoever published it"
            )
    with suppress(FileNotFoundError, PermissionError):  # it may be absent, which some stores call forbidden
        write_atomic(partial / PROVENANCE, there.read(PROVENANCE))
    storage.load(partial)


def _kept(digest: str) -> Path | None:
    """Returns the pulled set of a digest, if it is here; one that was damaged since is thrown away."""
    for folder in sorted(home().glob(f"*-{digest[:16]}*")):
        if (folder / CARD).is_file() and storage.digest(folder).startswith(digest):
            try:
                storage.load(folder)
            except ValueError:
                shutil.rmtree(folder)
                continue
            return folder
    return None


def _asked(digest: str | None) -> str | None:
    """Returns a digest as it is compared.

    Raises:
        ValueError: it is none, or too short to tell sets apart.
    """
    if digest is not None and not re.fullmatch("[0-9a-f]{8,64}", digest.lower()):
        raise ValueError(f"{digest!r} is no digest of a set: wanted its first 8 hexadecimal digits or more")
    return digest.lower() if digest else None


def _wanted(found: str, digest: str | None, where: str) -> None:
    if digest and not found.startswith(digest):
        raise ValueError(f"the set at {where} has digest {found[:16]}, wanted {digest}")


def _name(card: Card, digest: str) -> str:
    """Returns the name of a folder; a stranger's card does not choose where it lies."""
    method, dataset = (re.sub(r"[^A-Za-z0-9_]+", "_", word)[:60] for word in (card.method, card.dataset))
    return f"{method}-{dataset}-ipc{card.ipc}-{digest[:16]}"


_REFS = "refs(?:/|%2F)(?:pr|convert)(?:/|%2F)[^/]+"
"""Revisions of the hub that have slashes."""


def _to_hub(folder: Path, url: str, files: list[str]) -> None:
    """Uploads files as one commit, so that a set on the hub is whole or not there.

    Raises:
        ValueError: the URL is not of a dataset.
        OSError: the hub refused.
    """
    from huggingface_hub import HfApi

    match = re.fullmatch(rf"hf://datasets/([^/@]+/[^/@]+)(?:@({_REFS}|[^/]+))?(?:/(.+?))?/?", url)
    if not match:
        raise ValueError(
            f"{url} names no dataset of the hub. Use hf://datasets/USER/NAME[@REVISION][/FOLDER]"
        )
    name, revision, inside = match.groups()
    revision = revision and revision.replace("%2F", "/")
    api = HfApi()
    try:
        api.create_repo(name, repo_type="dataset", exist_ok=True)
        api.upload_folder(
            repo_id=name,
            repo_type="dataset",
            folder_path=folder,
            path_in_repo=inside or ".",
            revision=revision,
            allow_patterns=files,
            # of the making of another set; this one's own comes with the commit
            delete_patterns=[PROVENANCE],
            commit_message=f"Add {folder.name}",
        )
    except Exception as error:  # of the hub, or of the connection
        raise OSError(f"{url}: the hub did not take it: {error}. Are you logged in? hf auth login") from error
