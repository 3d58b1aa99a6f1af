"""Every knob of the proxy, declared once.

Command-line options, TOML keys, environment variables, the search space, CSV columns and the docs
are all derived from `ServingConfig`; nothing else may repeat a knob's name, bounds or default.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Literal, Self

import psutil
from pydantic import BaseModel, ConfigDict, Field, field_validator

from dlbench.proxy.cores import hyperthreads, usable_cores
from dlbench.proxy.quota import ROOT, cpu_quota, whole_cores

if TYPE_CHECKING:
    from pathlib import Path

# Measured on 2 cores: one single-threaded worker per physical core beats fewer workers with more
# threads. On a GPU a second worker per device hides the copies of the first.
GPU_WORKERS_PER_DEVICE = 2
# More threads than this per core only take turns; the second per core hides waits for the front.
THREADS_PER_CORE = 2


def knob(
    default: Any,  # noqa: ANN401 - a field's default has the field's type
    help_text: str,
    *,
    search: tuple[Any, ...] = (),
    restart: bool = False,
    ge: float | None = None,
    le: float | None = None,
    moot: tuple[str, Any] | None = None,
    naive: Any = None,  # noqa: ANN401 - the same
    per_core: int = 0,
) -> Any:  # noqa: ANN401 - stands where pydantic's Field stands
    """Declare a knob: `search` lists the values the tuner tries, `restart` says it cannot be changed in place.

    `moot` names another knob and its value with which this one means nothing; `naive` is what a
    tutorial's server has; more than `per_core` times the cores is no value to search, 0: any is.
    """
    return Field(
        default,
        description=help_text,
        ge=ge,
        le=le,
        json_schema_extra={
            "searched": list(search),
            "restart": restart,
            "moot": list(moot) if moot else None,
            "naive": naive,
            "per_core": per_core,
        },
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
        naive=1,
    )
    max_queue_delay_ms: float = knob(
        0.0,
        "longest wait for a batch to fill, in milliseconds; 0: an idle worker takes whatever is "
        "waiting",
        search=(0.0, 0.5, 1.0, 2.0, 5.0),
        ge=0,
        le=1000,
        moot=("max_batch_size", 1),
    )
    preferred_batch_sizes: tuple[int, ...] = knob(
        (),
        "batch sizes sent without waiting out the delay, such as 4,8; none: only full batches",
    )
    batching: Literal["greedy", "adaptive"] = knob(
        "greedy",
        "greedy: up to max_batch_size; adaptive: the limit grows while slo_ms is met, else shrinks",
        moot=("max_batch_size", 1),
    )
    slo_ms: float = knob(
        100.0,
        "latency target of adaptive batching and the cost autoscaler, in milliseconds",
        ge=0.1,
        le=600_000,
    )
    split_batch_over: int = knob(
        1,
        "workers that the rows of one large request are spread over",
        ge=1,
        le=256,
        moot=("workers", 1),
    )
    workers: int = knob(
        0,
        "worker processes, one model session each; 0: one per usable physical core; on a GPU, two "
        "per device",
        search=(1, 2, 3, 4, 6, 8, 12, 16),
        restart=True,
        ge=0,
        le=256,
        naive=1,
        per_core=THREADS_PER_CORE,
    )
    worker_weights: tuple[float, ...] = knob(
        (),
        "share of each worker under weighted_round_robin and consistent_hash, such as 2,1,1; none: "
        "equal",
        restart=True,
    )
    autoscaler: Literal["none", "threshold", "queue_length", "predictive", "cost"] = knob(
        "none",
        "policy that adds and drains workers between min_workers and max_workers while serving",
        restart=True,
    )
    min_workers: int = knob(
        1,
        "fewest workers that the autoscaler keeps",
        restart=True,
        ge=1,
        le=256,
        moot=("autoscaler", "none"),
    )
    max_workers: int = knob(
        0,
        "most workers that the autoscaler starts; 0: one per usable physical core",
        restart=True,
        ge=0,
        le=256,
        moot=("autoscaler", "none"),
    )
    intra_op_threads: int = knob(
        1,
        "compute threads of one worker",
        search=(1, 2, 4, 8),
        restart=True,
        ge=1,
        le=256,
        naive=1,
        per_core=1,
    )
    graph_optimization: Literal["disabled", "basic", "extended", "all"] = knob(
        "all",
        "how far onnxruntime optimizes the graph when it loads the model",
        restart=True,
    )
    memory_arena: bool = knob(
        True,
        "keep freed tensors for the next batch: faster, uses more memory",
        restart=True,
    )
    allow_spinning: bool = knob(
        False,
        "let compute threads spin while they wait: useful only where cores are not shared",
        restart=True,
    )
    cache_policy: Literal["none", "lru", "lfu", "fifo", "two_level"] = knob(
        "lru",
        "what the result cache evicts first; two_level: a small LRU of repeated inputs over a "
        "large FIFO",
        moot=("cache_size", 0),
    )
    cache_size: int = knob(
        0,
        "entries in the result cache; 0: no cache",
        search=(0, 256, 1024, 4096, 16384),
        ge=0,
        le=10_000_000,
        naive=0,
    )
    cache_max_mb: float = knob(
        256.0,
        "most memory for cached results, in MiB",
        ge=0.001,
        le=1_000_000,
        moot=("cache_size", 0),
    )
    cache_ttl_s: float = knob(
        0.0,
        "lifetime of a cached result, in seconds; 0: until it is evicted",
        ge=0,
        le=31_536_000,
        moot=("cache_size", 0),
    )
    cache_scope: Literal["shared", "worker"] = knob(
        "shared",
        "one cache, or one per worker (each with its share of the size), looked up after "
        "scheduling",
        moot=("cache_size", 0),
    )
    cache_write: Literal["write_through", "write_back", "write_combining"] = knob(
        "write_through",
        "when a result is written to --cache-backend: at once, when it is evicted here, or in one "
        "pipeline per window",
        moot=("cache_size", 0),
    )
    scheduling_policy: Literal[
        "shared_queue",
        "round_robin",
        "weighted_round_robin",
        "random",
        "least_outstanding",
        "power_of_two_choices",
        "shortest_response_time",
        "consistent_hash",
    ] = knob(
        "shared_queue",
        "which worker a request waits for; shared_queue: the next idle one",
        search=("shared_queue", "round_robin", "random", "least_outstanding"),
        moot=("workers", 1),
    )
    queue_order: Literal["fifo", "priority", "edf"] = knob(
        "fifo",
        "which request is next: the oldest, the highest priority (with ageing), or the earliest "
        "deadline",
    )
    priority_ageing_ms: float = knob(
        1000.0,
        "wait that counts as one level of priority, in milliseconds",
        ge=1,
        le=3_600_000,
    )
    default_timeout_ms: float = knob(
        0.0,
        "deadline of requests that give none, in milliseconds from arrival; 0: none",
        ge=0,
        le=3_600_000,
    )
    max_queue_size: int = knob(
        4096,
        "most requests that may wait; further ones get 503 with Retry-After",
        ge=1,
        le=1_000_000,
    )
    worker_timeout_s: float = knob(
        60.0,
        "seconds that a batch may run before its worker counts as hung and is replaced",
        ge=0.01,
        le=86_400,
    )

    @field_validator("preferred_batch_sizes", "worker_weights")
    @classmethod
    def _positive(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        if any(value <= 0 for value in values):
            raise ValueError("must contain numbers over 0")
        return values

    @property
    def most_workers(self) -> int:
        """Workers that the autoscaler may reach."""
        return max(self.min_workers, self.max_workers or physical_cores())

    def resolved(self, device: str, devices: int = 1) -> Self:
        """The same configuration with `workers` spelled out for what the sessions got.

        `device` is "cpu", or the kind of `devices` GPUs.
        """
        if self.workers:
            return self
        count = physical_cores() if device == "cpu" else GPU_WORKERS_PER_DEVICE * devices
        return self.model_copy(update={"workers": count})


def physical_cores(root: Path = ROOT) -> int:
    """Physical cores' worth of time that this process may use, at least one.

    The machine's, those in the affinity mask, or what a container's quota pays for, whichever is
    least. `root` is where /proc and /sys lie.
    """
    usable = len(hyperthreads(usable_cores())) or os.cpu_count() or 1
    known = [psutil.cpu_count(logical=False) or usable, usable]
    if (quota := cpu_quota(root)) is not None:
        known.append(whole_cores(quota))
    return min(known)
