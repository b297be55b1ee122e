"""The page of claims: for each paper, its claims with verdicts, every check of a claim, and the commands."""

from __future__ import annotations

import re
import string
from collections.abc import Sequence

from ..core.claims import Claim, Paper, Result, Track, measure, summary
from ..core.paper_budget import compare_budget
from ..core.quantities import Sources
from .formatting import with_marks
from .markup import markdown_table

SIGNS = {
    "reproduced": "✓",
    "level": "≈",
    "contradicted": "✗",
    "no verdict": "?",
    "not measured yet": "–",
}
CLAIMS = [
    "",
    "Claim",
    "Published",
    "Paper's protocol",
    "Last step",
    "Our budget / the paper's",
    "Remarks",
]
CHECKS = ["", "Protocol", "Check", "Measured", "Verdict"]
_PROTOCOL = re.compile(r"\b[a-z0-9]+(-[a-z0-9]+)+\b")
_FILE = re.compile(r"benchmarks/results/(\w+\.json)")


def claims_of(paper: Paper, sources: Sources) -> str:
    """Return two tables of a paper, its claims and their checks, and the commands that measure them."""
    letters: dict[str, str] = {}
    claims, checks, commands = [], [], []
    for number, claim in enumerate(paper.claims, 1):
        measured = [(track, measure(track, sources)) for track in (claim.paper, claim.honest)]
        claims.append(
            [str(number), *_claim(paper, claim, [results for _, results in measured], letters, sources)]
        )
        for track, results in measured:
            first = [str(number), _name(track, sources)] if track else []
            checks += [
                [*(first if i == 0 else ["", ""]), *_check(result)] for i, result in enumerate(results)
            ]
        commands += [f"    {command}  # {number}" for command in claim.command]
    sources_text = "; ".join(f"[{letter}] {source}" for source, letter in letters.items())
    blocks = [paper.title, markdown_table(CLAIMS, claims, left=len(CLAIMS))]
    blocks += [f"Sources: {sources_text}."] if letters else []
    blocks += [markdown_table(CHECKS, checks, left=len(CHECKS))] if checks else []
    return "\n\n".join(
        [*blocks, "Commands, with the number of the claim:", "\n".join(dict.fromkeys(commands))]
    )


def overview(papers: Sequence[Paper], sources: Sources) -> str:
    """Return a table with the number of checks of each paper by verdict."""
    rows = []
    for paper in papers:
        counts = dict.fromkeys(SIGNS, 0)
        for claim in paper.claims:
            for result in measure(claim.paper, sources) + measure(claim.honest, sources):
                counts[result.verdict] += 1
        anchor = re.sub(r"[^a-z0-9 -]", "", paper.name.lower()).replace(" ", "-")
        rows.append([f"[{paper.name}](#{anchor})", str(len(paper.claims)), *map(str, counts.values())])
    return markdown_table(["Paper", "Claims", *(f"{sign} {name}" for name, sign in SIGNS.items())], rows)


def _claim(
    paper: Paper, claim: Claim, results: Sequence[list[Result]], letters: dict[str, str], sources: Sources
) -> list[str]:
    budget, smaller = _budget(paper, claim, [r for both in results for r in both])
    remarks = [claim.note] if claim.note else []
    if claim.needs:
        remarks.insert(0, f"Not run at the paper's settings: it needs {claim.needs}.")
    if smaller and any(r.verdict in ("level", "contradicted") for both in results for r in both):
        remarks.append("The budget is smaller than the paper's.")
    own, honest = (
        f"{_name(track, sources)}: **{summary(found)}**" if track and found else ""
        for track, found in zip((claim.paper, claim.honest), results, strict=True)
    )
    published = [
        f"{p.label}: " * bool(p.label) + _published(p.read, p.text, p.source, p.verified, letters, sources)
        for p in claim.published
    ]
    return [
        claim.claim,
        "<br>".join(published) or "no number",
        own or claim.paper_protocol or "not run here",
        honest or "–",
        budget,
        " ".join(remarks) or "–",
    ]


def _check(result: Result) -> list[str]:
    number = result.quantity.text if result.quantity else ""
    label = with_marks(result.check.label, result.quantity.records if result.quantity else ())
    return [label, number, f"{SIGNS[result.verdict]} {result.verdict}"]


def _name(track: Track, sources: Sources) -> str:
    """Return the protocols of a track as code, files as links, and the data on which an epoch is selected.

    A file that does not exist yet has no link.
    """

    def link(found: re.Match[str]) -> str:
        file = found[1]
        exists = (sources.benchmarks / file).exists()
        return f"[{file}](../../benchmarks/results/{file})" if exists else f"`{file}`"

    name = _PROTOCOL.sub(r"`\g<0>`", track.protocol)
    name = _FILE.sub(link, name)
    return f"{name} (legacy: selects on {track.selects} data)" if track.selects else name


def _published(
    read: str | None,
    text: str | None,
    source: str | None,
    verified: bool,
    letters: dict[str, str],
    sources: Sources,
) -> str:
    if read is not None:
        quantity = sources.read(read)
        text, source = quantity.text, quantity.source
    elif not verified:
        text = f"{text}†"
    letter = letters.setdefault(str(source), string.ascii_lowercase[len(letters)])
    return f"{text} [{letter}]"


def _budget(paper: Paper, claim: Claim, results: Sequence[Result]) -> tuple[str, bool]:
    """Return the budgets of the paper's methods in the measured checks, and whether one is smaller than the paper's."""
    found: dict[str, tuple[str, bool]] = {}
    for method in paper.methods:
        records = [
            record
            for result in results
            for record in (result.quantity.records if result.quantity else ())
            if record.method == method
        ]
        if records:
            found[method] = compare_budget(records, claim.reference, paper.network)
    lines = [f"{method}: {text}" if len(found) > 1 else text for method, (text, _) in found.items()]
    return "<br>".join(lines) or "–", any(smaller for _, smaller in found.values())
