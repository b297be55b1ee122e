"""Claims of papers, and verdicts computed from entries. The claims are in `published/claims.yaml`.

The file lists papers, and for each paper its claims: a sentence, the published numbers, and checks. A check is a line
of `quantities` and a threshold. Its verdict follows from the 95 % interval of the number:

    above: 0    reproduced: the interval is above 0; contradicted: it is below 0; level: it contains 0
    below: 0    the same with the opposite sign
    equals: 0   level: the interval contains 0; contradicted: it does not. An interval does not show that two are equal
    reaches: 0.682, or a line of a published number
                reproduced: the interval is not below the published number (minus its standard deviation);
                contradicted otherwise

A number that varies between runs but has no interval has no verdict.

No verdict is written in the file. A check whose entries do not exist yet is not measured, and gets its verdict as soon
as they are added.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, model_validator

from .quantities import Quantity, Sources
from .selectors import NotMeasuredError
from .yaml_file import read_yaml

Verdict = Literal["reproduced", "level", "contradicted", "no verdict", "not measured yet"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PublishedText(_Strict):
    """What a paper reports: a line of `quantities` (`read`), or text with its source."""

    label: str = ""
    read: str | None = None
    text: str | None = None
    source: str | None = None
    verified: bool = True  # False: quoted from memory or from a secondary source

    @model_validator(mode="after")
    def _has_source(self) -> PublishedText:
        if (self.read is None) == (self.text is None) or (self.text is None) != (self.source is None):
            raise ValueError("a published number must have either `read`, or `text` and `source`")
        return self


class Check(_Strict):
    """A number that is measured here, and the threshold that the claim implies."""

    label: str
    read: str
    above: float | None = None
    below: float | None = None
    equals: float | None = None
    reaches: float | str | None = None

    @model_validator(mode="after")
    def _one_threshold(self) -> Check:
        if [self.above, self.below, self.equals, self.reaches].count(None) != 3:
            raise ValueError(
                f"a check must have one of `above`, `below`, `equals` and `reaches`: {self.label!r}"
            )
        return self


class Track(_Strict):
    """Checks under one protocol."""

    protocol: str
    selects: Literal["", "test", "validation"] = ""  # data on which the protocol selects an epoch
    checks: list[Check] = []


class Claim(_Strict):
    """A claim of a paper."""

    claim: str
    published: list[PublishedText]
    paper: Track | None = None  # under the paper's own protocol, if that differs from the honest one
    paper_protocol: str = ""  # without `paper`: what the paper's protocol is, or that it does not differ
    honest: Track | None = None
    reference: str | None = None  # experiment with the paper's settings; None: the YAML of the method
    needs: str | None = None  # what is missing here to run the claim at the paper's settings
    note: str = ""
    command: list[str]

    @model_validator(mode="after")
    def _paper_has_a_protocol(self) -> Claim:
        if self.honest and (self.paper is None) != bool(self.paper_protocol):
            raise ValueError(
                f"a claim must have one of `paper` and `paper_protocol`: {self.claim!r}. "
                'Example: paper_protocol: "not different"'
            )
        return self


class Paper(_Strict):
    """A paper and its claims."""

    name: str
    title: str
    methods: list[str]  # those of the paper, whose budgets are compared with the paper's
    network: str | None = None  # configuration name of the paper's network
    page: str
    claims: list[Claim]


@dataclass(frozen=True)
class Result:
    """A check with its number and verdict. `quantity` is None if the check is not measured yet."""

    check: Check
    quantity: Quantity | None
    verdict: Verdict


def load_claims(path: Path) -> list[Paper]:
    """Read the file of claims.

    Raises:
        ValueError: the file is not valid. The message names the faulty fields.
    """
    return read_yaml(path, list[Paper], "claims")


def measure(track: Track | None, sources: Sources) -> list[Result]:
    """Return the results of all checks of a track."""
    return [_result(check, sources) for check in track.checks] if track else []


def _result(check: Check, sources: Sources) -> Result:
    try:
        quantity = sources.read(check.read)
    except NotMeasuredError:
        return Result(check, None, "not measured yet")
    return Result(check, quantity, verdict(check, quantity, sources))


def verdict(check: Check, quantity: Quantity, sources: Sources) -> Verdict:
    """Return the verdict of a measured check from the interval of its number, if it has one."""
    if quantity.uncertain:
        return "no verdict"
    if check.reaches is not None:
        printed = sources.read(check.reaches).low if isinstance(check.reaches, str) else check.reaches
        return "reproduced" if quantity.high >= printed else "contradicted"
    if check.equals is not None:
        return "level" if quantity.low <= check.equals <= quantity.high else "contradicted"
    if check.above is not None:
        supports, contradicts = quantity.low > check.above, quantity.high < check.above
    else:
        assert check.below is not None
        supports, contradicts = quantity.high < check.below, quantity.low > check.below
    return "reproduced" if supports else "contradicted" if contradicts else "level"


def summary(results: Sequence[Result]) -> str:
    """Return the verdict of several checks: one word if they agree, otherwise the number of checks per verdict."""
    counts = Counter(result.verdict for result in results)
    if len(counts) == 1:
        return next(iter(counts))
    order: tuple[Verdict, ...] = get_args(Verdict)
    return ", ".join(f"{name} {counts[name]} of {len(results)}" for name in order if counts[name])
