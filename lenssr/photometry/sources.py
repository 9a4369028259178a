"""Positions of galaxies, and where their fits begin: at given values, else at estimates from moments."""

from functools import partial

import astropy.units as u
import numpy as np
import torch
from astropy.stats import gaussian_fwhm_to_sigma
from astropy.table import Table

from lenssr.exceptions import InputError
from lenssr.imaging.detection import label_objects, psf_width, significance_map
from lenssr.photometry.flags import SersicFlag
from lenssr.photometry.parameters import smooth_from_axes
from lenssr.units import strip_unit

__all__ = ["Sources", "find_sources", "initial_coordinates", "psf_fwhm_in_pixels"]

# Columns of init_params that give initial guesses, with their units; "amplitude" is in that of the image.
GUESSED = {"amplitude": None, "flux": None, "r_eff": u.pix, "n": None, "ellip": None, "theta": u.rad}
# Ends of what guesses may be, and largest position in pixels.
MEANINGFUL = {
    "amplitude": (0, 1e30),
    "flux": (0, 1e30),
    "r_eff": (0, 1e6),
    "n": (0, 100),
    "ellip": (-1e-9, 1),
}
MEANINGFUL |= {"theta": (-1e6, 1e6)}
FARTHEST = 1e7
# Significance of the peak of a galaxy in the smoothed image, in sigma. Theory: noise exceeds it in one pixel
# of 3.5 million.
PEAK_SIGMA = 5.0
# Significance in the smoothed image above which a pixel is part of a galaxy, in sigma. Chosen: radii are
# better than at 1 (at a signal to noise of 100, 7 % off instead of 8), fluxes worse (8 % instead of 4).
SEGMENT_SIGMA = 1.5
# Smallest half-light radius, in pixels, and largest modulus of the ellipticity that moments may give. Chosen.
MIN_HALF_LIGHT_RADIUS, MAX_ELLIPTICITY = 0.4, 0.45
# Half-light radius of the PSF over its FWHM. Theory: 0.5 for a Gaussian; chosen: radii add in quadrature
# only nearly.
PSF_HALF_LIGHT = 0.45
# Sérsic index that a fit starts with: in the middle of those of discs and ellipticals. Radius over that of
# the whole galaxy, Sérsic index and share of the light of a bulge and a disc. Chosen.
START_INDEX = 2.0
BULGE_AND_DISC = ((0.5, 2.5, 0.5), (1.3, 1.0, 0.5))


class Sources:
    """Positions of galaxies, and guesses.

    ``x`` and ``y`` (G,) are zero-based pixels; ``group`` (G,) numbers those fitted together, if given;
    ``guesses`` are arrays (G,) by names of `GUESSED`, NaN where unknown; ``segments`` (ny, nx) holds the
    label of each pixel, 0 for none, and ``labels`` (G,) those of the galaxies.
    """

    def __init__(self, x, y, *, id=None, group=None, guesses=None, segments=None, labels=None):
        self.x, self.y = (np.atleast_1d(np.asarray(places, dtype=float)) for places in (x, y))
        self.id = np.arange(1, len(self.x) + 1) if id is None else np.atleast_1d(id)
        self.group, self.guesses = group, guesses or {}
        self.segments, self.labels = segments, labels
        self.flags = np.zeros(len(self.x), dtype=int)
        if not len(self.x) == len(self.y) == len(self.id):
            raise InputError(
                f"init_params has {len(self.x)} x, {len(self.y)} y and {len(self.id)} ids: give as many"
            )
        self._set_aside()

    def _set_aside(self):
        """Flag guesses that mean nothing, which become unknown, and positions that are given again."""
        for name, values in self.guesses.items():
            lowest, highest = MEANINGFUL[name]
            bad = np.isinf(values) | (values <= lowest) | (values >= highest)
            self.guesses[name] = np.where(bad, np.nan, values)
            self.flags[bad] |= int(SersicFlag.BAD_START)
        places = np.stack([self.x, self.y], axis=1)
        known = np.flatnonzero(self.known)
        _, first = np.unique(places[known], axis=0, return_index=True)
        self.flags[np.setdiff1d(known, known[first])] |= int(SersicFlag.DUPLICATE)

    @property
    def known(self):
        """Whether the position of each galaxy (G,) is near an image."""
        return (np.abs(self.x) < FARTHEST) & (np.abs(self.y) < FARTHEST)

    @property
    def fitted(self):
        """Whether each galaxy (G,) can be fitted."""
        return self.known & (self.flags & int(SersicFlag.DUPLICATE) == 0)

    def __len__(self):
        return len(self.x)

    def guess(self, name):
        """Guesses of one parameter, shape (G,), NaN where there is none."""
        return self.guesses.get(name, np.full(len(self), np.nan))


