"""When to cut a batch, and from which requests. Pure: times are arguments, in nanoseconds."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Hashable

T = TypeVar("T")


class _Waiting(NamedTuple, Generic[T]):
    item: T
    rows: int
    since_ns: int
    number: int


class Batcher(Generic[T]):
    """A queue that gives batches of requests which may share one.

    Requests share a batch only under the same `key`. Without a delay a batch is due as soon as
    anything waits; with one, when it is full or its oldest request has waited so long. First in,
    first out: among the keys the oldest request goes first, and of two requests with one key the
    earlier is never behind the later.
    """

    def __init__(self, max_batch_size: int, max_queue_delay_ns: int) -> None:
        self.max_batch_size = max_batch_size
        self.max_queue_delay_ns = max_queue_delay_ns
        self._groups: dict[Hashable, deque[_Waiting[T]]] = {}
        self._rows: dict[Hashable, int] = {}
        # Every request may have a key of its own, so nothing here looks through all keys: arrivals
        # in order (some already cut), and the keys under which a full batch waits.
        self._arrivals: deque[tuple[int, Hashable]] = deque()
        self._full: set[Hashable] = set()
        self._number = 0
        self._count = 0

    def __len__(self) -> int:
        """Requests that wait."""
        return self._count

    def add(self, key: Hashable, rows: int, item: T, now_ns: int) -> None:
        """Queue a request of `rows` rows."""
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = deque()
            self._rows[key] = 0
        group.append(_Waiting(item, rows, now_ns, self._number))
        self._arrivals.append((self._number, key))
        self._number += 1
        self._count += 1
        self._set_rows(key, self._rows[key] + rows)

    def is_full(self) -> bool:
        """Whether a full batch waits, which no later request could make better."""
        return bool(self._full)

    def due_ns(self) -> int | None:
        """When the next batch may be cut: 0 if one is full, None if nothing waits."""
        if not self._count:
            return None
        if not self.max_queue_delay_ns or self.is_full():
            return 0
        return self._groups[self._oldest()][0].since_ns + self.max_queue_delay_ns

    def cut(self, now_ns: int) -> list[T]:
        """The next batch, empty if none is due yet.

        It holds at most `max_batch_size` rows, unless its first request alone has more.
        """
        due = self.due_ns()
        if due is None or due > now_ns:
            return []
        return self._take(self._next_key(now_ns))

    def drain(self) -> list[T]:
        """Everything that waits, oldest first, leaving the queue empty."""
        waiting = sorted((w for g in self._groups.values() for w in g), key=lambda w: w.number)
        for part in (self._groups, self._rows, self._arrivals, self._full):
            part.clear()
        self._count = 0
        return [w.item for w in waiting]

    def _next_key(self, now_ns: int) -> Hashable:
        """The oldest request's key if it is due or full, else that of the oldest full batch."""
        oldest = self._oldest()
        due_ns = self._groups[oldest][0].since_ns + self.max_queue_delay_ns
        if due_ns <= now_ns or oldest in self._full:
            return oldest
        return min(self._full, key=lambda key: self._groups[key][0].number)

    def _oldest(self) -> Hashable:
        """The key of the request that waits longest; arrivals that were cut since are forgotten."""
        while True:
            number, key = self._arrivals[0]
            if key in self._groups and self._groups[key][0].number <= number:
                return key
            self._arrivals.popleft()

    def _set_rows(self, key: Hashable, rows: int) -> None:
        self._rows[key] = rows
        if rows >= self.max_batch_size:
            self._full.add(key)
        else:
            self._full.discard(key)

    def _take(self, key: Hashable) -> list[T]:
        group = self._groups[key]
        batch: list[T] = []
        rows = 0
        while group and (not batch or rows + group[0].rows <= self.max_batch_size):
            waiting = group.popleft()
            batch.append(waiting.item)
            rows += waiting.rows
        self._count -= len(batch)
        self._set_rows(key, self._rows[key] - rows)
        if not group:
            del self._groups[key], self._rows[key]
        return batch
