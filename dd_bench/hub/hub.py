"""Upload and download synthetic sets: `dd-bench push`, `pull`, `list --remote`, and `dd_bench.load`.

A set is complete if its `card.json` exists. `push` writes this card last. `pull` moves a set to its final folder only
after it has checked every hash and shape. Pulled sets are cached by the digest of their card.
"""

from __future__ import annotations

import hashlib
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from dd_bench.hub.download import download
from dd_bench.hub.remote import Remote
from dd_bench.runtime.cache import locked, user_folder
from dd_bench.runtime.command_help import command_parser
from dd_bench.runtime.files import file_sha256, write_atomic
from dd_bench.runtime.terminal import sanitize
from dd_bench.runtime.untrusted import MAX_JSON, parse_json
from dd_bench.synthetic import storage
from dd_bench.synthetic.card import (
    CARD,
    INDEX,
    MAX_TEXT,
    NAME,
    PROVENANCE,
    README,
    Card,
    has_provenance,
    parse_card,
    parse_provenance,
    read_card,
)

SET, TRAIN = "set", "data/train.parquet"
"""The folder of the set and the Parquet file in a release folder."""
MAX_SETS = 10_000
"""Maximum number of sets in a list of sets at a URL."""


def home() -> Path:
    """Return the cache folder of pulled sets, `$DD_BENCH_HOME/sets`. The variable defaults to `~/.cache/dd_bench`."""
    return user_folder() / "sets"


def located(where: str | Path, digest: str | None = None) -> Path:
    """Return the folder of the set at `where`, a folder or a URL. A set at a URL is downloaded once and cached.

    Args:
        where: a folder, or a URL that fsspec can open: `hf://datasets/USER/NAME@REVISION`, `s3://`, `https://`.
        digest: the required digest of the set, or at least its first 8 digits.

    Raises:
        ValueError: the set has another digest.
        OSError: the set could not be downloaded.
    """
    if "://" in str(where):
        return pull(str(where), digest=digest)
    folder, digest = Path(where), _parse_digest(digest)
    if digest is not None:
        read_card(folder)
        _check_digest(storage.digest(folder), digest, str(where))
    return folder


def pull(url: str, to: Path | None = None, digest: str | None = None) -> Path:
    """Download a set and return its folder: `to`, or a folder under `home()` that is named by the digest.

    An interrupted download continues where it stopped. With `digest`, a cached set requires no connection.

    Raises:
        ValueError: the downloaded set is damaged, and was deleted; or its digest is not `digest`.
        FileExistsError: `to` exists and is not this set.
        OSError: the set could not be downloaded or written.
    """
    digest = _parse_digest(digest)
    if digest and to is None and (cached := _cached(digest)):
        return cached
    remote = Remote.at(url)
    try:
        content = remote.read(CARD)
    except FileNotFoundError as error:
        folder_url = remote.url.removesuffix(f"/{CARD}")
        parent = folder_url.rpartition("/")[0]
        parents = [parent] if re.search(r"://.*[^/]", parent) else []
        raise FileNotFoundError(
            f"{url} is not a synthetic set: {remote.url}/{CARD} does not exist. To list nearby sets:"
            + "".join(f"\n    dd-bench list --remote {shlex.quote(u)}" for u in [*parents, folder_url])
        ) from error
    actual = hashlib.sha256(content).hexdigest()
    _check_digest(actual, digest, url)
    with locked(home() / f".{actual[:16]}.lock"):
        if to is None and (cached := _cached(actual)):
            return cached
        if to is not None and to.exists():
            if (to / CARD).is_file() and storage.digest(to) == actual:
                storage.load(to)
                return to
            raise FileExistsError(f"{to} exists. Remove it first, or choose another folder")
        card = parse_card(content, f"{url}/{CARD}")
        partial = (home() if to is None else to.parent) / f".{actual[:16]}.partial"
        partial.mkdir(parents=True, exist_ok=True)
        write_atomic(partial / CARD, content)
        try:
            _fetch(remote, partial, card)
        except ValueError as error:  # continuing the download would fail again
            shutil.rmtree(partial)
            raise ValueError(str(error).replace(str(partial), remote.url)) from error
        folder = to if to is not None else home() / _folder_name(card, actual)
        if to is None and folder.exists():
            shutil.rmtree(folder)  # `_cached` found that it is not this set or is damaged
        partial.replace(folder)
    return folder


