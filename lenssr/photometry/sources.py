"""Positions of galaxies, and initial guesses of their parameters."""

import astropy.units as u
import numpy as np
from astropy.stats import gaussian_fwhm_to_sigma
from astropy.table import Table

from lenssr.exceptions import InputError
from lenssr.imaging.detection import label_objects, psf_width, significance_map

__all__ = ["GUESSED", "Sources", "find_sources"]

# Columns of init_params that give initial guesses, with their units.
GUESSED = {
    "amplitude": None,
    "flux": None,
    "r_eff": u.pix,
    "n": None,
    "ellip": None,
    "theta": u.rad,
    "sky": None,
}
# Significance of the peak of a galaxy in the smoothed image, in sigma. Theory: noise exceeds it in one pixel
# of 3.5 million.
PEAK_SIGMA = 5.0


class Sources:
    """Positions of galaxies, and guesses.

    ``x`` and ``y`` (G,) are zero-based pixels; ``group`` (G,) numbers those fitted together, if given;
    ``guesses`` are arrays (G,) by names of `GUESSED`, NaN where unknown; ``segments`` (ny, nx) holds the
    label of each pixel, 0 for none, and ``labels`` (G,) those of the galaxies.
    """

    def __init__(self, x, y, *, id=None, group=None, guesses=None, segments=None, labels=None):
        self.x, self.y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
        self.id = np.arange(1, len(self.x) + 1) if id is None else np.asarray(id)
        self.group, self.guesses = group, guesses or {}
        self.segments, self.labels = segments, labels

    def __len__(self):
        return len(self.x)

    def guess(self, name):
        """Guesses of one parameter, shape (G,), NaN where there is none."""
        return self.guesses.get(name, np.full(len(self), np.nan))


def find_sources(init_params, observation):
    """`Sources` from a table, a ``SourceCatalog`` or a segmentation image; None detects them."""
    if init_params is None:
        return _detected(observation)
    if callable(getattr(init_params, "to_table", None)) and hasattr(init_params, "labels"):
        return _of_catalogue(init_params)
    if hasattr(init_params, "labels") and hasattr(init_params, "data"):
        return _of_segments(init_params, observation)
    if isinstance(init_params, np.ndarray) and init_params.dtype.names is None and init_params.ndim == 2:
        if not np.issubdtype(init_params.dtype, np.integer):
            raise InputError(
                f"init_params is an array of {init_params.dtype}: give a table with x and y, or labels of "
                "segments as integers"
            )
        return _of_segments(init_params, observation)
    return _of_table(init_params, observation)


def _of_catalogue(catalogue):
    """Sources of a ``SourceCatalog``; older versions spell the centroids without underscore."""
    kind = type(catalogue)
    x, y = (
        getattr(catalogue, f"{axis}_centroid" if hasattr(kind, f"{axis}_centroid") else f"{axis}centroid")
        for axis in "xy"
    )
    return Sources(np.atleast_1d(x), np.atleast_1d(y), id=np.atleast_1d(catalogue.labels))


def _of_table(init_params, observation):
    columns = _columns_of(init_params)
    x, y = (
        _column(columns, (name, f"{name}_init", f"{name}_centroid", f"{name}centroid", f"{name}_0"), u.pix)
        for name in "xy"
    )
    if x is None or y is None:
        x, y = _from_sky(columns, observation)
    guesses = {}
    for name, unit in GUESSED.items():
        unit = {"amplitude": observation.unit, "sky": observation.unit}.get(name, unit)
        values = _column(columns, (name, f"{name}_init"), unit)
        if values is not None:
            guesses[name] = values
    identity, group = (np.asarray(columns[name]) if name in columns else None for name in ("id", "group_id"))
    return Sources(x, y, id=identity, group=group, guesses=guesses)


def _columns_of(init_params):
    """Columns of anything like a table, by name."""
    if isinstance(init_params, dict) and all(isinstance(v, np.ndarray) for v in init_params.values()):
        # Cutouts have one row each: to make a Table would take longer than all else here.
        if {v.shape for v in init_params.values()} == {(1,)}:
            return init_params
    try:
        table = init_params if isinstance(init_params, Table) else Table(init_params)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"init_params is a {type(init_params).__name__}: give a table with x and y or skycoord, a "
            "SourceCatalog, a segmentation image, or None to detect galaxies"
        ) from error
    return {name: table[name] for name in table.colnames}


def _column(columns, names, unit):
    for name in names:
        if name in columns:
            column = columns[name]
            quantity = getattr(column, "unit", None) is not None
            if quantity and unit is not None and u.Unit(column.unit) != u.dimensionless_unscaled:
                try:
                    values = u.Quantity(column).to_value(unit)
                except u.UnitConversionError:
                    raise InputError(f"{name} of init_params is in {column.unit}: give {unit}") from None
            else:
                values = getattr(column, "value", column)
            if np.ma.isMaskedArray(values):
                values = values.filled(np.nan)
            return np.array(values, dtype=float)
    return None


def _from_sky(columns, observation):
    name = next((n for n in ("skycoord", "sky_centroid") if n in columns), None)
    if name is None:
        raise InputError(
            f"init_params has the columns {', '.join(columns) or '(none)'}: give x and y (or x_init "
            "and y_init) in zero-based pixels, or skycoord"
        )
    if observation.grid.wcs is None:
        raise InputError(f"init_params gives {name}, but the image has no WCS: give x and y in pixels")
    x, y = observation.grid.wcs.world_to_pixel(columns[name])
    return np.atleast_1d(x), np.atleast_1d(y)


def _of_segments(segments, observation):
    plane = np.asarray(getattr(segments, "data", segments))
    if plane.shape != observation.shape:
        raise InputError(
            f"the segmentation image has shape {plane.shape}, the image {observation.shape}: give one alike"
        )
    if not (plane > 0).any():
        return Sources([], [])
    from photutils.segmentation import SegmentationImage, SourceCatalog

    catalog = SourceCatalog(_significance(observation), SegmentationImage(plane.clip(0)))
    x, y = _centres(catalog)
    return Sources(x, y, id=catalog.labels, segments=plane, labels=catalog.labels)


def _centres(catalog):
    """Peaks (x, y) of paraboloids fitted to the peaks of segments, or the middles of their boxes."""
    peak, middle = catalog.centroid_quad, np.array([box.center[::-1] for box in catalog.bbox])
    return np.where(np.isfinite(peak), peak, middle).T


def _significance(observation):
    """Significance (ny, nx) of the light smoothed to the width of the PSF."""
    sky, fwhm = observation.sky, psf_width(observation)
    weight = np.where(observation.valid, (observation.sigma() * max(1.0, sky.rms_ratio)) ** -2.0, 0.0)
    smooth = significance_map(observation.data - sky.level, weight, fwhm * gaussian_fwhm_to_sigma)
    return smooth / sky.factor


def _detected(observation):
    from photutils.segmentation import SourceCatalog

    significance = _significance(observation)
    objects = label_objects(significance, psf_width(observation))
    if objects is None:
        return Sources([], [])
    catalog = SourceCatalog(significance, objects)
    # Segments of a detection do not decide which pixels a galaxy is fitted in.
    x, y = _centres(catalog)
    bright = catalog.max_value > PEAK_SIGMA
    return Sources(x[bright], y[bright])
