"""Leaderboards: tables and a website from `entries/` and `published/`, deterministic and without torch."""
