"""One model being served: its workers, its queues, its counts."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from dlbench.proxy.clock import now_ns
from dlbench.proxy.dispatch.dispatcher import Dispatcher
from dlbench.proxy.errors import ModelError
from dlbench.proxy.serving.scaling import NS_PER_S, Scaling
from dlbench.proxy.serving.supervisor import Supervisor
from dlbench.proxy.telemetry.metrics import WorkerSeen
from dlbench.proxy.telemetry.stats import ModelStats
from dlbench.proxy.tensors import signature_from
from dlbench.proxy.workers.remote import Introduction, NodeAddress, RemoteLink
from dlbench.proxy.workers.start import start_worker, start_workers, started

if TYPE_CHECKING:
    from collections.abc import Callable

    from dlbench.proxy.cache.backend import Backend
    from dlbench.proxy.config import ServingConfig
    from dlbench.proxy.dispatch.job import Job
    from dlbench.proxy.errors import ProxyError, RequestError
    from dlbench.proxy.http.json_process import Aside
    from dlbench.proxy.models.model import ModelFile
    from dlbench.proxy.request import InferRequest, Reply
    from dlbench.proxy.settings import ServerSettings
    from dlbench.proxy.tensors import Signature
    from dlbench.proxy.workers.link import WorkerLink

LOG = logging.getLogger(__name__)

# How often the autoscaler looks; a start takes about as long.
LOOK_S = 1.0
DRAIN_POLL_S = 0.02


@dataclass(frozen=True)
class ModelInfo:
    """What is said of a model once it is ready."""

    name: str
    version: str
    device: str
    device_reason: str
    batchable: bool
    inputs: list[dict[str, Any]]
    notes: list[str]


class ServedModel:
    """Takes requests for one version of a model."""

    def __init__(
        self, source: ModelFile, signature: Signature, hello: dict[str, Any], dispatcher: Dispatcher
    ) -> None:
        self.name, self.version = source.name, source.version
        self.signature = signature
        self.info = _info(source, signature, hello)
        self.dispatcher, self.core = dispatcher, dispatcher.core
        self.stats = dispatcher.stats
        dispatcher.on_less = self._batches_less
        self.submit: Callable[[InferRequest, Reply], Job] = dispatcher.submit
        self.abandon = dispatcher.abandon
        self.supervisor: Supervisor
        self.aside: Aside
        self.hurried = False  # nobody waits for what is under way any more
        self._watch: asyncio.Task[None]

    @property
    def config(self) -> ServingConfig:
        """The knobs that it is served with."""
        return self.core.config

    @property
    def caches(self) -> bool:
        """Whether results are kept."""
        return self.core.looks_up

    @property
    def ready(self) -> bool:
        """Whether any worker takes requests."""
        return bool(self.core.live)

    @property
    def waiting(self) -> int:
        """Requests in queues."""
        return self.core.waiting

    @property
    def in_flight(self) -> int:
        """Requests admitted and not answered."""
        return self.core.in_flight

    @property
    def cache_entries(self) -> int:
        """Results kept."""
        return sum(map(len, self.core.caches))

    @property
    def cache_bytes(self) -> int:
        """Bytes of the results kept."""
        return sum(cache.size_bytes for cache in self.core.caches)

    def workers_seen(self) -> list[WorkerSeen]:
        """The workers, dead ones included."""
        return [
            WorkerSeen(s.name, s.link.alive, s.outstanding, s.requests, s.link.pid, s.restarts)
            for s in self.supervisor.slots
        ]

    def refused(self, error: RequestError) -> None:
        """Count a request that could not be read."""
        self.stats.received()
        self.stats.refused(error.status)

    def start(self, supervisor: Supervisor) -> None:
        """Watch over the workers from now on."""
        self.supervisor = supervisor
        self._watch = asyncio.ensure_future(self._main_loop())

    async def shutdown(self) -> None:
        """Answer what is left, stop the workers."""
        self._watch.cancel()
        self.dispatcher.shutdown()
        await self.supervisor.shutdown()

    async def retire(self, timeout_s: float) -> None:
        """Answer what was accepted, if possible and unless hurried; then shut down."""
        deadline = now_ns() + int(timeout_s * NS_PER_S)
        while self.in_flight and not self.hurried and now_ns() < deadline:
            await asyncio.sleep(DRAIN_POLL_S)
        await self.shutdown()

    def _batches_less(self, rows: int, why: str) -> None:
        LOG.warning("%s is served with batches of at most %d from now on: %s", self.name, rows, why)

    async def _main_loop(self) -> None:
        """Look for hung workers often, and at the load every second."""
        looked = now_ns()
        scaling = Scaling(self.core, self.stats, self.supervisor, looked)
        while True:
            await asyncio.sleep(min(LOOK_S, self.config.worker_timeout_s / 2))
            now = now_ns()
            try:
                self.supervisor.check(now)
                if now - looked >= 0.9 * LOOK_S * NS_PER_S:
                    looked = now
                    scaling.look(now)
            except Exception:  # nobody else would look for hung workers any more
                LOG.exception("unexpected error while watching %s", self.name)


async def serve_model(
    source: ModelFile,
    settings: ServerSettings,
    config: ServingConfig,
    backend: Backend,
    on_fatal: Callable[[ProxyError], None],
    on_changed: Callable[[], None],
) -> ServedModel:
    """Start a model's workers and what stands before them.

    `on_changed` hears when a worker is to be started and the file, or one of its weights, is no
    longer what the others, and the keys of cached results, were made from.

    Raises:
        ModelError, DeviceError, StartError: in the failing worker's words; nothing is left.
    """
    path = str(source.path)
    fingerprint = await asyncio.to_thread(source.fingerprint)
    introduction = Introduction.of(settings, config, fingerprint)
    addresses = [NodeAddress.parse(text) for text in settings.remote_workers]
    # Without a number the first worker tells the device, and that the number.
    links = await start_workers(path, settings, config, range(config.workers or 1))
    hello = links[0].hello.result()
    config = config.resolved(hello["device"], len(settings.device_ids))
    signature = replace(
        signature_from(hello["signature"]),
        max_rows=settings.max_rows,
        max_bytes=settings.max_body_mb << 20,
    )
    independent = signature.batchable
    try:
        # Whether rows may share a batch the first says for all: two that disagree garble answers.
        others = [n for n, link in enumerate(links) if _batchable(link) != independent]
        await asyncio.gather(*(links[n].shutdown() for n in others))
        missing = [*others, *range(len(links), config.workers)]
        started_now = await start_workers(path, settings, config, missing, independent)
        found = {**dict(enumerate(links)), **dict(zip(missing, started_now, strict=True))}
        links = [found[number] for number in sorted(found)]
        if await asyncio.to_thread(source.fingerprint) != fingerprint:
            raise ModelError(f"{path} or its weights changed while workers loaded them: try again")
    except BaseException:
        await asyncio.gather(*(link.shutdown() for link in links))
        raise
    identity = f"{source.name}/{source.version}/".encode() + fingerprint
    dispatcher = Dispatcher(signature, identity, config, backend, ModelStats())
    served = ServedModel(source, signature, hello, dispatcher)
    ours = len(links) if config.autoscaler == "none" else max(len(links), config.most_workers)
    remote = dict(enumerate(addresses, ours))

    async def start(number: int) -> WorkerLink:
        if number in remote:
            return await started(RemoteLink(remote[number], introduction, signature))
        link = await start_worker(path, settings, config, number, independent)
        if await asyncio.to_thread(source.fingerprint) != fingerprint:
            await link.shutdown()
            served.hurried = True  # those who wait for a worker of the old file wait in vain
            on_changed()
            raise ModelError(f"{path} or its weights have changed; reloading it")
        return link

    supervisor = Supervisor(dispatcher, start, config.worker_weights, on_fatal, remote)
    supervisor.adopt(links)
    served.start(supervisor)
    return served


def _batchable(link: WorkerLink) -> bool:
    """Whether rows may share a batch, as this worker determined."""
    return bool(link.hello.result()["signature"]["batchable"])


def _info(source: ModelFile, signature: Signature, hello: dict[str, Any]) -> ModelInfo:
    axes = {s.name: s.batch_axis for s in signature.inputs if s.batch_axis > 0}
    notes = [f"{hello['device']}: {hello['device_reason']}"]
    notes += [f"the batch is axis {axis} of {name!r}" for name, axis in axes.items()]
    inputs = [
        {"name": s.name, "datatype": s.datatype, "shape": s.shape, "batch_axis": s.batch_axis}
        for s in signature.inputs
    ]
    return ModelInfo(
        source.name,
        source.version,
        hello["device"],
        hello["device_reason"],
        signature.batchable,
        inputs,
        [*notes, *signature.notes],
    )
