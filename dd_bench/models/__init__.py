"""Network architectures, one family per module; each is a `Network`."""
