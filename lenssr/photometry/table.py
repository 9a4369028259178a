"""The table of a run: columns, units, errors and flags."""

import datetime

import astropy.units as u
import numpy as np
from astropy.table import QTable

from lenssr._files import package_version
from lenssr.grids import transformed
from lenssr.photometry.flags import PSF_SHARE, SersicFlag
from lenssr.photometry.intervals import PROFILED
from lenssr.photometry.measure import MEASURED, Component

__all__ = ["Rows", "make_table"]

RECORDED_PACKAGES = ("lenssr", "astropy", "photutils", "numpy", "torch")
# WEAKLY_CONSTRAINED: error of flux and r_eff relative to their value, and of n, above these. Chosen.
WEAK_SHARE, WEAK_INDEX = 0.5, 1.0
# FAINT: signal to noise below this. Chosen: shapes of fainter ones are prior more than data.
FAINT_SIGNAL = 10.0
# SMALL_STAMP, EDGE: sides of the box below this, in r_eff, or in FWHM of the PSF for small galaxies.
# Chosen: an exponential has 1 % of its light beyond 4 r_eff, half a side.
STAMP_RADII, STAMP_WIDTHS = 8.0, 4.0
# POOR_FIT: chi2 too high by this, in its sigma. Theory: 5 sigma.
POOR_FIT_SIGMA = 5.0


class Rows:
    """Values of all galaxies of a run, NaN where there is no fit.

    ``images`` lists (observations by band, sources, group numbers) in the order of the rows; a single band is
    named "".
    """

    def __init__(self, images, bands, components, *, sky):
        self.images, self.bands, self.components, self.sky = images, bands, components, sky
        self.count = sum(len(sources) for _, sources, _ in images)
        self.columns = {}
        for name in self._names():
            self.columns[name] = np.full(self.count, np.nan)
        for name in ("n_pixels", "iterations", "flags"):
            self.columns[name] = np.zeros(self.count, dtype=int)
        self.columns["flags"][:] = SersicFlag.NO_DATA
        self.fits = [None] * self.count

    def _suffixes(self, name):
        """Endings of the columns of a quantity, with the component and band of each."""
        bands = [("", 0)] if self.bands == [""] else [(f"_{b}", k) for k, b in enumerate(self.bands)]
        parts = [("", 0)] if self.components == 1 else [(f"_{k}", k) for k in range(self.components)]
        shared = name not in ("amplitude", "flux")
        return [
            (part + ("" if shared else band), component, number)
            for part, component in parts
            for band, number in (bands[:1] if shared else bands)
        ]

    def _names(self):
        names = []
        for name in MEASURED:
            ends = ("", "_err", "_lower", "_upper") if name in PROFILED else ("", "_err")
            names += [name + suffix + end for suffix, _, _ in self._suffixes(name) for end in ends]
        for band in self.bands:
            ending = f"_{band}" if band else ""
            names += [f"flux{ending}", f"flux{ending}_err"] if self.components > 1 else []
            names += [f"sky{ending}", f"sky{ending}_err"] if self.sky else []
        return [*names, "snr", "reduced_chi2"]

    def fill(self, fit):
        """Enter the fit of a group."""
        for galaxy, row in enumerate(fit.task.rows):
            parts = [
                [Component(fit, galaxy, k, band) for k in range(self.components)]
                for band in range(len(self.bands))
            ]
            for name in MEASURED:
                for suffix, component, band in self._suffixes(name):
                    self._enter(name, suffix, row, parts[band][component])
            self._sums(fit, parts, row)
            free = max(fit.pixels - fit.parameters, 1)
            self.columns["reduced_chi2"][row] = fit.chi2 / free
            self.columns["snr"][row] = fit.signal[galaxy]
            self.columns["n_pixels"][row], self.columns["iterations"][row] = fit.pixels, fit.iterations
            self.columns["flags"][row] = flags_of(fit, galaxy, parts)
            self.fits[row] = fit, parts

    def mark_blended(self, row, blended):
        """Set the flag of a galaxy that overlaps with neighbours."""
        if blended:
            self.columns["flags"][row] |= int(SersicFlag.BLENDED)

    def _enter(self, name, suffix, row, component):
        value, low, high = component.interval(name)
        self.columns[name + suffix][row] = value
        self.columns[f"{name}{suffix}_err"][row] = (high - low) / 2
        if name in PROFILED:
            self.columns[f"{name}{suffix}_lower"][row] = low
            self.columns[f"{name}{suffix}_upper"][row] = high

    def _sums(self, fit, parts, row):
        for number, band in enumerate(self.bands):
            ending = f"_{band}" if band else ""
            if self.components > 1:
                slope = sum(one.slope[MEASURED.index("flux")] for one in parts[number])
                self.columns[f"flux{ending}"][row] = sum(one.values[3] for one in parts[number])
                variance = slope @ fit.covariance.numpy() @ slope
                self.columns[f"flux{ending}_err"][row] = np.sqrt(variance) if variance > 0 else np.nan
            if self.sky:
                column = fit.layout.column("sky", band=number)
                self.columns[f"sky{ending}"][row] = float(fit.coordinates[column])
                self.columns[f"sky{ending}_err"][row] = float(fit.covariance[column, column].sqrt())


