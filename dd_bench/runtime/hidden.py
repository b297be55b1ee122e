"""Names of files and folders that operating systems, file servers and tools add to folders of data."""

from __future__ import annotations

SYSTEM_NAMES = frozenset(
    {
        "__macosx",  # ZIP files of macOS
        "__pycache__",
        "@eadir",  # thumbnails of Synology
        "@recycle",
        "#recycle",
        "#snapshot",
        "@tmp",
        "$recycle.bin",
        "recycler",
        "system volume information",
        "lost+found",
        "network trash folder",
        "temporary items",
        "thumbs.db",
        "ehthumbs.db",
        "desktop.ini",
    }
)
"""Names in lower case. File systems of Windows and macOS ignore the case, and write e.g. `$Recycle.Bin`."""


def is_hidden(name: str) -> bool:
    """Return whether a file or folder is no part of the data, such as `.ipynb_checkpoints`, `._0.png`, `__MACOSX`."""
    return name.startswith(".") or name.lower() in SYSTEM_NAMES
