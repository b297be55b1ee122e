"""The style sheet of the site: `templates/site.css`, and the rules that follow from families and places."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ..render.place_marks import PLACE_MARKS
from ..render.plot_style import FAMILY_COLOURS

SHEET = Path(__file__).parent / "templates" / "site.css"


def stylesheet() -> str:
    """Return the style sheet."""
    return SHEET.read_text() + "\n" + "\n".join(_rules()) + "\n"


def _rules() -> Iterator[str]:
    """Yield the colours of families in light and dark mode, and the signs of places."""
    light, dark = (
        " ".join(f"--f-{family}: {pair[mode]};" for family, pair in FAMILY_COLOURS.items()) for mode in (0, 1)
    )
    yield f":root {{ {light} }}"
    yield f"@media (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}"
    for family in FAMILY_COLOURS:
        yield f".f-{family}, .c.{family} {{ --f: var(--f-{family}); }}"
    for place, mark in PLACE_MARKS.items():
        if mark.sign:
            yield f'.{place}::after {{ content: " {mark.sign}"; }}'