# ---------------------------------------------------------------- positions


def find_sources(init_params, observation):
    """`Sources` from a table, a ``SourceCatalog`` or a segmentation image; None detects them."""
    if init_params is None:
        return _detected(observation)
    if hasattr(init_params, "labels") and callable(getattr(init_params, "to_table", None)):
        return Sources(*np.atleast_2d(init_params.centroid).T, id=init_params.labels)
    if hasattr(init_params, "labels") and hasattr(init_params, "data"):
        return _of_segments(np.asarray(init_params.data), observation)
    if isinstance(init_params, np.ndarray) and init_params.dtype.names is None and init_params.ndim == 2:
        if not np.issubdtype(init_params.dtype, np.integer):
            kind = init_params.dtype
            raise InputError(f"init_params is an array of {kind}: give a table, or segments as integers")
        return _of_segments(init_params, observation)
    try:
        return _of_table(_columns_of(init_params), observation)
    except InputError:
        raise
    except Exception as error:  # columns of another type or shape
        why = f"{type(error).__name__}: {error}"
        raise InputError(f"init_params cannot be used ({why}): give numbers in x and y") from error


def _of_table(columns, observation):
    names = ("{}", "{}_init", "{}_centroid", "{}centroid", "{}_0")
    x, y = (_column(columns, [name.format(axis) for name in names], u.pix) for axis in "xy")
    if x is None or y is None:
        x, y = _from_sky(columns, observation)
    units = GUESSED | {"amplitude": observation.unit}
    guesses = {name: _column(columns, (name, f"{name}_init"), unit) for name, unit in units.items()}
    guesses = {name: values for name, values in guesses.items() if values is not None}
    identity, group = (np.asarray(columns[name]) if name in columns else None for name in ("id", "group_id"))
    return Sources(x, y, id=identity, group=group, guesses=guesses)


def _columns_of(init_params):
    """Columns of anything like a table, by name."""
    values = list(init_params.values()) if isinstance(init_params, dict) else [None]
    # Cutouts have one row each: to make a Table would take longer than all else here.
    if all(isinstance(one, np.ndarray) and one.shape == (1,) for one in values):
        return init_params
    try:
        table = init_params if isinstance(init_params, Table) else Table(init_params)
    except (TypeError, ValueError) as error:
        kind = type(init_params).__name__
        raise InputError(f"init_params is a {kind}: give a table, a SourceCatalog or segments") from error
    return {name: table[name] for name in table.colnames}


def _column(columns, names, unit):
    """Values (G,) of the first of these columns, converted to a unit if there is one; None without any."""
    name = next((name for name in names if name in columns), None)
    if name is None:
        return None
    column = columns[name]
    values = getattr(column, "value", column)
    given = u.Unit(getattr(column, "unit", None) or "")
    if unit is not None and given != u.dimensionless_unscaled:
        values = strip_unit(u.Quantity(column), unit, f"{name} of init_params")
    numbers = np.ma.asarray(values)
    if numbers.ndim != 1:
        raise InputError(f"{name} of init_params has the shape {numbers.shape}: give one number a row")
    return np.array(np.ma.filled(numbers.astype(float), np.nan), dtype=float)


def _from_sky(columns, observation):
    name = next((n for n in ("skycoord", "sky_centroid") if n in columns), None)
    if name is None:
        given = ", ".join(columns) or "no columns"
        raise InputError(f"init_params has {given}: give x and y in zero-based pixels, or skycoord")
    if observation.grid.wcs is None:
        raise InputError(f"init_params gives {name}, but the image has no WCS: give x and y in pixels")
    return observation.grid.wcs.world_to_pixel(columns[name])


