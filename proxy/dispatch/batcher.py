"""When to cut a batch, and from which requests. Pure: times are arguments, in nanoseconds.

Every request may have a key of its own, so nothing here looks through all keys. Nothing is derived
from `max_batch_size` ahead of time, so it may be assigned at any moment.
"""

from __future__ import annotations

from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import chain
from typing import TYPE_CHECKING, Generic, TypeVar, cast

from dlbench.proxy.dispatch.order import rank_by

if TYPE_CHECKING:
    from collections.abc import Collection, Hashable

    from dlbench.proxy.dispatch.order import Rank

T = TypeVar("T")

FIFO = rank_by("fifo", 0)
# A heap shorter than this is not worth tidying.
TIDY_FROM = 64


@dataclass(slots=True, eq=False)
class Waiting(Generic[T]):
    """A request in the queue; its item is None once it has left."""

    item: T | None
    rows: int
    group: _Group[T]

    def leave(self) -> T:
        """The item, let go of here: heaps that have not met this yet must not hold its bytes."""
        item, self.item = self.item, None
        return cast("T", item)


# What it is ordered by, its number (of equals the first that was added), the request.
_Entry = tuple[int, int, Waiting[T]]


class _Heap(Generic[T]):
    """Requests in some order, smallest first; those that left elsewhere are dropped when met."""

    __slots__ = ("_tidy_at", "entries")

    def __init__(self) -> None:
        self.entries: list[_Entry[T]] = []
        self._tidy_at = TIDY_FROM

    def push(self, entry: _Entry[T]) -> None:
        heappush(self.entries, entry)
        self.tidy()

    def first(self) -> _Entry[T] | None:
        entries = self.entries
        while entries and entries[0][2].item is None:
            heappop(entries)
        return entries[0] if entries else None

    def tidy(self) -> None:
        """Drop what left, and doubles, but so seldom that it costs next to nothing."""
        if len(self.entries) > self._tidy_at:
            self.entries = sorted({entry for entry in self.entries if entry[2].item is not None})
            self._tidy_at = TIDY_FROM + 2 * len(self.entries)


class _Group(_Heap[T]):
    """Requests under one key, by rank; the first is always one that still waits."""

    __slots__ = ("key", "rows")

    def __init__(self, key: Hashable) -> None:
        super().__init__()
        self.key = key
        self.rows = 0

    def pop(self, most: int) -> list[_Entry[T]]:
        """The first of them, together at most `most` rows; one alone may have more."""
        if self.rows <= most:  # the usual case, and one sort costs less than many pops
            popped = sorted([entry for entry in self.entries if entry[2].item is not None])
            self.entries.clear()
            return popped
        entries = self.entries
        popped = []
        while entries:
            waiting = entries[0][2]
            if waiting.item is not None:
                if popped and waiting.rows > most:
                    break
                most -= waiting.rows
                popped.append(entries[0])
            heappop(entries)
        return popped


