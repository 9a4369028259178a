"""What a benchmark printed, as tables and charts of a page."""

import re
from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import directives
from matplotlib.figure import Figure
from sphinx.util.docutils import SphinxDirective

NUMBER = re.compile(r"[-+<>=~]* ?(\d[\d.]*(?:e[-+]?\d+)?)")


def blocks_of(text):
    """Paragraphs and tables of a printed text, in order: strings, and lists of rows of cells.

    Lines that begin with "|" are a table in Markdown, whose second line is a rule.
    """
    found = []
    for block in re.split(r"\n\s*\n", text.strip()):
        words = []
        rows = []
        for line in block.splitlines():
            if line.startswith("|"):
                rows.append([cell.strip() for cell in line.strip().strip("|").split("|")])
            else:
                words.append(line.strip())
        if words:
            found.append("\n".join(words))
        if rows:
            found.append([rows[0], *rows[2:]])
    return found


def number(cell):
    """The number that a cell begins with, or None."""
    match = NUMBER.match(cell)
    return float(match[1]) * (-1 if cell.startswith("-") else 1) if match else None


def table_node(rows):
    """A table whose columns of numbers are set to the right."""
    table = nodes.table(classes=["printed"])
    group = nodes.tgroup(cols=len(rows[0]))
    table += group
    group += [nodes.colspec(colwidth=1) for _ in rows[0]]
    columns = list(zip(*rows[1:], strict=True)) or [()] * len(rows[0])
    right = [any(column) and all(number(cell) is not None for cell in column if cell) for column in columns]
    for part, some in ((nodes.thead(), rows[:1]), (nodes.tbody(), rows[1:])):
        group += part
        for cells in some:
            row = nodes.row()
            part += row
            for cell, numeric in zip(cells, right, strict=True):
                entry = nodes.entry(classes=["number"] if numeric else [])
                entry += nodes.paragraph(cell, cell)
                row += entry
    return table


class Read(SphinxDirective):
    """What directives for printed files share: they find the file, or say how to print it."""

    required_arguments = 1

    def text(self):
        relative, absolute = self.env.relfn2path(self.arguments[0])
        self.env.note_dependency(relative)
        if not Path(absolute).is_file():
            raise self.error(f"{relative} is not there: print it by {self.options['command']}")
        return Path(absolute).read_text(encoding="utf-8")


class Printed(Read):
    """The file that a script printed: its tables, and last with what it ran.

    ``:tables: 1 3`` shows those of its tables only, counted from 1.
    """

    option_spec = {"command": directives.unchanged_required, "tables": directives.positive_int_list}

    def run(self):
        blocks = blocks_of(self.text())
        head = blocks.pop(0).split("\n") if isinstance(blocks[0], str) else []
        chosen, seen, shown = self.options.get("tables"), 0, []
        for block in blocks:
            if isinstance(block, str):
                if chosen is None:
                    shown += [nodes.paragraph(line, line) for line in block.split("\n")]
                continue
            seen += 1
            if chosen is None or seen in chosen:
                shown.append(table_node(block))
        note = nodes.paragraph(classes=["printed-by"])
        note += [nodes.Text("Printed by "), nodes.literal("", self.options["command"])]
        note += nodes.Text(f": {'; '.join(head)}." if head else ".")
        return [*shown, note]


class Chart(Read):
    """Bars of one column of a printed table, a bar a row; made anew at every build.

    ``:labels:`` names the columns whose cells name a bar, ``:value:`` that of its length; ``:table:`` is the
    number of the table (default 1), ``:where:`` a pattern that the label has to match, ``:log:`` a
    logarithmic axis, ``:mark:`` a value at which a line is drawn. The first label, if there are
    several, groups the bars.
    """

    option_spec = {
        "command": directives.unchanged,
        "table": directives.positive_int,
        "labels": directives.unchanged_required,
        "value": directives.unchanged_required,
        "where": directives.unchanged,
        "without": directives.unchanged,
        "axis": directives.unchanged,
        "mark": directives.unchanged,
        "log": directives.flag,
        "alt": directives.unchanged_required,
    }

    def run(self):
        tables = [block for block in blocks_of(self.text()) if not isinstance(block, str)]
        heads, *rows = tables[self.options.get("table", 1) - 1]
        column = heads.index(self.options["value"])
        named = [heads.index(name.strip()) for name in self.options["labels"].split(";")]
        bars = []
        for row in rows:
            label, value = [row[k] for k in named], number(row[column])
            wanted = re.search(self.options.get("where", ""), " ".join(label))
            left_out = "without" in self.options and re.search(self.options["without"], " ".join(label))
            if value is not None and wanted and not left_out:
                bars.append((label, value))
        if not bars:
            raise self.error(f"no row of {self.arguments[0]} has a number in {self.options['value']!r}")
        name = re.sub(r"\W+", "-", f"{Path(self.arguments[0]).stem}-{self.lineno}-{self.options['value']}")
        path = Path(self.env.srcdir) / "charts" / f"{name}.svg"
        path.parent.mkdir(exist_ok=True)
        figure = self.draw(bars)
        figure.savefig(path, metadata={"Date": None}, transparent=False)
        return [nodes.image(uri=self.relative(path), alt=self.options["alt"], classes=["chart"])]

    def relative(self, path):
        """The path as a page names it: relative to the source of the docs."""
        return "/" + str(path.relative_to(self.env.srcdir))

    def draw(self, bars):
        """Bars from top to bottom, in the colour of their last label where a first one groups them."""
        grouped = len(bars[0][0]) > 1
        kinds = list(dict.fromkeys(label[-1] for label, _ in bars))
        figure = Figure(figsize=(7.2, 0.6 + 0.24 * len(bars)), layout="constrained")
        axes = figure.subplots()
        for place, (label, value) in enumerate(bars):
            colour = f"C{kinds.index(label[-1]) % 10}" if grouped else "C0"
            axes.barh(place, value, height=0.72, color=colour)
        axes.set_yticks(range(len(bars)), [", ".join(label) for label, _ in bars], fontsize="small")
        axes.invert_yaxis()
        axes.margins(y=0.01)
        axes.set_xlabel(self.options.get("axis", self.options["value"]))
        if "log" in self.options:
            axes.set_xscale("log")
        if "mark" in self.options:
            axes.axvline(float(self.options["mark"]), color="0.2", linewidth=1, linestyle="--")
        axes.spines[["top", "right"]].set_visible(False)
        return figure


def setup(app):
    app.add_directive("printed", Printed)
    app.add_directive("chart", Chart)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
