"""What load to offer: declared once, like the proxy's knobs; options, TOML and environment derive from it."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class LoadProfile(BaseModel):
    """One run of load: how requests arrive, what they carry, how long it lasts.

    Exactly one of `rate` (open loop) and `users` (closed loop) is set. Durations carry `_s`; the
    command line accepts them with a unit and without the suffix (`--duration 10s`).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rate: float | None = Field(
        None, description="open loop: requests per second, sent whether or not replies come", gt=0
    )
    users: int | None = Field(
        None, description="closed loop: users that each wait for their reply", ge=1, le=10_000
    )
    arrivals: Literal["constant", "poisson"] = Field(
        "poisson", description="how the requests of an open loop are spaced"
    )
    duration_s: float = Field(10.0, description="how long to measure", gt=0, le=86_400)
    warmup_s: float = Field(1.0, description="load before that which is not counted", ge=0, le=3600)
    timeout_s: float = Field(10.0, description="a reply later than this is an error", gt=0)
    connections: int = Field(
        0, description="most connections of an open loop; 0: as many as the load needs", ge=0
    )
    encoding: Literal["auto", "binary", "json"] = Field(
        "auto", description="V2 tensor encoding; auto: binary where the server lists it"
    )
    distinct: int = Field(
        0, description="different inputs that the load repeats; 0: every input is new", ge=0
    )
    zipf: float = Field(
        0.0, description="exponent of the inputs' popularity (Zipf); 0: all alike", ge=0, le=5
    )
    shape: dict[str, tuple[int, ...]] = Field(
        default_factory=dict, description="sizes of an input with symbolic dimensions, NAME=D1,D2"
    )
    data: str | None = Field(None, description="read inputs from this .npz or .jsonl file")
    seed: int = Field(0, description="seed of arrivals and popularity", ge=0)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.rate is not None and self.users is not None:
            raise ValueError("rate (open loop) and users (closed loop) exclude each other")
        if self.zipf and not self.distinct and not self.data:
            raise ValueError("zipf needs distinct: popularity means nothing if every input is new")
        return self

    @property
    def is_open_loop(self) -> bool:
        """Whether requests follow a schedule (then latency counts from the scheduled time)."""
        return self.rate is not None