def _of_segments(plane, observation):
    if plane.shape != observation.shape:
        raise InputError(f"the segments have shape {plane.shape}, the image {observation.shape}: give one")
    if not (plane > 0).any():
        return Sources([], [])
    from photutils.segmentation import SegmentationImage, SourceCatalog

    catalog = SourceCatalog(_significance(observation), SegmentationImage(plane.clip(0)))
    return Sources(*_centres(catalog), id=catalog.labels, segments=plane, labels=catalog.labels)


def _detected(observation):
    from photutils.segmentation import SourceCatalog

    significance = _significance(observation)
    objects = label_objects(significance, psf_width(observation))
    if objects is None:
        return Sources([], [])
    catalog = SourceCatalog(significance, objects)
    # Segments of a detection do not decide which pixels a galaxy is fitted in.
    return Sources(*_centres(catalog)[:, catalog.max_value > PEAK_SIGMA])


def _centres(catalog):
    """Peaks (2, G) of paraboloids fitted to the peaks of segments, or the middles of their boxes."""
    peak, middle = catalog.centroid_quad, np.array([box.center[::-1] for box in catalog.bbox])
    return np.where(np.isfinite(peak), peak, middle).T


def _significance(observation):
    """Significance (ny, nx) of the light smoothed to the width of the PSF."""
    sky, fwhm = observation.sky, psf_width(observation)
    weight = np.where(observation.valid, (observation.sigma() * max(1.0, sky.rms_ratio)) ** -2.0, 0.0)
    smooth = significance_map(observation.data - sky.level, weight, fwhm * gaussian_fwhm_to_sigma)
    return smooth / sky.factor


# ---------------------------------------------------------------- where fits begin


def initial_coordinates(batch):
    """Initial smooth coordinates (B, C): given values, and estimates from moments for the rest."""
    layout, tasks = batch.layout, batch.tasks
    c, centres = torch.zeros(len(tasks), layout.size, dtype=torch.float64), [task.centres for task in tasks]
    skies, found = zip(*(_band_moments(batch, band, centres) for band in range(layout.bands)), strict=True)
    # The shape comes from the band with the highest signal to noise.
    signal = torch.stack([(band.weight * band.data**2).sum(1) for band in batch.bands]).argmax(0).cpu()
    shapes = np.stack(found)[signal, np.arange(len(tasks))]
    for galaxy in range(layout.galaxies):
        given = partial(_given, tasks, galaxy)
        _, radius, e1, e2 = shapes[:, galaxy].T
        modulus, theta = np.hypot(e1, e2), given("theta", np.arctan2(e2, e1) / 2)
        ellip = given("ellip", 2 * modulus / (1 + modulus))
        major = given("r_eff", radius / np.sqrt(1 - ellip))
        x, y = np.stack(centres)[:, galaxy].T
        parts = BULGE_AND_DISC if layout.components > 1 else ((1.0, START_INDEX, 1.0),)
        for component, (factor, index, share) in enumerate(parts):
            template = batch.settings.templates[component]
            held = template.value("n") if template.fixed["n"] else None
            n = given("n", np.full(len(tasks), index if held is None else held))
            for band, columns in enumerate(layout.profiles[galaxy, component]):
                flux = np.maximum(share * given("flux", found[band][:, galaxy, 0]), 1e-60)
                axes = np.stack([np.log(flux), np.log(factor * major), n, x, y, ellip, theta], axis=1)
                c[:, columns] = smooth_from_axes(torch.as_tensor(axes), flux=True)[0]
                amplitude = given("amplitude", c[:, columns[0]].exp().numpy())
                c[:, columns[0]] = torch.as_tensor(np.log(amplitude))
    if layout.sky:
        c[:, layout.skies] = torch.as_tensor(np.stack(skies, axis=1))
    return c.to(batch.device)


def _given(tasks, galaxy, name, other):
    """Values (B,) of init_params for a galaxy of each group, else ``other`` (B,)."""
    values = np.array([task.sources.guess(name)[task.members[galaxy]] for task in tasks], dtype=float)
    return np.where(np.isfinite(values), values, other)


