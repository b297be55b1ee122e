"""Release folders: what `datasets`, the Hub's library and dd_bench read from them."""

from pathlib import Path

import pytest
import torch

import dd_bench
from dd_bench.hub.export import export_command
from dd_bench.hub.release import nearby_records, records_of
from dd_bench.synthetic import storage

BOARDS = Path(__file__).resolve().parents[2] / "leaderboards"
DIGITS = BOARDS / "sets" / "digits" / "dm-digits-ipc10-1d76740b25287ace"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The release of a committed set of DM, a third of whose pixels are outside the range of pixels."""
    pytest.importorskip("datasets")
    to = tmp_path_factory.mktemp("release") / "dm"
    assert export_command([str(DIGITS), str(to), "--format", "hub"]) == 0
    return to


def test_load_dataset_without_loss(folder, tmp_path):
    datasets = pytest.importorskip("datasets")
    loaded = datasets.load_dataset(str(folder), cache_dir=str(tmp_path))
    assert list(loaded) == ["train"], "only the Parquet file must be read"
    train, syn = loaded["train"].with_format("torch"), dd_bench.load(DIGITS)
    assert torch.equal(train["input"][:], syn.inputs()) and torch.equal(train["label"][:], syn.labels)
    assert float((syn.stored.preprocess.inverse(syn.inputs()) < 0).float().mean()) > 0.1, "not 8-bit images"
    assert train.features["label"].names == list(syn.class_names)


def test_the_set_is_unchanged(folder):
    assert storage.digest(folder / "set") == storage.digest(DIGITS)
    assert dd_bench.load(folder / "set").card.method == "dm"


def test_card_of_the_hub(folder):
    from huggingface_hub import DatasetCard

    card = DatasetCard.load(folder / "README.md")
    assert card.data.license == "cc-by-4.0" and "license_name" not in card.data.to_dict()
    assert card.data.size_categories == ["n<1K"] and card.data.task_categories == ["image-classification"]
    assert card.data.configs[0]["data_files"] == [{"split": "train", "path": "data/train.parquet"}]
    assert "@misc{dm," in card.text and "@misc{digits," in card.text
    assert storage.digest(DIGITS)[:16] in card.text


def test_scores_are_those_of_the_entries(folder):
    digest = storage.digest(DIGITS)
    records = records_of(digest, nearby_records(DIGITS))
    assert {r.protocol.name for r in records} >= {"dc-300", "mtt-1000"}
    text = (folder / "README.md").read_text()
    assert {r.main_metric for r in records if r.is_share} >= {"accuracy"}
    assert "coverage" in {r.main_metric for r in records if not r.is_share}, "not in percent"
    for record in records:
        s, factor, unit = record.summary(), *((100, " %") if record.is_share else (1, ""))
        assert f"| {factor * s.mean:.2f} ± {factor * s.std:.2f}{unit} | {factor * s.ci_low:.2f} to " in text
    assert records_of("0" * 64, nearby_records(DIGITS)) == []
