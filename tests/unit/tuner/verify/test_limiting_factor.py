"""What limits a configuration: measured where that tells, else simulated."""

import pytest

from dlbench.proxy.config import ServingConfig
from dlbench.tuner.point import Resources
from dlbench.tuner.twin.calibration import Calibration, ServiceTime
from dlbench.tuner.twin.scenario import Load
from dlbench.tuner.verify.limiting_factor import limit, measured_limit
from testbed import made

SERVICES = (ServiceTime(batch=1, seconds=0.001), ServiceTime(batch=8, seconds=0.004))
CALIBRATION = Calibration(services=SERVICES, cores=4, client_s=1e-6)
APART = CALIBRATION.model_copy(update={"client_s": 0.0})
CONFIG = ServingConfig(workers=1)


def probe(server=None, client=0.1, config=CONFIG):
    resources = Resources(server_cpu=server)
    return made.point("c01", "probe", None, config=config, resources=resources, client_cpu=client)


@pytest.mark.parametrize(
    ("server", "client", "said"),
    [
        (3.8, 0.1, "the cores: server 3.8 and client 0.1 of 4 cores"),
        (1.0, 0.95, "the load generator: 95% of a core busy"),
        (1.0, 0.1, ""),
        (None, 0.1, ""),
    ],
)
def test_what_is_measured_to_be_used_up(server, client, said):
    assert measured_limit(probe(server, client), CALIBRATION) == said


def test_a_client_on_cores_of_its_own_takes_none_of_the_server_s():
    assert measured_limit(probe(3.0, 0.5), CALIBRATION).startswith("the cores")
    assert measured_limit(probe(3.0, 0.5), APART) == ""
    assert measured_limit(probe(3.8, 0.5), APART) == "the cores: server 3.8 of 4 cores"
    assert "load generator" in measured_limit(probe(1.0, 0.95), APART)


def test_what_the_probe_does_not_tell_the_twin_does():
    load = Load(rate_rps=1.0)
    found = limit(CONFIG, [probe(1.0)], CALIBRATION, load)
    assert found.startswith("the workers: 1")
    assert found.endswith("(simulated; measured: server 1.0 and client 0.1 of 4 cores)")
    other = probe(4.0, config=ServingConfig(workers=2))
    assert limit(CONFIG, [other], CALIBRATION, load).endswith("(simulated)")
    assert limit(CONFIG, [probe(4.0)], CALIBRATION, load).startswith("the cores")


def test_a_configuration_that_never_ran_has_only_the_twin():
    failed = made.point("c01", "probe", None, config=CONFIG, measurement=None, failure="no")
    assert "simulated" in limit(CONFIG, [failed], CALIBRATION, Load(rate_rps=1.0))
