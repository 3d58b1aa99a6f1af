"""The result cache's first level: answers in this process, bounded in entries and in bytes. Pure.

The order in which entries leave is cachetools'; bounds, lifetimes and dirty bits are kept here.
"""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING, NamedTuple, Protocol

import cachetools

from dlbench.proxy.tensors import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable

    from dlbench.proxy.config import ServingConfig
    from dlbench.proxy.request import Outputs

    OnEvicted = Callable[[bytes, Outputs], None]

# What an entry takes beside its tensors' bytes: key, tuples and places in the order. Measured with
# tracemalloc for one output: 522 (lru, fifo) to 558 (lfu).
ENTRY_BYTES = 560
# Part of two_level that is the small LRU: the tenth that S3-FIFO (SOSP 2023) gives its small queue.
SMALL_SHARE = 0.1
FOREVER_NS = 2**63


class Bounds(NamedTuple):
    """What a cache may hold: entries, bytes (`ENTRY_BYTES` each included), and for how long."""

    entries: int
    size_bytes: int
    ttl_ns: int = FOREVER_NS


class Entry(NamedTuple):
    """A kept answer; `dirty` if it has not been reported to `on_evicted` yet."""

    outputs: Outputs
    size_bytes: int
    expires_ns: int
    dirty: bool


class Order(Protocol):
    """Which entry leaves next: what cachetools' caches offer. Reading an entry is using it."""

    def get(self, key: bytes) -> Entry | None: ...
    def pop(self, key: bytes, default: None) -> Entry | None: ...
    def popitem(self) -> tuple[bytes, Entry]: ...
    def __setitem__(self, key: bytes, entry: Entry) -> None: ...
    def __len__(self) -> int: ...


class Cache(Protocol):
    """Keeps answers by the request's key.

    `on_evicted` is handed each dirty answer that is forgotten before its time is over.
    """

    on_evicted: OnEvicted

    @property
    def size_bytes(self) -> int:
        """Bytes that the entries take."""
        ...

    def get(self, key: bytes, now_ns: int) -> Outputs | None:
        """The kept answer, if there is one that has not expired."""
        ...

    def put(self, key: bytes, outputs: Outputs, now_ns: int, *, dirty: bool = False) -> None:
        """Keep a copy of an answer; one that is larger than all may hold is evicted at once."""
        ...

    def clear(self, now_ns: int) -> None:
        """Evict everything."""
        ...

    def __len__(self) -> int: ...


def _nobody(key: bytes, outputs: Outputs) -> None:
    """Listens to no eviction."""


class NoCache:
    """Keeps nothing: what is put is evicted at once."""

    size_bytes = 0

    def __init__(self, bounds: Bounds | None = None) -> None:  # noqa: ARG002 - CACHES calls all alike
        self.on_evicted: OnEvicted = _nobody

    def get(self, key: bytes, now_ns: int) -> None:  # noqa: ARG002 - there is nothing to get
        return None

    def put(self, key: bytes, outputs: Outputs, now_ns: int, *, dirty: bool = False) -> None:  # noqa: ARG002 - nothing ages
        if dirty:
            self.on_evicted(key, outputs)

    def clear(self, now_ns: int) -> None:
        """There is nothing to evict."""

    def __len__(self) -> int:
        return 0


