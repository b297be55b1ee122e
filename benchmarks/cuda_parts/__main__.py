"""Run one part in its own process, and append each row to a file: `python -m cuda_parts NAME [--rehearse] FILE`."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from pathlib import Path

from cuda_parts.card import CARD, REHEARSAL

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("--rehearse", action="store_true")
    parser.add_argument("file", type=Path)
    args = parser.parse_args()
    module = importlib.import_module(f"cuda_parts.{args.name}")
    with args.file.open("a", buffering=1) as file:  # each line is written at once
        for row in module.rows(REHEARSAL if args.rehearse else CARD):
            file.write(json.dumps(row) + "\n")
    sys.exit(0)
