"""Checks of a record before it becomes an entry."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from dd_bench.leaderboards.admission.consistency import (
    check_best_runs,
    check_complete,
    check_configuration,
    check_protocol,
    check_repeats,
)
from dd_bench.leaderboards.admission.submission import (
    _same_base,
    check_baselines,
    check_budget,
    check_sets,
    check_unique_scores,
)
from dd_bench.leaderboards.cli import main
from dd_bench.leaderboards.core.boards import boards
from dd_bench.leaderboards.core.entries import check_record, load_entries
from dd_bench.records.record import ProtocolId, Score
from dd_bench.records.tuning import Trial
from dd_bench.runtime.files import content_key

from .conftest import composed, make_record

SETS = Path(__file__).parents[2] / "leaderboards" / "sets"


def of(name, version=1, **config):
    return {"protocol": ProtocolId(name=name, version=version), "config": config}


def test_the_protocol_must_be_shipped(record):
    check_protocol(record("dm", 10, [[0.5]], **of("dc-300")))
    check_protocol(
        record("dm", 10, [[0.5]], **of("dc-300(recipe.epochs=5)", protocol={"recipe": {"epochs": 5}}))
    )
    with pytest.raises(ValueError, match="protocol 'mine' is not in conf/protocol"):
        check_protocol(record("dm", 10, [[0.5]], **of("mine")))
    for name in ("../dataset/digits", "dc-300/..", ""):
        with pytest.raises(ValueError, match="is not in conf/protocol"):
            check_protocol(record("dm", 10, [[0.5]], **of(name)))
    longer = {"recipe": {"epochs": 999}}
    with pytest.raises(
        ValueError, match=r"'dc-300', but its configuration is that of 'dc-300\(recipe.epochs=999\)'"
    ):
        check_protocol(record("dm", 10, [[0.5]], **of("dc-300", protocol=longer)))
    check_protocol(record("dm", 10, [[0.5]], **of("dc-300(recipe.epochs=999)", protocol=longer)))
    with pytest.raises(ValueError, match=r"dc-300 must have version <= 1, got 9\. Update dd_bench"):
        check_protocol(record("dm", 10, [[0.5]], **of("dc-300", 9)))


def test_a_random_baseline_is_required(record):
    dm, random = record("dm", 10, [[0.7]]), record("random", 10, [[0.5]])
    check_baselines([dm], [dm, random])
    check_baselines([random], [random])
    for others in ([], [record("random", 1, [[0.5]])], [record("random", 10, [[0.5]], dataset="digits")]):
        with pytest.raises(ValueError, match=r"IPC 10:\n    dd-bench run method=random .*num_sets=5"):
            check_baselines([dm], [dm, *others])


def test_a_random_baseline_with_hard_labels_is_accepted_for_soft_labels(record):
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


def test_sets_must_agree_with_the_record(record, sets, tmp_path):
    folder, one, digest = sets
    assert check_sets([record("dm", 10, [[0.5]], config={}, **digest)], folder) == []
    (remark,) = check_sets([record("dm", 10, [[0.5]], set_digests=["a" * 64])], folder)
    assert "They cannot be verified" in remark
    (tmp_path / "my runs").mkdir()
    (tmp_path / "sets").rename(tmp_path / "my runs" / "sets")
    paths = [tmp_path / out / "records" / "x.json" for out in ("my runs", "others")]
    (remark,) = check_sets([record("dm", 10, [[0.5]], config={}, **digest)], folder, paths)
    to = tmp_path / "sets" / "fashion_mnist"
    assert f"mkdir -p {to} && cp -r '{tmp_path}/my runs/sets/{one.name}' {to}" in remark, "of the right `out`"
    (tmp_path / "my runs" / "sets").rename(tmp_path / "sets")
    with pytest.raises(ValueError, match=r"ipc of its set .* must be 1, got 10"):
        check_sets([record("dm", 1, [[0.5]], config={}, **digest)], folder)
    with pytest.raises(ValueError, match=r"dataset_digest of its set .* must be 5eed"):
        check_sets([record("dm", 10, [[0.5]], config={}, set_digests=digest["set_digests"])], folder)
    (remark,) = check_sets([record("dm", 10, [[0.5]])], folder)
    assert "has no set digest" in remark
    with pytest.raises(ValueError, match="must have 64 hexadecimal digits, got 'nonsense'"):
        check_sets([record("dm", 10, [[0.5]], set_digests=["nonsense"])], folder)
    card = json.loads((one / "card.json").read_text())
    card["set"]["whole"] = True
    (one / "card.json").write_text(json.dumps(card))
    whole = digest | {"set_digests": [hashlib.sha256((one / "card.json").read_bytes()).hexdigest()]}
    with pytest.raises(
        ValueError,
        match=r"only a set of the method 'full' is the whole training set .* whole=True for method 'dm'",
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


def test_base_sets_of_a_record_and_a_card():
    base = {"set": "a", "digest": "d", "method": "dm", "ipc": 1}
    full = base | {"config": {"method": {"lr_img": 1.0}}}
    assert _same_base(None, None) and _same_base(base, base) and _same_base(full, full)
    assert _same_base(base, full) and _same_base(full, base), "older descriptions have no `config`"
    without = {key: value for key, value in full.items() if key != "digest"}
    for other in (None, full | {"digest": "e"}, full | {"config": {}}, without, base | {"ipc": 2}):
        assert not _same_base(full, other) and not _same_base(other, full)


def test_the_command_runs_all_checks(record, sets, tmp_path, capsys):
    folder, _, digest = sets
    evaluated = composed("dm")
    evaluated["config"]["set"] = "the set"  # the run did not distil it
    dm = record("dm", 10, [[0.5]], **digest, **evaluated)
    wrong = record("random", 7, [[0.5]], **digest, **composed("random")).save(tmp_path / "wrong.json")
    path = dm.save(tmp_path / "dm.json")
    how = ["--entries", str(tmp_path / "entries"), "--sets", str(folder)]
    assert main(["add", str(path), *how]) == 1
    assert "have no random baseline" in capsys.readouterr().err and not (tmp_path / "entries").exists()
    assert main(["add", str(path), str(wrong), *how, "--no-baseline"]) == 1
    assert "must be 7, got 10" in capsys.readouterr().err and not (tmp_path / "entries").exists(), (
        "all or none"
    )
    assert main(["add", str(path), *how, "--no-baseline"]) == 0
    random = record("random", 1, [[0.5]], set_digests=["b" * 64], **composed("random"))
    both = [
        str(record("dm", 1, [[0.6]], **composed("dm")).save(tmp_path / "dm1.json")),
        str(random.save(tmp_path / "r.json")),
    ]
    assert main(["add", *both, *how]) == 0, "a record and its baseline may be added together"
    assert len(json.loads(path.read_text())["set_digests"]) == 1


@pytest.fixture(scope="module")
def shipped():
    """A committed entry of DM."""
    entries = load_entries(SETS.parent / "entries")
    return next(
        r
        for r in entries
        if (r.method, r.ipc, r.protocol.name) == ("dm", 10, "dc-300")
        and (r.model, r.dataset) == ("convnet(width=32)", "fashion_mnist")
    )


def with_config(record, group, **values):
    return record.model_copy(update={"config": record.config | {group: record.config[group] | values}})


def test_names_must_agree_with_the_configuration(shipped):
    check_configuration(shipped)
    for changed, message in (
        (
            shipped.model_copy(update={"model": "convnet"}),
            r"'convnet', but its configuration is that of 'convnet\(width=32",
        ),
        (with_config(shipped, "model", width=128), r"its configuration is that of 'convnet'"),
        (
            with_config(shipped, "method", _target_="os.system"),
            "a record must not select the code that is run",
        ),
        (
            with_config(shipped, "evaluator", _target_="os.system"),
            "a record must not select the code that is run",
        ),
        (
            shipped.model_copy(update={"label_mode": "online"}),
            "label_mode must be hard or soft or unknown under this protocol, got 'online'",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            check_configuration(changed)
    check_configuration(with_config(shipped, "evaluator", num_networks=9))
    check_configuration(
        shipped.model_copy(update={"method": "mine", "config": {"method": {"_choice_": "mine"}}})
    )


def test_dataset_and_teachers_must_agree_with_the_configuration(shipped):
    digits = {"_choice_": "digits"}
    teachers = {"convnet_bn": {"model": {"_target_": "os.system"}}}
    for changed, message in (
        (
            shipped.model_copy(update={"dataset": "cifar10"}),
            "'cifar10', but its configuration is that of 'fashion_mnist'",
        ),
        (
            shipped.model_copy(update={"dataset": "mine"}),
            None,
        ),  # not shipped, and its configuration has no name
        (with_config(shipped, "dataset", **digits), "its configuration is that of 'digits'"),
        (
            with_config(shipped, "dataset", _target_="os.system"),
            "a record must not select the code that is run",
        ),
        (with_config(shipped, "dataset", _choice_=["os.system"]), "its configuration is that of"),
        (
            with_config(shipped, "dataset", preprocess={"_target_": "os.system"}),
            "'_target_' is not a configuration key",
        ),
        (
            shipped.model_copy(update={"config": shipped.config | {"teachers": teachers}}),
            "a record must not select the code that is run",
        ),
    ):
        if message is None:
            check_configuration(changed)
        else:
            with pytest.raises(ValueError, match=message):
                check_configuration(changed)


@pytest.mark.parametrize(
    ("name", "accepted"),
    [
        *((name, True) for name in ("cora", "cora_random_split", "cora_inductive", "cora-classes0-4")),
        *((name, False) for name in ("citeseer", "cora2", "cor")),
    ],
)
def test_name_of_a_dataset_begins_with_that_of_its_configuration(shipped, name, accepted):
    """Splits, settings and subsets have a suffix. Their records could not be added to a leaderboard."""
    values = {"_choice_": "planetoid", "name": "cora"}
    record = shipped.model_copy(update={"dataset": name, "config": shipped.config | {"dataset": values}})
    if accepted:
        check_configuration(record)
    else:
        with pytest.raises(ValueError, match=f"named '{name}', but its configuration names it 'cora'"):
            check_configuration(record)


def test_values_must_be_from_the_configured_networks(shipped):
    check_repeats(shipped)
    for update, message in (
        (
            {"scores": shipped.scores[:-1]},
            r"must have scores of 5 networks for each of 1 set\(s\) .* got set 0: networks 0, 1, 2, 3",
        ),
        (
            {"scores": [s.model_copy(update={"network": s.network + 10}) for s in shipped.scores]},
            "10, 11, 12",
        ),
        ({"scores": [s.model_copy(update={"set": 1}) for s in shipped.scores]}, "set 1: networks 0, 1"),
        ({"config": shipped.config | {"num_sets": 2}}, r"scores of 5 networks for each of 2 set\(s\)"),
        (
            {"config": shipped.config | {"num_sets": "${oc.env:HOME}"}},
            "num_sets is '.*' in the record, but",
        ),
        ({"config": shipped.config | {"ipc": 50}}, "ipc is 10 in the record, but 50 in its configuration"),
        ({"config": shipped.config | {"seed": 3}}, "seed is 0 in the record, but 3 in its configuration"),
        ({"config": shipped.config | {"seed": "${oc.env:HOME}"}}, "seed is 0 in the record, but"),
    ):
        with pytest.raises(ValueError, match=message):
            check_repeats(shipped.model_copy(update=update))


def test_all_entries_agree_with_their_configuration():
    for record in load_entries(SETS.parent / "entries"):
        check_configuration(record)
        check_repeats(record)
        check_best_runs(record)


class TestBestRuns:
    @staticmethod
    def legacy(kept=((1, 0.6), (2, 0.7)), keep=2, **changes):
        """A record of three networks, of which the protocol keeps the last two."""
        values = {
            "auc": ((0, 0.9), (1, 0.6), (2, 0.7)),
            "val": ((0, 0.1), (1, 0.3), (2, 0.2)),
            "auc_best2": kept,
        }
        scores = [
            Score(metric=metric, value=value, set=0, network=network, seed=network)
            for metric, pairs in values.items()
            for network, value in pairs
        ]
        config = {"protocol": {"keep": keep}, "evaluator": {"num_networks": 3}}
        fields = {"main_metric": "auc_best2", "scores": scores, "config": config, **changes}
        return make_record("mirage", 1, [], **fields)

    def test_the_kept_networks_are_those_with_the_best_validation_scores(self):
        check_best_runs(self.legacy())
        for kept in (((0, 0.9), (2, 0.7)), ((1, 0.6),), ((1, 0.6), (2, 0.8))):
            with pytest.raises(
                ValueError, match="auc_best2 must be auc of the 2 networks with the best valid"
            ):
                check_best_runs(self.legacy(kept))

    def test_the_main_metric_agrees_with_the_protocol(self):
        for keep, metric in ((None, "auc_best2"), (2, "auc"), (3, "auc_best2")):
            with pytest.raises(ValueError, match=f"main_metric must be .* with protocol.keep={keep}"):
                check_best_runs(self.legacy(keep=keep, main_metric=metric))

    def test_all_networks_must_be_in_the_record(self):
        check_repeats(self.legacy())
        without = [s for s in self.legacy().scores if (s.metric, s.network) != ("auc", 0)]
        with pytest.raises(ValueError, match="must have scores of 3 networks"):
            check_repeats(self.legacy(scores=without))

    def test_the_board_says_that_networks_were_selected(self):
        (board,) = boards([self.legacy()], [])
        assert any(
            "only the networks with the best validation scores are reported" in w for w in board.warnings
        )


def test_changed_parameters_of_an_evaluator_are_in_its_name(record):
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
        ValueError, match=r"'continual', but its configuration is that of 'continual\(steps=2\)'"
    ):
        check_configuration(record("dm", 1, [[0.5]], evaluator="continual", config=config))


def test_the_same_scores_under_another_key_are_rejected(shipped):
    check_unique_scores([shipped], [shipped])
    again = shipped.model_copy(update={"key": content_key("another")})
    with pytest.raises(
        ValueError, match=r"the same sets and scores as fashion_mnist-dm-ipc10-.*but a different key"
    ):
        check_unique_scores([again], [shipped])
    with pytest.raises(ValueError, match="but a different key"):
        check_unique_scores([shipped, again], [])
    check_unique_scores([again.model_copy(update={"scores": again.scores[:3]})], [shipped])


def test_the_method_of_a_set_must_agree_with_the_record(shipped):
    check_sets([shipped], SETS)
    with pytest.raises(
        ValueError,
        match=r"the card of its set .* must have the same method configuration, but differ in iterations",
    ):
        check_sets([with_config(shipped, "method", iterations=1)], SETS)


def test_all_entries_pass_the_current_checks():
    """Images and graphs, one set and several, all methods and protocols."""
    entries = load_entries(SETS.parent / "entries")
    check_sets(entries, SETS)
    check_unique_scores(entries, [])
    for entry in entries:
        check_protocol(entry)
        check_complete(entry)
        check_configuration(entry)


def test_all_groups_of_the_configuration_are_required(shipped):
    """A missing group could not be compared with the fields of the record."""
    check_complete(shipped)
    for group in ("method", "dataset", "model", "protocol", "evaluator"):
        for empty in ({group: {}}, {group: None}):
            with pytest.raises(
                ValueError, match=rf"the configuration of the record has no {group}\. Submit the record"
            ):
                check_complete(shipped.model_copy(update={"config": shipped.config | empty}))


def test_a_ridge_head_is_one_network(shipped):
    probe = {"probe": {"ridge": 0.01}}
    one = [s for s in shipped.scores if s.network == 0]
    record = shipped.model_copy(update={"config": shipped.config | {"protocol": probe}, "scores": one})
    check_repeats(record)
    with pytest.raises(ValueError, match="must have scores of 1 networks for each of 1 set"):
        check_repeats(record.model_copy(update={"scores": shipped.scores}))
    with pytest.raises(ValueError, match=r"must have scores of \d+ networks"):
        check_repeats(shipped.model_copy(update={"scores": one}))


def test_records_of_imported_sets_have_no_method_configuration(shipped):
    config = shipped.config | {"method": {}, "released": {"files": {"features.pt": "ab12"}}}
    check_complete(shipped.model_copy(update={"config": config, "method": "gcond-authors"}))
    with pytest.raises(ValueError, match="the configuration of the record has no method"):
        check_complete(shipped.model_copy(update={"config": config}))  # a method of dd_bench


def test_labels_bytes_and_selection_must_agree_with_set_and_protocol(shipped):
    """Reject soft labels declared as hard, fewer bytes than are stored, and another selection than the protocol's."""
    check_sets([shipped], SETS)
    datm = next(r for r in load_entries(SETS.parent / "entries") if (r.method, r.ipc) == ("datm", 10))
    check_sets([datm], SETS)
    with pytest.raises(
        ValueError, match=r"label_mode of its set .*datm-fashion_mnist-ipc10-.* must be 'hard', got 'soft'"
    ):
        check_sets([datm.model_copy(update={"label_mode": "hard"})], SETS)
    for size in ({"images": 1, "labels": 800}, {}):
        with pytest.raises(ValueError, match=r"stored_bytes of its set .* must be .*, got images 313600"):
            check_sets([shipped.model_copy(update={"stored_bytes": size})], SETS)
    protocol = {k: v for k, v in shipped.config["protocol"].items() if k not in ("selection", "labels")}
    less = shipped.model_copy(update={"config": shipped.config | {"protocol": protocol}})
    with pytest.raises(ValueError, match="selection must be 'last' as in the protocol, got 'best_on_val'"):
        check_configuration(less.model_copy(update={"selection": "best_on_val"}))
    static = next(
        r for r in load_entries(SETS.parent / "entries") if r.protocol.name == "sre2l-kd-400-static"
    )
    protocol = {k: v for k, v in static.config["protocol"].items() if k != "labels"}
    with pytest.raises(ValueError, match="label_mode must be static under this protocol, got 'hard'"):
        check_configuration(
            static.model_copy(update={"label_mode": "hard", "config": static.config | {"protocol": protocol}})
        )
    with pytest.raises(ValueError, match="selection must be 'best_on_test' as in the protocol, got 'last'"):
        check_configuration(with_config(shipped, "protocol", selection="best_on_test"))
    with pytest.raises(ValueError, match=r"protocol\.recipe must be a mapping as in the YAML file, got 5"):
        check_configuration(with_config(shipped, "protocol", recipe=5))


