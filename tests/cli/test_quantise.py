"""`dd-bench quantise`, and runs with `method.store`."""

import pytest
import torch

from dd_bench.cli.quantise import _row, parse_words, set_name
from dd_bench.records.config_diff import STORED
from dd_bench.records.record import load_record
from dd_bench.synthetic import storage
from dd_bench.synthetic.card import read_card
from dd_bench.synthetic.images import ImageSet
from dd_bench.synthetic.quantisation import Quantiser
from dd_bench.synthetic.quantised import QuantisedSet


def test_words_give_all_combinations_once():
    sets, quantisers, out = parse_words(["a", "b", "bits=4,2", "per=set,patch", "patch=2,7", "out=elsewhere"])
    assert sets == ["a", "b"] and str(out) == "elsewhere"
    assert [(q.bits, q.per, q.patch) for q in quantisers] == [
        (bits, per, patch) for bits in (4, 2) for per, patch in (("set", 4), ("patch", 2), ("patch", 7))
    ]
    assert parse_words(["hf://datasets/USER/NAME?x=1", "bits=8"])[0] == ["hf://datasets/USER/NAME?x=1"]
    names = {
        set_name("s", q) for q in [*quantisers, Quantiser(4, "set", "mse"), Quantiser(4, "set", groups=3)]
    }
    assert len(names) == 8 and set_name("s", Quantiser(2, "patch", "mse", 7, 16)) == "s-2bit-patch7-g16-mse"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["bits=4"], "a set is missing"),
        (["a"], "bits is missing"),
        (["a", "bit=4"], "Did you mean bits"),
        (["a", "bits=5"], "bits must be one of 1, 2, 3, 4, 6, 8, got 5"),
        (["a", "bits=4", "per=row"], "per must be one of set, image, channel, patch, got 'row'"),
        (["a", "bits=4", "groups=x"], "groups must be an integer"),
        (["a", "bits=8", "patch=3"], "patch=3 has no effect with per=image. Use per=patch patch=3"),
        (["a", "bits=8", "patch=4", "per=set,image"], "patch=4 has no effect with per=set,image"),
    ],
)
def test_wrong_words(words, message):
    with pytest.raises(ValueError, match=message):
        parse_words(words)


def test_a_run_stores_four_bits_and_its_set_is_quantised_to_two_bits_once(dd_bench, small, tmp_path):
    assert dd_bench("run", *small("random", "method.store=uint4")).code == 0
    (path,) = (tmp_path / "runs" / "records").iterdir()
    record = load_record(path)
    assert record.config["method"]["store"] == "uint4" and record.config[STORED]["bits"] == 4
    assert record.config[STORED]["rmse"] > 0 and record.sizes["entropy bits"] > 0
    assert set(record.stored_bytes) == {"codes", "labels", "minimum", "step"}
    (folder,) = (tmp_path / "runs" / "sets").iterdir()

    words = ["quantise", str(folder), "bits=2", "per=set", f"out={tmp_path / 'runs'}"]
    done = dd_bench(*words)
    assert done.code == 0 and "raw bits" in done.text and "WebP" in done.text and "and labels" in done.text
    new = folder.with_name(f"{folder.name}-2bit-set")
    card, before = read_card(new), (new / "card.json").read_bytes()
    assert (card.method, card.ipc, card.dataset_digest) == ("random", 1, read_card(folder).dataset_digest)
    assert card.config[STORED]["from"] == storage.digest(folder)
    assert dd_bench(*words).code == 0 and (new / "card.json").read_bytes() == before
    assert "2 bits per value, range per set" in dd_bench("show", str(new)).text


@pytest.mark.parametrize("soft", [True, False])
def test_raw_bits_contain_soft_labels(blobs, tmp_path, soft):
    """Hard labels take no bits: the images are stored class by class."""
    labels = torch.arange(3).repeat_interleave(2)
    labels = torch.eye(3)[labels] if soft else labels
    coded = QuantisedSet.of(ImageSet.of(blobs, torch.rand(6, 1, 8, 8), labels, "unit"), Quantiser(4))
    row = _row(tmp_path, coded, {"snr_db": 20.0})
    extra = 6 * 3 * 32 if soft else 0
    assert row["and labels"] == f"{extra:,}" and row["of them parameters"] == f"{6 * 32}"
    assert row["raw bits"] == f"{6 * 64 * 4 + 6 * 32 + extra:,}"
    assert row["entropy bits"] == f"{coded.size_metrics()['entropy bits'] + 6 * 32 + extra:,}"
