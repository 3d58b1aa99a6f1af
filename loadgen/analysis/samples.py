"""The raw record of a run: every request's times and outcome. All figures are derived from it."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, Self
from zipfile import BadZipFile

import numpy as np

from dlbench.loadgen.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    Times = NDArray[np.int64]

# History of the file format:
#   1  scheduled_ns, sent_ns, done_ns (from the run's start), outcome (index into `names`), meta
#   2  connect_ns, request_class
VERSION = 2
NS_PER_MS = 1e6
# A run has filled up when this share of what was asked in its first part is answered.
FIRST_PART, ANSWERED = 0.1, 0.95
# Of the window's length, at least, replies are counted.
LEAST_FILLED = 0.25
COLUMNS = ("scheduled_ns", "sent_ns", "done_ns", "outcome", "connect_ns", "request_class")


@dataclass(frozen=True)
class Samples:
    """Times in ns from the start of the run, one entry per request, warm-up included.

    A request counts when it *began* (was scheduled, or in a closed loop sent) inside the window:
    choosing by replies would leave out those that a stall at the end delays.
    """

    latency_from: Literal["scheduled", "sent"]
    scheduled_ns: Times
    sent_ns: Times
    done_ns: Times
    outcome: NDArray[np.int16]
    # How long the request waited for its connection, to stand or (from a pool) to be free.
    connect_ns: Times
    # Index among the profile's request classes.
    request_class: NDArray[np.int8]
    names: tuple[str, ...]
    window_ns: tuple[int, int]

    @property
    def window_s(self) -> float:
        return max(self.window_ns[1] - self.window_ns[0], 1) / 1e9

    @cached_property
    def counted(self) -> NDArray[np.bool_]:
        """Which requests began inside the window."""
        start, end = self.window_ns
        counted: NDArray[np.bool_] = (self.scheduled_ns >= start) & (self.scheduled_ns < end)
        return counted

    @property
    def requests(self) -> int:
        return int(self.counted.sum())

    @cached_property
    def begun_ns(self) -> Times:
        """When each counted success began, in the order in which they began."""
        return self.scheduled_ns[self.succeeded]

    @cached_property
    def latencies_ns(self) -> Times:
        """Of the counted successes, in the order in which they began."""
        return self.done_ns[self.succeeded] - self.scheduled_ns[self.succeeded]

    @cached_property
    def latencies_ms(self) -> NDArray[np.float64]:
        """Of all counted requests in order of time; infinite for those that failed.

        A failure took at least as long as it took to fail, and a client that waited on would have
        had to wait longer: left out, the slowest requests would make a server look faster.
        """
        took: NDArray[np.float64] = np.where(self.outcome == 0, self._took_ms, np.inf)[self.counted]
        return took

    @property
    def longest_ms(self) -> float | None:
        """The longest that any counted request took, to its reply or to its failure; None: no request."""
        took = self._took_ms[self.counted]
        return float(took.max()) if len(took) else None

    @property
    def _took_ms(self) -> NDArray[np.float64]:
        return (self.done_ns - self.scheduled_ns) / NS_PER_MS

    @property
    def from_sent_ns(self) -> Times:
        """Latencies of the counted successes from their actual send times."""
        return self.done_ns[self.succeeded] - self.sent_ns[self.succeeded]

    @cached_property
    def lateness_ns(self) -> Times:
        """Actual minus scheduled send time of the counted requests; all zero in a closed loop."""
        return self.sent_ns[self.counted] - self.scheduled_ns[self.counted]

    @cached_property
    def reply_window_ns(self) -> tuple[int, int]:
        """Between which times replies are counted: their number over its length is the throughput.

        That is the window, unless it begins before a reply can have come: a run begins with nothing
        in flight, and until its first requests are answered replies are fewer than requests. Then it
        begins where those are, and ends when the last request's reply can have come. A run that is
        too short for both has the window as it is, and `fills` says so.
        """
        start, end = self.window_ns
        filled, drained = self._filled_ns, end + self._shortest_ns
        if filled <= start or drained - filled < LEAST_FILLED * (end - start):
            return start, end
        return filled, min(drained, filled + end - start)

    @property
    def fills(self) -> bool:
        """Whether nearly all of the window passed before the first requests were answered."""
        return self._filled_ns > self.window_ns[0] == self.reply_window_ns[0]

    @property
    def _filled_ns(self) -> int:
        """When the requests of the run's first part were answered; a few stragglers do not matter."""
        succeeded = self.outcome == 0
        first = (
            self.scheduled_ns < self.scheduled_ns.min(initial=0) + FIRST_PART * self.window_ns[1]
        )
        done = self.done_ns[succeeded & first]
        return int(np.quantile(done, ANSWERED, method="inverted_cdf")) if len(done) else 0

    @property
    def _shortest_ns(self) -> int:
        return int(self.latencies_ns.min()) if len(self.latencies_ns) else 0

    @property
    def replies_s(self) -> float:
        """The length of the time in which replies are counted."""
        start, end = self.reply_window_ns
        return max(end - start, 1) / 1e9

    @cached_property
    def completed_ns(self) -> Times:
        """When the successes ended that are counted, in order: the throughput."""
        start, end = self.reply_window_ns
        done = self.done_ns[self.outcome == 0]
        return np.sort(done[(done >= start) & (done < end)])

    @property
    def throughput_rps(self) -> float:
        """Right answers per second."""
        return len(self.completed_ns) / self.replies_s

    @property
    def errors(self) -> dict[str, int]:
        """Counted requests that failed, by kind."""
        found = np.bincount(self.outcome[self.counted], minlength=len(self.names))
        return {
            name: int(found[code]) for code, name in enumerate(self.names) if code and found[code]
        }

    @cached_property
    def succeeded(self) -> NDArray[np.bool_]:
        """Which counted requests were answered rightly."""
        successes: NDArray[np.bool_] = self.counted & (self.outcome == 0)
        return successes

    def of_class(self, index: int) -> Samples:
        """The requests of one class alone."""
        return self._where(self.request_class == index)

    def _where(self, chosen: NDArray[Any]) -> Samples:
        columns: dict[str, Any] = {name: getattr(self, name)[chosen] for name in COLUMNS}
        return replace(self, **columns)

    @classmethod
    def merged(cls, parts: Sequence[Samples]) -> Samples:
        """One record of a run that several processes shared, exact to the request."""
        names = tuple(dict.fromkeys(name for part in parts for name in part.names))
        renamed = [part._renamed(names) for part in parts]
        joined: dict[str, Any] = {
            name: np.concatenate([getattr(part, name) for part in renamed]) for name in COLUMNS
        }
        window_ns = (parts[0].window_ns[0], min(part.window_ns[1] for part in parts))
        whole = replace(renamed[0], window_ns=window_ns, **joined)
        return whole._where(np.argsort(whole.scheduled_ns, kind="stable"))

    def _renamed(self, names: tuple[str, ...]) -> Samples:
        codes = np.array([names.index(name) for name in self.names], np.int16)
        return replace(self, outcome=codes[self.outcome], names=names)

    def save(self, path: Path) -> None:
        """Write the versioned file, all of it or none; raises OSError."""
        meta = {
            "version": VERSION,
            "latency_from": self.latency_from,
            "names": self.names,
            "window_ns": self.window_ns,
        }
        if path.exists() and not path.is_file():  # a pipe is written to as it is
            self._write(path, meta)
            return
        draft = path.with_name(f".{os.getpid()}.{path.name}")
        try:
            self._write(draft, meta)
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)

    def _write(self, path: Path, meta: dict[str, Any]) -> None:
        with path.open("wb") as file:
            np.savez(
                file,
                meta=np.array(json.dumps(meta)),
                **{name: getattr(self, name) for name in COLUMNS},
            )

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a file that `save` wrote. Raises DataError for any other file or version."""
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
                meta = json.loads(str(archive["meta"]))
                if meta["version"] != VERSION:
                    raise DataError(
                        f"{path} has samples of version {meta['version']}, not {VERSION}"
                    )
                return cls(
                    latency_from=meta["latency_from"],
                    names=tuple(meta["names"]),
                    window_ns=(meta["window_ns"][0], meta["window_ns"][1]),
                    **{name: archive[name] for name in COLUMNS},
                )
        except (OSError, ValueError, KeyError, TypeError, EOFError, BadZipFile) as error:
            raise DataError(f"{path} has no readable samples: {error}") from None
