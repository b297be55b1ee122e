"""Entries: records in one folder, each named by its dataset, method, IPC and digest, and never edited."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

from dd_bench.records.record import DIFFERENCES, SHARES, Record, Score, parse_record
from dd_bench.runtime.files import content_key, file_sha256

ACCURACY = "accuracy"
"""The metric that is a fraction in [0, 1] and that tables print in percent, and its evaluator."""


_HERE = Path(__file__).resolve().parents[1]
ROOT = _HERE if (_HERE.parent / "pyproject.toml").exists() else Path("leaderboards")
"""Where boards live: beside this file in a checkout, of an installed wheel under the working directory."""
LONGEST = 80
"""Characters of the name of a board; of a longer one the end is a digest of it."""
GROUPS = ("method", "dataset", "model", "protocol", "evaluator")
"""Groups of the configuration that every run composes."""
BORROWED = "random, hard labels"
"""The row of random images on a board of soft labels, which belong to the sets: random images have their classes."""
TAUGHT = ("static", "replay", "online")
"""Label modes in which teachers say what the answers are."""


class Track(NamedTuple):
    """What two records must share to be compared, save the IPC."""

    dataset: str
    protocol: str
    version: int
    selection: str
    label_mode: str
    evaluator: str
    model: str
    metric: str
    teachers: str

    @classmethod
    def of(cls, record: Record) -> Track:
        """Returns the track a record runs on."""
        return cls(
            record.dataset,
            record.protocol.name,
            record.protocol.version,
            record.selection,
            record.label_mode,
            record.evaluator,
            record.model,
            record.main_metric,
            taught_by(record),
        )

    @property
    def title(self) -> str:
        """The track in words, but for its network, which a table of several has in its columns."""
        labels = f"{self.label_mode} labels" + (f" of {self.teachers}" if self.teachers else "")
        return f"{self.dataset}: {self.metric}, {self.protocol} v{self.version}, {self.selection}, {labels}"

    @property
    def name(self) -> str:
        """The track without its dataset as a file name without suffix; what every track has is left out."""
        parts = [f"{self.protocol}-v{self.version}"] + [self.selection] * (self.selection != "last")
        parts += [self.label_mode] + [self.evaluator] * (self.evaluator != ACCURACY) + [self.model]
        parts += [self.metric] * (self.metric != self.evaluator) + [self.teachers] * bool(self.teachers)
        whole = "--".join(_slug(part) for part in parts)
        return whole if len(whole) <= LONGEST else f"{whole[: LONGEST - 9]}-{content_key(whole)[:8]}"

    @property
    def folder(self) -> str:
        """The dataset as the name of a folder."""
        return _slug(self.dataset)

    @property
    def path(self) -> str:
        """The track as a path without suffix, `<dataset>/<name>`: the name of a board."""
        return f"{self.folder}/{self.name}"

    @property
    def slug(self) -> str:
        """The track as a file name without suffix, where all datasets share a folder."""
        return f"{self.folder}--{self.name}"


def taught_by(record: Record) -> str:
    """Returns the teachers whose answers a record's networks learned, by name: a mean of answers has no order."""
    if record.label_mode not in TAUGHT:
        return ""
    if record.config.get("protocol", {}).get("labels", {}).get("source"):
        return "labels of " + ("+".join(sorted(t.name for t in record.teachers)) or "elsewhere")
    return "+".join(sorted(record.config.get("teachers") or {})) or "labels of elsewhere"


def entry_name(record: Record) -> str:
    """Returns the file name of an entry: `<dataset>-<method>-ipc<N>-<16 hex digits of the digest>.json`."""
    return f"{_slug(record.dataset)}-{_slug(record.method)}-ipc{record.ipc}-{record.digest[:16]}.json"


def entry_path(record: Record) -> str:
    """Returns the path of an entry below the folder of entries: `<dataset>/<name>`."""
    return f"{_slug(record.dataset)}/{entry_name(record)}"


