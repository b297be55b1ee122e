"""Test of `benchmarks/curriculum_convergence.py` on digits, with a small teacher and a few iterations."""

import json

import pytest

from .conftest import script

convergence = script("curriculum_convergence")

TINY = [
    "dataset=digits",
    "teachers.convnet_w32_bn.model.width=4",
    "teachers.convnet_w32_bn.model.depth=2",
    "teachers.convnet_w32_bn.recipe.epochs=1",
    "teachers.convnet_w32_bn.keep=[]",
]


def test_losses_are_measured_before_the_first_and_after_the_last_iteration(tmp_path):
    out = tmp_path / "convergence.json"
    common = ["--cache", str(tmp_path / "cache"), "--out", str(out), "--seeds", "3", "--iterations", "4"]
    convergence.main([*common, "--statistics", "1.0", "--overrides", *TINY])
    found = json.loads(out.read_text())
    assert found["iterations"] == [0, 1, 2, 3, 4]
    curricula = found["results"]["1"]
    losses = {name: s["teacher"]["values"] for name, s in curricula.items()}
    assert all(len(run) == 5 and len(set(run)) == 5 for runs in losses.values() for run in runs)
    starts = {name: [run[0] for run in runs] for name, runs in losses.items()}
    assert starts["none"] == starts["const"] == starts["cosine"], "the same noise for the same seed"
    assert len(set(starts["none"])) == 3
    for other in ("const", "none"):
        less = curricula["cosine"][f"less {other}"]["teacher"]
        assert less[0]["mean"] == 0.0
        expected = curricula["cosine"]["teacher"]["mean"][-1] - curricula[other]["teacher"]["mean"][-1]
        assert less[-1]["mean"] == pytest.approx(expected) and less[-1]["ci_low"] <= less[-1]["ci_high"]
    assert out.with_suffix(".svg").read_text().startswith("<?xml")
