"""Frequent itemsets, exactly: which sets of trees stand together in many graphs (Eclat, Zaki, TKDE 2000).

The graphs that hold an item are the bits of one Python integer, so that an intersection is an `&`. The FP-growth
package that Mirage's released code mines with loses frequent itemsets; this one is compared with brute force.
"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heapify, heappop, heappush
from itertools import islice
from typing import NamedTuple

KINDS = ("all", "closed", "maximal")


class Itemset(NamedTuple):
    """Items that stand together in `support` transactions, the bits of `holders`."""

    items: tuple[int, ...]
    holders: int

    @property
    def support(self) -> int:
        """Number of transactions that hold all of the items."""
        return self.holders.bit_count()


class TooMany(ValueError):
    """More frequent itemsets than asked for; there can be exponentially many."""


def frequent(holders: dict[int, int], least: int, most: int, kind: str = "all") -> list[Itemset]:
    """Returns the itemsets with a support of `least` or more: the most frequent first, then the smaller.

    Args:
        holders: for each item the transactions that hold it, as bits.
        least: smallest support, >= 1.
        most: how many itemsets there may be, before `kind` chooses of them.
        kind: `all`; `closed`, those of which no larger one has the same support; `maximal`, those of which no
            larger one is frequent.

    Raises:
        TooMany: there are more than `most`.
    """
    candidates = sorted((item, has) for item, has in holders.items() if has.bit_count() >= least)
    found = list(islice(_grow((), None, candidates, least), most + 1))
    if len(found) > most:
        raise TooMany(
            f"more than {most} frequent itemsets at a support of {least}. Use a larger method.theta, or method.most"
        )
    if kind != "all":
        found = [a for a in found if not any(_hides(b, a, kind) for b in found)]
    return sorted(found, key=lambda s: (-s.support, len(s.items), s.items))


def ranked(holders: dict[int, int]) -> Iterator[Itemset]:
    """Yields all itemsets, the most frequent first, then the smaller: the order of `frequent`, without a threshold.

    Best first: whatever continues a set has its support or less and is larger, so it comes later.
    """
    items = sorted(holders.items())
    heap: list[tuple[int, int, tuple[int, ...], int, int]]
    heap = [(-has.bit_count(), 1, (item,), i, has) for i, (item, has) in enumerate(items)]
    heapify(heap)
    while heap:
        _, _, named, last, has = heappop(heap)
        yield Itemset(named, has)
        for i in range(last + 1, len(items)):
            if both := has & items[i][1]:
                heappush(heap, (-both.bit_count(), len(named) + 1, (*named, items[i][0]), i, both))


def is_closed(s: Itemset, holders: dict[int, int]) -> bool:
    """Whether no other item stands in all transactions of the set."""
    return all(item in s.items or s.holders & has != s.holders for item, has in holders.items())


def _grow(
    prefix: tuple[int, ...], holders: int | None, candidates: list[tuple[int, int]], least: int
) -> Iterator[Itemset]:
    """Yields every frequent itemset that continues `prefix` with some of the candidates."""
    for position, (item, has) in enumerate(candidates):
        both = has if holders is None else holders & has
        if both.bit_count() < least:
            continue
        yield Itemset((*prefix, item), both)
        yield from _grow((*prefix, item), both, candidates[position + 1 :], least)


def _hides(larger: Itemset, smaller: Itemset, kind: str) -> bool:
    if len(larger.items) <= len(smaller.items) or not set(smaller.items) < set(larger.items):
        return False
    return kind == "maximal" or larger.holders == smaller.holders
