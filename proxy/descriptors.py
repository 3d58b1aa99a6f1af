"""File descriptors: are there enough to serve at all? Said at the start, not at the first client."""

from __future__ import annotations

import resource
from typing import TYPE_CHECKING

from dlbench.proxy.config import physical_cores
from dlbench.proxy.errors import StartError

if TYPE_CHECKING:
    from dlbench.proxy.config import ServingConfig

# What is no connection of a client: libraries, listeners, log, event loop; and of each worker.
OWN, PER_WORKER = 64, 4
# A server for fewer clients than this is refused.
LEAST_CONNECTIONS = 16


def descriptor_limit() -> int:
    """The limit of this process, the soft one: who set it lower than the hard one meant it."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def check_descriptors(config: ServingConfig, models: int, limit: int) -> None:
    """Raises StartError if this many workers leave no descriptors for clients."""
    most = config.workers if config.autoscaler == "none" else config.most_workers
    workers = models * (most or physical_cores())
    needed = OWN + PER_WORKER * workers + LEAST_CONNECTIONS
    if limit != resource.RLIM_INFINITY and needed > limit:
        raise StartError(
            f"a server with {workers} workers needs {needed:,} file descriptors, the limit is "
            f"{limit:,}: ulimit -n {needed} (LimitNOFILE= of a service, docker --ulimit nofile)"
        )
