"""Entries: immutable record files, each named by its dataset, method, IPC and digest."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

from dd_bench.records.config_diff import STORED, describe
from dd_bench.records.record import DIFFERENCES, Record, load_record, parse_record
from dd_bench.runtime import untrusted
from dd_bench.runtime.files import content_key
from dd_bench.runtime.hidden import is_hidden

ACCURACY = "accuracy"
"""The metric in [0, 1] that tables show in percent; also the name of its evaluator."""

_HERE = Path(__file__).resolve().parents[1]
ROOT = _HERE if (_HERE.parent / "pyproject.toml").exists() else Path("leaderboards")
"""Folder of entries, sets and tables: this package in a checkout, `./leaderboards` for an installed wheel."""
RECORDS = "records"
"""Name of the folder to which runs write their records."""
MAX_NAME_LENGTH = 80
"""Maximum length of a board's file name; a longer name is cut and ends in a digest of the full name."""
GROUPS = ("method", "dataset", "model", "protocol", "evaluator")
"""Configuration groups of every run."""
HARD_LABEL_RANDOM = "random, hard labels"
"""Row of the random baseline on a soft-label board. Random images have no learned labels, so they use hard labels."""
BASELINES = (
    "full",
    "random",
    "herding",
    "kcenter",
    "kmeans",
    "centroid",
    "neighbours",
    "herding_graphs",
    "kcenter_graphs",
    "kmeans_graphs",
)
"""Rows that come first, in this order."""
REFERENCE = "full"
"""The whole training set: an upper bound without an IPC, shown in every column and never ranked."""
REFERENCE_PROTOCOL = "full-30"
"""Protocol that trains on the whole training set for 30 epochs, where the protocol of a board takes too long."""
FOREIGN_REFERENCE = f"{REFERENCE} ({REFERENCE_PROTOCOL})"
"""Row of the whole training set under another protocol, on boards without a row `full`."""
CONTROL = "random"
"""The baseline of random images. It shows how accurate networks are with these labels and this protocol alone."""
LABEL_COMPARISON = "labels-400"
"""Protocol whose entries compare kinds of labels. There are dozens of kinds, so they share the page `label_bits`."""
LINEAR_PROBE = "linear_probe"
"""Evaluator of linear heads on a frozen backbone, which is the network of its track."""
TEACHER_MODES = ("static", "replay", "online")
"""Label modes in which teachers provide the labels."""


def has_stored_precision(record: Record) -> bool:
    """Return whether the images of the set have a precision chosen by `method.store` or `dd-bench quantise`.

    Boards, which compare methods, do not show these records. `bits.md` and `cost.md` do.
    """
    return STORED in record.config


def is_reference(label: str) -> bool:
    """Return whether a row of a board is the whole training set, under the protocol of the board or `full-30`."""
    return label in (REFERENCE, FOREIGN_REFERENCE)


class Track(NamedTuple):
    """The properties in which two records must be equal to be on the same board.

    The IPC is not one of them: a board has one column per IPC. Only records with the same IPC are ranked.
    """

    dataset: str
    protocol: str
    version: int
    selection: str
    label_mode: str
    evaluator: str
    model: str
    metric: str
    teachers: str

    @property
    def compares_labels(self) -> bool:
        """Whether the entries are on the page `label_bits` instead of pages, tables of cost and plots of their own."""
        return self.protocol.startswith(LABEL_COMPARISON)

    @classmethod
    def of(cls, record: Record) -> Track:
        """Return the track of a record."""
        return cls(
            record.dataset,
            record.protocol.name,
            record.protocol.version,
            record.selection,
            record.label_mode,
            record.evaluator,
            probed_backbone(record) or record.model,
            record.main_metric,
            teacher_names(record),
        )

    @property
    def title(self) -> str:
        """A description of the track that omits the network, for tables with one column for each network."""
        labels = f"{self.label_mode} labels" + (f" ({self.teachers})" if self.teachers else "")
        return f"{self.dataset}: {self.metric}, {self.protocol} v{self.version}, {self.selection}, {labels}"

    @property
    def name(self) -> str:
        """File name of the track, without dataset and suffix. The defaults `last` and `accuracy` are omitted."""
        parts = [f"{self.protocol}-v{self.version}"] + [self.selection] * (self.selection != "last")
        parts += [self.label_mode] + [self.evaluator] * (self.evaluator != ACCURACY) + [self.model]
        parts += [self.metric] * (self.metric != self.evaluator) + [self.teachers] * bool(self.teachers)
        whole = "--".join(_slug(part) for part in parts)
        return (
            whole
            if len(whole) <= MAX_NAME_LENGTH
            else f"{whole[: MAX_NAME_LENGTH - 9]}-{content_key(whole)[:8]}"
        )

    @property
    def folder(self) -> str:
        """Folder name of the dataset."""
        return _slug(self.dataset)

    @property
    def path(self) -> str:
        """The name of the board: `<dataset>/<name>`, a path without suffix."""
        return f"{self.folder}/{self.name}"

    @property
    def slug(self) -> str:
        """File name of the track, with dataset and without suffix, for a folder that all datasets share."""
        return f"{self.folder}--{self.name}"


