"""Build the site: static pages that work on a web server and from a local folder.

    index.html  ranks.html  boards.html  methods.html  entries.html  sets.html  cross_arch.html  continual.html
    published.html
    boards/<track>.html  datasets/<name>.html  methods/<name>.html  published/<dataset>.html
    entries/<digest>.html, .json
    views/<dataset>.js, views/front/<dataset>.js (boards that a page shows when they are chosen)
    data/  sets/  pictures/ (of sets of nodes)  site.css  site.js  matrix.js  compare.js  plotly.min.js
    README.md (the card of a static Space of Hugging Face)

The output is deterministic. The address of an entry's page changes only if the entry changes.
"""

from __future__ import annotations

import gc
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

from dd_bench.hub.urls import folder_url

from ..core.entries import load_entries
from ..core.published import load_published
from .pages import TEMPLATES, Pages
from .stylesheet import stylesheet

SCRIPTS = ("site.js", "matrix.js", "compare.js")
MARKER = ".dd_bench-site"
"""File that lists the files of a build. The next build removes only these."""


@contextmanager
def _uncollected() -> Iterator[None]:
    """Disable the garbage collector, which takes a third of the time if there are ten thousand entries."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@_uncollected()
def build_site(
    entries_dir: Path,
    published_dir: Path,
    sets_dir: Path,
    out: Path,
    sets_at: str | None = None,
    docs: str | None = None,
) -> int:
    """Write the site to `out` and return the number of files. If an error occurs, the old site is unchanged.

    Files of an earlier build are replaced, and other files in `out` are not touched.

    Args:
        entries_dir: folder of entries.
        published_dir: folder of published numbers.
        sets_dir: folder of sets, which are copied to the site.
        out: folder of the site.
        sets_at: URL of the folder to which these sets were pushed; the site then has only their pictures.
        docs: address of the documentation relative to `out`, to which every page links; None for no link.

    Raises:
        ImportError: plotly is not installed.
        ValueError: an entry or a file of published numbers is invalid, or `sets_at` is not the URL of a folder.
        FileExistsError: `out` has files, but was not written by an earlier build.
    """
    try:
        plotly = import_module("plotly.offline").get_plotlyjs()
    except ImportError as error:
        raise ImportError("the site requires plotly. Install it: pip install 'dd-bench[site]'") from error
    sets_at = None if sets_at is None else folder_url(sets_at)
    old = _written_before(out)
    entries, published = load_entries(entries_dir), load_published(published_dir)
    out.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
    try:
        pages = Pages(scratch, entries, published, verified=entries_dir.parent / "verified", docs=docs)
        pages.copy_sets(sets_dir, sets_at)
        pages.write()
        (scratch / "site.css").write_text(stylesheet())
        for name in SCRIPTS:
            shutil.copy(TEMPLATES / name, scratch / name)
        shutil.copy(TEMPLATES / "space.md", scratch / "README.md")
        (scratch / "plotly.min.js").write_text(plotly)
        files = sorted(str(p.relative_to(scratch)) for p in scratch.rglob("*") if p.is_file())
        (scratch / MARKER).write_text("\n".join(files) + "\n")
        scratch.chmod(0o755)
        _replace(out, scratch, old)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    return len(files)


def _written_before(out: Path) -> list[str] | None:
    """Return the files of the build at `out`; None if `out` is missing or empty.

    Raises:
        FileExistsError: `out` has files, but was not written by an earlier build.
    """
    if not out.exists() or not any(out.iterdir()):
        return None
    if not (out / MARKER).is_file():
        raise FileExistsError(
            f"{out} is not empty and was not written by this command. Use another folder: --out FOLDER"
        )
    return [MARKER, *(out / MARKER).read_text().splitlines()]


def _replace(out: Path, scratch: Path, old: list[str] | None) -> None:
    """Replace the old build by the new one, and leave other files (.git, CNAME) unchanged."""
    if old is None:
        if out.exists():
            out.rmdir()
        scratch.replace(out)
        return
    for name in old:
        if not Path(name).is_absolute() and ".." not in Path(name).parts:
            (out / name).unlink(missing_ok=True)
    for path in sorted(scratch.rglob("*")):
        to = out / path.relative_to(scratch)
        to.mkdir(exist_ok=True) if path.is_dir() else path.replace(to)
    shutil.rmtree(scratch)
