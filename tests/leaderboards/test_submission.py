"""What is asked of a record before it becomes an entry."""

import json
import shutil
from pathlib import Path

import pytest

from dd_bench.leaderboards.cli import main
from dd_bench.leaderboards.submission import check_baselines, check_protocol, check_sets
from dd_bench.record import ProtocolId

SETS = Path(__file__).parents[2] / "leaderboards" / "sets"


def of(protocol, version=1):
    return {"protocol": ProtocolId(name=protocol, version=version)}


def test_a_protocol_is_known(record):
    check_protocol(record("dm", 10, [[0.5]], **of("dc-300")))
    check_protocol(record("dm", 10, [[0.5]], **of("dc-300(recipe.epochs=5)")))
    with pytest.raises(ValueError, match="protocol 'mine' is none of conf/protocol"):
        check_protocol(record("dm", 10, [[0.5]], **of("mine")))
    with pytest.raises(ValueError, match=r"dc-300 v9: this version of dd_bench knows v1\. Update it"):
        check_protocol(record("dm", 10, [[0.5]], **of("dc-300", 9)))


def test_a_baseline_is_there(record):
    dm, random = record("dm", 10, [[0.7]]), record("random", 10, [[0.5]])
    check_baselines([dm], [dm, random])
    check_baselines([random], [random])
    for others in ([], [record("random", 1, [[0.5]])], [record("random", 10, [[0.5]], dataset="digits")]):
        with pytest.raises(ValueError, match=r"IPC 10:\n    dd-bench run method=random .*num_sets=5"):
            check_baselines([dm], [dm, *others])


@pytest.fixture
def sets(tmp_path):
    """A folder with one committed set, and its digest."""
    import hashlib

    source = next(SETS.glob("dm-fashion_mnist-ipc10-*"))
    shutil.copytree(source, tmp_path / "sets" / source.name)
    digest = hashlib.sha256((source / "card.json").read_bytes()).hexdigest()
    return tmp_path / "sets", tmp_path / "sets" / source.name, digest


def test_sets_are_what_the_record_says(record, sets):
    folder, one, digest = sets
    assert check_sets(record("dm", 10, [[0.5]], set_digests=[digest]), folder) == []
    (remark,) = check_sets(record("dm", 10, [[0.5]], set_digests=["a" * 64]), folder)
    assert "nobody can verify it" in remark
    with pytest.raises(ValueError, match=r"says fashion_mnist at IPC 1, its set .* at IPC 10"):
        check_sets(record("dm", 1, [[0.5]], set_digests=[digest]), folder)
    with pytest.raises(ValueError, match="'nonsense' is no digest"):
        check_sets(record("dm", 10, [[0.5]], set_digests=["nonsense"]), folder)
    (one / "synthetic.safetensors").write_bytes(b"another")
    with pytest.raises(ValueError, match=r"synthetic\.safetensors is missing or was changed"):
        check_sets(record("dm", 10, [[0.5]], set_digests=[digest]), folder)


def test_the_command_asks_all_of_it(record, sets, tmp_path, capsys):
    folder, _, digest = sets
    dm = record("dm", 10, [[0.5]], set_digests=[digest], **of("dc-300"))
    path = dm.save(tmp_path / "dm.json")
    how = ["--entries", str(tmp_path / "entries"), "--sets", str(folder)]
    assert main(["add", str(path), *how]) == 1
    assert (
        "nobody can tell what a method adds" in capsys.readouterr().err
        and not (tmp_path / "entries").exists()
    )
    assert main(["add", str(path), *how, "--no-baseline"]) == 0
    random = record("random", 1, [[0.5]], set_digests=["b" * 64], **of("dc-300"))
    both = [
        str(record("dm", 1, [[0.6]], **of("dc-300")).save(tmp_path / "dm1.json")),
        str(random.save(tmp_path / "r.json")),
    ]
    assert main(["add", *both, *how]) == 0, "a record and its baseline may come together"
    assert len(json.loads(path.read_text())["set_digests"]) == 1
