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
        group.append(_Waiting(item, rows, now_ns))
        self._rows[key] += rows
        self._count += 1

    def is_full(self) -> bool:
        """Whether a full batch waits, which no later request could make better."""
        return any(rows >= self.max_batch_size for rows in self._rows.values())

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
        waiting = sorted((w for g in self._groups.values() for w in g), key=lambda w: w.since_ns)
        self._groups.clear()
        self._rows.clear()
        self._count = 0
        return [w.item for w in waiting]

    def _next_key(self, now_ns: int) -> Hashable:
        """The oldest request's key if it is due, else that of the oldest full batch."""
        oldest = self._oldest()
        if self._groups[oldest][0].since_ns + self.max_queue_delay_ns <= now_ns:
            return oldest
        full = (key for key, rows in self._rows.items() if rows >= self.max_batch_size)
        return min(full, key=lambda key: self._groups[key][0].since_ns)

    def _oldest(self) -> Hashable:
        if len(self._groups) == 1:
            return next(iter(self._groups))
        return min(self._groups, key=lambda key: self._groups[key][0].since_ns)

    def _take(self, key: Hashable) -> list[T]:
        group = self._groups[key]
        batch: list[T] = []
        rows = 0
        while group and (not batch or rows + group[0].rows <= self.max_batch_size):
            waiting = group.popleft()
            batch.append(waiting.item)
            rows += waiting.rows
        self._count -= len(batch)
        self._rows[key] -= rows
        if not group:
            del self._groups[key], self._rows[key]
        return batch
