"""One run: compose the configuration, distil, evaluate, write the record."""
