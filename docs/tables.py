"""`make tables`: writes the tables and numbers of the documentation that no board has, from entries and figures.

A page names a table and where it ends; a test compares the committed pages with the entries:

    <!-- summary graphs -->
    ...
    <!-- summary end -->

Blocks of `claims` have the name of a paper, or `overview`. A number in the text is between `<!-- value LINE -->` and
`<!-- end -->`, where LINE names the number (`leaderboards/core/quantities.py`).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from dd_bench.leaderboards.core.claims import load_claims
from dd_bench.leaderboards.core.entries import load_entries
from dd_bench.leaderboards.core.published import load_published
from dd_bench.leaderboards.core.quantities import Sources
from dd_bench.leaderboards.core.selectors import by_budget
from dd_bench.leaderboards.render.bits import fewest_bits_table
from dd_bench.leaderboards.render.claims import claims_of, overview
from dd_bench.leaderboards.render.coresets import coreset_table
from dd_bench.leaderboards.render.inline_values import fill_values
from dd_bench.leaderboards.render.markdown_blocks import fill_blocks
from dd_bench.leaderboards.render.markup import markdown_table
from dd_bench.leaderboards.render.nodes import node_table
from dd_bench.records.record import Record

ROOT = Path(__file__).resolve().parents[1]
BOARDS = ROOT / "leaderboards"
PAGES = (
    *sorted((ROOT / "docs" / "results").glob("*.md")),
    ROOT / "docs" / "methods" / "nodes.md",
    ROOT / "docs" / "performance" / "index.md",
    ROOT / "README.md",
)

COLLECTIONS = {"MUTAG": "MUTAG", "NCI1": "NCI1", "PROTEINS": "PROTEINS"} | {
    f"ogbg_{name}": name for name in ("molbace", "molbbbp")
}
MIRAGE_SETS = {  # collection: its name, and AUC in percent by network, published or in logs of the released code
    "NCI1": ("NCI1", {"gcn": "68.2†"}),
    "IMDB-BINARY": ("IMDB-BINARY", {}),
    "ogbg_molbace": ("molbace", {"gcn": "70.3, 68.6", "gat": "75.3, 72.3", "gin": "74.3, 68.3"}),
    "ogbg_molbbbp": ("molbbbp", {}),
    "ogbg_molhiv_rebuilt": ("molhiv", {"gcn": "65.6, 63.2, 66.2, 61.8", "gat": "71.7", "gin": "71.1"}),
}
GRAPH_METHODS = ["random", "random_graphs", "herding_graphs", "mirage", "mirage_released", "doscond", "full"]
KD_METHODS = {"random": {}, "rded": {}, "sre2l": {"statistics": 1.0}, "cda": {"statistics": 1.0}, "infer": {}}
KINDS = {"hard": "-hard", "static": "-static", "replay": "-replay", "online": ""}
USES = (  # row, evaluator, metric
    ("accuracy, `mtt-1000`, with its augmentation", "ddranking", "syn"),
    ("without augmentation", "ddranking", "syn_plain"),
    ("LRS, %", "ddranking", "lrs"),
    ("ARS, %", "ddranking", "ars"),
    ("500 test images, clean", "robustness", "clean"),
    ("under FGSM, 8/255", "robustness", "fgsm"),
    ("under PGD-20, 8/255", "robustness", "robust_accuracy"),
    ("under five corruptions", "robustness", "corrupted"),
    ("class-incremental, five steps, last step", "continual", "accuracy"),
    ("class-incremental, average over the steps", "continual", "average"),
)
USES_METHODS = ["random", "herding", "dm", "datadam", "mtt", "ftd", "cda"]

CORESET_DATASETS = ("digits", "fashion_mnist")
NODE_DATASETS = ("cora", "citeseer")
COMPUTE = ("accuracy", "random", "equal_compute", "equal_seconds")


def sources() -> Sources:
    """Return what the numbers of the pages are read from."""
    return Sources(
        load_entries(BOARDS / "entries"),
        load_published(BOARDS / "published"),
        ROOT / "benchmarks" / "results",
    )


def filled(text: str, found: Sources, where: str = "the page") -> str:
    """Return the text of a page with its tables, claims and numbers."""
    if "<!-- summary " in text:
        functions = (graphs, mirage_legacy, mirage_cost, soft_labels, uses, bits, equal_compute)
        tables = {f.__name__: f(found.entries) for f in functions}
        tables |= {f"coresets {name}": coresets(found.entries, name) for name in CORESET_DATASETS}
        tables |= {
            f"nodes {name}": node_table(found.entries, found.published, name) for name in NODE_DATASETS
        }
        text = fill_blocks(text, "summary", tables, where)[0]
    if "<!-- claims " in text:
        papers = load_claims(BOARDS / "published" / "claims.yaml")
        blocks = {paper.name: claims_of(paper, found) for paper in papers}
        text = fill_blocks(text, "claims", blocks | {"overview": overview(papers, found)}, where)[0]
    return fill_values(text, found, where)


def graphs(entries: Sequence[Record]) -> str:
    """AUC on four networks and bytes, by collection and method."""
    rows = []
    for dataset, name in COLLECTIONS.items():
        cells, sizes, alone = [], [], ""
        for method in GRAPH_METHODS:
            found = [
                _one(entries, dataset=dataset, method=method, model=m, ipc=10, protocol="graph-500")
                for m in ("gcn", "gat", "gin", "sage")
            ]
            cells.append(" / ".join(_share(r.summary().mean, 2) for r in found))
            sizes.append(" to ".join(f"{n:,}" for n in sorted({_bytes(found, min), _bytes(found, max)})))
            alone = _share(found[0].summary("size_only").mean, 3)
        rows += [[name, *cells, alone], ["bytes", *sizes, ""]]
    head = [*GRAPH_METHODS[:-2], "doscond (of GCN)", "full", "nodes alone"]
    return markdown_table(["", *head], rows)


def mirage_legacy(entries: Sequence[Record]) -> str:
    """AUC in percent under Mirage's own evaluation: what the paper reports, the last step, and the controls."""
    rows = []
    for dataset, (name, published) in MIRAGE_SETS.items():
        for network in ("gcn", "gat", "gin"):
            found = [
                r
                for r in entries
                if (r.dataset, r.method, r.model.partition("(")[0]) == (dataset, "mirage_released", network)
                and r.protocol.name.partition("(")[0] == "mirage-legacy"
            ]
            for r in found:
                best, every = r.summary(), r.summary(r.all_runs_metric)
                values = [f"{100 * s.mean:.1f} ± {100 * (s.std or 0):.1f}" for s in (best, every)]
                controls = ("last", "permuted", "untrained", "size_only")
                values += [f"{100 * r.summary(control).mean:.1f}" for control in controls]
                rows.append([name, network.upper(), published.get(network, ""), *values])
    if not rows:
        return "No entries yet."
    head = [
        "published or logs",
        "best epoch, best 5 of 10",
        "best epoch, all 10",
        "last step",
        "permuted labels",
    ]
    return markdown_table(["", "network", *head, "untrained", "nodes alone"], rows)


