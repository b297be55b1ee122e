"""The files of the site: deterministic, complete or unchanged, without broken links or untrusted HTML."""

import hashlib
import json
import re
import shutil
import subprocess
import sys
import threading
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image, ImageStat

pytest.importorskip("plotly")

from dd_bench.leaderboards.cli import main
from dd_bench.leaderboards.core.citations import Cards, cited
from dd_bench.leaderboards.core.entries import entry_name
from dd_bench.leaderboards.website.pages import Pages
from dd_bench.leaderboards.website.sets import copy_sets
from dd_bench.leaderboards.website.sets_page import set_rows
from dd_bench.leaderboards.website.site import SCRIPTS, build_site
from dd_bench.leaderboards.website.table_data import packed, unpacked
from dd_bench.records.bibtex import bibtex
from dd_bench.records.record import ProtocolId, Score

from .conftest import table

ROOT = Path(__file__).parents[2] / "leaderboards"


@pytest.fixture
def entries(record, put):
    """A board of six entries, one of them diverged, and boards of graphs, cross_arch and continual learning."""
    hard = {"evaluator": "graph", "dataset": "NCI1", "main_metric": "auc", "model": "gin"}

    def scores(**metrics):
        return [
            Score(metric=m, value=v + i / 100, set=0, network=i, seed=i)
            for m, v in metrics.items()
            for i in (0, 1, 2)
        ]

    steps = {"step 1": 0.9, "step 2": 0.7, "accuracy": 0.7, "average": 0.8, "forgetting": 0.1}
    return put(
        record("random", 10, [[0.50, 0.52, 0.54]]),
        record("dm", 10, [[0.70, 0.72, 0.74]]),
        record("dm", 1, [[0.60, 0.62, 0.64]], notes=["</script><script>alert(1)</script>"]),
        record("</script><script>alert(2)", 5, [[0.60, 0.62, 0.64]]),
        record("mtt", 10, [[0.71, 0.735, 0.75]]),
        record("dc", 10, [], status="diverged", reason="loss is <b>nan</b>", scores=[]),
        record("mirage", 10, [], scores=scores(auc=0.6, size_only=0.68, permuted=0.5), **hard),
        record(
            "dm",
            10,
            [],
            scores=scores(accuracy=0.7) + scores(**{"accuracy:mlp": 0.6, "accuracy:vgg11": 0.4}),
            evaluator="cross_arch",
            dataset="digits",
        ),
        record(
            "dm",
            10,
            [],
            scores=scores(**steps),
            evaluator="continual",
            protocol=ProtocolId(name="x", version=1),
        ),
    )


@pytest.fixture
def site(entries, tmp_path):
    out = tmp_path / "site"
    assert build_site(entries, ROOT / "published", tmp_path / "sets", out) > 20
    return out


def test_data_of_a_table_without_repetitions():
    licence, paper = {"text": "MIT", "title": "the whole text"}, "https://arxiv.org/abs/1"
    rows = [
        {"cells": [{"text": f"m{i}", "paper": paper, "phone": "dc-300"}, licence, 0.5, None], "set": [i]}
        for i in range(2)
    ]
    data = packed({"columns": [1], "rows": rows})
    assert data["shared"] == [licence] and data["papers"] == [paper] and data["phones"] == ["dc-300"]
    assert data["fields"] == [["text", "paper", "phone"]]
    assert [row["cells"][0] for row in data["rows"]] == [[0, "m0", 0, 0], [0, "m1", 0, 0]]
    assert [row["cells"][1] for row in data["rows"]] == [{"is": 0}, {"is": 0}]
    assert unpacked(data) == {"columns": [1], "rows": rows}


def test_cross_architecture_table(site):
    found = table(site / "cross_arch.html", "rows1")
    columns, rows = found["columns"], found["rows"]
    assert [c["label"] for c in columns][2:] == ["convnet(width=32)", "mlp", "vgg11"]
    assert rows[0]["cells"][3]["sub"] == "-10.0 [-10.0, -10.0]"
    assert rows[0]["cells"][4]["sub"] == "-30.0 [-30.0, -30.0]"


