"""Names and paths that others chose: on one line, whatever is in them.

In a file for machines a line break in a name would be another line, and a control character none
that YAML takes. Where a name is only told it is escaped; where it has to be found again under that
name, in a command or in a unit, it is refused.
"""

from __future__ import annotations

import shlex
import unicodedata

from dlbench.tuner.errors import TuneError

# Control and format characters, lone surrogates (a file's name that is not UTF-8), what Unicode has
# not given out; separators of lines and of paragraphs.
UNPRINTABLE = {"Cc", "Cf", "Cs", "Cn", "Co", "Zl", "Zp"}


class Unprintable(TuneError):
    """A name cannot be written into a file for others; the text says which character is in it."""


def escaped(text: str) -> str:
    r"""With `\u000a` for a line break and the like, which TOML, JSON and YAML read in quotes."""
    return "".join(map(_escape, text))


def check_printable(what: str, text: str) -> None:
    """See to it that a name is on one line and can be copied from there.

    Raises:
        Unprintable: it has such a character.
    """
    if odd := next((c for c in text if _is_odd(c)), None):
        raise Unprintable(f'{what} "{escaped(text)}" contains U+{ord(odd):04X}; rename it')


def as_path(text: str) -> str:
    """A path that no command takes for an option."""
    return f"./{text}" if text.startswith("-") else text


def word(text: str) -> str:
    """A path as one word of a shell's command."""
    return shlex.quote(as_path(text))


def _is_odd(character: str) -> bool:
    return unicodedata.category(character) in UNPRINTABLE


def _escape(character: str) -> str:
    if not _is_odd(character):
        return character
    code = ord(character)
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