def mirage_cost(entries: Sequence[Record]) -> str:
    """Bytes of a set and seconds to distil it, Mirage and DosCond at IPC 10."""
    rows = []
    for dataset, name in COLLECTIONS.items():
        mirage = [
            _one(entries, dataset=dataset, method="mirage", model=m, ipc=10, protocol="graph-500")
            for m in ("gcn", "gat", "gin", "sage")
        ]
        doscond = _one(entries, dataset=dataset, method="doscond", model="gcn", ipc=10, protocol="graph-500")
        row = [name]
        for ours, theirs in (
            (_bytes(mirage, max), _bytes([doscond], max)),
            (max(r.sizes["paper bytes"] for r in mirage), doscond.sizes["paper bytes"]),
        ):
            row += [f"{ours:,}", f"{theirs:,}", f"{theirs / ours:.1f}"]
        seconds = sorted(r.seconds["distill"] for r in mirage)
        slow = doscond.seconds["distill"]
        other = "" if doscond.device == mirage[0].device else "*"
        row += [
            f"{seconds[0]:.3f} to {seconds[-1]:.3f}",
            f"{slow:.0f}{other}",
            f"{slow / seconds[-1]:,.0f}{other}",
        ]
        rows.append(row)
    counts = ("stored bytes, Mirage", "DosCond", "ratio", "paper's count, Mirage", "DosCond", "ratio")
    return markdown_table(["", *counts, "seconds, Mirage", "DosCond", "ratio"], rows)


def soft_labels(entries: Sequence[Record]) -> str:
    """Accuracy under four kinds of labels of Fashion-MNIST at IPC 10, and INFER's controls."""
    rows = []
    for kind, suffix in KINDS.items():
        protocol = f"sre2l-kd-400{suffix}"
        found = [
            _one(entries, knobs, dataset="fashion_mnist", method=method, ipc=10, protocol=protocol)
            for method, knobs in KD_METHODS.items()
        ]
        controls = [found[-1].summary(metric).mean for metric in ("random", "natural")]
        values = [f"{100 * r.summary().mean:.1f} ± {100 * (r.summary().std or 0):.1f}" for r in found]
        rows.append([kind, *values, *(f"{100 * value:.1f}" for value in controls)])
    return markdown_table(["", *KD_METHODS, "random, INFER's steps", "natural images alone"], rows)


