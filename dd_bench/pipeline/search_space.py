"""The search space of `dd-bench tune`: overrides in Hydra's sweep grammar as distributions of Optuna.

A comma list or `choice(...)` is a categorical distribution, `range(...)` a discrete one, and `interval(...)` a
continuous one, or one of integers: `int(interval(1,5))`. `tag(log,interval(...))` samples logarithmically.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import (
    ChoiceSweep,
    Glob,
    IntervalSweep,
    Override,
    RangeSweep,
    Transformer,
)
from hydra.errors import HydraException
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from dd_bench.pipeline.choices import choices, searchpath_of
from dd_bench.pipeline.config_errors import explain
from dd_bench.records.tuning import Value, value_text

SEARCHED = ("method", "model", "protocol", "teacher", "teachers")
"""Groups whose keys can be searched, and `dataset.preprocess`. Scores under other keys cannot be compared."""


@dataclass(frozen=True)
class Dimension:
    """A searched key.

    Attributes:
        key: the key with its prefix `+`, if any.
        text: its values in Hydra's sweep grammar.
        distribution: its values for Optuna.
        values: all values in order, or None if there are infinitely many.
    """

    key: str
    text: str
    distribution: BaseDistribution
    values: tuple[Value, ...] | None


@dataclass(frozen=True)
class SearchSpace:
    """The searched keys, and the overrides that all trials share."""

    dimensions: tuple[Dimension, ...]
    fixed: tuple[str, ...]

    @cached_property
    def distributions(self) -> dict[str, BaseDistribution]:
        """The distribution of each key."""
        return {d.key: d.distribution for d in self.dimensions}

    @cached_property
    def texts(self) -> dict[str, str]:
        """The values of each key in Hydra's sweep grammar."""
        return {d.key: d.text for d in self.dimensions}

    @property
    def size(self) -> int | None:
        """Number of configurations, or None if it is infinite."""
        sizes = [len(d.values) for d in self.dimensions if d.values is not None]
        return prod(sizes) if len(sizes) == len(self.dimensions) else None

    def grid(self) -> dict[str, Sequence[Value]]:
        """Return all values of each key of a finite space."""
        return {d.key: d.values or () for d in self.dimensions}

    def examples(self) -> list[dict[str, Value]]:
        """Return one configuration with the first values, and one for each other value of a choice, to check them."""
        first = {d.key: d.values[0] if d.values else _low(d.distribution) for d in self.dimensions}
        others = [
            first | {d.key: value}
            for d in self.dimensions
            if isinstance(d.distribution, CategoricalDistribution)
            for value in (d.values or ())[1:]
        ]
        return [first, *others]


def search_space(overrides: Sequence[str]) -> SearchSpace:
    """Split overrides into searched keys and fixed ones.

    Raises:
        ValueError: an override cannot be parsed, no override has several values, a key cannot be searched or is given
            twice, or the values of a key are empty or have an unknown tag.
    """
    try:
        parsed = OverridesParser.create().parse_overrides(list(overrides))
    except HydraException as error:
        raise ValueError(explain(error, overrides)) from error
    searched = [o for o in parsed if o.is_sweep_override()]
    if not searched:
        raise ValueError(
            "no override has several values, so there is nothing to search. "
            "Example: dd-bench tune method=dm 'method.lr_img=0.1,1,10'"
        )
    fixed = tuple(str(o.input_line) for o in parsed if not o.is_sweep_override())
    keys = [o.get_key_element() for o in parsed]
    for override in searched:
        _check_key(override, keys)
    searchpath = searchpath_of(overrides)
    return SearchSpace(tuple(_dimension(override, searchpath) for override in searched), fixed)


def _check_key(override: Override, keys: list[str]) -> None:
    key = override.get_key_element()
    name = key.lstrip("+~")
    group = name.partition(".")[0].partition("@")[0]
    if group not in SEARCHED and name != "dataset.preprocess":
        raise ValueError(
            f"{override.input_line}: {name} cannot be searched, because scores with other values of {name} cannot be "
            f"compared. Searched keys are those of {', '.join(SEARCHED)}, and dataset.preprocess. Start one search for "
            f"each value of {name}"
        )
    if sum(other.lstrip("+~") == name for other in keys) > 1:
        raise ValueError(f"{name} must be given once, got it twice. Remove one of the two overrides")


def _dimension(override: Override, searchpath: Sequence[str]) -> Dimension:
    key, text, sweep = (
        override.get_key_element(),
        str(override.input_line).partition("=")[2],
        override.value(),
    )
    tags = set(getattr(sweep, "tags", ()))
    log = "log" in tags
    allowed = set() if isinstance(sweep, ChoiceSweep | Glob) else {"log"}
    if tags - allowed:
        raise ValueError(
            f"{override.input_line}: tag {min(tags - allowed)} is not supported here. Only tag(log,interval(...)) and "
            "tag(log,range(...)) are"
        )
    try:
        if isinstance(sweep, IntervalSweep):
            return _interval(key, text, sweep, log)
        values = _values(override, sweep, searchpath)
        if not values:
            raise ValueError("there are no values")
        if isinstance(sweep, RangeSweep):
            return Dimension(key, text, _discrete(values, log), values)
        return Dimension(key, text, CategoricalDistribution(values), values)
    except ValueError as error:
        raise ValueError(f"{override.input_line}: {error}. {_EXAMPLES}") from error


_EXAMPLES = "Examples: method.lr_img=0.1,1,10 method.lr_img=tag(log,interval(0.1,10)) method.iterations=range(10,60,10)"


def _interval(key: str, text: str, sweep: IntervalSweep, log: bool) -> Dimension:
    low, high = sweep.start, sweep.end
    assert low is not None and high is not None
    if isinstance(low, int) and isinstance(high, int):  # int(interval(1,5))
        integers = IntDistribution(low, high, log=log)
        return Dimension(key, text, integers, tuple(range(low, high + 1)))
    return Dimension(key, text, FloatDistribution(float(low), float(high), log=log), None)


def _values(override: Override, sweep: Any, searchpath: Sequence[str]) -> tuple[Value, ...]:
    """Return the values of a choice or a range: numbers, or texts in the override grammar."""
    if isinstance(sweep, Glob):
        names = [n for n in choices(override.key_or_group, searchpath) if "/" not in n]  # as Hydra's sweeps
        return tuple(sweep.filter(names))
    sweep.shuffle = False  # the order of trials follows from the seed
    values = tuple(
        v if isinstance(v, str) else _plain(v) for v in override.sweep_iterator(Transformer.encode)
    )
    texts = tuple(dict.fromkeys(map(value_text, values)))
    unique = tuple(dict.fromkeys(values))
    return unique if len(unique) == len(texts) else texts  # 1 and true are equal for Optuna


def _plain(value: Any) -> Value:
    assert isinstance(value, bool | int | float)
    return value


def _discrete(values: Sequence[Any], log: bool) -> BaseDistribution:
    low, high = min(values), max(values)
    step = abs(values[1] - values[0]) if len(values) > 1 else 1
    if log and (step != 1 or not isinstance(low, int)):
        raise ValueError("tag(log,range(...)) requires integers with step 1")
    if all(isinstance(v, int) for v in values):
        return IntDistribution(low, high, log=log, step=1 if log else step)
    return FloatDistribution(low, high, step=step)


def _low(distribution: BaseDistribution) -> Value:
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    return distribution.low
