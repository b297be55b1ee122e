"""The site in Chromium, opened from a local folder: user interactions, accessibility, and no network requests."""

import ast
import json
import os
import shlex
import shutil
import time
from importlib.resources import files
from pathlib import Path
from urllib.parse import urlsplit

import pytest

pytest.importorskip("plotly")
webdriver = pytest.importorskip("selenium.webdriver")
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.select import Select
from selenium.webdriver.support.wait import WebDriverWait

from dd_bench.leaderboards.core.differences import difference, is_paired
from dd_bench.leaderboards.core.entries import entry_name, load_entries
from dd_bench.leaderboards.core.ranking import holm
from dd_bench.leaderboards.website.site import build_site
from dd_bench.records.record import ProtocolId, Score

from .conftest import make_record

BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
ROOT = Path(__file__).parents[2] / "leaderboards"
QUIET = (
    "--headless=new",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (BROWSER and DRIVER),
        reason="requires chromium and chromedriver: apt-get install chromium chromium-driver",
    ),
]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A site with a board of 120 entries, another board of three, and three of the committed sets."""
    root = tmp_path_factory.mktemp("site")
    copy_some_sets(root / "sets")
    for i in range(120):
        value = 0.3 + i / 240
        r = make_record(f"m{i:03d}", (1, 10)[i % 2], [[value, value + 0.01, value + 0.02]])
        r.save(root / "entries" / entry_name(r))
    other = {"protocol": ProtocolId(name="x", version=1)}
    for method, ipc, sets in (
        ("dm", 1, [[0.7, 0.71]]),
        ("dm", 10, [[0.8, 0.813]]),
        ("dc", 10, [[0.79, 0.81, 0.78, 0.82, 0.80]]),
        ("random", 1, [[0.49, 0.51], [0.50, 0.52], [0.5, 0.51]]),
    ):
        r = make_record(method, ipc, sets, **other)
        r.save(root / "entries" / entry_name(r))
    r = make_record("dm", 1, [[0.72, 0.75]], **other, label_mode="soft")
    r.save(root / "entries" / entry_name(r))
    build_site(root / "entries", ROOT / "published", root / "sets", root / "out")
    return root / "out"


def copy_some_sets(folder):
    for name in ("digits/dm-", "fashion_mnist/mtt-", "NCI1/mirage-"):
        source = min((ROOT / "sets").glob(f"{name}*"))
        shutil.copytree(source, folder / source.parent.name / source.name)


CORESETS = {"el2n": 0.41, "grand": 0.42, "forgetting": 0.43, "aum": 0.44, "margin": 0.45, "entropy": 0.46}


@pytest.fixture(scope="module")
def small_site(tmp_path_factory):
    """A site with few entries that has every kind of page, row, mark and note, and a link to the documentation."""
    root = tmp_path_factory.mktemp("small")
    copy_some_sets(root / "sets")
    (root / "published").mkdir()
    shutil.copy(ROOT / "published" / "fashion_mnist.json", root / "published")

    def scores(**metrics):
        return [Score(metric=m, value=v + i / 100, set=0, network=i, seed=i)
                for m, v in metrics.items() for i in (0, 1, 2)]  # fmt: skip

    steps = scores(**{"step 1": 0.9, "step 2": 0.7, "accuracy": 0.7, "average": 0.8, "forgetting": 0.1})
    networks = scores(**{"accuracy": 0.7, "accuracy:mlp": 0.6, "accuracy:vgg11": 0.4})
    graphs = {"evaluator": "graph", "dataset": "NCI1", "main_metric": "auc", "model": "gin"}
    chosen = {"config": {"method": {"lr_img": 9.0}, "hyperparameters": "test"}}
    for r in (
        make_record("full", 1, [[0.9, 0.91, 0.92]]),
        *(make_record("random", ipc, [[v, v + 0.02, v + 0.04]]) for ipc, v in ((1, 0.4), (10, 0.5))),
        *(make_record("dm", ipc, [[v, v + 0.02, v + 0.04]]) for ipc, v in ((1, 0.6), (10, 0.7))),
        make_record("dm", 10, [[0.60, 0.62, 0.64]], config={"method": {"lr_img": 5.0}}),
        *(make_record(name, 10, [[v, v + 0.02, v + 0.04]]) for name, v in CORESETS.items()),
        make_record("mtt", 10, [[0.71, 0.735, 0.75]], **chosen),
        make_record("sre2l", 10, [[0.6, 0.61, 0.62]], notes=["a note"]),
        make_record("dc", 10, [], status="diverged", reason="loss is nan"),
        make_record("mirage", 10, [], scores=scores(auc=0.6, size_only=0.68, permuted=0.5), **graphs),
        make_record("dm", 10, [], scores=networks, evaluator="cross_arch", dataset="digits"),
        make_record("dm", 10, [], scores=steps, evaluator="continual"),
    ):
        r.save(root / "entries" / entry_name(r))
    build_site(root / "entries", root / "published", root / "sets", root / "out", docs="docs/index.html")
    return root / "out"


MANY = ("dm", "dc", "dsa", "random", "kmeans", *CORESETS, "kcenter", "herding", "moderate", "d2", "ccs", "idc",
        "datm", "ftd", "tesla")  # fmt: skip
LONG = {
    "experts": {"gradient_penalty": {"weight": 0}, "loss_scale": [], "count": 5},
    "intermediate": "curriculum",
    "iterations": 1000,
}


@pytest.fixture(scope="module")
def wide_site(tmp_path_factory):
    """A site with long settings, boards that differ in one part, many methods, ranks, and continual learning."""
    root = tmp_path_factory.mktemp("wide")
    (root / "published").mkdir()
    shutil.copy(ROOT / "published" / "fashion_mnist.json", root / "published")
    mtt = {"protocol": ProtocolId(name="mtt-1000", version=1)}
    records = [make_record("mtt", 10, [[0.6, 0.62, 0.64]], **mtt)]
    for i, (key, value) in enumerate(LONG.items()):
        settings = {"lr_img": 5.0, "syn_steps": i, **dict(list(LONG.items())[: i + 1]), key: value}
        values = [[0.61 + i / 100, 0.63 + i / 100, 0.66]]
        records.append(make_record("mtt", 10, values, config={"method": settings}, **mtt))
    graph = {"evaluator": "graph", "dataset": "NCI1", "main_metric": "auc"}
    for model in ("gin", "gcn", "gat"):
        records += [
            make_record(m, 10, [[0.5123, 0.5 + i / 50]], **graph | {"model": model})
            for i, m in enumerate(MANY)
        ]
    for epochs in (100, 200):
        name = f"mirage-legacy(recipe.batch_size=32, recipe.epochs={epochs}, recipe.weight_decay=0.0)"
        records.append(
            make_record("dm", 10, [[0.5, 0.6]], **graph | {"protocol": ProtocolId(name=name, version=1)})
        )
    order = ("dm", "dc", "dsa", "random", "herding")
    for shift, dataset in enumerate("abc"):
        for i in range(len(order)):
            rank = i and 1 + (i + shift) % 4  # dm is always first
            values = [[0.9 - rank / 10 + x for x in (0, 0.01, 0.02)]]
            records.append(make_record(order[i], 1, values, dataset=dataset))
    steps = {f"step {i}": 0.9 - i / 10 for i in range(1, 6)} | {
        "accuracy": 0.4,
        "average": 0.6,
        "forgetting": 0.12,
    }
    networks = {"accuracy": 0.7} | {
        f"accuracy:{n}": 0.6 for n in ("mlp", "vgg11", "resnet18", "resnet_ap18", "alexnet")
    }
    scores = [
        Score(metric=m, value=v + i / 90, set=0, network=i, seed=i)
        for m, v in networks.items()
        for i in (0, 1)
    ]
    records.append(make_record("kmeans_untrained", 10, [], scores=scores, evaluator="cross_arch"))
    for method in order:
        scores = [
            Score(metric=m, value=v + i / 100, set=0, network=i, seed=i)
            for m, v in steps.items()
            for i in range(3)
        ]
        records.append(make_record(method, 10, [], scores=scores, evaluator="continual"))
    for r in records:
        r.save(root / "entries" / entry_name(r))
    build_site(root / "entries", root / "published", root / "sets", root / "out")
    return root / "out"


@pytest.fixture(scope="module")
def chrome(tmp_path_factory):
    options = Options()
    options.binary_location = BROWSER
    folder = tmp_path_factory.mktemp("downloads")
    for word in (*QUIET, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(word)
    if os.geteuid() == 0:
        options.add_argument("--no-sandbox")
    options.add_experimental_option("prefs", {"download.default_directory": str(folder)})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    driver.folder = folder
    yield driver
    driver.quit()


@pytest.fixture
def page(chrome, site):
    """Open a page of the site. Afterwards check that the console has no messages and no request left the machine."""

    def open_(name, width=1280, dark=False, site=site):
        phone = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
        chrome.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        chrome.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})
        for log in ("browser", "performance"):
            chrome.get_log(log)  # discard earlier messages
        chrome.get("about:blank")  # force a reload if only the fragment of the address changes
        file, _, hash_ = name.partition("#")
        chrome.get((site / file).as_uri() + (f"#{hash_}" if hash_ else ""))
        if chrome.find_elements(By.CSS_SELECTOR, "[data-table]"):
            ready = "return document.documentElement.dataset.ready === 'yes'"
            WebDriverWait(chrome, 20).until(lambda d: d.execute_script(ready))
        return chrome

    yield open_
    assert [e for e in chrome.get_log("browser") if e["level"] in ("SEVERE", "WARNING")] == []
    events = [json.loads(e["message"])["message"] for e in chrome.get_log("performance")]
    urls = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    assert urls and {urlsplit(url).scheme for url in urls} <= {"file", "data", "about", "blob"}


@pytest.fixture(scope="module")
def board(site):
    (path,) = (site / "boards").glob("*--hard-v1--*.html")
    return f"boards/{path.name}"


def column(driver, number):
    """The first line of each cell of a column; one script, because a request for each cell is slow."""
    cells = f"document.querySelectorAll('tbody tr > :nth-child({number})')"
    return driver.execute_script(f"return [...{cells}].map(cell => cell.innerText.trim().split('\\n')[0])")


def test_sorting(page, board):
    driver = page(board)
    head = driver.find_element(By.CSS_SELECTOR, "th[data-id=mean]")
    head.find_element(By.TAG_NAME, "button").click()
    assert head.get_attribute("aria-sort") == "descending" and column(driver, 1)[:2] == ["m119", "m118"]
    head.find_element(By.TAG_NAME, "button").click()
    assert head.get_attribute("aria-sort") == "ascending" and column(driver, 1)[:2] == ["m000", "m001"]
    assert driver.current_url.endswith("#sort=mean")


def test_keyboard_navigation(page, board):
    driver = page(board)
    driver.switch_to.active_element.send_keys(Keys.TAB)
    assert driver.switch_to.active_element.text == "Skip to the content"
    button = driver.find_element(By.CSS_SELECTOR, "th[data-id=method] button")
    for _ in range(40):
        if driver.switch_to.active_element == button:
            break
        driver.switch_to.active_element.send_keys(Keys.TAB)
    else:
        pytest.fail("the header cannot be reached with the Tab key")
    driver.switch_to.active_element.send_keys(Keys.ENTER)
    assert (
        driver.find_element(By.CSS_SELECTOR, "th[data-id=method]").get_attribute("aria-sort") == "ascending"
    )


def test_filters_are_stored_in_the_address(page, board):
    driver = page(board)
    driver.find_element(By.CSS_SELECTOR, "input[type=search]").send_keys("m01")
    assert len(column(driver, 1)) == 10 and "10 of 120" in driver.find_element(By.CSS_SELECTOR, ".count").text
    Select(driver.find_element(By.CSS_SELECTOR, "form select")).select_by_visible_text("10")
    found = column(driver, 1)
    assert len(found) == 5 and set(column(driver, 2)) == {"10"}
    address = driver.current_url
    hash_ = address.partition("#")[2]
    assert hash_ == "q=m01&ipc=10"
    again = page(f"{board}#{hash_}")
    assert (
        column(again, 1) == found
        and again.find_element(By.CSS_SELECTOR, "input").get_attribute("value") == "m01"
    )
    again.find_element(By.CSS_SELECTOR, "input").send_keys("nothing like it")
    assert column(again, 1) == []


def test_long_tables_are_shown_in_parts(page, board):
    driver = page(board)
    assert len(column(driver, 1)) == 100
    driver.find_element(By.CSS_SELECTOR, ".more").click()
    assert len(column(driver, 1)) == 120 and not driver.find_element(By.CSS_SELECTOR, ".more").is_displayed()


def test_from_the_front_page_to_an_entry(page, site):
    driver = page("index.html")
    driver.find_element(By.CSS_SELECTOR, ".view p a").click()
    driver.find_element(By.LINK_TEXT, "m118").click()
    assert (
        "/entries/" in driver.current_url
        and "m118 on fashion_mnist" in driver.find_element(By.TAG_NAME, "h1").text
    )
    assert Path(urlsplit(driver.current_url).path).stem in driver.find_element(By.TAG_NAME, "main").text


def test_the_switch_of_the_front_page(page):
    driver = page("index.html")
    Select(driver.find_element(By.CSS_SELECTOR, "[data-switch=protocol]")).select_by_visible_text("x v1")
    chosen = (By.CSS_SELECTOR, ".view[data-protocol='x v1']")  # is loaded from another file
    WebDriverWait(driver, 20).until(lambda d: any(v.is_displayed() for v in d.find_elements(*chosen)))
    (view,) = (v for v in driver.find_elements(By.CLASS_NAME, "view") if v.is_displayed())
    assert view.get_attribute("data-protocol") == "x v1" and "71.5" not in view.text
    driver.find_element(By.CLASS_NAME, "show-published").click()
    assert "71.5" in view.text and len(view.find_elements(By.TAG_NAME, "polyline")) == 6


def test_sorting_a_matrix(page):
    driver = page("index.html")
    names = "return [...document.querySelectorAll('.view:not([hidden]) tr[data-m]')].map(r => r.dataset.m)"
    assert driver.execute_script(names)[:2] == ["m119", "m117"]
    button = driver.find_element(By.CSS_SELECTOR, ".view th[data-ipc='0'] button")
    button.click()
    assert driver.execute_script(names)[:2] == ["m118", "m116"]
    button.click()
    assert "ascending" in button.find_element(By.XPATH, "..").get_attribute("aria-sort")


def test_a_long_group_of_a_matrix_is_shown_in_part(page, small_site):
    """The first rows in the present order are shown, all of them after a click."""
    driver = page("index.html", site=small_site)
    table = driver.find_element(By.CSS_SELECTOR, "table.matrix:has([data-shown])")
    rows = "[...arguments[0].querySelectorAll('[data-shown] tr[data-m]')].filter((r) => r.checkVisibility())"
    names = f"return {rows}.map((r) => r.dataset.m)"
    best = sorted(CORESETS, key=CORESETS.get, reverse=True)
    assert driver.execute_script(names, table) == best[:5]
    button = table.find_element(By.CSS_SELECTOR, "[data-ipc='1'] button")
    button.click(), button.click()  # the lowest first
    assert driver.execute_script(names, table) == best[::-1][:5]
    button = table.find_element(By.CLASS_NAME, "all")
    assert (button.text, button.get_attribute("aria-expanded")) == ("show all 6", "false")
    button.click()
    assert driver.execute_script(names, table) == best[::-1]
    assert (button.text, button.get_attribute("aria-expanded")) == ("show the first 5", "true")


def test_a_phone_shows_one_dataset_at_first(page, small_site):
    """The others open by a click or by a link to them. A wide window shows all."""
    sections = "[...document.querySelectorAll('.dataset')].filter((s) => s.firstElementChild.open)"
    opened = f"return {sections}.map((s) => s.id)"
    first, second = page("index.html", site=small_site).execute_script(opened)[:2]
    driver = page("index.html", width=390, site=small_site)
    assert driver.execute_script(opened) == [first]
    driver.find_element(By.CSS_SELECTOR, f".jump a[href='#{second}']").click()
    WebDriverWait(driver, 10).until(lambda d: d.execute_script(opened) == [first, second])
    driver.find_element(By.CSS_SELECTOR, f"#{first} summary").click()
    assert driver.execute_script(opened) == [second]
    assert page(f"index.html#{second}", width=390, site=small_site).execute_script(opened) == [first, second]


def test_differences_are_those_of_python(page, site):
    """The page computes the difference of every pair of the board as `core.differences` does."""
    (path,) = (site / "boards").glob("*--x-v1--hard--*.html")
    driver = page(f"boards/{path.name}")
    script = """
        const found = JSON.parse(document.getElementById("rows").textContent).rows.map((row) => row.compare);
        return found.flatMap((a) => found.map((b) => [a.id, b.id, a === b ? null : Comparison.difference(a, b)]));"""
    records = {r.digest[:16]: r for r in load_entries(site.parent / "entries")}
    tests = set()
    for a, b, found in driver.execute_script(script):
        if a != b:
            expected = difference(records[a], records[b])
            got = [found[name] for name in ("mean", "low", "high", "p", "n")]
            assert got == pytest.approx(list(expected), rel=1e-6, abs=1e-9), (a, b)
            assert (found["test"] == "paired by seed") == is_paired(records[a], records[b])
            tests.add(found["test"])
    assert tests == {"paired by seed", "Welch"}
    p = [0.04, 0.01, 0.03, 0.5]
    assert driver.execute_script("return Comparison.holm(arguments[0])", p) == pytest.approx(holm(p))


def test_ticked_rows_are_compared(page, site):
    """Two rows have a difference. A row with hyper-parameters chosen on test data, or another IPC, has a warning."""
    (path,) = (site / "boards").glob("*--x-v1--hard--*.html")
    driver = page(f"boards/{path.name}")

    def tick(name):
        driver.find_element(By.CSS_SELECTOR, f"[aria-label='compare {name}']").click()

    panel = driver.find_element(By.CLASS_NAME, "comparison")
    tick("dm, IPC 1")
    assert "Tick one more row" in panel.text
    tick("random, IPC 1")
    assert "+20.0" in panel.text and "Welch" in panel.text and "samples per class" not in panel.text
    tick("dm, IPC 10")
    assert "different numbers of samples per class (IPC 1, 10)" in panel.text
    address = driver.current_url
    assert "compare=" in address
    again = page(f"boards/{path.name}#{address.partition('#')[2]}")
    assert "Comparison of 3 rows" in again.find_element(By.CLASS_NAME, "comparison").text
    again.find_element(By.CSS_SELECTOR, ".comparison button").click()
    assert not again.find_element(By.CLASS_NAME, "comparison").is_displayed()


def test_rows_with_other_labels_are_not_comparable(page, site):
    """A soft-label board shows random images with hard labels. Their comparison has a warning, and no command."""
    (path,) = (site / "boards").glob("*--x-v1--soft--*.html")
    ids = "return JSON.parse(document.getElementById('rows').textContent).rows.map((row) => row.compare.id)"
    driver = page(f"boards/{path.name}")
    driver = page(f"boards/{path.name}#compare={'.'.join(driver.execute_script(ids))}")
    text = driver.find_element(By.CLASS_NAME, "comparison").text
    assert (
        "differ in labels (soft labels, hard labels)" in text and "dd-bench leaderboard compare" not in text
    )


def test_plots(page, board):
    driver = page(board)
    place = driver.find_element(By.CSS_SELECTOR, ".plot")
    library = "return performance.getEntriesByType('resource').some(e => e.name.endsWith('plotly.min.js'))"
    assert not driver.execute_script(library), "5 MB are loaded only for visible plots"
    driver.execute_script("arguments[0].scrollIntoView()", place)
    WebDriverWait(driver, 20).until(lambda d: d.find_elements(By.CSS_SELECTOR, ".plot .point"))
    assert len(driver.find_elements(By.CSS_SELECTOR, ".plot .point")) >= 120
    title = ".plot .xtitle"
    assert "bits" in driver.find_element(By.CSS_SELECTOR, title).text
    buttons = [b.get_attribute("data-title") for b in driver.find_elements(By.CSS_SELECTOR, ".modebar-btn")]
    assert len(buttons) > 3 and not [
        b for b in buttons if not b or "cloud" in b.lower() or "share" in b.lower()
    ]
    Select(driver.find_element(By.CSS_SELECTOR, "[data-axis]")).select_by_value("making")
    WebDriverWait(driver, 10).until(lambda d: "seconds" in d.find_element(By.CSS_SELECTOR, title).text)


@pytest.mark.parametrize(
    "name",
    [
        "index.html",
        "boards.html",
        "methods/dm.html",
        "datasets/fashion_mnist.html",
        "entries.html",
        "sets.html",
        "published.html",
        "published/fashion_mnist.html",
        "cross_arch.html",
        None,
    ],
)
def test_pages_fit_the_width_of_a_phone(page, board, name):
    driver = page(name or board, width=390)
    assert driver.execute_script("return document.documentElement.scrollWidth") == 390
    assert driver.find_element(By.TAG_NAME, "h1").is_displayed()


def test_dark_mode(page):
    def shades(driver):
        body = driver.find_element(By.TAG_NAME, "body")
        values = [body.value_of_css_property(p) for p in ("background-color", "color")]
        return [sum(map(int, v.strip("rgba()").split(",")[:3])) for v in values]

    paper, ink = shades(page("index.html"))
    assert paper > 700 > 150 > ink
    paper, ink = shades(page("index.html", dark=True))
    assert paper < 150 < 600 < ink


def test_the_commands_of_the_sets_page_work(page, site, tmp_path, monkeypatch):
    """The commands have the address of the page, here a local folder."""
    from dd_bench.hub.hub import pull, sets_at

    monkeypatch.setenv("DD_BENCH_HOME", str(tmp_path))
    driver = page("sets.html")
    listing, pulling = driver.find_element(By.TAG_NAME, "pre").text.splitlines()
    assert listing == f"dd-bench list --remote {site.as_uri()}/sets"
    assert len(sets_at(listing.split()[-1])) == len(list((site / "sets").iterdir())) - 1  # without the index
    *_, url, option, digest = pulling.split()
    assert option == "--digest" and pull(url, digest=digest).name.endswith(digest)
    assert "SITE" not in driver.find_element(By.TAG_NAME, "main").text


def test_the_lines_that_load_a_set_are_copied(page, site):
    """The button of a row copies three lines of Python with the address and the digest of its set."""
    driver = page("sets.html#dataset=fashion_mnist&ipc=1&method=mtt")
    driver.execute_script(
        "window.copied = []; navigator.clipboard.writeText = async (text) => copied.push(text)"
    )
    row = driver.find_element(By.CSS_SELECTOR, "tbody tr")
    row.find_element(By.CLASS_NAME, "copy").click()
    (text,) = driver.execute_script("return copied")
    folder = row.find_element(By.CSS_SELECTOR, "a[download]").get_attribute("href").rsplit("/", 2)[1]
    assert text.splitlines()[1].startswith(f'syn = dd_bench.load("file://{site}/sets/{folder}", digest="')
    ast.parse(text)
    image = row.find_element(By.TAG_NAME, "img")
    assert image.get_attribute("alt") == "picture of mtt, fashion_mnist, 1"


def test_an_address_with_spaces_and_quotes_is_quoted(page, site, tmp_path):
    """A shell and Python parse the commands to the address in the browser."""
    from dd_bench.hub.hub import sets_at

    there = tmp_path / "it's a (site) 100% #1"
    shutil.copytree(site, there)
    driver = page("sets.html")
    driver.get((there / "sets.html").as_uri())
    shell, python = (e.text for e in driver.find_elements(By.TAG_NAME, "pre"))
    assert shlex.split(shell)[3] == f"file://{there}/sets" and sets_at(f"file://{there}/sets")
    code = python.splitlines()[1]
    assert ast.literal_eval(code[code.index("(") + 1 : code.index(", digest")]).startswith(
        f"file://{there}/sets/"
    )


def test_a_download(page, site, board):
    driver = page(board)
    driver.find_element(By.LINK_TEXT, "CSV").click()
    expected = site / "data" / f"{Path(board).stem}.csv"
    for _ in range(50):
        if (found := driver.folder / expected.name).is_file():
            break
        time.sleep(0.1)
    assert found.read_bytes() == expected.read_bytes()


KINDS_OF_PAGES = (
    "index", "ranks", "boards", "boards/*--hard-v1--hard--convnet*", "datasets/fashion_mnist", "methods", "methods/dm",
    "entries", "entries/*", "sets", "published", "cross_arch", "continual",
)  # fmt: skip


SMALL_TEXT = """
const hasText = (e) => [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
const size = (e) => parseFloat(getComputedStyle(e).fontSize) * (e.closest('svg') ? e.getScreenCTM().a : 1);
return [...document.querySelectorAll('main *, nav *, footer *')]
  .filter((e) => e.checkVisibility() && hasText(e) && !['title', 'script', 'style'].includes(e.localName))
  .map((e) => [size(e), e.textContent]).filter(([pixels]) => 0 < pixels && pixels < 11.99)"""


@pytest.mark.parametrize("kind", KINDS_OF_PAGES)
def test_pages_fit_every_width_and_have_no_small_text(page, small_site, kind):
    """On a phone, a tablet and a desktop. The text of a plot is scaled with the plot."""
    path = min(small_site.glob(f"{kind}.html"))
    for width in (390, 820, 1440):
        driver = page(path.relative_to(small_site).as_posix(), width=width, site=small_site)
        assert driver.execute_script("return document.documentElement.scrollWidth") <= width
        assert driver.execute_script(SMALL_TEXT) == [], width


def board_of(site, name):
    return min((site / "boards").glob(f"{name}.html")).relative_to(site).as_posix()


def test_the_best_ranks_have_intervals(page, wide_site):
    """Low ranks are best, so that no rank is outside the scale."""
    driver = page("ranks.html", site=wide_site)
    drawn = """return [...document.querySelectorAll('td.interval .whisker')].map((svg) => {
      const dot = svg.querySelector('circle'), line = svg.querySelector('line');
      return [svg.querySelectorAll('path').length, dot && Number(dot.getAttribute('cx')), line !== null]; })"""
    found = driver.execute_script(drawn)
    assert len(found) == 10 and all(arrows == 0 and dot is not None and line for arrows, dot, line in found)
    assert min(dot for _, dot, _ in found) == 2.0  # rank 1 is at the left end


@pytest.mark.parametrize("width", [390, 820])
def test_boards_can_be_told_apart(page, wide_site, width):
    driver = page("boards.html", width=width, site=wide_site)
    rows = driver.execute_script(
        "return [...document.querySelectorAll('tbody tr')].map((row) => row.innerText)"
    )
    assert len(rows) == len(set(rows)) > 8


SPLIT_WORDS = """
const split = [], texts = document.createTreeWalker(document.querySelector('main'), NodeFilter.SHOW_TEXT);
while (texts.nextNode()) {
  const text = texts.currentNode;
  if (!text.parentElement.checkVisibility() || text.parentElement.closest('pre, script, style, svg')) continue;
  for (const word of text.data.matchAll(/[\\p{L}\\p{N}]+/gu)) {
    const range = document.createRange();
    range.setStart(text, word.index); range.setEnd(text, word.index + word[0].length);
    const lines = new Set([...range.getClientRects()].filter((r) => r.width).map((r) => Math.round(r.top)));
    if (lines.size > 1) split.push(word[0]);
  }
}
return split;"""
TOO_WIDE = """return [...document.querySelectorAll('.board .scroll, .comparison .scroll')]
  .map((frame) => [frame.clientWidth, frame.firstElementChild.scrollWidth]).filter(([frame, table]) => table > frame)"""


@pytest.mark.parametrize("width", [390, 820, 1440])
def test_long_settings_fit_and_no_word_is_broken(page, wide_site, width):
    """Also in the comparison of rows; a board of graphs has values of four digits."""
    mtt, graphs = (board_of(wide_site, f"{name}*") for name in ("fashion_mnist--mtt-1000", "NCI1--hard"))
    ids = "return JSON.parse(document.getElementById('rows').textContent).rows.map((row) => row.compare.id)"
    found = page(mtt, width=width, site=wide_site).execute_script(ids)
    for name in (
        f"{mtt}#compare={'.'.join(found)}",
        graphs,
        "boards.html",
        "entries.html",
        "continual.html",
        "cross_arch.html",
    ):
        driver = page(name, width=width, site=wide_site)
        assert driver.execute_script(SPLIT_WORDS) == [], name
        assert driver.execute_script(TOO_WIDE) == [], name
    if width == 390:
        driver = page(mtt, width=width, site=wide_site)
        whiskers = "return [...document.querySelectorAll('.folded .whisker')].map((svg) => svg.clientWidth)"
        assert min(driver.execute_script(whiskers)) >= 120


def test_a_plot_on_a_phone_has_its_names_below(page, wide_site):
    driver = page(board_of(wide_site, "NCI1--hard-v1--*gin*"), width=390, site=wide_site)
    driver.execute_script("arguments[0].scrollIntoView()", driver.find_element(By.CSS_SELECTOR, ".plot"))
    WebDriverWait(driver, 20).until(lambda d: d.find_elements(By.CSS_SELECTOR, ".names svg path"))
    box = "const r = document.querySelector(arguments[0]).getBoundingClientRect(); return [r.top, r.bottom]"
    area, title, names = (
        driver.execute_script(box, s) for s in (".plot .nsewdrag", ".plot .xtitle", ".names")
    )
    assert area[1] - area[0] >= 220 and area[1] < title[0] and title[1] <= names[0]
    assert len(driver.find_elements(By.CSS_SELECTOR, ".names li")) == len(MANY)


LABELS = """return [...document.querySelectorAll('.curves svg')].map((svg) => [...svg.querySelectorAll('text.q')]
  .map((text) => text.getBoundingClientRect()).map((r) => [r.left, r.right, r.top + 2, r.bottom - 2]))"""


def test_labels_of_curves_do_not_overlap(page, small_site):
    driver = page("datasets/fashion_mnist.html", site=small_site)
    for boxes in driver.execute_script(LABELS):
        for i, a in enumerate(boxes):
            for b in boxes[:i]:
                assert a[1] <= b[0] or b[1] <= a[0] or a[3] <= b[2] or b[3] <= a[2]
    assert "random" in driver.find_element(By.CSS_SELECTOR, ".curves svg").text


@pytest.fixture(scope="module")
def axe():
    """The script of axe-core. It comes before `page`, which expects that a page is opened."""
    return (files(pytest.importorskip("axe_playwright_python")) / "axe.min.js").read_text()


@pytest.mark.parametrize("kind", KINDS_OF_PAGES)
def test_axe_finds_no_serious_fault(axe, page, small_site, kind):
    """The rules of axe-core, which include contrast AA, with all details shown; contrast also in dark mode."""
    path = min(small_site.glob(f"{kind}.html"))
    driver = page(path.relative_to(small_site).as_posix(), site=small_site)
    driver.execute_script(
        "for (const e of document.querySelectorAll('details')) e.open = true;"
        "for (const e of document.querySelectorAll('.tick input')) e.click();"
    )
    driver.execute_script(axe)
    for dark, rules in ((False, ""), (True, ", runOnly: ['color-contrast']")):
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})
        run = f"axe.run({{preload: false, resultTypes: ['violations']{rules}}}).then(arguments[0])"
        found = driver.execute_async_script(run)
        assert found["passes"], "axe checked nothing"
        faults = [
            (fault["id"], node["html"], node["failureSummary"])
            for fault in found["violations"] if fault["impact"] in ("serious", "critical")
            for node in fault["nodes"]
        ]  # fmt: skip
        assert faults == [], f"{path.name}, {'dark' if dark else 'light'}"
