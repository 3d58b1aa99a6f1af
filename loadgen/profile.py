"""What load to offer: declared once, like the proxy's knobs; options, TOML and environment derive from it."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

# What needs a second rate to be a pattern at all.
BETWEEN_TWO_RATES = ("steps", "ramp", "spike", "diurnal")


class RequestClass(BaseModel):
    """One kind of request in a mix: how often it comes and what the server is told about it.

    On the command line `NAME=weight=3,priority=1,deadline_ms=50`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    weight: float = Field(1.0, gt=0)
    # V2's `priority` parameter, 1 the highest; 0: none is sent.
    priority: int = Field(0, ge=0)
    # V2's `timeout` parameter; replies later than this are counted as missed.
    deadline_ms: float | None = Field(None, gt=0)
    data: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:  # noqa: ANN401 - whatever a file or an option holds
        if not isinstance(value, str):
            return value
        pairs = (part.partition("=") for part in value.split(",") if part)
        return {name.strip(): text.strip() for name, _, text in pairs}


class LoadProfile(BaseModel):
    """One run of load: how requests arrive, what they carry, how long it lasts.

    One of `rate`, `trace` (open loop) and `users` (closed loop) is set. Durations carry `_s`; the
    command line accepts them with a unit and without the suffix (`--duration 10s`).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rate: float | None = Field(
        None,
        description="open loop: requests per second, sent whether or not replies come",
        gt=0,
        le=1e7,
    )
    users: int | None = Field(
        None, description="closed loop: users that each wait for their reply", ge=1, le=100_000
    )
    arrivals: Literal["constant", "poisson", "gamma"] = Field(
        "poisson", description="how the requests of an open loop are spaced"
    )
    gamma_cv: float = Field(
        2.0,
        description="coefficient of variation of gamma's gaps: 1 is Poisson, more is bursts",
        ge=0.01,
        le=100,
    )
    pattern: Literal["steady", "steps", "ramp", "spike", "diurnal"] = Field(
        "steady", description="how the rate changes during the run, from --rate to --rate-to"
    )
    rate_to: float | None = Field(
        None,
        description="the pattern's other rate: last step, end of ramp, spike, peak",
        gt=0,
        le=1e7,
    )
    steps: int = Field(5, description="equal steps from --rate to --rate-to", ge=2, le=1000)
    spike_at_s: float | None = Field(
        None, description="when the spike begins (default: at half of the duration)", ge=0
    )
    spike_s: float = Field(1.0, description="how long the spike lasts", gt=0)
    period_s: float | None = Field(
        None, description="length of a diurnal day (default: the whole duration)", gt=0
    )
    trace: str | None = Field(
        None,
        description="open loop: a CSV file of arrival times in seconds, one a line; its own first --warmup is the warm-up",
    )
    trace_scale: float = Field(
        1.0, description="stretches a trace's times: 0.5 is twice the rate", gt=0, le=1e6
    )
    think_s: float = Field(
        0.0, description="closed loop: pause of a user between reply and next request", ge=0
    )
    think_times: Literal["constant", "exponential"] = Field(
        "exponential", description="how the pauses are spread around --think"
    )
    duration_s: float = Field(10.0, description="how long to measure", gt=0, le=86_400)
    warmup_s: float = Field(1.0, description="load before that which is not counted", ge=0, le=3600)
    timeout_s: float = Field(10.0, description="a reply later than this is an error", gt=0)
    connections: int = Field(
        0,
        description="most connections of an open loop, which requests wait for; 0: as many as the load needs",
        ge=0,
    )
    keep_alive: bool = Field(True, description="keep connections; off: a new one for every request")
    protocol: Literal["auto", "v2", "grpc", "tfserving", "torchserve", "plain"] = Field(
        "auto", description="what the server speaks; auto: by the URL, else V2"
    )
    encoding: Literal["auto", "binary", "json"] = Field(
        "auto", description="V2 tensor encoding; auto: binary where the server lists it"
    )
    template: str | None = Field(
        None, description='body of plain requests with $NAME for inputs, as {"input": $x}'
    )
    distinct: int = Field(
        0, description="different inputs that the load repeats; 0: every input is new", ge=0
    )
    zipf: float = Field(
        0.0, description="exponent of the inputs' popularity (Zipf); 0: all alike", ge=0, le=5
    )
    churn: float = Field(
        0.0,
        description="share of requests that replace one of the popular inputs by a new one",
        ge=0,
        le=1,
    )
    shape: dict[str, tuple[int, ...]] = Field(
        default_factory=dict, description="sizes of an input with symbolic dimensions, NAME=D1,D2"
    )
    data: str | None = Field(
        None, description="inputs: .npz, .npy, .jsonl, or a folder of images or raw bodies"
    )
    check: str | None = Field(
        None, description="expected outputs (.npz or .jsonl), row by row with --data"
    )
    request_class: dict[str, RequestClass] = Field(
        default_factory=dict,
        description="a kind of request, NAME=weight=3,priority=1,deadline_ms=50 (repeat for more)",
    )
    token_file: str | None = Field(
        None, description="file with the bearer token that every request carries"
    )
    tls_ca: str | None = Field(
        None, description="certificates (PEM) to trust instead of the system's"
    )
    tls_insecure: bool = Field(False, description="do not verify the server's certificate")
    seed: int = Field(0, description="seed of arrivals, popularity and classes", ge=0)

    def priorities(self, untold: int) -> dict[int, float]:
        """The share of requests of each priority; those that tell none have `untold`."""
        classes = list(self.request_class.values()) or [RequestClass()]
        whole, shares = sum(kind.weight for kind in classes), dict[int, float]()
        for kind in classes:
            level = kind.priority or untold
            shares[level] = shares.get(level, 0.0) + kind.weight / whole
        return shares

    @model_validator(mode="after")
    def _one_load(self) -> Self:
        given = [name for name in ("rate", "trace", "users") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"{given[0]} and {given[1]} exclude each other: one load at a time")
        if self.think_s and self.is_open_loop:
            raise ValueError("think belongs to users: an open loop waits for nobody")
        return self

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.pattern in BETWEEN_TWO_RATES and (self.rate is None or self.rate_to is None):
            raise ValueError(f"pattern {self.pattern} needs rate and rate-to")
        if self.rate_to is not None and self.pattern not in BETWEEN_TWO_RATES:
            raise ValueError(f"rate-to needs pattern {', '.join(BETWEEN_TWO_RATES)}")
        begins_s = self.spike_at_s if self.pattern == "spike" else None
        if begins_s is not None and begins_s >= self.duration_s:
            raise ValueError("spike-at is beyond duration: there would be no spike")
        if (self.zipf or self.churn) and not (self.distinct or self.data):
            name = "zipf" if self.zipf else "churn"
            raise ValueError(
                f"{name} needs distinct: popularity means nothing if every input is new"
            )
        if self.check and not self.data:
            raise ValueError("check needs data: expected outputs belong to given inputs")
        return self

    @property
    def is_open_loop(self) -> bool:
        """Whether requests follow a schedule (then latency counts from the scheduled time)."""
        return self.rate is not None or self.trace is not None
