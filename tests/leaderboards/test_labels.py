"""The pages with one recipe under several label modes, and accuracy against bits of labels."""

from pathlib import Path

import pytest

from dd_bench.leaderboards.core.boards import boards
from dd_bench.leaderboards.core.entries import Track
from dd_bench.leaderboards.core.quantities import Sources
from dd_bench.leaderboards.core.selectors import NotMeasuredError
from dd_bench.leaderboards.render.label_bits import curves, front, label_bits_tables, label_points
from dd_bench.leaderboards.render.labels import label_tables
from dd_bench.leaderboards.render.markdown_blocks import embedded, named_tables
from dd_bench.leaderboards.render.plots import plots
from dd_bench.leaderboards.render.tables import build
from dd_bench.records.label_keys import DEFAULTS
from dd_bench.records.record import ProtocolId, Score, TeacherId
from dd_bench.training.label_recipe import LabelRecipe

RECIPE = {"epochs": 400, "lr": 0.001}


def taught(record, method, ipc, kind, values, recipe=None, knobs=None, **changes):
    protocol = {"recipe": recipe or RECIPE, "labels": {"kind": kind}}
    name = "kd" if kind == "online" else f"kd-{kind}"
    return record(
        method,
        ipc,
        [values],
        label_mode=kind,
        protocol=ProtocolId(name=name, version=1),
        config={"method": knobs or {}, "protocol": protocol, "teachers": {"a": {}, "b": {}}},
        **changes,
    )


def with_control(record, value=0.5):
    score = Score(metric="random", value=value, set=0, network=0, seed=0)
    return record.model_copy(update={"scores": [*record.scores, score]})


def test_label_modes_are_columns(record):
    entries = [
        taught(record, "sre2l", 10, "online", [0.5, 0.6], teacher_forwards=40_000),
        taught(record, "sre2l", 10, "hard", [0.2, 0.3]),
        taught(record, "random", 10, "hard", [0.4, 0.4]),
        with_control(
            taught(
                record, "sre2l", 10, "replay", [0.51, 0.6], stored_bytes={"images": 1, "teacher labels": 8000}
            )
        ),
    ]
    ((title, table),) = label_tables(entries)
    assert title == "fashion_mnist, convnet(width=32), teachers a+b: kd, kd-hard, kd-replay"
    lines = table.splitlines()
    assert [cell.strip() for cell in lines[0].split("|")[1:-1]] == [
        "Method",
        "IPC",
        "hard",
        "replay",
        "online",
    ]
    assert [cell.strip() for cell in lines[2].split("|")[1:4]] == ["random", "10", "40.0 ± 0.0 (n=2)"]
    for text in ("25.0 ± 7.1 (n=2)", "random 50.0; 8,000 B of labels", "40,000 teacher forwards"):
        assert text in lines[3]


def test_one_table_per_recipe(record):
    one = taught(record, "dm", 1, "hard", [0.5])
    other = taught(record, "dm", 1, "hard", [0.6], recipe={"epochs": 80})
    assert len(label_tables([one, other])) == 2


def test_labels_stored_in_a_set_are_not_on_this_page(record, put, tmp_path):
    assert label_tables([record("dm", 1, [[0.5, 0.6]])]) == []
    build(put(record("dm", 1, [[0.5, 0.6]])), tmp_path, tmp_path / "out")
    assert "##" not in (tmp_path / "out" / "labels.md").read_text()


def test_each_experiment_of_a_method_has_a_row(record):
    one, other = (
        taught(record, "cda", 1, "hard", [v], knobs={"views": {"curriculum": c}, "lr": 1})
        for c, v in (("const", 0.5), ("cosine", 0.6))
    )
    ((_, table),) = label_tables([one, other])
    rows = [line.split("|")[1].strip() for line in table.splitlines()[2:]]
    assert rows == [rf"cda (views.curriculum={c}) \[U\]" for c in ("const", "cosine")], "changed, not tuned"


