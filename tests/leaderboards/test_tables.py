"""Tables of boards. To update the golden tables after an intended change: `make golden`."""

import csv
import io
import json
import os
import random
import re
from pathlib import Path

import pytest

from dd_bench.leaderboards.core import boards as boards_module
from dd_bench.leaderboards.core.boards import boards
from dd_bench.leaderboards.core.entries import load_entries
from dd_bench.leaderboards.core.published import Published, PublishedSet
from dd_bench.leaderboards.render.markup import LATEX, MARKDOWN, escape_latex, escape_markdown, markdown_table
from dd_bench.leaderboards.render.tables import build, table_of
from dd_bench.records.record import Code, ProtocolId

GOLDEN = Path(__file__).parent / "golden"
SLUG = "fashion_mnist/hard-v1--hard--convnet_width=32"
PUBLISHED = PublishedSet(
    dataset="Fashion-MNIST",
    model="convnet",
    unit="percent",
    cells=[
        Published(
            method="full", ipc=None, mean=93.5, std=0.1, protocol="unknown", source="memory", verified=False
        ),
        Published(
            method="dc", ipc=1, mean=70.5, std=0.6, protocol="300 epochs", source="README", verified=True
        ),
        Published(method="dc", ipc=1, mean=70.7, std=None, protocol="DSA", source="README", verified=True),
        Published(
            method="mtt", ipc=1, mean=75.1, std=0.9, protocol="unknown", source="memory", verified=False
        ),
    ],
)


@pytest.fixture
def papers(tmp_path):
    folder = tmp_path / "papers"
    folder.mkdir()
    (folder / "fashion_mnist.json").write_text(PUBLISHED.model_dump_json())
    return folder


