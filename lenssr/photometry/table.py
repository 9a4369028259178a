"""The table of a run: columns, units and errors."""

import datetime
import json

import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.io.fits import table_to_hdu
from astropy.table import QTable, Table

from lenssr._files import package_version
from lenssr.grids import transformed, without_angle
from lenssr.imaging.provenance import provenance_cards
from lenssr.photometry.flags import SersicFlag, flags_of
from lenssr.photometry.intervals import PROFILED
from lenssr.photometry.parameters import MEASURED

__all__ = ["FITS_ENDINGS", "Rows", "make_table", "write_fits"]

FITS_ENDINGS = (".fits", ".fit", ".fits.gz")

RECORDED_PACKAGES = ("lenssr", "astropy", "photutils", "numpy", "torch")
# Columns on the sky, and those of the pixels that they follow.
SKY_COLUMNS = {"skycoord": "y", "position_angle": "theta", "ellip_sky": "ellip", "r_eff_sky": "r_eff"}


class Rows:
    """All galaxies of a run.

    ``images`` lists (observations by band, sources, group numbers) in the order of the rows; a single band is
    named "". ``fits`` has (fit of the group, number in the group) or None for each row. ``suffixes`` and
    ``endings`` are the ends of the columns of each component and of each band; ``failures`` says why by the
    numbers of rows that failed; ``table`` is what users get.
    """

    def __init__(self, images, bands, components, *, sky):
        self.images, self.bands, self.components, self.sky = images, bands, components, sky
        self.suffixes = [""] if components == 1 else [f"_{k}" for k in range(components)]
        self.endings = [f"_{band}" if band else "" for band in bands]
        self.fits, self.table = [None] * sum(len(sources) for _, sources, _ in images), None
        self.failures = {}

    def of_image(self, number):
        """Where the rows of an image lie, as a slice."""
        first = sum(len(sources) for _, sources, _ in self.images[:number])
        return slice(first, first + len(self.images[number][1]))

    def _places(self, name):
        """Columns of one of `MEASURED`, with the component and band of each; all bands share a shape."""
        endings = self.endings if name in ("amplitude", "flux") else [""]
        return [
            (name + suffix + ending, component, band)
            for component, suffix in enumerate(self.suffixes)
            for band, ending in enumerate(endings)
        ]

    def columns(self):
        """Values of all galaxies by column, NaN where there is no fit."""
        found = [dict(self._entries(*(place or ()))) for place in self.fits]
        starts = np.concatenate([sources.flags for _, sources, _ in self.images])
        for row, entry in enumerate(found):
            entry["flags"] |= int(starts[row]) | int(SersicFlag.FAILED) * (row in self.failures)
        return {name: np.array([one[name] for one in found], type(empty)) for name, empty in self._entries()}

    def _entries(self, fit=None, galaxy=0):
        """Names of all columns, and the values of a galaxy, or those without a fit."""
        for name in MEASURED:
            for column, component, band in self._places(name):
                value, low, high = fit.interval(name, galaxy, component, band) if fit else [np.nan] * 3
                yield from ((column, value), (f"{column}_err", (high - low) / 2))
                if name in PROFILED:
                    yield from ((f"{column}_lower", low), (f"{column}_upper", high))
        for band, ending in enumerate(self.endings):
            if self.components > 1:
                value, error = fit.total_flux(galaxy, band) if fit else [np.nan] * 2
                yield from ((f"flux{ending}", value), (f"flux{ending}_err", error))
            if self.sky:
                value, error = fit.sky(band) if fit else [np.nan] * 2
                yield from ((f"sky{ending}", value), (f"sky{ending}_err", error))
        yield "snr", fit.signal[galaxy] if fit else np.nan
        yield "reduced_chi2", fit.chi2 / fit.free if fit else np.nan
        yield "n_pixels", fit.pixels if fit else 0
        yield "iterations", fit.iterations if fit else 0
        yield "flags", flags_of(fit, galaxy) if fit else int(SersicFlag.NO_DATA)


