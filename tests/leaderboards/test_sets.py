"""The sets in `leaderboards/sets` are valid, and each was evaluated by an entry."""

from pathlib import Path

import pytest

from dd_bench.records.record import load_record
from dd_bench.synthetic import storage

ROOT = Path(__file__).parents[2] / "leaderboards"
SETS = sorted(p for p in (ROOT / "sets").glob("*/*") if p.is_dir())


@pytest.fixture(scope="module")
def evaluated():
    return {
        digest for path in (ROOT / "entries").glob("*/*.json") for digest in load_record(path).set_digests
    }


@pytest.mark.parametrize("folder", SETS, ids=lambda p: p.name)
def test_a_committed_set_is_valid_and_was_evaluated(folder, evaluated):
    syn, card = storage.load(folder)
    syn.check_ipc(card.ipc)
    assert storage.digest(folder) in evaluated
    if syn.modality == "image":  # the layout of graphs takes seconds, see `test_graphs`
        assert len(syn.pictures()[0]) >= len(card.class_names)
