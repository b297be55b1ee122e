"""The site of 10,000 entries, and of one leaderboard with 2,000: time to build it and to load a page.

    python benchmarks/site.py [ENTRIES [OF_ONE_BOARD]]

The entries are repetitions of the committed ones, each with its own key and slightly changed values. The build time is
the median of three builds, each in a new folder. The load time of a page is the median of five, in headless Chromium,
from navigation until its script has finished. The first paint is when the browser shows the first part of a page; the
median of five is given for the slowest of the front page, the largest board and the page of every entry. Its budget is
one second.
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
FINISHED = "return document.readyState === 'complete' && performance.getEntriesByType('paint').length > 0"
FIRST_PAINT = "return performance.getEntriesByType('paint')[0].startTime"


def write_entries(count: int, folder: Path, *, one_board: bool = False) -> None:
    """Write `count` entries, of all boards with six datasets each, or only of the largest board."""
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


def load_seconds(page: Path) -> tuple[float, float]:
    """Return the seconds until the script of a page has finished, and until the first paint."""
    from selenium import webdriver
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service
    from selenium.webdriver.support.ui import WebDriverWait

    options = Options()
    options.binary_location = shutil.which("chromium") or "chromium"
    for word in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking"):
        options.add_argument(word)
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    took, paints = [], []
    for _ in range(5):
        driver.get("about:blank")
        driver.get(page.as_uri())
        WebDriverWait(driver, 60).until(lambda d: d.execute_script(FINISHED))
        took.append(
            driver.execute_script(
                "return performance.timing.loadEventEnd - performance.timing.navigationStart"
            )
        )
        paints.append(driver.execute_script(FIRST_PAINT))
    driver.quit()
    return statistics.median(took) / 1000, statistics.median(paints) / 1000


def measure(count: int, *, one_board: bool) -> dict[str, float]:
    """Build the site of `count` entries, and return its times and sizes."""
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        write_entries(count, root / "entries", one_board=one_board)
        built = []
        for i in range(3):
            began = time.monotonic()
            files = build_site(root / "entries", BOARDS / "published", BOARDS / "sets", root / f"site{i}")
            built.append(time.monotonic() - began)
        site = root / "site0"
        largest = max((site / "boards").iterdir(), key=lambda p: p.stat().st_size)
        every_entry, every_entry_paint = load_seconds(site / "entries.html")
        board, board_paint = load_seconds(largest)
        _, front_paint = load_seconds(site / "index.html")
        return {
            "entries": count,
            "files": files,
            "build_seconds": round(statistics.median(built), 1),
            "slowest_build_seconds": round(max(built), 1),
            "every_entry_page_seconds": round(every_entry, 2),
            "largest_board_seconds": round(board, 2),
            "first_paint_seconds": round(max(every_entry_paint, board_paint, front_paint), 2),
            "largest_board_entries": largest.read_text().count('"href":"../entries/') // 2,
        }


def main() -> None:
    counts = [int(word) for word in sys.argv[1:]] + [10_000, 2_000][len(sys.argv) - 1 :]
    found = {
        "all_boards": measure(counts[0], one_board=False),
        "one_board": measure(counts[1], one_board=True),
    }
    print(json.dumps(found, indent=2))
    (HERE / "results" / "site.json").write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
