"""One operating point on its way into production: what every target is rendered from. Pure."""

from __future__ import annotations

import hashlib
import math
import re
import shlex
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from dlbench.loadgen.inputs.sizes import guess_notes
from dlbench.loadgen.profile import LoadProfile
from dlbench.loadgen.quantity import digits
from dlbench.proxy.config import ServingConfig
from dlbench.results.findings import changed, numbers, shown
from dlbench.results.printable import as_path, check_printable, escaped
from dlbench.results.records import recommended_toml

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from dlbench.proxy.settings import ServerSettings
    from dlbench.proxy.tensors import TensorSpec
    from dlbench.tuner.point import Point

# A measured mean hides bursts, and the p99 is made of those.
CPU_MARGIN = 1.25
# Arenas and heaps grow for hours, a measurement lasts seconds; beyond a memory limit a process dies.
MEMORY_MARGIN = 1.5
MIB = 2**20
# After the drain: workers stop, sockets close.
STOP_MARGIN_S = 10
# What figures depend on besides the configuration.
TOLD = ("dlbench", "onnxruntime-gpu", "onnxruntime")


@dataclass(frozen=True)
class Deployment:
    """A point, its model, and what was known where it was measured.

    `name` is what the model is served under, `path` its file here, `model_hash` what was measured; of
    the tensors `batch_axis` is -1 where there is none. `point` has its numbers of workers spelled out.
    `cores` are those that the server had, None where nobody knows. `versions` has at least our own.
    `options` are those of the export besides the point, as words. `guessed` are shapes that nobody
    stated, by input.
    """

    name: str
    path: Path
    model_hash: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    point: Point
    settings: ServerSettings
    study: str
    device: str
    machine: str
    cores: int | None
    load: Mapping[str, Any]
    versions: Mapping[str, str]
    options: tuple[str, ...] = ()
    guessed: Mapping[str, Sequence[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what is a command or a path in the files, and would be another one there.

        Raises:
            Unprintable: a name or a path has a line break, or what else cannot be copied.
        """
        check_printable("the model's name", self.name)
        check_printable("the model's path", str(self.path))
        check_printable("the study's name", self.study)
        for text in self.options:
            check_printable("the option", text)

    @property
    def config(self) -> ServingConfig:
        """Every knob's value."""
        return self.point.config

    @property
    def model(self) -> str:
        """The model's file at its place on the target."""
        return self.path.name

    @property
    def label(self) -> str:
        """The name as Kubernetes, compose and systemd take one (RFC 1035, at most 63 characters)."""
        plain = re.sub(r"[^a-z0-9]+", "-", self.name.lower())[:50].strip("-")
        return f"dlbench-{plain or 'model'}"

    @property
    def gpus(self) -> int:
        """GPUs that the workers are spread over; 0 on a CPU."""
        return 0 if self.device == "cpu" else len(self.settings.device_ids)

    @property
    def chosen_gpus(self) -> str:
        """The host's GPUs by number, as containers are given them; "" if the first ones do."""
        ids = self.settings.device_ids
        return ",".join(map(str, ids)) if self.gpus and ids != self._numbered else ""

    @property
    def _numbered(self) -> tuple[int, ...]:
        """GPUs as they are counted inside a container, whichever of the host's they are."""
        return tuple(range(len(self.settings.device_ids)))

    @property
    def caches(self) -> bool:
        """Whether results are kept."""
        return self.config.cache_size > 0 and self.config.cache_policy != "none"

    def package(self, *extras: str) -> str:
        """This version of ours as pip is asked for it, with what the settings need."""
        needed = {"grpc": self.settings.grpc_port, "otel": self.settings.otlp_endpoint}
        names = ",".join([*extras, *(name for name, setting in needed.items() if setting)])
        return f"dlbench{f'[{names}]' if names else ''}=={self.versions['dlbench']}"

    @property
    def scheme(self) -> str:
        """How the proxy is spoken to."""
        return "https" if self.settings.tls_cert else "http"

    @property
    def ports(self) -> dict[str, int]:
        """Protocol -> port that it is spoken on."""
        known = {"http": self.settings.port, "grpc": self.settings.grpc_port}
        return {name: port for name, port in known.items() if port}

    @property
    def stop_s(self) -> int:
        """How long the proxy may take to answer what it has accepted."""
        return math.ceil(self.settings.drain_timeout_s) + STOP_MARGIN_S

    @property
    def cpu_request(self) -> float | None:
        """Cores to reserve: what was busy at the point and the margin, in steps of 0.05."""
        busy = self.point.resources.server_cpu
        return None if busy is None else math.ceil(busy * CPU_MARGIN * 20) / 20

    @property
    def cpu_limit(self) -> float | None:
        """Cores that may be busy at once: every thread of every worker that is started, and the front.

        With less the quota is spent early in each period, and all of them stand still for its rest.
        """
        if self.cpu_request is None:
            return None
        config = self.config
        workers = config.workers if config.autoscaler == "none" else config.most_workers
        return max(self.cpu_request, workers * config.intra_op_threads + 1)

    @property
    def memory_mib(self) -> int | None:
        """Memory to reserve and to limit to: what was resident, the margin, and a full cache.

        How full the cache was is not known; a measurement seldom fills it.
        """
        resident_mb = self.point.resources.server_rss_mb
        if resident_mb is None:
            return None
        cache_mib = self.config.cache_max_mb if self.caches else 0.0
        return math.ceil(resident_mb * 1e6 * MEMORY_MARGIN / MIB + cache_mib)

    def export(self, target: str) -> str:
        """The command that writes this deployment for another target, of the same settings."""
        words = ["--to", target, "--point", self.point.name, *self.options]
        return shlex.join(["dlbench", "export", as_path(self.study), *words])

    @cached_property
    def tag(self) -> str:
        """Changes with what is served, model and configuration."""
        served = self.model_hash + self.toml()
        return hashlib.blake2b(served.encode(), digest_size=6).hexdigest()

    def toml(self, **settings: Any) -> str:  # noqa: ANN401 - fields of ServerSettings
        """What `dlbench serve --config` takes, with some settings as they are where it will run.

        Line breaks are all that is not printable in it: files of other kinds hold it as it is.
        """
        text = recommended_toml(self.point.config, self.settings.model_copy(update=settings), {})
        return "".join(f"{escaped(line)}\n" for line in text.lstrip().rstrip("\n").split("\n"))

    def toml_in_container(self) -> str:
        """The same inside a container, where only its own address and its own GPUs are left."""
        return self.toml(
            model=f"/models/{self.model}",
            name=self.name,
            host="0.0.0.0",
            insecure=not self.settings.token_file,
            device_ids=self._numbered,
        )

    @property
    def provenance(self) -> list[str]:
        """Lines that say which point this is, what it did, and under which load on which machine."""
        used = self.point.resources
        again = "verified" if self.point.phase == "verify" else "measured once, NOT verified"
        lines = [
            # A name is never the first word: "# escape=x" is an order to Docker.
            f"operating point {self.point.name} of {self.study}, {self.name}: "
            f"{', '.join(changed(self.config, ServingConfig())) or 'all defaults'}",
            f"{again}: {numbers(self.point)} (95 % intervals)",
            f"on {self.machine}, {self.device}; {_pairs(self.versions, TOLD)}",
            f"under {_load(self.load)}",
            *guess_notes(self.guessed),
        ]
        if used.server_cpu is not None and used.server_rss_mb is not None:
            lines.append(
                f"busy: {digits(used.server_cpu)} cores, {digits(used.server_rss_mb)} MB resident"
            )
        return lines

    @property
    def margins(self) -> list[str]:
        """How requests and limits follow from what was measured."""
        if self.cpu_request is None:
            return [
                "CPU and memory were not measured at this point, so no requests or limits are set"
            ]
        return [
            f"CPU request: busy x {CPU_MARGIN:g}; limit: the threads of all workers, and the front",
            f"memory request and limit: resident x {MEMORY_MARGIN:g}"
            + (", and cache_max_mb" if self.caches else ""),
        ]

    @property
    def access(self) -> str:
        """Who can reach the proxy, and how to restrict it."""
        if self.settings.token_file:
            return "Mount the files that serve.toml names: token_file, and tls_* if it has them."
        return (
            "Anyone who can reach it can use it; to require tokens, set token_file with "
            "--config and mount it."
        )


def comment(*groups: list[str]) -> str:
    """Lines as comments, groups apart; a line stays one, whatever a model is called."""
    whole = [[escaped(line) for line in lines] for lines in groups if lines]
    return "#\n".join("".join(f"# {line}\n" for line in lines) for lines in whole)


def unsaid(config: ServingConfig, reasons: Mapping[str, str]) -> list[str]:
    """What a target cannot say of a configuration: knobs that were set, each with the reason."""
    base = ServingConfig()
    lines = [
        f"  {knob} {shown(getattr(config, knob))}: {why}"
        for knob, why in reasons.items()
        if getattr(config, knob) != getattr(base, knob)
    ]
    return ["Not in this file, because it has no equivalent:", *lines] if lines else []


def _load(load: Mapping[str, Any]) -> str:
    """What is repeated decides what a cache is worth, so it is always said."""
    base = LoadProfile().model_dump(mode="json")
    changed = [f"{k} {shown(v)}" for k, v in load.items() if v != base.get(k)]
    return f"open-loop load, {', '.join(changed) or 'every input distinct'}"


def _pairs(versions: Mapping[str, str], names: tuple[str, ...]) -> str:
    return ", ".join(f"{name} {versions[name]}" for name in names if name in versions)
