"""grpc.health.v1 beside V2's service: what Kubernetes' gRPC probes and load balancers ask.

https://github.com/grpc/grpc-proto/blob/master/grpc/health/v1/health.proto. Its two messages are
made here, in a pool of their own: a process may have them from grpcio-health-checking as well.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

from dlbench.proxy.errors import NotFound, TooMany

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from dlbench.proxy.serving.repository import Repository

PACKAGE = "grpc.health.v1"
SERVING, NOT_SERVING, SERVICE_UNKNOWN = 1, 2, 3
# How often a watched model is looked at.
LOOK_S = 0.5
MOST_WATCHES = 1024
# The server goes by no name, and by that of what it serves.
SERVER = ("", "inference.GRPCInferenceService")


def _messages() -> tuple[Any, Any]:
    """The classes of HealthCheckRequest and HealthCheckResponse."""
    file = FileDescriptorProto(name="health.proto", package=PACKAGE, syntax="proto3")
    for name, field, kind in (
        ("HealthCheckRequest", "service", FieldDescriptorProto.TYPE_STRING),
        # On the wire an enum is an int32.
        ("HealthCheckResponse", "status", FieldDescriptorProto.TYPE_INT32),
    ):
        message = file.message_type.add(name=name)
        message.field.add(
            name=field, number=1, type=kind, label=FieldDescriptorProto.LABEL_OPTIONAL
        )
    pool = DescriptorPool()
    pool.Add(file)
    names = (f"{PACKAGE}.{message.name}" for message in file.message_type)
    request, response = (GetMessageClass(pool.FindMessageTypeByName(name)) for name in names)
    return request, response


REQUEST, RESPONSE = _messages()


class Health:
    """Says of the server, and of each model by its name, whether it serves.

    `authorize(context)` raises for who may not ask; the server's own health is for everybody.
    """

    def __init__(self, models: Repository, authorize: Callable[[Any], None]) -> None:
        self._models, self._authorize = models, authorize
        self._stopping = asyncio.Event()
        self._watches = 0

    def stop(self) -> None:
        """Nothing serves any more: tell who watches, and let them go."""
        self._stopping.set()

    async def check(self, request: Any, context: Any) -> Any:  # noqa: ANN401 - grpc ships no types
        """The current status. Raises NotFound for an unknown model."""
        self._let_in(request.service, context)
        return RESPONSE(status=self._status(request.service))

    async def watch(self, request: Any, context: Any) -> AsyncGenerator[Any]:  # noqa: ANN401 - grpc ships no types
        """How it is now, and whenever that changes. Raises TooMany."""
        self._let_in(request.service, context)
        if self._watches >= MOST_WATCHES:
            raise TooMany(f"{MOST_WATCHES} Watch calls are open already")
        self._watches += 1
        try:
            last = None
            while not self._stopping.is_set():
                if (status := self._watched(request.service)) != last:
                    last = status
                    yield RESPONSE(status=status)
                await self._next_look()
            yield RESPONSE(status=NOT_SERVING)
        finally:
            self._watches -= 1

    def _let_in(self, service: str, context: Any) -> None:  # noqa: ANN401 - grpc ships no types
        if service not in SERVER:
            self._authorize(context)

    def _watched(self, service: str) -> int:
        """A model that is not here may yet come."""
        try:
            return self._status(service)
        except NotFound:
            return SERVICE_UNKNOWN

    def _status(self, service: str) -> int:
        asked = self._models.models if service in SERVER else [self._models.get(service)]
        return SERVING if all(model.ready for model in asked) else NOT_SERVING

    async def _next_look(self) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), LOOK_S)
