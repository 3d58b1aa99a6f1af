"""Where time went on the server, as far as its V2 statistics show."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple, Protocol
from urllib.parse import quote

import httpx
from pydantic import BaseModel, ValidationError

from dlbench.loadgen.credentials import bearer_token, tls_context
from dlbench.loadgen.transport.timed_http import TimedTransport

if TYPE_CHECKING:
    from dlbench.loadgen.profile import LoadProfile
    from dlbench.loadgen.target import Target

# A server that has just been overloaded may take its time; a result does not wait for long.
TIMEOUT_S = 2.0
NS_PER_MS = 1e6


class ServerTimes(NamedTuple):
    """Means per request answered, cache hits included (they wait for nothing and compute nothing).

    `compute_ms` has the model's input and output in it; a request in a batch counts all of it.
    """

    queue_ms: float
    compute_ms: float
    requests: int


class _Total(BaseModel):
    count: int = 0
    ns: int = 0


class _InferenceStats(BaseModel):
    success: _Total
    queue: _Total = _Total()
    compute_input: _Total = _Total()
    compute_infer: _Total = _Total()
    compute_output: _Total = _Total()


class _ModelStats(BaseModel):
    inference_stats: _InferenceStats


class _Statistics(BaseModel):
    """V2's statistics extension, the parts that are read here; one entry per version."""

    model_stats: list[_ModelStats]


class Totals(NamedTuple):
    """What a server has done since it started."""

    requests: int
    queue_ns: int
    compute_ns: int

    def since(self, before: Totals) -> ServerTimes | None:
        """Times of the requests in between; None without any, or if the server restarted."""
        requests, queue_ns, compute_ns = (
            now - then for now, then in zip(self, before, strict=True)
        )
        if requests <= 0 or min(queue_ns, compute_ns) < 0:
            return None
        return ServerTimes(
            queue_ns / requests / NS_PER_MS, compute_ns / requests / NS_PER_MS, requests
        )


class ServerClock(Protocol):
    """Read before a run, and asked after it: `clock.since(before)`."""

    def read(self) -> Totals | None: ...

    def since(self, before: Totals | None) -> ServerTimes | None: ...


class NoClock:
    """Of a server that publishes nothing."""

    def read(self) -> Totals | None:
        return None

    def since(self, before: Totals | None) -> ServerTimes | None:  # noqa: ARG002 - the interface
        return None


class V2Clock:
    """V2's statistics of one model; a server that fails to give them is one without a clock.

    They count everybody's requests, and a run's warm-up with the rest.
    """

    def __init__(self, target: Target, profile: LoadProfile) -> None:
        token = bearer_token(profile)
        version = f"/versions/{target.version}" if target.version else ""
        self._path = f"/v2/models/{quote(target.model, safe='')}{version}/stats"
        # Opened for each reading: no connection of ours lies idle at the server during the run.
        self._open = partial(
            httpx.Client,
            base_url=target.url,
            transport=TimedTransport(TIMEOUT_S, tls_context(profile) if target.tls else None),
            trust_env=False,
            headers={"Authorization": f"Bearer {token}"} if token else None,
        )

    def read(self) -> Totals | None:
        try:
            with self._open() as http:
                return totals(http.get(self._path).raise_for_status().content)
        except (httpx.HTTPError, ValidationError):
            return None

    def since(self, before: Totals | None) -> ServerTimes | None:
        after = self.read()
        return after.since(before) if after and before else None


def server_clock(target: Target, profile: LoadProfile) -> ServerClock:
    """Raises TargetError for a token or a certificate that cannot be read."""
    has_clock = target.protocol == "v2" and target.statistics
    return V2Clock(target, profile) if has_clock else NoClock()


def totals(statistics: bytes) -> Totals:
    """The sum over all versions. Raises pydantic.ValidationError for what is not V2 statistics."""
    found = [m.inference_stats for m in _Statistics.model_validate_json(statistics).model_stats]
    return Totals(
        sum(stats.success.count for stats in found),
        sum(stats.queue.ns for stats in found),
        sum(
            part.ns
            for stats in found
            for part in (stats.compute_input, stats.compute_infer, stats.compute_output)
        ),
    )
