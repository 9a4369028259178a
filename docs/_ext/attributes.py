"""Summaries of attributes and constants that have no docstring, from where they are described.

A class describes its fields among the parameters of its docstring, an option has its line of help, a constant
the comment ``#:`` above it, in whichever module that is.
"""

import inspect
import sys

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


def comments_of(module):
    """Comments ``#:`` of a module, by class ("" for none) and name."""
    try:
        return ModuleAnalyzer.for_module(module).find_attr_docs()
    except Exception:  # what is no file of Python has no comments
        return {}


def of_attribute(path, name):
    """What the docs of a class, or of one of its bases, say of an attribute."""
    module, _, owner = path.rpartition(".")
    for cls in getattr(sys.modules.get(module), owner, object).__mro__[:-1]:
        option = getattr(cls, "__dataclass_fields__", {}).get(name)
        if option is not None and "option" in option.metadata:
            return [option.metadata["option"].meaning]
        told = comments_of(cls.__module__).get((cls.__name__, name)) or sections_of(cls).get(name)
        if told:
            return told
    return []


def of_constant(path, name):
    """The comment above a constant in the module of lenssr that defines it."""
    value = getattr(sys.modules.get(path), name, None)
    for module in [one for one in sys.modules if one.startswith("lenssr")]:
        if vars(sys.modules[module]).get(name) is value and value is not None:
            told = comments_of(module).get(("", name))
            if told:
                return told
    return []


def fill(app, what, name, obj, options, lines):
    """Fill an empty docstring."""
    if any(line.strip() for line in lines) and not (
        what == "data" and lines == type(obj).__doc__.splitlines()
    ):
        return
    owner, _, last = name.rpartition(".")
    if what in ("attribute", "property"):
        lines[:] = of_attribute(owner, last)
    elif what == "data":
        lines[:] = of_constant(owner, last)


def tidy(app, what, name, obj, options, signature, returns):
    """Write an ellipsis for defaults that a dataclass makes anew."""
    return (signature.replace("<factory>", "...") if signature else signature), returns


def setup(app):
    app.connect("autodoc-process-docstring", fill, priority=400)
    app.connect("autodoc-process-signature", tidy)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
