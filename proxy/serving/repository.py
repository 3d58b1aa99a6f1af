"""The models of a proxy by name: which are served, which could be, loading and unloading."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from typing import TYPE_CHECKING, Any

import orjson
from pydantic import ValidationError

from dlbench.proxy.config import ServingConfig
from dlbench.proxy.errors import (
    BadRequest,
    ModelError,
    NotFound,
    ProxyError,
    RequestError,
    TooLarge,
)
from dlbench.proxy.http.encoding import AT_ONCE
from dlbench.proxy.models.model import ModelFile, find_models, resolve_model
from dlbench.proxy.serving.served import ServedModel, serve_model
from dlbench.proxy.workers.start import all_or_none

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dlbench.proxy.cache.backend import Backend
    from dlbench.proxy.http.json_process import Aside
    from dlbench.proxy.settings import ServerSettings
    from dlbench.proxy.telemetry.spans import Spans

LOG = logging.getLogger(__name__)


class Repository:
    """Models that are served and models that can be."""

    def __init__(
        self,
        settings: ServerSettings,
        config: ServingConfig,
        backend: Backend,
        spans: Spans,
        on_fatal: Callable[[ProxyError], None],
        aside: Aside,
    ) -> None:
        """`on_fatal` hears when the only model's workers cannot be kept alive.

        `aside` reads large requests for all models.
        """
        self.aside = aside
        self.on_change: Callable[[], None] = lambda: None
        self._settings, self._config = settings, config
        self._backend, self._spans, self._on_fatal = backend, spans, on_fatal
        self._sources = _sources(settings)
        self._served: dict[str, ServedModel] = {}
        self._reasons: dict[str, str] = {}
        self._changing = asyncio.Lock()
        self._reloads: set[asyncio.Task[None]] = set()
        self._reloading: set[str] = set()
        self._retiring: dict[asyncio.Task[None], ServedModel] = {}

    @property
    def models(self) -> Sequence[ServedModel]:
        """Those that are served, in the order of loading."""
        return list(self._served.values())

    @property
    def pids(self) -> dict[str, Any]:
        """The front's process and all workers'."""
        return {
            "front": os.getpid(),
            "workers": [pid for m in self.models for pid in m.supervisor.pids],
        }

    async def startup(self) -> None:
        """Load the models named on the command line; if one fails, none is left."""
        names = [source.name for source in _named(self._settings)]
        starts = [self._started(self._sources[name], self._config) for name in names]
        models = await all_or_none(starts, ServedModel.shutdown)
        self._served = {model.name: model for model in models}

    def get(self, name: str = "", version: str = "") -> ServedModel:
        """A served model; without a name the only one.

        Raises:
            NotFound: it is not served, or not in this version.
        """
        alone = not name and len(self._served) == 1
        model = next(iter(self._served.values())) if alone else self._served.get(name)
        if model is None or version not in ("", model.version):
            raise NotFound(self.unknown(f"{name} version {version}" if version else name))
        return model

    def refused(self, error: RequestError) -> None:
        """Count an unreadable request, whose model is unknown."""

    def unknown(self, what: str) -> str:
        """The error for an unknown model, listing those served."""
        there = ", ".join(f"{m.name} (version {m.version})" for m in self.models) or "none"
        return f"unknown model {what!r}; served here: {there}"

    def index(self, *, ready: bool = False) -> list[dict[str, str]]:
        """Name, version, state and reason of every model; only served ones with `ready`."""
        rows = [
            _row(m.name, m.version, "READY" if m.ready else "UNAVAILABLE", "") for m in self.models
        ]
        if not ready:
            self._scan()
            rows += [
                _row(name, source.version, "UNAVAILABLE", self._reasons.get(name, "not loaded"))
                for name, source in self._sources.items()
                if name not in self._served
            ]
        return rows

    async def load(self, name: str, knobs: dict[str, Any] | None = None) -> None:
        """Serve a model, or reload it from its file; `knobs` override the proxy's.

        Raises:
            BadRequest: it is not in the repository, it cannot be loaded, or a knob is wrong.
        """
        self._scan()
        source = self._sources.get(name)
        if source is None:
            raise BadRequest(
                f"no model {name!r} in the repository; it has {', '.join(self._sources)}"
            )
        config = _config(self._config, knobs or {})
        async with self._changing:
            try:
                model = await self._started(source, config)
            except ProxyError as error:
                self._reasons[name] = str(error)
                raise BadRequest(f"{name} cannot be loaded: {error}") from None
            self._replace(name, model)

    async def unload(self, name: str) -> None:
        """Serve a model no more; what was accepted is answered.

        Raises:
            BadRequest: it is not served.
        """
        async with self._changing:
            if name not in self._served:
                raise BadRequest(f"{name!r} is not loaded")
            self._reasons[name] = "unloaded"
            self._replace(name, None)

    async def shutdown(self) -> None:
        """Stop all workers of all models."""
        for task in self._reloads:
            task.cancel()
        for model in self._retiring.values():
            model.hurried = True
        await asyncio.gather(*self._reloads, *self._retiring, return_exceptions=True)
        await asyncio.gather(*(model.shutdown() for model in self._served.values()))

    def _replace(self, name: str, model: ServedModel | None) -> None:
        """Requests go to the new one from now on, the old one finishes what it has."""
        old = self._served.pop(name, None)
        if model is not None:
            self._served[name] = model
        self.on_change()
        if old is not None:
            task = asyncio.ensure_future(old.retire(self._settings.drain_timeout_s))
            self._retiring[task] = old
            task.add_done_callback(self._retiring.pop)

    async def _started(self, source: ModelFile, config: ServingConfig) -> ServedModel:
        def give_up(error: ProxyError) -> None:
            self._gave_up(model, error)

        def reload() -> None:
            task = asyncio.ensure_future(self._reload(source.name, config))
            self._reloads.add(task)
            task.add_done_callback(self._reloads.discard)

        settings, backend = self._settings, self._backend
        try:
            model = await serve_model(source, settings, config, backend, give_up, reload)
        except OSError as error:  # a file that was found may be gone, or not for us to read
            raise ModelError(f"{source.path}: {error.strerror}") from None
        model.aside = self.aside
        model.submit = self._spans.submitting(model.name, model.submit)
        return model

    async def _reload(self, name: str, config: ServingConfig) -> None:
        """The file was replaced: serve what it holds now, with the same knobs."""
        if name in self._reloading:
            return
        self._reloading.add(name)
        try:
            await self.load(name, config.model_dump())
        except RequestError as error:
            LOG.error("%s", error)
        finally:
            self._reloading.discard(name)

    def _gave_up(self, model: ServedModel, error: ProxyError) -> None:
        """Unload a model without workers; stop the proxy only if it has no other model."""
        if model in self._retiring.values():  # another one has its name by now
            return
        if not [other for other in self._served.values() if other is not model]:
            self._on_fatal(error)
            return
        LOG.error("%s is no longer served: %s", model.name, error)
        self._reasons[model.name] = str(error)
        self._replace(model.name, None)

    def _scan(self) -> None:
        """Models may be put into the folder at any time."""
        if self._settings.repository:
            with contextlib.suppress(ProxyError):
                self._sources = {
                    **find_models(self._settings.repository),
                    **_by_name(self._settings),
                }


def _named(settings: ServerSettings) -> list[ModelFile]:
    """The models of the command line; --name is for the first."""
    found = [resolve_model(text) for text in (settings.model, *settings.also) if text]
    if settings.name and found:
        found[0] = ModelFile(found[0].path, settings.name)
    return found


def _by_name(settings: ServerSettings) -> dict[str, ModelFile]:
    return {source.name: source for source in _named(settings)}


def _sources(settings: ServerSettings) -> dict[str, ModelFile]:
    named = _named(settings)
    names = [source.name for source in named]
    if twice := [name for name in names if names.count(name) > 1]:
        raise BadRequest(f"two models are named {twice[0]!r}; rename one with NAME=PATH")
    there = find_models(settings.repository) if settings.repository else {}
    return {**there, **_by_name(settings)}


def _config(config: ServingConfig, knobs: dict[str, Any]) -> ServingConfig:
    try:
        return ServingConfig.model_validate({**config.model_dump(), **knobs})
    except ValidationError as error:
        first = error.errors()[0]
        raise BadRequest(f"config: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def load_parameters(body: bytes) -> dict[str, Any]:
    """The knobs in a load request's parameter `config`, a JSON object in a string as V2 has it.

    Raises:
        BadRequest: it is no such thing.
        TooLarge: reading it would hold up everybody.
    """
    if not body:
        return {}
    if len(body) > AT_ONCE:
        raise TooLarge(f"a load request may have at most {AT_ONCE} bytes, not {len(body)}")
    try:
        parameters = orjson.loads(body).get("parameters", {})
        if files := [name for name in parameters if name.startswith("file:")]:
            raise BadRequest(
                f"parameter {files[0]!r} is not supported: models come from files here"
            )
        knobs = orjson.loads(parameters.get("config", "{}"))
    except (orjson.JSONDecodeError, AttributeError, TypeError):
        raise BadRequest('load takes {"parameters": {"config": "{…knobs…}"}}') from None
    if not isinstance(knobs, dict):
        raise BadRequest("parameter 'config' must be a JSON object in a string")
    return knobs


def _row(name: str, version: str, state: str, reason: str) -> dict[str, str]:
    return {"name": name, "version": version, "state": state, "reason": reason}
