"""Publishing the site: the documentation below the leaderboard, GitHub Pages, and a static Space of Hugging Face."""

import importlib.util
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import SpaceCard

pytest.importorskip("plotly")

from dd_bench.leaderboards.cli import main

ROOT = Path(__file__).parents[2]
ONLINE = "https://dd-bench.github.io/dd_bench/"


def hooks():
    spec = importlib.util.spec_from_file_location("docs_hooks", ROOT / "docs" / "hooks.py")
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


@pytest.fixture
def site(record, put, tmp_path):
    entries = put(record("dm", 10, [[0.7, 0.72, 0.74]]), record("random", 10, [[0.5, 0.52, 0.54]]))
    words = ["--sets", str(tmp_path / "sets"), "--out", str(tmp_path / "site")]
    assert main(["build", "--site", "--docs", "docs/index.html", "--entries", str(entries), *words]) == 0
    return tmp_path / "site"


def test_leaderboard_and_documentation_link_to_each_other(site, monkeypatch):
    """In a folder, so also on a host with another address. Every page of the leaderboard has the link."""
    monkeypatch.setenv("BELOW_LEADERBOARD", "1")
    for url in ("", "leaderboard/site/"):
        link = f'<a href="{ONLINE}" class="md-nav__link">Open the leaderboard</a>'
        page = site / "docs" / url / "index.html"
        page.parent.mkdir(parents=True)
        page.write_text(hooks().on_post_page(link, SimpleNamespace(url=url), None))
        (target,) = re.findall('href="([^"]+)"', page.read_text())
        assert (page.parent / target).resolve() == (site / "index.html").resolve()
    pages = [page for page in site.rglob("*.html") if "docs" not in page.parts]
    assert len(pages) > 10
    for page in pages:
        (link,) = re.findall('<a href="([^"]+)">Documentation</a>', page.read_text())
        assert (page.parent / link).resolve() == (site / "docs" / "index.html").resolve()


def test_the_documentation_alone_links_to_the_online_leaderboard(monkeypatch):
    monkeypatch.delenv("BELOW_LEADERBOARD", raising=False)
    link = f'<a href="{ONLINE}">Open the leaderboard</a>'
    assert hooks().on_post_page(link, SimpleNamespace(url="a/"), None) == link
    text = (ROOT / "mkdocs.yml").read_text()
    assert f"Open the leaderboard: {ONLINE}\n" in text and f"site_url: {ONLINE}docs/\n" in text


def test_the_workflow_publishes_what_make_site_builds():
    workflow = (ROOT / ".github" / "workflows" / "docs.yml").read_text()
    assert "- run: make site\n" in workflow and "path: build/site\n" in workflow
    recipe = re.search(r"^site: .*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)[1]
    assert "leaderboard build --site --docs docs/index.html --out build/site\n" in recipe
    assert "BELOW_LEADERBOARD=1" in recipe and "--site-dir build/site/docs\n" in recipe


def test_the_site_is_a_static_space(site):
    """Its README.md is the card. The Hub shows at most 60 characters of the description."""
    card = SpaceCard((site / "README.md").read_text())
    assert card.data.sdk == "static" and card.data.title and len(card.data.short_description) <= 60
    assert (site / card.data.app_file).is_file() and "leaderboard" in card.data.tags


def test_the_link_requires_the_site(capsys):
    with pytest.raises(SystemExit):
        main(["build", "--docs", "docs/index.html"])
    assert "--docs requires --site" in capsys.readouterr().err
