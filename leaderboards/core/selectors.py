"""Select one entry by its dataset, protocol and method, for claims and for the values in the text of pages.

A selector is a line of words: `DATASET PROTOCOL METHOD key=value ...`, for example

    fashion_mnist mtt-1000 mtt ipc=10 method.gradient=truncated

A protocol with changed values is written out, or as `mtt-1000(...)`. A key is `ipc`, `model`, `evaluator`, `labels` or
a dotted path of the configuration (`model.width=32`). `model=gcn` selects every network of that name,
`model='gcn(layers=2)'` exactly this one. For a linear probe, `model` is the probed backbone, and `made_with` is the
backbone of the set. Without `evaluator=`, the evaluators of `MAIN_EVALUATORS` are selected.
`metric=` does not select an entry: it is the metric to read, the main metric by default. Sets with another precision
(`method.store`, `dd-bench quantise`) are selected only by their values, `stored.bits=4 stored.per=image`.

After `vs`, `stored=none` selects a set without these values, and `ipc` and `stored.bits` may differ, for a comparison
at equal bits: `dm ipc=1 stored.bits=3 vs entropy method.pick=easy ipc=2 stored=none`. `protocol=NAME` selects the same
sets with other labels, if the recipes of both protocols are equal.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dd_bench.records.config_diff import STORED, changed_keys
from dd_bench.records.record import Record

from .entries import Track, distilling_backbone, has_stored_precision
from .hyperparameters import origin

MAIN_EVALUATORS = ("accuracy", "controls", "graph", "node")
"""Evaluators whose main metric measures how well networks learn from a set."""


_PAIR = re.compile(r"[\w.]+=")


class NotMeasuredError(ValueError):
    """No entry matches a selector."""


@dataclass(frozen=True)
class Selector:
    """The conditions that an entry must meet."""

    dataset: str
    protocol: str
    method: str
    where: Mapping[str, str]
    metric: str | None = None

    @classmethod
    def parse(cls, words: Sequence[str]) -> Selector:
        """Return the selector of a line, split into words.

        Raises:
            ValueError: the line does not have exactly three words without `=`.
        """
        bare, where = split_words(words)
        if len(bare) != 3:
            raise ValueError(
                f"a selector must have a dataset, a protocol and a method, got {shlex.join(bare)!r}. "
                "Example: fashion_mnist dc-300 dm ipc=10"
            )
        metric = where.pop("metric", None)
        return cls(bare[0], bare[1], bare[2], where, metric)

    def other(self, words: Sequence[str]) -> Selector:
        """Return the second selector of a comparison, which states only what differs from this one.

        Another method does not inherit conditions on hyper-parameters (`method.`) and on the backbone (`made_with`).
        """
        bare, where = split_words(words)
        if len(bare) > 1:
            raise ValueError(f"after `vs`, at most one method is expected, got {shlex.join(bare)!r}")
        metric, protocol = where.pop("metric", self.metric), where.pop("protocol", self.protocol)
        same = {k: v for k, v in self.where.items() if not bare or not k.startswith(("method.", "made_with"))}
        if where.pop(STORED, None) == "none":
            same = {k: v for k, v in same.items() if not k.startswith(f"{STORED}.")}
        method = (bare or [self.method])[0]
        return replace(self, protocol=protocol, method=method, where=same | where, metric=metric)

    def matches(self, record: Record) -> bool:
        """Return whether a finished entry meets every condition."""
        if record.status != "done" or (record.dataset, record.method) != (self.dataset, self.method):
            return False
        if has_stored_precision(record) != any(key.startswith(f"{STORED}.") for key in self.where):
            return False
        name = record.protocol.name
        if self.protocol not in (name, f"{name.partition('(')[0]}(...)" if "(" in name else name):
            return False
        if "evaluator" not in self.where and record.evaluator.partition("(")[0] not in MAIN_EVALUATORS:
            return False
        return all(_meets(record, key, value) for key, value in self.where.items())

    def text(self) -> str:
        """Return the line without the metric."""
        return shlex.join(
            [self.dataset, self.protocol, self.method, *(f"{k}={v}" for k, v in self.where.items())]
        )


def select(entries: Iterable[Record], selector: Selector) -> Record:
    """Return the matching entry with the largest budget.

    An entry with more iterations is preferred, then one with more experts, a wider network, more real images per step,
    hyper-parameters that were not chosen on test data, more sets, more networks, fewer changed hyper-parameters, and a
    later date. A longer run therefore replaces a reduced one as soon as its entry is added.

    Raises:
        NotMeasuredError: no entry matches.
    """
    return _candidates(entries, selector)[0]


def select_pair(entries: Sequence[Record], first: Selector, second: Selector) -> tuple[Record, Record]:
    """Return two entries of one track; of several pairs, the one whose first entry has the largest budget.

    If the protocols differ, the entries must have the same sets, recipe and track, except for the labels. If the
    selectors differ in the metric only, the two entries are the same.

    Raises:
        NotMeasuredError: no entry matches, or no two matching entries are of the same track.
    """
    firsts, seconds = _candidates(entries, first), _candidates(entries, second)
    if replace(first, metric=None) == replace(second, metric=None):
        return firsts[0], firsts[0]
    for a in firsts:
        for b in seconds:
            if Track.of(a) == Track.of(b) or (first.protocol != second.protocol and _differ_in_labels(a, b)):
                return a, b
    raise NotMeasuredError(f"no entries of {first.text()} and {second.text()} are of the same track")


def _differ_in_labels(a: Record, b: Record) -> bool:
    """Return whether two entries have the same sets, recipe and track, except for the labels."""
    tracks = [Track.of(r)._replace(protocol="", version=0, label_mode="", teachers="") for r in (a, b)]
    recipes = [r.config.get("protocol", {}).get("recipe") for r in (a, b)]
    return tracks[0] == tracks[1] and recipes[0] == recipes[1] is not None and a.set_digests == b.set_digests


def _candidates(entries: Iterable[Record], selector: Selector) -> list[Record]:
    found = [r for r in entries if selector.matches(r)]
    if not found:
        raise NotMeasuredError(f"no entry matches: {selector.text()}")
    return sorted(found, key=by_budget, reverse=True) if len(found) > 1 else found


def by_budget(record: Record) -> tuple[Any, ...]:
    """Return the sort key by which the entry with the largest budget is the last, see `select`."""
    summary = record.summary()
    numbers = [
        config_value(record, path, 0)
        for path in ("method.iterations", "method.experts.count", "model.width", "method.batch_real")
    ]
    changed = len(changed_keys("method", record.method, record.config.get("method", {})))
    on_test = origin(record).choice == "test"
    return (
        *numbers,
        not on_test,
        summary.num_sets,
        summary.num_networks,
        -changed,
        record.created,
        record.key,
    )


def config_value(record: Record, path: str, default: Any = None) -> Any:
    """Return the value at a dotted path of the configuration of a record, `default` if it is missing or null."""
    found: Any = record.config
    for name in path.split("."):
        found = found.get(name) if isinstance(found, Mapping) else None
    return default if found is None else found


def _meets(record: Record, key: str, value: str) -> bool:
    if key == "ipc":
        return str(record.ipc) == value
    if key == "labels":
        return record.label_mode == value
    if key == "made_with":
        return distilling_backbone(record) == value
    if key in ("model", "evaluator"):
        described: str = Track.of(record).model if key == "model" else record.evaluator
        return value in (described, described.partition("(")[0])
    found = config_value(record, key)
    if type(found) in (int, float):
        return re.fullmatch(r"-?[\d.]+(e-?\d+)?", value) is not None and found == float(value)
    return str(found) == value


def split_words(words: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Separate the words without a key from the pairs `key=value`."""
    pairs = [word.partition("=") for word in words if _PAIR.match(word)]
    return [word for word in words if not _PAIR.match(word)], {key: value for key, _, value in pairs}
