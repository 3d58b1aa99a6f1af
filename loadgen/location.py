"""What a URL says: where the server is, what it speaks, which model is meant. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from dlbench.loadgen.errors import TargetError

if TYPE_CHECKING:
    from dlbench.loadgen.profile import LoadProfile

PORTS = {"http": 80, "https": 443, "grpc": 80, "grpcs": 443}
V2_PATH = r"(/v2)?/?|/v2/models/(?P<model>[^/]+)(/versions/(?P<version>[^/]+))?(/infer)?/?"
# Tried in this order when nobody names the protocol.
PATHS = {
    "v2": V2_PATH,
    "tfserving": r"/v1/models/(?P<model>[^/:]+)(/versions/(?P<version>[^/:]+))?(:predict)?/?",
    "torchserve": r"/predictions/(?P<model>[^/]+)(/(?P<version>[^/]+))?/?",
    "plain": r"(?P<model>.*)(?P<version>)",
    "grpc": V2_PATH + r"|/(?P<name>(?!v2$)[^/]+)/?",
}
FORMS = {
    "v2": "http[s]://HOST:PORT[/v2/models/NAME[/versions/V]]",
    "tfserving": "http[s]://HOST:PORT/v1/models/NAME[/versions/V]",
    "torchserve": "http[s]://HOST:PORT/predictions/NAME[/VERSION]",
    "plain": "http[s]://HOST:PORT/PATH",
    "grpc": "grpc[s]://HOST:PORT[/NAME]",
}


@dataclass(frozen=True)
class Location:
    """`base` is scheme, host and port; `path` the rest of the URL, query included."""

    base: str
    path: str
    protocol: str
    model: str | None
    version: str | None


def locate(url: str, profile: LoadProfile) -> Location:
    """Read a URL; a protocol that is not stated follows from it. Raises TargetError."""
    base, path = _split(url)
    protocol = _protocol(base, path, profile)
    found = re.fullmatch(PATHS[protocol], path.partition("?")[0])
    if found is None or (protocol == "grpc") != base.startswith("grpc"):
        raise TargetError(f"{url!r} is not of the form {FORMS[protocol]}")
    named = found.groupdict()
    model = named["model"] or named.get("name")
    model = unquote(model) if model else model
    return Location(base, path, protocol, model or None, named["version"] or None)


def _split(url: str) -> tuple[str, str]:
    """(`scheme://host:port`, path with its query)."""
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        host, port = parts.hostname, parts.port or PORTS.get(parts.scheme, 0)
    except ValueError:
        raise TargetError(f"{url!r} is not a URL") from None
    if not host or parts.scheme not in PORTS or re.search(r"[\s\x00-\x1f]", url):
        raise TargetError(f"{url!r} is not of the form {FORMS['v2']} or {FORMS['grpc']}")
    literal = f"[{host}]" if ":" in host else host
    query = f"?{parts.query}" if parts.query else ""
    return f"{parts.scheme}://{literal}:{port}", parts.path + query


def _protocol(base: str, path: str, profile: LoadProfile) -> str:
    if profile.protocol != "auto":
        return profile.protocol
    if base.startswith("grpc"):
        return "grpc"
    if profile.template is not None:
        return "plain"
    for protocol in ("v2", "tfserving", "torchserve"):
        if re.fullmatch(PATHS[protocol], path):
            return protocol
    raise TargetError(
        f"{base}{path}: unrecognized path; for plain JSON add --protocol plain, and --template if "
        "the inputs have no names"
    )
