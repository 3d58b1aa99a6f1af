"""What is said of GPUs that were looked at now and then."""

import pytest

from dlbench.proxy.telemetry.resources import GpuUsage, NoGpus
from dlbench.tuner.targets.gpu_watch import GpuWatch, gpus_of


class Replayed:
    """GPUs that do one thing after the other."""

    def __init__(self, *looks):
        self._looks = iter(looks)

    def usage(self):
        return next(self._looks)


def gpu(number, utilization, used_mb):
    return GpuUsage(number, utilization, used_mb * 1_000_000, 80_000_000_000)


def watched(numbers, *looks):
    watch = GpuWatch(Replayed(*looks), numbers)
    for _ in looks:
        watch.look()
    return watch


def test_utilisation_is_the_mean_and_memory_the_most_of_the_server_s_own():
    looks = [gpu(0, 0.2, 300), gpu(1, 1.0, 9000)], [gpu(0, 0.8, 500), gpu(1, 1.0, 9000)]
    watch = watched((0,), *looks, [gpu(0, 0.5, 400)])
    assert watch.utilisation == pytest.approx(0.5)
    assert watch.most_mb == 500


def test_memory_of_several_is_that_of_all_together():
    watch = watched((0, 1), [gpu(0, 0.2, 300), gpu(1, 0.4, 100)], [gpu(0, 0.2, 100)])
    assert watch.utilisation == pytest.approx(0.8 / 3)
    assert watch.most_mb == 400


def test_a_partitioned_gpu_tells_its_memory_alone():
    watch = watched((0,), [gpu(0, None, 300)])
    assert (watch.utilisation, watch.most_mb) == (None, 300)


@pytest.mark.parametrize("looks", [(), ([],), ([gpu(7, 0.5, 300)],)])
def test_what_was_not_seen_is_not_said(looks):
    watch = watched((0,), *looks)
    assert (watch.utilisation, watch.most_mb) == (None, None)


def test_a_server_on_the_cpu_uses_no_gpu():
    assert isinstance(gpus_of("cpu"), NoGpus)
