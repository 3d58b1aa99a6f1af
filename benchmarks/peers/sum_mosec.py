"""The sum of a row behind mosec, JSON both ways: `python sum_mosec.py --port N`."""

from __future__ import annotations

from mosec import Server, Worker


class Sum(Worker):
    """One worker, no batching."""

    def forward(self, data: dict[str, list[list[float]]]) -> dict[str, float]:
        return {"y": sum(data["x"][0])}


if __name__ == "__main__":
    server = Server()
    server.append_worker(Sum)
    server.run()