def make_table(rows, settings, *, numbered=False):
    """Table for users; ``settings`` go into its meta, ``numbered`` adds the column ``image``."""
    sources, groups = [one for _, one, _ in rows.images], [one for _, _, one in rows.images]
    table = QTable({"id": np.concatenate([one.id for one in sources]), "group_id": np.concatenate(groups)})
    table["group_size"] = np.concatenate([np.bincount(one, minlength=1)[one] for one in groups])
    table["x_init"], table["y_init"] = (np.concatenate([getattr(one, x) for one in sources]) for x in "xy")
    if numbered:
        table["image"] = np.repeat(np.arange(len(sources)), [len(one) for one in sources])
    observation = rows.images[0][0][0]
    flux_unit, flux_factor = total_flux_unit(observation)
    units = {"flux": flux_unit, "amplitude": observation.unit, "sky": observation.unit}
    units |= {"r_eff": u.pix, "theta": u.rad}
    for name, values in rows.columns().items():
        kind = next((kind for kind in units if name.startswith(kind)), None)
        values = values * flux_factor if kind == "flux" else values
        unit = units.get(kind)
        table[name] = values if unit in (None, u.dimensionless_unscaled) else values * unit
        if kind == "theta":
            table[name] = table[name].to(u.deg)
    _add_magnitudes(table, rows)
    if all(images[0].grid.wcs is not None for images, _, _ in rows.images):
        _add_sky_columns(table, rows)
    today = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S")  # as FITS wants DATE
    versions = {name: package_version(name) for name in RECORDED_PACKAGES}
    inputs = [
        # An image that failed has one source, at no place, and the observation of another.
        {}
        if len(one.x) and np.isnan(one.x).all()
        else dict(zip(rows.bands, map(_provenance, images), strict=True))
        for images, one, _ in rows.images
    ]
    table.meta = {"date": today, "inputs": inputs, "versions": versions, "settings": settings}
    if rows.failures:
        table.meta["failures"] = {str(row): why for row, why in sorted(rows.failures.items())}
    return table


def _provenance(observation):
    """What is known of where an image comes from, by keyword."""
    return {keyword: value for keyword, value, _ in provenance_cards(observation.meta)}


def write_fits(table, path):
    """Write a table as FITS wants it: places as ``ra`` and ``dec``, units as text, the rest as cards.

    Cards are what is known of the input where there is one; ``meta`` as a whole is JSON in comments.
    """
    plain = Table()
    for name in table.colnames:
        if isinstance(table[name], SkyCoord):
            end, place = name.removeprefix("skycoord"), table[name].icrs
            plain[f"ra{end}"], plain[f"dec{end}"] = place.ra.deg * u.deg, place.dec.deg * u.deg
        else:
            plain[name] = table[name]
    units = [getattr(plain[name], "unit", None) for name in plain.colnames]
    hdu = table_to_hdu(
        Table({name: np.asarray(getattr(plain[name], "value", plain[name])) for name in plain.colnames})
    )
    for number, unit in enumerate(units, 1):
        if unit not in (None, u.dimensionless_unscaled):
            hdu.header[f"TUNIT{number}"] = _unit_text(unit)
    inputs = [one for images in table.meta["inputs"] for one in images.values()]
    cards = inputs[0] if len(inputs) == 1 else {}
    hdu.header.update({"DATE": table.meta["date"], **cards, "EXTNAME": "GALAXIES"})
    for name, value in table.meta.items():
        hdu.header["COMMENT"] = f"{name}: {json.dumps(value, default=str)}"
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(path, checksum=True)


def _unit_text(unit):
    """A unit as FITS spells it, or as astropy does where FITS cannot; all magnitudes are AB."""
    try:
        return "mag" if isinstance(unit, u.MagUnit) else unit.to_string("fits")
    except ValueError:
        return str(unit)


def total_flux_unit(observation):
    """Unit of a total flux, and the factor to it from a sum over pixels."""
    unit = observation.unit
    if unit == u.dimensionless_unscaled:
        return None, 1.0
    if observation.conserves_sum:
        return unit, 1.0
    plain = without_angle(unit)
    if plain == unit or observation.meta.get("no_scale"):
        return unit * u.pix**2, 1.0
    return plain, (unit * u.arcsec**2).to(plain) * observation.grid.pixel_area


