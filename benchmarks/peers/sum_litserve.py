"""The sum of a row behind LitServe, as its first example does it: `python sum_litserve.py PORT`."""

from __future__ import annotations

import sys

import litserve


class Sum(litserve.LitAPI):
    """`{"input": [[…]]}` to `{"output": …}`."""

    def setup(self, device: str) -> None:
        """There is no model to load."""

    def decode_request(self, request):
        return request["input"][0]

    def predict(self, row):
        return sum(row)

    def encode_response(self, output):
        return {"output": output}


if __name__ == "__main__":
    server = litserve.LitServer(Sum(), accelerator="cpu")
    quiet = {"log_level": "warning", "access_log": False, "generate_client_file": False}
    server.run(host="127.0.0.1", port=int(sys.argv[1]), **quiet)
