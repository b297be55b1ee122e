import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dd_bench.leaderboards.core.entries import entry_name
from dd_bench.leaderboards.website.table_data import unpacked
from dd_bench.records.config_diff import shipped_config
from dd_bench.records.record import Code, ProtocolId, Record, Score
from dd_bench.runtime.files import content_key

CAMPAIGN = Path(__file__).parents[2] / "leaderboards" / "campaign.sh"
STUB = """#!/bin/sh
for word in "$@"; do printf '%s\\001' "$word"; done >> "$CALLS"; printf '\\002' >> "$CALLS"
"""


def make_record(method: str, ipc: int, sets: list[list[float]], **changes: Any) -> Record:
    """Return a record with one list of network values per set. With a status other than done, pass no sets."""
    fields: dict[str, Any] = {
        "key": content_key([method, ipc, sets, repr(changes)]),
        "status": "done",
        "created": "2026-01-02T03:04:05Z",
        "method": method,
        "dataset": "fashion_mnist",
        "model": "convnet(width=32)",
        "ipc": ipc,
        "protocol": ProtocolId(name="hard", version=1),
        "evaluator": "accuracy",
        "selection": "last",
        "label_mode": "hard",
        "main_metric": "accuracy",
        "config": {"method": {}},
        "seeds": {"seed": 0},
        "seconds": {"distill": 12.5, "evaluate": 3.25},
        "stored_bytes": {"images": 31360 * ipc, "labels": 80 * ipc},
        "real_digest": "5eed",
        "code": Code(version="0.1.0", numbers=1, revision="0123456789abcdef", dirty=False),
        "device": "cpu",
        "versions": {"torch": "2.13.0"},
    }
    fields |= changes
    evaluator = fields["config"].get("evaluator", {})
    if "num_networks" in evaluator and sets:  # agree with the number of values
        repeats = {"evaluator": evaluator | {"num_networks": len(sets[0])}, "num_sets": len(sets)}
        fields["config"] = fields["config"] | repeats
    metric = fields["main_metric"]
    scores = [
        Score(metric=metric, value=value, set=s, network=n, seed=n)
        for s, values in enumerate(sets)
        for n, value in enumerate(values)
    ]
    return Record(**{"scores": scores, **fields})


def table(page: Path, name: str = "rows") -> Any:
    """Return the data of a table in a page of the site."""
    match = re.search(
        f'<script type="application/json" id="{name}">(.*?)</script>', page.read_text(), re.DOTALL
    )
    assert match, f"{page} has no data {name}"
    data = json.loads(match[1])
    return unpacked(data) if "rows" in data else data


def composed(method: str, protocol: str = "dc-300") -> dict[str, Any]:
    """Return the protocol and configuration of a run on Fashion-MNIST as in its record."""
    choices = {"method": method, "dataset": "fashion_mnist", "model": "convnet", "protocol": protocol}
    config = {
        group: shipped_config(group, name) for group, name in (choices | {"evaluator": "accuracy"}).items()
    }
    config["model"] = config["model"] | {"width": 32}
    return {"protocol": ProtocolId(name=protocol, version=1), "config": config}


@pytest.fixture
def record() -> Callable[..., Record]:
    return make_record


@pytest.fixture
def put(tmp_path: Path) -> Callable[..., Path]:
    """Save records as entries and return their folder."""

    def put(*records: Record, folder: str = "entries") -> Path:
        (tmp_path / folder).mkdir(exist_ok=True)
        for r in records:
            r.save(tmp_path / folder / entry_name(r))
        return tmp_path / folder

    return put


@pytest.fixture
def board() -> list[Record]:
    """A small board with all cases that a table can show."""
    five = [-0.004, -0.002, 0.0, 0.002, 0.004]
    return [
        make_record("random", 1, [[0.5 + x, 0.52 + x] for x in five]),
        make_record("random", 10, [[0.7, 0.71], [0.72, 0.73, 0.71]]),
        make_record("full", 1, [[0.92, 0.921, 0.922]]),
        make_record("dc", 1, [[0.71 + x for x in five]]),
        make_record("dm", 1, [[0.712 + x for x in five]]),
        make_record("dm", 1, [[0.65 + x for x in five]], config={"method": {"lr_img": 5.0}}),
        make_record("dm", 10, [[0.82 + x for x in five]]),
        make_record("dsa", 10, [[0.9]]),
        make_record("dsa", 1, [], status="diverged", reason="loss is nan at iteration 3 (lr_img=9)"),
        make_record(
            "mine & co_", 10, [], status="skipped", reason="<b>100%</b> | of $\\pi^2$\nis too #big {~}"
        ),
        make_record("dm", 10, [[0.85, 0.86, 0.87]], label_mode="soft"),
        make_record(
            "random", 5, [[0.61, 0.6]], main_metric="auc", dataset="mutag", model="gin", evaluator="graph"
        ),
    ]


@pytest.fixture
def calls(tmp_path: Path) -> Callable[..., Any]:
    """Run `campaign.sh` with a `dd-bench` and a `python` that only record their arguments, and return these."""
    (tmp_path / "bin").mkdir()
    for name in ("dd-bench", "python"):
        (tmp_path / "bin" / name).write_text(STUB)
        (tmp_path / "bin" / name).chmod(0o755)
    for method in ["random", "herding", "kmeans", "dm", "datadam", "mtt", "ftd", "cda", "rded", "sre2l"]:
        for ipc in (1, 7, 10):
            (tmp_path / "out" / "sets" / f"{method}-fashion_mnist-ipc{ipc}-0").mkdir(parents=True)
    for classes in ("0-4", "5-9"):
        for name in (f"digits-classes{classes}", f"fashion_mnist-classes{classes}"):
            (tmp_path / "out" / "sets" / f"lgm-{name}-ipc1-{'0' * 16}").mkdir()
    for name in ("MUTAG", "NCI1", "PROTEINS", "ogbg_molbace", "ogbg_molbbbp"):
        (tmp_path / "out" / "sets" / f"doscond-{name}-ipc10-0").mkdir()
        for kind in (f"mirage-{name}-ipc10", f"mirage_released-{name}-ipc4"):
            mined = tmp_path / "out" / "sets" / f"{kind}-0"
            mined.mkdir()
            (mined / "card.json").write_text('{"stored_bytes": {"labels": 20, "nodes": 300}}')
    (tmp_path / "out" / "records").mkdir()
    (tmp_path / "out" / "records" / "a.json").write_text('{"status": "done"}')

    def run(*parts: str) -> tuple[subprocess.CompletedProcess[str], list[list[str]]]:
        (tmp_path / "calls").unlink(missing_ok=True)
        environment = os.environ | {
            "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
            "CALLS": str(tmp_path / "calls"),
        }
        done = subprocess.run(
            ["bash", str(CAMPAIGN), str(tmp_path / "out"), *parts],
            env=environment,
            capture_output=True,
            text=True,
        )
        found = (tmp_path / "calls").read_text() if (tmp_path / "calls").exists() else ""
        return done, [call.split("\001")[:-1] for call in found.split("\002")[:-1]]

    return run
