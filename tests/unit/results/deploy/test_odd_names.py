"""Names, paths and values of every kind, as those who read the files read them."""

import re
import shlex
import tomllib
import unicodedata
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dlbench.proxy.config import ServingConfig
from dlbench.proxy.settings import ServerSettings
from dlbench.results.deploy.targets import TARGETS
from dlbench.results.printable import UNPRINTABLE, Unprintable, escaped

ODD = "\"'`\\#%$&;|<>(){}[]*?!~^=:,@ -+._ü模é😀\u00a0\u3000"
PRINTABLE = st.characters(exclude_categories=sorted(UNPRINTABLE))
NAMES = st.text(st.sampled_from(ODD) | PRINTABLE, min_size=1, max_size=30)
FILES = NAMES.filter(lambda name: "/" not in name and name not in (".", ".."))
ANYTHING = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30)
EXAMPLES = ["-rf", "a\\", '"', "'", "escape=`", "%n %%", "$HOME ${x} $$", "{{x}}", " a ", "# x: y"]

few = settings(max_examples=40, deadline=None)


def commands(text):
    """The commands in the comments of a file: all that are indented there."""
    return [line[3:].strip() for line in text.splitlines() if line.startswith("#   ")]


def words(text, *start):
    """Of the command that starts so."""
    found = [shlex.split(c, comments=True) for c in commands(text) if c.startswith(" ".join(start))]
    assert len(found) == 1, (start, commands(text))
    return found[0]


def served(text):
    """Name and path of the model in a TOML text that is for `dlbench serve`."""
    values = tomllib.loads(text)
    knobs = {name: values.pop(name) for name in ServingConfig.model_fields}
    assert ServingConfig(**knobs)
    return ServerSettings(**values)


def with_examples(test):
    for text in EXAMPLES:
        test = example(text, f"{text}.onnx")(test)
    return test


@with_examples
@few
@given(NAMES, FILES)
def test_yaml_and_toml_hold_the_same_names(deploy, name, file):
    here = deploy(name=name, path=Path("/m", file))
    compose = yaml.safe_load(TARGETS["compose"].render(here))
    config_map, *_ = yaml.safe_load_all(TARGETS["k8s"].render(here))
    docker = TARGETS["docker"].render(here)
    (copied,) = re.findall(r'<<"EOF" \S+\n(.*\n)EOF\n', docker, re.DOTALL)
    texts = (
        compose["configs"]["serve"]["content"].replace("$$", "$"),
        config_map["data"]["serve.toml"],
        copied,
    )
    for text in texts:
        assert (served(text).name, served(text).model) == (name, f"/models/{file}")
    assert served(TARGETS["toml"].render(here))
    assert yaml.safe_load(TARGETS["kserve"].render(here))["kind"] == "InferenceService"


@with_examples
@few
@given(NAMES, FILES)
def test_triton_reads_the_same_name(deploy, name, file):
    text_format = pytest.importorskip("google.protobuf.text_format")
    from tritonclient.grpc import model_config_pb2

    tensor = replace(deploy().inputs[0], name=f"\u2028{file}\n\x7f")
    here = deploy(name=name, path=Path("/m", file), inputs=(tensor,))
    found = text_format.Parse(TARGETS["triton"].render(here), model_config_pb2.ModelConfig())
    assert (found.name, found.input[0].name) == (name, tensor.name)


@with_examples
@few
@given(NAMES, FILES)
def test_a_shell_copies_the_same_file(deploy, name, file):
    for path in (Path(file), Path("/a b", file)):
        here = deploy(name=name, path=path)
        shown = f"./{path}" if str(path).startswith("-") else str(path)
        assert words(TARGETS["docker"].render(here), "mkdir")[-2:] == [f"{shown}*", "models/"]
        assert words(TARGETS["systemd"].render(here), "install -D")[-1] == f"{shown}*"


@with_examples
@few
@given(FILES, NAMES)
def test_a_shell_exports_the_same_study(deploy, study, option):
    here = deploy(study=study, options=("--model", option))
    shown = f"./{study}" if study.startswith("-") else study
    for target in ("compose", "k8s"):
        found = words(TARGETS[target].render(here), "dlbench", "export")
        assert found == [
            *("dlbench", "export", shown, "--to", "docker", "--point", "c01@0.5"),
            *here.options,
        ]


@with_examples
@settings(max_examples=15, deadline=None)
@given(NAMES, FILES)
def test_systemd_starts_the_same_model(deploy, verify, name, file):
    text = TARGETS["systemd"].render(deploy(name=name, path=Path("/m", file)))
    assert verify(text) == (0, "")
    (line,) = re.findall(r"^ExecStart=(.*)$", text, re.MULTILINE)
    found = [w.replace("%%", "%").replace("$$", "$") for w in shlex.split(line)]
    assert found[2:4] == [f"/srv/dlbench/{file}", f"--name={name}"]


@with_examples
@settings(max_examples=15, deadline=None)
@given(NAMES, FILES)
def test_the_linter_has_nothing_to_say(deploy, hadolint, name, file):
    text = TARGETS["docker"].render(deploy(name=name, path=Path("/m", file)))
    assert hadolint(text) == ""
    assert not re.search(r"^#\s*escape", text, re.MULTILINE)


@few
@given(values=st.lists(ANYTHING, min_size=4, max_size=4))
def test_values_of_settings_are_the_same_in_every_file(deploy, values):
    token, key, value, machine = values
    here = deploy(
        settings={"token_file": token, "provider_option": {key: value}, "batch_axis": {key: 1}},
        machine=machine,
        load={"data": machine},
    )
    compose = yaml.safe_load(TARGETS["compose"].render(here))
    config_map, *_ = yaml.safe_load_all(TARGETS["k8s"].render(here))
    texts = (
        TARGETS["toml"].render(here),
        compose["configs"]["serve"]["content"].replace("$$", "$"),
        config_map["data"]["serve.toml"],
    )
    for text in texts:
        found = served(text)
        assert (found.token_file, found.provider_option) == (token, {key: value})
        assert found.batch_axis == {key: 1}


@pytest.mark.parametrize("field", ["name", "path", "study", "options"])
@few
@given(FILES, st.characters(categories=sorted(UNPRINTABLE), exclude_characters="\0"))
@example("a", "\n")
@example("a", "\r")
@example("a", "\x85")
@example("a", "\u2028")
@example("a", "\u202e")
@example("a", "\udc80")
def test_what_is_not_on_one_line_is_refused_on_one_line(deploy, field, name, odd):
    wrong = f"{name}{odd}x"
    values = {"path": Path("/m", wrong), "options": ("--model", wrong)}
    with pytest.raises(Unprintable, match=rf"U\+{ord(odd):04X}; rename it$") as refused:
        deploy(**{field: values.get(field, wrong)})
    assert len(str(refused.value).splitlines()) == 1
    assert str(refused.value).encode()


@given(st.text())
def test_what_is_escaped_is_printable_and_the_same_to_yaml(text):
    found = escaped(text)
    assert not {unicodedata.category(c) for c in found} & UNPRINTABLE
    assert (found == text) is (not {unicodedata.category(c) for c in text} & UNPRINTABLE)
    if not set(text) & {"\\", '"'}:
        assert yaml.safe_load(f'"{found}"') == text
