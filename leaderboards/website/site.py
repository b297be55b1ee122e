"""The site: boards, entries, drawings and files as static pages that need no server, also from a folder on a disk.

    index.html  entries.html  sets.html  cross_arch.html  continual.html  published.html
    boards/<track>.html   entries/<digest>.html, .json   data/   sets/   site.css  site.js  plotly.min.js

The same entries give the same bytes. A page of an entry keeps its address for as long as the entry is not changed.
"""

from __future__ import annotations

import gc
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

from dd_bench.hub.remote import folder_url

from ..core.entries import load_entries
from ..core.published import load_published
from .pages import TEMPLATES, Pages

MARKER = ".dd_bench-site"
"""File that lists what a build wrote: the next one removes that and nothing else."""


@contextmanager
def _uncollected() -> Iterator[None]:
    """Leaves garbage alone: a collection looks through all entries, in a build of ten thousand a third of its time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@_uncollected()
def build_site(
    entries_dir: Path, published_dir: Path, sets_dir: Path, out: Path, sets_at: str | None = None
) -> int:
    """Writes the site to `out` and returns the number of files; where an entry is refused, the old site stays.

    What an earlier build wrote is replaced, and what others put beside it stays; another folder is left alone.

    Args:
        entries_dir: folder of entries.
        published_dir: folder of papers' numbers.
        sets_dir: folder of sets, which become part of the site.
        out: folder of the site.
        sets_at: URL of a folder where these sets were pushed; the site then has their pictures alone.

    Raises:
        ImportError: plotly is not installed.
        ValueError: an entry or a file of published numbers is refused; `sets_at` is no URL of a folder.
        FileExistsError: `out` holds something else.
    """
    try:
        plotly = import_module("plotly.offline").get_plotlyjs()
    except ImportError as error:
        raise ImportError("the site needs plotly. Use: pip install 'dd-bench[site]'") from error
    sets_at = None if sets_at is None else folder_url(sets_at)
    old = _written_before(out)
    entries, published = load_entries(entries_dir), load_published(published_dir)
    out.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
    try:
        pages = Pages(scratch, entries, published, verified=entries_dir.parent / "verified")
        pages.offer(sets_dir, sets_at)
        pages.write()
        for name in ("site.css", "site.js"):
            shutil.copy(TEMPLATES / name, scratch / name)
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
    """Returns the files of the build that is at `out`, None if nothing is there.

    Raises:
        FileExistsError: there is something that no build wrote.
    """
    if not out.exists() or not any(out.iterdir()):
        return None
    if not (out / MARKER).is_file():
        raise FileExistsError(f"{out} holds something else. Use another --out")
    return [MARKER, *(out / MARKER).read_text().splitlines()]


def _replace(out: Path, scratch: Path, old: list[str] | None) -> None:
    """Puts the new build where the old one is; what others have put beside it (.git, CNAME) stays."""
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
