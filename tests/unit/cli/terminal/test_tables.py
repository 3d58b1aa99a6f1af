"""The verified front as a table, and the answer below it, at the width of a terminal."""

import io

import pytest
from rich.console import Console

from dlbench.cli.terminal.tables import answer, front_plot, report
from dlbench.tuner.verify.verification import Verified
from testbed import made

EVERYTHING = {
    "max_batch_size": 16,
    "max_queue_delay_ms": 0.5,
    "workers": 1,
    "intra_op_threads": 2,
    "cache_size": 16384,
    "scheduling_policy": "least_outstanding",
}


@pytest.fixture
def result():
    config = made.DEFAULT.model_copy(update=EVERYTHING)
    rows = (
        made.bound_row("default", 4321.0, 5.0, ratio=1.0),
        made.bound_row("c12", 98765.0, 1000.0, ratio=12.34, config=config),
    )
    points = (
        made.point("default", "verify", 0.7),
        made.point("c12", "verify", 0.3).model_copy(update={"recommended": True}),
    )
    return Verified(points, "none", bounds=rows, answer=rows[1], compared=True)


def printed(what, width=80, **console):
    stream = io.StringIO()
    Console(file=stream, width=width, **console).print(what)
    return stream.getvalue()


@pytest.mark.parametrize("width", [80, 120])
def test_every_figure_and_every_knob_that_differs_fits(result, width):
    text = printed(report(result), width)
    words = text.split()
    for figure in ("4,321", "98,765", "12.34x", "[4,105-4,537]", "8,004"):
        assert figure in words
    for knob, value in EVERYTHING.items():
        assert knob in words
        assert any(word.rstrip(",") == str(value) for word in words)
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width


def test_headings_stand_in_front_of_texts_that_wrap():
    text = printed(answer({"use": "word " * 60, "uncertain": "[red]is no markup[/]"}))
    lines = text.splitlines()
    assert lines[0].startswith("use        word")
    assert all(line.startswith(" " * 11) for line in lines[1:-1])
    assert "[red]is no markup[/]" in lines[-1]


def test_colours_stay_away_where_they_are_not_wanted(result, monkeypatch):
    coloured = printed(report(result), force_terminal=True, color_system="standard")
    assert "\x1b[1;32m" in coloured
    assert "\x1b" not in printed(report(result))
    monkeypatch.setenv("NO_COLOR", "1")
    plain = printed(report(result), force_terminal=True, color_system="standard")
    assert "32m" not in plain


@pytest.mark.parametrize("terminal", [True, False])
def test_the_plot_has_drawn_lines_on_a_terminal_and_ascii_in_a_pipe(result, terminal):
    console = Console(file=io.StringIO(), width=80, force_terminal=terminal)
    console.print(front_plot(result, console))
    text = console.file.getvalue()
    assert ("│" in text) == terminal
    assert text.isascii() != terminal
    assert "\x1b" not in text
    assert "* recommended" in text
    assert max(map(len, text.splitlines())) <= 80