def test_a_repeated_failure_does_not_block_other_records(record, tmp_path, capsys):
    failed = {"scores": [], "status": "diverged", "reason": "loss is nan", "key": "a" * 16} | composed("dc")
    first = record("dc", 10, [], **failed).save(tmp_path / "first.json")
    again = record("dc", 10, [], **failed | {"created": "2026-02-03T04:05:06Z"}).save(tmp_path / "again.json")
    random = record("random", 10, [[0.5]], **composed("random")).save(tmp_path / "random.json")
    how = ["--entries", str(tmp_path / "entries"), "--sets", str(tmp_path)]
    assert main(["add", str(random), str(first), *how]) == 0
    other = record("dm", 10, [[0.6]], **composed("dm")).save(tmp_path / "dm.json")
    assert main(["add", str(again), str(other), *how]) == 0
    assert "already added" in capsys.readouterr().out
    assert len(list((tmp_path / "entries").glob("*/*.json"))) == 3


def test_a_set_that_stores_more_than_its_ipc_is_rejected(record):
    real = record("random", 1, [[0.5]], stored_bytes={"images": 640, "labels": 80})
    dm = record("dm", 1, [[0.8]], stored_bytes={"images": 2560, "labels": 80})
    canvases = record("mine", 1, [[0.9]], stored_bytes={"images": 163_840, "labels": 80})
    check_budget([real, dm], [real, dm])
    with pytest.raises(
        ValueError, match=r"mine on fashion_mnist, IPC 1\) stores .* at most 4 times the bytes of 1 real"
    ):
        check_budget([canvases], [real, dm, canvases])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ipc": 5}, r"ipc in the card of .* must be at least 10, got 5. The set stores 78,400 values"),
        ({}, "factor must be 1 because the method 'dm' has no parameter method.factor, got 3"),
    ],
)
def test_a_set_must_not_store_or_decode_more_than_its_card_states(record, sets, changes, message):
    """The set with 64 digits in each canvas was accepted, because adding a record does not load its set."""
    folder, path, digest = sets
    card = json.loads((path / "card.json").read_text()) | changes
    card["set"]["factor"] = 3
    (path / "card.json").write_text(json.dumps(card))
    digest["set_digests"] = [hashlib.sha256((path / "card.json").read_bytes()).hexdigest()]
    entry = record("dm", card["ipc"], [[0.5]], config={}, stored_bytes=card["stored_bytes"], **digest)
    with pytest.raises(ValueError, match=message):
        check_sets([entry], folder)


