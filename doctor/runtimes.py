"""Judgements on what runs the models: onnxruntime, its providers, NVIDIA's driver and libraries."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dlbench.doctor.finding import Assessment, at_most, judged, worst

if TYPE_CHECKING:
    from dlbench.doctor.cuda import Library
    from dlbench.doctor.devices import Provider
    from dlbench.doctor.facts import Facts
    from dlbench.doctor.finding import Verdict

RUNTIMES = ("onnxruntime", "onnxruntime-gpu")
# The oldest driver for each CUDA, as minor version compatibility has it; docs.nvidia.com,
# deploy/cuda-compatibility/minor-version-compatibility.html, table 1.
OLDEST_DRIVER = {11: 450, 12: 525, 13: 580}
CUDA_LIBRARIES = "pip install 'dlbench[cuda]'"
# A provider that does not work although there is a GPU: how bad that is, and what to do.
REMEDIES: dict[str, tuple[Verdict, str]] = {
    "cpu": ("bad", "pip install --force-reinstall onnxruntime-gpu"),
    "cuda": ("bad", CUDA_LIBRARIES),
    "tensorrt": ("note", "only --device tensorrt needs it: put TensorRT on LD_LIBRARY_PATH"),
}
BUSY_GPU, BUSIER_GPU = 0.05, 0.2
USED_MEMORY, MORE_MEMORY = 0.1, 0.5
GIB = 1 << 30


def runtime(facts: Facts) -> Assessment:
    """Both packages write into one folder, so of the two the one installed last wins."""
    found = {name: v for name, v in facts.machine.versions.items() if name in RUNTIMES}
    seen = ", ".join(f"{name} {number}" for name, number in found.items())
    if len(found) == 1:
        return Assessment("good", f"{seen}, Python {facts.machine.versions['python']}")
    advice = "pip uninstall -y onnxruntime{,-gpu}; pip install onnxruntime-gpu"
    return Assessment("bad", f"{seen}: one overwrites the other" if seen else "none", advice)


def provider(facts: Facts, device: str) -> Assessment | None:
    """Whether a model ran there; without a GPU, TensorRT is not worth a line beside CUDA's."""
    tried = next(one for one in facts.providers if one.device == device)
    if tried.works:
        return Assessment("good", "a model ran on it")
    if device != "cpu" and not facts.cuda.has_gpu:
        return _no_gpu(tried) if device == "cuda" else None
    verdict, advice = REMEDIES[device]
    return Assessment(verdict, tried.reason, advice)


def _no_gpu(tried: Provider) -> Assessment:
    seen = f"{tried.reason}: models run on the CPU"
    return Assessment("note", seen, "if there should be one in a container: docker run --gpus all")


def driver(facts: Facts) -> Assessment | None:
    """Whether NVIDIA's driver is new enough for the CUDA that onnxruntime was built with."""
    if not facts.cuda.has_gpu:
        return None
    needed = next((one for one in facts.cuda.libraries if one.name == "cuda-runtime"), None)
    oldest = OLDEST_DRIVER.get(_major(needed.needed)) if needed else None
    if facts.cuda.driver is None or needed is None or oldest is None:
        return Assessment("unknown", facts.cuda.driver or "its version is unknown")
    verdict: Verdict = "good" if _major(facts.cuda.driver) >= oldest else "bad"
    seen = f"{facts.cuda.driver}; CUDA {needed.needed} needs {oldest} or newer"
    return judged(verdict, seen, "sudo ubuntu-drivers install, or from nvidia.com/drivers")


def cuda_libraries(facts: Facts) -> Assessment | None:
    """Compare the libraries present with those needed; where CUDA works, they are present."""
    if not facts.cuda.has_gpu or not facts.cuda.libraries:
        return None
    fits = all(one.found and _fits(one) for one in facts.cuda.libraries)
    works = any(one.works for one in facts.providers if one.device == "cuda")
    seen = ", ".join(map(_compared, facts.cuda.libraries))
    return judged("good" if fits or works else "bad", seen, CUDA_LIBRARIES)


def _compared(library: Library) -> str:
    return f"{library.name} {library.found or 'none'} (needs {library.needed})"


def _fits(library: Library) -> bool:
    return library.found is not None and _major(library.found) == _major(library.needed)


def gpus(facts: Facts) -> Assessment | None:
    """Whether somebody else uses the GPUs; the worst of them counts."""
    if not facts.cuda.has_gpu:
        return None
    if not facts.gpus:
        return Assessment("unknown", "NVIDIA's library does not answer: pip install nvidia-ml-py")
    busy = max(one.utilization or 0.0 for one in facts.gpus)
    used = max(one.used_bytes / one.total_bytes for one in facts.gpus)
    verdicts = at_most(busy, BUSY_GPU, BUSIER_GPU), at_most(used, USED_MEMORY, MORE_MEMORY)
    seen = ", ".join(
        f"{name}: {one.utilization or 0:.0%} busy, {one.used_bytes / GIB:.1f} of "
        f"{one.total_bytes / GIB:.0f} GiB"
        for name, one in zip(_names(facts), facts.gpus, strict=True)
    )
    return judged(worst(verdicts), seen, "nvidia-smi lists the processes; end them")


def _names(facts: Facts) -> list[str]:
    """Of those that answer; without nvidia-smi they have numbers only."""
    known = dict(enumerate(facts.machine.gpus))
    return [known.get(one.number, f"GPU {one.number}") for one in facts.gpus]


def _major(version: str) -> int:
    return int(version.partition(".")[0])
