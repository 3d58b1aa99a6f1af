"""Suggestions for an unknown word. Pure."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def meant(word: str, known: Iterable[str], alike: float = 0.6) -> str:
    """The known word that looks most like it, "" if none does. Case, - and _ make no difference.

    `alike` is the least similarity, from 0 to 1 (difflib's, whose own least this is).
    """
    plain = {_plain(name): name for name in known}
    close = get_close_matches(_plain(word), plain, n=1, cutoff=alike)
    return plain[close[0]] if close else ""


def instead(word: str, known: Iterable[str]) -> str:
    """The end of an error about an unknown word: a suggestion, or all choices."""
    names = list(known)
    found = meant(word, names)
    return f"did you mean {found}?" if found else f"choose one of {', '.join(names)}"


def _plain(word: str) -> str:
    return word.lower().replace("_", "-")