def _band_moments(batch, band, centres):
    """Sky (B,) and `moments` (B, G, 4) of the stamps of a band."""
    stamps = batch.bands[band]
    data, weight = (part.reshape(-1, *batch.shape).cpu().numpy() for part in (stamps.data, stamps.weight))
    level = border_median(data, weight > 0) if batch.layout.sky else np.zeros(len(data))
    fwhm = psf_fwhm_in_pixels(batch.tasks[0].bands[band])
    light = data - level[:, None, None]
    return level, np.stack([moments(*one, fwhm) for one in zip(light, weight, centres, strict=True)])


def border_median(data, valid):
    """Median (B,) of the outermost pixels of stamps (B, ny, nx), a twelfth of a side; 0 if all hidden."""
    ny, nx = (max(1, size // 12) for size in data.shape[1:])
    border = np.ones(data.shape[1:], dtype=bool)
    border[ny:-ny, nx:-nx] = False
    shown = np.ma.array(data, mask=~(valid & border)).reshape(len(data), -1)
    return np.ma.median(shown, axis=1).filled(0.0)


def moments(light, weight, centres, fwhm):
    """Flux, half-light radius without the PSF, e1 and e2 (G, 4) of the galaxies of a stamp without sky.

    ``light`` and ``weight`` (inverse variance, 0 for hidden pixels) are (ny, nx); ``centres`` (G, 2), x and y
    from the middle of the stamp, and the ``fwhm`` of the PSF are in pixels.
    """
    from photutils.segmentation import SegmentationImage, SourceCatalog

    # A galaxy without a visible pixel: as good as no light, two pixels wide.
    found = np.tile([np.abs(light).sum() * 1e-3 + 1e-30, 2.0, 0.0, 0.0], (len(centres), 1))
    segments = _segments(light, weight, centres, fwhm)
    if not segments.any():
        return found
    catalog = SourceCatalog(light, SegmentationImage(segments), mask=weight == 0)
    # photutils 2 calls it fluxfrac_radius.
    name = "flux_radius" if hasattr(SourceCatalog, "flux_radius") else "fluxfrac_radius"
    half = getattr(catalog, name)(0.5).value
    parts = catalog.labels - 1, catalog.kron_flux, half, catalog.covariance.value
    for place, flux, radius, spread in zip(*parts, strict=True):
        if np.isfinite(flux + radius) and flux > 0:
            squared = max(radius**2 - (PSF_HALF_LIGHT * fwhm) ** 2, MIN_HALF_LIGHT_RADIUS**2)
            found[place] = flux, np.sqrt(squared), *_ellipticity(spread, fwhm)
    return found


def _segments(light, weight, centres, fwhm):
    """Numbers (ny, nx) of the galaxies from 1 in significant pixels and in the core of each, 0 elsewhere."""
    from skimage.segmentation import watershed

    rows, columns = (np.arange(size) - (size - 1) / 2 for size in light.shape)
    radius = np.hypot(columns - centres[:, :1, None], rows[:, None] - centres[:, 1:, None])
    cores = np.where((radius.min(0) <= fwhm) & (weight > 0), radius.argmin(0) + 1, 0)
    significance = significance_map(light, weight, max(fwhm, 1.0) * gaussian_fwhm_to_sigma)
    own = (significance > SEGMENT_SIGMA) & (weight > 0)
    return watershed(-significance, cores, mask=own | (cores > 0))


def _ellipticity(spread, fwhm):
    """Ellipticity e1, e2 of a covariance (2, 2), less the PSF's if the difference is positive definite."""
    bare = spread - (fwhm * gaussian_fwhm_to_sigma) ** 2 * np.eye(2)
    spread = bare if np.linalg.eigvalsh(bare)[0] > 0 else spread
    size = np.trace(spread) + 2 * np.sqrt(np.linalg.det(spread))
    e1, e2 = (spread[0, 0] - spread[1, 1]) / size, 2 * spread[0, 1] / size
    shrink = min(1.0, MAX_ELLIPTICITY / max(np.hypot(e1, e2), 1e-9))
    return e1 * shrink, e2 * shrink


def psf_fwhm_in_pixels(image):
    """FWHM of the PSF of an observation in pixels; 1 without a PSF."""
    return 1.0 if image.psf is None else image.psf_fwhm / image.grid.pixel_scale