def test_an_invented_parameter_of_a_method_is_rejected(shipped):
    """Ten images of `random` with method.factor=8 became 640 training images."""
    with pytest.raises(ValueError, match=r"method\.factor must be a parameter of the method 'dm', got 8"):
        check_configuration(with_config(shipped, "method", factor=8))


def test_a_set_of_another_package_that_decodes_several_samples_is_rejected(record, sets):
    """The parameters of its method are not known, so a card could state any factor."""
    folder, path, digest = sets
    card = json.loads((path / "card.json").read_text())
    card["method"], card["config"]["method"] = "mine", {"_choice_": "mine", "factor": 8}
    card["set"]["factor"] = 8
    (path / "card.json").write_text(json.dumps(card))
    digest["set_digests"] = [hashlib.sha256((path / "card.json").read_bytes()).hexdigest()]
    entry = record("mine", 10, [[0.5]], config={}, stored_bytes=card["stored_bytes"], **digest)
    with pytest.raises(ValueError, match=r"factor=8, .* 'mine' is not a method of dd_bench"):
        check_sets([entry], folder)


def test_sets_next_to_a_record_are_checked(record, sets, tmp_path):
    """A set that was not yet copied to the folder of sets was not checked."""
    folder, path, digest = sets
    card = json.loads((path / "card.json").read_text())
    card["set"]["whole"] = True
    (path / "card.json").write_text(json.dumps(card))
    digest["set_digests"] = [hashlib.sha256((path / "card.json").read_bytes()).hexdigest()]
    entry = record("dm", 10, [[0.5]], config={}, **digest)
    with pytest.raises(ValueError, match=r"whole=True for method 'dm'"):
        check_sets([entry], tmp_path / "empty", [folder.parent / "records" / "x.json"])