def test_experiments_that_differ_outside_the_method_have_a_row_each(record):
    """Otherwise only the newest of two experiments would be shown."""
    one, other = (taught(record, "cda", 1, "hard", [v]) for v in (0.5, 0.6))
    for change, label in (
        ({"seed": 1}, "seed=1"),
        ({"evaluator": {"equal": "epochs"}}, "evaluator.equal=epochs"),
        ({"teachers": {"a": {"epoch": 3}, "b": {"epoch": 5}}}, "teacher.a.epoch=3"),
    ):
        base = {"seed": 0, "evaluator": {"equal": "steps", "num_networks": 3}}
        base |= {"teachers": {"a": {"epoch": 5, "keep": [1]}, "b": {"epoch": 5}}}
        first = one.model_copy(update={"config": one.config | base})
        second = other.model_copy(update={"config": other.config | base | change})
        ((_, table),) = label_tables([first, second])
        rows = [line.split("|")[1].strip() for line in table.splitlines()[2:]]
        assert len(rows) == 2 and f"cda ({label})" in rows
    orders = (["a", "b"], ["b", "a"])
    ((_, table),) = label_tables(
        [
            r.model_copy(update={"teachers": [TeacherId(name=n) for n in order]})
            for r, order in zip((one, other), orders, strict=True)
        ]
    )
    assert "cda (teachers=a+b)" in table and "cda (teachers=b+a)" in table


def test_a_value_that_only_one_label_mode_has_adds_no_row(record):
    """Only records with teacher labels have teachers; hard and online labels still share a row."""
    hard, online = (taught(record, "random", 1, kind, [0.5]) for kind in ("hard", "online"))
    online = online.model_copy(update={"teachers": [TeacherId(name="a"), TeacherId(name="b")]})
    ((_, table),) = label_tables([hard, online])
    assert len(table.splitlines()) == 3


def test_teachers_are_part_of_a_track_with_teacher_labels(record):
    hard, online = (taught(record, "dm", 1, kind, [0.5]) for kind in ("hard", "online"))
    assert Track.of(hard).teachers == "" and Track.of(online).teachers == "a+b"
    assert Track.of(online).slug.endswith("--a+b")


def test_teachers_with_other_weights_have_their_own_table(record):
    """One heading with the accuracies of one trio headed rows that other teachers taught."""

    def by(entry, digest, accuracy):
        named = [TeacherId(name="a", digest=digest, accuracy=accuracy)]
        return entry.model_copy(update={"teachers": named, "set_digests": [f"{entry.ipc}"]})

    old = by(taught(record, "dm", 1, "online", [0.5]), "1" * 64, 0.9)
    new = by(taught(record, "dm", 10, "online", [0.6]), "2" * 64, 0.8)
    hard = taught(record, "dm", 1, "hard", [0.4]).model_copy(update={"set_digests": ["1"]})
    other = taught(record, "dc", 1, "hard", [0.3])
    tables = label_tables([old, new, hard, other])
    assert [(title.partition(": ")[0], table.count("\n") - 1) for title, table in tables] == [
        ("fashion_mnist, convnet(width=32), teachers a+b", 1),
        ("fashion_mnist, convnet(width=32), teachers a 11111111 (90.0 %)", 1),
        ("fashion_mnist, convnet(width=32), teachers a 22222222 (80.0 %)", 1),
    ]
    assert "40.0" in tables[1][1] and "50.0" in tables[1][1], "hard labels of the same set share its row"
    assert "dc" in tables[0][1]


def cells(table):
    """Return the rows of a table, without the header."""
    lines = [line for line in table.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2:]]


def with_labels(record, teachers=None, **labels):
    """Return a record whose labels have these values."""
    own = record.config["protocol"]
    protocol = {**own, "labels": {**own["labels"], **labels}}
    more = {} if teachers is None else {"teachers": teachers}
    return record.model_copy(update={"config": {**record.config, "protocol": protocol, **more}})