class BoundedCache:
    """Keeps answers within `bounds`; what leaves first is the order's business."""

    def __init__(self, order: Order, bounds: Bounds) -> None:
        self.on_evicted: OnEvicted = _nobody
        self.size_bytes = 0
        self._order = order
        self._bounds = bounds

    def get(self, key: bytes, now_ns: int) -> Outputs | None:
        entry = self._order.get(key)
        if entry is None:
            return None
        if entry.expires_ns <= now_ns:
            self._remove(key)
            return None
        return entry.outputs

    def put(self, key: bytes, outputs: Outputs, now_ns: int, *, dirty: bool = False) -> None:
        entry = _entry(outputs, now_ns + self._bounds.ttl_ns, dirty)
        self._remove(key)
        if entry.size_bytes > self._bounds.size_bytes:
            self._tell(key, entry, now_ns)
            return
        while not self._has_room(entry.size_bytes):
            self._evict(now_ns)
        self._order[key] = entry
        self.size_bytes += entry.size_bytes

    def clear(self, now_ns: int) -> None:
        while len(self._order):
            self._evict(now_ns)

    def __len__(self) -> int:
        return len(self._order)

    def _has_room(self, size_bytes: int) -> bool:
        """Whether one more entry of that size keeps both bounds."""
        return (
            len(self._order) < self._bounds.entries
            and self.size_bytes + size_bytes <= self._bounds.size_bytes
        )

    def _remove(self, key: bytes) -> None:
        entry = self._order.pop(key, None)
        if entry is not None:
            self.size_bytes -= entry.size_bytes

    def _evict(self, now_ns: int) -> None:
        key, entry = self._order.popitem()
        self.size_bytes -= entry.size_bytes
        self._tell(key, entry, now_ns)

    def _tell(self, key: bytes, entry: Entry, now_ns: int) -> None:
        if entry.dirty and now_ns < entry.expires_ns:
            self.on_evicted(key, entry.outputs)


class TwoLevelOrder:
    """A small LRU of what was asked for again over a large FIFO, where what is new begins.

    Inputs that come only once pass through the FIFO and push out nothing that has proved its worth.
    """

    def __init__(self, entries: int) -> None:
        self._small = cachetools.LRUCache[bytes, Entry](max(1, int(SMALL_SHARE * entries)))
        self._large = cachetools.FIFOCache[bytes, Entry](entries)

    def get(self, key: bytes) -> Entry | None:
        """The entry, which is in the small LRU afterwards; what that has no room for begins anew."""
        entry = self._large.pop(key, None)
        if entry is None:
            return self._small.get(key)
        if len(self._small) >= self._small.maxsize:
            fallen, its_entry = self._small.popitem()
            self._large[fallen] = its_entry
        self._small[key] = entry
        return entry

    def pop(self, key: bytes, default: None) -> Entry | None:
        return self._small.pop(key, None) or self._large.pop(key, default)

    def popitem(self) -> tuple[bytes, Entry]:
        return (self._large or self._small).popitem()

    def __setitem__(self, key: bytes, entry: Entry) -> None:
        self._large[key] = entry

    def __len__(self) -> int:
        return len(self._small) + len(self._large)


CACHES: dict[str, Callable[[Bounds], Cache]] = {
    "none": NoCache,
    "lru": lambda bounds: BoundedCache(cachetools.LRUCache[bytes, Entry](bounds.entries), bounds),
    "lfu": lambda bounds: BoundedCache(cachetools.LFUCache[bytes, Entry](bounds.entries), bounds),
    "fifo": lambda bounds: BoundedCache(cachetools.FIFOCache[bytes, Entry](bounds.entries), bounds),
    "two_level": lambda bounds: BoundedCache(TwoLevelOrder(bounds.entries), bounds),
}


def make_cache(config: ServingConfig, share: int = 1) -> Cache:
    """The cache that `config` asks for, or one of `share` parts of it; the null object for size 0."""
    bounds = Bounds(
        ceil(config.cache_size / share),
        int(config.cache_max_mb * 2**20 / share),
        int(config.cache_ttl_s * 1e9) or FOREVER_NS,
    )
    return CACHES[config.cache_policy if config.cache_size else "none"](bounds)


def _entry(outputs: Outputs, expires_ns: int, dirty: bool) -> Entry:
    """An entry of its own memory: a slice would keep the whole batch that it was cut from."""
    kept = tuple(Tensor(tensor.shape, bytes(tensor.data)) for tensor in outputs)
    size_bytes = ENTRY_BYTES + sum(len(tensor.data) for tensor in kept)
    return Entry(kept, size_bytes, expires_ns, dirty)
