"""A process that offers shares of loads: `python -m dlbench.loadgen.locust.worker`, a Locust worker.

It ends with its master (which says so, or is not heard of for a minute) and with its standard
input: whoever starts it holds the other end, and so leaves nothing behind.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
from argparse import Namespace
from typing import TYPE_CHECKING

import gevent

# First, because it patches the standard library.
import locust.runners
from locust.env import Environment

from dlbench.loadgen.locust.user import LoadUser

if TYPE_CHECKING:
    from locust.runners import WorkerRunner

READ = 1
# Locust's own are 3 s: the page would show each second's rate in bursts.
REPORT_S = 1.0
# Locust's own are 60 s: a master that went without a word, or whose last one was lost, is missed sooner.
MISSED_S = 20


def on_leash() -> None:
    """End with standard input."""
    watcher = gevent.get_hub().loop.io(0, READ)
    watcher.start(lambda: None if os.read(0, 1) else os._exit(0))


def connect(host: str, port: int) -> WorkerRunner:
    """Keep trying for five minutes. Raises ConnectionError."""
    locust.runners.WORKER_REPORT_INTERVAL = REPORT_S
    locust.runners.MASTER_HEARTBEAT_TIMEOUT = MISSED_S
    options = Namespace(web_base_path="", enable_rebalancing=False)
    environment = Environment(user_classes=[LoadUser], parsed_options=options)
    return environment.create_worker_runner(host, port)


def leave(runner: WorkerRunner) -> None:
    """Tell the master, so that it need not miss us."""
    events = runner.environment.events
    events.quitting.fire(environment=runner.environment)  # type: ignore[no-untyped-call]
    runner.client.close(linger=500)  # type: ignore[no-untyped-call]
    os._exit(130)


def main() -> None:
    """Work for one master until it goes."""
    parser = argparse.ArgumentParser(prog="dlbench.loadgen.locust.worker")
    parser.add_argument("--master-host", required=True)
    parser.add_argument("--master-port", type=int, required=True)
    place = parser.parse_args()
    logging.basicConfig(level=logging.ERROR, stream=sys.stderr)
    on_leash()
    try:
        runner = connect(place.master_host, place.master_port)
    except ConnectionError:
        sys.exit(f"no master at {place.master_host}:{place.master_port}")
    gevent.signal_handler(signal.SIGINT, leave, runner)
    runner.greenlet.join()


if __name__ == "__main__":
    main()
