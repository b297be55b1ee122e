"""Stored bits, quantised versions of a set, and sets of different methods at equal bits."""

from pathlib import Path

import pytest

from dd_bench.leaderboards.core.bits import (
    bits_by_part,
    entropy_bits,
    equal_bits,
    fewest_lossless,
    file_bits,
    precision_of,
    precisions,
    stored_bits,
)
from dd_bench.leaderboards.core.boards import boards
from dd_bench.leaderboards.core.budget import budgets
from dd_bench.leaderboards.core.quantities import Sources
from dd_bench.leaderboards.core.selectors import NotMeasuredError, Selector, select
from dd_bench.leaderboards.render.bits import fewest_bits_table, precision_tables
from dd_bench.leaderboards.render.bits_plots import bits_plots
from dd_bench.leaderboards.render.equal_bits import best_real, equal_bits_tables
from dd_bench.leaderboards.render.tables import pages
from dd_bench.records.config_diff import STORED

PIXELS = 7840  # of one 28x28 image of each class
BASE = [0.80 + 0.001 * i for i in range(12)]


def shifted(by, noise=0.004):
    """Return values of networks that differ from BASE by `by`, and by some noise in turns."""
    return [x + by + noise * (-1) ** i for i, x in enumerate(BASE)]


@pytest.fixture
def made(record):
    """Function that returns a record of a set with `bits` per value, made from the set with the digest `source`."""

    def make(values, bits, *, source="a" * 64, per="image", method="dm", ipc=1, **changes):
        codes, groups = PIXELS * ipc * bits // 8, {"image": 10 * ipc, "set": 1}[per]
        parts = {"codes": codes, "labels": 80 * ipc, "minimum": 2 * groups, "step": 2 * groups}
        stored = {
            "bits": bits,
            "per": per,
            "clip": "minmax",
            "from": source,
            "precision": f"{bits} bits, {per}",
        }
        return record(
            method, ipc, [values], stored_bytes=parts, config={"method": {}, STORED: stored},
            sizes={"entropy bits": codes * 4, "zstd bytes": codes // 2, "PNG bytes": codes // 3},
            set_digests=[f"{bits}{per[0]}" * 32], **changes,
        )  # fmt: skip

    return make


@pytest.fixture
def entries(record, made):
    return [
        record("random", 1, [[0.5, 0.52]], stored_bytes={"images": PIXELS, "labels": 80}),
        record("dm", 1, [BASE], set_digests=["a" * 64]),
        made(shifted(0.0), 8),
        made(shifted(-0.001), 4),
        made(shifted(-0.05), 2),
        made(shifted(-0.02), 4, per="set"),
        made(shifted(0.0), 2, per="set"),
        record("kmeans", 4, [shifted(0.02)], stored_bytes={"images": 4 * PIXELS, "labels": 320}),
    ]


def test_bits_count_all_parts_but_hard_labels(record, made):
    soft = record("datm", 1, [[0.5, 0.6]], label_mode="soft", stored_bytes={"images": 100, "labels": 40})
    zca = record(
        "mtt", 1, [[0.5, 0.6]], stored_bytes={"images": 100, "labels": 8, "preprocess.transform": 50}
    )
    online = record("sre2l", 1, [[0.5, 0.6]], stored_bytes={"images": 100, "labels": 8, "teacher labels": 30})
    assert [stored_bits(r) for r in (soft, zca, online)] == [1120, 1200, 1040]
    four = made(shifted(0), 4)
    assert bits_by_part(four) == {"codes": 8 * 3920, "minimum": 160, "step": 160}
    assert entropy_bits(four) == 320 + 4 * 3920 and file_bits(four) == 320 + 8 * (3920 // 3)
    assert entropy_bits(zca) is None and file_bits(zca) is None


def test_versions_are_compared_with_the_set_that_they_are_made_from(entries):
    ((original, versions),) = precisions(entries)
    assert original is entries[1]
    assert [v.record.config[STORED]["bits"] for v in versions] == [8, 4, 4, 2, 2]
    by_name = {v.record.config[STORED]["precision"]: v for v in versions}
    assert by_name["2 bits, image"].difference.mean == pytest.approx(-0.05)
    assert {name for name, v in by_name.items() if v.loses_nothing} == {
        "8 bits, image", "4 bits, image", "2 bits, set",
    }  # fmt: skip
    best = fewest_lossless(versions)  # not 2 bits per set, whose version of 4 bits loses something
    assert best is by_name["4 bits, image"]
    (row,) = fewest_bits_table(entries).splitlines()[2:]
    assert [cell.strip() for cell in row.split("|")[3:-2]] == [
        "dm", "1", "250,880", "4 bits, image", "31,680", "7.9",
    ]  # fmt: skip
    assert fewest_bits_table(entries[:2]) == ""


@pytest.mark.parametrize(
    ("loss", "noise", "verdict"),
    [
        (0.0, 0.001, "yes"),
        (0.0, 0.03, "not shown"),
        (0.005, 0.001, "no"),
        (0.05, 0.03, "no"),
        (-0.03, 0.03, "yes"),
    ],
)
def test_a_wide_interval_does_not_show_that_nothing_is_lost(record, made, loss, noise, verdict):
    """An interval from -2 to 1.7 points contains no loss and one of two points."""
    found = [v - loss + noise * (-1) ** i for i, v in enumerate(BASE)]
    ((_, (version,)),) = precisions([record("dm", 1, [BASE], set_digests=["a" * 64]), made(found, 3)])
    assert version.verdict == verdict and version.loses_nothing == (verdict == "yes")
    text = {"yes": "3 bits, image", "no": "none of those measured", "not shown": "not shown by 12 networks"}
    pair = [record("dm", 1, [BASE], set_digests=["a" * 64]), made(found, 3)]
    assert text[verdict] in fewest_bits_table(pair)


def test_too_few_pairs_do_not_show_that_nothing_is_lost(record, made):
    few = [record("dm", 1, [BASE[:9]], set_digests=["a" * 64]), made(shifted(0.0)[:9], 8)]
    ((_, (version,)),) = precisions(few)
    assert version.difference.n == 9 and not version.loses_nothing and not version.is_measured
    assert " fewer than 10 networks |" in fewest_bits_table(few)
    ((original, (alone,)),) = precisions(few[1:])
    assert original is None and alone.difference is None and not alone.loses_nothing


def test_boards_other_pages_and_selectors_leave_quantised_sets_out(entries):
    (board,) = boards(entries, [])
    assert {r.method for r in board.records} == {"random", "dm", "kmeans"} and len(board.records) == 3
    assert budgets(entries) == budgets([entries[0]])
    dm = Selector.parse(["fashion_mnist", "hard", "dm", "ipc=1"])
    assert select(entries, dm) is entries[1]
    quantised = Selector.parse(["fashion_mnist", "hard", "dm", "ipc=1", "stored.bits=4", "stored.per=image"])
    assert select(entries, quantised) is entries[3]
    assert select(entries, quantised.other(["stored=none"])) is entries[1]
    with pytest.raises(NotMeasuredError):
        select(entries, Selector.parse(["fashion_mnist", "hard", "dm", "stored.bits=3"]))
    (cost,) = pages(entries)["cost"]
    assert cost[1].count("| dm") == 6, "the page of costs has them"


def test_precision_of_a_set(entries):
    known = budgets(entries)
    assert [precision_of(entries[i], known) for i in (0, 1, 2, 7)] == [
        "8 bits",
        "float32",
        "8 bits, image",
        "8 bits",
    ]
    assert precision_of(entries[1], {}) == "as distilled"


def test_sets_of_equal_bits(entries, made):
    # 4 images of 8 bits have the bits of one image in float32
    more = [*entries, made(shifted(0.03), 2, method="kmeans", ipc=4)]
    budget_of = {(b.ipc, b.width): b for b in equal_bits(more, budgets(more))}
    assert set(budget_of) == {(1, 8), (1, 32)}
    eight, float32 = budget_of[1, 8], budget_of[1, 32]
    assert (eight.bits, float32.bits) == (8 * PIXELS, 32 * PIXELS)
    names = [(r.method, r.ipc, r.config.get(STORED, {}).get("bits")) for r in eight.records]
    assert names == [("kmeans", 4, 2), ("dm", 1, 8), ("random", 1, None)]
    assert [(r.method, r.ipc) for r in float32.records] == [("kmeans", 4), ("dm", 1)]
    (title, table), (_, last) = equal_bits_tables(more)
    assert title.endswith("equal bits, IPC 1 × 8 bits, 62,720 bits") and "chosen by the accuracies" in last
    lines = rows_of(table)
    assert [row[:2] for row in lines[1:]] == [["kmeans", "4"], ["dm", "1"], ["random", "1"]]
    assert lines[0][-1] == "Difference from kmeans", "once, if k-means is also the best selection"
    assert lines[1][-1] == "" and lines[2][-1].startswith("-3.0 ")


def test_tables_of_equal_bits_have_the_largest_measurement(record, made):
    """Of one set, the evaluation with most networks; of a method, the run with most sets. Precisions are separate."""
    sizes = {"images": PIXELS}
    once = {"stored_bytes": sizes, "set_digests": ["a" * 64]}
    few, many = record("kmeans", 1, [BASE[:5]], **once), record("kmeans", 1, [BASE], **once)
    two_sets = record(
        "random", 1, [BASE[:2], BASE[2:4]], stored_bytes=sizes, set_digests=["b" * 64, "c" * 64]
    )
    group = [
        few,
        many,
        record("random", 1, [BASE], **once),
        two_sets,
        made(BASE, 8),
        made(BASE, 8, method="kmeans"),
    ]
    ((_, table),) = equal_bits_tables(group)
    assert sorted((row[0], row[2], row[5]) for row in rows_of(table)[1:] if row[0] != "kmeans") == [
        ("dm", "8 bits, image", "12"),
        ("random", "8 bits", "2×2"),
    ]
    assert [row[5] for row in rows_of(table)[1:] if row[0] == "kmeans"] == ["12"], (
        "the better of two precisions"
    )


def rows_of(table):
    """The cells of the lines of a Markdown table."""
    lines = [line for line in table.splitlines() if line.startswith("|") and not line.startswith("| ---")]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]


def test_a_set_near_two_budgets_is_in_the_nearest(record, made):
    """10 images of 6 bits have more than 75 % of the bits of 8 images of 8 bits, and of 10 of them."""
    real = [
        record(m, i, [BASE], stored_bytes={"images": i * PIXELS})
        for m in ("random", "kmeans")
        for i in (8, 10)
    ]
    both = [*real, made(BASE, 6, ipc=10), made(BASE, 8, ipc=10)]
    groups = {b.ipc: {r.ipc for r in b.records} for b in equal_bits(both, budgets(both))}
    assert groups == {8: {8, 10}, 10: {10}}
    ten = next(b for b in equal_bits(both, budgets(both)) if b.ipc == 10)
    assert [r.config.get(STORED, {}).get("bits") for r in ten.records if r.method == "dm"] == [8]


def test_a_table_of_equal_bits_has_the_best_selections(record, made):
    means = {"herding": 0.7, "entropy": 0.8, "margin": 0.6, "kmeans": 0.5, "el2n": 0.4, "aum": 0.3}
    sizes = {"images": PIXELS}
    real = [record(m, 1, [[x, x + 0.01]], stored_bytes=sizes) for m, x in (means | {"random": 0.45}).items()]
    worse = record("entropy", 1, [[0.75, 0.76]], stored_bytes=sizes, config={"method": {"pick": "hard"}})
    alone = record("moderate", 1, [[0.9]], stored_bytes=sizes)
    group = [*real, worse, made(shifted(0), 8), made(shifted(0.01), 7, source="b" * 64)]
    ((_, table),) = equal_bits_tables(group)
    lines = rows_of(table)
    shown = [row[0] for row in lines[1:]]
    assert shown == ["dm", "dm", "entropy", "herding", "margin", "kmeans", "random"]
    assert lines[0][-2:] == ["Difference from entropy", "Difference from kmeans"]
    assert lines[3][-2] == "" and lines[4][-2].startswith("-10.0 ")
    board = "leaderboards/tables/fashion_mnist/hard-v1--hard--convnet_width=32.md"
    assert f"3 other sets of real images, at most 75.5, are on the board `{board}`." in table
    ((_, table),) = equal_bits_tables([r for r in group if r.method not in ("el2n", "aum")])
    assert "One other set of real images, 75.5, is on the board" in table
    assert best_real([*group, alone]).method == "entropy", "a single value has no interval"
    assert best_real(group, "kmeans").method == "kmeans" and best_real(group[:0]) is None


def test_sizes_of_compressed_codes_are_shown_where_they_are_smaller(record, made):
    plain = record("dm", 1, [BASE], set_digests=["a" * 64])
    two, four = (made(BASE, bits).model_copy(update={"sizes": {"entropy bits": 40_000}}) for bits in (2, 4))
    ((_, table),) = precision_tables([plain, two, four])
    assert "Entropy-coded" not in table and "Smallest file" not in table, (
        "40,000 are more than 4 bits per value"
    )
    four = four.model_copy(update={"sizes": {"entropy bits": 10_000}})
    ((title, table),) = precision_tables([plain, two, four])
    lines = rows_of(table)
    assert title.endswith("precision, IPC 1") and lines[0][3] == "Entropy-coded"
    assert [row[3] for row in lines[1:]] == ["", "10,320", ""]


def test_differences_at_equal_bits_in_the_text_of_pages(record, made):
    """Rows with another IPC or precision: a value after `vs` replaces that of the first selector."""
    float32 = record("dm", 1, [BASE], set_digests=["a" * 64])
    entropy = record("entropy", 4, [shifted(-0.05)], config={"method": {"pick": "easy"}})
    sources = Sources(
        [float32, made(shifted(0.01), 3), entropy, made(shifted(-0.1), 3, method="kmeans")], [], Path()
    )
    three = "gap fashion_mnist hard dm ipc=1 stored.bits=3 vs"
    assert sources.read(f"{three} entropy method.pick=easy ipc=4 stored=none").text == "6.0"
    assert sources.read(f"{three} kmeans").text == "11.0", "the other method at the same precision"
    assert sources.read("gap fashion_mnist hard dm ipc=1 vs entropy ipc=4").text == "5.0"
    assert sources.read("gap fashion_mnist hard dm ipc=1 vs kmeans stored.bits=3").text == "10.0"
    with pytest.raises(NotMeasuredError):
        sources.read(f"{three} entropy ipc=4")


def test_a_precision_chosen_by_the_run_is_compared_with_the_run_without_it(record):
    def run(values, **method):
        stored = {STORED: {"bits": 2, "per": "image", "precision": "2 bits"}} if method else {}
        return record("dm", 1, [values], config={"method": {"iterations": 5} | method} | stored)

    plain, other = run(BASE), record("dm", 1, [BASE], config={"method": {"iterations": 9}})
    both = [run(shifted(-0.01), bits=2), run(shifted(-0.03), store="uint2")]
    plain, other = (r.model_copy(update={"set_digests": [r.key]}) for r in (plain, other))
    ((original, versions),) = precisions([other, plain, *both])
    assert original is plain and len(versions) == 2
    assert sorted(v.difference.mean for v in versions) == pytest.approx([-0.03, -0.01])


def test_a_plot_has_each_set_and_real_images(entries, record):
    one = record("kmeans", 1, [[0.7, 0.71]], stored_bytes={"images": PIXELS, "labels": 80})
    (plot,) = bits_plots([*entries, one])
    assert plot.name == "fashion_mnist/bits--hard-v1--hard--convnet_width=32" and plot.kind == "bits"
    assert {r.key for r in plot.records} == {r.key for r in [*entries[1:], one]}
    assert not list(bits_plots([entries[0], entries[1], one])), "no quantised set"


def test_values_of_bits_in_the_text_of_pages(entries):
    sources = Sources(entries, [], Path())
    four = "bits fashion_mnist hard dm ipc=1 stored.bits=4 stored.per=image"
    assert sources.read(four).value == 31_360 + 320
    assert sources.read(f"{four} entropy").value == 320 + 4 * 3920
    assert sources.read(f"{four} vs stored=none").value == pytest.approx((31_360 + 320) / 250_880)
    with pytest.raises(ValueError, match="set without codes"):
        sources.read("bits fashion_mnist hard dm ipc=1 file")
