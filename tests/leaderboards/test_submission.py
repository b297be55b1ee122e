"""What is asked of a record before it becomes an entry."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from dd_bench.leaderboards.cli import main
from dd_bench.leaderboards.submission import check_baselines, check_protocol, check_sets
from dd_bench.record import ProtocolId

SETS = Path(__file__).parents[2] / "leaderboards" / "sets"


def of(name, version=1, **config):
    return {"protocol": ProtocolId(name=name, version=version), "config": config}


def test_a_protocol_is_known(record):
    check_protocol(record("dm", 10, [[0.5]], **of("dc-300")))
    check_protocol(
        record("dm", 10, [[0.5]], **of("dc-300(recipe.epochs=5)", protocol={"recipe": {"epochs": 5}}))
    )
    with pytest.raises(ValueError, match="protocol 'mine' is none of conf/protocol"):
        check_protocol(record("dm", 10, [[0.5]], **of("mine")))
    for name in ("../dataset/digits", "dc-300/..", ""):
        with pytest.raises(ValueError, match="is none of conf/protocol"):
            check_protocol(record("dm", 10, [[0.5]], **of(name)))
    longer = {"recipe": {"epochs": 999}}
    with pytest.raises(ValueError, match=r"'dc-300' has the configuration of 'dc-300\(recipe.epochs=999\)'"):
        check_protocol(record("dm", 10, [[0.5]], **of("dc-300", protocol=longer)))
    check_protocol(record("dm", 10, [[0.5]], **of("dc-300(recipe.epochs=999)", protocol=longer)))
    with pytest.raises(ValueError, match=r"dc-300 v9: this version of dd_bench knows v1\. Update it"):
        check_protocol(record("dm", 10, [[0.5]], **of("dc-300", 9)))


def test_a_baseline_is_there(record):
    dm, random = record("dm", 10, [[0.7]]), record("random", 10, [[0.5]])
    check_baselines([dm], [dm, random])
    check_baselines([random], [random])
    for others in ([], [record("random", 1, [[0.5]])], [record("random", 10, [[0.5]], dataset="digits")]):
        with pytest.raises(ValueError, match=r"IPC 10:\n    dd-bench run method=random .*num_sets=5"):
            check_baselines([dm], [dm, *others])


def test_soft_labels_are_compared_with_hard_random_images(record):
    datm = record("datm", 10, [[0.7]], label_mode="soft")
    check_baselines([datm], [datm, record("random", 10, [[0.5]])])
    with pytest.raises(ValueError, match="method=random"):
        check_baselines([datm], [datm])


@pytest.fixture
def sets(tmp_path):
    """A folder with one committed set, and its digest."""
    source = next(SETS.glob("dm-fashion_mnist-ipc10-*"))
    shutil.copytree(source, tmp_path / "sets" / source.name)
    digest = hashlib.sha256((source / "card.json").read_bytes()).hexdigest()
    real = json.loads((source / "card.json").read_text())["dataset_digest"]
    return tmp_path / "sets", tmp_path / "sets" / source.name, {"set_digests": [digest], "real_digest": real}


def test_sets_are_what_the_record_says(record, sets):
    folder, one, digest = sets
    assert check_sets(record("dm", 10, [[0.5]], **digest), folder) == []
    (remark,) = check_sets(record("dm", 10, [[0.5]], set_digests=["a" * 64]), folder)
    assert "nobody can verify it" in remark
    with pytest.raises(ValueError, match=r"says ipc 1, its set .* is of 10"):
        check_sets(record("dm", 1, [[0.5]], **digest), folder)
    with pytest.raises(ValueError, match="says dataset_digest 5eed"):
        check_sets(record("dm", 10, [[0.5]], set_digests=digest["set_digests"]), folder)
    (remark,) = check_sets(record("dm", 10, [[0.5]]), folder)
    assert "names no set" in remark
    with pytest.raises(ValueError, match="'nonsense' is no digest"):
        check_sets(record("dm", 10, [[0.5]], set_digests=["nonsense"]), folder)
    (one / "synthetic.safetensors").write_bytes(b"another")
    with pytest.raises(ValueError, match=r"synthetic\.safetensors is missing or was changed"):
        check_sets(record("dm", 10, [[0.5]], **digest), folder)
    (one / "card.json").write_text("{}")
    empty = hashlib.sha256(b"{}").hexdigest()
    with pytest.raises(ValueError, match="is not a valid card"):
        check_sets(record("dm", 10, [[0.5]], set_digests=[empty]), folder)


def test_the_command_asks_all_of_it(record, sets, tmp_path, capsys):
    folder, _, digest = sets
    dm = record("dm", 10, [[0.5]], **digest, **of("dc-300"))
    wrong = record("random", 7, [[0.5]], **digest, **of("dc-300")).save(tmp_path / "wrong.json")
    path = dm.save(tmp_path / "dm.json")
    how = ["--entries", str(tmp_path / "entries"), "--sets", str(folder)]
    assert main(["add", str(path), *how]) == 1
    assert (
        "nobody can tell what a method adds" in capsys.readouterr().err
        and not (tmp_path / "entries").exists()
    )
    assert main(["add", str(path), str(wrong), *how, "--no-baseline"]) == 1
    assert "says ipc 7" in capsys.readouterr().err and not (tmp_path / "entries").exists(), "all or none"
    assert main(["add", str(path), *how, "--no-baseline"]) == 0
    random = record("random", 1, [[0.5]], set_digests=["b" * 64], **of("dc-300"))
    both = [
        str(record("dm", 1, [[0.6]], **of("dc-300")).save(tmp_path / "dm1.json")),
        str(random.save(tmp_path / "r.json")),
    ]
    assert main(["add", *both, *how]) == 0, "a record and its baseline may come together"
    assert len(json.loads(path.read_text())["set_digests"]) == 1
