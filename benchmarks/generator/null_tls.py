"""The null server behind TLS: `python null_tls.py CERTIFICATE KEY`, one JSON line with its port."""

import asyncio
import json
import os
import ssl
import sys

import uvloop

from dlbench.loadgen.null_server import INPUTS, OUTPUTS, CannedReplies, NullProtocol


async def serve(certificate: str, key: str) -> None:
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    answers = CannedReplies(INPUTS, OUTPUTS)
    server = await loop.create_server(
        lambda: NullProtocol(answers, 0), "127.0.0.1", 0, backlog=1024, ssl=context
    )
    print(json.dumps({"port": server.sockets[0].getsockname()[1]}), flush=True)
    loop.add_reader(0, lambda: os.read(0, 4096) or ended.set())
    await ended.wait()


if __name__ == "__main__":
    uvloop.run(serve(*sys.argv[1:]))
