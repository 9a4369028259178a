"""Photometry of galaxies by Sérsic fits, following the API of `photutils.psf.PSFPhotometry`."""

import copy
import logging
from dataclasses import replace

import astropy.units as u
import numpy as np
from astropy.nddata import NDData
from astropy.table import QTable
from astropy.wcs.utils import proj_plane_pixel_scales

from lenssr._option import pair
from lenssr._wcs import scale_matrix, unit_stretch
from lenssr.exceptions import InputError
from lenssr.imaging.observation import Observation
from lenssr.imaging.psf import PSF
from lenssr.imaging.reading import read_planes
from lenssr.photometry.fit_settings import FitSettings
from lenssr.photometry.groups import batches, make_tasks
from lenssr.photometry.images import model_image, sersic2d, sky_image
from lenssr.photometry.neighbour_subtraction import refit_overlapping
from lenssr.photometry.solve import Solver, describe_fit
from lenssr.photometry.sources import find_sources
from lenssr.photometry.table import Rows, make_table

__all__ = ["SersicPhotometry"]

log = logging.getLogger(__name__)

# Values in the Jacobians of a batch, roughly: they fit into the cache of a CPU, or fill a GPU.
CPU_BATCH_VALUES, GPU_BATCH_VALUES = 2**19, 2**25
# Lag-1 autocorrelation of the border pixels above which the sky's correlation is measured. Chosen.
SUSPECT_CORRELATION = 0.1


