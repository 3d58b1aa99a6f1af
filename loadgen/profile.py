"""What load to offer: declared once, like the proxy's knobs; options, TOML and environment derive from it."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

# What needs a second rate to be a pattern at all.
BETWEEN_TWO_RATES = ("steps", "ramp", "spike", "diurnal")


class RequestClass(BaseModel):
    """One class of requests in a mix: its share, and what the server is told about it.

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
        description="open loop: requests per second, sent regardless of replies",
        gt=0,
        le=1e7,
    )
    users: int | None = Field(
        None,
        description="closed loop: concurrent users, each waiting for its reply",
        ge=1,
        le=100_000,
    )
    arrivals: Literal["constant", "poisson", "gamma"] = Field(
        "poisson", description="how the requests of an open loop are spaced"
    )
    gamma_cv: float = Field(
        2.0,
        description="coefficient of variation of the gamma gaps: 1 is Poisson, above 1 is bursty",
        ge=0.01,
        le=100,
    )
    pattern: Literal["steady", "steps", "ramp", "spike", "diurnal"] = Field(
        "steady", description="how the rate changes during the run, from --rate to --rate-to"
    )
    rate_to: float | None = Field(
        None,
        description="second rate of the pattern: last step, end of ramp, spike, peak",
        gt=0,
        le=1e7,
    )
    steps: int = Field(5, description="equal steps from --rate to --rate-to", ge=2, le=1000)
    spike_at_s: float | None = Field(
        None, description="when the spike begins (default: halfway through)", ge=0
    )
    spike_s: float = Field(1.0, description="how long the spike lasts", gt=0)
    period_s: float | None = Field(
        None, description="length of a diurnal day (default: the whole duration)", gt=0
    )
    trace: str | None = Field(
        None,
        description="open loop: a CSV file of arrival times in seconds, one per line; its "
        "first --warmup seconds are the warm-up",
    )
    trace_scale: float = Field(
        1.0, description="factor on a trace's times: 0.5 doubles the rate", gt=0, le=1e6
    )
    think_s: float = Field(
        0.0, description="closed loop: pause of a user between a reply and the next request", ge=0
    )
    think_times: Literal["constant", "exponential"] = Field(
        "exponential", description="how the pauses are distributed around --think"
    )
    duration_s: float = Field(10.0, description="how long to measure", gt=0, le=86_400)
    warmup_s: float = Field(
        1.0, description="load before the measurement, not counted", ge=0, le=3600
    )
    timeout_s: float = Field(10.0, description="a reply later than this is an error", gt=0)
    connections: int = Field(
        0,
        description="open loop: most connections, which requests wait for; 0: as many as the "
        "load needs",
        ge=0,
    )
    keep_alive: bool = Field(
        True, description="keep connections open; off: a new one for every request"
    )
    protocol: Literal["auto", "v2", "grpc", "tfserving", "torchserve", "plain"] = Field(
        "auto", description="the server's protocol; auto: from the URL, else V2"
    )
    encoding: Literal["auto", "binary", "json"] = Field(
        "auto", description="V2 tensor encoding; auto: binary if the server lists it"
    )
    template: str | None = Field(
        None, description='body of plain requests, $NAME for each input, such as {"input": $x}'
    )
    distinct: int = Field(
        0, description="distinct inputs that the load repeats; 0: every input is new", ge=0
    )
    zipf: float = Field(
        0.0,
        description="Zipf exponent of the inputs' popularity; 0: all equally popular",
        ge=0,
        le=5,
    )
    churn: float = Field(
        0.0,
        description="share of requests that replace one of the popular inputs with a new one",
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
        None, description="expected outputs (.npz or .jsonl), one row for each of --data"
    )
    request_class: dict[str, RequestClass] = Field(
        default_factory=dict,
        description="a class of requests, NAME=weight=3,priority=1,deadline_ms=50 (repeat "
        "for more)",
    )
    token_file: str | None = Field(
        None, description="file with the bearer token to send with every request"
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
            raise ValueError(f"{given[0]} and {given[1]} cannot be combined; choose one")
        if self.think_s and self.is_open_loop:
            raise ValueError("think needs users; an open loop has no think time")
        return self

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.pattern in BETWEEN_TWO_RATES and (self.rate is None or self.rate_to is None):
            raise ValueError(f"pattern {self.pattern} needs rate and rate-to")
        if self.rate_to is not None and self.pattern not in BETWEEN_TWO_RATES:
            raise ValueError(f"rate-to needs pattern {', '.join(BETWEEN_TWO_RATES)}")
        begins_s = self.spike_at_s if self.pattern == "spike" else None
        if begins_s is not None and begins_s >= self.duration_s:
            raise ValueError("spike-at is after the end of duration; choose an earlier time")
        if (self.zipf or self.churn) and not (self.distinct or self.data):
            name = "zipf" if self.zipf else "churn"
            raise ValueError(f"{name} needs distinct; without it every input is new")
        if self.check and not self.data:
            raise ValueError("check needs data, the inputs of the expected outputs")
        return self

    @property
    def is_open_loop(self) -> bool:
        """Whether requests follow a schedule (then latency counts from the scheduled time)."""
        return self.rate is not None or self.trace is not None
