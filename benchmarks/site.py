"""The site of 10,000 entries, and that of one board of 2,000: seconds to build it, and until a page can be used.

    python benchmarks/site.py [ENTRIES [OF_ONE_BOARD]]

The entries are the committed ones over and over, each under a key of its own, with values moved by a little. The time
of a build is the median of three, each in a new folder; that of a page is from the navigation to the last line of its
script, in headless Chromium, the median of five.
"""

import json
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from dd_bench.leaderboards.core.entries import Track, entry_name, load_entries
from dd_bench.leaderboards.website.site import build_site
from dd_bench.runtime.files import content_key

HERE = Path(__file__).parent
BOARDS = HERE.parent / "leaderboards"


def many(count: int, folder: Path, *, one_board: bool = False) -> None:
    """Writes so many entries: of all boards, on six datasets for each, or of the largest board alone."""
    folder.mkdir()
    originals, draw = load_entries(BOARDS / "entries"), random.Random(0)
    if one_board:
        tracks = Counter(Track.of(r) for r in originals)
        originals = [r for r in originals if Track.of(r) == tracks.most_common(1)[0][0]]
    for i in range(count):
        old = originals[i % len(originals)]
        moved = [
            s.model_copy(update={"value": min(1.0, max(0.0, s.value + draw.gauss(0, 0.01)))})
            for s in old.scores
        ]
        changes = {
            "key": content_key([old.key, i]),
            "scores": moved,
            "dataset": old.dataset if one_board else f"{old.dataset}-{i // len(originals) % 6}",
        }
        new = old.model_copy(update=changes)
        (folder / entry_name(new)).write_text(new.text())


def usable(page: Path) -> float:
    """Returns the seconds until a page has run its script."""
    from selenium import webdriver
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service
    from selenium.webdriver.support.ui import WebDriverWait

    options = Options()
    options.binary_location = shutil.which("chromium") or "chromium"
    for word in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking"):
        options.add_argument(word)
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    took = []
    for _ in range(5):
        driver.get("about:blank")
        driver.get(page.as_uri())
        WebDriverWait(driver, 60).until(
            lambda d: d.execute_script("return document.documentElement.dataset.ready") == "yes"
        )
        took.append(
            driver.execute_script(
                "return performance.timing.loadEventEnd - performance.timing.navigationStart"
            )
        )
    driver.quit()
    return statistics.median(took) / 1000


def measured(count: int, *, one_board: bool) -> dict[str, float]:
    """Returns what the site of so many entries takes."""
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        many(count, root / "entries", one_board=one_board)
        built = []
        for i in range(3):
            began = time.monotonic()
            files = build_site(root / "entries", BOARDS / "published", BOARDS / "sets", root / f"site{i}")
            built.append(time.monotonic() - began)
        site = root / "site0"
        largest = max((site / "boards").iterdir(), key=lambda p: p.stat().st_size)
        return {
            "entries": count,
            "files": files,
            "build_seconds": round(statistics.median(built), 1),
            "slowest_build_seconds": round(max(built), 1),
            "every_entry_page_seconds": round(usable(site / "entries.html"), 2),
            "largest_board_seconds": round(usable(largest), 2),
            "largest_board_entries": largest.read_text().count('"href":"../entries/') // 2,
        }


def main() -> None:
    counts = [int(word) for word in sys.argv[1:]] + [10_000, 2_000][len(sys.argv) - 1 :]
    found = {
        "all_boards": measured(counts[0], one_board=False),
        "one_board": measured(counts[1], one_board=True),
    }
    print(json.dumps(found, indent=2))
    (HERE / "results" / "site.json").write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
