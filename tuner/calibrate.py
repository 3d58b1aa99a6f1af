"""What the client can do on this machine with a model's requests: a probe may not ask for more."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dlbench.loadgen.headroom import calibrate
from dlbench.tuner.errors import TuneError

if TYPE_CHECKING:
    from dlbench.loadgen.generator import Generator
    from dlbench.loadgen.profile import LoadProfile
    from dlbench.loadgen.target import Target


def client_rps(generator: Generator, target: Target, profile: LoadProfile) -> float:
    """Requests per second that the generator reaches when the server has nothing to do.

    Raises TuneError where that cannot be found out: every share of a capacity would be a guess.
    """
    headroom = calibrate(generator, target, profile)
    if headroom.max_rps is None:
        raise TuneError(headroom.missing)
    return headroom.max_rps
