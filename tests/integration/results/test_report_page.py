"""A report in a real browser: what a person does with it."""

import json
import math
import tomllib

import pytest
from typer.testing import CliRunner

from dlbench.cli.failure import UsageError
from dlbench.cli.main import app
from dlbench.loadgen.profile import LoadProfile
from dlbench.proxy.config import ServingConfig
from dlbench.proxy.settings import ServerSettings
from dlbench.tuner.point import Resources
from dlbench.tuner.recommend import RULES, Option, Wish, standing
from dlbench.tuner.search.importance import Importances
from dlbench.tuner.search.insight import Insight
from dlbench.tuner.storage.study import Identity, Study
from dlbench.tuner.verify.verification import Verified
from testbed import made
from testbed.commands import dlbench

HOSTILE = '<img src=x onerror="document.title=1"><b>x'
CONFIGS = {
    "naive": ServingConfig(max_batch_size=1, workers=1),
    "default": ServingConfig(workers=2),
    "c01": ServingConfig(max_batch_size=32, workers=2, cache_size=256),
    "c02": ServingConfig(max_batch_size=64, workers=4, max_queue_delay_ms=0.5),
}
# Throughput, p99 and the ends of its interval; the last interval is undetermined.
FRONT = {"default": (900, 4, 3, 5), "c01": (4000, 12, 9, 18), "c02": (9000, 40, None, None)}


def measured(rate, p99, low=None, high=None, **changes):
    parts = {"server_queue_ms": p99 / 8, "server_compute_ms": 1.0, "network_ms": 0.4}
    parts |= {"lateness_mean_ms": 0.1, "p99_low_ms": low, "p99_high_ms": high, "sure": 0.05}
    return made.measurement(rate=rate, p99=p99, **{**parts, **changes})


def point(name, share=0.5, phase="screen", measurement=None, **changes):
    used = Resources(server_cpu=0.5, server_rss_mb=200.0)
    changes |= {"measurement": measurement, "resources": used, "cost_s": 3.0}
    return made.point(name, phase, share, config=CONFIGS[name], **changes)


def searched():
    for n, name in enumerate(CONFIGS, start=1):
        yield point(name, None, "probe", measured(2000 * n, 50))
        for share in (0.3, 0.5, 0.9):
            yield point(name, share, measurement=measured(2000 * n * share, 5 / (1 - share)))
    late = measured(1e4, 2, verdict="invalid", reason=HOSTILE)
    yield point("c02", 0.7, measurement=late)
    failed = {"error_rate": 0.024, "p99_ms": math.inf, "longest_ms": 1000.4}
    yield point("c02", 0.95, measurement=measured(1e4, 8, 820, math.inf, **failed))
    yield point("c01", 0.7, failure=f"died: {HOSTILE}", log_tail=HOSTILE)


@pytest.fixture(scope="module")
def verified():
    points = [
        point(name, 0.5, "verify", measured(*numbers), on_front=True, recommended=name == "c01")
        for name, numbers in FRONT.items()
    ]
    shares = {"workers": 0.5, "max_batch_size": 0.3}
    learnt = Insight(None, None, False, Importances(shares, {"workers": 0.2}))
    row = made.bound_row(rate=6000.0, ratio=1.5, config=CONFIGS["c01"])
    about = {"answer": row, "bounds": (row,), "rule": "slo", "compared": True}
    return Verified(tuple(points), "met", insight=learnt, **about)


@pytest.fixture(scope="module")
def report(tmp_path_factory, verified):
    """The file that the command writes."""
    folder = tmp_path_factory.mktemp("report")
    load = LoadProfile(distinct=100, zipf=1.1).model_dump(mode="json", exclude={"seed"})
    about = {"model": f"{HOSTILE}.onnx", "device": "cpu", "seed": 0, "machine": "AMD EPYC, 2 cores"}
    spaces = {"max_batch_size": [1, 8, 32, 64], "workers": [1, 2, 4], "cache_size": [0, 256]}
    study = Study.create_or_resume(folder / "s.db", Identity({**about, "load": load, **spaces}))
    study.sit_down(
        {
            "began": "2026-01-01T00:00:00+00:00",
            "command": "dlbench tune m.onnx --pin 0-900",
            "study": {"budget_s": 60.0, "slo_p99_ms": 20.0, "pin": "0-900"},
        }
    )
    for each in searched():
        study.record(each)
    for each in verified.points:
        study.record(each)
    study.verified = verified.document
    done = dlbench("report", folder / "s.db")
    assert done.returncode == 0, done.stderr
    assert " MB" in done.stderr
    return folder / "s.html"