def probed_backbone(record: Record) -> str:
    """Return the backbone whose features were probed, with the values that differ from its YAML; '' without a probe.

    It is the network of the track: a linear probe does not use the network of the run.
    """
    if record.evaluator.partition("(")[0] != LINEAR_PROBE:
        return ""
    for name, values in (record.config.get("teachers") or {}).items():
        return describe("teacher", name, {k: v for k, v in (values or {}).items() if k != "keep"})
    return ""


def distilling_backbone(record: Record) -> str:
    """Return the name of the teacher that the set of a linear probe was made with; '' if it needs none."""
    return "+".join(t.name for t in record.teachers)


def teacher_names(record: Record) -> str:
    """Return the sorted names of the teachers that provided the labels of a record; '' without teacher labels."""
    if record.label_mode not in TEACHER_MODES:
        return ""
    if record.config.get("protocol", {}).get("labels", {}).get("source"):
        return "labels of " + ("+".join(sorted(t.name for t in record.teachers)) or "elsewhere")
    return "+".join(sorted(record.config.get("teachers") or {})) or "labels of elsewhere"


def entry_name(record: Record) -> str:
    """Return the file name of an entry: `<dataset>-<method>-ipc<N>-<16 hex digits of the digest>.json`."""
    return f"{_slug(record.dataset)}-{_slug(record.method)}-ipc{record.ipc}-{record.digest[:16]}.json"


def entry_path(record: Record) -> str:
    """Return the path of an entry relative to the folder of entries: `<dataset>/<name>`."""
    return f"{_slug(record.dataset)}/{entry_name(record)}"


def load_entries(folder: Path) -> list[Record]:
    """Read every `*.json` in `folder` and its direct subfolders, sorted by key.

    A folder named `records`, to which runs write, may also contain records that were not added as entries.

    Raises:
        ValueError: the folder is missing, or a file is unreadable, was modified, has values out of range, or contains
            the same experiment as another file. The message lists all such files.
    """
    if not folder.is_dir():
        raise ValueError(
            f"the folder of entries {folder} does not exist. Create it with: dd-bench leaderboard add RECORD\n"
            f"For tables of your own records: dd-bench leaderboard build --entries runs/{RECORDS}"
        )
    problems: list[str] = []
    found: list[tuple[Path, Record]] = []
    paths = (p for pattern in ("*.json", "*/*.json") for p in visible(folder, pattern))
    for path in sorted(paths, key=attrgetter("name")):
        try:
            is_record = folder.name == RECORDS and re.fullmatch(r"[0-9a-f]{16}\.json", path.name)
            found.append((path, _load_record(path) if is_record else load_entry(path)))
        except ValueError as error:
            problems.append(str(error))
    problems += duplicates(found)
    if problems:
        raise ValueError("\n".join(problems))
    return sorted((record for _, record in found), key=lambda r: r.key)


def _load_record(path: Path) -> Record:
    record = load_record(path)
    try:
        check_record(record)
    except ValueError as error:
        raise ValueError(f"{path}: {untrusted.shorten(error)}") from error
    return record


def visible(folder: Path, pattern: str) -> Iterator[Path]:
    """Yield the paths below a folder that match a pattern, without hidden files and folders."""
    for path in folder.glob(pattern):
        if not any(is_hidden(name) for name in path.relative_to(folder).parts):
            yield path


def set_cards(folder: Path) -> list[Path]:
    """Return the cards of the synthetic sets in `folder` and its subfolders, sorted."""
    return sorted((*visible(folder, "*/card.json"), *visible(folder, "*/*/card.json")))


def sets_in(folder: Path) -> dict[str, Path]:
    """Return the folders of the synthetic sets in `folder` or its subfolders, by the sha256 of their card.

    Cards that are not regular files, or are too large, are omitted.
    """
    found = {}
    for card in set_cards(folder):
        with suppress(OSError, ValueError):
            found[untrusted.sha256(card, untrusted.MAX_JSON)] = card.parent
    return found


