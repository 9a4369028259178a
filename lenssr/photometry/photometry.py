"""Photometry of galaxies by Sérsic fits, following the API of `photutils.psf.PSFPhotometry`."""

from __future__ import annotations  # astropy makes a compound model of "Sersic2D | Sersic"

import copy
import inspect
import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal

import astropy.units as u
import numpy as np
from astropy.modeling.models import Sersic2D
from astropy.nddata import NDData
from astropy.table import QTable
from tqdm import tqdm

from lenssr._files import listed
from lenssr._limits import check_memory, limited
from lenssr._option import pair
from lenssr._tensors import usual_torch
from lenssr.exceptions import InputError, LensSRWarning, short_line
from lenssr.imaging.observation import Observation
from lenssr.imaging.planes import same_shape
from lenssr.imaging.reading import read_planes
from lenssr.imaging.separate_planes import is_stored
from lenssr.light.sersic import Sersic
from lenssr.photometry.figure import plot_residuals
from lenssr.photometry.fit_constraints import FitSettings
from lenssr.photometry.galaxy_light import model_image, refit_overlapping, sky_image
from lenssr.photometry.groups import GroupTask, batches, make_tasks
from lenssr.photometry.observing import image_request, observation_of, told_of_images
from lenssr.photometry.parameters import MEASURED
from lenssr.photometry.solve import GroupFit, Solver
from lenssr.photometry.sources import Sources, find_sources
from lenssr.photometry.table import Rows, make_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure, SubFigure

__all__ = ["SersicPhotometry"]

log = logging.getLogger(__name__)

# Values in the Jacobians of a batch, roughly: they fit into the cache of a CPU, or fill a GPU.
CPU_BATCH_VALUES, GPU_BATCH_VALUES = 2**19, 2**25
# Bytes that take a pixel of an image that is read, and of a stamp that is fitted, measured.
READING_PIXEL_BYTES, STAMP_PIXEL_BYTES = 150, 3500


