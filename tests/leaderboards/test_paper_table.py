"""Tables for papers: selection of boards, rows and IPCs, and their LaTeX, Markdown, CSV and pandas forms."""

import shutil
import subprocess

import pytest

from dd_bench.leaderboards import paper_table
from dd_bench.leaderboards.cli import main
from dd_bench.leaderboards.core import boards as boards_module
from dd_bench.leaderboards.core.hyperparameters import Origin
from dd_bench.leaderboards.core.published import Published, PublishedSet

FIVE = [-0.004, -0.002, 0.0, 0.002, 0.004]


def cells(line):
    return [cell.strip() for cell in line.split("|")[1:-1]]


@pytest.fixture
def papers(tmp_path):
    """Published numbers of DM on Fashion-MNIST."""
    folder = tmp_path / "papers"
    folder.mkdir()
    number = Published(
        method="dm", ipc=1, mean=71.5, std=0.5, protocol="DC's", source="a_paper", verified=False
    )
    numbers = PublishedSet(dataset="Fashion-MNIST", model="convnet", unit="percent", cells=[number])
    (folder / "fashion.json").write_text(numbers.model_dump_json())
    return folder


@pytest.fixture
def entries(record, put):
    """Two datasets with three methods, a variant of one of them, and a metric of graphs."""
    means = {"random": 0.5, "dc": 0.6, "dm": 0.7}
    found = [
        record(method, ipc, [[mean + shift + x for x in FIVE]], dataset=dataset)
        for dataset, shift in (("fashion_mnist", 0.0), ("digits", 0.1))
        for method, mean in means.items()
        for ipc in (1, 10)
    ]
    later = {"created": "2026-02-02T03:04:05Z", "config": {"method": {"lr_img": 5.0}}}
    variant = record("dm", 1, [[0.9 + x for x in FIVE]], **later)
    graph = {"main_metric": "auc", "dataset": "mutag", "model": "gin", "evaluator": "graph"}
    return put(*found, variant, record("random", 5, [[0.6, 0.62]], **graph))


def test_selected_rows_are_in_the_given_order(entries, papers):
    text = paper_table(entries, dataset="digits", methods=["dm", "random"], ipcs=[10]).markdown()
    table = [cells(line) for line in text.splitlines() if line.startswith("|")]
    assert table[0] == ["Method", "IPC 10"] and [row[0] for row in table[2:]] == ["dm", "random"]
    assert table[2][1] == "**80.0 ± 0.3**", "n is the same for all entries, so it is in the caption"
    assert "Means over n=5 fresh networks" in text and "Protocol: hard v1" in text
    assert "±: standard deviation" in text


def test_entries_are_ranked_among_those_shown(entries):
    """The variant `dm #2` is the best of the board; without it, dm is."""
    every = paper_table(entries, dataset="fashion_mnist", ipcs=[1], variants=True, published=False).frame()
    assert every.set_index("row").place["dm #2"] == "best"
    first = paper_table(entries, dataset="fashion_mnist", ipcs=[1], published=False)
    assert first.frame().set_index("row").place.to_dict() == {
        "random": "behind", "dc": "behind", "dm": "best",
    }  # fmt: skip
    assert "entries shown at the same IPC" in first.markdown()


def test_boards_side_by_side(entries, papers):
    table = paper_table(
        entries, dataset=["fashion_mnist", "digits"], methods=["random", "dm"], published_dir=papers
    )
    latex = table.latex(wide=True)
    assert r"& \multicolumn{3}{c}{fashion\_mnist} & \multicolumn{2}{c}{digits} \\" in latex
    assert r"\cmidrule(lr){2-4}\cmidrule(lr){5-6}" in latex and r"\begin{table*}" in latex
    assert "Dataset:" not in latex, "the datasets differ, so they are in the header"
    assert r"71.5 $\pm$ 0.5\textsuperscript{a\dag{}}" in latex
    header = next(line for line in table.markdown().splitlines() if line.startswith("| Method"))
    assert cells(header)[-1] == "digits, IPC 10"
    hidden = paper_table(
        entries, dataset=["fashion_mnist"], methods=["dm"], published=False, published_dir=papers
    )
    assert "71.5" not in hidden.latex() and "a_paper" not in hidden.markdown()


def test_layout_options(entries):
    options = {"dataset": "digits", "methods": ["dc", "dm"], "ipcs": [1]}
    turned = paper_table(entries, **options, transposed=True, decimals=2, spread="none", highlight="none")
    rows = [cells(line) for line in turned.markdown().splitlines() if line.startswith("|")]
    assert rows[0] == ["", "dc", "dm"] and rows[2] == ["IPC 1", "70.00", "80.00"]
    assert "best" not in turned.markdown() and "±" not in turned.markdown()
    interval = paper_table(entries, **options, spread="ci", decimals=3).markdown()
    assert (
        "**80.000 ± 0.393**" in interval and "95 % confidence interval" in interval
    )  # 2.776 * 0.316 / sqrt(5)
    costs = paper_table(entries, **options, metrics=["accuracy", "bytes", "seconds"])
    row = cells(next(line for line in costs.markdown().splitlines() if line.startswith("| dm")))
    assert row[1:] == ["**80.0 ± 0.3**", "31,440", "12.5"]