def flags_of(fit, galaxy, parts):
    """Bits of `SersicFlag` of one galaxy."""
    task, layout, flags = fit.task, fit.layout, SersicFlag(0)
    own = range(layout.start(galaxy, 0), layout.start(galaxy, layout.components - 1) + layout.block)
    if any(column in own for column in fit.at_bound):
        flags |= SersicFlag.BOUND
    if not fit.converged:
        flags |= SersicFlag.NOT_CONVERGED
    image = task.bands[0]
    values = [one for band in parts for one in band]
    for one in values:
        for name, most in (("flux", None), ("r_eff", None), ("n", WEAK_INDEX)):
            value, low, high = one.interval(name)
            # A parameter that is held has no interval.
            if high - low > 2 * (WEAK_SHARE * value if most is None else most) or value <= 0:
                flags |= SersicFlag.WEAKLY_CONSTRAINED
    if fit.signal[galaxy] < FAINT_SIGNAL:
        flags |= SersicFlag.FAINT
    radii = [one.values[MEASURED.index("r_eff")] for one in values]
    if image.psf is not None and max(radii) < PSF_SHARE * fit.fwhm:
        flags |= SersicFlag.PSF_SIZED | SersicFlag.WEAKLY_CONSTRAINED
    if STAMP_RADII * max(radii) > min(task.boxes[galaxy]):
        flags |= SersicFlag.SMALL_STAMP
    flags |= _place_flags(task, galaxy, values[0], max(STAMP_RADII * max(radii), STAMP_WIDTHS * fit.fwhm))
    free = max(fit.pixels - fit.parameters, 1)
    if fit.chi2 - free > POOR_FIT_SIGMA * np.sqrt(2 * free):
        flags |= SersicFlag.POOR_FIT
    if any(place[1] == galaxy for place in fit.intervals):
        flags |= SersicFlag.PROFILE_INTERVAL
    return int(flags)


def _place_flags(task, galaxy, component, side):
    """Flags of a galaxy whose light fills a box with sides of about ``side`` pixels."""
    from lenssr.photometry.groups import first_pixel

    flags, image = SersicFlag(0), task.bands[0]
    column, row = (int(np.floor(v + 0.5)) for v in component.values[:2])
    inside = 0 <= row < image.shape[0] and 0 <= column < image.shape[1]
    if not inside or image.mask[row, column]:
        flags |= SersicFlag.MASKED_CENTRE
    member = task.members[galaxy]
    box = tuple(min(one, int(side) | 1) for one in task.boxes[galaxy])
    corner = first_pixel(task.sources.x[member], task.sources.y[member], box)
    for start, side, size in zip(corner, box, image.shape, strict=True):
        if start < 0 or start + side > size:
            flags |= SersicFlag.EDGE
    return flags


