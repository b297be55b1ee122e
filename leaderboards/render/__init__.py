"""Boards as Markdown, CSV, LaTeX and plots."""