def test_no_link_is_broken(site):
    broken = []
    for page in site.rglob("*.html"):
        text = page.read_text()
        found = re.findall(r'(?:href|src)="([^"#]+)(?:#[^"]*)?"', text)
        for match in re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', text, re.DOTALL):
            found += re.findall(r'"(?:href|customdata)":"?\[?"([^"]+)"', match)
        broken += [(page.name, at) for at in found if at[0] == "#" and f'id="{at[1:]}"' not in text]
        links = [link for link in found if not link.startswith(("data:", "https:", "#"))]
        broken += [(page.name, link) for link in links if not (page.parent / link).is_file()]
    for script in site.glob("views/**/*.js"):  # boards that pages load later
        at = site if script.parent.name == "front" else site / "datasets"
        links = [
            x for x in re.findall(r'href=\\"([^"#]+)\\"', script.read_text()) if not x.startswith("https:")
        ]
        assert links
        broken += [(script.name, link) for link in links if not (at / link).is_file()]
    assert broken == []


def test_boards_that_are_not_shown_are_in_another_file(site):
    """The front page has the first board of each dataset only, so that it stays small."""
    text = (site / "index.html").read_text()
    for name in re.findall(r'data-views="([^"]+)"', text):
        section = text.partition(f'data-views="{name}"')[2].partition("</section>")[0]
        assert section.count("<article") == 1
        others = section.count('class="board-view"')
        assert (site / name).is_file() == bool(others)
        if others:
            views = json.loads((site / name).read_text().partition(" = ")[2].rpartition(";")[0])
            assert len(views) == others and all(view.startswith("<article") for view in views)


def test_no_external_requests(site):
    """Pages link to papers and code. No page loads anything from elsewhere."""
    for page in [*site.rglob("*.html"), *site.glob("*.css"), *(site / name for name in SCRIPTS)]:
        text = re.sub(
            r'<a href="https://[^"]+" rel="noreferrer"|"papers":\[("https://[^"]+",?)+\]',
            "",
            page.read_text(),
        )
        if page.parent.name == "methods":
            text = re.sub(r"<pre>.*?</pre>", "", text, flags=re.DOTALL)  # comments of YAML files
        assert set(re.findall(r"https?://[^\s\"'<)]+", text)) <= {"http://www.w3.org/2000/svg"}, page


def test_untrusted_text_is_escaped(site):
    """A note of an untrusted record cannot end a script or start an element."""
    pages = "".join(p.read_text() for p in site.rglob("*.html"))
    assert "<script>alert" not in pages and "<b>nan" not in pages
    assert "&lt;script&gt;alert(1)" in pages and "loss is &lt;b&gt;nan" in pages


def test_bidi_and_control_characters_do_not_reach_pages(record, put, tmp_path):
    """A right-to-left override in a method's name reversed the title of its page."""
    name = "dm\u202ecsv\u2066\x1b[31m"
    out = tmp_path / "site"
    build_site(put(record(name, 1, [[0.5, 0.6]], notes=[name])), ROOT / "published", tmp_path / "sets", out)
    for page in [*out.rglob("*.html"), *out.rglob("*.bib"), *out.rglob("*.tex"), *out.rglob("*.csv")]:
        assert not {c for c in page.read_text() if not c.isprintable()} - {"\n"}, page
    (page,) = (out / "entries").glob("*.html")
    assert re.search("<title>dm\ufffdcsv", page.read_text())


def test_rows_of_a_board(site):
    (page,) = (site / "boards").glob("fashion_mnist--hard-*.html")
    data = table(page)
    names = [c["id"] for c in data["columns"]]
    rows = [dict(zip(names, row["cells"], strict=True)) for row in data["rows"]]
    assert [(r["method"]["text"], r["ipc"]) for r in rows] == [
        ("dm", 1),
        ("</script><script>alert(2)", 5),
        ("mtt", 10),
        ("dm", 10),
        ("random", 10),
        ("dc", 10),
    ]
    assert (
        rows[2]["mean"]["mark"] == "best"
        and rows[3]["mean"]["mark"] == "too_few"
        and rows[4]["mean"]["mark"] == "behind"
    )
    assert rows[2]["mean"]["text"] == "73.2 ± 2.0" and rows[2]["ci"]["low"] < 0.7317 < rows[2]["ci"]["high"]
    assert rows[5]["mean"]["text"] == "diverged" and rows[0]["bytes"]["sort"] == 31440


