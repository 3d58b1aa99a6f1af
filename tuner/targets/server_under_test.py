"""What the bench asks of a server that it measures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, Self

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dlbench.proxy.config import ServingConfig
    from dlbench.proxy.knob import Knob
    from dlbench.tuner.errors import ServerFailed
    from dlbench.tuner.targets.gpu_watch import GpuWatch


class ServerUnderTest(Protocol):
    """One server at a time, with whatever configuration was applied last."""

    knobs: Mapping[str, Knob]

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def start(self, config: ServingConfig) -> dict[str, Any]:
        """Serve with `config` from a fresh start, and say what the server said when ready.

        Raises:
            ServerFailed: it did not come up, with the tail of its log.
        """

    def apply(self, config: ServingConfig) -> dict[str, Any]:
        """Like `start`, but in place where the knobs that change allow it."""

    def counters(self) -> dict[str, Any]:
        """The server's cumulative counters.

        Raises:
            ServerFailed: it no longer answers.
        """

    def gpu_watch(self) -> GpuWatch:
        """For the GPUs that it uses, if any."""

    def failure(self, reason: str) -> ServerFailed:
        """The error that says why this configuration will not do, with the tail of its log."""

    def stop(self) -> None:
        """End it; safe to call twice."""