@pytest.fixture(scope="module")
def page(browser, report):
    """One page for all, since drawing it takes a second or two; a test sets what it needs.

    Afterwards nothing may have been complained of, nor asked for elsewhere.
    """
    complaints, asked = [], []
    page = browser.new_page(viewport={"width": 1440, "height": 900}, color_scheme="light")
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(report.as_uri())
    page.wait_for_selector("html[data-ready]", state="attached")
    page.evaluate("window.first = boundMs")
    yield page
    page.close()
    assert complaints == []
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []


def test_what_was_written_is_told_to_scripts_too(report, tmp_path):
    study = str(report.with_suffix(".db"))
    target = tmp_path / "other.html"
    told = CliRunner().invoke(app, ["report", study, "--out", str(target), "--json"])
    assert told.exit_code == 0, told.exception
    assert json.loads(told.stdout) == {"report": str(target), "bytes": target.stat().st_size}
    printed = CliRunner().invoke(app, ["report", study, "--out", "-"])
    assert printed.stdout == target.read_text() == report.read_text()
    refused = CliRunner().invoke(app, ["report", study, "--out", str(tmp_path / "no" / "x.html")])
    assert isinstance(refused.exception, UsageError)
    both = CliRunner().invoke(app, ["report", study, "--out", "-", "--json"])
    assert (str(both.exception), both.stdout) == (
        "--json and --out - both write to standard output; choose one",
        "",
    )
    assert "--out" in str(refused.exception)


def shown(page):
    """The points in the table, from top to bottom, without the mark of the recommended one."""
    heads = page.locator("#table tbody th").all_inner_texts()
    return [text.removesuffix(" ★") for text in heads]


def test_the_slider_recommends_what_the_rule_does(page, verified):
    options = [
        Option(m.throughput_rps, m.p99_ms, m.p99_low_ms, m.p99_high_ms)
        for m in (p.measurement for p in verified.points)
    ]
    seen = set()
    for bound in (1.0, 4.5, 5.0, 10.0, 17.9, 18.0, 500.0):
        page.fill("#slo-ms", str(bound))
        wish = Wish(slo_p99_ms=bound)
        pick = RULES["slo"](options, wish)
        met = standing(options[pick], wish) == "met"
        pane = page.locator("#pick")
        assert pane.get_attribute("data-point") == (verified.points[pick].name if met else "")
        seen.add(pane.get_attribute("data-verdict"))
    assert seen == {"met", "undecided"}


def test_it_begins_with_the_bound_that_the_study_was_given(page):
    assert page.locator("#answer").inner_text().count("6,000 requests/s [5,700-6,300]") == 1
    cells = page.locator("#bounds tbody td").all_inner_texts()
    assert cells[0] == "20 ms"
    assert cells[2:] == ["6,000", "5,700-6,300", "4,000", "1.5 [1.44-1.56]"]
    assert page.evaluate("first") == 20
    assert "dlbench tune m.onnx --pin 0-900" in page.locator("#facts").inner_text()


def test_moving_the_slider_moves_recommendation_and_line(page):
    bound = "document.getElementById('front-chart').layout.shapes[0].y0"
    page.fill("#slo-ms", "18.5")
    before = page.evaluate(bound)
    assert page.locator("#pick").get_attribute("data-point") == "c01@0.5"
    page.locator("#slo").evaluate(
        "slider => { slider.value = 300; slider.dispatchEvent(new Event('input')); }"
    )
    assert page.locator("#pick").get_attribute("data-point") == "default@0.5"
    assert page.evaluate(bound) < before
    assert float(page.input_value("#slo-ms")) == pytest.approx(page.evaluate(bound), rel=0.01)


def test_every_chart_is_drawn(page):
    charts = page.locator(".chart")
    drawn = page.locator(".chart.js-plotly-plot .main-svg:first-child")
    assert charts.count() == drawn.count() >= 10
    names = page.evaluate("document.getElementById('front-chart').data.map(t => t.name)")
    assert {"in the search", "not counted", "front", "measured again", "naive", "default"} <= set(
        names
    )
    bars = page.evaluate(
        "document.getElementById('front-chart').data.find(t => t.name === 'measured "
        "again').error_y.array"
    )
    assert bars == [6, 0]


def test_hovering_tells_the_configuration_and_no_markup(page):
    again, *others = page.evaluate(
        "['measured again', 'in the search', 'not counted'].map(name => "
        "document.getElementById('front-chart').data.find(t => t.name === name).text)"
    )
    texts = sum(others, again)
    [best] = [text for text in again if "<b>c01@0.5</b>" in text]
    assert "max_batch_size 32" in best
    assert "cache_size 256" in best
    assert "p99 12 ms [9-18]" in best
    assert any("&lt;img" in text for text in texts)
    assert not any("<img" in text for text in texts)


def test_what_falls_among_failed_requests_is_longer_than_anything_seen(page):
    row = page.locator("#table tbody tr", has_text="c02@0.95")
    assert "> 1,000 [820, > 1,000]" in " ".join(row.inner_text().split())
    page.fill("#filter", "p99_ms>100000")
    assert shown(page) == ["c02@0.95"]
    page.fill("#filter", "")


