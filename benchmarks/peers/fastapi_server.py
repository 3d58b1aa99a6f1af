"""The model behind FastAPI and uvicorn: raw bytes in and out, one session in each process.

    MODEL=path KIND=magika uvicorn fastapi_server:app --workers 2 --port N

`session.run` is called on the event loop: for a model this short a thread would mostly wait for it.
"""

from __future__ import annotations

import os

from fastapi import FastAPI, Request, Response
from model import Model

app = FastAPI()
model = Model(os.environ["MODEL"], os.environ["KIND"])


@app.get("/health")
async def health() -> Response:
    return Response()


@app.post("/inference")
async def infer(request: Request) -> Response:
    body = await request.body()
    return Response(model.run([body])[0], media_type="application/octet-stream")