def test_control_rows_of_graphs(site):
    (page,) = (site / "boards").glob("NCI1--*.html")
    data = table(page)
    assert [r["cells"][0] for r in data["rows"] if r.get("control")] == ["size_only (no set)"]
    assert "permuted" in [c["id"] for c in data["columns"]]


def test_continual_learning_plot(site):
    (trace, *_) = table(site / "continual.html", "plot1")["traces"]
    assert trace["x"] == [1, 2] and trace["y"] == pytest.approx([91, 71])


def test_an_entry_has_a_permanent_address(site, entries):
    for path in entries.glob("*.json"):
        digest = path.stem.rpartition("-")[2]
        assert (site / "entries" / f"{digest}.json").read_bytes() == path.read_bytes()
        assert f"entries/{digest}.html" in (site / "entries" / f"{digest}.html").read_text()


def test_downloads(site, entries):
    assert len(json.loads((site / "data" / "records.json").read_text())) == 9
    assert len((site / "data" / "records.csv").read_text().splitlines()) == 10
    assert "@software{dd_bench" in (site / "data" / "records.bib").read_text()
    (tex,) = (site / "data").glob("NCI1--*.tex")
    assert "tabular" in tex.read_text()


def test_the_site_is_deterministic(site, entries, tmp_path):
    before = {p.relative_to(site): p.read_bytes() for p in site.rglob("*") if p.is_file()}
    build_site(entries, ROOT / "published", tmp_path / "sets", site)
    assert {p.relative_to(site): p.read_bytes() for p in site.rglob("*") if p.is_file()} == before


def test_a_failed_build_does_not_change_the_site(site, entries, tmp_path, record):
    before = sorted(site.rglob("*"))
    broken = record("dm", 50, [[7.0]])
    broken.save(entries / entry_name(broken))
    with pytest.raises(ValueError, match=r"must be a fraction in \[0, 1\]"):
        build_site(entries, ROOT / "published", tmp_path / "sets", site)
    assert sorted(site.rglob("*")) == before and not list(tmp_path.glob(".site*"))


