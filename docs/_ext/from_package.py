"""Markup for what the package or a script says, so that the pages cannot say something else."""

import re
import textwrap
from importlib import import_module
from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.addnodes import pending_xref
from sphinx.util.docutils import SphinxDirective, SphinxRole

import lenssr
from lenssr import options
from lenssr.reconstruction.verdict import FLAGS
from lenssr.result.fits import planes_of


class FlagTable(SphinxDirective):
    """Flags of a verdict by the best grades that they leave a result, with meaning and threshold."""

    required_arguments, final_argument_whitespace = 1, True

    def run(self):
        caps = self.arguments[0].split()
        lines = [".. list-table::", "   :header-rows: 1", "   :widths: 26 60 14", ""]
        lines += ["   * - Flag", "     - Set when", "     - Threshold"]
        for name, flag in FLAGS.items():
            if flag.cap in caps:
                threshold = "" if flag.threshold is None else f"{flag.threshold:g}"
                lines += [f"   * - ``{name}``", f"     - {flag.meaning}", f"     - {threshold}"]
        return self.parse_text_to_nodes("\n".join(lines))


class OptionTable(SphinxDirective):
    """Options of `lenssr.options` by the names of their lists: how they are spelled, default, meaning.

    With ``:flags:`` only those that the command line knows, less those of ``:without:``.
    """

    required_arguments, final_argument_whitespace = 1, True
    option_spec = {"flags": directives.flag, "without": directives.unchanged_required}

    def run(self):
        known = {}
        for name in self.arguments[0].split():
            known |= getattr(options, name)
        flags, without = "flags" in self.options, self.options.get("without", "").split()
        known = {name: one for name, one in known.items() if name not in without and (one.flag or not flags)}
        heads = ["Option", "In Python"] if flags else ["Option", "Command line"]
        lines = [".. list-table::", "   :header-rows: 1", "   :widths: 22 16 12 50", ""]
        lines += [f"   * - {heads[0]}", f"     - {heads[1]}", "     - Default", "     - Meaning"]
        for name, one in known.items():
            flag = "" if one.flag is None else f"``{one.flag}{f' {one.metavar}' if one.metavar else ''}``"
            first, second = (flag, f"``{name}``") if flags else (f"``{name}``", flag)
            default = "" if one.default is None else f"``{one.default}``"
            lines += [f"   * - {first}", f"     - {second}", f"     - {default}", f"     - {one.meaning}"]
        return self.parse_text_to_nodes("\n".join(lines))


class SourceTable(SphinxDirective):
    """The kinds of source by name."""

    def run(self):
        lines = [".. list-table::", "   :header-rows: 1", "   :widths: 25 75", ""]
        lines += ["   * - Source", "     - What it is"]
        for name, source in options.SOURCES.items():
            lines += [f"   * - ``{name}``", f"     - {source.help}"]
        return self.parse_text_to_nodes("\n".join(lines))


class PlaneTable(SphinxDirective):
    """The planes of a result's file, from their declarations."""

    def run(self):
        lines = [".. list-table::", "   :header-rows: 1", "   :widths: 24 24 52", ""]
        lines += ["   * - HDU", "     - Field", "     - What it is"]
        for name, plane in planes_of(lenssr.SuperResolution).items():
            comment = plane.comment.replace("*", "\\*").replace("|", "\\|")
            lines += [f"   * - ``{plane.hdu}``", f"     - ``{name}``", f"     - {comment}"]
        return self.parse_text_to_nodes("\n".join(lines))


class ReleaseNotes(SphinxDirective):
    """A section for each version of a changelog in Markdown: headings, lists and names in backquotes.

    Where a version has many changes, all but its latest are folded.
    """

    shown = 50

    required_arguments = 1

    def run(self):
        relative, absolute = self.env.relfn2path(self.arguments[0])
        self.env.note_dependency(relative)
        text = Path(absolute).read_text(encoding="utf-8")
        found = []
        for heading, changes in re.findall(r"^## (.+)\n((?:(?!## ).*\n?)*)", text, flags=re.MULTILINE):
            section = nodes.section(ids=[nodes.make_id(f"version-{heading}")], names=[heading.lower()])
            section += nodes.title(heading, heading)
            entries = re.split(r"^(?=- )", changes.strip().replace("`", "``"), flags=re.MULTILINE)
            section += self.parse_text_to_nodes("".join(entries[: self.shown]))
            rest = textwrap.indent("".join(entries[self.shown :]), "   ")
            if rest:
                section += self.parse_text_to_nodes(f".. dropdown:: Earlier changes of {heading}\n\n{rest}")
            found.append(section)
        return found


class PublicNames(SphinxDirective):
    """What imports from the package itself, each with the module in which it is documented."""

    def run(self):
        lines = [".. list-table::", "   :widths: 30 70", ""]
        for name in sorted(set(lenssr.__all__) - {"__version__"}):
            value = getattr(lenssr, name)
            summary = value.__doc__.strip().splitlines()[0]
            lines += [f"   * - `{name} <{lenssr._HOME_OF[name]}.{name}>`", f"     - {summary}"]
        return self.parse_text_to_nodes("\n".join(lines))


class Constant(SphinxRole):
    """The value of a number in a module, by its full name; the build fails where there is none."""

    def run(self):
        module, _, name = self.text.rpartition(".")
        return [nodes.Text(f"{getattr(import_module(module), name):g}")], []


class Inner(SphinxRole):
    """A function, class or module by its full name, which links to its page in the reference if it has one.

    The build fails where there is no such thing.
    """

    def run(self):
        find(self.text)
        shown = nodes.literal(self.text, self.text.removeprefix("lenssr."))
        options = {"refdomain": "py", "reftype": "obj", "reftarget": self.text, "inner": True}
        return [pending_xref(self.text, shown, refdoc=self.env.docname, **options)], []


def find(path):
    """What a full name such as ``lenssr.model.fit.Fit.on`` stands for."""
    parts = path.split(".")
    for number in range(len(parts), 0, -1):
        try:
            found = import_module(".".join(parts[:number]))
        except ModuleNotFoundError:
            continue
        for name in parts[number:]:
            found = getattr(found, name)
        return found
    raise ModuleNotFoundError(path)


def keep_inner(app, env, node, contnode):
    """Show the name alone of what has no page."""
    return contnode if node.get("inner") else None


def setup(app):
    app.add_role("constant", Constant())
    app.add_role("inner", Inner())
    app.connect("missing-reference", keep_inner, priority=900)
    app.add_directive("flag-table", FlagTable)
    app.add_directive("option-table", OptionTable)
    app.add_directive("plane-table", PlaneTable)
    app.add_directive("public-names", PublicNames)
    app.add_directive("release-notes", ReleaseNotes)
    app.add_directive("source-table", SourceTable)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
