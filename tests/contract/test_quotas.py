"""Both readers of a container's quota, the proxy's and the generator's: the same answer for any tree."""

import pytest

from dlbench.loadgen.analysis.container import limits
from dlbench.proxy.config import physical_cores
from dlbench.proxy.quota import cpu_quota, whole_cores
from dlbench.tuner.targets.pin import pinned
from testbed.trees import plant

V2, V1, OLD_V1 = "0::/pod/app\n", "3:cpu,cpuacct:/pod/app\n0::/\n", "3:cpuacct,cpu:/pod/app\n"


def v1(folder, quota, period="100000"):
    return {f"{folder}/cpu.cfs_quota_us": quota, f"{folder}/cpu.cfs_period_us": period}


TREES = {
    "no control groups": (None, "", {}),
    "v2, none": (None, V2, {"pod/app/cpu.max": "max 100000\n", "cpu.max": "max 100000"}),
    "v2, half a core": (0.5, V2, {"pod/app/cpu.max": "50000 100000\n"}),
    "v2, another period": (1.5, V2, {"pod/app/cpu.max": "15000 10000\n"}),
    "v2, the parent's": (
        2.0,
        V2,
        {"pod/app/cpu.max": "max 100000", "pod/cpu.max": "200000 100000"},
    ),
    "v2, the tightest": (
        1.0,
        V2,
        {"pod/app/cpu.max": "400000 100000", "pod/cpu.max": "100000 100000"},
    ),
    "v2, the root's": (3.0, V2, {"cpu.max": "300000 100000"}),
    "v2, a sibling's": (None, V2, {"pod/other/cpu.max": "100000 100000", "other/cpu.max": "1 1"}),
    "v2, a path that is the one outside": (2.0, "0::/../../x\n", {"cpu.max": "200000 100000"}),
    "v2 beside v1": (2.0, V2, {"unified/pod/app/cpu.max": "200000 100000"}),
    "v1, none": (None, V1, v1("cpu,cpuacct/pod/app", "-1")),
    "v1": (2.0, V1, v1("cpu,cpuacct/pod/app", "200000")),
    "v1, the parent's": (
        0.25,
        V1,
        v1("cpu,cpuacct/pod/app", "-1") | v1("cpu,cpuacct/pod", "25000"),
    ),
    "v1, a path that is the one outside": (2.0, V1, v1("cpu,cpuacct", "200000")),
    "v1, mounted by one name": (2.0, V1, v1("cpu/pod/app", "200000")),
    "v1, named the other way round": (2.0, OLD_V1, v1("cpu/pod/app", "200000")),
    "nonsense": (None, V2, {"pod/app/cpu.max": "0 0", "pod/cpu.max": "many"}),
}


@pytest.fixture(params=list(TREES))
def tree(request, tmp_path):
    """A root that looks like /, and the quota in it."""
    quota, groups, files = TREES[request.param]
    files = {f"sys/fs/cgroup/{path}": text for path, text in files.items()}
    return plant(tmp_path, {"proc/self/cgroup": groups, **files}), quota


def test_the_smallest_on_the_way_up_counts(tree):
    root, quota = tree
    assert cpu_quota(root) == quota
    assert limits(root).cpus == quota


def test_no_more_workers_than_it_pays_for(tree, tmp_path):
    root, quota = tree
    most = physical_cores(tmp_path / "no such root")
    assert physical_cores(root) == (most if quota is None else min(most, whole_cores(quota)))


def test_the_server_s_and_the_client_s_cores_are_within_it(tree):
    root, quota = tree
    found = pinned("auto", root)
    if quota is not None:
        assert len(found.server or ()) + len(found.client or ()) <= quota
