"""Summaries of attributes and constants that have no docstring, from where they are described.

A class describes its fields among the parameters of its docstring, an option has its line of help, a constant
the comment ``#:`` above it, in whichever module that is.
"""

import inspect
import re
import sys
from importlib import import_module
from pathlib import Path

from numpydoc.docscrape import NumpyDocString
from sphinx.pycode import ModuleAnalyzer

SECTIONS = ("Parameters", "Other Parameters", "Attributes")


def sections_of(cls):
    """Descriptions of parameters and attributes in the docstring of a class itself, by name."""
    doc = NumpyDocString(inspect.cleandoc(cls.__dict__.get("__doc__") or ""))
    listed = [one for section in SECTIONS for one in doc[section]]
    return {
        name.strip(): [" ".join(one.desc).strip() or one.type]
        for one in listed
        for name in one.name.split(",")
    }


def described(cls):
    """What docstring or option say of fields and attributes of a class itself, by name."""
    own = {**getattr(cls, "__annotations__", {}), **vars(cls)}
    told = {name: lines for name, lines in sections_of(cls).items() if name in own}
    options = {name: getattr(one, "metadata", {}).get("option") for name, one in fields_of(cls).items()}
    return told | {name: [one.meaning] for name, one in options.items() if one is not None and name in own}


def fields_of(cls):
    """Fields of a dataclass by name; none of another class."""
    return getattr(cls, "__dataclass_fields__", {})


def fill(app):
    """Give the comments of Sphinx's reader of source files, which autodoc asks, what stands elsewhere."""
    for page in Path(app.srcdir, "reference").glob("*.rst"):
        for name in re.findall(r"automod\w+:: (\S+)", page.read_text(encoding="utf-8")):
            import_module(name)
    modules = {name: module for name, module in sys.modules.items() if name.partition(".")[0] == "lenssr"}
    comments, constants = {}, {}
    for name, module in modules.items():
        analyzer = ModuleAnalyzer.for_module(name)
        analyzer.analyze()
        comments[name] = analyzer.attr_docs
        for cls in [one for one in vars(module).values() if inspect.isclass(one) and one.__module__ == name]:
            for attribute, lines in described(cls).items():
                comments[name].setdefault((cls.__qualname__, attribute), [*lines, ""])
        constants |= {
            (key, id(vars(module)[key])): lines
            for (owner, key), lines in comments[name].items()
            if not owner and key in vars(module)
        }
    for name, module in modules.items():
        for key, value in vars(module).items():
            if (key, id(value)) in constants:
                comments[name].setdefault(("", key), constants[key, id(value)])


def tidy(app, what, name, obj, options, signature, returns):
    """Write an ellipsis for defaults that a dataclass makes anew."""
    return (signature.replace("<factory>", "...") if signature else signature), returns


def setup(app):
    app.connect("builder-inited", fill)
    app.connect("autodoc-process-signature", tidy)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
