"""Markup for what the package or a script says, so that the pages cannot say something else."""

from importlib import import_module
from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.util.docutils import SphinxDirective, SphinxRole

import lenssr
from lenssr.reconstruction.verdict import FLAGS


class FlagTable(SphinxDirective):
    """Flags of a verdict with meaning and threshold: the serious ones, or with ``:doubtful:`` the rest."""

    option_spec = {"doubtful": directives.flag}

    def run(self):
        serious = "doubtful" not in self.options
        lines = [".. list-table::", "   :header-rows: 1", "   :widths: 26 60 14", ""]
        lines += ["   * - Flag", "     - Set when", "     - Threshold"]
        for name, flag in FLAGS.items():
            if flag.serious == serious:
                threshold = "" if flag.threshold is None else f"{flag.threshold:g}"
                lines += [f"   * - ``{name}``", f"     - {flag.meaning}", f"     - {threshold}"]
        return self.parse_text_to_nodes("\n".join(lines))


class Printed(SphinxDirective):
    """The text file that a script printed; where it is missing, the build fails and says how to print it."""

    required_arguments = 1
    option_spec = {"command": directives.unchanged_required}

    def run(self):
        relative, absolute = self.env.relfn2path(self.arguments[0])
        self.env.note_dependency(relative)
        if not Path(absolute).is_file():
            raise self.error(f"{relative} is not there: print it by {self.options['command']}")
        text = Path(absolute).read_text(encoding="utf-8").rstrip()
        return [nodes.literal_block(text, text, language="none")]


class PublicNames(SphinxDirective):
    """What imports from the package itself, each with the module in which it is documented."""

    def run(self):
        homes = lenssr._HOMES
        lines = [".. list-table::", "   :widths: 30 70", ""]
        for name in sorted(set(lenssr.__all__) - {"__version__"}):
            value = getattr(lenssr, name)
            summary = value.__doc__.strip().splitlines()[0]
            page = next(path for path in sorted(homes) if name in homes[path])
            lines += [f"   * - `{name} <{page}.{name}>`", f"     - {summary}"]
        return self.parse_text_to_nodes("\n".join(lines))


class Constant(SphinxRole):
    """The value of a number in a module, by its full name; the build fails where there is none."""

    def run(self):
        module, _, name = self.text.rpartition(".")
        return [nodes.Text(f"{getattr(import_module(module), name):g}")], []


def setup(app):
    app.add_role("constant", Constant())
    app.add_directive("flag-table", FlagTable)
    app.add_directive("printed", Printed)
    app.add_directive("public-names", PublicNames)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
