"""Export a synthetic set as a release folder: a dataset repository for the Hugging Face Hub.

README.md            dataset card: configuration of `datasets`, scores, licence, BibTeX
data/train.parquet   one row per training image, see `parquet`; missing for graphs
set/                 the set itself, for `dd_bench.load` and `dd-bench pull`
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from dd_bench.hub.hub import SET, TRAIN
from dd_bench.hub.parquet import parquet_bytes
from dd_bench.hub.release_card import release_card
from dd_bench.hub.training_images import Exported, TrainingImages
from dd_bench.records.record import Record, load_record
from dd_bench.runtime.cache import publish
from dd_bench.synthetic import storage
from dd_bench.synthetic.base import SyntheticImages
from dd_bench.synthetic.card import CARD, PROVENANCE, README, has_provenance


def release(folder: Path, to: Path, records: Iterable[Path] = (), *, lossless: bool = True) -> Exported:
    """Write the release folder `to` of the set in `folder`.

    Args:
        folder: folder of the set.
        to: folder to create.
        records: record files, and folders of them. Records of other sets are ignored.
        lossless: whether the Parquet file has the network inputs, see `parquet`.

    Raises:
        ImportError: `datasets` is not installed.
        ValueError: the set or a record is damaged.
        FileExistsError: `to` exists.
    """
    syn, card = storage.load(folder)
    digest = storage.digest(folder)
    images = TrainingImages.of(syn) if isinstance(syn, SyntheticImages) else None
    text = release_card(syn, card, digest, records_of(digest, records), images, lossless=lossless)
    data = None if images is None else parquet_bytes(images, lossless=lossless)

    def fill(scratch: Path) -> None:
        (scratch / README).write_text(text, encoding="utf-8")
        if data is not None:
            (scratch / TRAIN).parent.mkdir()
            (scratch / TRAIN).write_bytes(data)
        (scratch / SET).mkdir()
        for name in (*card.sha256, CARD, *([PROVENANCE] if has_provenance(folder) else [])):
            shutil.copyfile(folder / name, scratch / SET / name)

    publish(to, fill)
    if images is None:
        return Exported(to, len(syn.labels), 0.0, True)
    return images.exported(to, with_inputs=lossless)


def nearby_records(folder: Path) -> list[Path]:
    """Return the folders that usually contain the records of a set, if they exist.

    They are `runs/records` for `runs/sets/NAME`, and `entries/DATASET` for `sets/DATASET/NAME`.
    """
    parent = folder.resolve().parent
    candidates = (parent.parent / "records", parent.parent.parent / "entries" / parent.name)
    return [path for path in candidates if path.is_dir()]


def records_of(digest: str, records: Iterable[Path]) -> list[Record]:
    """Return the finished records of the set with this digest on test data, from files and from folders of files.

    They are sorted by evaluator, protocol and network.

    Raises:
        ValueError: a file that contains the digest is not a valid record.
    """
    files = [f for path in records for f in (sorted(path.glob("*.json")) if path.is_dir() else [path])]
    found = {}
    for file in files:
        if digest.encode() in file.read_bytes():  # parsing every record of a leaderboard takes seconds
            record = load_record(file)
            if digest in record.set_digests and record.status == "done" and record.split == "test":
                found[record.digest] = record
    return sorted(found.values(), key=lambda r: (r.evaluator, r.protocol.name, r.model, r.digest))
