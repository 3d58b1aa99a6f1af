"""A locustfile with dlbench's engine in it.

Start an inference server, and then, for example:

    locust -f docs/locustfile.py --headless -u 1 -t 10s --host http://127.0.0.1:8000
    locust -f docs/locustfile.py --headless -u 2 --processes 2 --host http://127.0.0.1:8000
    locust -f docs/locustfile.py Sequence --headless -u 10 -t 10s --host http://127.0.0.1:8000

`--host` may name a model: http://127.0.0.1:8000/v2/models/mlp.
"""

from locust import constant, task

from dlbench.loadgen.locust.user import InferenceUser


class SteadyLoad(InferenceUser):
    """An open loop of 200 requests per second, however many users there are: they share it.

    Latency counts from the scheduled time of each request. Give `-u` as many users as there are
    processes; one process is good for some 50,000 small requests per second.
    """

    load = {"rate": 200, "warmup_s": 0.5}  # what `dlbench load` takes as options  # noqa: RUF012

    @classmethod
    def measured(cls, found, samples):  # noqa: ANN001, ANN206
        """The whole load's result: `found` as `dlbench load --json` prints it, `samples` raw."""
        super().measured(found, samples)
        print(f"p99 {found.p99_ms:.2f} ms, interval {found.p99_low_ms} to {found.p99_high_ms} ms")


class Sequence(InferenceUser):
    """Tasks of one's own that send single requests: a closed loop, like any other Locust user."""

    wait_time = constant(0.1)

    @task
    def two_in_a_row(self) -> None:
        """Two requests of the same user."""
        self.infer()
        self.infer()
