"""Records in, tables out: a pure function of `entries/` and `published/`, without torch."""
