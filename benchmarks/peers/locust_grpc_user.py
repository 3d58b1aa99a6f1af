"""A Locust user that calls a grpcio stub, as Locust's own documentation has it.

    python locust_grpc_user.py PORT USERS WARM_S SECONDS

Prints one line of JSON, as locust_user.py does.
"""

# ruff: noqa: E402 - patched first, imported after
import locust  # isort: skip - patches the process, so it must come first
import grpc.experimental.gevent  # isort: skip

grpc.experimental.gevent.init_gevent()

import json
import sys
import time

import gevent
import grpc
from locust.env import Environment
from locust_user import counted
from tritonclient.grpc import service_pb2, service_pb2_grpc

INPUT = service_pb2.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=[1, 16])
REQUEST = service_pb2.ModelInferRequest(
    model_name="null", inputs=[INPUT], raw_input_contents=[bytes(64)]
)


class Caller(locust.User):
    """One channel, one call after the other, each reported as an event."""

    wait_time = locust.constant(0)

    def __init__(self, environment):
        super().__init__(environment)
        self._channel = grpc.insecure_channel(self.host)
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)

    @locust.task
    def call(self):
        error, begin = None, time.perf_counter()
        try:
            self._stub.ModelInfer(REQUEST)
        except grpc.RpcError as failed:
            error = failed
        self.environment.events.request.fire(
            request_type="grpc",
            name="ModelInfer",
            response_time=(time.perf_counter() - begin) * 1000,
            response_length=0,
            exception=error,
        )


def main(port, users, warm_s, seconds):
    Caller.host = f"127.0.0.1:{port}"
    environment = Environment(user_classes=[Caller])
    runner = environment.create_local_runner()
    runner.start(int(users), spawn_rate=int(users))
    gevent.sleep(float(warm_s))
    environment.stats.reset_all()
    begin, cpu = time.perf_counter(), time.process_time()
    gevent.sleep(float(seconds))
    found = counted(environment, time.perf_counter() - begin, time.process_time() - cpu)
    print(json.dumps(found), flush=True)
    runner.quit()


if __name__ == "__main__":
    main(*sys.argv[1:])