class Batcher(Generic[T]):
    """A queue that gives batches of requests which may share one.

    Requests share a batch only under the same key. The request with the smallest rank is next, and
    with it those of its key, in the order of their ranks. Without a delay a batch is due as soon as
    anything waits; with one, when the oldest request has waited so long, or when enough wait under
    one key: `max_batch_size` rows or the smallest of `preferred_batch_sizes`. What has enough may
    overtake what has not, until the oldest request has waited out its delay.

    As in Triton's dynamic batcher, a batch is cut back to the largest preferred size that its
    requests add up to, if they do to any, but not once the delay is over. Otherwise than there,
    `max_batch_size` itself counts as preferred, and requests of several rows that skip every
    preferred size are not kept waiting for a sum that may never come.
    """

    def __init__(
        self,
        max_batch_size: int,
        max_queue_delay_ns: int,
        preferred_batch_sizes: Collection[int] = (),
        rank: Rank = FIFO,
    ) -> None:
        self.max_batch_size = max_batch_size
        self._delay_ns = max_queue_delay_ns
        self._preferred = frozenset(preferred_batch_sizes)
        self._rank = rank
        self._number = 0
        self._clear()

    def __len__(self) -> int:
        """Requests that wait."""
        return self._count

    def add(
        self,
        key: Hashable,
        rows: int,
        item: T,
        since_ns: int,
        priority: int = 0,
        deadline_ns: int = 0,
    ) -> Waiting[T]:
        """Queue a request that arrived at `since_ns`; a priority or deadline of 0 is none.

        `rows` is at least 1, and `item` anything but None. Returns what `withdraw` takes.
        """
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = _Group(key)
        waiting = Waiting(item, rows, group)
        number = self._number = self._number + 1
        entry = (self._rank(since_ns, priority, deadline_ns), number, waiting)
        heappush(group.entries, entry)
        if group.entries[0] is entry:
            self._heads.push(entry)
        if self._delay_ns:
            self._arrivals.push((since_ns, number, waiting))
            self._note_size(group, group.rows + rows)
        if deadline_ns:
            self._deadlines.push((deadline_ns, number, waiting))
        group.rows += rows
        self.rows += rows
        self._count += 1
        return waiting

    def withdraw(self, waiting: Waiting[T]) -> bool:
        """Take a request out of the queue; False if it has left already."""
        if waiting.item is None:
            return False
        waiting.leave()
        self._left(waiting.group, 1, waiting.rows)
        waiting.group.tidy()
        return True

    def is_full(self) -> bool:
        """Whether the next batch is a full one, which no later request could make better."""
        return self._most_rows() >= self.max_batch_size

    def due_ns(self) -> int | None:
        """When the next batch may be cut: 0 if one is ready, None if nothing waits."""
        if not self._count:
            return None
        oldest = self._arrivals.first()
        if oldest is None or self._most_rows() >= self._enough():
            return 0
        return oldest[0] + self._delay_ns

    def next_deadline_ns(self) -> int | None:
        """The earliest deadline of all that wait, None if nothing has one."""
        first = self._deadlines.first()
        return first and first[0]

    def cut(self, now_ns: int) -> list[T]:
        """The next batch, empty if none is due yet.

        It holds at most `max_batch_size` rows, unless its first request alone has more. Whatever
        has expired is to be taken out first.
        """
        oldest = self._arrivals.first()
        late = oldest is not None and oldest[0] + self._delay_ns <= now_ns
        group = self._next(late)
        if group is None:
            return []
        entries = group.pop(self.max_batch_size)
        if self._preferred and not late:
            entries = self._cut_back(group, entries)
        self._left(group, len(entries), sum([entry[2].rows for entry in entries]))
        return [entry[2].leave() for entry in entries]

    def expire(self, now_ns: int) -> list[T]:
        """Take out everything whose deadline has passed, the earliest deadline first."""
        expired: list[T] = []
        while (first := self._deadlines.first()) and first[0] <= now_ns:
            waiting = first[2]
            expired.append(waiting.leave())
            self._left(waiting.group, 1, waiting.rows)
            waiting.group.tidy()
        return expired

    def drain(self) -> list[T]:
        """Everything that waits, in the order in which it was added, leaving the queue empty."""
        entries = [entry for group in self._groups.values() for entry in group.entries]
        entries.sort(key=lambda entry: entry[1])
        self._clear()
        return [waiting.leave() for _, _, waiting in entries if waiting.item is not None]

    def _clear(self) -> None:
        self._count = 0
        self.rows = 0
        self._groups: dict[Hashable, _Group[T]] = {}
        # Groups by their rows, kept only with a delay: without, size changes nobody's turn. The
        # keys are few: with n rows in all, at most about sqrt(2n) sizes differ.
        self._by_rows: dict[int, set[_Group[T]]] = {}
        # By rank, at least the first of every group, so the first of all of them.
        self._heads: _Heap[T] = _Heap()
        # By arrival, kept only where a delay counts from it; by deadline, those that have one.
        self._arrivals: _Heap[T] = _Heap()
        self._deadlines: _Heap[T] = _Heap()

    def _most_rows(self) -> int:
        """Rows of the group that is next; where a delay lets groups overtake, of the largest."""
        if self._by_rows:
            return max(self._by_rows)
        head = self._heads.first()
        return head[2].group.rows if head else 0

    def _enough(self) -> int:
        """Rows under one key that need not wait for more."""
        return min((self.max_batch_size, *self._preferred))

    def _next(self, late: bool) -> _Group[T] | None:
        """The group that the next batch comes from, None if none is due."""
        head = self._heads.first()
        if head is None:
            return None
        group = head[2].group
        if late or not self._delay_ns or group.rows >= self._enough():
            return group
        enough = self._enough()  # more than one row, or the head would have it: these are few
        sizes = [groups for rows, groups in self._by_rows.items() if rows >= enough]
        ready = chain.from_iterable(sizes)
        return min(ready, key=lambda g: g.entries[0], default=None)

    def _cut_back(self, group: _Group[T], entries: list[_Entry[T]]) -> list[_Entry[T]]:
        """As many of the entries as make the largest preferred size; the rest goes back."""
        rows, best = 0, len(entries)
        for number, (_, _, waiting) in enumerate(entries, 1):
            rows += waiting.rows
            if rows in self._preferred:
                best = number
        if rows >= self.max_batch_size:
            return entries
        for entry in entries[best:]:
            group.push(entry)
        return entries[:best]

    def _left(self, group: _Group[T], count: int, rows: int) -> None:
        """Account for requests that leave a group."""
        if self._delay_ns:
            self._note_size(group, group.rows - rows)
        group.rows -= rows
        self.rows -= rows
        self._count -= count
        head = group.first()
        if head is None:
            del self._groups[group.key]
        else:
            self._heads.push(head)

    def _note_size(self, group: _Group[T], rows: int) -> None:
        """File a group under its new size, where a limit that changes finds it."""
        same = self._by_rows.get(group.rows)
        if same:
            same.discard(group)
            if not same:
                del self._by_rows[group.rows]
        if rows:
            self._by_rows.setdefault(rows, set()).add(group)