def test_accuracy_and_bits_of_labels(record):
    """All kinds of labels of the same sets are in one table, sorted by bits; the Pareto front is bold."""

    def stored(kind, value, size, **labels):
        entry = taught(record, "rded", 10, kind, [value], stored_bytes={"images": 1, "teacher labels": size})
        return with_labels(entry, **{"temperature": 30.0, **labels})

    entries = [
        taught(record, "rded", 10, "online", [0.7], teacher_forwards=40_000, sizes={"teacher bytes": 500}),
        taught(record, "rded", 10, "hard", [0.4]),
        stored("replay", 0.6, 8000),
        stored("static", 0.35, 20),
        stored("replay", 0.55, 2000, pool=4, top=None),
        stored("replay", 0.62, 1500, pool=40, pool_unit="batch", top=3, rest="minimum", label_bits=4),
        stored("replay", 0.63, 1600, phases=[["soft", 75], ["hard", 150], ["soft", 75]], temperature=20.0),
        taught(record, "random", 10, "hard", [0.5]),
        with_labels(taught(record, "delt", 10, "hard", [0.3]), temperature=30.0),  # a single kind of labels
    ]
    ((title, table),) = label_bits_tables(entries)
    assert title.endswith("kd, kd-hard, kd-replay, kd-static, IPC 10")
    assert table.endswith("Without a column, because they have one kind of labels: delt.")
    assert cells(table) == [
        ["hard", "0", "0", "0", "**50.0**", "**40.0**"],
        ["static", "160", "0", "0", "", "35.0"],
        ["online", "0", "4,000", "40,000", "", "**70.0**"],
        [
            "replay, pool=40, pool_unit=batch, top=3, rest=minimum, label_bits=4",
            "12,000",
            "0",
            "0",
            "",
            "62.0",
        ],
        ["replay, phases=soft-hard-soft, temperature=20", "12,800", "0", "0", "", "63.0"],
        ["replay, pool=4", "16,000", "0", "0", "", "55.0"],
        ["replay", "64,000", "0", "0", "", "60.0"],
    ]
    assert label_bits_tables(entries[:2]) == [], "no stored labels"
    points = label_points(entries)[0][1]
    found = curves(points)
    assert [key for key in found] == [(10, "delt"), (10, "random"), (10, "rded")]
    by_bits, unknown = found[10, "rded"]
    assert [p.cost for p in by_bits] == [0, 160, 4000, 12_000, 12_800, 16_000, 64_000] and unknown == []
    assert [p.cost for p in front([p for p in points if p.method == "rded"])] == [0, 4000]
    by_labels = [p._replace(teacher_bits=0) for p in points if p.method == "rded"]
    assert [p.cost for p in front(by_labels)] == [0, 12_000, 12_800], (
        "teachers of unknown size are not compared"
    )
    assert [p.labels for p in curves(by_labels)[10, "rded"][1]] == ["online"]


def test_older_records_have_the_size_of_the_same_teachers(record):
    """Only newer records contain it. A kind of labels shows the sizes that are known."""

    def online(method, digest, **sizes):
        entry = taught(record, method, 1, "online", [0.5], sizes=sizes)
        return entry.model_copy(update={"teachers": [TeacherId(name="a", digest=digest * 64)]})

    stored = taught(record, "dm", 1, "static", [0.4], stored_bytes={"teacher labels": 20})
    stored = stored.model_copy(update={"teachers": [TeacherId(name="a", digest="1" * 64)]})
    old, new, other = online("dm", "1"), online("rded", "1", **{"teacher bytes": 500}), online("dm", "2")
    assert [p.cost for p in label_points([stored, old])[0][1]] == [None, 160]
    ((_, table),) = label_bits_tables([stored, old, new])
    assert cells(table)[1] == ["online", "0", "4,000", "0", "**50.0**"]
    assert "?" in label_bits_tables([stored, old])[0][1]
    assert [p.cost for _, found in label_points([stored, old, new, other]) for p in found].count(None) == 0


def test_labels_of_teachers_that_were_stopped_early(record):
    """They are in the table of the same sets, although the weights of the teachers differ."""

    def by(entry, digest, epoch):
        named = [TeacherId(name="a", digest=digest * 64, accuracy=0.9)]
        entry = with_labels(entry, {"a": {"epoch": epoch, "keep": [1, 2]}})
        return entry.model_copy(update={"teachers": named, "set_digests": ["1"]})

    sizes = {"images": 1, "teacher labels": 20}
    last = by(taught(record, "dm", 1, "static", [0.5], stored_bytes=sizes), "1", None)
    early = by(taught(record, "dm", 1, "static", [0.6], stored_bytes=sizes), "2", 2)
    ((title, table),) = label_bits_tables([last, early])
    assert "a 11111111 (90.0 %)" in title
    assert [(row[0], row[4]) for row in cells(table)] == [
        ("static", "50.0"),
        ("static, teacher.epoch=2", "**60.0**"),
    ]
    ((_, modes),) = label_tables([last, early])
    assert "60.0" not in modes, "a page with one column per label mode shows unreduced labels only"


