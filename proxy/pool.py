"""Workers started: one, or several at once of which none is left when one fails."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from dlbench.proxy.link import ProcessLink, WorkerLink
from dlbench.proxy.memory import most_bytes
from dlbench.proxy.providers import executor_of

if TYPE_CHECKING:
    from dlbench.proxy.config import ServingConfig
    from dlbench.proxy.settings import ServerSettings


async def start_workers(
    path: str, settings: ServerSettings, config: ServingConfig, numbers: range
) -> list[WorkerLink]:
    """Start the workers of these numbers at once; if one fails, none is left.

    Raises:
        ModelError, DeviceError, StartError: in the first failing worker's words.
    """
    starts = (start_worker(path, settings, config, number) for number in numbers)
    found = await asyncio.gather(*starts, return_exceptions=True)
    links = [link for link in found if isinstance(link, WorkerLink)]
    if errors := [error for error in found if isinstance(error, BaseException)]:
        await asyncio.gather(*(link.shutdown() for link in links))
        raise errors[0]
    return links


async def start_worker(
    path: str, settings: ServerSettings, config: ServingConfig, index: int = 0
) -> WorkerLink:
    """Start worker number `index`."""
    return await started(ProcessLink(arguments(path, settings, config, index)))


async def started(link: WorkerLink) -> WorkerLink:
    """A link once its worker is ready; a start that fails or is cancelled leaves nothing behind."""
    try:
        await link.startup()
    except BaseException:
        link.kill()
        await link.shutdown()
        raise
    return link


def arguments(
    path: str, settings: ServerSettings, config: ServingConfig, index: int = 0
) -> dict[str, Any]:
    """What worker number `index` is told on its command line."""
    return {
        "path": path,
        "executor": asdict(executor_of(settings, config, index)),
        "max_batch_size": config.max_batch_size,
        "batch_axis": settings.batch_axis,
        "shape": settings.shape,
        "max_result_bytes": most_bytes(settings.max_memory_mb),
    }
