"""One architecture (family) a module; each a plain `Network`."""