def check_record(record: Record) -> None:
    """Check that a board can show a record.

    Raises:
        ValueError: the record is a trial of dd-bench tune, has status `done` but no value of its main metric, a value
            that is not finite, a fraction outside [0, 1], two values for one network, different numbers of sets and of
            set digests, or a configuration with the wrong structure.
    """
    what = f"record {record.key} ({record.method} on {record.dataset})"
    if record.split != "test":
        raise ValueError(
            f"{what} is a trial of dd-bench tune, scored on the {record.split} split. A board shows scores on the test "
            "split. Measure the chosen hyper-parameters: dd-bench run ... tuning=runs/tune/NAME/tuning.json"
        )
    if record.method == HARD_LABEL_RANDOM:
        raise ValueError(
            f"{what}: method {HARD_LABEL_RANDOM!r} is reserved for a row of boards with soft labels. "
            "Use another method name"
        )
    for name, part in _mappings(record.config):
        if not isinstance(part, dict):
            raise ValueError(f"{what}: config.{name} must be a mapping, got {part!r}")
    sets = len({s.set for s in record.scores})
    if record.status == "done" and record.set_digests and len(set(record.set_digests)) != sets:
        raise ValueError(
            f"{what} must have one set digest for each of its {sets} sets, got {len(set(record.set_digests))}"
        )
    if record.status == "done" and record.main_metric not in record.metrics:
        raise ValueError(
            f"{what} has status 'done', so it must have a value of its main metric {record.main_metric!r}, "
            f"got only {sorted(record.metrics)}"
        )
    minimum = {name: -1 if name in DIFFERENCES else 0 for name in record.metrics}
    share = record.is_share
    seen: set[tuple[str, int, int]] = set()
    for score in record.scores:
        where = f"{what}: {score.metric}={score.value} of set {score.set}, network {score.network}"
        if not math.isfinite(score.value):
            raise ValueError(
                f"{where} must be finite. The record of a run that diverged has status 'diverged'"
            )
        if share and not minimum[score.metric] <= score.value <= 1:
            raise ValueError(f"{where} must be a fraction in [{minimum[score.metric]}, 1], not a percentage")
        index = score.metric, score.set, score.network
        if index in seen:
            raise ValueError(
                f"{where} is a second value of this network, but each network must have one value"
            )
        seen.add(index)


def _mappings(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the parts of a configuration that must be mappings, with their names."""
    yield from ((group, config[group]) for group in GROUPS if group in config)
    for group, inner in (("protocol", "labels"), ("protocol", "recipe")):
        if isinstance(config.get(group), dict) and config[group].get(inner) is not None:
            yield f"{group}.{inner}", config[group][inner]
    teachers = config.get("teachers") or {}
    yield "teachers", teachers
    if isinstance(teachers, dict):
        yield from ((f"teachers.{name}", spec) for name, spec in teachers.items() if spec is not None)


def duplicates(found: Sequence[tuple[Path, Record]]) -> list[str]:
    """Return one message for each pair of files that contain the same experiment."""
    first: dict[str, Path] = {}
    messages = []
    for path, record in found:
        other = first.setdefault(record.key, path)
        if other is not path:
            messages.append(
                f"{other} and {path} contain the same experiment (key {record.key}). Keep one of them"
            )
    return messages


def load_entry(path: Path) -> Record:
    """Read one entry.

    Raises:
        ValueError: the file is not named like an entry, was changed after it was added, or a board cannot show it.
    """
    match = re.search(r"-([0-9a-f]{16})\.json$", path.name)
    if not match:
        raise ValueError(
            "the name of an entry must end in -<16 hexadecimal digits>.json, "
            f"got {path}. If it is a record, add it: dd-bench leaderboard add {path}"
        )
    # Hash the bytes, not the parsed record: a later optional field must not change the digest of an old entry.
    try:
        content = untrusted.read_bytes(path)
    except OSError as error:
        raise ValueError(f"{path} could not be read: {error}") from error
    digest = hashlib.sha256(content).hexdigest()
    if digest[:16] != match[1]:
        raise ValueError(
            f"{path} was changed after it was added: its content has digest {digest[:16]}, but its name has "
            f"{match[1]}. Restore it, for example with: git checkout {path}"
        )
    record = parse_record(content, path).with_text(content.decode())
    try:
        check_record(record)
    except ValueError as error:
        raise ValueError(f"{path}: {untrusted.shorten(error)}") from error
    return record


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9+=.-]+", "_", text).strip("_.-") or "_"
