"""Exact frequent itemset mining (Eclat, Zaki, TKDE 2000).

The tidset of an item, the set of transactions that contain it, is stored as the bits of one Python integer. An
intersection is then a bitwise `&`. The FP-growth package of Mirage's released code misses frequent itemsets; the tests
compare this implementation with brute force.
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
    """Items, and the tidset of the transactions that contain all of them."""

    items: tuple[int, ...]
    tidset: int

    @property
    def support(self) -> int:
        """Number of transactions that contain all of the items."""
        return self.tidset.bit_count()


class TooManyItemsets(ValueError):
    """There are more frequent itemsets than allowed. Their number can grow exponentially with the number of items."""


def frequent_itemsets(
    tidsets: dict[int, int], min_support: int, max_itemsets: int, kind: str = "all"
) -> list[Itemset]:
    """Return the itemsets with a support of at least `min_support`, by decreasing support, then by increasing size.

    Args:
        tidsets: Tidset of each item.
        min_support: Minimum support, >= 1.
        max_itemsets: Maximum number of itemsets. If `kind` is `closed` or `maximal`, only closed itemsets count.
        kind: `all`: all frequent itemsets. `closed`: those that have no superset with the same support. `maximal`:
            those that have no frequent superset.

    Raises:
        TooManyItemsets: There are more than `max_itemsets` itemsets.
    """
    frequent = {item: tids for item, tids in tidsets.items() if tids.bit_count() >= min_support}
    if kind == "all":
        itemsets = _eclat(sorted(frequent.items()), min_support)
    else:
        itemsets = takewhile(lambda s: s.support >= min_support, ranked_closed_itemsets(frequent))
    found = list(islice(itemsets, max_itemsets + 1))
    if len(found) > max_itemsets:
        raise TooManyItemsets(
            f"there are more than {max_itemsets} frequent {'' if kind == 'all' else 'closed '}itemsets with a support "
            f"of at least {min_support}. Use a larger method.theta or method.most"
        )
    if kind == "maximal":  # maximal itemsets are closed
        found = [s for s in found if not _has_frequent_superset(s, frequent, min_support)]
    return sorted(found, key=lambda s: (-s.support, len(s.items), s.items))


def ranked_itemsets(tidsets: dict[int, int]) -> Iterator[Itemset]:
    """Yield all itemsets in the order of `frequent_itemsets`, without a threshold.

    This is a best-first search. An extension of an itemset is larger and at most as frequent, so it comes later.
    """
    items = sorted(tidsets.items())
    heap: list[tuple[int, int, tuple[int, ...], int, int]]
    heap = [(-tids.bit_count(), 1, (item,), i, tids) for i, (item, tids) in enumerate(items)]
    heapify(heap)
    while heap:
        _, _, itemset, last, tids = heappop(heap)
        yield Itemset(itemset, tids)
        for i in range(last + 1, len(items)):
            if both := tids & items[i][1]:
                heappush(heap, (-both.bit_count(), len(itemset) + 1, (*itemset, items[i][0]), i, both))


def ranked_closed_itemsets(tidsets: dict[int, int]) -> Iterator[Itemset]:
    """Yield the closed itemsets in the order of `ranked_itemsets`, without enumerating the others.

    Each closed itemset is generated once (prefix-preserving extension; LCM, Uno et al., FIMI 2004): after an item is
    added to an itemset, the closure of the result is accepted only if all items of the closure that precede the added
    item were already in the itemset. An extended itemset has less support than the itemset before the extension. All
    itemsets of one support are therefore known before the first of them is yielded.
    """
    items = sorted(tidsets.items())
    heap: list[tuple[int, tuple[int, ...], int, int]]
    heap = [(-tids.bit_count(), (), i, tids) for i, (_, tids) in enumerate(items)]
    heapify(heap)
    while heap:
        support, level = heap[0][0], []
        while heap and heap[0][0] == support:
            _, itemset, i, tids = heappop(heap)
            if all(item in itemset or other & tids != tids for item, other in items[:i]):
                suffix = [item for item, other in items[i:] if other & tids == tids]
                closure = (*(item for item in itemset if item < items[i][0]), *suffix)
                level.append((len(closure), closure, i, tids))
        for _, itemset, last, tids in sorted(level):
            yield Itemset(itemset, tids)
            for i in range(last + 1, len(items)):
                both = tids & items[i][1]
                if both and both != tids:
                    heappush(heap, (-both.bit_count(), itemset, i, both))


def is_frequent(items: tuple[int, ...], tidsets: dict[int, int], min_support: int) -> bool:
    """Return whether at least `min_support` transactions contain all items; False if an item has no tidset."""
    if any(item not in tidsets for item in items):
        return False
    return reduce(and_, (tidsets[item] for item in items)).bit_count() >= min_support


def _eclat(items: list[tuple[int, int]], min_support: int) -> Iterator[Itemset]:
    """Yield every frequent itemset, depth first, with an explicit stack instead of recursion."""
    stack: list[tuple[tuple[int, ...], int | None, int]] = [((), None, 0)] if items else []
    while stack:
        prefix, prefix_tids, i = stack.pop()
        if i + 1 < len(items):
            stack.append((prefix, prefix_tids, i + 1))
        item, tids = items[i]
        both = tids if prefix_tids is None else prefix_tids & tids
        if both.bit_count() >= min_support:
            yield Itemset((*prefix, item), both)
            if i + 1 < len(items):
                stack.append(((*prefix, item), both, i + 1))


def _has_frequent_superset(s: Itemset, frequent: dict[int, int], min_support: int) -> bool:
    """Return whether there is an item that can be added to the itemset such that the result is still frequent."""
    return any(
        (s.tidset & tids).bit_count() >= min_support for item, tids in frequent.items() if item not in s.items
    )