def test_a_folder_with_other_files_is_not_changed(entries, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    with pytest.raises(FileExistsError, match="is not empty and was not written by this command"):
        build_site(entries, ROOT / "published", tmp_path / "sets", tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.tex").read_text() == "years of work"


def test_other_files_in_the_site_are_kept(site, entries, tmp_path):
    (site / ".git").mkdir()
    (site / "CNAME").write_text("board.example")
    (site / "entries" / "old.html").write_text("not from a build")
    (site / "site.css").write_text("changed")
    gone = next((site / "entries").glob("*.json"))
    next(entries.glob(f"*{gone.stem}.json")).unlink()
    build_site(entries, ROOT / "published", tmp_path / "sets", site)
    assert (site / "CNAME").read_text() == "board.example" and (site / ".git").is_dir()
    assert (site / "entries" / "old.html").is_file() and not gone.exists()
    assert (site / "site.css").read_text() != "changed"


def test_two_boards_with_the_same_address_are_rejected(put, record, tmp_path):
    entries = put(*(record("dm", 1, [[0.5, 0.6]], dataset=name) for name in ("a b", "a_b")))
    with pytest.raises(ValueError, match="differ only in punctuation"):
        build_site(entries, ROOT / "published", tmp_path / "sets", tmp_path / "s")


def test_a_long_name_is_cut(put, record, tmp_path):
    entries = put(record("dm", 1, [[0.5, 0.6]], protocol=ProtocolId(name="x" * 400, version=1)))
    build_site(entries, ROOT / "published", tmp_path / "sets", tmp_path / "s")
    (page,) = (tmp_path / "s" / "boards").iterdir()
    assert len(page.name) < 210


def test_folders_that_are_not_sets_are_left_out(entries, tmp_path, capsys):
    whole = {"sha256": {"preview.png": ""}, "config": {"model": {}, "method": {}, "dataset": {}, "ipc": 1}}
    whole |= {"method": "dm", "dataset": "digits"}
    broken = [
        {"config": {"model": {}}}, {"config": "a"}, {"config": None}, {"method": []},
        {"dataset": None}, {"citations": None},
        {"config": whole["config"] | {"teachers": []}},
    ]  # fmt: skip
    texts = ["[]", "{", '{"sha256": {}, "citations": [1, null]}', *(json.dumps(whole | b) for b in broken)]
    for name, text in enumerate(texts):
        name = str(name)
        (tmp_path / "sets" / name).mkdir(parents=True)
        (tmp_path / "sets" / name / "card.json").write_text(text)
    build_site(entries, ROOT / "published", tmp_path / "sets", tmp_path / "s")
    assert not (tmp_path / "s" / "sets").exists()
    page = (tmp_path / "s" / "sets.html").read_text()
    assert "dd-bench pull" in page and "SITE" not in page
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == len(texts) and all("is not a valid card" in line for line in lines)


@pytest.fixture
def some_sets(tmp_path):
    """Two committed sets, a third that was changed, and one whose name cannot be part of a URL."""
    names = ["dm-fashion_mnist-ipc1-*", "dm-fashion_mnist-ipc10-*", "mirage-MUTAG-ipc10-*"]
    found = [sorted((ROOT / "sets").glob(f"*/{name}"))[0] for name in names]
    for folder in found:
        shutil.copytree(folder, tmp_path / "some" / folder.name)
    (tmp_path / "some" / found[1].name / "preview.png").write_bytes(b"changed")
    shutil.copytree(found[0], tmp_path / "some" / "a name; rm")
    return tmp_path / "some"


def test_sets_of_the_site_can_be_pulled(entries, some_sets, tmp_path, monkeypatch, capsys):
    """The valid sets can be pulled with all their files, from a server that does not list folders."""
    from dd_bench.cli.inspect import list_choices
    from dd_bench.hub.hub import pull, sets_at

    monkeypatch.setenv("DD_BENCH_HOME", str(tmp_path / "home"))
    build_site(entries, ROOT / "published", some_sets, tmp_path / "s")
    whole = sorted(
        p.name for p in some_sets.iterdir() if p.name.startswith(("dm-fashion_mnist-ipc1-", "mirage"))
    )
    assert json.loads((tmp_path / "s" / "sets" / "index.json").read_text()) == {"sets": whole}
    rows = table(tmp_path / "s" / "sets.html")["rows"]
    found = [[r["cells"][0]["text"], *r["cells"][1:3], r["set"][0]] for r in rows]
    assert found == [["dm", "fashion_mnist", 1, whole[0]], ["mirage", "MUTAG", 10, whole[1]]]
    assert rows[0]["cells"][0]["picture"] == "sets/*/preview.png"
    with file_server(tmp_path / "s") as url:
        assert [Path(f.url).name for f in sets_at(f"{url}/sets")] == whole
        for name in whole:
            pulled = pull(f"{url}/sets/{name}")
            expected = {p.name: p.read_bytes() for p in (some_sets / name).iterdir()}
            assert {p.name: p.read_bytes() for p in pulled.iterdir()} == expected
        (tmp_path / "s" / "sets" / "index.json").write_text('{"sets": ["../boards"]}')
        assert list_choices(["--remote", f"{url}/sets"]) == 1
        assert 'index.json must contain {"sets": [folder names]}' in " ".join(capsys.readouterr().err.split())


def test_sets_of_nodes_are_drawn_anew(tmp_path):
    """Their previews, which are part of the digest, are nearly white in sets of older versions."""
    (folder, *_) = sorted((ROOT / "sets" / "cora").glob("random-*"))
    shutil.copytree(folder, tmp_path / "some" / folder.name)
    site = tmp_path / "s"
    site.mkdir()
    known = copy_sets(tmp_path / "some", site, None)
    (row,) = set_rows(list(known.values()), [])["rows"]
    assert row["cells"][0]["picture"] == "pictures/*.png" and row["set"][0] == folder.name
    with Image.open(site / "pictures" / f"{folder.name}.png") as picture:
        assert ImageStat.Stat(picture.convert("L")).mean[0] < 235
    assert (site / "sets" / folder.name / "preview.png").read_bytes() == (folder / "preview.png").read_bytes()


def test_an_untrusted_set_adds_no_other_files(entries, some_sets, tmp_path, capsys):
    """A set cannot add HTML to the site, or publish files from outside its folder through links."""
    (whole,) = some_sets.glob("dm-fashion_mnist-ipc1-*")
    for folder in some_sets.iterdir():
        if folder != whole:
            shutil.rmtree(folder)
    for name in ("a_page", "linked", "linked_folder", "odd", "z_changed", "z_twice", "index.json"):
        shutil.copytree(whole, some_sets / name)
    card = json.loads((whole / "card.json").read_text())
    odd = card["config"] | {"method": card["config"]["method"] | {"iterations": 1, "x": {"y": 1}, "x.y": "z"}}
    (some_sets / "odd" / "card.json").write_text(json.dumps(card | {"config": odd}))
    (some_sets / "a_page" / "index.html").write_text("<script>alert(1)</script>")
    page = hashlib.sha256(b"<script>alert(1)</script>").hexdigest()
    text = json.dumps(card | {"sha256": card["sha256"] | {"index.html": page}})
    (some_sets / "a_page" / "card.json").write_text(text)
    (tmp_path / "secret").write_bytes((whole / "preview.png").read_bytes())
    (some_sets / "linked" / "preview.png").unlink()
    (some_sets / "linked" / "preview.png").symlink_to(tmp_path / "secret")
    shutil.move(some_sets / "linked_folder", tmp_path / "elsewhere")
    (some_sets / "linked_folder").symlink_to(tmp_path / "elsewhere")
    (some_sets / "z_changed" / "preview.png").write_bytes(b"")
    (tmp_path / "device").write_text('{"device": "mine"}')
    (whole / "provenance.json").unlink()
    (whole / "provenance.json").symlink_to(tmp_path / "device")
    build_site(entries, ROOT / "published", some_sets, tmp_path / "s")
    assert {p.name for p in (tmp_path / "s" / "sets").iterdir()} == {whole.name, "odd", "index.json"}
    assert (tmp_path / "s" / ".nojekyll").is_file(), "otherwise GitHub Pages renders the README.md of a set"
    assert not (tmp_path / "s" / "sets" / whole.name / "provenance.json").exists()
    err = capsys.readouterr().err
    for name, reason in (
        ("a_page", str(some_sets / "a_page" / "card.json is not a valid card: sha256: ")),
        ("linked", str(some_sets / "linked" / "preview.png must be a regular file, got a symbolic link")),
        ("linked_folder", "linked_folder must be a folder, got a symbolic link"),
        ("z_changed", "preview.png is missing or was changed"),
        ("z_twice", f"is a copy of {whole.name}"),
        ("index.json", "the name of the folder must be valid in a URL"),
    ):
        assert re.search(rf"left out of the site: \S+/{re.escape(name)}:? {re.escape(reason)}", err), (
            name,
            err,
        )


@pytest.mark.slow
def test_sets_at_must_be_the_url_of_a_folder(entries, tmp_path, capsys):
    how = ["--entries", str(entries), "--sets", str(ROOT / "sets"), "--out", str(tmp_path / "s")]
    for url in (
        "",
        "/",
        "foo",
        "javascript:alert(1)",
        "htps://h/sets",
        "https://h/sets?token=1",
        "https://h/sets#x",
    ):
        assert main(["build", "--site", *how, "--sets-at", url]) == 1
        assert url in capsys.readouterr().err and not (tmp_path / "s").exists()
    with pytest.raises(SystemExit):
        main(["build", "--sets-at", "s3://b/sets"])
    assert main(["build", "--site", *how, "--sets-at", "s3://b/our sets"]) == 0
    assert "dd-bench list --remote &#39;s3://b/our sets&#39;\n" in (tmp_path / "s" / "sets.html").read_text()


def test_rows_are_a_list_without_javascript(entries, some_sets, tmp_path):
    build_site(entries, ROOT / "published", some_sets, tmp_path / "s")

    def links(name):
        (inside,) = re.findall(
            "<noscript><p>Sorting.*?</noscript>", (tmp_path / "s" / name).read_text(), re.DOTALL
        )
        assert "<li><a href" in inside and re.search("; (Entries|IPC) ", inside)
        return re.findall('<li><a href="([^"]+)">', inside)

    assert len(links("boards.html")) == len(list((tmp_path / "s" / "boards").iterdir()))
    (board,) = (tmp_path / "s" / "boards").glob("fashion_mnist--hard-*.html")
    for link in (*links("boards.html"), *(f"boards/{at}" for at in links(f"boards/{board.name}"))):
        assert (tmp_path / "s" / link).is_file()


def test_an_entry_without_stored_sets_has_a_note(record, put, tmp_path):
    draws = record("random", 1, [[0.5], [0.6]], set_digests=["a" * 64, "b" * 64])
    build_site(put(draws), ROOT / "published", tmp_path / "none", tmp_path / "s")
    (page,) = (tmp_path / "s" / "entries").glob("*.html")
    assert "None of the 2 sets is stored here" in page.read_text() and "SITE" not in page.read_text()
    assert f'download="{entry_name(draws)}"' in page.read_text()


@contextmanager
def file_server(folder):
    """Serve static files without folder listings, as hosts of static pages do."""

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(folder))

        def list_directory(self, path):
            self.send_error(404)

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def test_an_entry_links_to_its_set(record, put, some_sets, tmp_path):
    (source,) = some_sets.glob("dm-fashion_mnist-ipc1-*")
    folder = shutil.copytree(source, some_sets / "fashion_mnist" / source.name)
    shutil.rmtree(source)
    digest = hashlib.sha256((folder / "card.json").read_bytes()).hexdigest()
    entries = put(record("dm", 1, [[0.6, 0.7]], set_digests=[digest]))
    build_site(entries, ROOT / "published", some_sets, tmp_path / "s")
    (page,) = (tmp_path / "s" / "entries").glob("*.html")
    text = page.read_text()
    assert f"dd-bench pull SITE/sets/{folder.name} --digest {digest[:16]}" in text
    assert f"dd-bench evaluate set=leaderboards/sets/fashion_mnist/{folder.name} " in text
    for file in folder.iterdir():
        assert f'href="../sets/{folder.name}/{file.name}" download' in text
    (row,) = [r for r in table(tmp_path / "s" / "sets.html")["rows"] if r["cells"][2] == 1]
    assert row["cells"][0]["href"] == f"entries/{page.name}" and row["cells"][-2] == 1
    assert row["cells"][3]["text"] == "65.0 ± 7.1" and row["cells"][6]["text"] == "mit"
    test_no_link_is_broken(tmp_path / "s")


FORKED = """
import sys
from pathlib import Path
from dd_bench.leaderboards.website import fork_pool, pages, site
assert "torch" not in sys.modules, "torch starts threads, and a process with threads must not be forked"
fork_pool.available_cores = lambda: 2
pages.FORK_THRESHOLD = 0
*folders, out, broken = map(Path, sys.argv[1:])
site.build_site(*folders, out)
pages.latex = None  # makes a forked task fail
site.build_site(*folders, broken)
"""


@pytest.mark.slow
def test_forked_processes_write_the_same_bytes(site, entries, tmp_path):
    """A failed task leaves no site."""
    other, broken = tmp_path / "other", tmp_path / "broken"
    folders = [entries, ROOT / "published", tmp_path / "sets", other, broken]
    command = [sys.executable, "-c", FORKED, *map(str, folders)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode != 0 and "'NoneType' object is not callable" in done.stderr, done.stderr
    assert not broken.exists() and not list(tmp_path.glob(".broken.*"))
    one, many = (
        {p.relative_to(at): p.read_bytes() for p in at.rglob("*") if p.is_file()} for at in (site, other)
    )
    assert one == many


def test_a_killed_process_raises_an_error():
    code = "import os; from dd_bench.leaderboards.website import fork_pool; fork_pool.available_cores = lambda: 2\n"
    code += (
        "fork_pool.run_forked([lambda: None] * 3 + [lambda: os._exit(9)] + [lambda: None] * 5, forked=True)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "a process that wrote pages was killed" in done.stderr


def test_a_method_may_be_named_like_a_row_label(record, put, tmp_path):
    entries = put(
        *(
            record(name, 10, [[0.5, 0.6 + i / 100]])
            for i, name in enumerate(["dm #2", "dm", "dm", "dm", "random"])
        )
    )
    assert build_site(entries, ROOT / "published", tmp_path / "sets", tmp_path / "site")
    (page,) = (tmp_path / "site" / "boards").glob("*.html")
    assert len(table(page)["rows"]) == 5


def test_no_entries(tmp_path, put):
    build_site(put(), ROOT / "published", tmp_path / "sets", tmp_path / "site")
    assert (tmp_path / "site" / "data" / "records.csv").read_text() == "key\n"
    with pytest.raises(ValueError, match="none does not exist"):
        build_site(tmp_path / "none", ROOT / "published", tmp_path / "sets", tmp_path / "a" / "b" / "site")
    assert not (tmp_path / "a").exists()


def test_citations_of_method_and_dataset(record):
    cards = [
        {"method": "random", "dataset": "digits", "citations": ["randomly chosen", "Digits, 1998"]},
        {
            "method": "dm",
            "dataset": "fashion_mnist",
            "citations": ["DM & co, arXiv:2006.05929, ICLR 2021", "Fashion, 2017"],
        },
    ]
    found = cited([record("random", 1, [[0.5]]), record("dm", 1, [[0.5]])], Cards.of(cards))
    assert found == {
        "dm": "DM & co, arXiv:2006.05929, ICLR 2021",
        "fashion_mnist": "Fashion, 2017",
        "random": "randomly chosen",
    }
    text = bibtex(found)
    assert "year = {2021}" in text and "DM \\& co" in text and "year = {2017}" in text


def test_a_method_measured_on_the_set_of_another_cites_its_paper(record, tmp_path):
    """INFER+Dyn is evaluated on INFER's set with other labels; the card of the set names `infer`."""
    card = {"method": "infer", "dataset": "fashion_mnist", "citations": ["INFER, 2025", "Fashion, 2017"]}
    entries = [record("infer_dyn", 10, [[0.5]], set_digests=["5e7"]), record("dm", 10, [[0.5]])]
    pages = Pages(tmp_path, entries, [], tmp_path)
    pages.sets = {"5e7": SimpleNamespace(card=SimpleNamespace(model_dump=lambda: dict(card)))}
    assert cited(entries, pages.cards) == {"infer_dyn": "INFER, 2025", "fashion_mnist": "Fashion, 2017"}


def test_the_command(entries, tmp_path, capsys):
    how = ["--entries", str(entries), "--sets", str(ROOT / "sets"), "--out", str(tmp_path / "s")]
    assert main(["build", "--site", *how]) == 0
    assert f"start with {tmp_path / 's' / 'index.html'}" in capsys.readouterr().out
    assert list((tmp_path / "s" / "sets").glob("*/preview.png"))
    assert main(["build", "--site", *how, "--sets-at", "s3://b/ours/"]) == 0
    page = (tmp_path / "s" / "sets.html").read_text()
    assert "dd-bench list --remote s3://b/ours\n" in page and "SITE" not in page
    assert {p.name for p in (tmp_path / "s" / "sets").glob("*/*")} == {"preview.png"}
    assert not (tmp_path / "s" / "sets" / "index.json").exists()


def test_the_message_names_the_optional_dependency(entries, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "plotly.offline", None)
    with pytest.raises(ImportError, match=r"pip install 'dd-bench\[site\]'"):
        build_site(entries, ROOT / "published", tmp_path / "sets", tmp_path / "s")
