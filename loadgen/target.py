"""The server under load: where it is, what it speaks, what it serves."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict

from dlbench.loadgen.location import PORTS
from dlbench.loadgen.tensors import TensorSpec

if TYPE_CHECKING:
    from dlbench.loadgen.profile import LoadProfile

TLS_SCHEMES = ("https", "grpcs")


class Target(BaseModel):
    """A model that is ready to be loaded; `inputs` have no symbolic dimension but the batch.

    It travels to the generator's process. `protocol` is a key of `protocols.PROTOCOLS`; `path` is
    where inference requests go (of gRPC: the method's path); `outputs` () are unknown. `guessed` maps
    inputs to the shape of one row, as far as nobody stated it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str
    protocol: str = "v2"
    model: str
    version: str | None = None
    path: str
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    supports_binary: bool = False
    # Whether the server lists V2's statistics extension.
    statistics: bool = False
    guessed: dict[str, tuple[int, ...]] = {}
    notes: tuple[str, ...] = ()

    @property
    def host(self) -> str:
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        parts = urlsplit(self.url)
        return parts.port or PORTS[parts.scheme]

    @property
    def tls(self) -> bool:
        return urlsplit(self.url).scheme in TLS_SCHEMES

    @property
    def authority(self) -> str:
        """Host and port, as in a Host header."""
        return urlsplit(self.url).netloc

    def at(self, url: str) -> Target:
        """The same model on another server."""
        return self.model_copy(update={"url": url.rstrip("/")})

    def uses_binary(self, profile: LoadProfile) -> bool:
        """Whether requests carry raw tensors, after the profile's wish and the server's skills."""
        return {"auto": self.supports_binary, "binary": True, "json": False}[profile.encoding]
