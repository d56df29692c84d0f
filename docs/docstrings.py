"""An extension of Griffe: the docstrings, which are plain text to be read in a terminal, as Markdown for the API reference.

Shapes:        any shape -> the same.          a list of what the labels say; under Arguments one entry for each
    y = x * m / (1 - rate)                     indented: kept as it is
    entropy      H(mean)                       in columns: a table
>>> Dropout(0.5)                               an example
"""

import re
import textwrap
from typing import Any

import griffe

LABEL = re.compile(r"([A-Z][a-z]+(?: [a-z]+)?):\s+(.*)", re.DOTALL)
ARGUMENT = re.compile(r"(?:^|(?<=[.;] ))(\w+(?:, \w+)*): ")
ROW = re.compile(r"\S.*?(?=\s{2,}\S)")


class PlainDocstrings(griffe.Extension):
    """Every docstring of the package, as Markdown."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring:
            obj.docstring.value = markdown(obj.docstring.value)
        elif obj.is_class and not obj.name.startswith("_") and ".layers." in obj.path:
            # Made when the module is imported, so that it cannot be read here.
            obj.docstring = griffe.Docstring(f"Its docstring is in [The methods](../layers.md#{obj.name.lower()}).", parent=obj)


def markdown(text: str) -> str:
    """Paragraph by paragraph; an indented one that goes on after an empty line is one."""
    parts: list[str] = []
    for part in re.split(r"\n\n+", text.strip("\n")):
        if parts and part.startswith("    ") and parts[-1].startswith("    "):
            parts[-1] += "\n\n" + part
        else:
            parts.append(part)
    return "\n\n".join(_paragraph(part) for part in parts)


def _paragraph(text: str) -> str:
    if text.lstrip().startswith(">>>"):
        return f"```pycon\n{textwrap.dedent(text)}\n```"
    if LABEL.match(text):
        return "\n".join(_item(name, body) for name, body in _labels(text))
    plain = textwrap.dedent(text)
    if rows := _table(plain.splitlines()):
        width = max(map(len, rows))
        cells = [[escaped(cell) for cell in row] + [""] * (width - len(row)) for row in rows]
        lines = [[f"**{cells_[0]}**", *cells_[1:]] for cells_ in cells]
        return "\n".join("| " + " | ".join(row) + " |" for row in [[""] * width, ["---"] * width, *lines])
    if text.startswith("    "):
        return f"```text\n{plain}\n```"
    return escaped(text)


def _table(lines: list[str]) -> list[list[str]]:
    """The cells of lines whose second column begins in one place; a line that begins there goes on with the cell above."""
    if len(lines) < 2 or not (first := ROW.match(lines[0])):
        return []
    column = len(lines[0]) - len(lines[0][first.end() :].lstrip())
    rows: list[list[str]] = []
    for line in lines:
        name, rest = line[:column], line[column:]
        if not name.strip() and rows and rest:
            rows[-1][-1] += " " + rest.strip()
        elif name.endswith("  ") and rest[:1].strip() and "=" not in name:
            rows.append([name.strip(), *re.split(r"\s{2,}", rest.strip())])
        else:
            return []
    return rows if len(rows) > 1 else []


def _labels(text: str) -> list[tuple[str, str]]:
    found: list[list[str]] = []
    for line in text.splitlines():
        label = re.match(r"([A-Z][a-z]+(?: [a-z]+)?):(\s+|$)", line)
        if label and (not found or len(label[2]) > 1):
            found.append([label[1], line[label.end() :]])
        else:
            found[-1][1] += " " + line.strip()
    return [(name, body) for name, body in found]


def _item(name: str, body: str) -> str:
    before, *rest = ARGUMENT.split(body) if name == "Arguments" else [body]
    if rest and not before.strip():
        entries = [f"    - {code(names)}: {escaped(text.strip())}" for names, text in zip(rest[::2], rest[1::2])]
        return "\n".join([f"- **{name}**", *entries])
    return f"- **{name}**: {escaped(body)}"


def code(names: str) -> str:
    return ", ".join(f"`{name}`" for name in names.split(", "))


def escaped(text: str) -> str:
    """Markdown's own signs outside of code made plain."""
    return re.sub(r"`[^`]*`|[*_<>|\\]", lambda m: m[0] if m[0][0] == "`" else "\\" + m[0], text)
