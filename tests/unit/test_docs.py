"""The pages say what the code does: reference, tables, command lines, names."""

import re
import runpy
import shlex
import tomllib
from pathlib import Path
from typing import Literal, get_args, get_origin

import pytest
import typer

from dlbench.cli import failure
from dlbench.cli.main import COMMANDS, app
from dlbench.cli.options import ENVIRONMENT_PREFIX, option_name, read
from dlbench.loadgen.profile import LoadProfile
from dlbench.proxy.cache.cache import CACHES
from dlbench.proxy.config import ServingConfig
from dlbench.proxy.dispatch.order import ORDERS
from dlbench.proxy.dispatch.policy import POLICIES
from dlbench.proxy.serving.autoscaler import AUTOSCALERS
from dlbench.proxy.settings import ServerSettings
from dlbench.proxy.telemetry.metrics import Exposition
from dlbench.proxy.workers.providers import TRIED
from dlbench.results.records import COLUMNS
from dlbench.tuner.study_config import MEMORY, StudyConfig

DOCS = Path(__file__).parents[2] / "docs"
GENERATOR = runpy.run_path(str(DOCS / "reference.py"))
PAGE = (DOCS / "serving.md").read_text(encoding="utf-8")
REFERENCE = (DOCS / "reference.md").read_text(encoding="utf-8")
MODELS = (ServingConfig, ServerSettings)
FIELDS = {name: model for model in MODELS for name in model.model_fields}
# Names on the page that are other programs'.
FOREIGN = {"perf_analyzer", "sequence_id", "sequence_start", "sequence_end"}


def choices(name):
    """The values of a field that are words."""
    annotation = FIELDS[name].model_fields[name].annotation
    return get_args(annotation) if get_origin(annotation) is Literal else ()


def blocks(language):
    return re.findall(rf"^ *```{language}\n(.*?)^ *```", PAGE, re.MULTILINE | re.DOTALL)


def serve_lines():
    lines = "".join(blocks("sh")).replace("\\\n", " ").splitlines()
    return [line for line in lines if line.startswith("dlbench serve")]


def names_in_backticks(pattern):
    return {
        name for quoted in re.findall(r"`([^`\n]+)`", PAGE) for name in re.findall(pattern, quoted)
    }


def test_the_reference_is_that_of_the_declarations():
    assert GENERATOR["page"]() == REFERENCE, "run: python docs/reference.py"


def test_memory_has_the_unit_that_its_bounds_have():
    for column in MEMORY.values():
        assert "(MB, a million bytes)" in GENERATOR["COLUMN_MEANINGS"][column]


@pytest.mark.parametrize("model", [ServingConfig, ServerSettings, LoadProfile, StudyConfig])
def test_the_reference_has_a_row_for_every_field(model):
    keys = re.findall(r"^\| [^|]+ \| `(\w+)` \|", GENERATOR["fields"](model), re.MULTILINE)
    assert keys == list(model.model_fields)


def test_the_reference_has_every_command_column_and_exit_code():
    assert re.findall(r"^### dlbench (\w+)", REFERENCE, re.MULTILINE) == list(COMMANDS)
    explained = set(GENERATOR["COLUMN_MEANINGS"])
    assert explained == set(COLUMNS) - set(ServingConfig.model_fields)
    codes = {name for name in vars(failure) if name.startswith("EXIT_")}
    assert codes == set(GENERATOR["EXIT_MEANINGS"]) - {"good"}


def test_links_within_the_reference_lead_somewhere():
    headings = re.findall(r"^#+ (.+)", REFERENCE, re.MULTILINE)
    anchors = {GENERATOR["_anchor"](heading) for heading in headings}
    assert set(re.findall(r"\]\(#([^)]+)\)", REFERENCE)) <= anchors


@pytest.mark.parametrize("line", serve_lines())
def test_command_lines_are_understood(line):
    """Parsed to the end, as `dlbench` does it, and checked against the bounds."""
    serve = typer.main.get_command(app).get_command(None, "serve")
    given = serve.make_context("serve", shlex.split(line, comments=True)[2:]).params
    assert given["models"] or given["repository"] or given["config"]
    values = {n: list(v) if isinstance(v, tuple) else v for n, v in given.items() if v is not None}
    for model in MODELS:
        read(model, {name: value for name, value in values.items() if value != []}, {})


def test_there_are_command_lines_and_files():
    assert len(serve_lines()) > 5
    assert blocks("toml")


@pytest.mark.parametrize("block", blocks("toml"))
def test_configuration_files_are_valid(block):
    file = tomllib.loads(block)
    assert file.keys() <= FIELDS.keys()
    for model in MODELS:
        read(model, {}, file)


def test_snake_case_names_exist():
    known = FIELDS.keys() | {word for name in FIELDS for word in choices(name)} | FOREIGN
    assert {
        n for n in names_in_backticks(r"\b[a-z]+(?:_[a-z]+)+\b") if not n.startswith("dlbench_")
    } <= known


def test_options_and_variables_exist():
    options = {option_name(name, model) for name, model in FIELDS.items()}
    options |= {"--config", "--listen"}
    assert names_in_backticks(r"(?<!\w)--[a-z][a-z-]+") <= options
    variables = {ENVIRONMENT_PREFIX + name.upper() for name in FIELDS}
    assert names_in_backticks(r"DLBENCH_[A-Z_]+[A-Z]") <= variables


def test_metrics_exist():
    _, text = Exposition(list, lambda: 0).render(b"")
    exposed = set(re.findall(r"^# TYPE (\S+)", text.decode(), re.MULTILINE))
    assert names_in_backticks(r"\bdlbench_\w+") <= exposed


@pytest.mark.parametrize(
    "table",
    [POLICIES, AUTOSCALERS, CACHES, ORDERS, TRIED, choices("batching"), choices("cache_write")],
)
def test_every_choice_is_explained(table):
    assert set(table) <= names_in_backticks(r"\w+")


def test_the_batch_sizes_page_shows_what_was_measured():
    sizes = runpy.run_path(str(DOCS / "batch_sizes.py"))
    page, data = (sizes[name].read_text(encoding="utf-8") for name in ("PAGE", "DATA"))
    assert sizes["rewritten"](page, data) == page, "run: python docs/batch_sizes.py"
    assert sizes["PICTURE"].read_text(encoding="utf-8") == sizes["drawn"](data)
    seen = sizes["read"](data)[1]
    assert len(seen) == len(sizes["MODELS"]) * len(sizes["USES"]) * len(sizes["batches"](seen))
    assert min(len(cell.rates) for cell in seen.values()) >= 5
