"""The search space: which values of which knobs make sense for this model on this machine. Pure."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dlbench.proxy.config import ServingConfig, search_values

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# More workers than this per core only take turns; the second per core hides waits for the front.
WORKERS_PER_CORE = 2
# A knob that only matters while another has a certain value: (knob, value then, other, other's value).
MOOT = (
    ("max_queue_delay_ms", 0.0, "max_batch_size", 1),
    ("scheduling_policy", "shared_queue", "workers", 1),
)
NAIVE = {"max_batch_size": 1, "workers": 1, "intra_op_threads": 1, "cache_size": 0}


@dataclass(frozen=True)
class Space:
    """Knob -> values to try, the configuration that everything else is a change of, and remarks."""

    values: Mapping[str, tuple[Any, ...]]
    default: ServingConfig
    cores: int
    notes: tuple[str, ...] = ()

    def configuration(self, choice: Mapping[str, Any]) -> ServingConfig:
        """The configuration of a choice, with knobs that cannot matter at their plain value."""
        values = {**self.default.model_dump(), **choice}
        for knob, plain, other, value in MOOT:
            if values[other] == value:
                values[knob] = plain
        return ServingConfig(**values)

    def sensible(self, config: ServingConfig) -> bool:
        """Whether workers and their threads fit the cores."""
        return config.workers * config.intra_op_threads <= WORKERS_PER_CORE * self.cores

    def configurations(self) -> Iterator[ServingConfig]:
        """Every sensible configuration, each once."""
        choices = itertools.product(*self.values.values())
        found = (self.configuration(dict(zip(self.values, c, strict=True))) for c in choices)
        return (config for config in dict.fromkeys(found) if self.sensible(config))


def build_space(
    default: ServingConfig, cores: int, *, repeats_inputs: bool, batchable: bool
) -> Space:
    """Cut the declared values down to what can matter here; every cut leaves a note."""
    values = dict(search_values())
    values["workers"] = tuple(w for w in values["workers"] if w <= WORKERS_PER_CORE * cores)
    values["intra_op_threads"] = tuple(t for t in values["intra_op_threads"] if t <= cores)
    notes = [f"workers x threads is kept within {WORKERS_PER_CORE} per core ({cores} cores)"]
    if not repeats_inputs:
        del values["cache_size"]
        notes.append(
            "every input is distinct, so a cache cannot help and is left out of the search; "
            "--distinct N --zipf S state how inputs repeat"
        )
    if not batchable:
        del values["max_batch_size"], values["max_queue_delay_ms"]
        notes.append("the model takes one row at a time, so batching is left out of the search")
    return Space(values, default, cores, tuple(notes))


def naive(default: ServingConfig) -> ServingConfig:
    """What a tutorial's server does: one worker, batch 1, no cache."""
    return default.model_copy(update=NAIVE)
