"""The result of a run."""

import math
import os
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import astropy.units as u
import numpy as np
from astropy.nddata import CCDData
from astropy.table import QTable
from numpy.typing import NDArray

from lenssr.exceptions import InputError
from lenssr.mass import MassModel
from lenssr.mass.critical import einstein_radius_gradient
from lenssr.posterior import PosteriorDraws
from lenssr.posterior.sampling import Method, check_draws, draw
from lenssr.result.catalogue_row import catalogue_row
from lenssr.result.exchange import Exchange
from lenssr.result.fits import plane, read, write
from lenssr.result.grade import OK_GRADES
from lenssr.result.magnitudes import PARTS, magnitude_of
from lenssr.result.text import as_html, describe, pixel_scales
from lenssr.units import positive_integer

if TYPE_CHECKING:
    from collections.abc import Sequence

    import matplotlib.axes
    import matplotlib.figure
    from astropy.modeling import Model

# Set by `SuperResolution.with_draws`; the verdict explains it with the other flags.
NOT_GAUSSIAN = "posterior_not_gaussian"
PARAMETER_COLUMNS = ("name", "component", "value", "error", "unit", "fixed")


class Draws(NamedTuple):
    """Images and sources that the data allow, as `SuperResolution.sample` draws them.

    Attributes
    ----------
    image : `~astropy.units.Quantity`, shape (n, scale ny, scale nx)
        Super-resolved images, on the pixels of ``result.image``.
    source : `~astropy.units.Quantity`, shape (n, my, mx)
        The sources that belong to them, on the pixels of ``result.source``.
    """

    image: u.Quantity
    source: u.Quantity

    def __repr__(self) -> str:
        sizes = (f"{len(one)} of {one.shape[2]}x{one.shape[1]} in {one.unit}" for one in self)
        return "<Draws: images, {}; sources, {}>".format(*sizes)


