"""Boards, entries and sets as static pages."""
