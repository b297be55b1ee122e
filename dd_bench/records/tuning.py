"""How the hyper-parameters of a run were chosen: the trials of `dd-bench tune`, on validation data only.

`dd-bench tune` writes a `Tuning` to the file tuning.json. `dd-bench run tuning=FILE` applies the chosen values and
copies the `Tuning` to its record. A content key depends on the values, but not on how they were chosen.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from dd_bench.records.config_diff import CHOICE
from dd_bench.records.overrides import to_override
from dd_bench.runtime import untrusted
from dd_bench.runtime.files import canonical, write_atomic

Text = Annotated[str, StringConstraints(max_length=2000)]
Key = Annotated[str, StringConstraints(pattern=r"^\+{0,2}[A-Za-z][A-Za-z0-9_./@-]{0,199}$")]
Value = bool | int | float | Text
"""A number, or a text in Hydra's override grammar, e.g. `[a,b]`."""
Params = dict[Key, Value]


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Trial(_Frozen):
    """One configuration of the search space, and its score on the validation split."""

    number: int = Field(ge=0, lt=2**31)
    params: Params = Field(max_length=100)
    status: Literal["done", "skipped", "diverged", "failed"]
    value: float | None = Field(
        default=None,
        allow_inf_nan=False,
        description="mean over the networks; None unless the status is done",
    )
    std: float | None = Field(
        default=None, ge=0, allow_inf_nan=False, description="standard deviation over the networks"
    )
    networks: int = Field(default=0, ge=0, lt=2**31, description="number of fresh networks")
    reason: Text | None = Field(default=None, description="why the trial has no value")


class Tuning(_Frozen):
    """A search for hyper-parameters. The trials were distilled and scored without test data.

    `method`, `dataset`, `model`, `ipc` and `protocol` are those of the chosen trial, named as in its record.
    """

    method: Text
    dataset: Text
    model: Text
    ipc: int = Field(ge=1, lt=2**31)
    protocol: Text
    metric: Text = Field(description="metric of `Trial.value`; larger is better")
    split: Literal["validation"] = Field(description="split that the fresh networks were scored on")
    val_fraction: float | None = Field(
        gt=0, lt=1, description="dataset.val_fraction of the trials; None: the dataset has its own split"
    )
    real_digest: Text = Field(description="digest of the dataset, as in records that are scored on test data")
    space: dict[Key, Text] = Field(
        min_length=1, max_length=100, description="searched keys with their values in Hydra's sweep grammar"
    )
    fixed: list[Text] = Field(max_length=1000, description="the other overrides of every trial")
    sampler: Literal["grid", "tpe"] = Field(description="sampler of Optuna that selected the trials")
    seed: int = Field(ge=0, description="seed of the sampler and of every trial")
    optuna: Text = Field(description="version of Optuna")
    trials: list[Trial] = Field(min_length=1, max_length=10_000)
    chosen: int = Field(description="number of the trial with the highest value")

    @model_validator(mode="after")
    def _check_chosen(self) -> Self:
        values = {t.number: t.value for t in self.trials if t.status == "done" and t.value is not None}
        if len({t.number for t in self.trials}) < len(self.trials):
            raise ValueError("each trial must have another number")
        if self.chosen not in values or values[self.chosen] != max(values.values()):
            raise ValueError(f"chosen must be the trial with the highest value, got {self.chosen}")
        if any(t.params.keys() != self.space.keys() for t in self.trials):
            raise ValueError(f"each trial must have a value for each of {', '.join(self.space)}")
        return self

    @property
    def best(self) -> Trial:
        """The chosen trial."""
        return next(t for t in self.trials if t.number == self.chosen)

    def overrides(self) -> list[str]:
        """Return the chosen values as overrides."""
        return override_words(self.best.params)

    def differences(self, config: Mapping[str, Any]) -> list[str]:
        """Return the chosen overrides that do not agree with the configuration of a run, as it appears in records."""
        wrong = {key: value for key, value in self.best.params.items() if not _agrees(config, key, value)}
        return override_words(wrong)

    def save(self, path: Path) -> Path:
        """Write the file atomically and return `path`."""
        write_atomic(path, (canonical(self.model_dump(mode="json"), indent=2) + "\n").encode())
        return path


def load_tuning(path: Path) -> Tuning:
    """Read and validate a file that `dd-bench tune` has written.

    Raises:
        ValueError: the file is missing or not valid.
    """
    try:
        data = untrusted.parse_json(untrusted.read_bytes(path))
        return Tuning.model_validate(data, strict=True)
    except ValidationError as error:
        raise ValueError(
            f"tuning={path} is not a valid file of dd-bench tune: {untrusted.problems(error)}"
        ) from error
    except (OSError, ValueError) as error:
        raise ValueError(
            f"tuning={path} must be a file that dd-bench tune has written: {error}. "
            "Example: tuning=runs/tune/NAME/tuning.json"
        ) from error


def override_words(params: Mapping[str, Value]) -> list[str]:
    """Return the values of a trial as overrides, e.g. `["method.lr_img=0.5"]`, sorted by key."""
    return [f"{key}={value_text(params[key])}" for key in sorted(params)]


def value_text(value: Value) -> str:
    """Return a value in Hydra's override grammar."""
    return value if isinstance(value, str) else to_override(value, "value")


def _agrees(config: Mapping[str, Any], key: str, value: Value) -> bool:
    path = key.lstrip("+").partition("@")[0].split(".")
    if path == ["teacher"]:
        return sorted(value_text(value).strip("[]").split(",")) == sorted(config.get("teachers") or {})
    found = list(_at(config, path))
    if not found:
        return False
    (actual,) = found
    if isinstance(actual, Mapping) and CHOICE in actual:
        actual = actual[CHOICE]
    elif len(path) == 1 and isinstance(actual, Mapping):  # a group without class, e.g. protocol
        actual = actual.get("name")
    numbers = all(type(v) in (int, float) for v in (actual, value))
    try:
        return bool(actual == value) if numbers else to_override(actual, key) == value_text(value)
    except ValueError:
        return False


def _at(config: Any, path: list[str]) -> Iterator[Any]:
    """Yield the value at a path of keys, if it exists."""
    for part in path:
        if not isinstance(config, Mapping) or part not in config:
            return
        config = config[part]
    yield config