def test_no_button_sends_a_chart_away(page):
    buttons = page.locator("#front-chart .modebar-btn")
    names = buttons.evaluate_all("all => all.map(button => button.dataset.title)")
    assert "Download plot as a PNG" in names
    assert not any("hare" in name or "loud" in name for name in names)


def test_curves_are_those_of_the_chosen_configurations(page):
    names = "document.getElementById('curves-chart').data.map(t => t.name)"
    assert page.evaluate(names) == ["naive", "default", "c01", "c02"]
    page.locator("label.chip", has_text="c01").click()  # waits until the page has settled
    assert not page.get_by_label("c01", exact=True).is_checked()
    assert page.evaluate(names) == ["naive", "default", "c02"]


def test_the_table_sorts_both_ways_with_unknown_values_last(page):
    values = "[...document.querySelectorAll('#table tbody tr')].map(r => r.cells[{}].innerText)"
    head = page.locator("#table th[data-name=offered_rps]")
    column = head.evaluate("cell => cell.cellIndex")
    for direction in ("descending", "ascending"):
        head.locator("button").click()
        assert head.get_attribute("aria-sort") == direction
        found = page.evaluate(values.format(column))
        rates = [float(text.replace(",", "")) for text in found if text]
        assert rates == sorted(rates, reverse=direction == "descending")
        assert "" not in found[: len(rates)]


def test_the_table_filters(page):
    everything = shown(page)
    page.fill("#filter", "c02 workers=4 throughput_rps<5000")
    assert sorted(shown(page)) == ["c02@0.3", "c02@0.5"]
    page.fill("#filter", "")
    page.select_option("#filter-verdict", "invalid")
    assert shown(page) == ["c02@0.7"]
    page.select_option("#filter-verdict", "")
    page.check("#filter-front")
    assert sorted(shown(page)) == ["c01@0.5", "c02@0.5", "default@0.5"]
    page.uncheck("#filter-front")
    assert shown(page) == everything


def test_a_row_is_copied_as_what_serve_takes(page):
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_label("copy c02@0.9 as TOML").click()
    page.wait_for_selector("#said.shown")
    text = page.evaluate("navigator.clipboard.readText()")
    document = tomllib.loads(text)
    knobs = {name: document.pop(name) for name in ServingConfig.model_fields}
    assert ServingConfig(**knobs) == CONFIGS["c02"]
    assert ServerSettings(**document).model == f"{HOSTILE}.onnx"
    assert text.startswith("# c02@0.9: 7,200/s")


def test_without_a_clipboard_the_text_is_there_to_copy(page):
    page.evaluate("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
    page.fill("#slo-ms", "18.5")
    page.get_by_role("button", name="Copy as TOML").click()
    assert tomllib.loads(page.input_value("#toml textarea"))["max_batch_size"] == 32
    page.get_by_role("button", name="Close").click()


def test_what_a_study_says_is_text(page):
    assert page.locator("h1").inner_text() == f"How to serve {HOSTILE}.onnx"
    assert page.locator("img").count() == 0
    assert HOSTILE in page.locator("#uncounted").inner_text()
    page.locator("#uncounted summary").click()
    assert page.locator("#uncounted pre").inner_text() == HOSTILE


def test_the_theme_is_the_readers_until_it_is_switched(page):
    def is_dark():
        ink, ground = page.evaluate("[tone('ink'), tone('ground')]")
        drawn = page.evaluate("document.getElementById('front-chart')._fullLayout.font.color")
        assert drawn == ink
        return sum(map(int, ink[4:-1].split(","))) > sum(map(int, ground[4:-1].split(",")))

    page.evaluate("delete document.documentElement.dataset.theme")
    seen = []
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        seen.append(is_dark())
    for _ in range(2):
        page.click("#theme")
        seen.append(is_dark())
    assert seen == [False, True, False, True]


def test_on_a_phone_only_the_tables_scroll_sideways(page):
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert page.evaluate("document.querySelector('.scroll').scrollWidth") > 390


def test_paper_is_white_and_a_chart_fits_it(page, tmp_path):
    """A browser tells the page before it prints, and after."""
    page.evaluate(
        "addEventListener('beforeprint', () => window.paper = [isDark(), "
        "...[...document.querySelectorAll('.chart svg')].map(s => s.clientWidth)])"
    )
    page.emulate_media(color_scheme="dark")
    before = page.evaluate("isDark()")
    page.pdf(path=tmp_path / "report.pdf", format="A4")
    dark, *widths = page.evaluate("paper")
    assert not dark
    assert 0 < max(widths) <= 700
    assert page.evaluate("isDark()") == before
    fits = "c => c.querySelector('.main-svg').clientWidth === c.clientWidth"
    assert page.evaluate(f"[...document.querySelectorAll('.chart')].every({fits})")