class SersicPhotometry:
    """Fit Sérsic profiles to the galaxies of an image, many small stamps at once.

    Parameters
    ----------
    psf : anything that `lenssr.imaging.PSF.from_any` takes, or a FWHM as ``2.5 * u.pix``, optional
        By default the PSF that comes with the image; without one the model is only integrated over pixels.
    fit_shape : int, tuple of int or "auto", optional
        Rows and columns of the box around each galaxy that is fitted. A box below 8 r_eff does not separate
        the sky from the galaxy. "auto", the default, is ``(51, 51)``; a galaxy whose light reaches others has
        a box of 8 r_eff, within the edges of the image.
    sky : {"constant", None}, optional
        The sky under each group of galaxies: a constant (default), or none.
    n_components : int, optional
        1, the default, or 2: a bulge and an exponential disc with one centre.
    model : `~astropy.modeling.functional_models.Sersic2D`, `~lenssr.light.Sersic` or list, optional
        Model with ``fixed``, ``bounds`` and ``tied`` of the fit; lengths in pixels. A fixed parameter has its
        value from ``init_params``, else from this model. A list has one model for each component.
    fixed, bounds, tied : dict, optional
        Constraints by name of the parameter, as `~astropy.modeling.Model` takes them; they replace those of
        ``model``. With 2 components a name may end in ``_0`` or ``_1``.
    xy_bounds : float or tuple of float, optional
        How far centres may move from their initial positions along x and y, in pixels. Default: a quarter of
        ``fit_shape``, at most 10.
    grouper : `~photutils.psf.SourceGrouper`, "auto" or None, optional
        Which galaxies are fitted together. "auto", the default, groups those closer than 0.4 of
        ``fit_shape``, or less where a group would have more than 4; None fits each alone. A fit leaves out
        pixels that are nearer to a galaxy of another group. Groups in each other's light are fitted twice
        more: from bright to faint with brighter ones subtracted, then with all others subtracted.
    loss : {"huber", "cauchy"}, optional
        Robust loss, for stamps with bad pixels that no mask hides; by default least squares. Both need 5 %
        more light for the same errors where the noise is Gaussian.
    intervals : {"auto", "gaussian", "profile"}, optional
        Source of the 68 % intervals and errors of flux, r_eff, n and ellip: the curvature of chi2 at the best
        fit ("gaussian"), or where chi2 has risen by 1 with all other parameters fitted anew ("profile").
        "auto", the default, takes the first where simulations found it right, and the second, flagged
        ``PROFILE_INTERVAL``, elsewhere: signal to noise below 45, or 180 if n is above 2.5; n above 6; stamps
        smaller than 8 r_eff; r_eff below 0.75 FWHM of the PSF; and the ellip of galaxies less than 3 sigma
        from round. Groups of more than two galaxies have Gaussian errors.
    device : str, optional
        "auto" (default: CUDA where there is one), "cpu", "cuda", ...
    progress_bar : bool, optional
        Whether a bar counts the fits of galaxies; those in the light of others are fitted more than once.
        Default False.

    Attributes
    ----------
    table : `~astropy.table.QTable` or None
        The table of the last run.

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
        psf: Any = None,
        fit_shape: int | tuple[int, int] | Literal["auto"] = "auto",
        sky: Literal["constant"] | None = "constant",
        n_components: Literal[1, 2] = 1,
        model: Sersic2D | Sersic | Sequence | None = None,
        fixed: dict[str, bool] | None = None,
        bounds: dict[str, tuple] | None = None,
        tied: dict[str, Callable] | None = None,
        xy_bounds: float | tuple[float, float] | None = None,
        grouper: Callable | Literal["auto"] | None = "auto",
        loss: Literal["huber", "cauchy"] | None = None,
        intervals: Literal["auto", "gaussian", "profile"] = "auto",
        device: str = "auto",
        progress_bar: bool = False,
    ) -> None:
        options = locals()  # the keywords above, by name: nothing else is local yet
        self._given = {name: value for name, value in options.items() if name != "self"}
        self.settings = FitSettings(**{name: options[name] for name in FitSettings.names()})
        self.psf, self.grouper = psf, self.settings.make_grouper()
        self._progress: Any = None
        self.table: QTable | None = None
        self._rows: Rows | None = None
        self._reading: dict[str, Any] = {}

    def __call__(
        self,
        image: Any,
        *,
        mask: Any = None,
        error: Any = None,
        init_params: Any = None,
        psf: Any = None,
        unit: u.UnitBase | str | None = None,
        hdus: Mapping[str, Any] | None = None,
        zero_point: u.Quantity | float | None = None,
        band: str | int | None = None,
        centre: Any = None,
        size: Any = None,
        radius: Any = None,
        weight: Any = None,
        weight_kind: str | None = None,
        exposure: Any = None,
        mask_bits: Any = None,
        psf_oversampling: int | None = None,
        psf_includes_pixel: bool | None = None,
        pixel_scale: u.Quantity | float | None = None,
    ) -> QTable:
        """Fit the galaxies of an image.

        Parameters
        ----------
        image : path, `~astropy.nddata.CCDData`, `~astropy.nddata.NDData`, Quantity, array, or dict of these
            A dict holds images of several bands on one grid of pixels, by name: galaxies then have one
            shape and place in all of them, and a flux in each.
        mask : array of bool, shape (ny, nx), optional
            True hides a pixel. For several bands give a dict by band, also of ``error`` and ``psf``.
        error : array, Quantity, number or `~lenssr.imaging.NoiseModel`, optional
            Standard deviation of every pixel; by default the uncertainty of the image, else noise from its
            exposure, else the rms of its sky.
        init_params : table, `~photutils.segmentation.SourceCatalog`, segmentation image, or None
            Where the galaxies are: columns ``x`` and ``y`` (or ``x_init``, ``y_init``) in zero-based pixels,
            or ``skycoord``. Columns ``flux``, ``amplitude``, ``r_eff``, ``n``, ``ellip``, ``theta`` are where
            fits begin; what is missing is estimated from moments. ``id`` and ``group_id`` are kept. By
            default galaxies are detected.
        psf : optional
            PSF of this image instead of the one of the object.
        unit : `~astropy.units.Unit` or str, optional
            Unit of the pixels, instead of the unit of the image.
        hdus : dict, optional
            For a FITS file: names or numbers of its HDUs by role, such as ``{"sci": "VIS_BGSUB", "err":
            "VIS_RMS", "psf": "VIS_PSF"}``, where they are not the usual ones.
        zero_point, band, centre, size, radius, weight, weight_kind, exposure : optional
            What a file does not say, or of it what is to be read: see `~lenssr.imaging.Observation.from_any`.
        mask_bits, psf_oversampling, psf_includes_pixel, pixel_scale : optional
            As there, too.

        Returns
        -------
        table : `~astropy.table.QTable`
            One row a galaxy.

        Raises
        ------
        InputError
            If the input cannot be used; the message names the value and the remedy.
        """
        reading = told_of_images(locals())
        return self._run([(image, mask, error, init_params, psf)], reading, numbered=False)

    def map(
        self,
        images: Sequence | str | PathLike,
        *,
        mask: Any = None,
        error: Any = None,
        init_params: Any = None,
        psf: Any = None,
        unit: u.UnitBase | str | None = None,
        hdus: Mapping[str, Any] | None = None,
        zero_point: u.Quantity | float | None = None,
        band: str | int | None = None,
        centre: Any = None,
        size: Any = None,
        radius: Any = None,
        weight: Any = None,
        weight_kind: str | None = None,
        exposure: Any = None,
        mask_bits: Any = None,
        psf_oversampling: int | None = None,
        psf_includes_pixel: bool | None = None,
        pixel_scale: u.Quantity | float | None = None,
    ) -> QTable:
        """Fit the galaxies of many images, such as cutouts; those of one shape and PSF in one batch.

        Parameters
        ----------
        images : sequence or str
            Each as in `__call__`; or one path, a pattern such as ``"cutouts/*.fits"``, or a folder, for the
            FITS files in it in the order of their names.
        mask, error, init_params, psf : optional
            As in `__call__`: one for all images, or a list with one for each.
        unit, hdus, zero_point, band, centre, size, radius, weight, weight_kind, exposure : optional
            As in `__call__`, and one for all images.
        mask_bits, psf_oversampling, psf_includes_pixel, pixel_scale : optional
            As there, too.

        Returns
        -------
        table : `~astropy.table.QTable`
            One row a galaxy; the column ``image`` says which image it is in. An image that cannot be used, or
            a fit that fails, has a row of NaN with the flag ``FAILED``, and ``table.meta["failures"]`` says
            why by the number of the row.

        Raises
        ------
        InputError
            If no image can be used, or numbers of images and of masks, errors, positions or PSFs differ; the
            message names the value and the remedy.

        Warns
        -----
        LensSRWarning
            With the number of rows that failed.
        """
        reading = told_of_images(locals())
        images = listed(images)
        if not images:
            raise InputError("images is empty: give at least one")
        extras = {"mask": mask, "error": error, "init_params": init_params, "psf": psf}
        for name, value in extras.items():
            if not isinstance(value, list | tuple):
                extras[name] = [value] * len(images)
            elif len(value) != len(images):
                number = len(images)
                raise InputError(f"{name} has {len(value)} entries for {number} images: give one each or one")
        return self._run(list(zip(images, *extras.values(), strict=True)), reading, numbered=True)

    @property
    def models(self) -> list:
        """Models of the galaxies of the last run: one ``Sersic2D`` of astropy a row, in zero-based pixels.

        With two components an entry is their sum, with several bands a dict by band; without a fit it is
        None. The PSF is not included.
        """
        rows = self._results()
        return [None if entry is None else _models(entry, rows.bands) for entry in rows.fits]

    @property
    def fit_info(self) -> list[dict[str, Any] | None]:
        """Parameters, covariance and convergence of the last run's fits: one dict a row, None without a fit.

        ``covariance`` and ``correlation`` belong to ``parameters``, which are those of the whole group.
        ``at_bound`` names the parameters that ended on a bound.
        """
        return [None if entry is None else entry[0].describe() for entry in self._results().fits]

    @usual_torch()
    def make_model_image(
        self,
        shape: tuple[int, int],
        *,
        image: int = 0,
        band: str | None = None,
        model_shape: int | tuple[int, int] | None = None,
        include_sky: bool = False,
    ) -> np.ndarray | u.Quantity:
        """Image of all galaxies of the last run as the telescope sees them.

        Parameters
        ----------
        shape : tuple of int
            Shape of the image, (ny, nx).
        image : int, optional
            Number of the image after `map`. Default 0.
        band : str, optional
            Name of the band; by default the first.
        model_shape : int or tuple of int, optional
            Rows and columns of the box in which each galaxy is drawn; by default it ends where the light is
            far below the noise.
        include_sky : bool, optional
            Whether the fitted sky, interpolated smoothly between galaxies, is added. Default False.

        Returns
        -------
        image : `~numpy.ndarray` or `~astropy.units.Quantity`, shape ``shape``
        """
        rows = self._results()
        number, unit = self._band(band), rows.images[image][0][self._band(band)].unit
        box = None if model_shape is None else pair(model_shape, "model_shape", integer=True)
        fitted = [entry for entry in rows.fits[rows.of_image(image)] if entry is not None]
        made = model_image(fitted, self._solver, tuple(shape), box, number)
        if include_sky:
            made = made + sky_image(fitted, tuple(shape), number)
        return made * unit if str(unit) else made

    def make_residual_image(
        self,
        data: Any,
        *,
        image: int = 0,
        band: str | None = None,
        model_shape: int | tuple[int, int] | None = None,
        include_sky: bool = False,
    ) -> Any:
        """Image minus `make_model_image`.

        Parameters
        ----------
        data : path, HDU, `~astropy.nddata.NDData`, Quantity or array, shape (ny, nx)
            The image, as the last run took it; a file is read as it was there.
        image, band, model_shape, include_sky : optional
            As for `make_model_image`.

        Returns
        -------
        residual : same kind as ``data``
            Of what is read from a file: a Quantity, or an array where there is no unit.

        Raises
        ------
        InputError
            If the shape or unit of the image is not that of the last run.
        """
        observed = self._results().images[image][0][self._band(band)]
        if is_stored(data) or isinstance(data, tuple | dict):
            planes = read_planes(data, image_request(self._reading))
            data = planes.data * (observed.unit if str(observed.unit) else 1)
        values = data.data if isinstance(data, NDData) else data
        same_shape(values, observed.shape, "the image")
        options: dict[str, Any] = {"image": image, "band": band, "model_shape": model_shape}
        model = self.make_model_image(observed.shape, include_sky=include_sky, **options)
        if isinstance(model, u.Quantity) and not isinstance(values, u.Quantity):
            model = model.to_value(getattr(data, "unit", None) or model.unit)
        if not isinstance(data, NDData):
            return values - model
        residual = copy.deepcopy(data)
        residual.data[...] = values - model
        return residual

    def plot(
        self,
        path: str | PathLike | None = None,
        *,
        image: int = 0,
        band: str | None = None,
        model_shape: int | tuple[int, int] | None = None,
        figure: Figure | SubFigure | None = None,
    ) -> Figure | SubFigure:
        """Draw an image of the last run, the model of its galaxies, and the residual in sigma.

        Parameters
        ----------
        path : str or `~pathlib.Path`, optional
            File of the figure; by default it is not saved.
        image, band, model_shape : optional
            As for `make_model_image`.
        figure : `~matplotlib.figure.Figure` or `~matplotlib.figure.SubFigure`, optional
            An empty one to draw into; by default a new one, which does not depend on pyplot.

        Returns
        -------
        figure : `~matplotlib.figure.Figure` or `~matplotlib.figure.SubFigure`
        """
        rows = self._results()
        observation = rows.images[image][0][self._band(band)]
        options: dict[str, Any] = {"image": image, "band": band, "model_shape": model_shape}
        model = u.Quantity(self.make_model_image(observation.shape, include_sky=True, **options)).value
        table = QTable(rows.table[rows.of_image(image)])
        if self.settings.n_components > 1:
            table["x"], table["y"] = table["x_0"], table["y_0"]
        return plot_residuals(observation, model, table, path=path, figure=figure)

    def __repr__(self) -> str:
        usual = {name: one.default for name, one in inspect.signature(type(self)).parameters.items()}
        given = ((name, value) for name, value in self._given.items() if value is not usual[name])
        shown = ", ".join(f"{name}={value!r}" for name, value in given)
        return f"SersicPhotometry({shown})"

    def _results(self) -> Rows:
        if self._rows is None:
            raise InputError("nothing has been fitted yet: call the object with an image first")
        return self._rows

    def _band(self, band: str | None) -> int:
        bands = self._results().bands
        if band is None:
            return 0
        if band not in bands:
            raise InputError(f"band = {band!r}: the last run had {', '.join(map(repr, bands))}")
        return bands.index(band)

    @usual_torch()
    def _run(self, images: Sequence[tuple], reading: dict, *, numbered: bool) -> QTable:
        """Fit images, each with its mask, error, init_params and psf."""
        self._reading = reading
        entries: list[Any] = []
        tasks: list[list[GroupTask]] = []
        names: list[str] = []
        failures: dict[int, Exception] = {}
        row = 0
        for image, mask, error, param, psf in images:
            try:
                observed = self._observe(image, mask, error, psf, reading)
                if names not in ([], list(observed)):
                    raise InputError(
                        f"images in the bands {names} and {list(observed)}: give the same for all"
                    )
                bands = list(observed.values())
                sources = find_sources(param, bands[0])
                new, groups = make_tasks(bands, sources, self.settings.box, self.grouper, row)
                names = list(observed)
            except Exception as problem:
                if not numbered:
                    raise
                # A row of NaN says that this image failed; it must not stop the rest.
                failures[row], new, groups = problem, [], np.ones(1, dtype=int)
                bands, sources = [], Sources([np.nan], [np.nan])
            entries.append((bands, sources, groups))
            tasks.append(new)
            row += len(sources)
        good = next((bands for bands, _, _ in entries if bands), None)
        if good is None:
            raise next(iter(failures.values()))
        entries = [(bands or good, *others) for bands, *others in entries]
        rows = Rows(entries, names, self.settings.n_components, sky=self.settings.sky is not None)
        rows.failures = {row: _reason(problem) for row, problem in failures.items()}
        self._rows, self._solver, self._problems = rows, Solver(self.settings), failures
        together = [task for own in tasks for task in own]
        log.info("%d galaxies in %d groups", row, len(together))
        with tqdm(desc="fits", total=0, disable=not self.settings.progress_bar) as self._progress:
            self._fit(together)
            for own in tasks:
                try:
                    refit_overlapping(own, rows, self._solver, self._fit)
                except Exception as problem:  # noqa: BLE001 - the first fits stand
                    self._note(problem, [row for task in own for row in task.rows.tolist()])
        self._progress = None
        self._report()
        settings = {"psf": repr(self.psf), **self.settings.describe(), "grouper": repr(self.grouper)}
        self.table = rows.table = make_table(rows, settings, numbered=numbered)
        return rows.table

    def _fit(self, tasks: list[GroupTask], last: bool = True) -> None:
        """Fit groups and enter the results, with Gaussian intervals if they will be fitted again."""
        limit = CPU_BATCH_VALUES if self.settings.torch_device.type == "cpu" else GPU_BATCH_VALUES
        tasks = [task for task in tasks if min(task.shape) > 0]
        self._progress.total += sum(len(task.rows) for task in tasks)
        for batch in batches(tasks, limit):
            for fit in self._solved(batch, last):
                for galaxy, row in enumerate(fit.task.rows):
                    self._results().fits[row] = fit, galaxy
            self._progress.update(sum(len(task.rows) for task in batch))

    def _solved(self, batch: list[GroupTask], last: bool) -> list[GroupFit]:
        """Fits of a batch; after a failure each group by itself, so that only the guilty ones fail."""
        try:
            ny, nx = batch[0].shape
            what = f"a stamp of {ny} x {nx} pixels"
            check_memory(STAMP_PIXEL_BYTES * ny * nx * len(batch[0].bands), what, "give a smaller fit_shape")
            return self._solver.solve(batch, profile=last)
        except Exception as problem:  # noqa: BLE001 - one galaxy must not stop the rest
            if len(batch) > 1:
                return [fit for task in batch for fit in self._solved([task], last)]
            self._note(problem, batch[0].rows.tolist())
            return []

    def _note(self, problem: Exception, rows: list[int]) -> None:
        """Keep what went wrong in the fits of some rows."""
        for row in rows:
            self._problems.setdefault(row, problem)
            self._results().failures.setdefault(row, _reason(problem))

    def _report(self) -> None:
        """Warn of rows that failed; raise the reason where none was fitted."""
        failures, fits = self._results().failures, self._results().fits
        if not failures:
            return
        if not any(fits):
            raise next(iter(self._problems.values()))
        row, why = min(failures.items())
        told = f"{len(failures)} of {len(fits)} rows failed, the first is row {row} ({why})"
        warnings.warn(f"{told}: see table.meta['failures']", LensSRWarning, stacklevel=4)

    def _observe(self, image: Any, mask: Any, error: Any, psf: Any, reading: dict) -> dict[str, Observation]:
        """Observations of one image by band; a single band is named ""."""
        several, found = isinstance(image, dict), {}
        if several and not image:
            raise InputError("the image is a dict of no bands: give at least one")
        for name, one in (image if several else {"": image}).items():
            parts = mask, error, self.psf if psf is None else psf
            own = (part[name] if several and isinstance(part, dict) else part for part in parts)
            with limited(per_pixel=READING_PIXEL_BYTES):
                found[str(name)] = observation_of(one, *own, reading=reading)
        shapes = {name: one.shape for name, one in found.items()}
        if len(set(shapes.values())) > 1:
            raise InputError(f"the bands have the shapes {shapes}: give images on one grid of pixels")
        return found


def _reason(problem: Exception) -> str:
    """Type of an exception, unless it is one of lenssr's own, and its message."""
    kind = "" if isinstance(problem, InputError) else f"{type(problem).__name__}: "
    return f"{kind}{short_line(problem)}"


def _models(entry: tuple[GroupFit, int], bands: list[str]) -> Any:
    """Sum of the ``Sersic2D`` of a galaxy, in pixels of the image; a dict of them for several bands."""
    fit, galaxy = entry
    names = {name: MEASURED.index(name.removesuffix("_0")) for name in Sersic2D.param_names}
    sums = []
    for number, image in enumerate(fit.task.bands):
        models = []
        for values, errors in zip(fit.values[galaxy, :, number], fit.errors[galaxy, :, number], strict=True):
            given = {name: float(values[place]) for name, place in names.items()}
            given["amplitude"] *= image.unit if str(image.unit) else 1
            models.append(Sersic2D(**given))
            for name, place in names.items():
                getattr(models[-1], name).std = float(errors[place]) or None
        sums.append(sum(models[1:], models[0]))
    return dict(zip(bands, sums, strict=True)) if len(bands) > 1 else sums[0]
