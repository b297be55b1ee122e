"""Entries, boards, ranks, published numbers: data without markup."""
