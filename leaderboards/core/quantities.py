"""Numbers of entries, benchmark files, published tables and shipped YAML files, each named by one line of words.

    mean SELECTOR                  mean of the networks: 81.8
    score SELECTOR                 mean with its 95 % interval: 81.8 [80.0, 83.6]
    diff SELECTOR vs OTHER         mean difference with its 95 % interval: 1.7 [-0.3, 3.7]. If an entry has one value,
                                   the interval is bounded by the sum of the entries' own intervals, of which that of
                                   a value without an interval is empty
    gap SELECTOR vs OTHER          mean difference without the interval: 1.7
    networks SELECTOR              number of networks: 5, or 10×2 for ten sets with two networks each
    config SELECTOR PATH           a value of the configuration: `method.iterations`
    bits SELECTOR [KIND]           stored bits without hard labels; with KIND `entropy` or `file`, of compressed codes;
                                   with `vs OTHER`, the ratio to those of another entry
    bytes SELECTOR [PART]          stored bytes; with `vs OTHER`, the ratio to those of another entry
    seconds SELECTOR [STAGE]       seconds of a stage, `distill` by default; with `vs OTHER`, the ratio
    size SELECTOR NAME             a size of a set of graphs, e.g. 'paper bytes'; with `vs OTHER`, the ratio
    teacher SELECTOR INDEX         test accuracy of a teacher
    benchmark FILE PATH            a value of benchmarks/results/FILE.json; values of repetitions have an interval.
                                   PATH[0::2] takes every second repetition
    benchmark FILE PATH vs PATH    the difference of two values, paired by repetition
    published DATASET MODEL METHOD ipc=N [source=TEXT]   a published number, with † if it is quoted
    shipped GROUP NAME PATH        a value of conf/GROUP/NAME.yaml: the setting of a paper
    ratio LINE / LINE              quotient of two of the above

`SELECTOR` and `OTHER` are defined in `selectors`. `OTHER` may have another IPC, precision or kind of labels. `digits=N`
sets the number of decimals. `percent=no` prints a share instead of per cent.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

from dd_bench.records.config_diff import shipped_config
from dd_bench.records.intervals import Difference, paired_difference, t_interval
from dd_bench.records.record import SHARES, Record

from .bits import entropy_bits, file_bits, stored_bits
from .differences import difference
from .method_info import is_deterministic
from .published import PublishedSet
from .selectors import NotMeasuredError, Selector, config_value, select, select_pair, split_words


@dataclass(frozen=True)
class Quantity:
    """A number, its 95 % interval (the number itself if it has none), its text, and what it was read from."""

    value: float
    low: float
    high: float
    text: str
    records: tuple[Record, ...] = ()
    source: str = ""  # of a published number
    uncertain: bool = False
    """Whether the number, or a side of the difference, varies between runs but has no interval."""


@dataclass(frozen=True)
class Sources:
    """What the numbers are read from: entries, published numbers, and the folder of benchmark results."""

    entries: Sequence[Record]
    published: Sequence[PublishedSet]
    benchmarks: Path
    _seen: dict[str, Quantity] = field(default_factory=dict, compare=False)

    def read(self, line: str) -> Quantity:
        """Return the number of a line.

        Raises:
            NotMeasuredError: no entry matches a selector of the line.
            ValueError: the line cannot be parsed, or names something that does not exist.
        """
        if line not in self._seen:
            self._seen[line] = self._read(line)
        return self._seen[line]

    def _read(self, line: str) -> Quantity:
        words = shlex.split(line)
        name, rest = (words or [""])[0], words[1:]
        if name not in _FUNCTIONS:
            raise ValueError(f"unknown function {name!r} in {line!r}. Functions: {', '.join(_FUNCTIONS)}")
        options = {
            key: rest.pop(i)[len(key) + 1 :] for key in _OPTIONS if (i := _index(rest, key)) is not None
        }
        try:
            return _FUNCTIONS[name](self, rest, _Format(options))
        except (KeyError, IndexError, TypeError) as error:
            raise ValueError(f"{line!r} names a value that does not exist: {error!r}") from error

    def benchmark(self, name: str) -> Any:
        """Return the content of a file of benchmark results.

        Raises:
            NotMeasuredError: the file does not exist.
        """
        path = self.benchmarks / f"{name}.json"
        if not path.exists():
            raise NotMeasuredError(f"no file of benchmark results: {path.name}")
        if name not in self._files:
            self._files[name] = json.loads(path.read_text())
        return self._files[name]

    @cached_property
    def _files(self) -> dict[str, Any]:
        return {}


_OPTIONS = ("digits", "percent")
_PERCENT = tuple(name for name in SHARES if name != "auc")
"""Main metrics of entries whose metrics are printed in per cent."""


def _index(words: Sequence[str], key: str) -> int | None:
    return next((i for i, word in enumerate(words) if word.startswith(f"{key}=")), None)


@dataclass(frozen=True)
class _Format:
    """Decimals and unit of a number."""

    options: Mapping[str, str]

    def __call__(self, value: float, record: Record | None = None) -> str:
        """Return an accuracy in per cent, another share with two decimals and without a zero before the point.

        `record` is an entry whose metrics have the unit of the value.
        """
        share = record is not None
        percent = (
            record is not None and record.main_metric in _PERCENT and self.options.get("percent") != "no"
        )
        digits = self.options.get("digits", "1" if percent else "2" if share else None)
        if digits is None:
            return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:,.2g}"
        text = f"{100 * value if percent else value:,.{digits}f}"
        text = text.removeprefix("-") if not float(text.replace(",", "")) else text  # no negative zero
        return text.replace("0.", ".", 1) if share and not percent and abs(value) < 1 else text


def _with_interval(low: float, mean: float, high: float, text: Callable[[float], str]) -> str:
    return f"{text(mean)} [{text(low)}, {text(high)}]"


def _mean(sources: Sources, words: Sequence[str], form: _Format) -> Quantity:
    selector = Selector.parse(words)
    record = select(sources.entries, selector)
    low, mean, high = _bounded(record, selector.metric)
    uncertain = _is_uncertain(record, low, high)
    return Quantity(mean, low, high, form(mean, record), (record,), uncertain=uncertain)


def _is_uncertain(record: Record, low: float, high: float) -> bool:
    """Return whether a value has no interval although it would differ in another run.

    The interval of a correlation that covers all of its values, -1 to 1, counts as none.
    """
    closed_form = config_value(record, "protocol.probe.ridge") is not None
    exact = closed_form and is_deterministic(record.method)
    return not exact and (low == high or (low, high) == (-1.0, 1.0))


def _bounded(record: Record, metric: str | None) -> tuple[float, float, float]:
    """Return the lower end of the interval, the mean and the upper end; three equal values without an interval."""
    metric = metric or record.main_metric
    s, (low, high) = record.summary(metric), (f"{metric}_low", f"{metric}_high")
    if s.ci_low is not None and s.ci_high is not None:
        return s.ci_low, s.mean, s.ci_high
    if {low, high} <= set(record.metrics):  # the evaluator's own interval
        return record.summary(low).mean, s.mean, record.summary(high).mean
    return s.mean, s.mean, s.mean


def _score(sources: Sources, words: Sequence[str], form: _Format) -> Quantity:
    found = _mean(sources, words, form)
    (record,) = found.records
    text = _with_interval(found.low, found.value, found.high, lambda x: form(x, record))
    return replace(found, text=text)


def _diff(sources: Sources, words: Sequence[str], form: _Format) -> Quantity:
    a, b, first, second = _pair(sources, words)
    uncertain = False
    if min(len(a.sample(first.metric)), len(b.sample(second.metric))) > 1:
        d = difference(a, b, first.metric, second.metric)
    else:  # e.g. a rank correlation, whose interval is over the ranked networks
        x, y = _bounded(a, first.metric), _bounded(b, second.metric)
        d = Difference(x[1] - y[1], x[0] - y[2], x[2] - y[0], float("nan"), 1)
        uncertain = _is_uncertain(a, x[0], x[2]) or _is_uncertain(b, y[0], y[2])
    text = _with_interval(d.low, d.mean, d.high, lambda x: form(x, a))
    records = (a, b) if a is not b else (a,)
    return Quantity(d.mean, d.low, d.high, text, records, uncertain=uncertain)


def _gap(sources: Sources, words: Sequence[str], form: _Format) -> Quantity:
    found = _diff(sources, words, form)
    return replace(found, text=form(found.value, found.records[0]))


def _networks(sources: Sources, words: Sequence[str], form: _Format) -> Quantity:
    record = select(sources.entries, Selector.parse(words))
    sets = record.by_set(record.main_metric)
    total = sum(map(len, sets))
    text = str(total) if len(sets) == 1 else f"{len(sets)}×{total // len(sets)}"
    return Quantity(total, total, total, text, (record,))


def _config(sources: Sources, words: Sequence[str], form: _Format) -> Quantity:
    record = select(sources.entries, Selector.parse(words[:-1]))
    return _exact(config_value(record, words[-1]), form, record)


def _measure(read: Callable[[Record, str], float], default: str) -> _Function:
    """Return a function of a value of one entry, or of its ratio to the same value of another entry."""

    def function(sources: Sources, words: Sequence[str], form: _Format) -> Quantity:
        first_words, second_words = _parts(words)
        *selector_words, name = first_words
        if "=" in name:
            selector_words, name = [*selector_words, name], default
        first = Selector.parse(selector_words)
        if not second_words:
            record = select(sources.entries, first)
            return _exact(read(record, name), form, record)
        # sizes and seconds do not depend on the network that was evaluated, so the tracks may differ
        a, b = (select(sources.entries, s) for s in (first, first.other(second_words)))
        ratio = read(a, name) / read(b, name)
        return Quantity(ratio, ratio, ratio, form(ratio), (a, b))

    return function


def _bits(record: Record, kind: str) -> float:
    found = {"stored": stored_bits, "entropy": entropy_bits, "file": file_bits}[kind](record)
    if found is None:
        raise KeyError(f"{kind} of a set without codes")
    return found


def _stored(record: Record, part: str) -> float:
    return sum(record.stored_bytes.values()) if part == "all" else record.stored_bytes[part]


def _seconds(record: Record, stage: str) -> float:
    return record.seconds[stage] / (record.summary().num_sets if stage == "distill" else 1)


def _teacher(sources: Sources, words: Sequence[str], form: _Format) -> Quantity:
    record = select(sources.entries, Selector.parse(words[:-1]))
    return _exact(record.teachers[int(words[-1])].accuracy, form, record, share=True)


def _benchmark(sources: Sources, words: Sequence[str], form: _Format) -> Quantity:
    first, second = _parts(words[1:])
    a = _repetitions(sources.benchmark(words[0]), first[0])
    if second:
        b = _repetitions(sources.benchmark(words[0]), second[0])
        d = paired_difference(a["values"], b["values"])
        return Quantity(d.mean, d.low, d.high, _with_interval(d.low, d.mean, d.high, form))
    if not isinstance(a, Mapping):
        return _exact(a, form)
    mean = a["mean"]
    low, high = (a["ci_low"], a["ci_high"]) if "ci_low" in a else t_interval(a["values"])
    return Quantity(mean, low, high, _with_interval(low, mean, high, form))


def _repetitions(content: Any, path: str) -> Any:
    """Return the value at a path. `PATH[start::step]` selects among the values of repetitions."""
    match = re.fullmatch(r"(.+)\[(\d+)::(\d+)\]", path)
    if not match:
        return _node(content, path)
    values = _node(content, match[1])["values"][int(match[2]) :: int(match[3])]
    return {"mean": fmean(values), "values": values}


def _node(content: Any, path: str) -> Any:
    for name in path.split("/"):
        content = content[int(name)] if isinstance(content, list) else content[name]
    return content


def _published(sources: Sources, words: Sequence[str], form: _Format) -> Quantity:
    (dataset, model, method), where = split_words(words)
    cells = [c for s in sources.published if (s.dataset, s.model) == (dataset, model) for c in s.cells]
    ipc = int(where["ipc"]) if "ipc" in where else None
    found = [c for c in cells if (c.method, c.ipc) == (method, ipc) and where.get("source", "") in c.source]
    if len(found) != 1:
        raise ValueError(f"{len(found)} published numbers match {shlex.join(words)!r}, expected 1")
    text = " ± ".join(f"{x:.1f}" for x in (found[0].mean, found[0].std) if x is not None)
    low, high = (found[0].mean + sign * (found[0].std or 0) for sign in (-1, 1))
    mark = "" if found[0].verified else "†"
    return Quantity(found[0].mean / 100, low / 100, high / 100, text + mark, source=found[0].source)


def _shipped(_: Sources, words: Sequence[str], form: _Format) -> Quantity:
    group, name, path = words
    return _exact(_node(shipped_config(group, name), path.replace(".", "/")), form)


def _ratio(sources: Sources, words: Sequence[str], form: _Format) -> Quantity:
    middle = list(words).index("/")
    a, b = (sources.read(shlex.join(part)) for part in (words[:middle], words[middle + 1 :]))
    value = a.value / b.value
    return Quantity(value, value, value, form(value), a.records + b.records)


def _exact(value: Any, form: _Format, record: Record | None = None, share: bool = False) -> Quantity:
    """Return a number without an interval."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"expected a number, got {value!r}")
    text = form(value, record) if share else form(value)
    return Quantity(value, value, value, text, (record,) if record else ())


def _parts(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the words before and after `vs`."""
    middle = list(words).index("vs") if "vs" in words else len(words)
    return list(words[:middle]), list(words[middle + 1 :])


def _pair(sources: Sources, words: Sequence[str]) -> tuple[Record, Record, Selector, Selector]:
    first_words, second_words = _parts(words)
    if not second_words:
        raise ValueError(f"a difference requires `vs` and what is subtracted, got {shlex.join(words)!r}")
    first = Selector.parse(first_words)
    second = first.other(second_words)
    return *select_pair(sources.entries, first, second), first, second


_Function = Callable[[Sources, Sequence[str], _Format], Quantity]
_FUNCTIONS: dict[str, _Function] = {
    "mean": _mean,
    "score": _score,
    "diff": _diff,
    "gap": _gap,
    "networks": _networks,
    "config": _config,
    "bits": _measure(_bits, "stored"),
    "bytes": _measure(_stored, "all"),
    "seconds": _measure(_seconds, "distill"),
    "size": _measure(lambda record, name: record.sizes[name], "nodes"),
    "teacher": _teacher,
    "benchmark": _benchmark,
    "published": _published,
    "shipped": _shipped,
    "ratio": _ratio,
}