def load_entries(folder: Path) -> list[Record]:
    """Reads every `*.json` of `folder` and of the folders in it, in an order that does not depend on the file system.

    Raises:
        ValueError: the folder is missing, or some files are unreadable, tampered with, out of range or two
            of one experiment. The message names every such file, not the first alone.
    """
    if not folder.is_dir():
        raise ValueError(
            f"no such folder of entries: {folder}. Make it with: dd-bench leaderboard add RECORD"
        )
    problems: list[str] = []
    found: list[tuple[Path, Record]] = []
    for path in sorted((*folder.glob("*.json"), *folder.glob("*/*.json")), key=attrgetter("name")):
        try:
            found.append((path, load_entry(path)))
        except ValueError as error:
            problems.append(str(error))
    problems += duplicates(found)
    if problems:
        raise ValueError("\n".join(problems))
    return sorted((record for _, record in found), key=lambda r: r.key)


def sets_in(folder: Path) -> dict[str, Path]:
    """Returns the synthetic sets in a folder, or in a folder of each dataset, by the sha256 of their card."""
    cards = sorted((*folder.glob("*/card.json"), *folder.glob("*/*/card.json")))
    return {str(file_sha256(card)): card.parent for card in cards}


def check_record(record: Record) -> None:
    """Refuses a record that a board cannot show honestly.

    Raises:
        ValueError: done without a value of its main metric, a value that is not finite, a share outside
            [0, 1], two values for one network, sets that are not those of the values, or a configuration of another
            shape.
    """
    what = f"record {record.key} ({record.method} on {record.dataset})"
    if record.method == BORROWED:
        raise ValueError(f"{what} has the name of a row that boards of soft labels borrow")
    for name, part in _parts(record.config):
        if not isinstance(part, dict):
            raise ValueError(f"{what}: its config.{name} is {part!r}, wanted keys and values")
    sets = len({s.set for s in record.scores})
    if record.status == "done" and record.set_digests and len(set(record.set_digests)) != sets:
        raise ValueError(f"{what} has values of {sets} sets and names {len(set(record.set_digests))}")
    if record.status == "done" and record.main_metric not in record.metrics:
        raise ValueError(f"{what} is done but has no value of its main metric {record.main_metric!r}")
    least_of = {name: -1 if name in DIFFERENCES else 0 for name in record.metrics}
    share = record.main_metric in SHARES
    seen: set[tuple[str, int, int]] = set()
    for score in record.scores:
        if not math.isfinite(score.value):
            raise ValueError(
                f"{_where(what, score)} is not finite. A run without a finite value has status=diverged"
            )
        if share and not least_of[score.metric] <= score.value <= 1:
            raise ValueError(
                f"{_where(what, score)} is no share: wanted a fraction in [0, 1], not a percentage"
            )
        place = score.metric, score.set, score.network
        if place in seen:
            raise ValueError(f"{_where(what, score)} is one of two values of that network; wanted one")
        seen.add(place)


def _where(what: str, score: Score) -> str:
    return f"{what}: {score.metric}={score.value} of set {score.set}, network {score.network}"


def _parts(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yields the parts of a configuration that have keys and values."""
    yield from ((group, config[group]) for group in GROUPS if group in config)
    for group, inner in (("protocol", "labels"), ("protocol", "recipe")):
        if isinstance(config.get(group), dict) and config[group].get(inner) is not None:
            yield f"{group}.{inner}", config[group][inner]
    teachers = config.get("teachers") or {}
    yield "teachers", teachers
    if isinstance(teachers, dict):
        yield from ((f"teachers.{name}", spec) for name, spec in teachers.items() if spec is not None)


def duplicates(found: Sequence[tuple[Path, Record]]) -> list[str]:
    """Returns one message for each pair of files that hold the same experiment."""
    first: dict[str, Path] = {}
    messages = []
    for path, record in found:
        other = first.setdefault(record.key, path)
        if other is not path:
            messages.append(
                f"{other} and {path} are the same experiment (key {record.key}). Keep one of them"
            )
    return messages


def load_entry(path: Path) -> Record:
    """Reads one entry, and refuses it if it was changed after it was added, or a board cannot show it honestly."""
    match = re.search(r"-([0-9a-f]{16})\.json$", path.name)
    if not match:
        raise ValueError(
            f"{path} is not named as an entry is. Put it in with: dd-bench leaderboard add {path}"
        )
    # The bytes, not the parsed record: a later optional field must not change the digest of an old entry.
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if digest[:16] != match[1]:
        raise ValueError(f"{path} was changed after it was added: its content has digest {digest[:16]}")
    record = parse_record(content, path).with_text(content.decode())
    try:
        check_record(record)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return record


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9+=.-]+", "_", text).strip("_.-") or "_"
