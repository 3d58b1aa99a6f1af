"""What a study is asked to do, declared once; options, TOML and environment derive from it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from dlbench.proxy.cores import usable_cores
from dlbench.tuner.constraint import Constraints, Demand, parse_memory, parse_slo
from dlbench.tuner.recommend import ALIKE, Wish
from dlbench.tuner.restriction import restriction
from dlbench.tuner.targets.pin import cores_apart

if TYPE_CHECKING:
    from collections.abc import Mapping

Rule = Literal["balanced", "knee", "slo", "max-throughput", "min-p99", "cost", "weighted"]
ProposerName = Literal["twin", "tpe", "nsga2", "random", "grid"]
# Option -> the figure that it bounds.
MEMORY = {"max_memory": "server_rss_mb", "max_gpu_memory": "gpu_mem_mb"}


class StudyConfig(BaseModel):
    """How long to search, for what, from which seed. Durations lose their suffix as options."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    budget_s: float = Field(300.0, description="wall time for the whole study", gt=0, le=604_800)
    configurations: int = Field(
        0,
        description="most configurations to try besides the baselines; 0: as many as the "
        "budget allows",
        ge=0,
    )
    slo_p99_ms: float | None = Field(
        None, description="bound on p99: recommend the highest throughput that meets it", gt=0
    )
    slo: tuple[str, ...] = Field(
        (),
        description="other bounds, such as error_rate<0.1% (quoted); p50, p90, p95, p999, "
        "throughput>N",
    )
    max_memory: str = Field(
        "", description="most memory of the server and its workers, such as 2GB"
    )
    max_gpu_memory: str = Field("", description="most memory on the GPU, such as 2GB")
    recommend: Rule | None = Field(
        None, description="what is best of what holds (default slo with --slo-p99, else balanced)"
    )
    price_per_hour: float | None = Field(
        None,
        description="price of this machine in any currency, for the cost of a million requests",
        gt=0,
    )
    fix: dict[str, Any] = Field({}, description="fix a knob at one value, such as workers=2")
    range: dict[str, Any] = Field(
        {},
        description="search a knob over LOW..HIGH or a list, such as max_batch_size=1..64; "
        "..: its whole range",
    )
    space: dict[str, Any] = Field(
        {}, description="knobs as for --fix and --range, which override it"
    )
    proposer: ProposerName = Field(
        "twin", description="what proposes the next measurement; only twin predicts first"
    )
    pin: str = Field(
        "auto",
        description="the server's cores, such as 0-3, apart from the client's; auto: apart "
        "if there are enough; off: not pinned",
    )
    guess_shapes: bool = Field(
        False,
        description="measure with guessed sizes for symbolic dimensions that no --shape sets",
    )
    seed: int = Field(0, description="seed of the search, the arrivals and the inputs", ge=0)

    @model_validator(mode="after")
    def _sound(self) -> Self:
        """Parse what is parsed later, so that what is wrong is said before anything starts."""
        _ = self.restriction, self.constraints, cores_apart(self.pin, usable_cores())
        if any(objective.field == "p99_ms" for objective in map(parse_slo, self.slo)):
            raise ValueError("--slo cannot bound p99; use --slo-p99 20ms")
        if self.recommend == "slo" and self.slo_p99_ms is None:
            raise ValueError("--recommend slo needs a bound; add --slo-p99 20ms")
        if self.recommend == "cost" and self.price_per_hour is None:
            raise ValueError("--recommend cost needs --price-per-hour")
        return self

    @property
    def rule(self) -> Rule:
        """The name of the rule that recommends (`tuner.recommend.RULES`)."""
        return self.recommend or ("balanced" if self.slo_p99_ms is None else "slo")

    def wish(self, priorities: Mapping[int, float] = ALIKE) -> Wish:
        """What that rule is told; `priorities` maps each to its share of the requests."""
        return Wish(self.slo_p99_ms, self.price_per_hour, self.reference_ms, priorities)

    @property
    def constraints(self) -> Constraints:
        """All bounds, the one on p99 first."""
        found = [parse_slo(text) for text in self.slo]
        sizes = [(name, field) for name, field in MEMORY.items() if getattr(self, name)]
        found += [parse_memory(getattr(self, n), f"--{n.replace('_', '-')}", f) for n, f in sizes]
        if self.slo_p99_ms is not None:
            found.insert(0, Demand("p99_ms", self.slo_p99_ms, f"p99<{self.slo_p99_ms:g}ms"))
        return Constraints(tuple(found))

    @property
    def restriction(self) -> dict[str, tuple[Any, ...]]:
        """Knob -> the only values it may take; knobs that nobody spoke of are not in it."""
        return restriction(self.space, self.range, self.fix)

    @property
    def reference_ms(self) -> float:
        """The p99 that hypervolumes are measured against: the SLO's bound, else one second."""
        return self.slo_p99_ms or 1000.0