def test_labels_of_more_images_than_the_ipc_are_rejected(record):
    """Three images a class with 8 bits have less than four times the bytes, but three times the labels."""
    real = record("random", 1, [[0.5]], stored_bytes={"images": 640, "labels": 80})
    three = record("herding", 1, [[0.9]], stored_bytes={"images": 1920, "labels": 240})
    soft = record("mine", 1, [[0.9]], stored_bytes={"images": 640, "labels": 400}, label_mode="soft")
    check_budget([real, soft], [real, soft])
    with pytest.raises(ValueError, match=r"herding on fashion_mnist, IPC 1\) stores"):
        check_budget([three], [real, three])


def test_whole_training_sets_of_one_dataset_have_one_size(record):
    full = record("full", 1, [[0.9]], stored_bytes={"images": 64_000, "labels": 8_000})
    other = record("full", 1, [[0.8]], stored_bytes={"images": 1920, "labels": 240}, key="b" * 16)
    check_budget([full], [full])
    with pytest.raises(ValueError, match=r"whole training set of fashion_mnist, so it must have the stored"):
        check_budget([other], [full, other])


def test_trials_and_values_that_were_not_tuned_are_rejected(shipped, make_tuning):
    """A trial is scored on validation data. A record with a search must have the values that the search has chosen."""
    with pytest.raises(ValueError, match="is a trial of dd-bench tune, scored on the validation split"):
        check_record(shipped.model_copy(update={"split": "validation"}))
    key, value = next((k, v) for k, v in sorted(shipped.config["method"].items()) if type(v) is int)
    tuned = make_tuning(
        space={f"method.{key}": f"{value},{value + 1}"},
        trials=[Trial(number=0, params={f"method.{key}": value}, status="done", value=0.5)],
        chosen=0,
    )
    check_configuration(shipped.model_copy(update={"tuning": tuned}))
    with pytest.raises(
        ValueError, match=rf"its tuning has chosen method\.{key}={value}, but its configuration"
    ):
        check_configuration(with_config(shipped.model_copy(update={"tuning": tuned}), "method", **{key: 77}))
