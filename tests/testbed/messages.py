"""Requests to a model whose input x has three columns: as a tensor of V2's JSON, and as bytes."""

import json

INFER = "/v2/models/affine/infer"


def tensor(*data, name="x", shape=None, datatype="FP32"):
    return {"name": name, "datatype": datatype, "shape": shape or [1, len(data)], "data": [*data]}


X = tensor(1, 2, 3)
BODY = json.dumps({"inputs": [X]}).encode()


def post(body=BODY, path=INFER, headers="", length=None):
    """A request; its body is bytes, or a document. `length` says another than its own."""
    body = body if isinstance(body, bytes) else json.dumps(body).encode()
    size = len(body) if length is None else length
    head = f"POST {path} HTTP/1.1\r\nHost: h\r\nContent-Length: {size}\r\n{headers}\r\n"
    return head.encode() + body