def test_marks_keep_their_legend(entries, monkeypatch):
    """T stays without highlighting of ranks."""
    monkeypatch.setattr(
        boards_module, "origins", lambda found: {r.key: Origin("test", "by hand") for r in found}
    )
    text = paper_table(entries, dataset="digits", methods=["dm"], highlight="none").markdown()
    assert r"80.0 ± 0.3 [T]" in text and "[T] Not ranked" in text and "dm: by hand" in text


def test_caption_names_the_methods_with_other_numbers_of_networks(record, put):
    folder = put(record("random", 1, [[0.5, 0.51], [0.52, 0.5]]), record("dm", 1, [[0.7, 0.71, 0.72]]))
    assert "(n=2×2)" in paper_table(folder).markdown()
    short = paper_table(folder, counts=False).markdown()
    assert "n=2×2 for random; n=3 for dm" in short and "(n=" not in short
    folder = put(record("dm", 10, [[0.8, 0.81]]), record("dm", 10, [[0.8, 0.81, 0.82]], dataset="digits"))
    several = paper_table(
        folder, dataset=["fashion_mnist", "digits"], methods=["dm"], counts=False
    ).markdown()
    assert "n=3 for dm (fashion_mnist, IPC 1), dm (digits, IPC 10); n=2 for dm (fashion_mnist, IPC 10)" in (
        several.replace("\\_", "_")
    )


def test_frame_has_unrounded_numbers(entries, papers):
    table = paper_table(entries, dataset="fashion_mnist", published_dir=papers)
    frame = table.frame()
    published = frame[frame.source != "measured"].iloc[0]
    assert (published.method, published["mean"], published.checked) == ("dm", 0.715, False)
    measured = frame[(frame.source == "measured") & (frame.ipc == 10)].set_index("method")
    assert measured["mean"].to_dict() == pytest.approx({"random": 0.5, "dc": 0.6, "dm": 0.7})
    assert measured.networks.tolist() == [5, 5, 5]
    assert len(table.csv().splitlines()) == len(frame) + 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dataset": "fashon"}, "Did you mean fashion_mnist"),
        ({"dataset": "digits", "methods": ["dmm"]}, "Did you mean dm"),
        ({"dataset": "digits", "ipcs": [9]}, "Did you mean 10"),
        ({"dataset": "digits", "metrics": ["acuracy"]}, "Did you mean accuracy"),
        ({"dataset": "digits", "model": "gin"}, "no board has dataset digits, model gin"),
        ({}, "at most 1 boards, got 3"),
        ({"dataset": "digits", "decimals": -1}, "decimals must be"),
    ],
)
def test_errors_have_the_nearest_name(entries, options, message):
    with pytest.raises(ValueError, match=message):
        paper_table(entries, **options)


def test_command(entries, tmp_path, capsys):
    """The LaTeX source contains the command; without --out, the table is printed."""
    out = tmp_path / "table.tex"
    arguments = ["table", "--entries", str(entries), "--dataset", "digits", "--methods", "dm"]
    assert main([*arguments, "--out", str(out)]) == 0
    assert out.read_text().startswith(f"% Generated by `dd-bench leaderboard table --entries {entries}")
    assert main([*arguments, "--format", "csv"]) == 0
    assert capsys.readouterr().out.splitlines()[1].startswith("dataset,protocol")
    assert main([*arguments[:-1], "mtt"]) == 1 and "method must be one of" in capsys.readouterr().err


def test_latex_compiles(entries, papers, tmp_path):
    """Boards side by side, a transposed table, and escaped text of a record."""
    compiler = shutil.which("tectonic") or shutil.which("pdflatex")
    if compiler is None:
        pytest.skip("needs tectonic or pdflatex (Debian: texlive-latex-recommended)")
    options = {"dataset": ["fashion_mnist", "digits"], "published_dir": papers}
    command = "dd-bench leaderboard table --out 'a\n\\undefined_%'"
    tables = [
        paper_table(entries, **options, command=command).latex(wide=True),
        paper_table(entries, **options, transposed=True, highlight="best", variants=True).latex(),
    ]
    body = "\n".join(tables)
    (tmp_path / "paper.tex").write_text(
        "\\documentclass[twocolumn]{article}\\usepackage{booktabs}\\begin{document}\n"
        f"{body}\nText.\\end{{document}}\n"
    )
    flags = ["-interaction=nonstopmode", "-halt-on-error"] if compiler.endswith("pdflatex") else []
    done = subprocess.run([compiler, *flags, "paper.tex"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "paper.pdf").stat().st_size > 10_000
