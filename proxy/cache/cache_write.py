"""When a cache backend learns of a result: `cache_write`'s three ways.

A result's time to live begins anew in each level that it is put into, so one that is written back
and fetched by another proxy may be three times as old as `cache_ttl_s` when it goes.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from dlbench.proxy.cache.backend import Backend
    from dlbench.proxy.config import ServingConfig
    from dlbench.proxy.request import Outputs

    Store = Callable[..., None]
    Told = Callable[[bytes, Outputs], None]


class Writer(NamedTuple):
    """Receives results: `kept` for each new one, `evicted` for those the cache drops."""

    kept: Told
    evicted: Told


def _not_now(key: bytes, outputs: Outputs) -> None:
    """The other one of the two writes."""


WRITERS: dict[str, Callable[[Store], Writer]] = {
    "write_through": lambda store: Writer(kept=store, evicted=_not_now),
    "write_back": lambda store: Writer(kept=_not_now, evicted=store),
    "write_combining": lambda store: Writer(kept=partial(store, combined=True), evicted=_not_now),
}


def make_writer(config: ServingConfig, backend: Backend) -> Writer:
    """The writer that `config` asks for, with its time to live."""
    return WRITERS[config.cache_write](partial(backend.store, ttl_s=config.cache_ttl_s))
