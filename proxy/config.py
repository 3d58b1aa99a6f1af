"""Every knob of the proxy, declared once.

Command-line options, TOML keys, environment variables, the search space, CSV columns and the docs
are all derived from `ServingConfig`; nothing else may repeat a knob's name, bounds or default.
"""

from __future__ import annotations

import os
from typing import Any, Literal, Self

import psutil
from pydantic import BaseModel, ConfigDict, Field

# Measured on 2 cores: one single-threaded worker per physical core beats fewer workers with more
# threads. On a GPU a second worker per device hides the copies of the first.
GPU_WORKERS_PER_DEVICE = 2


def knob(
    default: Any,  # noqa: ANN401 - a field's default has the field's type
    help_text: str,
    *,
    search: tuple[Any, ...] = (),
    restart: bool = False,
    ge: float | None = None,
    le: float | None = None,
) -> Any:  # noqa: ANN401 - stands where pydantic's Field stands
    """Declare a knob: `search` lists the values the tuner tries, `restart` says it cannot be changed in place."""
    return Field(
        default,
        description=help_text,
        ge=ge,
        le=le,
        json_schema_extra={"search": list(search), "restart": restart},
    )


class ServingConfig(BaseModel):
    """One value for every knob: what the tuner searches over and `dlbench serve` runs with."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_batch_size: int = knob(
        8,
        "most rows in one batch",
        search=(1, 2, 4, 8, 16, 32, 64),
        ge=1,
        le=4096,
    )
    max_queue_delay_ms: float = knob(
        0.0,
        "longest wait for a batch to fill, in milliseconds; 0: an idle worker takes what waits",
        search=(0.0, 0.5, 1.0, 2.0, 5.0),
        ge=0,
        le=1000,
    )
    workers: int = knob(
        0,
        "worker processes, one model session each; 0: one per physical core, on a GPU two per device",
        search=(1, 2, 3, 4, 6, 8, 12, 16),
        restart=True,
        ge=0,
        le=256,
    )
    intra_op_threads: int = knob(
        1,
        "threads that one worker computes with",
        search=(1, 2, 4, 8),
        restart=True,
        ge=1,
        le=256,
    )
    cache_size: int = knob(
        0,
        "entries in the result cache (LRU); 0: no cache",
        search=(0, 256, 1024, 4096, 16384),
        ge=0,
        le=10_000_000,
    )
    scheduling_policy: Literal["shared_queue", "round_robin", "random", "least_outstanding"] = knob(
        "shared_queue",
        "which worker a request waits for; shared_queue: the next idle one",
        search=("shared_queue", "round_robin", "random", "least_outstanding"),
    )
    max_queue_size: int = knob(
        4096,
        "requests that may wait; one more is answered 503 with Retry-After",
        ge=1,
        le=1_000_000,
    )

    def resolved(self, device: str) -> Self:
        """The same configuration with `workers` spelled out for `device` ("cpu" or "cuda")."""
        if self.workers:
            return self
        count = GPU_WORKERS_PER_DEVICE if device == "cuda" else physical_cores()
        return self.model_copy(update={"workers": count})


def restart_knobs() -> frozenset[str]:
    """Names of the knobs that need new worker processes."""
    fields = ServingConfig.model_fields.items()
    return frozenset(name for name, field in fields if metadata(field)["restart"])


def search_values() -> dict[str, tuple[Any, ...]]:
    """Knob name -> the values the tuner may try; knobs that are not searched are left out."""
    fields = ServingConfig.model_fields.items()
    found = {name: tuple(metadata(field)["search"]) for name, field in fields}
    return {name: values for name, values in found.items() if values}


def metadata(field: Any) -> dict[str, Any]:  # noqa: ANN401 - pydantic's FieldInfo, typed loosely there
    """What `knob` recorded beside a field."""
    return dict(field.json_schema_extra)


def physical_cores() -> int:
    """Physical cores this process may use (affinity respected), at least one."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min(psutil.cpu_count(logical=False) or 1, allowed or 1))
