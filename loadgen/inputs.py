"""The values a request carries: one row per request, seeded, valid and small for every datatype."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np

from dlbench.loadgen.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from dlbench.loadgen.tensors import TensorSpec

Row = dict[str, "NDArray[Any]"]

# Integers are often indices (tokens, classes): small ones are valid for nearly every model. Bytes
# are often pixels, where the full range is.
SMALL = 10


def _floats(shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[Any]:
    return rng.random(shape)


def _small_integers(shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[Any]:
    return rng.integers(0, SMALL, shape)


def _pixels(shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[Any]:
    return rng.integers(0, 256, shape)


def _booleans(shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[Any]:
    return rng.integers(0, 2, shape)


def _texts(shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[Any]:
    numbers = rng.integers(0, 10**8, shape)
    return np.array([b"%08d" % number for number in numbers.ravel()], object).reshape(shape)


MAKERS: dict[str, Callable[[tuple[int, ...], np.random.Generator], NDArray[Any]]] = {
    "BOOL": _booleans,
    "UINT8": _pixels,
    "FP16": _floats,
    "FP32": _floats,
    "FP64": _floats,
    "BYTES": _texts,
}


def random_row(specs: Sequence[TensorSpec], seed: Sequence[int]) -> Row:
    """One row of every input. Raises DataError for a datatype that cannot be made."""
    rng = np.random.default_rng(seed)
    return {
        spec.name: MAKERS.get(spec.datatype, _small_integers)(spec.row_shape, rng).astype(
            spec.dtype
        )
        for spec in specs
    }


def read_rows(path: Path, specs: Sequence[TensorSpec]) -> list[Row]:
    """The rows of a data file. Raises DataError: unreadable, wrong names, wrong shapes.

    `.npz`: one array per input, its first axis counts the samples. `.jsonl`: one object per line,
    input name -> nested list.
    """
    try:
        reader = READERS[path.suffix]
    except KeyError:
        raise DataError(f"{path}: data files end in {' or '.join(READERS)}") from None
    try:
        samples = reader(path, specs)
    except (OSError, ValueError, TypeError, KeyError, EOFError, BadZipFile) as error:
        raise DataError(f"cannot read data from {path}: {_plain(error)}") from None
    if not samples:
        raise DataError(f"{path} holds no samples")
    return [
        {spec.name: _as_row(sample[spec.name], spec, path) for spec in specs} for sample in samples
    ]


def _plain(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"input {error.args[0]!r} is missing"
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _read_npz(path: Path, specs: Sequence[TensorSpec]) -> list[Row]:
    with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        arrays = {spec.name: archive[_member(archive.files, spec.name)] for spec in specs}
    counts = {name: len(array) for name, array in arrays.items()}
    if len(set(counts.values())) > 1:
        raise ValueError(f"inputs have different numbers of samples: {counts}")
    count = next(iter(counts.values()))
    return [{name: array[sample] for name, array in arrays.items()} for sample in range(count)]


def _member(names: Sequence[str], name: str) -> str:
    if name not in names:
        raise KeyError(name)
    return name


def _read_jsonl(path: Path, specs: Sequence[TensorSpec]) -> list[Row]:
    import orjson

    lines = [orjson.loads(line) for line in path.read_bytes().splitlines() if line.strip()]
    return [{spec.name: _to_array(line[spec.name], spec) for spec in specs} for line in lines]


def _to_array(value: Any, spec: TensorSpec) -> NDArray[Any]:  # noqa: ANN401 - any JSON
    array = np.array(value, dtype=spec.dtype)
    if spec.datatype == "BYTES":
        flat = [item.encode() if isinstance(item, str) else item for item in array.ravel()]
        array = np.array(flat, object).reshape(array.shape)
    return array


READERS: dict[str, Callable[[Path, Sequence[TensorSpec]], list[Row]]] = {
    ".npz": _read_npz,
    ".jsonl": _read_jsonl,
}


def _as_row(sample: NDArray[Any], spec: TensorSpec, path: Path) -> NDArray[Any]:
    """A sample with its batch dimension, which files may leave out. Raises DataError."""
    sample = np.asarray(sample)
    if spec.batch_axis is not None and sample.ndim == len(spec.shape) - 1:
        sample = np.expand_dims(sample, spec.batch_axis)
    wanted = spec.row_shape
    fits = sample.ndim == len(wanted) and all(
        size in (-1, got) for size, got in zip(wanted, sample.shape, strict=True)
    )
    if not fits:
        raise DataError(
            f"{path}: a sample of {spec.name!r} has shape {list(sample.shape)}, "
            f"the model takes {list(spec.shape)}"
        )
    return np.ascontiguousarray(sample.astype(spec.dtype, copy=False))
