"""Mirage: computation trees, transactions and frequent itemsets."""
