"""Mirage: computation trees, their transactions, and frequent itemsets."""
