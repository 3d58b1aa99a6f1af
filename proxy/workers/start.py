"""Start workers: one, or several at once, all or none."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TypeVar

from dlbench.proxy.http.memory import most_bytes
from dlbench.proxy.workers.link import ProcessLink, WorkerLink
from dlbench.proxy.workers.providers import executor_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence

    from dlbench.proxy.config import ServingConfig
    from dlbench.proxy.settings import ServerSettings

Started = TypeVar("Started")


async def start_workers(
    path: str,
    settings: ServerSettings,
    config: ServingConfig,
    numbers: Iterable[int],
    independent: bool | None = None,
) -> list[WorkerLink]:
    """Start the workers of these numbers at once; if one fails, none is left.

    `independent` is what another worker found out about the model's rows.

    Raises:
        ModelError, DeviceError, StartError: in the first failing worker's words.
    """
    starts = [start_worker(path, settings, config, n, independent) for n in numbers]
    return await all_or_none(starts, WorkerLink.shutdown)


async def all_or_none(
    starts: Sequence[Coroutine[Any, Any, Started]],
    undo: Callable[[Started], Awaitable[None]],
) -> list[Started]:
    """The results of all; if one fails, or the wait is cancelled, the others are undone.

    Raises what the first one to fail raises, at once: one that would take longer is cancelled.
    """
    tasks = [asyncio.ensure_future(start) for start in starts]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(undo(one) for one in found if not isinstance(one, BaseException)))
        raise


async def start_worker(
    path: str,
    settings: ServerSettings,
    config: ServingConfig,
    index: int = 0,
    independent: bool | None = None,
) -> WorkerLink:
    """Start worker number `index`."""
    return await started(ProcessLink(arguments(path, settings, config, index, independent)))


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
    path: str,
    settings: ServerSettings,
    config: ServingConfig,
    index: int = 0,
    independent: bool | None = None,
) -> dict[str, Any]:
    """The command line of worker number `index`."""
    return {
        "path": path,
        "executor": asdict(executor_of(settings, config, index)),
        "max_batch_size": config.max_batch_size,
        "batch_axis": settings.batch_axis,
        "shape": settings.shape,
        "independent": settings.rows_independent or independent,
        "max_result_bytes": most_bytes(settings.max_memory_mb),
    }
