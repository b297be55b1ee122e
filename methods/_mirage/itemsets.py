"""Frequent itemsets, exactly: which sets of trees stand together in many graphs (Eclat, Zaki, TKDE 2000).

The graphs that hold an item are the bits of one Python integer, so that an intersection is an `&`. The FP-growth
package that Mirage's released code mines with loses frequent itemsets; this one is compared with brute force.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce
from heapq import heapify, heappop, heappush
from itertools import islice, takewhile
from operator import and_
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
        most: how many itemsets there may be; of `closed` and `maximal` how many closed ones.
        kind: `all`; `closed`, those of which no larger one has the same support; `maximal`, those of which no
            larger one is frequent.

    Raises:
        TooMany: there are more than `most`.
    """
    often = {item: has for item, has in holders.items() if has.bit_count() >= least}
    if kind == "all":
        grown = _grow(sorted(often.items()), least)
    else:
        grown = takewhile(lambda s: s.support >= least, ranked_closed(often))
    found = list(islice(grown, most + 1))
    if len(found) > most:
        raise TooMany(
            f"more than {most} frequent {'' if kind == 'all' else 'closed '}itemsets at a support of {least}. Use a "
            "larger method.theta, or method.most"
        )
    if kind == "maximal":  # each is closed too
        found = [s for s in found if not _continues(s, often, least)]
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


def ranked_closed(holders: dict[int, int]) -> Iterator[Itemset]:
    """Yields the closed itemsets, in the order of `ranked`, without going through those that are not.

    Each comes from one other alone: the closure of a set and an item is kept where it adds nothing before that item
    (prefix-preserving extension; LCM, Uno et al., FIMI 2004). What it comes from has a larger support, so that all of
    one support are known before the first of them is said.
    """
    items = sorted(holders.items())
    heap: list[tuple[int, tuple[int, ...], int, int]]
    heap = [(-has.bit_count(), (), i, has) for i, (_, has) in enumerate(items)]
    heapify(heap)
    while heap:
        support, level = heap[0][0], []
        while heap and heap[0][0] == support:
            _, named, i, has = heappop(heap)
            if all(item in named or held & has != has for item, held in items[:i]):
                rest = [item for item, held in items[i:] if held & has == has]
                closure = (*(item for item in named if item < items[i][0]), *rest)
                level.append((len(closure), closure, i, has))
        for _, named, last, has in sorted(level):
            yield Itemset(named, has)
            for i in range(last + 1, len(items)):
                both = has & items[i][1]
                if both and both != has:
                    heappush(heap, (-both.bit_count(), named, i, both))


def is_frequent(items: tuple[int, ...], holders: dict[int, int], least: int) -> bool:
    """Whether `least` transactions or more hold all of the items; `holders` may leave out rarer ones."""
    if any(item not in holders for item in items):
        return False
    return reduce(and_, (holders[item] for item in items)).bit_count() >= least


def _grow(candidates: list[tuple[int, int]], least: int) -> Iterator[Itemset]:
    """Yields every frequent itemset, each after the one that it continues: depth first, on a stack of our own."""
    stack: list[tuple[tuple[int, ...], int | None, int]] = [((), None, 0)] if candidates else []
    while stack:
        prefix, holders, position = stack.pop()
        if position + 1 < len(candidates):
            stack.append((prefix, holders, position + 1))
        item, has = candidates[position]
        both = has if holders is None else holders & has
        if both.bit_count() >= least:
            yield Itemset((*prefix, item), both)
            if position + 1 < len(candidates):
                stack.append(((*prefix, item), both, position + 1))


def _continues(s: Itemset, often: dict[int, int], least: int) -> bool:
    """Whether the set is frequent with some other item too."""
    return any((s.holders & has).bit_count() >= least for item, has in often.items() if item not in s.items)
