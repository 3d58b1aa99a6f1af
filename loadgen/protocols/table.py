"""Everything that differs between the protocols that a server may speak, as one table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dlbench.loadgen.protocols import grpc_v2, plain, tfserving, torchserve, v2
from dlbench.loadgen.protocols.grpc_v2 import GrpcLink
from dlbench.loadgen.protocols.http_link import HttpLink

if TYPE_CHECKING:
    from collections.abc import Callable

    from dlbench.loadgen.inputs.inputs import Row
    from dlbench.loadgen.location import Location
    from dlbench.loadgen.profile import LoadProfile
    from dlbench.loadgen.protocols.answer import Answer
    from dlbench.loadgen.protocols.encode import Body
    from dlbench.loadgen.target import Target


@dataclass(frozen=True)
class Protocol:
    """How to talk to a server.

    `link` opens the conversation before the load, in which `describe` learns what is served.
    `body` makes a request for a row; its last argument are V2's parameters.
    `read` understands a reply, or raises BadAnswer.
    """

    link: Callable[[Location, LoadProfile], HttpLink | GrpcLink]
    describe: Callable[[Any, Location, LoadProfile], Target]
    body: Callable[[Target, LoadProfile, Row, dict[str, int]], Body]
    read: Callable[[bytes, Target], Answer]
    # Whether requests go as HTTP/1.1; otherwise they are messages that the connection frames.
    http: bool = True
    # Whether priorities and deadlines can be told (V2's `priority` and `timeout`).
    parameters: bool = False


PROTOCOLS = {
    "v2": Protocol(HttpLink, v2.describe, v2.body, v2.read, parameters=True),
    "grpc": Protocol(
        GrpcLink, grpc_v2.describe, grpc_v2.body, grpc_v2.read, http=False, parameters=True
    ),
    "tfserving": Protocol(HttpLink, tfserving.describe, tfserving.body, tfserving.read),
    "torchserve": Protocol(HttpLink, torchserve.describe, torchserve.body, plain.read),
    "plain": Protocol(HttpLink, plain.describe, plain.body, plain.read),
}