def make_table(rows, settings, *, numbered=False):
    """Table for users; ``settings`` go into its meta, ``numbered`` adds the column ``image``."""
    table = QTable()
    joined = {name: [] for name in ("id", "group_id", "group_size", "x_init", "y_init", "image")}
    for number, (_, sources, groups) in enumerate(rows.images):
        sizes = np.bincount(groups, minlength=1) if len(groups) else np.zeros(1, dtype=int)
        for name, part in (
            ("id", sources.id), ("group_id", groups), ("group_size", sizes[groups]),
            ("x_init", sources.x), ("y_init", sources.y), ("image", np.full(len(sources), number)),
        ):  # fmt: skip
            joined[name].append(np.asarray(part))
    for name, parts in joined.items():
        if name != "image" or numbered:
            kind = float if name.endswith("_init") else int
            table[name] = np.concatenate(parts) if parts else np.empty(0, dtype=kind)
    observation = rows.images[0][0][0]
    for name, values in rows.columns.items():
        unit = _column_unit(name, observation)
        if name.startswith("flux"):
            values = values * total_flux_unit(observation)[1]
        table[name] = values if unit is None else values * unit
    if "theta" in table.colnames or rows.components > 1:
        _degrees(table)
    _on_the_sky(table, rows)
    today = datetime.datetime.now(datetime.UTC).isoformat(sep=" ", timespec="seconds")
    table.meta = {
        "date": today,
        "versions": {name: package_version(name) for name in RECORDED_PACKAGES},
        "settings": settings,
    }
    return table


def _column_unit(name, observation):
    kind = name.split("_")[0]
    if kind in ("amplitude", "sky"):
        return observation.unit if observation.unit != u.dimensionless_unscaled else None
    if kind == "flux":
        return total_flux_unit(observation)[0]
    if name.startswith("r_eff"):
        return u.pix
    return u.rad if kind == "theta" else None


def total_flux_unit(observation):
    """Unit of a total flux, and the factor to it from a sum over pixels."""
    unit = observation.unit
    if unit == u.dimensionless_unscaled:
        return None, 1.0
    if observation.conserves_sum:
        return unit, 1.0
    if observation.meta.get("no_scale"):
        return unit * u.pix**2, 1.0
    for base, power in zip(unit.bases, unit.powers, strict=True):
        if base.physical_type in ("angle", "solid angle"):
            plain = unit / base**power
            return plain, (unit * u.arcsec**2).to(plain) * observation.grid.pixel_area
    return unit * u.pix**2, 1.0


def _degrees(table):
    for name in [n for n in table.colnames if n.startswith("theta")]:
        table[name] = table[name].to(u.deg)


def _on_the_sky(table, rows):
    """Add sky coordinates, and the ellipses on the sky, where there is a WCS."""
    if any(images[0].grid.wcs is None for images, _, _ in rows.images):
        return
    from astropy.coordinates import SkyCoord, concatenate

    suffixes = [""] if rows.components == 1 else [f"_{k}" for k in range(rows.components)]
    for suffix in suffixes:
        x, y, ellip, theta = (
            np.asarray(table[f"{n}{suffix}"].value if n == "theta" else table[f"{n}{suffix}"])
            for n in ("x", "y", "ellip", "theta")
        )
        here, angle, radius, flat, start = [], [], [], [], 0
        for images, sources, _ in rows.images:
            part = slice(start, start + len(sources))
            start += len(sources)
            grid = images[0].grid
            here.append(grid.wcs.pixel_to_world(x[part], y[part]))
            longer, own_ellip, turn = _in_the_frame(grid, ellip[part], np.radians(theta[part]))
            step_x, step_y = grid.to_square(np.cos(turn), np.sin(turn))
            ahead = grid.wcs.pixel_to_world(x[part] + 0.5 * step_x, y[part] + 0.5 * step_y)
            angle.append(here[-1].position_angle(ahead).to_value(u.deg) % 180)
            radius.append(table[f"r_eff{suffix}"].value[part] * (grid.pixel_scale * longer))
            flat.append(own_ellip)
        sky = here[0] if len(here) == 1 else concatenate(here)
        after = table.colnames.index(f"y{suffix}_err") + 1
        table.add_column(SkyCoord(sky), name=f"skycoord{suffix}", index=after)
        after = table.colnames.index(f"theta{suffix}_err") + 1
        table.add_column(np.concatenate(angle) * u.deg, name=f"position_angle{suffix}", index=after)
        after = table.colnames.index(f"ellip{suffix}_err") + 1
        table.add_column(np.concatenate(flat), name=f"ellip_sky{suffix}", index=after)
        after = table.colnames.index(f"r_eff{suffix}_err") + 1
        table.add_column(np.concatenate(radius) * u.arcsec, name=f"r_eff_sky{suffix}", index=after)


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
