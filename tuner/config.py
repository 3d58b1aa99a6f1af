"""What a study is asked to do, declared once; options, TOML and environment derive from it."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class StudyConfig(BaseModel):
    """How long to search, for what, from which seed. Durations lose their suffix as options."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    budget_s: float = Field(300.0, description="time for the whole study", gt=0, le=604_800)
    configurations: int = Field(
        0,
        description="most configurations to try beside the baselines; 0: as the budget allows",
        ge=0,
    )
    slo_p99_ms: float | None = Field(
        None, description="bound on p99: recommend the highest throughput that holds it", gt=0
    )
    seed: int = Field(0, description="seed of the search, the arrivals and the inputs", ge=0)

    @property
    def reference_ms(self) -> float:
        """The p99 that hypervolumes are measured against: the SLO's bound, else one second."""
        return self.slo_p99_ms or 1000.0
