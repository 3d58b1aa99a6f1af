"""What controller and generator process say to each other: one JSON object per line.

    controller -> generator   RunJob, Stop
    generator -> controller   Ready once, then for each job Update*, and RunResult or Failure

The end of the generator's standard input ends the generator.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from dlbench.loadgen.profile import LoadProfile
from dlbench.loadgen.target import Target

if TYPE_CHECKING:
    from collections.abc import Sequence


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")


class Progress(_Message):
    """How a run is doing; the numbers are those of the last half second. None: no replies yet.

    A quantile that falls among failures is infinite, and longer than `longest_ms`.
    """

    elapsed_s: float
    requests: int
    rate_rps: float
    p50_ms: float | None
    p99_ms: float | None
    errors: int
    lateness_p99_ms: float | None
    in_flight: int
    warming_up: bool
    longest_ms: float = 0.0


class RunFacts(_Message):
    """What the samples of a run do not say about it."""

    complete: bool
    started_at: str
    # Share of one core that the generator used during the counted window; the busiest process'.
    client_cpu: float
    net_mbps: float
    # Whether it ran with real-time priority.
    real_time: bool
    connections: int
    # A connection was wanted, and the limit forbade it.
    exhausted: bool
    # How long after the window's end the last reply came.
    drain_s: float
    # One text for each kind of error: what the server said, or the system.
    examples: dict[str, str] = {}
    processes: int = 1

    @classmethod
    def merged(cls, parts: Sequence[RunFacts]) -> RunFacts:
        """Those of a run that several processes shared."""
        return cls(
            complete=all(part.complete for part in parts),
            started_at=min(part.started_at for part in parts),
            client_cpu=max(part.client_cpu for part in parts),
            net_mbps=sum(part.net_mbps for part in parts),
            real_time=all(part.real_time for part in parts),
            connections=sum(part.connections for part in parts),
            exhausted=any(part.exhausted for part in parts),
            drain_s=max(part.drain_s for part in parts),
            examples={kind: text for part in parts for kind, text in part.examples.items()},
            processes=sum(part.processes for part in parts),
        )


class RunJob(_Message):
    """One run, to the last detail."""

    op: Literal["measure"] = "measure"
    target: Target
    profile: LoadProfile
    nonce: int
    samples_path: str


class Stop(_Message):
    """End the current run early and send its partial result."""

    op: Literal["stop"] = "stop"


class Ready(_Message):
    """The generator has imported everything and listens."""

    op: Literal["ready"] = "ready"


class Update(_Message):
    """A run goes on."""

    op: Literal["progress"] = "progress"
    progress: Progress


class RunResult(_Message):
    """A run is over; its samples are in the job's `samples_path`."""

    op: Literal["result"] = "result"
    facts: RunFacts


class Failure(_Message):
    """The job could not be done; `error` names a class of `errors`."""

    op: Literal["failure"] = "failure"
    error: str
    message: str


_COMMAND: TypeAdapter[RunJob | Stop] = TypeAdapter(
    Annotated[RunJob | Stop, Field(discriminator="op")]
)
_ANSWER: TypeAdapter[Ready | Update | RunResult | Failure] = TypeAdapter(
    Annotated[Ready | Update | RunResult | Failure, Field(discriminator="op")]
)


def parse_command(line: bytes) -> RunJob | Stop:
    """Raises pydantic.ValidationError."""
    return _COMMAND.validate_json(line)


def parse_answer(line: bytes) -> Ready | Update | RunResult | Failure:
    """Raises pydantic.ValidationError."""
    return _ANSWER.validate_json(line)


def to_line(message: BaseModel) -> bytes:
    """One line of JSON, its end included."""
    return message.model_dump_json().encode() + b"\n"