class SersicPhotometry:
    """Fit Sérsic profiles to the galaxies of an image, many small stamps at once.

    Parameters
    ----------
    psf : anything that `lenssr.imaging.PSF.from_any` takes, or a FWHM as ``2.5 * u.pix``, optional
        By default the one that comes with the image; a galaxy without any is fitted behind its pixels alone.
    fit_shape : int, tuple of int or "auto", optional
        Rows and columns of the box around each galaxy that is fitted. At least 8 r_eff is wanted, so that the
        sky is told from the galaxy. "auto", the default, is ``(51, 51)``; a galaxy whose light reaches others
        has a box of 8 r_eff, as far as the edges of the image allow.
    sky : {"constant", None}, optional
        Whether a constant is fitted under each group of galaxies, by default it is.
    n_components : int, optional
        1, the default, or 2: a bulge and an exponential disc with one centre.
    model : `~astropy.modeling.functional_models.Sersic2D`, `~lenssr.light.Sersic` or list, optional
        Whose ``fixed``, ``bounds`` and ``tied`` hold, and whose values those that are fixed have unless
        ``init_params`` says otherwise; lengths in pixels. A list has one for each component.
    fixed, bounds, tied : dict, optional
        The same by name, as `~astropy.modeling.Model` takes them; with 2 components a name may end in ``_0``
        or ``_1``.
    xy_bounds : float or tuple of float, optional
        How far centres may move from where they begin, along x and y in pixels. By default a quarter of
        ``fit_shape``, and no more than 10.
    grouper : `~photutils.psf.SourceGrouper`, "auto" or None, optional
        Which galaxies are fitted together. "auto", the default, groups those closer than 0.4 of
        ``fit_shape``, or less where that would make groups of more than 4; None none. Pixels nearer to a
        galaxy of another group are left out of a fit. Groups in each other's light are fitted twice more:
        from bright to faint, the models of brighter ones taken from the data, then with all others taken.
    loss : {"huber", "cauchy"}, optional
        How residuals count, for stamps with bad pixels that nothing masks. By default as their squares. Both
        need 5 % more light for the same errors where the noise is Gaussian.
    intervals : {"auto", "gaussian", "profile"}, optional
        Where 68 % intervals and errors of flux, r_eff, n and ellip come from: the curvature of chi2 at the
        best fit, or where chi2 has risen by 1 with all other parameters fitted anew. "auto", the default,
        takes the first where it has been found to be right, and the second, flagged ``PROFILE_INTERVAL``,
        elsewhere: signal to noise below 45, or 180 if n is above 2.5; n above 6; stamps smaller than 8 r_eff,
        r_eff below 0.75 FWHM of the PSF; and the ellip of galaxies less than 3 sigma from round.
        Groups of more than two galaxies have errors of the first kind.
    device : str, optional
        "auto" (default: CUDA where there is one), "cpu", "cuda", ...

    Attributes
    ----------
    table : `~astropy.table.QTable` or None
        Of the last run.

    Raises
    ------
    InputError
        If an option has no meaning.

    Examples
    --------
    >>> import astropy.units as u
    >>> import numpy as np
    >>> from astropy.modeling.models import Sersic2D
    >>> from lenssr import SersicPhotometry
    >>> y, x = np.indices((41, 41))
    >>> galaxy = Sersic2D(amplitude=1, r_eff=4, n=1, x_0=20.3, y_0=19.6, ellip=0.3, theta=0.5)(x, y)
    >>> data = galaxy + np.random.default_rng(1).normal(0, 0.02, galaxy.shape)
    >>> phot = SersicPhotometry(psf=0.1 * u.pix, fit_shape=41)
    >>> table = phot(data, error=np.full(data.shape, 0.02), init_params={"x": [20], "y": [20]})
    >>> round(float(table["x"][0]), 1), round(float(table["n"][0]), 1)
    (20.3, 1.0)
    """

    def __init__(
        self,
        *,
        psf=None,
        fit_shape="auto",
        sky="constant",
        n_components=1,
        model=None,
        fixed=None,
        bounds=None,
        tied=None,
        xy_bounds=None,
        grouper="auto",
        loss=None,
        intervals="auto",
        device="auto",
    ):
        options = locals()  # the keywords above, by name: nothing else is local yet
        self.settings = FitSettings(**{name: options[name] for name in FitSettings.names()})
        self.psf, self.grouper = psf, self.settings.make_grouper()
        self.table = self._rows = None

    def __call__(self, image, *, mask=None, error=None, init_params=None, psf=None, unit=None, hdus=None):
        """Fit the galaxies of an image.

        Parameters
        ----------
        image : path, `~astropy.nddata.CCDData`, `~astropy.nddata.NDData`, Quantity, array, or dict of these
            A dict holds images of several bands on one grid of pixels, by name: galaxies then have one
            shape and place in all of them, and a flux in each.
        mask : array of bool, shape (ny, nx), optional
            True hides a pixel. With several bands a dict has one for each; so have the others.
        error : array, Quantity, number or `~lenssr.imaging.NoiseModel`, optional
            Standard deviation of every pixel; by default the uncertainty of the image, else noise from its
            exposure, else the rms of its sky.
        init_params : table, `~photutils.segmentation.SourceCatalog`, segmentation image, or None
            Where the galaxies are: columns ``x`` and ``y`` (or ``x_init``, ``y_init``) in zero-based pixels,
            or ``skycoord``. Columns ``flux``, ``amplitude``, ``r_eff``, ``n``, ``ellip``, ``theta`` are where
            fits begin; what is missing is estimated from moments. ``id`` and ``group_id`` are kept. By
            default galaxies are detected.
        psf : optional
            Instead of the one of the object.
        unit : `~astropy.units.Unit` or str, optional
            Of the pixels, instead of what the image says.
        hdus : dict, optional
            For a FITS file: names or numbers of its HDUs by role, such as ``{"sci": "VIS_BGSUB", "err":
            "VIS_RMS", "psf": "VIS_PSF"}``, where they are not the usual ones.

        Returns
        -------
        table : `~astropy.table.QTable`
            One row a galaxy.

        Raises
        ------
        InputError
            If the input cannot be used; the message names the value and the remedy.
        """
        return self._run([image], [mask], [error], [init_params], [psf], unit, hdus, numbered=False)

    def map(self, images, *, mask=None, error=None, init_params=None, psf=None, unit=None, hdus=None):
        """Fit the galaxies of many images, such as cutouts; alike ones in one batch.

        Parameters
        ----------
        images : sequence
            Each as in `__call__`.
        mask, error, init_params, psf : optional
            As in `__call__`: one for all images, or a list with one for each.
        unit : `~astropy.units.Unit` or str, optional
            As in `__call__`.
        hdus : dict, optional
            As in `__call__`.

        Returns
        -------
        table : `~astropy.table.QTable`
            One row a galaxy; the column ``image`` says which image it is in.
        """
        images = list(images)
        extras = [_each(name, value, len(images)) for name, value in
                  (("mask", mask), ("error", error), ("init_params", init_params), ("psf", psf))]  # fmt: skip
        return self._run(images, *extras, unit, hdus, numbered=True)

    @property
    def models(self):
        """Models of the galaxies of the last run: a ``Sersic2D`` of astropy a row, in zero-based pixels.

        With two components it is their sum, with several bands a dict of them, and None where there is no
        fit. The PSF is not included.
        """
        return [None if entry is None else self._model(*entry) for entry in self._results().fits]

    def _model(self, fit, parts):
        found = {}
        for name, band, own in zip(self._rows.bands, fit.task.bands, parts, strict=True):
            models = [sersic2d(component, band.unit) for component in own]
            found[name] = sum(models[1:], models[0])
        return found if len(found) > 1 else next(iter(found.values()))

    @property
    def fit_info(self):
        """How the fits of the last run went: a dict a row, None where there is none.

        ``covariance`` and ``correlation`` are those of ``parameters``, for the whole group. ``at_bound``
        names the parameters that ended on a bound.
        """
        return [None if entry is None else describe_fit(entry[0]) for entry in self._results().fits]

    def make_model_image(self, shape, *, image=0, band=None, model_shape=None, include_sky=False):
        """Image of all galaxies of the last run as the telescope sees them.

        Parameters
        ----------
        shape : tuple of int
            Of the image.
        image : int, optional
            Of `map`: which image; by default the first.
        band : str, optional
            Of several bands: which one; by default the first.
        model_shape : int or tuple of int, optional
            Rows and columns of the box around each galaxy that is drawn. By default each is drawn out to
            where it is far below the noise.
        include_sky : bool, optional
            Whether the fitted sky is added, by default not. It is interpolated smoothly between galaxies.

        Returns
        -------
        image : `~numpy.ndarray` or `~astropy.units.Quantity`, shape ``shape``
        """
        rows = self._results()
        number = self._band(band)
        box = None if model_shape is None else pair(model_shape, "model_shape", integer=True)
        bands, sources, _ = rows.images[image]
        first = sum(len(entry[1]) for entry in rows.images[:image])
        fitted = [
            (entry[0], int(np.flatnonzero(entry[0].task.rows == row)[0]))
            for row, entry in enumerate(rows.fits[first : first + len(sources)], start=first)
            if entry is not None
        ]
        made = model_image(fitted, self._solver, tuple(shape), box, number)
        if include_sky:
            made = made + sky_image(fitted, tuple(shape), number)
        unit = bands[number].unit
        return made * unit if str(unit) else made

    def make_residual_image(self, data, *, image=0, band=None, model_shape=None, include_sky=False):
        """Image minus `make_model_image`.

        Parameters
        ----------
        data : `~astropy.nddata.NDData`, Quantity or array, shape (ny, nx)
        image, band, model_shape, include_sky : optional
            As for `make_model_image`.

        Returns
        -------
        residual : same kind as ``data``
        """
        values = data.data if isinstance(data, NDData) else data
        options = {"image": image, "band": band, "model_shape": model_shape, "include_sky": include_sky}
        model = self.make_model_image(np.shape(values), **options)
        if isinstance(data, NDData):
            if isinstance(model, u.Quantity):
                model = model.to_value(data.unit) if data.unit is not None else model.value
            residual = copy.deepcopy(data)
            residual.data[...] = values - model
            return residual
        if isinstance(model, u.Quantity) and not isinstance(values, u.Quantity):
            model = model.value
        return values - model

    def plot(self, path=None, *, image=0, band=None, model_shape=None):
        """Draw an image of the last run, the model of its galaxies, and what is left in sigma.

        Parameters
        ----------
        path : str or `~pathlib.Path`, optional
            Where to save the figure; by default nowhere.
        image, band, model_shape : optional
            As for `make_model_image`.

        Returns
        -------
        figure : `~matplotlib.figure.Figure`
        """
        from lenssr.photometry.plot import plot_residuals

        bands, sources, _ = self._results().images[image]
        observation = bands[self._band(band)]
        options = {"image": image, "band": band, "model_shape": model_shape}
        model = u.Quantity(self.make_model_image(observation.shape, include_sky=True, **options)).value
        first = sum(len(entry[1]) for entry in self._rows.images[:image])
        table = QTable(self.table[first : first + len(sources)])
        if self.settings.n_components > 1:
            table["x"], table["y"] = table["x_0"], table["y_0"]
        return plot_residuals(observation, model, table, path=path)

    def _results(self):
        if self._rows is None:
            raise InputError("nothing has been fitted yet: call the object with an image first")
        return self._rows

    def _band(self, band):
        bands = self._results().bands
        if band is None:
            return 0
        if band not in bands:
            raise InputError(f"band = {band!r}: the last run had {', '.join(map(repr, bands))}")
        return bands.index(band)

    def _run(self, images, masks, errors, params, psfs, unit, hdus, *, numbered):
        entries, tasks, names, row = [], [], None, 0
        for image, mask, error, param, psf in zip(images, masks, errors, params, psfs, strict=True):
            own, bands = self._observe(image, mask, error, psf, unit, hdus)
            if names is not None and own != names:
                raise InputError(f"images in the bands {names} and {own}: give the same for all")
            names = own
            sources = find_sources(param, bands[0])
            new, groups = make_tasks(bands, sources, self.settings.box, self.grouper, row)
            entries.append((bands, sources, groups))
            tasks += new
            row += len(sources)
        rows = Rows(entries, names or [""], self.settings.n_components, sky=self.settings.sky is not None)
        self._rows, self._solver = rows, Solver(self.settings)
        log.info("%d galaxies in %d groups", row, len(tasks))
        self._fit(tasks)
        start = 0
        for _, sources, _ in entries:
            own = range(start, start := start + len(sources))
            if len(own) > 1:
                mine = [task for task in tasks if task.rows[0] in own]
                refit_overlapping(mine, rows, self._solver, self._fit)
        settings = {"psf": repr(self.psf), **self.settings.describe(), "grouper": repr(self.grouper)}
        self.table = make_table(rows, settings, numbered=numbered)
        return self.table

    def _fit(self, tasks, last=True):
        """Fit groups and enter the results, with Gaussian intervals if they will be fitted again."""
        limit = CPU_BATCH_VALUES if self.settings.torch_device.type == "cpu" else GPU_BATCH_VALUES
        solver = self._solver
        if not last:
            solver = Solver(replace(self.settings, intervals="gaussian"))
        for batch in batches([task for task in tasks if min(task.shape) > 0], limit):
            for fit in solver.solve(batch):
                if fit is not None:
                    self._rows.fill(fit)

    def _observe(self, image, mask, error, psf, unit, hdus):
        """Bands of one image: their names and observations."""
        if isinstance(image, dict):
            names = [str(name) for name in image]
            parts = [
                self._observation(one, *(part[name] if isinstance(part, dict) else part
                                         for part in (mask, error, psf or self.psf)), unit, hdus)
                for name, one in image.items()
            ]  # fmt: skip
            return names, parts
        return [""], [self._observation(image, mask, error, self.psf if psf is None else psf, unit, hdus)]

    def _observation(self, image, mask, error, psf, unit, hdus):
        planes = read_planes(image, hdus)
        celestial = planes.wcs is not None and planes.wcs.has_celestial
        scale = 1.0
        if celestial:
            # Distorted images have pixels of about one size, which is all that a stamp needs.
            sides = proj_plane_pixel_scales(planes.wcs.celestial)
            # Sheared pixels have a smaller area than the product of their sides.
            share = 1 / np.prod(np.hypot(*unit_stretch(scale_matrix(planes.wcs.celestial))))
            scale = float(np.sqrt(np.prod(sides) * share)) * 3600
        if isinstance(psf, u.Quantity) and psf.isscalar and psf.unit == u.pix:
            psf = PSF.from_fwhm(psf.value * scale * u.arcsec)
        elif psf is not None:
            psf = PSF.from_any(psf, shape=planes.data.shape)
        observation = Observation.from_any(
            image, psf=psf, noise=error, mask=mask, pixel_scale=scale, unit=unit, hdus=hdus
        )
        observation.meta.update(
            no_scale=not celestial, sigma=observation.sigma(), widening=_correlation_widening(observation)
        )
        return observation


def _correlation_widening(observation):
    """Factor on errors for noise that correlates from pixel to pixel; 1 for independent noise."""
    z = (observation.data - np.median(observation.data[observation.valid])) / observation.sigma()
    z = np.clip(np.where(observation.valid, z, 0.0), -5, 5)
    depth = max(1, min(z.shape) // 8)
    edges = (z[:depth].ravel(), z[-depth:].ravel(), z[:, :depth].T.ravel(), z[:, -depth:].T.ravel())
    edge = np.concatenate([part - part.mean() for part in edges])
    # Most images have independent noise, which the pixels at the edge show at once.
    if not (edge[1:] * edge[:-1]).mean() > SUSPECT_CORRELATION * (edge**2).mean():
        return 1.0
    sky = observation.sky
    return sky.factor if sky.correlated else 1.0


def _each(name, value, count):
    if not isinstance(value, list | tuple):
        return [value] * count
    if len(value) != count:
        raise InputError(f"{name} has {len(value)} entries for {count} images: give one each, or one for all")
    return list(value)
