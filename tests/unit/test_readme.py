"""The Chinese README has the same content: the same blocks, links and headings in the same order."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ENGLISH, CHINESE = (
    (ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "README.zh-CN.md")
)


def blocks(text):
    """Comments are translated; commands, recipes and what was printed are not."""
    found = re.findall(r"^```(\w*)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [(kind, re.sub(r" +#.*", "", body) if kind == "sh" else body) for kind, body in found]


def in_backticks(text):
    return re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))


def headings(text):
    return re.findall(r"^(#+) ", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S), re.M)


def links(text):
    return [link for link in re.findall(r"\]\(([^)]+)\)", text) if not link.startswith("README")]


@pytest.mark.parametrize("part", [blocks, headings, links])
def test_both_say_the_same_in_the_same_order(part):
    assert part(CHINESE) == part(ENGLISH)
    assert part(ENGLISH)


def test_no_command_file_or_value_is_missing_in_one_of_them():
    assert sorted(in_backticks(CHINESE)) == sorted(in_backticks(ENGLISH))
