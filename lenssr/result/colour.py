"""Colour pictures of two or three bands."""

import re

import numpy as np
from astropy.visualization import make_lupton_rgb
from scipy import ndimage

from lenssr.exceptions import InputError
from lenssr.grids import conserves_sum
from lenssr.result.lens_subtraction import can_subtract, without_lens

__all__ = ["PLANES", "colour_picture", "has_colours"]

# Fields of a result by the picture: on whose pixels it is made.
PLANES = {
    "data": "data",
    "lens_subtracted": "data",
    "model": "model_image",
    "image": "image",
    "source": "source",
}
# Percentile of a band's data that is as bright in all bands, and the stretch of Lupton et al. (2004).
BRIGHT, STRETCH, SOFTENING = 99.5, 0.4, 8.0


def has_colours(result):
    """Whether there are bands enough, and not too many."""
    return len(result.bands) in (2, 3)


def colour_picture(result, what="image"):
    """Colour picture (ny, nx, 3) of data, model, fine image or source, on the pixels of the first band."""
    if what not in PLANES:
        raise InputError(f"colour({what!r}): give one of {', '.join(map(repr, PLANES))}")
    if not has_colours(result):
        raise InputError(f"{len(result.bands)} bands make no colours: two or three do")
    bands = list(result.bands.values())
    if any(getattr(band, PLANES[what]) is None for band in bands):
        raise InputError(f"a band has no {what}: run with a source model")
    if what == "lens_subtracted" and not all(map(can_subtract, bands)):
        raise InputError("a band has no lens light to subtract: run with lens_light= and without psf_out=")
    place = _source_places if what == "source" else _image_places
    planes = [_sampled(band, what, *place(band, bands[0], what)) for band in bands]
    if what == "lens_subtracted":  # as bright as the arcs, with the colours of the data
        brightest = max(np.percentile(plane, BRIGHT) for plane in planes)
        planes = [plane / max(brightest, np.finfo(float).tiny) for plane in planes]
    order = sorted(range(len(bands)), key=lambda k: _wavelength(list(result.bands)[k], k))
    blue, red = planes[order[0]], planes[order[-1]]
    green = planes[order[1]] if len(bands) == 3 else (blue + red) / 2
    with np.errstate(divide="ignore", invalid="ignore"):  # of pixels without light
        return make_lupton_rgb(red, green, blue, stretch=STRETCH, Q=SOFTENING)


def _wavelength(name, number):
    """What bands are sorted by: the number in the name, the infrared (F160W) last, a letter, or the place."""
    found = re.search(r"\d+", str(name))
    letters = "ugrizyjhk"
    if found is None:
        letter = str(name).strip().lower()[-1:]
        return letters.index(letter) if letter in letters else number
    value = int(found.group())
    return value * 10 if value < 200 else value


def _sampled(band, what, column, row):
    """A plane of a band at its own pixel coordinates, over the brightness of its data."""
    plane, area = getattr(band, PLANES[what]), 1.0
    if conserves_sum(band.data.unit):
        area = (band.image.shape[0] / band.data.shape[0]) ** 2 if what == "image" else 1.0
        area = band.meta["pixel_scale"] ** 2 if what == "source" else area
    data = band.data.data if band.data.mask is None else band.data.data[~band.data.mask]
    sky = band.sky.value
    bright = max(np.percentile(data - sky, BRIGHT), np.finfo(float).tiny)
    values = plane.data * area - (0.0 if what == "source" else sky)
    values = without_lens(band) if what == "lens_subtracted" else values
    values = np.where(np.isfinite(values), values, 0.0)
    return ndimage.map_coordinates(values / bright, [row, column], order=1, mode="constant")


def _frame(band):
    frame = band.meta.get("frame") or {}
    turn, origin = frame.get("turn", np.eye(2)), frame.get("origin", (0.0, 0.0))
    own = frame.get("matrix", band.meta["pixel_scale"] * np.eye(2))
    return np.asarray(turn, dtype=float), np.asarray(origin, dtype=float), np.asarray(own, dtype=float)


def _image_places(band, first, what):
    """Pixel coordinates in a band of all pixels of the first one."""
    name = PLANES[what]
    shape, own_shape = getattr(first, name).shape, getattr(band, name).shape
    turn, origin, matrix = _frame(first)
    step = matrix * (first.data.shape[0] / shape[0])
    row, column = np.indices(shape)
    pixels = np.stack([column - (shape[1] - 1) / 2, row - (shape[0] - 1) / 2])
    place = np.einsum("ij,jyx->iyx", np.linalg.inv(turn) @ step, pixels) + origin[:, None, None]
    turn, origin, matrix = _frame(band)
    step = matrix * (band.data.shape[0] / own_shape[0])
    own = np.einsum("ij,jyx->iyx", np.linalg.inv(step) @ turn, place - origin[:, None, None])
    return own[0] + (own_shape[1] - 1) / 2, own[1] + (own_shape[0] - 1) / 2


def _source_places(band, first, what):
    """Pixel coordinates in the source of a band of all pixels of that of the first one."""
    plane, target = getattr(band, what), getattr(first, what)
    row, column = np.indices(target.shape)
    told = [
        {name: float(one.meta[name]) for name in ("x_0", "y_0", "pixel_scale")} for one in (target, plane)
    ]
    found = []
    for name, axis, size, own_size in (
        ("x_0", column, target.shape[1], plane.shape[1]),
        ("y_0", row, target.shape[0], plane.shape[0]),
    ):
        place = told[0][name] + (axis - (size - 1) / 2) * told[0]["pixel_scale"]
        found.append((place - told[1][name]) / told[1]["pixel_scale"] + (own_size - 1) / 2)
    return found[0], found[1]
