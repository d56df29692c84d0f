"""Display of results: rich's tables and texts on a terminal of any width, text in a Python shell, HTML in a notebook.

A result defines its tables once, in `__rich__`; this module converts them to the other forms.
"""

import copy
import dataclasses
import io
import shutil
from collections.abc import Iterable
from html import escape
from typing import IO, Any

from rich.console import Console, ConsoleOptions, Group
from rich.measure import Measurement
from rich.segment import Segment
from rich.table import Column, Table
from rich.text import Text

from keras_dropout.characters import CleanStream, clean

WIDTH = 100  # columns of text that is not for a terminal
_SHORT = 10  # letters below which a column of names is not narrowed


class Terminal(Console):
    """A console that prints names as they are: brackets and colons are not markup, and characters that would act on the terminal
    are escaped. It raises BrokenPipeError when its reader has gone; rich would exit with a failure."""

    def __init__(self, **options: Any):
        super().__init__(markup=False, emoji=False, **options)

    @property
    def file(self) -> IO[str]:
        """The stream itself: the console cleans its text, and a `CleanStream` would remove its colours."""
        found = super().file
        return found.behind if isinstance(found, CleanStream) else found

    @file.setter
    def file(self, stream: IO[str]) -> None:
        self._file = stream

    def render(self, renderable: Any, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Clean all text that is printed, whatever contains it."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=clean(segment.text))

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


class Shown:
    """A result with `__rich__`: it prints in that form, and a notebook shows it as HTML."""

    def __str__(self) -> str:
        return as_text(self)

    def __repr__(self) -> str:
        return as_text(self, shutil.get_terminal_size((WIDTH, 24)).columns).rstrip("\n")

    def _repr_html_(self) -> str:
        return as_html(self)


def as_text(found: Any, width: int = WIDTH) -> str:
    """Return the text that rich prints on a terminal of that width, without colours."""
    text = io.StringIO()
    console = Terminal(width=width, file=text, color_system=None, force_terminal=False, force_jupyter=False)
    console.print(fitted(found, width))
    return text.getvalue()


def fitted(found: Any, width: int) -> Any:
    """Fit the content to that many columns: a table in which a figure would be cut becomes a list with a line for each cell.

    Columns that may be folded anywhere, such as names, are folded first.
    """
    console = Terminal(width=width, file=io.StringIO(), color_system=None, force_terminal=False, force_jupyter=False)
    return Group(*(_fitted(part, console) if isinstance(part, Table) else part for part in _parts(found)))


def as_html(found: Any) -> str:
    """Return tables and paragraphs as plain HTML, in the colours of the page around them. Text is escaped."""
    console = Terminal(width=10_000, file=io.StringIO(), force_jupyter=False)
    return "\n".join(_table(part, console) if isinstance(part, Table) else _paragraph(part, console) for part in _parts(found))


def _parts(found: Any) -> list[Any]:
    """Return tables and texts in order, cleaned before their widths are measured."""
    while hasattr(found, "__rich__"):
        found = found.__rich__()
    return [each for part in found.renderables for each in _parts(part)] if isinstance(found, Group) else [_cleaned(found)]


def _cleaned(part: Any) -> Any:
    if isinstance(part, str):
        return clean(part)
    if isinstance(part, Text) and clean(part.plain) is not part.plain:
        return Text(clean(part.plain), style=part.style)
    if isinstance(part, Table):
        texts = [part.title, *(text for each in part.columns for text in (each.header, *each._cells))]
        if all(_cleaned(text) is text for text in texts):
            return part
        part = copy.copy(part)
        part.title = _cleaned(part.title)
        part.columns = [
            dataclasses.replace(each, header=_cleaned(each.header), _cells=[_cleaned(cell) for cell in each._cells])
            for each in part.columns
        ]
    return part


def _fitted(table: Table, console: Console) -> Any:
    """Return the table, a narrower table that cuts nothing but long names, or a list."""
    options = console.options.update(width=10_000)
    if Measurement.get(console, options, table).maximum <= console.width:
        return table
    fitting = copy.copy(table)
    fitting.columns = [copy.copy(column) for column in table.columns]
    wanted: list[tuple[int, Column]] = []
    for column in fitting.columns:
        sizes = [Measurement.get(console, options, _text(cell, console)) for cell in (column.header, *column.cells)]
        widest = max(size.maximum for size in sizes)
        width = widest if column.no_wrap else max(size.minimum for size in sizes)
        column.width = width
        wanted.append((widest - width, column))
    left = console.width - Measurement.get(console, options, fitting).maximum
    for column in fitting.columns:
        if column.overflow == "fold" and column.justify == "left" and left < 0:
            assert column.width is not None  # all were set above
            shorter = min(column.width, max(_SHORT, column.width + left))
            left += column.width - shorter
            column.width = shorter
    if left < 0:
        return _listed(table, console)
    for number, (more, column) in enumerate(sorted(wanted, key=lambda each: each[0])):  # share the rest among those that want it
        given = min(more, left // (len(wanted) - number))
        assert column.width is not None
        column.width += given
        left -= given
    return fitting


def _text(cell: Any, console: Console) -> Text:
    return cell if isinstance(cell, Text) else console.render_str(str(cell), highlight=False)


def _rows(table: Table) -> list[tuple[Any, ...]]:
    """Return the cells by row, without the header."""
    return list(zip(*(column.cells for column in table.columns)))


def _listed(table: Table, console: Console) -> Group:
    """Return a line for each cell, after the name of its column; the first cell of a row stands above the others."""
    lines = [] if table.title is None else [_text(table.title, console)]
    for first, *others in _rows(table):
        head = _text(first, console).copy()
        head.stylize("bold")
        lines += [head] if head.plain.strip() else []
        for column, cell in zip(table.columns[1:], others):
            if (value := _text(cell, console)).plain.strip():
                name = _text(column.header, console).plain if table.show_header else ""
                lines.append(Text.assemble("  ", f"{name}: " if name else "", value))
    return Group(*lines)


def _html(cell: Any, console: Console) -> str:
    """Return escaped text; bold text stays bold."""
    parts = []
    for segment in _text(cell, console).render(console):
        text = escape(segment.text)
        parts.append(f"<strong>{text}</strong>" if segment.style and segment.style.bold else text)
    return "".join(parts)


def _paragraph(text: Any, console: Console) -> str:
    content = _html(text, console)
    return f'<p style="white-space: pre-wrap">{content}</p>' if content else ""


def _table(table: Table, console: Console) -> str:
    sides = ["right" if column.justify == "right" else "left" for column in table.columns]
    styles = [f' style="text-align: {side}; white-space: pre-wrap"' for side in sides]
    lines = ["<table>"]
    if table.title is not None:
        lines.append(f'<caption style="text-align: left; white-space: nowrap">{_html(table.title, console)}</caption>')
    if table.show_header:
        heads = (f'<th scope="col"{style}>{_html(column.header, console)}</th>' for column, style in zip(table.columns, styles))
        lines.append(f"<thead><tr>{''.join(heads)}</tr></thead>")
    lines.append("<tbody>")
    for first, *others in _rows(table):
        cells = (f"<td{style}>{_html(cell, console)}</td>" for cell, style in zip(others, styles[1:]))
        lines.append(f'<tr><th scope="row"{styles[0]}>{_html(first, console)}</th>{"".join(cells)}</tr>')
    return "\n".join([*lines, "</tbody>", "</table>"])