def uses(entries: Sequence[Record]) -> str:
    """Metrics other than accuracy: mean and 95 % interval."""
    rows = []
    for row, evaluator, metric in USES:
        cells = [row]
        for method in USES_METHODS:
            found = _one(entries, dataset="fashion_mnist", method=method, ipc=1, evaluator=evaluator).summary(
                metric
            )
            assert found.ci_low is not None and found.ci_high is not None
            mean, low, high = (f"{100 * x:.1f}" for x in (found.mean, found.ci_low, found.ci_high))
            cells.append(f"{mean} [{low}, {high}]")
        rows.append(cells)
    search = ["architecture search, Spearman (bootstrap interval)"]
    for method in USES_METHODS:
        found = _one(entries, dataset="fashion_mnist", method=method, ipc=10, evaluator="nas")
        low, mean, high = (found.summary(f"spearman{end}").mean for end in ("_low", "", "_high"))
        search.append(f"{_share(mean, 2)} [{_share(low, 2)}, {_share(high, 2)}]")
    return markdown_table(["", *USES_METHODS], [*rows, search])


def bits(entries: Sequence[Record]) -> str:
    """The fewest bits of each quantised set that lose nothing, by board."""
    return fewest_bits_table(entries) or "There are no entries yet."


def coresets(entries: Sequence[Record], dataset: str) -> str:
    """Accuracy in percent of distilled sets and of selections of real images, by IPC."""
    return coreset_table(entries, dataset) or "No entries yet."


def equal_compute(entries: Sequence[Record]) -> str:
    """Accuracy in percent of sets and of real images with equal steps, computation and seconds, with 95 % intervals."""
    rows = []
    for r in sorted(entries, key=lambda r: (r.dataset, r.ipc, r.method)):
        if r.evaluator.partition("(")[0] != "equal_compute" or r.status != "done":
            continue
        cells = []
        for metric in COMPUTE:
            found = r.summary(metric) if metric in {s.metric for s in r.scores} else None
            ends = None if found is None or found.ci_low is None else (found.ci_low, found.ci_high)
            text = "" if found is None else f"{100 * found.mean:.1f}"
            cells.append(text + ("" if ends is None else f" [{100 * ends[0]:.1f}, {100 * ends[1]:.1f}]"))
        seconds = sum(r.seconds.get(stage, 0.0) for stage in ("prepare", "distill"))
        rows.append([r.dataset, r.method, str(r.ipc), *cells, f"{seconds:,.0f}"])
    head = ["", "method", "IPC", "the set", "random images, equal steps", "new images, equal computation"]
    return (
        markdown_table([*head, "new images, equal seconds", "seconds"], rows) if rows else "No entries yet."
    )


def _one(
    entries: Sequence[Record],
    knobs: dict[str, object] | None = None,
    *,
    dataset: str,
    method: str,
    ipc: int,
    model: str | None = None,
    protocol: str | None = None,
    evaluator: str | None = None,
) -> Record:
    """Return the entry, of several the one with the largest budget; `knobs` are hyper-parameters of its method."""
    found = [
        r
        for r in entries
        if (r.dataset, r.method, r.ipc) == (dataset, method, ipc)
        and model in (None, r.model)
        and protocol in (None, r.protocol.name)
        and evaluator in (None, r.evaluator.partition("(")[0])
        and (knobs or {}).items() <= r.config.get("method", {}).items()
    ]
    if method == "cda" and protocol:
        found = [r for r in found if r.config["method"]["views"]["curriculum"] == "cosine"]
    if not found:
        raise ValueError(f"no entry of {method} on {dataset}, IPC {ipc}")
    return max(found, key=by_budget)


def _bytes(found: Iterable[Record], choose: Callable[[Iterable[int]], int]) -> int:
    return choose(sum(r.stored_bytes.values()) for r in found)


def _share(value: float, digits: int) -> str:
    return f"{value:.{digits}f}".replace("0.", ".", 1)


if __name__ == "__main__":
    known = sources()
    for page in PAGES:
        page.write_text(filled(page.read_text(), known, page.name))
    sys.stdout.write(f"{len(PAGES)} pages\n")
