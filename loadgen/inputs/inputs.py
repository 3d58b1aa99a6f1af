"""The values a request carries: made from the metadata, or read from files."""

from __future__ import annotations

import mimetypes
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np

from dlbench.loadgen.errors import DataError
from dlbench.loadgen.inputs.images import SUFFIXES, read_image
from dlbench.loadgen.json_text import parse
from dlbench.loadgen.tensors import DATATYPES, TensorSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

Row = dict[str, "NDArray[Any]"]
# Integers are often indices (tokens, classes): small ones are valid for nearly every model. Bytes
# are often pixels, where the full range is.
SMALL = 10
# What a file that holds one array without a name calls it.
NAMELESS = ""


@dataclass(frozen=True)
class RawBody:
    """A file that is sent unchanged."""

    content: bytes
    content_type: str


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
        spec.name: np.asarray(
            MAKERS.get(spec.datatype, _small_integers)(spec.row_shape, rng), spec.dtype
        )
        for spec in specs
    }


def read_inputs(path: Path, specs: Sequence[TensorSpec]) -> Sequence[Row | RawBody]:
    """What a file or folder holds for these inputs; without any, as `specs_of` finds them.

    `.npz`: one array per input, its first axis counts the samples. `.npy`: likewise, for the only
    input. `.jsonl`: one object per line, input name -> nested list. A folder: images for a model
    with one image input, else raw bodies, each sorted by name.
    Raises DataError: unreadable, wrong names, wrong shapes.
    """
    if path.is_dir():
        return _read_folder(path, specs)
    return read_rows(path, specs or specs_of(path))


def read_rows(path: Path, specs: Sequence[TensorSpec]) -> list[Row]:
    """The rows of a data file. Raises DataError: unreadable, wrong names, wrong shapes."""
    samples = _read_samples(path, [spec.name for spec in specs])
    try:
        return [{s.name: _as_row(_value(sample, s), s, path) for s in specs} for sample in samples]
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(f"cannot read data from {path}: {_plain(error)}") from None


def specs_of(path: Path) -> tuple[TensorSpec, ...]:
    """The inputs that a data file itself describes; sizes that differ are -1. () for a folder.

    Raises DataError.
    """
    if path.is_dir():
        return ()
    samples = _read_samples(path, ())
    try:
        return tuple(_spec_of(name, [sample[name] for sample in samples]) for name in samples[0])
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(f"cannot read data from {path}: {_plain(error)}") from None


def _spec_of(name: str, values: Sequence[Any]) -> TensorSpec:
    arrays = [np.array(value) for value in values]
    kind = np.result_type(*(array.dtype for array in arrays))
    shapes = [array.shape for array in arrays]
    if len({len(shape) for shape in shapes}) > 1:
        raise ValueError(f"samples of {name!r} differ in their number of dimensions")
    sizes = [set(sizes) for sizes in zip(*shapes, strict=True)]
    shape = tuple(size.pop() if len(size) == 1 else -1 for size in sizes)
    datatype = "BYTES" if kind.kind in "US" else NAMES.get(kind.type)
    if datatype is None:
        raise ValueError(f"{name!r} contains values of type {kind}")
    return TensorSpec(name=name, datatype=datatype, shape=shape)


NAMES = {dtype.type: name for name, dtype in DATATYPES.items() if name != "BYTES"}


def _read_samples(path: Path, names: Sequence[str]) -> Sequence[dict[str, Any]]:
    try:
        reader = READERS[path.suffix]
    except KeyError:
        raise DataError(
            f"{path}: unknown file type; data files end in {' or '.join(READERS)}"
        ) from None
    try:
        samples = reader(path, names)
    except (OSError, ValueError, TypeError, KeyError, EOFError, BadZipFile) as error:
        raise DataError(f"cannot read data from {path}: {_plain(error)}") from None
    if not samples:
        raise DataError(f"{path} contains no samples")
    return samples


def _plain(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"input {error.args[0]!r} is missing"
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _read_npz(path: Path, names: Sequence[str]) -> Sequence[dict[str, Any]]:
    with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        arrays = {name: archive[_member(archive.files, name)] for name in names or archive.files}
    counts = {name: len(array) for name, array in arrays.items()}
    if len(set(counts.values())) > 1:
        raise ValueError(f"inputs have different numbers of samples: {counts}")
    count = next(iter(counts.values()), 0)
    return [{name: array[sample] for name, array in arrays.items()} for sample in range(count)]


def _read_npy(path: Path, names: Sequence[str]) -> Sequence[dict[str, Any]]:
    if len(names) > 1:
        raise ValueError(f".npy holds one input, the model has {len(names)}: {', '.join(names)}")
    name = next(iter(names), NAMELESS)
    return [{name: sample} for sample in np.load(path, allow_pickle=False)]


def _member(names: Sequence[str], name: str) -> str:
    if name not in names:
        raise KeyError(name)
    return name


def _read_jsonl(path: Path, _: Sequence[str]) -> Sequence[dict[str, Any]]:
    lines = [parse(line) for line in path.read_bytes().splitlines() if line.strip()]
    if not all(isinstance(line, dict) for line in lines):
        raise ValueError("a line is not a JSON object")
    return lines


READERS: dict[str, Callable[[Path, Sequence[str]], Sequence[dict[str, Any]]]] = {
    ".npz": _read_npz,
    ".npy": _read_npy,
    ".jsonl": _read_jsonl,
}


def _read_folder(path: Path, specs: Sequence[TensorSpec]) -> Sequence[Row | RawBody]:
    files = sorted(file for file in path.iterdir() if file.is_file() and file.name[0] != ".")
    if not files:
        raise DataError(f"{path} contains no files")
    if specs and all(file.suffix.lower() in SUFFIXES for file in files):
        return [read_image(file, specs) for file in files]
    return [RawBody(file.read_bytes(), _content_type(file)) for file in files]


def _content_type(file: Path) -> str:
    return mimetypes.guess_type(file.name)[0] or "application/octet-stream"


def _value(sample: dict[str, Any], spec: TensorSpec) -> NDArray[Any]:
    """A sample's array in the input's datatype. Raises KeyError, ValueError or TypeError."""
    if spec.datatype != "BYTES":
        return _numbers(sample[spec.name], spec)
    array = np.array(sample[spec.name], dtype=object)
    flat = [item.encode() if isinstance(item, str) else item for item in array.ravel()]
    return np.array(flat, object).reshape(array.shape)


def _numbers(value: Any, spec: TensorSpec) -> NDArray[Any]:  # noqa: ANN401 - any JSON, or an array
    """Numbers in the input's datatype, floats rounded to it. Raises ValueError if one would change."""
    given = np.asarray(value)
    if given.dtype.kind not in "biuf":
        raise ValueError(f"{spec.name!r} contains null or text, not numbers (write NaN as NaN)")
    try:
        with np.errstate(all="ignore"):
            array = np.array(value, dtype=spec.dtype)
        kept = (
            np.isfinite(array) == np.isfinite(given) if array.dtype.kind == "f" else array == given
        )
    except (ValueError, OverflowError):
        kept = np.False_
    if not np.all(kept):
        raise ValueError(f"a value of {spec.name!r} does not fit {spec.datatype}")
    return array


def _as_row(sample: NDArray[Any], spec: TensorSpec, path: Path) -> NDArray[Any]:
    """A sample with its batch dimension, which files may leave out. Raises DataError."""
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
    return np.ascontiguousarray(sample)
