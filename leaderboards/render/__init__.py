"""Boards as Markdown, CSV, LaTeX and drawings."""
