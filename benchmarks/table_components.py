"""The table of the site against Tabulator and DataTables: bytes of the component, and time until a table can be used.

    pip download --no-deps panel itables      # their wheels contain the components
    python benchmarks/table_components.py FOLDER

`FOLDER` has tabulator.min.js and tabulator.min.css (in panel) and dt_bundle.js and dt_bundle.css (in itables). Each
component shows all entries of the leaderboard, repeated five times, in parts of 100 rows, with links and sorting. The
page is opened from a local folder in headless Chromium at 1280 pixels. Times are medians of nine loads, the three
components in turn: first contentful paint, and the time until the script has drawn the table.
"""

import gzip
import json
import re
import shutil
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.support.ui import WebDriverWait

from dd_bench.leaderboards.website.site import build_site
from dd_bench.leaderboards.website.table_data import unpacked

HERE = Path(__file__).parent
BOARDS = HERE.parent / "leaderboards"
REPEATS, LOADS = 5, 9
FILES = {
    "site": ("site.js", "site.css"),
    "tabulator": ("tabulator.min.js", "tabulator.min.css"),
    "datatables": ("dt_bundle.js", "dt_bundle.css"),
}
START = {
    "tabulator": """
const shown = (v) => (!v || typeof v !== "object" ? v : v.href ? `<a href="${v.href}">${v.text}</a>` : v.text);
const key = (v) => (v && typeof v === "object" ? v.sort ?? v.text : v);
const table = new Tabulator("#table", {
  data: rows.map((row) => Object.fromEntries(columns.map((c, i) => [c.id, row.cells[i]]))),
  columns: columns.map((c) => ({
    title: c.label, field: c.id, formatter: (cell) => shown(cell.getValue()),
    sorter: (a, b) => (key(a) > key(b)) - (key(a) < key(b)),
  })),
  pagination: true, paginationSize: 100,
});
table.on("tableBuilt", () => { document.documentElement.dataset.ready = "yes"; });""",
    "datatables": """
const shown = (v) => (!v || typeof v !== "object" ? v : v.href ? `<a href="${v.href}">${v.text}</a>` : v.text);
const key = (v) => (v && typeof v === "object" ? v.sort ?? v.text : v);
new DataTable("#table", {
  data: rows.map((row) => row.cells),
  columns: columns.map((c) => ({ title: c.label, render: (v, kind) => (kind === "display" ? shown(v) : key(v)) })),
  pageLength: 100, order: [],
  initComplete: () => { document.documentElement.dataset.ready = "yes"; },
});""",
}


def write_pages(folder: Path, components: Path) -> None:
    """Write one page for each component with the same rows."""
    site = folder / "out"
    build_site(BOARDS / "entries", BOARDS / "published", folder / "no_sets", site)
    page = (site / "entries.html").read_text()
    match = re.search('<script type="application/json" id="rows">(.*?)</script>', page, re.DOTALL)
    assert match
    data = json.loads(match[1])
    data["rows"] = data["rows"] * REPEATS
    text = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
    (folder / "site.html").write_text(
        page.replace(match[1], text).replace('href="site.css"', 'href="out/site.css"')
    )
    for name in FILES["site"]:
        shutil.copy(site / name, folder / name)
    for name in FILES["tabulator"] + FILES["datatables"]:
        shutil.copy(components / name, folder / name)
    # The bundle is a module, which browsers do not load from a folder: it becomes a script with a global name.
    bundle = folder / "dt_bundle.js"
    bundle.write_text(
        "(() => {"
        + re.sub(
            r"export\{.*?(\w+) as default.*?\};?", r"window.DataTable=\1;})();", bundle.read_text(), count=1
        )
    )
    plain = json.dumps(unpacked(data), separators=(",", ":")).replace("<", "\\u003c")
    for name, start in START.items():
        script, style = FILES[name]
        (folder / f"{name}.html").write_text(
            f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{name}</title>'
            f'<link rel="stylesheet" href="{style}"></head><body><h1>All entries</h1><table id="table"></table>'
            f'<script type="application/json" id="rows">{plain}</script><script src="{script}"></script>'
            f'<script>const {{ columns, rows }} = JSON.parse(document.getElementById("rows").textContent);{start}'
            "</script></body></html>"
        )


def loads(driver: Any, page: Path) -> tuple[float, float]:
    """Return the milliseconds of the first contentful paint, and until the table is drawn."""
    driver.get("about:blank")
    driver.get(page.as_uri())
    ready = "return document.documentElement.dataset.ready === 'yes'"
    WebDriverWait(driver, 60).until(lambda d: d.execute_script(ready))
    painted = "return performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
    WebDriverWait(driver, 60).until(lambda d: d.execute_script(painted))
    return driver.execute_script(painted), driver.execute_script(
        "return performance.timing.loadEventEnd - performance.timing.navigationStart"
    )


def main() -> None:
    options = Options()
    options.binary_location = shutil.which("chromium") or "chromium"
    for word in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1280,900"):
        options.add_argument(word)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_pages(folder, Path(sys.argv[1]))
        driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in FILES}
        for _ in range(LOADS):
            for name in FILES:
                times[name].append(loads(driver, folder / f"{name}.html"))
        driver.quit()
        found = {}
        for name, files in FILES.items():
            contents = [(folder / file).read_bytes() for file in files]
            paint, ready = (statistics.median(column) for column in zip(*times[name], strict=True))
            found[name] = {
                "bytes": sum(map(len, contents)),
                "compressed_bytes": sum(len(gzip.compress(c, mtime=0)) for c in contents),
                "first_paint_ms": round(paint),
                "loaded_ms": round(ready),
            }
    rows = len(list((BOARDS / "entries").glob("*/*.json"))) * REPEATS
    result = {"rows": rows, "components": found}
    print(json.dumps(result, indent=2))
    (HERE / "results" / "table_components.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