def _add_magnitudes(table, rows):
    """Add AB magnitudes behind fluxes, and colours of neighbouring bands, where zero points are known."""
    for band, ending in enumerate(rows.endings):
        seen = [images[band] for images, _, _ in rows.images]
        if not all(_has_magnitudes(one) for one in seen):
            continue
        # Fluxes are in one unit for all images; zero points are those of each image.
        sizes = [len(sources) for _, sources, _ in rows.images]
        zero = np.repeat([one.meta["zero_point"] for one in seen], sizes)
        per_unit = total_flux_unit(rows.images[0][0][0])[1]
        shown = np.repeat(
            [per_unit / (1 if one.conserves_sum else one.grid.pixel_area) for one in seen], sizes
        )
        for name in [name for name in table.colnames if _is_flux(name, ending, rows.endings)]:
            flux, error = (u.Quantity(table[one]).value for one in (name, f"{name}_err"))
            with np.errstate(divide="ignore", invalid="ignore"):
                magnitude = np.where(flux > 0, zero - 2.5 * np.log10(flux / shown), np.nan)
                width = np.where(flux > 0, 2.5 / np.log(10) * error / flux, np.nan)
            label, after = "mag" + name.removeprefix("flux"), table.colnames.index(f"{name}_err") + 1
            table.add_column(magnitude * u.ABmag, name=label, index=after)
            table.add_column(width * u.mag, name=f"{label}_err", index=after + 1)
    for first, second in zip(rows.bands, rows.bands[1:], strict=False):
        one, other = f"mag_{first}", f"mag_{second}"
        if one in table.colnames and other in table.colnames:
            table[f"colour_{first}_{second}"] = (table[one].value - table[other].value) * u.mag
            table[f"colour_{first}_{second}_err"] = np.hypot(table[f"{one}_err"], table[f"{other}_err"])


def _has_magnitudes(observation):
    """Whether fluxes of an image have AB magnitudes: a zero point, and a pixel scale where they need one."""
    known = observation.meta.get("zero_point") is not None
    return known and (observation.conserves_sum or not observation.meta.get("no_scale"))


def _is_flux(name, ending, endings):
    """Whether a column is a flux of a band: flux, flux_0 or flux_g, and not its error."""
    if not name.startswith("flux") or name.endswith("_err"):
        return False
    middle = name[len("flux") : len(name) - len(ending)] if ending else name[len("flux") :]
    return name.endswith(ending) and (not middle or middle.removeprefix("_").isdigit())


def _add_sky_columns(table, rows):
    """Add sky coordinates, and the ellipses on the sky."""
    from astropy.coordinates import concatenate

    for suffix in rows.suffixes:
        names = [name + suffix for name in ("x", "y", "r_eff", "ellip", "theta")]
        pixels = np.stack([u.Quantity(table[name]).value for name in names])
        parts = []
        for number, (images, _, _) in enumerate(rows.images):
            grid = images[0].grid
            x, y, r_eff, ellip, theta = pixels[:, rows.of_image(number)]
            longer, flat, turn = _in_the_frame(grid, ellip, np.radians(theta))
            step_x, step_y = grid.to_square(np.cos(turn), np.sin(turn))
            here = grid.wcs.pixel_to_world(x, y)
            ahead = grid.wcs.pixel_to_world(x + 0.5 * step_x, y + 0.5 * step_y)
            angle = here.position_angle(ahead).to_value(u.deg) % 180
            parts.append((here, angle, flat, r_eff * (grid.pixel_scale * longer)))
        places, *others = zip(*parts, strict=True)
        angle, flat, radius = map(np.concatenate, others)
        place = SkyCoord(places[0] if len(places) == 1 else concatenate(places))
        columns = place, angle * u.deg, flat, radius * u.arcsec
        for (name, pixel), values in zip(SKY_COLUMNS.items(), columns, strict=True):
            after = table.colnames.index(f"{pixel}{suffix}_err") + 1
            table.add_column(values, name=f"{name}{suffix}", index=after)


def _in_the_frame(grid, ellip, theta):
    """Ellipses (G,) of pixels in the image frame: factor on the semi-major axis, ellip, and angle from +x."""
    if grid.is_square:
        return np.ones_like(ellip), ellip, theta
    q = 1 - ellip
    major = transformed(grid.unit_matrix, np.cos(theta), np.sin(theta))
    minor = transformed(grid.unit_matrix, -q * np.sin(theta), q * np.cos(theta))
    xx, yy, xy = (major[i] * major[k] + minor[i] * minor[k] for i, k in ((0, 0), (1, 1), (0, 1)))
    longer = np.sqrt((xx + yy) / 2 + np.hypot((xx - yy) / 2, xy))
    # A map of determinant 1 keeps the area, the product of both axes.
    return longer, 1 - q / longer**2, np.arctan2(2 * xy, xx - yy) / 2