def _no_parameters() -> QTable:
    return QTable(names=PARAMETER_COLUMNS, dtype=(str, str, float, float, str, bool))


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class SuperResolution(Exchange):
    """The result of one run of `~lenssr.SuperResolver`.

    Every image but ``data`` and ``residual`` is a model. Errors are conditional on the model, and correlated
    between pixels. A result is made once and is frozen: `dataclasses.replace` makes one that differs.

    Parameters
    ----------
    image : `~astropy.nddata.CCDData`, shape (scale ny, scale nx)
        The fitted scene, lens light + lensed source + sky, at the finer sampling: with unit, WCS, uncertainty
        (one standard deviation), mask and PSF; its meta says that it is a model.
    lensed_source, lens_light_image : `~astropy.nddata.CCDData`, shape (scale ny, scale nx)
        The parts of the scene; zeros where there is no light of the lens.
    source : `~astropy.nddata.CCDData` or None
        The source without lens, on its own grid and WCS, in unit per arcsec2. Its meta holds the centre of
        the grid ``x_0``, ``y_0`` and its ``pixel_scale`` in arcsec. Its mask is True where ``information``
        is below 0.5: there it shows the prior rather than the data.
    second_source, second_source_model, second_magnification, second_magnification_error
        The same of the farther of two sources, ``source`` being the nearer; None, nan where there is one.
    data : `~astropy.nddata.CCDData`, shape (ny, nx)
        The input as it was used, with its mask; under the mask as it was read, 0 where that is not finite.
    model_image : `~astropy.nddata.CCDData`, shape (ny, nx)
        The model on the grid of the input.
    residual : `~astropy.nddata.CCDData`, shape (ny, nx)
        Data - model in the unit of the input; its uncertainty is the noise that the fit used.
    chi2_map : `~numpy.ndarray`, shape (ny, nx)
        Squared residual over noise, 0 where masked.
    reduced_chi2 : float
        Sum of ``chi2_map`` over the degrees of freedom of the unmasked pixels.
    lens : `~lenssr.mass.MassModel`, `~lenssr.mass.MassSystem` or None
        The lens; every parameter has its error in ``std``.
    source_model : `~lenssr.light.Sersic` or None
        The source as a parametric model, where it is one.
    lens_light : `~lenssr.light.Sersic`, tuple of them, or None
        The light of the lens galaxy.
    sky, sky_error : `~astropy.units.Quantity`
        The constant sky level of an input pixel, and its error.
    parameters : `~astropy.table.QTable`
        Columns ``name``, ``component`` ("lens", "source", "second_source", "lens_light", "sky"), ``value``,
        ``error`` (nan if fixed), ``unit`` and ``fixed``.
    covariance : `~numpy.ndarray`, shape (free, free)
        Covariance of the free parameters.
    covariance_names : tuple of str
        The parameters along its axes.
    flags : tuple of str
        Names of what is wrong or doubtful; the page on verdicts explains them.
    grade : {"secure", "probable", "doubtful", "failed"}
        What the flags come to: the page on verdicts says how often each is right.
    magnification, magnification_error : float
        Total magnification: flux of the lensed source before the PSF, over the flux of the source; and its
        error. Conditional on the family of the mass model, as are size and flux of the source: a sheet of
        mass changes them and leaves the image as it is. nan where there is no lens.
    information : `~numpy.ndarray` or None
        For a source on a grid, how much the data say of each pixel of ``source``: 1 - (posterior
        variance) / (prior variance) of the field that has the prior. None for other sources.
    posterior : object or None
        The posterior for `sample` and `sample_posterior`; None where there is none, as without a model.
    draws : `~lenssr.posterior.PosteriorDraws` or None
        Those of `with_draws`.
    meta : dict
        Settings, versions, seconds, ``measures`` of the verdict; ``pixel_scale``, that of the input in
        arcsec. Plain values, which JSON can hold. It is a plain dict, which nothing in the package changes.
    """

    image: CCDData = plane(
        "SCI", "model of the scene, super-resolved", error="ERR", mask="MASK", psf="PSF", beside=True
    )
    lensed_source: CCDData | None = plane("LENSED_SOURCE", "the lensed source alone", default=None)
    lens_light_image: CCDData | None = plane("LENS_LIGHT", "the lens galaxy alone", default=None)
    source: CCDData | None = plane("SOURCE", "the source galaxy, not lensed", beside=True, default=None)
    information: NDArray[np.float64] | None = plane(
        "INFORMATION", "1 - posterior / prior variance of SOURCE", array=True, wcs_of="source", default=None
    )
    second_source: CCDData | None = plane(
        "SOURCE2", "the second source galaxy, not lensed", beside=True, default=None
    )
    model_image: CCDData = plane("MODEL", "model on the grid of the input")
    residual: CCDData = plane("RESIDUAL", "data minus model", error="NOISE")
    data: CCDData = plane("DATA", "the input as it was used")
    chi2_map: NDArray[np.float64] = plane(
        "CHI2", "((data - model) / sigma)^2, 0 if masked", array=True, wcs_of="data"
    )
    covariance: NDArray[np.float64] = plane(
        "COVARIANCE", "of the free parameters", array=True, default=lambda: np.zeros((0, 0))
    )
    covariance_names: tuple[str, ...] = ()
    reduced_chi2: float
    lens: MassModel | None = None
    source_model: "Model | None" = None
    second_source_model: "Model | None" = None
    lens_light: "Model | tuple[Model, ...] | None" = None
    sky: u.Quantity
    sky_error: u.Quantity
    parameters: QTable = field(default_factory=_no_parameters)
    flags: tuple[str, ...] = ()
    grade: str = "probable"
    magnification: float = np.nan
    magnification_error: float = np.nan
    second_magnification: float = np.nan
    second_magnification_error: float = np.nan
    posterior: Any = field(default=None, repr=False)
    draws: PosteriorDraws | None = field(default=None, repr=False)
    meta: dict[str, Any] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether the grade is "secure" or "probable"."""
        return self.grade in OK_GRADES

    @property
    def R_E(self) -> u.Quantity:
        """Effective Einstein radius in arcsec, of any family of mass models.

        The radius of the circle with the area inside the largest closed tangential critical curve of the main
        lens in its shear. The main lens is the first component of ``lens`` with a centre or a map, and
        those whose centres are within a tenth of the Einstein radius from its own. Shears, sheets of
        convergence and maps of deflections count, too; components with centres further away, satellites and
        substructure, do not. nan where there is no lens, or no closed curve.
        """
        return self._einstein_radius[0] * u.arcsec

    @property
    def R_E_error(self) -> u.Quantity:
        """Standard error of ``R_E`` in arcsec, by propagation of the covariance of ``lens``.

        Linear in the parameters, and conditional on the family. nan where there is no ``R_E``, or
        the lens has no covariance.
        """
        return self._einstein_radius[1] * u.arcsec

    @cached_property
    def _einstein_radius(self) -> tuple[float, float]:
        """``R_E`` and its error in arcsec."""
        parts = () if self.lens is None else getattr(self.lens, "components", (self.lens,))
        # A lens of one's own may lack second derivatives.
        if self.lens is None or not all(hasattr(part, "_hessian") for part in parts):
            return np.nan, np.nan
        try:
            main, where = self.lens._main()
            radius, gradient = einstein_radius_gradient(main)
        except InputError:
            return np.nan, np.nan
        if self.lens.covariance is None:
            return radius, np.nan
        variance = float(gradient @ self.lens.covariance[np.ix_(where, where)] @ gradient)
        return radius, math.sqrt(max(variance, 0.0))

    @property
    def magnitudes(self) -> dict[str, u.Quantity]:
        """AB magnitudes: "source" and "second_source" (not lensed), "lensed_source", "lens_light".

        Those that there are; empty where the input has no zero point. That of the source is conditional on
        the family of the mass model.
        """
        found = {part: magnitude_of(self, part) for part in PARTS}
        return {part: value * u.ABmag for part, value in found.items() if np.isfinite(value)}

    @property
    def table(self) -> QTable:
        """The result as one row of a catalogue, a column for each quantity, with its unit and its error.

        ``id`` (of ``meta["id"]`` or ``meta["name"]``, the target, or the file), ``file``, ``ok``, ``flags``
        (joined by commas), ``reduced_chi2``; ``R_E``, ``magnification`` and their errors, ``NAME_mag``, the
        AB `magnitudes`, where there are any; then every parameter by its name of ``covariance_names``, fixed
        ones too, and its error (nan if fixed) by that name and ``_err``. Rows of several results, also in
        other units, go together by `astropy.table.vstack`; ``parameters`` is the long form, one row a
        parameter.

        Examples
        --------
        >>> from astropy.table import vstack
        >>> from lenssr import SuperResolver
        >>> from lenssr.simulation import DeepLense
        >>> items = DeepLense(lens="sie", size=2, seed=1)
        >>> resolver = SuperResolver(lens=items[0].lens, oversampling=1)
        >>> rows = [resolver(item.low, noise=item.noise).table for item in items]
        >>> catalogue = vstack(rows)
        >>> len(catalogue), catalogue["source.r_eff"].unit, "source.r_eff_err" in catalogue.colnames
        (2, Unit("arcsec"), True)
        """
        return catalogue_row(self)

    def colours(self, other: "SuperResolution") -> dict[str, u.Quantity]:
        """Magnitudes of this result less those of one in another band, of the parts that both have.

        Parameters
        ----------
        other : `SuperResolution`
            The same lens in another band.

        Returns
        -------
        colours : dict of `~astropy.units.Quantity`
            In magnitudes, by the names of `magnitudes`.

        Raises
        ------
        InputError
            If one of them has no zero point.
        """
        ours, theirs = self.magnitudes, other.magnitudes
        if not ours or not theirs:
            raise InputError("a result without a zero point has no colours: give zero_point= with its image")
        return {part: (ours[part].value - theirs[part].value) * u.mag for part in ours if part in theirs}

    def sample(self, n: int, seed: int = 0) -> Draws:
        """Draw images and sources from the posterior: what else the data allow, given the model.

        All parameters of source, lens, lens light and sky vary together, so that features of a draw are as
        correlated as errors are. Model and posterior are linearised around the most likely ones: the draws
        scatter about ``image`` and ``source`` by their uncertainties, and may fall below zero where these are
        large.

        Parameters
        ----------
        n : int
            Number of draws, 1 or more.
        seed : int, optional
            The same seed gives the same draws; 0 by default.

        Raises
        ------
        InputError
            If there is no posterior: the result was read from a file, or interpolated.

        Examples
        --------
        >>> from lenssr import SuperResolver
        >>> from lenssr.simulation import DeepLense
        >>> item = DeepLense(lens="sie", size=1, seed=1)[0]
        >>> result = SuperResolver(lens=item.lens, oversampling=1)(item.low, noise=item.noise)
        >>> draws = result.sample(3)
        >>> draws.image.shape, draws.source.unit
        ((3, 150, 150), Unit("electron / (s arcsec2)"))
        """
        n, seed = positive_integer(n, "n"), positive_integer(seed, "seed", 0)
        posterior = self._posterior()
        self._check_images(n)
        changes = posterior.changes(n, np.random.default_rng(seed))
        planes = zip((self.image, self.source), changes, strict=True)
        return Draws(*((plane.data + change) * plane.unit for plane, change in planes))

    def _check_images(self, n: int) -> None:
        """Refuse a number of draws of images that memory does not hold."""
        check_draws(n, self.image.data.size + (0 if self.source is None else self.source.data.size))

    def _posterior(self) -> Any:
        if self.posterior is None:
            raise InputError(
                "no posterior: run SuperResolver again, with a source model, and write its result"
            )
        return self.posterior

    def sample_posterior(
        self,
        n: int = 300,
        method: Method = "psis",
        seed: int = 0,
        *,
        images: bool = False,
        steps: int = 2000,
        jobs: int | None = 1,
        progress: bool = False,
    ) -> PosteriorDraws:
        """Draw the parameters of lens, light and source from the posterior, with the priors of the fit.

        The priors are Gaussian where the fit has one and flat, within its bounds, in the variables of the fit
        elsewhere: these are logarithms of brightnesses and lengths. The noise is held as the fit found it,
        and chi2 counts less where it is correlated, as for the errors.

        Parameters
        ----------
        n : int, optional
            Number of draws, 300 by default.
        method : {"psis", "laplace", "emcee"}, optional
            "laplace": the Gaussian of ``covariance``. "psis" (default): the same draws, weighed by the
            posterior, Pareto smoothed; ``pareto_k`` above 0.7 says that neither is reliable. "emcee": Markov
            chains, four independent ensembles, which need no Gaussian and take the longest. With a source on
            a grid the posterior is its evidence with grid, prior and strength held, integrated over the
            source by Laplace's method.
        seed : int, optional
            The same seed gives the same draws; 0 by default.
        images : bool, optional
            Whether each draw has its super-resolved image and source, by default not. Unlike those of
            `sample` they are not linearised.
        steps : int, optional
            Most steps of a walker of "emcee", 2000 by default; it ends sooner once R-hat is below 1.01 and
            the chains have 50 autocorrelation times.
        jobs : int, optional
            Number of processes of "emcee", by default 1; -1: one for each core. Draws do not depend on it.
        progress : bool, optional
            Whether a progress bar is shown, by default not.

        Returns
        -------
        draws : `~lenssr.posterior.PosteriorDraws`
            Use their weights. `with_draws` puts them into the product.

        Raises
        ------
        InputError
            If there is no posterior, an argument has no meaning, the extra ``posterior`` is not installed, or
            a network has drawn the source and the method is not "laplace".

        References
        ----------
        Vehtari et al. 2024, JMLR 25, 72 (Pareto smoothed importance sampling); Foreman-Mackey et al. 2013,
        PASP 125, 306 (emcee).

        Examples
        --------
        >>> from lenssr import SuperResolver
        >>> from lenssr.simulation import DeepLense
        >>> item = DeepLense(lens="sie", noise=True, size=1, seed=1)[0]
        >>> resolver = SuperResolver(lens=item.lens, fit_lens=True, oversampling=1)
        >>> result = resolver(item.low, noise=item.noise)
        >>> draws = result.sample_posterior(100, "laplace")
        >>> draws["lens.theta_E"].unit, draws.values.shape == (100, len(result.covariance_names))
        (Unit("arcsec"), True)
        """
        kept = self._posterior()
        if not hasattr(kept, "target"):
            raise InputError("the posterior of this result has draws of images only: see result.sample")
        if images:
            self._check_images(positive_integer(n, "n"))
        target = kept.target(method)
        draws, vectors = draw(target, n, method, seed=seed, steps=steps, jobs=jobs, progress=progress)
        if not images:
            return draws
        if self.source is None:
            raise InputError("images = True without a source: leave it out")
        found = kept.images(target, vectors, np.random.default_rng([seed, 1]))
        image, source = (
            part * plane.unit for part, plane in zip(found, (self.image, self.source), strict=True)
        )
        return replace(draws, image=image, source=source)

    def with_draws(self, draws: PosteriorDraws) -> Self:
        """The result with draws in it, which `write` writes and `read` reads.

        ``pareto_k`` becomes a measure of the verdict, and sets its flag ``posterior_not_gaussian`` above 0.7.

        Parameters
        ----------
        draws : `~lenssr.posterior.PosteriorDraws`
            As of `sample_posterior`.

        Returns
        -------
        result : `SuperResolution`
            Another one; this one stays as it is.

        Raises
        ------
        InputError
            If the draws are of other parameters.
        """
        if draws.names != tuple(self.covariance_names):
            told = ", ".join(self.covariance_names)
            raise InputError(f"draws of {', '.join(draws.names)} are not of this result, which has {told}")
        flags = tuple(flag for flag in self.flags if flag != NOT_GAUSSIAN)
        measures = {key: value for key, value in self.meta.get("measures", {}).items() if key != NOT_GAUSSIAN}
        if not np.isnan(draws.pareto_k):
            measures[NOT_GAUSSIAN] = draws.pareto_k
        flags += (NOT_GAUSSIAN,) if draws.doubtful else ()
        return replace(self, draws=draws, flags=flags, meta={**self.meta, "measures": measures})

    def write(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write everything to one FITS file: all of it, or nothing.

        Parameters
        ----------
        path : str or `~pathlib.Path`
            The file to make. It is written under a temporary name in the same folder, then renamed.
        overwrite : bool, optional
            Whether an existing file may be replaced; no by default.

        Raises
        ------
        InputError
            If the file exists and ``overwrite`` is false, or its folder is missing or not writable.
        """
        write(self, path, overwrite)

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Self:
        """Read a file that `write` made.

        Parameters
        ----------
        path : str or `~pathlib.Path`
            The file.

        Returns
        -------
        result : `SuperResolution`
            With every field as it was written, models included. A mass model of your own is found by its
            name; import the module that defines it first.

        Raises
        ------
        InputError
            If the file is missing, damaged or not a result.
        """
        return read(path, cls)

    def plot(
        self,
        *,
        panels: "Sequence[str] | None" = None,
        columns: int | None = None,
        figure: "matplotlib.figure.Figure | matplotlib.figure.SubFigure | None" = None,
        path: str | os.PathLike[str] | None = None,
    ) -> "matplotlib.figure.Figure | matplotlib.figure.SubFigure":
        """Draw a figure of panels; sizes of text follow matplotlib's ``font.size``.

        Parameters
        ----------
        panels : sequence of str, optional
            In order, some of "data", "lens_subtracted", "model", "residual", "image", "error",
            "lensed_source", "lens_light", "source", "second_source", "source_error" and "verdict". By
            default data, model, residual, super-resolved image, source (both, and their lensed light, of
            two), and the verdict with the parameters.
        columns : int, optional
            Panels of a row, by default 3, 2 of 4, and 4 of the eight of two sources.
        figure : `~matplotlib.figure.Figure` or subfigure, optional
            Where to draw; a new figure, outside pyplot, by default.
        path : str or `~pathlib.Path`, optional
            Where to save it, in the format of its suffix, replacing what is there; not saved by default.

        Returns
        -------
        figure : `~matplotlib.figure.Figure`

        Raises
        ------
        InputError
            If there is no such panel, or the path cannot be written.
        """
        from lenssr.result.plot import draw, save

        figure = draw(self, figure, panels, columns)
        if path is not None:
            save(figure, path)
        return figure

    def plot_panel(
        self, panel: str, *, ax: "matplotlib.axes.Axes | None" = None, colorbar: bool = True
    ) -> "matplotlib.axes.Axes":
        """Draw one panel of `plot` into axes.

        Parameters
        ----------
        panel : str
            Its name, as for `plot`.
        ax : `~matplotlib.axes.Axes`, optional
            Where to draw; axes of a new figure, outside pyplot, by default.
        colorbar : bool, optional
            Whether a colour bar stands to the right of the image, by default yes.

        Returns
        -------
        ax : `~matplotlib.axes.Axes`

        Raises
        ------
        InputError
            If there is no such panel.
        """
        from lenssr.result.plot import draw_one

        return draw_one(self, panel, ax, colorbar)

    def summary(self) -> str:
        """Say in a few lines of text what came out: verdict, sizes, fit quality, parameters with errors."""
        return describe(self)

    def _repr_html_(self) -> str:
        return as_html(self)

    def __repr__(self) -> str:
        """Say size, verdict and fit quality in one line."""
        ny, nx = self.image.shape
        _, scale = pixel_scales(self)
        size = f"{nx}x{ny}" + ("" if scale is None else f' at {scale:.4g}"')
        flags = f", flags: {', '.join(self.flags)}" if self.flags else ""
        return f"<SuperResolution {size}, {self.grade}, reduced chi2 {self.reduced_chi2:.3g}{flags}>"
