"""Golden test of the first losses of every method. Changes are documented in CHANGELOG, "Changes numbers".

To update the golden file, run `DD_BENCH_GOLDEN=1 pytest tests/methods/test_golden.py`.
"""

import dataclasses
import json
import os
from importlib.resources import files
from pathlib import Path

import pytest

from dd_bench.models.gnn import GCN
from dd_bench.records.config_diff import shipped_yaml

GOLDEN = Path(__file__).parents[1] / "golden" / "methods.json"
FOLDER = Path(str(files("dd_bench.conf") / "method"))
NAMES = [
    file.stem for file in sorted(FOLDER.glob("*.yaml")) if "iterations" in shipped_yaml("method", file.stem)
]
STEPS = 5


@pytest.mark.parametrize("name", NAMES)
def test_first_losses(
    make_method, make_ctx, make_architecture, gin, motifs, node_gcn, blocks, train_blobs, name
):
    """The image network is smooth, because rounding on another CPU can change the gradient of a ReLU near 0."""
    method = make_method(name, iterations=STEPS)
    if "image" in type(method).modalities:
        real, network = train_blobs, make_architecture(activation="swish")
    elif "node" in type(method).modalities:
        real, network = blocks.train_only(), node_gcn(blocks)
    else:
        real, network = motifs.train_only(), dataclasses.replace(gin(motifs), make=GCN)
    ctx = make_ctx(architecture=network)
    method.distill(real, 2, ctx)
    known = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
    known = {key: losses for key, losses in known.items() if key in NAMES}
    if os.environ.get("DD_BENCH_GOLDEN"):
        known[name] = [float(f"{loss:.7g}") for loss in ctx.rows.losses]
        GOLDEN.write_text(json.dumps(dict(sorted(known.items())), indent=1) + "\n")
        pytest.skip(f"wrote {GOLDEN.name}")
    if name not in known:
        pytest.fail(f"{GOLDEN.name} has no {name}. DD_BENCH_GOLDEN=1 pytest tests/methods/test_golden.py")
    assert ctx.rows.losses == pytest.approx(known[name], rel=1e-4)


def test_golden_file_has_no_obsolete_methods():
    assert set(json.loads(GOLDEN.read_text())) == set(NAMES)
