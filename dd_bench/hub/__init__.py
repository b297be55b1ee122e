"""Synthetic sets from elsewhere and for elsewhere: push, pull, import, export."""