def push(folder: Path, url: str, replace: bool = False) -> str:
    """Check a set, upload it to a URL, and return its digest. Files that are already at the URL are not sent again.

    `folder` is a set, or a release folder (`dd-bench export --format hub`), whose set is then at `url/set`.

    Raises:
        ValueError: the set is damaged, or the URL contains another set and `replace` is False.
        OSError: the upload failed. The card is written last, so an incomplete set has no card.
    """
    inside = f"{SET}/" if is_release(folder) else ""
    card_file, provenance = f"{inside}{CARD}", f"{inside}{PROVENANCE}"
    card = storage.load(folder / inside)[1]
    local = storage.digest(folder / inside)
    files = [f"{inside}{name}" for name in card.sha256]
    if inside:
        files += [name for name in (README, TRAIN) if (folder / name).is_file()]
    if has_provenance(folder / inside):
        files.append(provenance)
    remote = Remote.at(url)
    existing = remote.digest(card_file, MAX_JSON)
    if existing not in (None, local) and not replace:
        raise ValueError(
            f"{url} already contains another set, with digest {str(existing)[:16]}. Use another URL, or --replace"
        )
    if url.startswith("hf://"):
        if existing != local or inside:  # the dataset card of a release changes with its scores
            _upload_to_hub(folder, url, [*files, card_file], replaced=[provenance])
        return local
    if existing not in (None, local):
        remote.remove(card_file)  # first, so that the old card never describes new files
        if provenance not in files:
            remote.remove(provenance)  # belongs to the old set
    for name in files:
        if remote.digest(name, (folder / name).stat().st_size) != file_sha256(folder / name):
            remote.write(name, folder / name)
    if existing != local:
        remote.write(card_file, folder / card_file)
    return local


def is_release(folder: Path) -> bool:
    """Return whether a folder is a release, which `dd-bench export --format hub` writes, and not a set."""
    return (folder / SET / CARD).is_file() and not (folder / CARD).exists()


class RemoteSet(NamedTuple):
    """A synthetic set at a URL."""

    url: str
    digest: str
    card: Card


def sets_at(url: str) -> list[RemoteSet]:
    """Return the set at a URL, or the sets in its subfolders. Invalid cards in subfolders are skipped with a warning.

    Raises:
        ValueError: no set was found, or the card at the URL itself is not valid.
        OSError: the URL could not be read.
    """
    remote = Remote.at(url)
    index = _index(remote)
    own_card = remote.read_all([CARD]) if index is None else {}
    names = [] if own_card else remote.folders() if index is None else index
    if len(names) > MAX_SETS:
        raise ValueError(
            f"{url} lists {len(names):,} sets, but at most {MAX_SETS:,} can be read. Use the URL of a single set"
        )
    cards = own_card or remote.read_all([f"{name}/{CARD}" for name in names])
    for name in index or []:
        if f"{name}/{CARD}" not in cards:
            sys.stderr.write(
                f"warning: skipped {name}: it is listed in {remote.url}/{INDEX}, but has no {CARD}\n"
            )
    sets = []
    for name, content in cards.items():
        where = f"{remote.url}/{name}".removesuffix(f"/{CARD}")
        try:
            card = parse_card(content, where)
        except ValueError as error:
            if own_card:
                raise
            sys.stderr.write(f"warning: skipped a set: {sanitize(str(error))}\n")
            continue
        sets.append(RemoteSet(where, hashlib.sha256(content).hexdigest(), card))
    if not sets:
        hint = f"If it is a website of dd_bench, use {remote.url}/sets"
        raise ValueError(f"{url} contains no synthetic set, nor does any of its {len(names)} folders. {hint}")
    return sets


def _index(remote: Remote) -> list[str] | None:
    """Return the folder names in the index file of a web server, or None if there is no readable index file.

    Raises:
        ValueError: the index contains an invalid folder name.
    """
    if not remote.web:
        return None  # all other file systems can list folders
    try:
        content = remote.read(INDEX)
    except OSError:
        return None  # missing; if the server is unreachable, the next request reports it
    try:
        names = parse_json(content)["sets"]
    except (ValueError, KeyError, TypeError):
        return None  # another file of this name
    if not isinstance(names, list) or not all(isinstance(n, str) and re.fullmatch(NAME, n) for n in names):
        raise ValueError(f'{remote.url}/{INDEX} must contain {{"sets": [folder names]}}, got {names!r:.80}')
    return sorted(set(names))


def push_command(arguments: Sequence[str]) -> int:
    """Upload a synthetic set, or a release folder, to a URL and print the digest of the set."""
    parser = command_parser(
        "push",
        push_command.__doc__,
        "dd-bench push runs/sets/NAME s3://BUCKET/sets/NAME",
        "dd-bench push RELEASE hf://datasets/USER/NAME",
    )
    parser.add_argument(
        "set", type=Path, help="folder of the set, or folder written by dd-bench export --format hub"
    )
    parser.add_argument("url", help="s3://BUCKET/FOLDER, hf://datasets/USER/NAME[/FOLDER], file:///FOLDER")
    parser.add_argument("--replace", action="store_true", help="replace the set at URL if it is another set")
    args = parser.parse_args(arguments)
    where = f"{args.url.rstrip('/')}/{SET}" if is_release(args.set) else args.url
    return print_result(lambda: f"{where}: {push(args.set, args.url, args.replace)}")


def pull_command(arguments: Sequence[str]) -> int:
    """Download a synthetic set, check every hash, and print its folder."""
    parser = command_parser("pull", pull_command.__doc__, "dd-bench pull hf://datasets/USER/NAME --to SET")
    parser.add_argument("url", help="hf://datasets/USER/NAME[@REVISION][/FOLDER], s3://, https://, file://")
    parser.add_argument("--to", type=Path, help="folder to create (default: a folder of the cache)")
    parser.add_argument("--digest", help="required digest of the set, or at least its first 8 digits")
    args = parser.parse_args(arguments)
    return print_result(lambda: str(pull(args.url, args.to, args.digest)))


