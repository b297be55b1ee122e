"""Hooks of mkdocs: links out of `docs/` and to the leaderboard, and the pages of the reference.

Pages link to files of the repository by relative path (`../../methods/dm.py`), so the links also work on GitHub. In the
built site they lead to GitHub, and pictures are copied into the site. A file that does not exist is a warning, which
`mkdocs build --strict` turns into an error.

`make site` builds the documentation into the folder `docs` of the leaderboard's site. With BELOW_LEADERBOARD=1, links
to the leaderboard are relative, so they work in a local folder and on every host.
"""

from __future__ import annotations

import ast
import logging
import os
import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mkdocs.structure.files import Files

ROOT = Path(__file__).resolve().parents[1]
PICTURES = (".png", ".svg")
LEADERBOARD = "https://dd-bench.github.io/dd_bench/"
_LINK = re.compile(r"(\]\()((?!\w+:|#|/)[^)\s#]+)(#[^)\s]*)?(\))")
_HTML = re.compile(r'((?:src|href)=")((?:\.\./)+[^"#]+)(#[^"]*)?(")')
_log = logging.getLogger("mkdocs.hooks.links")

PACKAGES = (
    ("data", "Data", "dd_bench"),
    ("models", "Networks", "dd_bench"),
    ("synthetic", "Synthetic sets", "dd_bench"),
    ("training", "Training", "dd_bench"),
    ("teachers", "Teachers", "dd_bench"),
    ("distillation", "Tools of methods", "dd_bench"),
    ("evaluation", "Fresh networks", "dd_bench"),
    ("records", "Records", "dd_bench"),
    ("runtime", "Runtime", "dd_bench"),
    ("pipeline", "Pipeline", "dd_bench"),
    ("hub", "Sharing sets", "dd_bench"),
    ("methods", "Methods", ""),
    ("evaluators", "Evaluators", ""),
)
"""Packages with a page of the reference: folder, title, parent."""


def on_files(files: Files, config: Any) -> Files:
    """Add the pages of the reference, and the pictures outside `docs/` that pages show."""
    from mkdocs.structure.files import File

    for folder, title, parent in PACKAGES:
        name = f"reference/{folder}.md"
        files.append(File.generated(config, name, content=_reference(ROOT / parent / folder, title)))
    pictures = set()
    for file in files.documentation_pages():
        for _, _, target in _outside(file.content_string, file.src_uri):
            if target and target.endswith(PICTURES) and (ROOT / target).is_file():
                pictures.add(target)
    for target in sorted(pictures):
        files.append(File.generated(config, f"pictures/{target}", abs_src_path=str(ROOT / target)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Rewrite the links of a page that leave `docs/`."""
    here = page.file.src_uri
    for old, new, target in _outside(markdown, here):
        if not (ROOT / target).exists():
            _log.warning("%s links to %s, which is not in the repository", here, target)
            continue
        if target.endswith(PICTURES):
            address = posixpath.relpath(f"pictures/{target}", posixpath.dirname(here) or ".")
        else:
            kind = "tree" if (ROOT / target).is_dir() else "blob"
            address = f"{config.repo_url}/{kind}/main/{target}"
        markdown = markdown.replace(old, new.replace("{}", address))
    return markdown


def on_post_page(output: str, page: Any, config: Any) -> str:
    """Make the links of a page to the leaderboard relative, if the leaderboard is above the documentation."""
    if not os.environ.get("BELOW_LEADERBOARD"):
        return output
    up = "../" * (page.url.count("/") + 1)
    return output.replace(f'href="{LEADERBOARD}"', f'href="{up}index.html"')


def _outside(markdown: str, here: str) -> list[tuple[str, str, str]]:
    """Return the links of a page to what is no page: the text, the same with `{}` as address, and the target."""
    found = []
    for pattern in (_LINK, _HTML):
        for match in pattern.finditer(markdown):
            path = posixpath.normpath(posixpath.join("docs", posixpath.dirname(here), match[2]))
            if not path.startswith("docs/") or "/example_plugin" in path or path.endswith((".py", ".in")):
                found.append((match[0], f"{match[1]}{{}}{match[3] or ''}{match[4]}", path))
    return found


def _reference(package: Path, title: str) -> str:
    """Return a page of the reference: the modules of a package that define something public."""
    lines = [f"# {title}", "", _docstring(package / "__init__.py"), ""]
    for path in sorted(package.glob("*.py")):
        if path.name.startswith("_") or not _public(path):
            continue
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        lines += [f"::: {module}", "    options:", "      show_root_toc_entry: true", ""]
    return "\n".join(lines)


def _docstring(path: Path) -> str:
    return ast.get_docstring(ast.parse(path.read_text())) or ""


def _public(path: Path) -> bool:
    nodes = ast.parse(path.read_text()).body
    return any(isinstance(n, (ast.ClassDef, ast.FunctionDef)) and not n.name.startswith("_") for n in nodes)
