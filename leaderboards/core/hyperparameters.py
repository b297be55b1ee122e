"""How the hyper-parameters of the entries of a board were chosen, and why. See `dd_bench.records.hyperparameters`.

Old records do not state it, and values that were once compared on test data stay so in later runs. The rules in
`leaderboards/hyperparameters.json` therefore apply to every record with these values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from dd_bench.records.config_diff import leaves
from dd_bench.records.hyperparameters import KEY, Choice, changed_beyond_budget, derived
from dd_bench.records.record import Record
from dd_bench.runtime import untrusted

RULES = Path(__file__).resolve().parents[1] / "hyperparameters.json"
CHOSEN = {
    "paper": "Hyper-parameters of the paper or its code, except for the budget",
    "validation": "Hyper-parameters chosen on validation data by dd-bench tune",
    "untuned": "Hyper-parameters changed without a search",
    "test": "Not ranked: hyper-parameters chosen on test data, or by hand without a record of the data",
}
"""Descriptions of how the hyper-parameters of an entry were chosen."""
MARKS = {"paper": "", "validation": "V", "untuned": "U", "test": "T"}
"""Marks of a cell in a table. The legend explains those that the table contains."""


class Origin(NamedTuple):
    """How the hyper-parameters of an entry were chosen, and the reason as one sentence."""

    choice: Choice
    reason: str


class _Base(NamedTuple):
    """The base set of a record, with the attributes of a record that its origin depends on."""

    method: str
    dataset: str
    config: Mapping[str, Any]
    tuning: None = None


class Rule(BaseModel):
    """How certain values of certain methods were chosen. It applies to every record that has all of the values."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    choice: Choice
    methods: list[str] = Field(min_length=1)
    datasets: list[str] = Field(min_length=1, description="datasets for which the values are used")
    values: dict[str, Any] = Field(min_length=1, description="dotted keys of the method with their values")
    reason: str = Field(min_length=1, description="what was tried, and on which data, in one sentence")
    revision: str = Field(pattern="^[0-9a-f]{7,40}$", description="commit that introduced the values")
    source: str = Field(min_length=1, description="file of the repository that contains the values")

    def covers(self, method: str, dataset: str) -> bool:
        """Return whether the rule is for this method on this dataset."""
        return method in self.methods and dataset in self.datasets

    def matches(self, record: Record | _Base) -> bool:
        """Return whether a record has all of the values."""
        if not self.covers(record.method, record.dataset):
            return False
        own = dict(leaves(record.config.get("method", {})))
        return all(key in own and own[key] == value for key, value in self.values.items())

    @property
    def text(self) -> str:
        """The reason with the revision and the file, without a final full stop."""
        return f"{self.reason.rstrip('.')} (revision {self.revision}, {self.source})"


@cache
def load_rules(path: Path = RULES) -> tuple[Rule, ...]:
    """Read the rules.

    Raises:
        ValueError: the file is missing or invalid.
    """
    try:
        content = untrusted.parse_json(untrusted.read_bytes(path))
        return tuple(TypeAdapter(list[Rule]).validate_python(content))
    except ValidationError as error:
        raise ValueError(f"{path} is not a valid list of rules: {untrusted.problems(error)}") from error
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is not a valid list of rules: {error}") from error


def origin(record: Record, rules: Sequence[Rule] | None = None) -> Origin:
    """Return how the hyper-parameters of a record were chosen. `rules` are those of `load_rules` by default.

    A choice on test data takes precedence, unless a study has searched the same keys again. Then follow the study, the
    other rules, the statement of the configuration, and the comparison with the YAML file. A record with a study is
    `validation` only if all values that differ from the YAML file beyond the budget were searched.

    If the set was made from another set (`base`), the hyper-parameters of both count: `test` takes precedence over
    `untuned`, `untuned` over `validation`, and `validation` over `paper`.
    """
    rules = load_rules() if rules is None else rules
    found = [_own_origin(record, rules), *_origins_of_bases(record, rules)]
    return max(found, key=lambda o: _SEVERITY.index(o.choice))


_SEVERITY: tuple[Choice, ...] = ("paper", "validation", "untuned", "test")


def _origins_of_bases(record: Record | _Base, rules: Sequence[Rule]) -> list[Origin]:
    """Return the origins of the base set of a record and of its own base sets.

    Records of older versions have no hyper-parameters of the base. If some of its method were chosen on test data, the
    base counts as `test`.
    """
    base = record.config.get("base")
    if not isinstance(base, Mapping):
        return []
    method, name = str(base.get("method")), base.get("set")
    config = base.get("config")
    if not isinstance(config, Mapping):
        on_test = any(rule.choice == "test" and rule.covers(method, record.dataset) for rule in rules)
        reason = f"base {name}: its values are not recorded, and values of {method} were chosen on test data"
        return [Origin("test", reason)] if on_test else []
    of_base = _Base(method, record.dataset, config)
    own = _own_origin(of_base, rules)
    return [Origin(own.choice, f"base {name}: {own.reason}"), *_origins_of_bases(of_base, rules)]


def _own_origin(record: Record | _Base, rules: Sequence[Rule]) -> Origin:
    """Return how the hyper-parameters of a method were chosen, without those of a base set."""
    matching = [rule for rule in rules if rule.matches(record)]
    values, stated, searched = record.config.get("method", {}), record.config.get(KEY), _searched(record)
    changed = changed_beyond_budget(record.method, values)
    without_search = [change for change in changed if change.partition("=")[0] not in searched]
    on_test = [rule for rule in matching if rule.choice == "test" and not rule.values.keys() <= searched]
    if on_test:
        return Origin("test", on_test[0].text)
    if stated == "test" and (without_search or not searched):
        return Origin("test", f"the configuration has {KEY}=test")
    others = [rule for rule in matching if rule.choice != "test"]
    if others and not searched:
        return Origin(others[0].choice, others[0].text)
    if stated in ("paper", "untuned") and not searched:
        return Origin(stated, f"the configuration has {KEY}={stated}")
    if searched and not without_search:
        return Origin("validation", f"dd-bench tune has chosen {', '.join(sorted(searched))}")
    if derived(record.method, values) == "paper":
        return Origin("paper", "the method has the values of its YAML file, except for the budget")
    text = ", ".join(without_search) or "there is no YAML file to compare with"
    return Origin("untuned", f"changed without a search: {text}")


def _searched(record: Record | _Base) -> frozenset[str]:
    """Return the dotted keys of the method that a study of `dd-bench tune` searched; empty without a study."""
    space = record.tuning.space if record.tuning else ()
    return frozenset(key.lstrip("+").removeprefix("method.") for key in space)


def origins(records: Sequence[Record]) -> Mapping[str, Origin]:
    """Return `origin` of every record, by its key."""
    return {record.key: origin(record) for record in records}
