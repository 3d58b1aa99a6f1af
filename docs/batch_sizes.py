"""Writes tables and picture of batch-sizes.md: `python docs/batch_sizes.py [FILE]`.

FILE is what `benchmarks/tuning/batch_sizes.py --json` keeps; it is kept beside the page, so that without
one the page is made anew from that.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

from dlbench.results.chart import Axis, Plot, picture

if TYPE_CHECKING:
    from collections.abc import Sequence

HERE = Path(__file__).parent
PAGE, DATA, PICTURE = (HERE / f"batch-sizes.{suffix}" for suffix in ("md", "jsonl", "svg"))
MARKER = "<!-- tables -->"
# What a model is, and how it looks.
MODELS = {
    "demo:mlp": ("256-2048-2048-256 perceptron", "circle", "blue"),
    "demo:cnn": ("small convolutional net, 28 x 28", "square", "red"),
    "silero_vad_half": ("recurrent net, 32 ms of speech", "triangle", "grey"),
    "magika": ("file type from 2,048 bytes", "diamond", "hollow blue"),
    "rapidocr_classifier": ("MobileNet, 48 x 192 image", "circle", "hollow red"),
}
USES = {"1x1": "1 worker, 1 thread", "1x2": "1 worker, 2 threads", "2x1": "2 workers, 1 thread"}


class Cell(NamedTuple):
    """What calm visits saw of a use and batch size: rows per second when full, ms of a lone batch."""

    rates: list[float]
    alone_ms: list[float]


Seen = dict[tuple[str, str, int], Cell]


def read(text: str) -> tuple[dict[str, str], Seen]:
    """The facts of the machine, and every cell with a calm visit."""
    records = [json.loads(line) for line in text.splitlines()]
    facts = next(r["value"] for r in records if r["name"] == "facts")
    found: Seen = {}
    for name, value in ((r["name"], r["value"]) for r in records if r["name"] != "facts"):
        model, use, batch, _ = name.split("/")
        full_s, alone_s, _, disturbed = value
        if not disturbed:
            cell = found.setdefault((model, use, int(batch)), Cell([], []))
            cell.rates.append(int(use[0]) * int(batch) / full_s)
            cell.alone_ms.append(1e3 * alone_s)
    return facts, found


def rewritten(page: str, text: str) -> str:
    """The page with its tables made anew.

    Raises:
        ValueError: the page does not have exactly two markers.
    """
    before, _, after = page.split(MARKER)
    facts, seen = read(text)
    said = ", ".join(
        f"{name} {facts[name]}" for name in ("kernel", "onnxruntime-gpu") if name in facts
    )
    head = f"{facts['cpu']}, {said}, {facts['date'][:10]}.\n"
    tables = "\n".join(table(model, seen) for model in MODELS)
    return f"{before}{MARKER}\n\n{head}\n{tables}\n{MARKER}{after}"


def table(model: str, seen: Seen) -> str:
    """Of one model, a row for each batch size."""
    heads = ("batch", *(f"{use}, rows/s" for use in USES.values()), "a lone batch takes, ms")
    lines = [heads, ("---:",) * len(heads)]
    for batch in batches(seen):
        own = [seen[model, use, batch] for use in USES]
        lines.append((str(batch), *(spread(c.rates, ",.0f") for c in own), spread(own[0].alone_ms)))
    rows = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    return f"### {model}\n\n{MODELS[model][0]}\n\n{rows}"


def batches(seen: Seen) -> list[int]:
    """All sizes, rising."""
    return sorted({batch for _, _, batch in seen})


def spread(values: Sequence[float], form: str = ".3g") -> str:
    """The median, and from the lowest to the highest visit."""
    return f"{median(values):{form}} ({min(values):{form}}-{max(values):{form}})"


def drawn(text: str) -> str:
    """What batches gain and cost with one worker of one thread, as SVG."""
    _, seen = read(text)
    sizes = batches(seen)
    gains = {m: [_rate(seen, m, b) / _rate(seen, m, 1) for b in sizes] for m in MODELS}
    times = {m: [median(seen[m, "1x1", b].alone_ms) for b in sizes] for m in MODELS}
    x = Axis("rows in a batch", 1 / 1.15, sizes[-1] * 1.15)
    plots = []
    for name, series in (
        ("rows per second, batch of 1 = 1", gains),
        ("a lone batch takes (ms)", times),
    ):
        axis = Axis.around(name, [value for own in series.values() for value in own])
        plot = Plot(x, axis, 260).axes()
        for model, values in series.items():
            _, shape, kind = MODELS[model]
            spots = list(zip(map(float, sizes), values, strict=True))
            plot.curve(spots, f"{kind.removeprefix('hollow ')}{' dashed' * ('hollow' in kind)}")
            for spot in spots:
                plot.mark(spot, shape, kind)
        plots.append(plot)
    key = [(shape, kind, model) for model, (_, shape, kind) in MODELS.items()]
    return picture("What larger batches gain, and how long they take", key, plots)


def _rate(seen: Seen, model: str, batch: int) -> float:
    return median(seen[model, "1x1", batch].rates)


def main() -> None:
    """Write all three."""
    text = Path(sys.argv[1] if len(sys.argv) > 1 else DATA).read_text(encoding="utf-8")
    DATA.write_text(text, encoding="utf-8")
    PAGE.write_text(rewritten(PAGE.read_text(encoding="utf-8"), text), encoding="utf-8")
    PICTURE.write_text(drawn(text), encoding="utf-8")


if __name__ == "__main__":
    main()
