"""Checks of records and sets before they become entries, and retraining of entries."""
