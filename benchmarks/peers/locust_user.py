"""Stock Locust with FastHttpUser: headless, in a process of its own, one task that posts a body.

    python locust_user.py WHERE PATH BODY_FILE HEADERS USERS WARM_S SECONDS [RATE]

WHERE is a port of this machine, or an origin ("https://localhost:8443"), whose certificate Locust
does not verify unless it is told to. Prints one line of JSON. Without RATE a user sends again at once; with it the users share RATE by
Locust's own `constant_throughput`. Counted: the replies and the processor time after the warm-up.
"""

import locust  # isort: skip - patches the process, so it must come first

import json
import sys
import time
from pathlib import Path

import gevent
from locust.env import Environment


def main(arguments: list[str]) -> None:
    where, path, body, headers, users, warm_s, seconds, *rate = arguments
    user = user_class(
        where if "://" in where else f"http://127.0.0.1:{where}",
        path,
        Path(body).read_bytes(),
        json.loads(headers),
        float(rate[0]) / int(users) if rate else None,
    )
    environment = Environment(user_classes=[user])
    runner = environment.create_local_runner()
    runner.start(int(users), spawn_rate=int(users))
    gevent.sleep(float(warm_s))
    environment.stats.reset_all()
    begin, cpu = time.perf_counter(), time.process_time()
    gevent.sleep(float(seconds))
    print(json.dumps(counted(environment, time.perf_counter() - begin, time.process_time() - cpu)))
    runner.quit()


def user_class(
    host: str, path: str, body: bytes, headers: dict[str, str], each: float | None
) -> type[locust.User]:
    """The user that Locust's own documentation would have us write."""

    class Poster(locust.FastHttpUser):
        wait_time = locust.constant_throughput(each) if each else locust.constant(0)

        @locust.task
        def post(self) -> None:
            self.client.post(path, data=body, headers=headers)

    Poster.host = host
    return Poster


def counted(environment: Environment, duration_s: float, cpu_s: float) -> dict[str, float]:
    total = environment.stats.total
    return {
        "requests": total.num_requests,
        "errors": total.num_failures,
        "duration_s": duration_s,
        "cpu_s": cpu_s,
        "p50_ms": total.get_response_time_percentile(0.5),
        "p99_ms": total.get_response_time_percentile(0.99),
        "max_ms": total.max_response_time,
    }


if __name__ == "__main__":
    main(sys.argv[1:])