def print_result(function: Callable[[], str]) -> int:
    """Print the result of `function` and return 0, or print an error caused by user input to stderr and return 1."""
    try:
        sys.stdout.write(f"{sanitize(function())}\n")
    except (ValueError, OSError, ImportError) as error:
        sys.stderr.write(f"error: {sanitize(str(error))}\n")
        return 1
    return 0


def _fetch(remote: Remote, partial: Path, card: Card) -> None:
    """Download the files listed in a card and check them.

    Raises:
        ValueError: a file does not have the sha256 in the card, or the files are not a valid set.
        OSError: a file could not be downloaded. Data received so far is kept.
    """
    received = sum(file.stat().st_size for file in partial.iterdir())
    total, free = sum(card.stored_bytes.values()) - received, shutil.disk_usage(partial).free
    if total > free:
        raise OSError(
            f"{remote.url} needs {total:,} more bytes, but {partial.parent} has only {free:,} bytes of free space"
        )
    for name, expected in card.sha256.items():
        before = actual = file_sha256(partial / name)
        if actual != expected:
            download(remote, name, partial / name, card.size_limit(name))
            actual = file_sha256(partial / name)
        if actual != expected and before is not None:  # the data from an earlier attempt was wrong
            (partial / name).unlink()
            download(remote, name, partial / name, card.size_limit(name))
            actual = file_sha256(partial / name)
        if actual != expected:
            raise ValueError(
                f"{remote.url}/{name} must have sha256 {expected[:12]} as in {CARD}, got {str(actual)[:12]}. "
                "The download was deleted. Pull again, or contact the publisher of the set"
            )
    # optional; some stores answer 403 for a missing file; ValueError: not valid, so it is not copied
    with suppress(FileNotFoundError, PermissionError, ValueError):
        content = remote.read(PROVENANCE, MAX_TEXT)
        parse_provenance(content)
        write_atomic(partial / PROVENANCE, content)
    storage.load(partial)


def _cached(digest: str) -> Path | None:
    """Return the folder of the pulled set with this digest, or None if there is none. Delete a damaged set."""
    for folder in sorted(home().glob(f"*-{digest[:16]}*")):
        if (folder / CARD).is_file() and storage.digest(folder).startswith(digest):
            try:
                storage.load(folder)
            except ValueError:
                shutil.rmtree(folder)
                continue
            return folder
    return None


def _parse_digest(digest: str | None) -> str | None:
    """Return a digest, or the beginning of one, in lower case.

    Raises:
        ValueError: the digest is not hexadecimal, or has fewer than 8 or more than 64 digits.
    """
    if digest is not None and not re.fullmatch("[0-9a-f]{8,64}", digest.lower()):
        raise ValueError(f"the digest must be 8 to 64 hexadecimal digits, got {digest!r}. Example: 1a2b3c4d")
    return digest.lower() if digest else None


def _check_digest(actual: str, digest: str | None, where: str) -> None:
    if digest and not actual.startswith(digest):
        raise ValueError(f"the set at {where} must have digest {digest}, got {actual[:16]}")


def _folder_name(card: Card, digest: str) -> str:
    """Return the folder name of a set, without special characters, so that an untrusted card cannot choose a path."""
    method, dataset = (re.sub(r"[^A-Za-z0-9_]+", "_", word)[:60] for word in (card.method, card.dataset))
    return f"{method}-{dataset}-ipc{card.ipc}-{digest[:16]}"


_REFS = "refs(?:/|%2F)(?:pr|convert)(?:/|%2F)[^/]+"
"""Regular expression of those revisions on the Hugging Face hub that contain slashes."""


def _upload_to_hub(folder: Path, url: str, files: list[str], replaced: list[str]) -> None:
    """Upload files in one commit, so that a set on the Hugging Face hub is never incomplete.

    Args:
        folder: the local folder.
        url: URL of the dataset, or of a folder in it.
        files: files to upload, by their paths in `folder`.
        replaced: files at the URL that are deleted, unless they are in `files`.

    Raises:
        ValueError: the URL is not the URL of a dataset.
        OSError: the upload failed.
    """
    from huggingface_hub import HfApi

    match = re.fullmatch(rf"hf://datasets/([^/@]+/[^/@]+)(?:@({_REFS}|[^/]+))?(?:/(.+?))?/?", url)
    if not match:
        raise ValueError(f"the URL must be hf://datasets/USER/NAME[@REVISION][/FOLDER], got {url}")
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
            delete_patterns=replaced,
            commit_message=f"Add {folder.name}",
        )
    except Exception as error:  # errors of the hub and of the connection have no common class
        raise OSError(
            f"upload to {url} failed: {error}. If you are not logged in, run: hf auth login"
        ) from error
