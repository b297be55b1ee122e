"""Pareto fronts, the cost of sets, and plots."""

import xml.etree.ElementTree as ET
from itertools import product

import pytest

from dd_bench.leaderboards.cli import main
from dd_bench.leaderboards.render.continual import continual_tables
from dd_bench.leaderboards.render.cost import cost_tables, pareto_front, points, ranked_front
from dd_bench.leaderboards.render.plots import draw
from dd_bench.records.record import Score


def cells(line):
    return [cell.strip() for cell in line.split("|")[1:-1]]


def test_the_pareto_front_against_its_definition():
    grid = list(product((1.0, 2.0, 3.0), (0.1, 0.2)))
    for chosen in product(grid, repeat=3):
        costs, values = zip(*chosen, strict=True)
        for i, on_front in enumerate(pareto_front(costs, values)):
            dominated = any(
                costs[j] <= costs[i]
                and values[j] >= values[i]
                and (costs[j], values[j]) != (costs[i], values[i])
                for j in range(3)
            )
            assert on_front != dominated


@pytest.fixture
def entries(record):
    return [
        record(
            "random", 1, [[0.5, 0.52], [0.54, 0.5]], stored_bytes={"images": 100}, seconds={"evaluate": 40.0}
        ),
        record("dm", 1, [[0.7, 0.72]], stored_bytes={"images": 100, "labels": 10}),
        record(
            "mtt", 1, [[0.73, 0.75]], stored_bytes={"images": 100}, seconds={"prepare": 90, "distill": 10}
        ),
        record("full", 1, [[0.9, 0.9]], stored_bytes={"images": 10**6}),
    ]


def test_cost_is_per_set_and_per_network(entries):
    (found,) = points(entries).values()
    assert {p.label: (p.bits, p.creation, p.evaluation) for p in found} == {
        "random": (800, 0.0, 10.0), "dm": (800, 12.5, 1.625), "mtt": (800, 100.0, 0.0),
    }  # fmt: skip


def test_preparation_is_counted_in_full_and_other_evaluators_are_left_out(record):
    shared = {"prepare": 90.0, "relabel": 9.0, "distill": 20.0}
    two = record("mtt", 1, [[0.7, 0.7], [0.7, 0.7]], seconds=shared)
    leaks = record("dm", 1, [[0.9, 0.9]], evaluator="privacy", main_metric="hidden")
    (found,) = points([two, leaks]).values()
    assert [p.creation for p in found] == [90 + 9 + 20 / 2]


def test_the_table_has_fronts_by_bits_and_by_seconds(entries, record):
    slow = record("kcenter", 1, [[0.6, 0.6]], stored_bytes={"images": 1}, seconds={"distill": 500})
    ((title, table),) = cost_tables([*entries, slow])
    assert title.startswith("fashion_mnist: accuracy, hard v1")
    assert {cells(row)[0]: cells(row)[-2:] for row in table.splitlines()[2:]} == {
        "random": ["", "yes"], "dm": ["", "yes"], "mtt": ["yes", "yes"], "kcenter": ["yes", ""],
    }  # fmt: skip


def incremental(record, method, steps):
    entry = record(method, 10, [[steps[-1]] * 2], evaluator="continual")
    values = {f"step {s}": v for s, v in enumerate(steps, 1)} | {"average": 0.7, "forgetting": -0.01}
    more = [Score(metric=m, value=v, set=0, network=n, seed=n) for m, v in values.items() for n in range(2)]
    return entry.model_copy(update={"scores": [*entry.scores, *more]})


def test_steps_are_columns(record):
    found = [incremental(record, "dm", [0.9, 0.8, 0.6]), incremental(record, "random", [0.8, 0.7, 0.5])]
    ((title, table),) = continual_tables([*found, record("dm", 10, [[0.5, 0.5]])])
    assert "in 3 steps" in title
    head, _, first, second = table.splitlines()
    assert cells(head)[3:] == ["Step 1", "Step 2", "Step 3", "Average", "Forgetting"]
    assert cells(first)[0] == "random" and cells(second)[3:] == [
        "90.0 (90.0–90.0)", "80.0 (80.0–80.0)", "60.0 (60.0–60.0)", "70.0 (70.0–70.0)", "-1.0 (-1.0–-1.0)",
    ]  # fmt: skip


@pytest.mark.slow
def test_plots_are_valid_svg_and_deterministic(entries, record, put, tmp_path):
    folder = put(*entries, incremental(record, "dm", [0.9, 0.8, 0.6]))
    written = draw(folder, tmp_path / "plots")
    assert [p.name.partition("--")[0] for p in written] == ["cost", "continual"]
    first = [p.read_bytes() for p in written]
    for text in first:
        assert ET.fromstring(text).tag.endswith("svg")
        assert b"dm" in text
    written[0].unlink()
    assert draw(folder, tmp_path / "plots", changed_only=True) == written[:1]
    written[1].unlink()
    assert main(["plot", "--changed", "--entries", str(folder), "--out", str(tmp_path / "plots")]) == 0
    assert [p.read_bytes() for p in written] == first


def test_entries_chosen_on_test_data_are_not_on_the_front(record):
    """The best entry was chosen on test data. The front consists of the others, as if it did not exist."""
    chosen = {"config": {"method": {"lr_img": 9.0}, "hyperparameters": "test"}}
    found = [
        record("random", 1, [[0.5, 0.51]], seconds={"distill": 1.0}),
        record("dm", 1, [[0.7, 0.71]], seconds={"distill": 20.0}),
        record("mtt", 1, [[0.9, 0.91]], seconds={"distill": 5.0}, **chosen),
    ]
    (group,) = points(found).values()
    on = ranked_front([p.record for p in group], [p.creation for p in group])
    assert {p.label for p, is_on in zip(group, on, strict=True) if is_on} == {"random", "dm"}