def test_several_records_of_the_same_labels(record):
    """The record with the most networks is shown."""
    few, many = (
        taught(record, "dm", 1, "static", v, stored_bytes={"teacher labels": 20}) for v in ([0.5], [0.6, 0.6])
    )
    other = taught(record, "dm", 1, "hard", [0.4])
    ((_, table),) = label_bits_tables([many, few, other])
    assert [row[4] for row in cells(table)] == ["**40.0**", "**60.0 ± 0.0** (n=2)"]


def test_default_values_in_a_record_change_nothing(record):
    """Records of protocols with all keys of labels are in the tables of records with the older keys."""
    old = taught(record, "dm", 1, "hard", [0.4])
    new = with_labels(
        taught(record, "dm", 1, "online", [0.5]), pool_unit="epoch", rest="share", label_bits=None
    )
    ((_, table),) = label_tables([old, new])
    assert len(cells(table)) == 1
    known = {name: f.default for name, f in LabelRecipe.model_fields.items() if not f.is_required()}
    assert known.items() <= DEFAULTS.items()
    assert DEFAULTS.keys() | {"kind", "temperature"} == LabelRecipe.model_fields.keys()


def test_entries_that_compare_labels_have_no_page_of_their_own(record, put, tmp_path):
    """There are dozens of kinds of labels, and their boards would hide the others."""
    names = ("kd", "kd-static", "labels-400(labels.top=1)")
    entries = [
        taught(record, "dm", 1, "static", [0.5], key=f"{i}" * 64).model_copy(
            update={"protocol": ProtocolId(name=name, version=1)}
        )
        for i, name in enumerate(names)
    ]
    own, shared = (Track.of(r) for r in entries[1:])
    assert shared.compares_labels and not own.compares_labels
    out = tmp_path / "out"
    build(put(*entries), tmp_path, out)
    assert (out / f"{own.path}.md").exists() and not (out / f"{shared.path}.md").exists()
    assert "labels-400" not in (out / "index.md").read_text()
    assert "labels-400" in (out / "records.csv").read_text()


def test_comparison_of_labels_in_a_document_and_as_a_plot(record):
    """Only tables of `labels-400` are inserted, and its plot has a name that does not depend on the teachers."""
    sizes = {"images": 1, "teacher labels": 20}

    def entries(name):
        first = taught(record, "dm", 1, "static", [0.5], key=f"{len(name):x}" * 64, stored_bytes=sizes)
        second = taught(record, "dm", 1, "hard", [0.4], key=f"{len(name) + 1:x}" * 64)
        protocol = ProtocolId(name=name, version=1)
        recipe = {"epochs": len(name)}
        return [
            r.model_copy(
                update={
                    "protocol": protocol,
                    "config": {**r.config, "protocol": {**r.config["protocol"], "recipe": recipe}},
                }
            )
            for r in (first, second)
        ]

    other, compared = entries("kd"), entries("labels-400")
    text = "<!-- table label_bits fashion_mnist -->\n<!-- table end -->\n"
    assert "There are no entries yet." in embedded(text, named_tables(boards(other, [])))[0]
    filled = embedded(text, named_tables(boards(other + compared, [])))[0]
    assert filled.count("| static |") == 1 and "labels-400, IPC 1**" in filled
    names = [plot.name for plot in plots(other + compared) if plot.kind == "label_bits"]
    assert "fashion_mnist/label_bits--labels-400" in names and len(set(names)) == 2


def test_the_difference_between_two_kinds_of_labels_in_the_text_of_pages(record):
    """The sets and the recipe must be the same, because the difference would not be that of the labels alone."""
    sizes = {"images": 1, "teacher labels": 20}
    replay = taught(record, "dm", 1, "replay", [0.6, 0.61, 0.63], stored_bytes=sizes, set_digests=["1" * 64])
    hard = taught(record, "dm", 1, "hard", [0.5, 0.5, 0.51], set_digests=["1" * 64])
    line = "gap fashion_mnist kd-replay dm ipc=1 vs protocol=kd-hard"
    found = Sources([replay, hard], [], Path()).read(line)
    assert found.text == "11.0" and found.records == (replay, hard)
    others = (
        taught(record, "dm", 1, "hard", [0.5, 0.51], set_digests=["2" * 64]),
        taught(record, "dm", 1, "hard", [0.5, 0.51], recipe={"epochs": 7}, set_digests=["1" * 64]),
    )
    for other in others:
        with pytest.raises(NotMeasuredError, match="are of the same track"):
            Sources([replay, other], [], Path()).read(line)
