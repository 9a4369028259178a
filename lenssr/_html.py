"""Objects as notebooks show them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

__all__ = ["html_table"]


def html_table(title: str, rows: Iterable[Sequence[str]], head: Sequence[str] = ()) -> str:
    """A table of plain text, with a title and perhaps a row of headings, as HTML."""
    lines = [f"<p><b>{escape(title)}</b></p>", "<table>"]
    if head:
        lines.append(f"<tr>{''.join(f'<th>{escape(cell)}</th>' for cell in head)}</tr>")
    for row in rows:
        cells = (f'<td style="text-align: left">{escape(str(cell))}</td>' for cell in row)
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return "\n".join([*lines, "</table>"])
