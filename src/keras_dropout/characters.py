"""Cleaning of all text that is drawn, printed or put into a message: a name may come from a file that somebody else made."""

import re
from collections.abc import Iterable
from typing import Any, TypeVar

# Characters that XML 1.0 excludes (control characters, surrogates, noncharacters), and others that act on a terminal or hide text:
# C1 controls, line separators, and characters that change the direction of text. Tabs and newlines stay.
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufdd0-\ufdef"
    + "".join(f"{chr(plane + 0xFFFE)}{chr(plane + 0xFFFF)}" for plane in range(0, 0x110000, 0x10000))
    + "]"
)
_Text = TypeVar("_Text", bound=str)


def clean(text: _Text) -> _Text:
    """Return the text with unsafe characters escaped as in Python, "\\x1b" as four; its class stays, so that markup is markup."""
    return type(text)(_UNSAFE.sub(_written, text)) if _UNSAFE.search(text) else text


def clean_line(text: str) -> str:
    """Return the text on one line, with newlines and tabs escaped too."""
    return clean(text).replace("\n", "\\n").replace("\t", "\\t")


def cleaned(value: Any) -> Any:
    """Return plain values with all text in them cleaned, including the keys of mappings."""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, dict):
        return {cleaned(name): cleaned(each) for name, each in value.items()}
    return [cleaned(each) for each in value] if isinstance(value, (list, tuple)) else value


class CleanStream:
    """A stream that cleans all text written to it. `display.Terminal` bypasses it, because colours are control characters."""

    def __init__(self, behind: Any):
        self.behind = behind

    def write(self, text: str) -> int:
        """Write the cleaned text."""
        self.behind.write(clean(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write the cleaned lines."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.behind, name)


def _written(found: re.Match) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
