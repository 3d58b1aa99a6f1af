"""The unit, by systemd's own checker."""

import re
import shlex

from dlbench.results.deploy.systemd import PROGRAM, unit


def test_systemd_takes_every_one(any_deployment, verify):
    assert verify(unit(any_deployment)) == (0, "")


def test_the_check_refuses_what_is_wrong(deploy, verify):
    _, said = verify(unit(deploy()).replace("KillMode=mixed", "KillMode=mixd"))
    assert "kill mode" in said


def test_what_is_started_is_the_model_under_its_name(any_deployment):
    (line,) = re.findall(r"^ExecStart=(.*)$", unit(any_deployment), re.MULTILINE)
    words = [w.replace("%%", "%").replace("$$", "$") for w in shlex.split(line)]
    assert words[:3] == [PROGRAM, "serve", f"/srv/dlbench/{any_deployment.path.name}"]
    assert words[3] == f"--name={any_deployment.name}"
    assert words[-1] == f"/etc/dlbench/{any_deployment.label}.toml"


def test_limits_are_what_was_measured(deploy):
    text = unit(deploy())
    assert "\nCPUQuota=300%\nMemoryMax=287M\n" in text
    assert "CPUQuota" not in unit(deploy(resources={}))
    assert "\nTimeoutStopSec=40\n" in text
