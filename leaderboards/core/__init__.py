"""Entries, boards, ranks and published numbers, independent of any markup."""
