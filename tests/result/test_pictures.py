"""Figures of results as images; ``pytest --mpl-generate-path=tests/result/baseline`` makes those anew."""

from dataclasses import replace

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from lenssr.mass import SIE, Shear
from lenssr.result import BandsResolution

# What versions of matplotlib draw differently is less than this; an outline or a curve that is missing, more.
picture = pytest.mark.mpl_image_compare(
    baseline_dir="baseline", tolerance=2, style="default", savefig_kwargs={"dpi": 50}
)


def _wordless(figure):
    """Figure without its text, which versions of freetype draw differently; other tests read it."""
    for text in figure.findobj(Text):
        text.set_visible(not text.get_text())  # arrows are annotations without words
    return figure


def _axes():
    """Axes at a place of their own: layouts differ between versions."""
    return Figure(figsize=(4, 4)).add_axes((0.02, 0.02, 0.96, 0.96))


@pytest.fixture(scope="module")
def lens(make):
    """A lens with light, prior and masks in its planes."""
    result = make()
    light = result.lensed_source.data[::-1, ::-1].copy()
    source = result.source.copy()
    source.mask = np.hypot(*np.indices(source.shape) - 20.0) > 17
    plane = result.lensed_source.copy()
    plane.data[...] = light
    data = result.data.copy()
    data.data[data.mask] = 1.0
    fields = {"lens_light_image": plane, "lens_light": result.source_model, "source": source, "data": data}
    return make(**fields, lens=SIE(1.2, 0.35, -0.05) + Shear(0.03, -0.02))


@picture
@pytest.mark.parametrize(
    "panel", ["data", "lens_subtracted", "residual", "image", "error", "lens_light", "source", "source_error"]
)
def test_panel(lens, panel):
    return _wordless(lens.plot_panel(panel, ax=_axes(), colorbar=False).figure)


@picture
def test_whole_figure(lens):
    panels = ["data", "lens_subtracted", "model", "residual", "image", "source"]
    return _wordless(lens.plot(panels=panels, figure=Figure(figsize=(9, 5))))


@picture
@pytest.mark.parametrize("panel", ["data", "lens_subtracted", "image", "source"])
def test_colours(lens, make, panel):
    return _wordless(_bands(lens).plot_panel(panel, ax=_axes()).figure)


def _bands(lens):
    red = lens.lens_light_image.copy()
    red.data *= 0.3
    meta = lens.meta | {"pixel_scale": 0.08}
    other = replace(lens, lensed_source=red, image=red, meta=meta)
    return BandsResolution.of({"F606W": replace(lens, meta=meta), "F814W": other}, lens=lens.lens)


@picture
def test_figure_of_bands(lens):
    figure = Figure(figsize=(9, 8))
    return _wordless(_bands(lens).plot(panels=["data", "image", "source"], figure=figure))
