"""`make tables`: writes the tables of measured speed into the documentation, from `benchmarks/results/*.json`.

A page names a table and where it ends; a test compares the committed pages with the files:

    <!-- speed training_loop -->
    ...
    <!-- speed end -->
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import fmean
from typing import Any

from dd_bench.leaderboards.render.markdown_blocks import fill_blocks
from dd_bench.leaderboards.render.markup import markdown_table
from dd_bench.records.intervals import std, t_interval, unpaired_difference

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = (
    *sorted((DOCS / "performance").glob("*.md")),
    DOCS / "results" / "trajectory.md",
    DOCS / "concepts" / "reproducibility.md",
    DOCS / "get_started" / "train_on_a_set.md",
)
MIB = 2**20
NOT_MEASURED = ("cuda_check",)
"""Tables whose file may be missing."""


def filled(text: str) -> str:
    """Return the text of a page with its tables.

    Raises:
        ValueError: A page asks for a table that does not exist.
    """
    return fill_blocks(
        text, "speed", {name: table(_read(name)) for name, table in TABLES.items()}, "the page"
    )[0]


def _read(name: str) -> dict[str, Any]:
    path = ROOT / "benchmarks" / "results" / f"{name}.json"
    if name in NOT_MEASURED and not path.exists():
        return {}
    figures: dict[str, Any] = json.loads(path.read_text())
    return figures


def _table(head: str, rows: Iterable[Iterable[object]]) -> str:
    return markdown_table(head.split(" | "), [[str(cell) for cell in row] for row in rows])


def _ratio(x: dict[str, Any]) -> str:
    return f"{x['ratio']:.2f} ({x['ratio_range'][0]:.2f}–{x['ratio_range'][1]:.2f})"


def _percent(x: list[float]) -> str:
    mean, half = x
    return f"{100 * mean:.2f} [{100 * (mean - half):.2f}, {100 * (mean + half):.2f}]"


def training_loop(figures: dict[str, Any]) -> str:
    """Images per second of the training loop, and the accuracy that both sides reach."""
    return _table(
        "width | IPC | baseline, images/s | ours, images/s | ratio (range) | baseline accuracy, % | our accuracy, % | "
        "warm-up, s | repaid after, images",
        (
            (
                r["width"],
                r["ipc"],
                f"{r['plain_img_s']:,.0f}",
                f"{r['ours_img_s']:,.0f}",
                f"**{_ratio(r)}**",
                _percent(r["plain_accuracy"]),
                _percent(r["ours_accuracy"]),
                f"{r['warm_up_s']:.0f}",
                f"{r['repaid_after_images']:,}",
            )
            for r in figures["results"]
        ),
    )


def training_loop_avx2(figures: dict[str, Any]) -> str:
    """The same table for a CPU with AVX2 and without AVX-512."""
    return training_loop(figures)


def repeats(figures: dict[str, Any]) -> str:
    """Several networks one after the other, and one process per core."""
    serial, spread = (sum(figures["seconds"][k]) / len(figures["seconds"][k]) for k in ("serial", "spread"))
    row = (figures["args"]["networks"], f"{serial:.0f}", f"{spread:.0f}", f"{figures['ratio']:.2f}")
    return _table("networks | one after the other, s | one process per core, s | ratio", [row])


def plain_pytorch(figures: dict[str, Any]) -> str:
    """Accuracy of networks that plain PyTorch trained on a set, and of the entries of the set."""

    def row(name: str, scores: list[float]) -> tuple[str, str, str, int]:
        low, high = t_interval(scores)
        mean = sum(scores) / len(scores)
        return name, f"{100 * mean:.2f}", f"{100 * low:.2f} to {100 * min(high, 1):.2f}", len(scores)

    return _table(
        "network | trained by | accuracy, % | 95 % CI of the mean | networks",
        [
            (name, *row(code, scores))
            for name, own in figures["networks"].items()
            for code, scores in (
                ("the code of this page", own["scores"]),
                (f"dd_bench, entry `{own['entry']['digest']}`", own["entry"]["scores"]),
            )
        ],
    )


def experts(figures: dict[str, Any]) -> str:
    """Images per second of expert training."""
    base = figures["images_per_second"]["plain training loop"]
    rows = ((name, f"{v:,.0f}", f"{v / base:.2f}") for name, v in figures["images_per_second"].items())
    return _table("training | images/s | ratio to the training loop", rows)


def dynamics(figures: dict[str, Any]) -> str:
    """CPU seconds of a training with and without recorded predictions."""
    rows = ((name, f"{side['seconds']:.2f}", _ratio(side)) for name, side in figures["sides"].items())
    return _table("training | CPU seconds | ratio (range)", rows)


def matching_step(figures: dict[str, Any]) -> str:
    """A step of DM and DataDAM: per class, grouped, and compiled."""
    return _table(
        "method | width | real images per class | per class, ms | grouped, default allocator: ratio (range) | "
        "grouped, ms | ratio (range) | grouped and compiled, ms | ratio (range) | gradient difference, compiled",
        (
            (
                r["method"],
                r["width"],
                r["batch_real"],
                f"{r['plain']['ms']:.0f}",
                _ratio(r["default allocator"]) if "default allocator" in r else "",
                f"{r['grouped']['ms']:.0f}",
                _ratio(r["grouped"]),
                f"{r['compiled']['ms']:.0f}",
                f"**{_ratio(r['compiled'])}**",
                f"{r['compiled']['gradient_difference']:.0e}",
            )
            for r in figures["results"]
        ),
    )


def inner_loop(figures: dict[str, Any]) -> str:
    """An outer iteration of trajectory matching, by the way its gradient is computed."""

    def seconds(x: dict[str, Any]) -> str:
        return f"{x['seconds']:.2f} ({x['of_unroll']:.2f})"

    return _table(
        "N | unroll, s | adjoint, s (ratio) | truncated, s (ratio) | adjoint compiled, s (ratio) | "
        "activations, MiB: unroll / adjoint | peak, MiB: unroll / adjoint / truncated | "
        "difference of adjoint | of adjoint compiled | rounding",
        (
            (
                r["steps"],
                f"{r['unroll']['seconds']:.2f}",
                seconds(r["adjoint"]),
                seconds(r["truncated"]),
                seconds(r["compiled"]),
                f"{r['unroll']['activations'] / MIB:.0f} / {r['adjoint']['activations'] / MIB:.0f}",
                " / ".join(f"{r[k]['peak'] / MIB:.0f}" for k in ("unroll", "adjoint", "truncated")),
                f"{r['adjoint']['gradient_difference']:.0e}",
                f"{r['compiled']['gradient_difference']:.0e}",
                f"{min(r['rounding']):.0e} to {max(r['rounding']):.0e}",
            )
            for r in figures["results"]
        ),
    )


def exactness(figures: dict[str, Any]) -> str:
    """The truncated gradient of TESLA compared with the exact one, in float64."""
    return _table(
        "IPC | N | start epoch | cosine, images | norm / exact norm, images | cosine, labels | step size / exact | "
        "error of adjoint",
        (
            (
                r["ipc"],
                r["steps"],
                r["start"],
                f"{r['cosine_images']:.3f}",
                f"{r['norm_ratio_images']:.2f}",
                f"{r['cosine_labels']:.3f}",
                f"{r['ratio_lr']:.2f}",
                f"{r['adjoint_error']:.0e}",
            )
            for r in figures["results"]
        ),
    )


def trajectories(figures: dict[str, Any]) -> str:
    """The error that a student accumulates along the experts of MTT and FTD, and its parts, by stretch."""
    (mtt,), (ftd,) = (figures["results"][name]["sets"] for name in ("mtt", "ftd"))
    difference = figures["results"]["ftd"]["less_first"]["sets"]["10"]["accumulated"]
    stretches = list(mtt["accumulated"])

    def errors(x: dict[str, Any]) -> list[str]:
        return [f"{x[n]['mean']:.3f} ± {x[n]['std']:.3f}" for n in stretches]

    def differences(x: dict[str, Any]) -> list[str]:
        ends = [t_interval([-value for value in x[n]["values"]]) for n in stretches]
        pairs = zip(stretches, ends, strict=True)
        return [f"{-x[n]['mean']:.3f} [{low:.3f}, {high:.3f}]" for n, (low, high) in pairs]

    def parts(name: str) -> list[str]:
        pairs = ((mtt[name][n]["mean"], ftd[name][n]["mean"]) for n in stretches)
        return [f"{a:.3f} / {b:.3f}" if a else "0" for a, b in pairs]

    return _table(
        " | ".join(["after stretch", *stretches]),
        (
            ["accumulated error, MTT", *errors(mtt["accumulated"])],
            ["accumulated error, FTD", *errors(ftd["accumulated"])],
            ["difference, by pairs of experts", *differences(difference)],
            [
                "added because the stretch starts elsewhere (initialisation error), MTT / FTD",
                *parts("initialisation"),
            ],
            ["added from the expert's own start (matching error), MTT / FTD", *parts("matching")],
        ),
    )


def recover_step(figures: dict[str, Any]) -> str:
    """A step of recovery (SRe2L)."""
    return _table(
        "teacher | images | baseline, images/s | eager | compiled | compiled, bf16",
        (
            (
                r["network"],
                r["batch"],
                f"{r['plain']['images_per_second']:.0f}",
                *(f"{_ratio(r[k])}, {r[k]['loss_difference']:.0e}" for k in ("eager", "compiled", "bf16")),
            )
            for r in figures["results"]
        ),
    )


def computation_trees(figures: dict[str, Any]) -> str:
    """Decomposition into computation trees, and mining."""
    return _table(
        "dataset | nodes | depth | trees | ours, s | baseline, s | ratio",
        (
            (
                r["data"],
                f"{r['nodes']:,}",
                r["depth"],
                f"{r['trees']:,}",
                f"{r['seconds']:.3f}",
                f"{r['straightforward_seconds']:.2f}",
                f"**{r['ratio']:.0f}**",
            )
            for r in figures["decomposition_and_mining"]
        ),
    )


def node_speed(figures: dict[str, Any]) -> str:
    """Selection in Bonsai, and an update in GCond."""
    total = figures["bonsai"][-1]
    rows = [
        *((f"Bonsai: {r['part']}", total["nodes"], r) for r in figures["bonsai"]),
        *(("GCond: an update", r["nodes"], r) for r in figures["gcond"]),
    ]
    return _table(
        "method | nodes of the set | ours, ms | baseline, ms | ratio (range)",
        (
            (title, f"{n:,}", f"{r['ours_ms']:.0f}", f"{r['plain_ms']:,.0f}", f"**{_ratio(r)}**")
            for title, n, r in rows
        ),
    )


def node_scale(figures: dict[str, Any]) -> str:
    """Bonsai on a large graph."""
    return _table(
        "`method.sample` | nodes | edges | training nodes | s | CPU s | peak, MiB | nodes of the set",
        (
            (
                "all" if r["sample"] is None else f"{r['sample']:,}",
                f"{r['nodes']:,}",
                f"{r['edges'] // 2:,}",
                f"{r['training_nodes']:,}",
                f"{r['seconds']:.0f}",
                f"{r['cpu_seconds']:.0f}",
                f"{r['peak'] / MIB:,.0f}",
                f"{r['set_nodes']:,}",
            )
            for r in figures["bonsai"]
        ),
    )


def site(figures: dict[str, Any]) -> str:
    """Building the site of the leaderboard, and the time until its pages can be used."""
    painted = all("first_paint_seconds" in r for r in figures.values())
    header = "entries | boards | files | build, s | page of every entry, s | page of the largest board, s"
    return _table(
        header + " | slowest first paint, s" * painted,
        (
            (
                f"{r['entries']:,}",
                "one" if r["largest_board_entries"] == r["entries"] else "many",
                f"{r['files']:,}",
                f"{r['build_seconds']:.0f}",
                r["every_entry_page_seconds"],
                r["largest_board_seconds"],
                *([r["first_paint_seconds"]] if painted else []),
            )
            for r in figures.values()
        ),
    )


def table_components(figures: dict[str, Any]) -> str:
    """Size of the table of the site and of two table components, and how fast each shows the same rows."""
    names = {
        "site": "`site.js`, `site.css`",
        "tabulator": "Tabulator 6.4.0",
        "datatables": "DataTables 2.3.8, with jQuery",
    }
    return _table(
        "table | kB | kB, gzip | first paint, ms | drawn, ms",
        (
            (
                names[name],
                f"{r['bytes'] / 1000:,.0f}",
                f"{r['compressed_bytes'] / 1000:,.0f}",
                r["first_paint_ms"],
                f"{r['loaded_ms']:,}",
            )
            for name, r in figures["components"].items()
        ),
    )


def launches(figures: dict[str, Any]) -> str:
    """Launches and waits per step of methods that iterate, and of fresh networks by protocol and number."""
    rows = []
    for kind, title in (
        ("methods", "method"),
        ("protocols", "protocol, 2 networks"),
        ("networks", "protocol"),
        ("plain loop", "DD-Ranking's loop"),
    ):
        for name, counted in figures[kind].items():
            if counted:
                rows.append(
                    (title, name, f"{counted['launches']:.0f}", f"{sum(counted['waits'].values()):g}")
                )
    return _table("kind | name | launches a step | waits a step", rows)


def cuda_check(figures: dict[str, Any]) -> str:
    """The tables of all parts of the check on a CUDA GPU, with the state of each part."""
    if not figures:
        return "Not yet measured on a GPU."
    blocks = [
        _table(
            "part | status | seconds | card | torch | driver | revision",
            (
                (
                    name,
                    part["status"],
                    f"{part['seconds']:.0f}",
                    part["environment"]["name"],
                    part["environment"]["torch"],
                    part["environment"]["driver"] or "",
                    f"{(part['code']['revision'] or '')[:8]}{', changed' if part['code']['dirty'] else ''}",
                )
                for name, part in figures["parts"].items()
            ),
        )
    ]
    for name, part in figures["parts"].items():
        grouped: dict[str, list[dict[str, Any]]] = {}
        for row in part["rows"]:
            grouped.setdefault(row.get("table", name), []).append(row)
        for title, rows in grouped.items():
            columns = [c for c in dict.fromkeys(c for row in rows for c in row) if c not in ("table", "data")]
            cells = ([str(row.get(c, "")).replace("|", "\\|") for c in columns] for row in rows)
            blocks.append(f"**{title}**\n\n{_table(' | '.join(columns), cells)}")
    return "\n\n".join(blocks)


def independent_evaluation(figures: dict[str, Any]) -> str:
    """Accuracies of an independent loop and of dd_bench on the same sets, and their differences."""
    rows = []
    for r in figures["results"]:
        ours, theirs = r["dd_bench"], r["independent"]
        mean, low, high = (100 * x for x in unpaired_difference(ours, theirs)[:3])
        rows.append(
            (
                r["set"],
                r["protocol"],
                f"{len(theirs)} / {len(ours)}",
                f"{100 * fmean(theirs):.2f} ± {100 * std(theirs):.2f}",
                f"{100 * fmean(ours):.2f} ± {100 * std(ours):.2f}",
                f"{mean:.2f} [{low:.2f}, {high:.2f}]",
            )
        )
    return _table(
        "set | protocol | networks, independent / dd_bench | independent, % | dd_bench, % | difference, points",
        rows,
    )


TABLES: dict[str, Callable[[dict[str, Any]], str]] = {
    f.__name__: f
    for f in (
        training_loop,
        training_loop_avx2,
        repeats,
        plain_pytorch,
        experts,
        dynamics,
        matching_step,
        inner_loop,
        exactness,
        trajectories,
        recover_step,
        computation_trees,
        node_speed,
        node_scale,
        site,
        table_components,
        launches,
        cuda_check,
        independent_evaluation,
    )
}


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(filled(page.read_text()))
    sys.stdout.write(f"{len(PAGES)} pages\n")
