"""Runs a demo model once on one device and says so: `python -m dlbench.doctor.probe DEVICE`.

A process of its own, since a provider whose libraries do not fit may take its process with it.
The last line on standard output is the JSON of a `Provider`; no such line: it crashed.
"""

from __future__ import annotations

import re
import sys

from dlbench.doctor.devices import Provider
from dlbench.proxy.config import ServingConfig
from dlbench.proxy.errors import ProxyError
from dlbench.proxy.models.demo import demo_path
from dlbench.proxy.models.signature import first_line
from dlbench.proxy.settings import ServerSettings
from dlbench.proxy.workers.providers import executor_of

# A session alone does not show that what it loaded computes here; convolutions go through cuDNN.
MODEL, ROW = "cnn", (1, 1, 28, 28)
OPTION = re.compile(r"^--device \w+: ")  # which nobody gave here


def probe(device: str) -> Provider:
    """What becomes of a session on `device`, and of a run."""
    from dlbench.proxy.workers.session import Session

    settings = ServerSettings.model_validate({"device": device})
    try:
        session = Session(str(demo_path(MODEL)), executor_of(settings, ServingConfig(), 0))
        session.shapes_of([ROW])
    except ProxyError as error:
        return Provider(device=device, works=False, reason=OPTION.sub("", str(error)))
    except Exception as error:  # whatever onnxruntime raises from a run
        return Provider(device=device, works=False, reason=first_line(error))
    return Provider(device=device, works=True, reason="")


if __name__ == "__main__":
    print(probe(sys.argv[1]).model_dump_json())
