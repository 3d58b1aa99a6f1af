"""A study's points as a Parquet file, typed as the fields that they come from."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from dlbench.loadgen.measurement import Measurement
from dlbench.proxy.knob import KNOBS
from dlbench.results.missing import needing
from dlbench.results.records import COLUMNS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pyarrow as pa

# Arrow's name for a field's type; everything else is text, as in the CSV, or a figure.
KINDS: dict[Any, str] = {bool: "bool", int: "int64", str: "string", tuple: "string"}
DECLARED = {name: field.annotation for name, field in Measurement.model_fields.items()} | {
    name: knob.kind for name, knob in KNOBS.items()
}
TEXTS = frozenset(("point", "phase", "verdict", "reason", "started_at"))
MARKS = frozenset(("on_front", "recommended"))


def parquet(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Rows under the CSV's names as a file; what was not measured is null.

    Raises:
        ExtraMissing: pyarrow is not installed.
    """
    with needing("parquet"):
        import pyarrow as pa
        import pyarrow.parquet as pq
    fields = [pa.field(name, pa.type_for_alias(kind(name))) for name in COLUMNS]
    table: pa.Table = pa.Table.from_pylist([dict(row) for row in rows], schema=pa.schema(fields))
    stream = io.BytesIO()
    pq.write_table(table, stream)
    return stream.getvalue()


def kind(column: str) -> str:
    """Arrow's type of a column. An empty column needs one as well."""
    if column in MARKS:
        return "bool"
    return "string" if column in TEXTS else KINDS.get(DECLARED.get(column), "float64")
