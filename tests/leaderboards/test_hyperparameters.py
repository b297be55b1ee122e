"""How the hyper-parameters of entries were chosen: rules, precedence, marks and ranks."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from dd_bench.leaderboards.core.boards import boards
from dd_bench.leaderboards.core.entries import load_entries
from dd_bench.leaderboards.core.hyperparameters import Rule, load_rules, origin
from dd_bench.leaderboards.render.legend import legend_of
from dd_bench.leaderboards.render.markup import LATEX, MARKDOWN
from dd_bench.leaderboards.render.tables import latex, table_of
from dd_bench.records.config_diff import shipped_config

ROOT = Path(__file__).parents[2]
RULE = Rule(
    choice="test",
    methods=["dm"],
    datasets=["fashion_mnist"],
    values={"lr_img": 3.0},
    reason="compared on test data.",
    revision="0123abc",
    source="conf/experiment/x.yaml",
)


def run(method="dm", dataset="fashion_mnist", searched=(), stated=None, **values):
    config = {"method": shipped_config("method", method) | values, "hyperparameters": stated}
    space = {f"method.{key}": "1,2" for key in searched}
    return SimpleNamespace(
        method=method, dataset=dataset, config=config, tuning=SimpleNamespace(space=space) if space else None
    )


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (run(iterations=5), "paper"),
        (run(lr_img=2.0), "untuned"),
        (run(lr_img=2.0, stated="paper"), "paper"),
        (run(stated="test"), "test"),
        (run(lr_img=3.0), "test"),
        (run(lr_img=3.0, stated="paper"), "test"),
        (run(lr_img=3.0, dataset="digits"), "untuned"),
        (run(lr_img=2.0, searched=["lr_img"]), "validation"),
        (run(lr_img=3.0, searched=["lr_img"]), "validation"),
        (run(lr_img=3.0, searched=["iterations"]), "test"),
        (run(lr_img=2.0, momentum_img=0.9, searched=["lr_img"]), "untuned"),
        (run(lr_img=2.0, momentum_img=0.9, searched=["lr_img"], stated="test"), "test"),
        (run(lr_img=2.0, searched=["lr_img"], stated="test"), "validation"),
    ],
)
def test_precedence(record, expected):
    found = origin(record, [RULE])
    assert found.choice == expected
    assert expected != "test" or found.reason.startswith(("compared on test data (rev", "the configuration"))


@pytest.mark.parametrize(
    ("base", "expected"),
    [
        ({"config": {"method": {"lr_img": 3.0}}}, "test"),
        ({"config": {"method": shipped_config("method", "dm")}}, "paper"),
        ({"config": {"method": shipped_config("method", "dm") | {"lr_img": 2.0}}}, "untuned"),
        ({}, "test"),  # a record of an older version
        ({"method": "random"}, "paper"),
        (
            {"method": "random", "config": {"base": {"method": "dm", "config": {"method": {"lr_img": 3.0}}}}},
            "test",
        ),
    ],
)
def test_hyperparameters_of_the_base_set_count(base, expected):
    record = run("infer")
    record.config["base"] = {"set": "dm-x", "digest": "d", "method": "dm", "ipc": 1} | base
    found = origin(record, [RULE])
    assert found.choice == expected
    assert expected == "paper" or found.reason.startswith("base ")
    record.config["hyperparameters"] = "test"
    assert origin(record, [RULE]).choice == "test"


def test_entries_chosen_on_test_data_are_marked_and_not_ranked(record):
    def at(method, mean, **values):
        config = {"method": shipped_config("method", method) | values}
        return record(method, 1, [[mean, mean + 0.01, mean + 0.02, mean + 0.03, mean + 0.04]], config=config)

    ours = [at("dc", 0.8, lr_img=1.0), at("dm", 0.5), at("random", 0.3), at("datadam", 0.4, lr_img=7.0)]
    (board,) = boards(ours, [])
    assert [board.places[r.key] for r in ours] == ["chosen_on_test", "best", "behind", "behind"]
    table, legend = table_of(board), "\n".join(legend_of(board, MARKDOWN))
    row = {line.split("|")[1].strip(): line for line in table.splitlines()}
    assert "[T]" in row["dc"] and "[U]" in row["datadam"] and "[" not in row["dm"] + row["random"]
    assert "[T] Not ranked: hyper-parameters chosen on test data" in legend
    assert "[T] dc: lr_img, ten times the paper's value" in legend and "[V]" not in legend
    assert r"\textsuperscript{T}" in latex(board) and "Not ranked" in "".join(legend_of(board, LATEX))


def test_every_rule_applies_to_a_committed_entry_and_names_a_file_with_its_keys():
    entries = load_entries(ROOT / "leaderboards" / "entries")
    for rule in load_rules():
        assert any(rule.matches(entry) for entry in entries), rule
        source = (ROOT / rule.source).read_text()
        assert all(key.rpartition(".")[2] in source for key in rule.values), rule


def test_invalid_rules_are_an_error(tmp_path):
    (tmp_path / "rules.json").write_text('[{"choice": "guess"}]')
    with pytest.raises(ValueError, match=r"is not a valid list of rules: 0\.choice"):
        load_rules(tmp_path / "rules.json")