def read(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("suffix", ["md", "csv", "tex"])
def test_golden(board, put, papers, tmp_path, suffix):
    build(put(*board), papers, tmp_path / "out")
    text = (tmp_path / "out" / f"{SLUG}.{suffix}").read_text()
    for r in board:  # a new field of the record changes digests, but not the tables
        text = text.replace(r.digest, "0" * 64).replace(r.digest[:16], "0" * 16)
    golden = GOLDEN / f"board.{suffix}"
    if os.environ.get("DD_BENCH_GOLDEN"):
        golden.write_text(text)
    assert text == golden.read_text()


def test_the_output_does_not_depend_on_the_order(board, put, papers, tmp_path, monkeypatch):
    build(put(*board, folder="a"), papers, tmp_path / "out_a")
    shuffled = random.Random(0).sample(board, len(board))
    folder = put(*shuffled, folder="b")
    glob = Path.glob
    monkeypatch.setattr(Path, "glob", lambda self, pattern: reversed(list(glob(self, pattern))))
    build(folder, papers, tmp_path / "out_b")
    assert read(tmp_path / "out_a") == read(tmp_path / "out_b")
    build(folder, papers, tmp_path / "out_b")
    assert read(tmp_path / "out_a") == read(tmp_path / "out_b")


def test_label_modes_and_datasets_have_separate_boards(board, put):
    found = boards(load_entries(put(*board)), [])
    assert [(b.track.dataset, b.track.label_mode, len(b.records)) for b in found] == [
        ("fashion_mnist", "hard", 10),
        ("fashion_mnist", "soft", 1),
        ("mutag", "hard", 1),
    ]


def test_a_soft_label_board_shows_the_random_baseline_with_hard_labels(board, put, papers, tmp_path):
    """The baseline is not ranked, because it belongs to another track."""
    hard, soft, _ = boards(board, [])
    assert soft.rows["random, hard labels"][0].record is hard.rows["random"][1].record
    assert soft.rows["random, hard labels"][0].place is None
    assert [r.method for r in soft.records] == ["dm"] and soft.warnings == []
    build(put(*board), papers, tmp_path / "out")
    text = (tmp_path / "out" / f"{SLUG.replace('hard--convnet', 'soft--convnet')}.md").read_text()
    assert re.search(r"\| random, hard labels \| +71\.2 ± 1\.1 \(n=5 in 2 sets\) \|", text)
    assert "- random, hard labels: from the hard-label board of the same protocol. It is not ranked." in text
    other = [r for r in board if r.method != "random"]
    assert "random, hard labels" not in boards(other, [])[1].rows
    assert boards(other, [])[1].warnings == ["no random baseline on this board"]


def test_baselines_come_first_and_other_rows_are_sorted_by_name(record):
    methods = ["zeta", "kmeans", "alpha", "kcenter", "full", "herding", "random"]
    [found] = boards([record(m, 1, [[0.1, 0.2]]) for m in methods], [])
    assert list(found.rows) == ["full", "random", "herding", "kcenter", "kmeans", "alpha", "zeta"]


def test_full_is_not_ranked(board):
    found = boards(board, [])[0]
    assert [c.place for c in found.rows["full"]] == [None, None]
    assert found.rows["full"][0].record is found.rows["full"][1].record  # it has no IPC
    assert [c.place for c in found.rows["dm"]] == ["best", "best"]
    assert found.rows["dc"][0].place == "tied"
    assert found.rows["dsa"][1].place == "untested"  # the highest mean of its column, but of one network


def test_full_of_another_protocol_is_shown(record):
    """A board without a row `full` shows the whole training set under `full-30`, at each IPC and without a rank."""
    whole = record("full", 1, [[0.9, 0.91]], protocol=ProtocolId(name="full-30", version=1))
    methods = [record(m, ipc, [[0.5, 0.51]]) for m in ("dm", "random") for ipc in (1, 10)]
    _, found = boards([whole, *methods], [])
    assert list(found.rows) == ["full (full-30)", "random", "dm"] and whole not in found.records
    assert [(c.record, c.place) for c in found.rows["full (full-30)"]] == [(whole, None)] * 2
    own = record("full", 1, [[0.8, 0.81]])
    assert list(boards([whole, own, *methods], [])[1].rows) == ["full", "random", "dm"]
    for change in ({"model": "mlp"}, {"selection": "best_on_test"}, {"dataset": "digits"}):
        others = [m.model_copy(update=change) for m in methods]
        assert all("full (full-30)" not in b.rows for b in boards([whole, *others], []))


def test_full_adds_no_column(record):
    full, random = record("full", 1, [[0.9, 0.91]]), record("random", 10, [[0.5, 0.6]])
    assert [(b.ipcs, b.warnings) for b in boards([full, random], [])] == [([10], [])]
    assert boards([full], [])[0].ipcs == [1]


def test_a_single_network_is_not_ranked(board, put, papers, tmp_path):
    build(put(*board), papers, tmp_path / "out")
    text = (tmp_path / "out" / f"{SLUG}.md").read_text()
    assert "90.0 (n=1) [‡]" in text
    assert "**90.0" not in text and "≈ 90.0" not in text


@pytest.mark.parametrize(
    ("control", "method", "warning"),
    [
        ({"status": "skipped", "sets": []}, {}, "no random baseline on this board"),
        ({}, {"ipc": 10}, "no random baseline on this board at IPC 10"),
        ({"selection": "best_on_test"}, {"selection": "best_on_test"}, "selected by their test score"),
        ({}, {"real_digest": "other"}, "2 versions of the real set"),
        (
            {},
            {"code": Code(version="9", numbers=2, revision=None, dirty=None)},
            "code with different results",
        ),
    ],
)
def test_warnings(record, put, papers, tmp_path, control, method, warning):
    control = record(**{"method": "random", "ipc": 1, "sets": [[0.5, 0.6]]} | control)
    method = record(**{"method": "dm", "ipc": 1, "sets": [[0.7, 0.6]]} | method)
    out = tmp_path / "out"
    build(put(control, method), papers, out)
    [table] = out.glob("*/*--*.md")
    assert re.search(rf"> \*\*Warning:\*\* .*{warning}", table.read_text())
    assert warning in table.with_suffix(".tex").read_text()
    assert warning in (out / "index.md").read_text()


def test_no_warnings_on_a_valid_board(record):
    [found] = boards([record("random", 1, [[0.5, 0.6]]), record("dm", 1, [[0.7, 0.6]])], [])
    assert found.warnings == []


def test_published_numbers_have_their_own_column_and_a_source(board, put, papers, tmp_path):
    build(put(*board), papers, tmp_path / "out")
    text = (tmp_path / "out" / f"{SLUG}.md").read_text()
    header, _, *rows = [line for line in text.splitlines() if line.startswith("|")]
    cells = {row.split("|")[1].strip(): [c.strip() for c in row.split("|")[2:-1]] for row in rows[:7]}
    assert [c.strip() for c in header.split("|")[1:-1]] == [
        "Method",
        "IPC 1",
        "published",
        "IPC 10",
        "published",
    ]
    assert cells["full"][1] == cells["full"][3] == "93.5 ± 0.1 [a†]"
    assert cells["dc"][1] == "70.5 ± 0.6 [b] / 70.7 [c]"
    assert cells["dc"][3] == ""
    assert "mtt" not in cells  # there is no row without a measurement
    assert "- [b] README; 300 epochs" in text
    assert "- [†] Quoted from memory" in text
    soft = (tmp_path / "out" / f"{SLUG.replace('hard--convnet', 'soft--convnet')}.md").read_text()
    assert "†" not in soft  # no legend for a mark that is not used
    page = (tmp_path / "out" / "published.md").read_text()
    assert "75.1 ± 0.9†" in page and "70.5 ± 0.6 " in page


@pytest.mark.parametrize(
    "change", [{"model": "convnet3"}, {"evaluator": "continual"}, {"dataset": "mnist"}, {"main_metric": "x"}]
)
def test_published_numbers_are_only_on_matching_boards(record, change):
    [found] = boards([record("dc", 1, [[0.5, 0.6]], **change)], [PUBLISHED])
    assert not found.has_published(0)


def test_csv_has_all_records_unrounded(board, put, papers, tmp_path):
    build(put(*board), papers, tmp_path / "out")
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out" / "records.csv").read_text())))
    assert len(rows) == len(board)
    by_key = {row["key"]: row for row in rows}
    for r in board:
        row = by_key[r.key]
        assert row["digest"] == r.digest and row["status"] == r.status
        assert [float(x) for x in row["values"].split()] == [s.value for s in r.scores]
        assert json.loads(row["stored_bytes"]) == r.stored_bytes
        if r.status == "done":
            assert float(row["mean"]) == pytest.approx(r.summary().mean, rel=1e-11)
    assert by_key[board[9].key]["reason"] == board[9].reason


def test_only_accuracy_is_in_percent(board, put, papers, tmp_path):
    build(put(*board), papers, tmp_path / "out")
    [text] = [path.read_text() for path in (tmp_path / "out").glob("mutag/*.md")]
    assert "# mutag: auc\n" in text and "0.6050 ± 0.0071 (n=2)" in text


def test_variants_have_a_row_and_a_note(board):
    found = boards(board, [])[0]
    assert "dm #2" in found.rows
    assert found.variants == [f"dm #2 at IPC 1: entry {board[5].digest[:16]}, with method.lr_img=5.0"]


def test_keys_of_the_runtime_that_were_added_later_are_not_named(board):
    runtime = {"runtime": {"graphs": "never"}}
    later = board[5].model_copy(update={"config": board[5].config | runtime})
    found = boards([*board[:5], later, *board[6:]], [])[0]
    assert found.variants == [f"dm #2 at IPC 1: entry {later.digest[:16]}, with method.lr_img=5.0"]


def test_a_board_without_entries(put, papers, tmp_path):
    build(put(), papers, tmp_path / "out")
    assert "No boards yet" in (tmp_path / "out" / "index.md").read_text()


def test_two_boards_with_the_same_file_name_are_rejected(record, put, papers, tmp_path):
    folder = put(record("dc", 1, [[0.1, 0.2]], model="a b"), record("dc", 1, [[0.1, 0.2]], model="a/b"))
    with pytest.raises(ValueError, match="punctuation"):
        build(folder, papers, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_latex_escapes_every_special_character():
    assert escape_latex("a_b & 5% of $x^2$ #1 {~} \\") == (
        r"a\_b \& 5\% of \$x\textasciicircum{}2\$ \#1 \{\textasciitilde{}\} \textbackslash{}"
    )
    assert (
        escape_latex("70.5 ± 0.6 (n=3×5) ‡ † – ≈")
        == r"70.5 $\pm$ 0.6 (n=3$\times$5) \ddag{} \dag{} -- $\approx$"
    )
    assert escape_latex('<a|b>\n"c" [1] *') == (
        r"\textless{}a\textbar{}b\textgreater{} \textquotedbl{}c\textquotedbl{} {[}1{]} {*}"
    )
    assert LATEX.best.format(escape_latex("1 ± 2")) == r"\textbf{1 $\pm$ 2}"
    assert LATEX.tied.format("1") == r"\underline{1}"


def test_markdown_escapes_untrusted_text():
    assert escape_markdown("a|b\n<script>*x* _y_ lr_img `z`") == r"a\|b &lt;script>\*x\* \_y\_ lr_img \`z\`"
    assert MARKDOWN.mark.format("1") == " [1]"


def test_markdown_columns_are_aligned():
    lines = markdown_table(["Method", "IPC 1"], [["a", "≈ 70.0 ± 0.6"], ["longer name", ""]]).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert {line.index("|", 1) for line in lines} == {14}


def test_latex_rows_have_all_columns(board, put, papers, tmp_path):
    build(put(*board), papers, tmp_path / "out")
    text = (tmp_path / "out" / f"{SLUG}.tex").read_text()
    body = text[text.index("\\midrule") : text.index("\\bottomrule")].splitlines()[1:-1]
    columns = len(re.search(r"begin\{tabular\}\{(\w+)\}", text)[1])
    assert len(body) == 7
    for row in body:
        assert row.endswith("\\\\") and len(re.findall(r"(?<!\\)&", row)) == columns - 1
    assert text.isascii()


def test_source_letters_after_z():
    assert [boards_module.letter_of(i) for i in (0, 25, 26, 51, 52)] == ["a", "z", "aa", "az", "ba"]


HOSTILE = "=cmd\u202ecsv\u2066\x1b[31m"


def test_bidi_and_control_characters_do_not_reach_tables(record, put, tmp_path):
    """A right-to-left override in a method's name reversed the text after it."""
    entry = record(HOSTILE, 10, [[0.5, 0.6, 0.55]], dataset="x\u202ey")
    for path in build(put(entry), Path("leaderboards/published"), tmp_path / "out"):
        text = path.read_text()
        assert not {c for c in text if not c.isprintable()} - {"\n"}, path
        if path.suffix == ".csv":
            (row,) = csv.DictReader(text.splitlines())
            assert row["method"].startswith("'=cmd") and float(row["mean"]) == pytest.approx(0.55)


def test_negative_numbers_stay_numbers(record, put, tmp_path):
    entry = record("dm", 10, [[-0.5, -0.25]], main_metric="gap")
    build(put(entry), Path("leaderboards/published"), tmp_path / "out")
    (row,) = csv.DictReader((tmp_path / "out" / "records.csv").read_text().splitlines())
    assert row["values"] == "-0.5 -0.25" and float(row["mean"]) == -0.375


def test_a_row_joins_different_settings_only_with_a_mark(record):
    """`dm #2` joined the second record of every IPC, whatever its settings; `dm` had no mark of its differences."""

    def at(ipc, lr, value):
        created = f"2026-01-0{round(10 * value)}T00:00:00Z"
        config = {"method": {"name": "dm", "lr_img": lr}}
        return record("dm", ipc, [[value, value + 0.01]], config=config, created=created)

    (board,) = boards(
        [at(1, 1.0, 0.1), at(1, 2.0, 0.2), at(10, 3.0, 0.3), at(10, 2.0, 0.4), at(50, 2.0, 0.5)], []
    )
    means = {
        label: [c.record and round(c.record.summary().mean, 3) for c in cells]
        for label, cells in board.rows.items()
    }
    assert means == {"dm": [0.105, 0.305, 0.505], "dm #2": [0.205, 0.405, None]}
    assert board.mixed == {"dm"} and "| dm [§]" in table_of(board) and "| dm #2 " in table_of(board)
    assert any("dm at IPC 10: entry" in text and "lr_img=3.0 instead" in text for text in board.variants)
    (same,) = boards([at(1, 1.0, 0.1), at(10, 3.0, 0.2), at(10, 1.0, 0.3)], [])
    assert same.mixed == set(), "the record with the settings of the first column is preferred"
    assert [c.record.summary().mean for c in same.rows["dm"]] == pytest.approx([0.105, 0.305])


@pytest.mark.parametrize(
    ("configs", "texts"),
    [
        ([{"pick": "hard"}, {"pick": "easy"}, {"pick": "medium"}], ["pick=hard", "pick=easy", "pick=medium"]),
        ([{"lr": 1.0}], [None]),
        ([{"lr": 1.0}, {"lr": 1.0}], [None, "run again"]),
        ([{}, {"lr_img": 5.0}], [None, "lr_img=5.0"]),
        (
            [{"a": 1, "b": 1, "c": 1, "d": 1}, {"a": 2, "b": 2, "c": 2, "d": 2}],
            [None, "a=2, b=2, 2 more"],
        ),
        ([{"a": "x" * 40, "views": {"curriculum": "cos"}}, {"a": "x" * 40, "views": {"curriculum": "const"}}],
         ["views.curriculum=cos", "views.curriculum=const"]),
        ([{"a": "x" * 40}, {"a": "y" * 40}], [f"a={'x' * 23}…", f"a={'y' * 23}…"]),
    ],
)  # fmt: skip
def test_rows_of_a_method_name_the_settings_in_which_they_differ(record, configs, texts):
    """The labels `dm` and `dm #2` do not show what distinguishes the rows."""
    found = [
        record(
            "dm", 1, [[0.5 + i / 10, 0.51 + i / 10]], config={"method": config}, created=f"2026-01-0{i + 1}"
        )
        for i, config in enumerate(configs)
    ]
    (board,) = boards(found, [])
    assert [board.settings.get(label) for label in board.rows] == texts
    for label, text in zip(board.rows, texts, strict=True):
        assert f"| {label} " + f"({text}) " * (text is not None) in table_of(board)


def test_another_evaluation_of_the_same_set_is_named(record):
    found = [
        record("dm", 1, [[0.5, 0.51 + i / 10]], set_digests=["a" * 64], created=f"2026-01-0{i + 1}")
        for i in range(2)
    ]
    (board,) = boards(found, [])
    assert dict(board.settings) == {"dm #2": "same set, evaluated again"}


def test_settings_of_a_row_that_differ_by_ipc_are_not_in_its_label(record):
    def at(ipc, lr, value):
        config = {"method": {"lr_img": lr, "norm": "a"}}
        return record(
            "dm", ipc, [[value, value + 0.01]], config=config, created=f"2026-01-0{round(10 * value)}"
        )

    (board,) = boards([at(1, 1.0, 0.1), at(10, 3.0, 0.2), at(1, 2.0, 0.3)], [])
    assert dict(board.settings) == {"dm #2": "lr_img=2.0"} and board.mixed == {"dm"}
    assert board.row_text("dm") == "settings differ by IPC" and board.row_text("dm #2") == "lr_img=2.0"


def sized(record, method, images, **changes):
    return record(method, 1, [[0.5, 0.6, 0.7]], stored_bytes={"images": images, "labels": 80}, **changes)


def test_bytes_are_compared_with_real_images(record):
    """A set of 64 real digits per class in canvases was best at IPC 1; only its bytes could be noticed."""
    real, float32 = sized(record, "random", 640), sized(record, "dm", 2560)
    canvases, soft = sized(record, "canvas", 163_840), sized(record, "soft", 2560, label_mode="soft")
    (hard, other) = boards([real, float32, canvases, soft], [])
    assert [hard.sizes[r.key] for r in (real, float32)] == [1, 4], "hard labels take no bytes"
    assert hard.places[canvases.key] == "over_budget" and hard.places[float32.key] != "over_budget"
    table = table_of(hard)
    assert "[!, 256×]" in table and "[4×]" in table and "[1×]" not in table
    assert other.sizes[soft.key] == pytest.approx(2640 / 640), "the baseline of another board of the dataset"


def test_sizes_at_other_ipcs_and_with_teacher_labels(record):
    real = sized(record, "random", 640)
    ten = record("dm", 10, [[0.5, 0.6]], stored_bytes={"images": 6400, "labels": 800, "teacher labels": 7200})
    zca = sized(record, "dc", 640).model_copy(
        update={"stored_bytes": {"images": 640, "labels": 80, "preprocess.matrix": 10**6}}
    )
    (board,) = boards([real, ten, zca], [])
    assert board.sizes[ten.key] == 1 + 7200 / 6400 and board.sizes[zca.key] == 1
    (alone,) = boards([ten], [])
    assert alone.sizes == {}
