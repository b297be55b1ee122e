"""What is asked of a record before it becomes an entry."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from dd_bench.leaderboards.admission.consistency import (
    check_configuration,
    check_protocol,
    check_repeats,
    check_whole,
)
from dd_bench.leaderboards.admission.submission import check_baselines, check_sets, check_twins
from dd_bench.leaderboards.cli import main
from dd_bench.leaderboards.core.entries import load_entries
from dd_bench.records.record import ProtocolId
from dd_bench.runtime.files import content_key

from .conftest import composed

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
    check_baselines([datm], [datm, record("random", 10, [[0.5]], label_mode="soft")])
    with pytest.raises(ValueError, match="method=random"):
        check_baselines([datm], [datm])


@pytest.fixture
def sets(tmp_path):
    """A folder with one committed set, and its digest."""
    source = next(SETS.glob("*/dm-fashion_mnist-ipc10-*"))
    shutil.copytree(source, tmp_path / "sets" / source.name)
    digest = hashlib.sha256((source / "card.json").read_bytes()).hexdigest()
    real = json.loads((source / "card.json").read_text())["dataset_digest"]
    return tmp_path / "sets", tmp_path / "sets" / source.name, {"set_digests": [digest], "real_digest": real}


def test_sets_are_what_the_record_says(record, sets):
    folder, one, digest = sets
    assert check_sets([record("dm", 10, [[0.5]], config={}, **digest)], folder) == []
    (remark,) = check_sets([record("dm", 10, [[0.5]], set_digests=["a" * 64])], folder)
    assert "nobody can verify it" in remark
    with pytest.raises(ValueError, match=r"says ipc 1, its set .* is of 10"):
        check_sets([record("dm", 1, [[0.5]], config={}, **digest)], folder)
    with pytest.raises(ValueError, match="says dataset_digest 5eed"):
        check_sets([record("dm", 10, [[0.5]], config={}, set_digests=digest["set_digests"])], folder)
    (remark,) = check_sets([record("dm", 10, [[0.5]])], folder)
    assert "names no set" in remark
    with pytest.raises(ValueError, match="'nonsense' is no digest"):
        check_sets([record("dm", 10, [[0.5]], set_digests=["nonsense"])], folder)
    card = json.loads((one / "card.json").read_text())
    card["set"]["whole"] = True
    (one / "card.json").write_text(json.dumps(card))
    whole = digest | {"set_digests": [hashlib.sha256((one / "card.json").read_bytes()).hexdigest()]}
    with pytest.raises(
        ValueError, match=r"is the whole training set, and its method 'dm' at IPC 10 is not 'full'"
    ):
        check_sets([record("dm", 10, [[0.5]], config={}, **whole)], folder)
    card["set"].pop("whole")
    shutil.copy(next(SETS.glob("*/dm-fashion_mnist-ipc10-*")) / "card.json", one / "card.json")
    (one / "synthetic.safetensors").write_bytes(b"another")
    with pytest.raises(ValueError, match=r"synthetic\.safetensors is missing or was changed"):
        check_sets([record("dm", 10, [[0.5]], config={}, **digest)], folder)
    (one / "card.json").write_text("{}")
    empty = hashlib.sha256(b"{}").hexdigest()
    with pytest.raises(ValueError, match="is not a valid card"):
        check_sets([record("dm", 10, [[0.5]], set_digests=[empty])], folder)


def test_the_command_asks_all_of_it(record, sets, tmp_path, capsys):
    folder, _, digest = sets
    measured = composed("dm")
    measured["config"]["set"] = "the set"  # it was made elsewhere
    dm = record("dm", 10, [[0.5]], **digest, **measured)
    wrong = record("random", 7, [[0.5]], **digest, **composed("random")).save(tmp_path / "wrong.json")
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
    random = record("random", 1, [[0.5]], set_digests=["b" * 64], **composed("random"))
    both = [
        str(record("dm", 1, [[0.6]], **composed("dm")).save(tmp_path / "dm1.json")),
        str(random.save(tmp_path / "r.json")),
    ]
    assert main(["add", *both, *how]) == 0, "a record and its baseline may come together"
    assert len(json.loads(path.read_text())["set_digests"]) == 1


@pytest.fixture(scope="module")
def shipped():
    """A committed entry of DM, as a stranger would hand it in."""
    entries = load_entries(SETS.parent / "entries")
    return next(
        r
        for r in entries
        if (r.method, r.ipc, r.protocol.name) == ("dm", 10, "dc-300")
        and (r.model, r.dataset) == ("convnet(width=32)", "fashion_mnist")
    )


def with_config(record, group, **values):
    return record.model_copy(update={"config": record.config | {group: record.config[group] | values}})


def test_names_are_those_of_the_configuration(shipped):
    check_configuration(shipped)
    for changed, message in (
        (
            shipped.model_copy(update={"model": "convnet"}),
            r"model 'convnet' has the configuration of 'convnet\(width=32",
        ),
        (with_config(shipped, "model", width=128), r"has the configuration of 'convnet'"),
        (with_config(shipped, "method", _target_="os.system"), "a record holds names and values"),
        (with_config(shipped, "evaluator", _target_="os.system"), "a record holds names and values"),
        (
            shipped.model_copy(update={"label_mode": "online"}),
            "its protocol has hard or soft or unknown labels",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            check_configuration(changed)
    check_configuration(with_config(shipped, "evaluator", num_networks=9))
    check_configuration(
        shipped.model_copy(update={"method": "mine", "config": {"method": {"_choice_": "mine"}}})
    )


def test_data_and_teachers_are_those_of_the_configuration(shipped):
    digits = {"_choice_": "digits"}
    teachers = {"convnet_bn": {"model": {"_target_": "os.system"}}}
    for changed, message in (
        (
            shipped.model_copy(update={"dataset": "cifar10"}),
            "dataset 'cifar10': its configuration is that of 'fashion_mnist'",
        ),
        (shipped.model_copy(update={"dataset": "mine"}), None),  # a name that no YAML has, and none is told
        (with_config(shipped, "dataset", **digits), "its configuration is that of 'digits'"),
        (with_config(shipped, "dataset", _target_="os.system"), "a record holds names and values"),
        (with_config(shipped, "dataset", _choice_=["os.system"]), "its configuration is that of"),
        (
            with_config(shipped, "dataset", preprocess={"_target_": "os.system"}),
            "has a key '_target_', which is none",
        ),
        (
            shipped.model_copy(update={"config": shipped.config | {"teachers": teachers}}),
            "a record holds names and values",
        ),
    ):
        if message is None:
            check_configuration(changed)
        else:
            with pytest.raises(ValueError, match=message):
                check_configuration(changed)


def test_values_are_of_the_networks_that_were_asked(shipped):
    check_repeats(shipped)
    for update, message in (
        (
            {"scores": shipped.scores[:-1]},
            r"networks \(set 0: 0, 1, 2, 3\), and its configuration asks 5 networks of 1",
        ),
        (
            {"scores": [s.model_copy(update={"network": s.network + 10}) for s in shipped.scores]},
            "10, 11, 12",
        ),
        ({"scores": [s.model_copy(update={"set": 1}) for s in shipped.scores]}, "set 1: 0, 1"),
        ({"config": shipped.config | {"num_sets": 2}}, r"asks 5 networks of 2 set\(s\)"),
        ({"config": shipped.config | {"num_sets": "${oc.env:HOME}"}}, "num_sets '.*': its configuration has"),
        ({"config": shipped.config | {"ipc": 50}}, "ipc 10: its configuration has 50"),
        ({"config": shipped.config | {"seed": 3}}, "seed 0: its configuration has 3"),
        ({"config": shipped.config | {"seed": "${oc.env:HOME}"}}, "seed 0: its configuration has"),
    ):
        with pytest.raises(ValueError, match=message):
            check_repeats(shipped.model_copy(update=update))


def test_every_entry_says_what_its_configuration_does():
    for record in load_entries(SETS.parent / "entries"):
        check_configuration(record)
        check_repeats(record)


def test_knobs_of_an_evaluator_are_in_its_name(record):
    config = {
        "evaluator": {
            "_choice_": "continual",
            "steps": 2,
            "orders": 5,
            "num_networks": 1,
        }
    }
    check_configuration(record("dm", 1, [[0.5]], evaluator="continual(steps=2)", config=config))
    with pytest.raises(
        ValueError, match=r"evaluator 'continual' has the configuration of 'continual\(steps=2\)'"
    ):
        check_configuration(record("dm", 1, [[0.5]], evaluator="continual", config=config))


def test_one_measurement_has_one_key(shipped):
    check_twins([shipped], [shipped])
    again = shipped.model_copy(update={"key": content_key("another")})
    with pytest.raises(ValueError, match=r"has the values of fashion_mnist-dm-ipc10-.*under another key"):
        check_twins([again], [shipped])
    with pytest.raises(ValueError, match="under another key"):
        check_twins([shipped, again], [])
    check_twins([again.model_copy(update={"scores": again.scores[:3]})], [shipped])


def test_a_set_was_made_as_the_record_says(shipped):
    check_sets([shipped], SETS)
    with pytest.raises(ValueError, match="made its set with other iterations than the card"):
        check_sets([with_config(shipped, "method", iterations=1)], SETS)


def test_every_entry_passes_what_is_asked_today():
    """Of images and graphs, of one set and several, of all methods and protocols."""
    entries = load_entries(SETS.parent / "entries")
    check_sets(entries, SETS)
    check_twins(entries, [])
    for entry in entries:
        check_protocol(entry)
        check_whole(entry)
        check_configuration(entry)


def test_nothing_of_its_making_may_be_left_out(shipped):
    """What is not there cannot belie what the record says of itself."""
    check_whole(shipped)
    for group in ("method", "dataset", "model", "protocol", "evaluator"):
        for empty in ({group: {}}, {group: None}):
            with pytest.raises(
                ValueError, match=f"its configuration has no {group}: hand in the record as the run"
            ):
                check_whole(shipped.model_copy(update={"config": shipped.config | empty}))


def test_labels_bytes_and_selection_are_those_of_set_and_protocol(shipped):
    """Soft labels on the board of hard ones, fewer bytes than there are, a pick on test data called the last."""
    check_sets([shipped], SETS)
    datm = next(r for r in load_entries(SETS.parent / "entries") if (r.method, r.ipc) == ("datm", 10))
    check_sets([datm], SETS)
    with pytest.raises(
        ValueError, match=r"label_mode 'hard', its set .*datm-fashion_mnist-ipc10-.* has soft labels"
    ):
        check_sets([datm.model_copy(update={"label_mode": "hard"})], SETS)
    for size in ({"images": 1, "labels": 800}, {}):
        with pytest.raises(ValueError, match=r"stores .* bytes, its set .* images 313600|images 313600"):
            check_sets([shipped.model_copy(update={"stored_bytes": size})], SETS)
    kept = [g for g in shipped.config["protocol"] if g not in ("selection", "labels")]
    less = with_config(shipped, "protocol").model_copy(
        update={"config": shipped.config | {"protocol": {k: shipped.config["protocol"][k] for k in kept}}}
    )
    with pytest.raises(ValueError, match="selection 'best_on_val': its protocol has 'last'"):
        check_configuration(less.model_copy(update={"selection": "best_on_val"}))
    static = next(
        r for r in load_entries(SETS.parent / "entries") if r.protocol.name == "sre2l-kd-400-static"
    )
    silent = {k: v for k, v in static.config["protocol"].items() if k != "labels"}
    with pytest.raises(ValueError, match="label_mode 'hard': its protocol has static labels"):
        check_configuration(
            static.model_copy(update={"label_mode": "hard", "config": static.config | {"protocol": silent}})
        )
    with pytest.raises(ValueError, match="selection 'last': its protocol has 'best_on_test'"):
        check_configuration(with_config(shipped, "protocol", selection="best_on_test"))
    with pytest.raises(ValueError, match=r"protocol.recipe=5: wanted keys and values"):
        check_configuration(with_config(shipped, "protocol", recipe=5))


def test_a_failure_that_was_tried_again_stops_nobody(record, tmp_path, capsys):
    failed = {"scores": [], "status": "diverged", "reason": "loss is nan", "key": "a" * 16} | composed("dc")
    first = record("dc", 10, [], **failed).save(tmp_path / "first.json")
    again = record("dc", 10, [], **failed | {"created": "2026-02-03T04:05:06Z"}).save(tmp_path / "again.json")
    random = record("random", 10, [[0.5]], **composed("random")).save(tmp_path / "random.json")
    how = ["--entries", str(tmp_path / "entries"), "--sets", str(tmp_path)]
    assert main(["add", str(random), str(first), *how]) == 0
    other = record("dm", 10, [[0.6]], **composed("dm")).save(tmp_path / "dm.json")
    assert main(["add", str(again), str(other), *how]) == 0
    assert "already there" in capsys.readouterr().out
    assert len(list((tmp_path / "entries").glob("*/*.json"))) == 3
