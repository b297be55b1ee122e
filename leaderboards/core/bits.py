"""The bits that a set stores: images or codes, parameters, soft labels, compensators, teacher labels and transforms.

Hard labels take no bits: a set has the same number of images of each class, so they can be stored class by class.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from dd_bench.records.config_diff import STORED
from dd_bench.records.intervals import Difference
from dd_bench.records.record import Record
from dd_bench.runtime.files import canonical

from .budget import Budgets, needed
from .differences import difference, is_paired
from .entries import REFERENCE, Track, has_stored_precision

MIN_NETWORKS = 10
"""Smallest number of paired networks for the statement that a precision loses nothing."""
MAX_LOSS = 0.01
"""A precision loses nothing only if the interval of the difference excludes a loss of this size, one point."""
_ENTROPY = "entropy bits"
_FILES = ("zstd bytes", "PNG bytes", "WebP bytes")


def bits_by_part(record: Record) -> dict[str, int]:
    """Return the bits of one set of a record by part. Hard labels have no part."""
    return {name: 8 * size for name, size in needed(record.stored_bytes, record.label_mode).items()}


def stored_bits(record: Record) -> int:
    """Return the bits of one set of a record, without compression."""
    return sum(bits_by_part(record).values())


def entropy_bits(record: Record) -> int | None:
    """Return the bits with the order-0 entropy of the codes in place of the codes; None for sets without codes."""
    return None if _ENTROPY not in record.sizes else _without_codes(record) + record.sizes[_ENTROPY]


def file_bits(record: Record) -> int | None:
    """Return the bits with the smallest file of codes in place of the codes (Zstandard, PNG or WebP); None without."""
    sizes = [8 * record.sizes[name] for name in _FILES if name in record.sizes]
    return _without_codes(record) + min(sizes) if sizes else None


def _without_codes(record: Record) -> int:
    return sum(bits for name, bits in bits_by_part(record).items() if name != "codes")


def precision_of(record: Record, known: Budgets) -> str:
    """Return the precision of the images: the chosen one, or `float32` or `8 bits`, by the size of random images."""
    if has_stored_precision(record):
        return str(record.config[STORED].get("precision"))
    one, images = known.get((record.real_digest, 0), {}).get("images"), record.stored_bytes.get("images")
    if not one or not images:
        return "as distilled"
    return {1: "8 bits", 2: "float16", 4: "float32"}.get(round(images / (one * record.ipc)), "as distilled")


class Precision(NamedTuple):
    """A record of a quantised set, and its difference from the set that it was made from."""

    record: Record
    difference: Difference | None  # None: the other set is not measured on the same track
    paired: bool

    @property
    def is_measured(self) -> bool:
        """Whether there are at least `MIN_NETWORKS` pairs of networks."""
        return self.difference is not None and self.paired and self.difference.n >= MIN_NETWORKS

    @property
    def loses_nothing(self) -> bool:
        """Whether enough pairs of networks show no loss, and exclude one of `MAX_LOSS`: see `verdict`."""
        return self.verdict == "yes"

    @property
    def verdict(self) -> str:
        """Whether the precision loses nothing, by the 95 % interval of the difference.

        `no`: the interval is below 0. `yes`: it is not, and it is above -`MAX_LOSS`. `not shown`: it contains 0 and
        -`MAX_LOSS`, so a loss is neither shown nor excluded. Empty: there are too few pairs of networks.
        """
        if self.difference is None or not self.is_measured:
            return ""
        if self.difference.high < 0:
            return "no"
        return "yes" if self.difference.low > -MAX_LOSS else "not shown"


def precisions(records: Sequence[Record]) -> list[tuple[Record | None, list[Precision]]]:
    """Return the sets of one track that have versions with another precision, and these, from many to few bits.

    The set of a version is the one that was quantised or, for `method.store` and `method.bits`, the set of the same
    method, seed and settings without them. It is None if it has no record. Of several records of a set, the one with
    the most networks is used.
    """
    plain = sorted(
        (
            r
            for r in records
            if not has_stored_precision(r) and r.status == "done" and len(r.set_digests) == 1
        ),
        key=lambda r: (r.summary().num_networks, r.created, r.key),
    )
    of_set = {r.set_digests[0]: r for r in plain}
    of_settings = {_settings(r): r for r in plain}
    groups: dict[str, tuple[Record | None, list[Record]]] = {}
    for record in records:
        if has_stored_precision(record) and record.status == "done":
            digest = record.config[STORED].get("from")
            original = of_set.get(digest) if digest else of_settings.get(_settings(record))
            groups.setdefault(original.key if original else _settings(record), (original, []))[1].append(
                record
            )
    found = [
        (original, [_version(r, original) for r in sorted(group, key=lambda r: (-stored_bits(r), r.key))])
        for original, group in groups.values()
    ]
    return sorted(found, key=lambda pair: (_first(pair).method, _first(pair).ipc, _first(pair).key))


def _settings(record: Record) -> str:
    """Return what determines a set in full precision, as text: method, IPC, seed, dataset, network and base set."""
    config = record.config
    method = {k: v for k, v in config.get("method", {}).items() if k not in ("store", "bits")}
    others = [config.get(key) for key in ("base", "dataset", "model")]
    return canonical([record.method, record.ipc, record.seeds, method, *others])


def _version(record: Record, original: Record | None) -> Precision:
    if original is None or min(len(record.sample()), len(original.sample())) < 2:
        return Precision(record, None, False)
    return Precision(record, difference(record, original), is_paired(record, original))


def _first(pair: tuple[Record | None, list[Precision]]) -> Record:
    return pair[0] or pair[1][0].record


def fewest_lossless(versions: Sequence[Precision]) -> Precision | None:
    """Return the version with the fewest bits that loses nothing, as do all versions of its kind with more bits.

    Versions are of one kind if they have the same ranges (`per`, `patch`, `groups`) and the same `clip`.
    """
    kept = []
    for version in versions:
        kind, bits = _kind(version.record), version.record.config[STORED].get("bits", 0)
        finer = [
            v for v in versions if _kind(v.record) == kind and v.record.config[STORED].get("bits", 0) >= bits
        ]
        if all(v.loses_nothing for v in finer):
            kept.append(version)
    return min(kept, key=lambda v: (stored_bits(v.record), v.record.key), default=None)


def _kind(record: Record) -> tuple[str, ...]:
    stored = record.config[STORED]
    return tuple(str(stored.get(key)) for key in ("per", "patch", "groups", "clip"))


class EqualBits(NamedTuple):
    """Records whose sets have nearly the bits of `ipc` random images per class, with 8 bits or in float32."""

    ipc: int
    width: int  # bits per value
    bits: int
    records: list[Record]  # best first


_TOLERANCE = (0.75, 1.1)
"""Bits of the sets that are compared, relative to the budget. Parameters of images of 64 values are 6 % of 8 bits."""


def equal_bits(records: Sequence[Record], known: Budgets) -> list[EqualBits]:
    """Group the records of one track by budgets: the bits of each of their IPC as real images, with 8 and 32 bits.

    Only budgets with at least two methods and two precisions are returned. A set near several of them is in the group
    of the nearest. The whole training set is in no group.
    """
    done = [r for r in records if r.status == "done" and r.method != REFERENCE and r.stored_bytes]
    budgets: dict[int, tuple[int, int]] = {}  # 4 images of 8 bits are one image in float32
    for record in sorted(done, key=lambda r: r.ipc):
        one = known.get((record.real_digest, 0), {}).get("images")
        for width in (8, 32) if one else ():
            bits = round(width * (one or 0) * record.ipc)
            budgets[bits] = min(budgets.get(bits, (record.ipc, width)), (record.ipc, width))
    near = {bits: group for bits in budgets if _is_comparison(group := _near(done, bits), known)}
    found = []
    for bits, (ipc, width) in sorted(budgets.items()):
        group = [r for r in near.get(bits, []) if bits == min(near, key=lambda b: (_distance(r, b), b))]
        if _is_comparison(group, known):
            ranked = sorted(group, key=lambda r: (-r.summary().mean, r.key))
            found.append(EqualBits(ipc, width, bits, ranked))
    return found


def _near(records: Sequence[Record], bits: int) -> list[Record]:
    low, high = (share * bits for share in _TOLERANCE)
    return [r for r in records if low <= stored_bits(r) <= high]


def _distance(record: Record, bits: int) -> float:
    return abs(math.log(stored_bits(record) / bits))


def _is_comparison(records: Sequence[Record], known: Budgets) -> bool:
    return len({r.method for r in records}) > 1 and len({precision_of(r, known) for r in records}) > 1


def tracks(records: Sequence[Record]) -> dict[Track, list[Record]]:
    """Return the records of each track that has a quantised set, sorted by track."""
    found: dict[Track, list[Record]] = {}
    for record in records:
        found.setdefault(Track.of(record), []).append(record)
    return {track: found[track] for track in sorted(found) if any(map(has_stored_precision, found[track]))}
