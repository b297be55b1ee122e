"""The site of 10,000 entries: seconds to build it, and until its largest page can be used in a browser.

    python benchmarks/site.py [ENTRIES]

The entries are the committed ones over and over, each under a key of its own, with values moved by a little. The time
of a page is from the navigation to the last line of its script, in headless Chromium, the median of five.
"""

import json
import random
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

from dd_bench.leaderboards.entries import entry_name, load_entries
from dd_bench.leaderboards.site import build_site
from dd_bench.record import content_key

HERE = Path(__file__).parent
BOARDS = HERE.parent / "leaderboards"


def many(count: int, folder: Path) -> None:
    """Writes so many entries."""
    folder.mkdir()
    originals, draw = load_entries(BOARDS / "entries"), random.Random(0)
    for i in range(count):
        old = originals[i % len(originals)]
        moved = [
            s.model_copy(update={"value": min(1.0, max(0.0, s.value + draw.gauss(0, 0.01)))})
            for s in old.scores
        ]
        changes = {
            "key": content_key([old.key, i]),
            "scores": moved,
            "dataset": f"{old.dataset}-{i // 165 % 6}",
        }
        new = old.model_copy(update=changes)
        (folder / entry_name(new)).write_text(new.text())


def usable(page: Path) -> float:
    """Returns the seconds until a page has run its script."""
    from selenium import webdriver
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    options = Options()
    options.binary_location = shutil.which("chromium") or "chromium"
    for word in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking"):
        options.add_argument(word)
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    took = []
    for _ in range(5):
        driver.get("about:blank")
        driver.get(page.as_uri())
        assert driver.execute_script("return document.documentElement.dataset.ready") == "yes"
        took.append(
            driver.execute_script(
                "return performance.timing.loadEventEnd - performance.timing.navigationStart"
            )
        )
    driver.quit()
    return statistics.median(took) / 1000


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        many(count, root / "entries")
        began = time.monotonic()
        files = build_site(root / "entries", BOARDS / "published", BOARDS / "sets", root / "site")
        built = time.monotonic() - began
        largest = max((root / "site" / "boards").iterdir(), key=lambda p: p.stat().st_size)
        found = {
            "entries": count,
            "files": files,
            "build_seconds": round(built, 1),
            "every_entry_page_seconds": round(usable(root / "site" / "entries.html"), 2),
            "largest_board_seconds": round(usable(largest), 2),
            "largest_board_entries": largest.read_text().count('"href":"../entries/') // 2,
        }
    print(json.dumps(found, indent=2))
    (HERE / "results" / "site.json").write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
