"""Settings of the docs build."""

import os
import sys
from datetime import UTC, datetime
from importlib.metadata import version as installed_version
from pathlib import Path

from docutils.nodes import Element
from sphinx_astropy.conf.v2 import *  # noqa: F401, F403
from sphinx_astropy.conf.v2 import exclude_patterns, extensions, html_theme_options, intersphinx_mapping

project = "lenssr"
author = "The lenssr developers"
project_copyright = f"{datetime.now(tz=UTC).year}, {author}"
release = installed_version("lenssr")
version = ".".join(release.split(".")[:2])

sys.path.insert(0, str(Path(__file__).parent / "_ext"))
extensions += ["sphinx_gallery.gen_gallery", "sphinx_design"]
extensions += ["attributes", "from_package", "mathml", "tables"]  # those of _ext
html_static_path = ["_static"]
html_css_files = ["lenssr.css"]
html_math_renderer = "mathml"
exclude_patterns += ["_build", "_templates", "**/GALLERY_HEADER.rst", "sg_execution_times.rst"]

# -- Cross-references ---------------------------------------------------------

nitpicky = True

# With a network, links to other packages are resolved (and checked) from their inventories. A build
# without one must give the same pages less those links, so there they are taken on trust, and only
# there; links within lenssr are checked always.
if os.environ.get("READTHEDOCS") == "True" or os.environ.get("LENSSR_DOCS_ONLINE"):
    intersphinx_mapping.pop("h5py", None)
    intersphinx_mapping["photutils"] = ("https://photutils.readthedocs.io/en/stable/", None)
    intersphinx_mapping["torch"] = ("https://docs.pytorch.org/docs/stable/", None)
else:
    intersphinx_mapping = {}
    builtin = (
        "None|True|False|Ellipsis|bool|bytes|callable|complex|dict|float|frozenset|int|iterable|list|object|"
        r"property|range|set|slice|str|tuple(\[.*)?|type|[A-Z][A-Za-z]*(Error|Exception|Warning)"
    )
    elsewhere = (
        "astropy|numpy|np|scipy|torch|matplotlib|photutils|lenstronomy|yaml|python|"
        "abc|collections|dataclasses|enum|os|pathlib|typing"
    )
    nitpick_ignore_regex = [
        (r"py:.*", rf"({builtin})"),
        (r"py:.*", rf"({elsewhere})(\..*)?"),
        (r"std:.*|(py:)?term", r".*:.*"),
    ]
nitpick_ignore = [
    ("py:class", "Model"),  # an annotation that astropy's Fittable2DModel hands down
    ("py:class", "lenssr.light.profile.EllipticalLight"),  # bases that nobody imports
    ("py:class", "lenssr.imaging.observation_text.Described"),
    ("py:class", "lenssr.mass.parameter.Parametrised"),
    ("py:class", "lenssr.mass.calculator.LensCalculator"),
    ("py:class", "lenssr.result.exchange.Exchange"),
    ("py:class", "lenssr._option.Options"),  # the base of the options, which is private
]
# Classes without a page, in annotations of ``lenssr.source``.
inner = ("fit.Constraints", "fit.Fit", "image_stack.ImageStack", "scene.Scene")
nitpick_ignore += [("py:class", f"lenssr.model.{name}") for name in inner]
numpydoc_xref_param_type = False


def without_module(path):
    """Drop the name of the module from the path of an object in lenssr."""
    parts = path.split(".")
    modules = [n for n in range(1, len(parts)) if ".".join(parts[:n]) in sys.modules]
    return ".".join(parts[max(modules) :]) if parts[0] == "lenssr" and modules else path


def resolve_short_name(app, env, node, contnode):
    """Find what a docstring names by less or by more than the path on its page, where only one page fits.

    So `sie_deflection` links from the class beside it, and `lenssr.SIE` to the page of `lenssr.mass.SIE`.
    """
    if node.get("refdomain") != "py":
        return None
    name = without_module(node["reftarget"])
    domain = env.get_domain("py")
    # An object whose page has the name of its room is there under that of its module as well.
    pages = {
        (entry.docname, entry.node_id): path
        for path, entry in domain.objects.items()
        if without_module(path) == name
    }
    if len(pages) != 1:
        return None
    page = next(iter(pages.values()))
    return domain.resolve_xref(env, node.get("refdoc"), app.builder, "obj", page, Element(), contnode)


def setup(app):
    app.connect("missing-reference", resolve_short_name)


# -- Reference pages ----------------------------------------------------------

automodapi_toctreedirnm = "api"
automodapi_inheritance_diagram = False  # needs graphviz, a program outside Python
autodoc_default_options = {"no-value": True}  # few are literals
autodoc_typehints = "none"  # docstrings say what a parameter is, with shapes and units
automodsumm_inherited_members = False  # astropy's base classes bring hundreds; lenssr's are asked for by name

# -- Examples -----------------------------------------------------------------

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "gallery",
    "filename_pattern": r"/plot_",
    "abort_on_example_error": True,
    "download_all_examples": False,
    "show_memory": False,
    "write_computation_times": False,
    "plot_gallery": "True",
    "junit": "gallery/times.xml",  # which docs/check_site.py reads
    "within_subsection_order": "gallery_order.position",
}

# -- Pages --------------------------------------------------------------------

html_title = f"lenssr {release.split('+')[0]}"  # without the commit
# Pages with wide tables have no list of their headings beside them.
wide = "user/coming_from user/files user/hst_to_source user/networks user/sersic_photometry".split()
wide += [f"benchmarks/{page.stem}" for page in Path(__file__).parent.glob("benchmarks/*.rst")]
html_theme_options = {
    **html_theme_options,
    "navigation_depth": 3,
    "show_toc_level": 2,
    "secondary_sidebar_items": {"**": ["page-toc"], **dict.fromkeys(wide, [])},
}
htmlhelp_basename = "lenssrdoc"
