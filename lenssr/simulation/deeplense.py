"""Model I of DeepLenseSim: the simulations with which LensSR was first tested."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from lenssr.exceptions import InputError
from lenssr.imaging.noise import DeepLenseNoise, PoissonNoise
from lenssr.light.sersic import Sersic
from lenssr.light.sersic_shape import sersic_b, sersic_from_lenstronomy
from lenssr.mass import SIE, SIS
from lenssr.simulation.item import UNIT, LensDataset, SimulatedLens, check_count, image, sky_grid
from lenssr.simulation.poisson import draw_poisson

__all__ = ["DeepLense", "DeepLenseBatch"]

THETA_E = 1.28149057
BACKGROUND_RMS = 0.01
_PIXELS, _PIXEL_SCALE = 75, 0.05
_BLOCK = 22_500
_SOURCE = {"amp": 20.0, "R_sersic": 0.25, "n_sersic": 1.0}
_ELLIPTICITY = (-0.1, 0.1)
_REACH = 0.35
_LENSES = {
    "sie": lambda: SIE(theta_E=THETA_E, e1=0.1, e2=0.0, x_0=0.0, y_0=0.0),
    "sis": lambda: SIS(theta_E=THETA_E, x_0=0.0, y_0=0.0),
}


@dataclass(frozen=True, eq=False)
class DeepLenseBatch:
    """Many lenses of a `DeepLense` data set as arrays, in electron / s per pixel.

    Attributes
    ----------
    index : `~numpy.ndarray`, shape (B,)
        Which lenses of the data set these are.
    low : `~numpy.ndarray`, shape (B, 75, 75)
    high : `~numpy.ndarray`, shape (B, 75 scale, 75 scale)
        The noisy images.
    truth : `~numpy.ndarray`, shape (B, 75 scale, 75 scale), or None
        The high images without noise, if they were asked for.
    exposure, high_exposure : `~numpy.ndarray`, shape (B,)
        In seconds.
    x_0, y_0 : `~numpy.ndarray`, shape (B,)
        Centre of the source in arcsec.
    """

    index: np.ndarray
    low: np.ndarray
    high: np.ndarray
    exposure: np.ndarray
    high_exposure: np.ndarray
    x_0: np.ndarray
    y_0: np.ndarray
    truth: np.ndarray | None = None


class _Plane:
    """One pixel grid with its rays traced to the source plane.

    The lens and the shape of the source are the same for every item, so the rays are traced once, and put
    into coordinates in which the source falls off as exp(-radius); an item only moves its centre.
    """

    def __init__(self, grid, lens):
        self.grid = grid
        x, y = (torch.as_tensor(centre).reshape(1, -1) for centre in (grid.x, grid.y))
        alpha = lens.deflection_at(x, y, lens.vector[None])
        beta_x, beta_y = (
            (position - shift).numpy().reshape(grid.shape)
            for position, shift in zip((x, y), alpha, strict=True)
        )
        amplitude, r_eff_circ = sersic_from_lenstronomy(**_SOURCE)
        b = sersic_b(_SOURCE["n_sersic"])
        e1, e2 = _ELLIPTICITY
        self._matrix = (
            b / (r_eff_circ * np.sqrt(1 - e1**2 - e2**2)) * np.array([[1 - e1, -e2], [-e2, 1 + e1]])
        )
        self._u, self._v = (row[0] * beta_x + row[1] * beta_y for row in self._matrix)
        self._log_peak = np.log(amplitude * grid.pixel_area) + b

    def render(self, x_0, y_0, exposure, rows):
        """Expected counts in the pixels of some rows, sampled at their centres."""
        u_0, v_0 = self._matrix @ (x_0, y_0)
        radius, other = self._u[rows] - u_0, self._v[rows] - v_0
        radius *= radius
        other *= other
        radius += other
        np.sqrt(radius, out=radius)
        np.subtract(self._log_peak + np.log(exposure), radius, out=radius)
        return np.exp(radius, out=radius)


class DeepLense(LensDataset):
    """Model I of DeepLenseSim as a seeded sequence: one lens, sources in different places, counts as noise.

    The lens has an Einstein radius of 1.28149057", and for the SIE e1 = 0.1. The source is an exponential
    disc (lenstronomy's amplitude 20, R_sersic 0.25", e = (-0.1, 0.1)) whose centre is uniform within 0.35"
    of the axis in x and y. Images are sampled at pixel centres, without a PSF: 75 x 75 pixels of 0.05", and
    ``scale`` times as many in the high image. Both exposures are ``10**U(3, 3.5)`` seconds.

    Parameters
    ----------
    model : str, optional
        Only "I", the default.
    lens : {"sie", "sis"}, optional
        The lens; "sie" by default.
    noise : bool, optional
        Whether the counts of the low image scatter before they are clipped at zero and drawn
        (`~lenssr.imaging.DeepLenseNoise`, background 0.01 electron / s), or are plain Poisson counts (the
        default).
    size : int, optional
        How many lenses; 1000 by default.
    seed : int, optional
        Which ones; 0 by default. The same seed gives the same sources, exposures and high images with and
        without noise.
    scale : int, optional
        How many high pixels lie along a low one; 2 by default.

    Raises
    ------
    InputError
        If a setting is none of these.

    References
    ----------
    Alexander et al. 2020, ApJ 893, 15 (the simulations). The Einstein radius is the one of their
    configuration; it follows from luminosity distances, where angular-diameter distances would give 1.665".

    Examples
    --------
    >>> from lenssr.simulation import DeepLense
    >>> data = DeepLense(lens="sis", noise=True, size=10, seed=1)
    >>> item = data[3]
    >>> item.low.shape, item.high.shape, item.low.unit
    ((75, 75), (150, 150), Unit("electron / s"))
    >>> batch = data.batch(slice(0, 4))
    >>> batch.low.shape, bool((batch.low[3] == item.low.data).all())
    ((4, 75, 75), True)
    """

    _settings = ("model", "lens", "noise", "size", "seed", "scale")
    _stream = 1

    def __init__(self, model="I", *, lens="sie", noise=False, size=1000, seed=0, scale=2):
        super().__init__(size, seed)
        if model != "I":
            raise InputError(f"model = {model!r} is not known: give 'I'")
        if lens not in _LENSES:
            raise InputError(f"lens = {lens!r} is not known: give one of {', '.join(map(repr, _LENSES))}")
        if not isinstance(noise, bool | np.bool_):
            raise InputError(f"noise = {noise!r}: give True or False")
        self.model, self.lens, self.noise = model, lens, bool(noise)
        self.scale = check_count(scale, "scale", 1)

    @cached_property
    def _low(self):
        return _Plane(sky_grid((_PIXELS, _PIXELS), _PIXEL_SCALE), _LENSES[self.lens]())

    @cached_property
    def _high(self):
        return _Plane(self._low.grid.upsample(self.scale), _LENSES[self.lens]())

    def _draw(self, index, low, high, truth=None, low_truth=None):
        """Fill the arrays with the images of one lens; return centre of the source and exposures."""
        rng = self.rng(index)
        x_0, y_0 = rng.uniform(-_REACH, _REACH, 2)
        exposure, high_exposure = 10 ** rng.uniform(3.0, 3.5, 2)
        # The high image first: what the low one uses up of the random numbers depends on its noise.
        _expose(self._high, (x_0, y_0), high_exposure, 0.0, rng, high, truth)
        _expose(self._low, (x_0, y_0), exposure, BACKGROUND_RMS * self.noise, rng, low, low_truth)
        return x_0, y_0, exposure, high_exposure

    def _item(self, index):
        low, low_truth = np.empty((2, *self._low.grid.shape))
        high, truth = np.empty((2, *self._high.grid.shape))
        x_0, y_0, exposure, high_exposure = self._draw(index, low, high, truth, low_truth)
        amplitude, r_eff_circ = sersic_from_lenstronomy(**_SOURCE)
        vector = [amplitude, r_eff_circ, _SOURCE["n_sersic"], x_0, y_0, *_ELLIPTICITY]
        noise = DeepLenseNoise(exposure, BACKGROUND_RMS) if self.noise else PoissonNoise(exposure)
        return SimulatedLens(
            index=index,
            low=image(low, self._low.grid, exposure),
            high=image(high, self._high.grid, high_exposure),
            low_truth=image(low_truth, self._low.grid),
            truth=image(truth, self._high.grid),
            lens=_LENSES[self.lens](),
            source=Sersic.from_vector(np.array(vector), unit=UNIT),
            noise=noise,
            high_noise=PoissonNoise(high_exposure),
        )

    def batch(self, indices=None, *, truth=True, dtype=np.float64):
        """Simulate many lenses at once, as arrays; much faster than one item after the other.

        Parameters
        ----------
        indices : slice, sequence of int or None, optional
            Which lenses; all by default.
        truth : bool, optional
            Whether to keep the noise-free high images too; True by default.
        dtype : data type, optional
            Of the images; float64 by default.

        Returns
        -------
        batch : `DeepLenseBatch`
            The numbers are those of the items.

        Raises
        ------
        IndexError
            If an index is out of range.
        """
        if indices is None or isinstance(indices, slice):
            indices = range(self.size)[indices or slice(None)]
        index = np.array([self._checked_index(number) for number in indices], dtype=np.int64)
        sides = {"low": _PIXELS, "high": _PIXELS * self.scale}
        if truth:
            sides["truth"] = _PIXELS * self.scale
        images = {name: np.empty((len(index), side, side), dtype=dtype) for name, side in sides.items()}
        numbers = np.empty((4, len(index)))
        for place, number in enumerate(index.tolist()):
            numbers[:, place] = self._draw(number, **{name: stack[place] for name, stack in images.items()})
        x_0, y_0, exposure, high_exposure = numbers
        return DeepLenseBatch(
            index, exposure=exposure, high_exposure=high_exposure, x_0=x_0, y_0=y_0, **images
        )


def _expose(plane, centre, exposure, background_rms, rng, image, truth):
    """Fill an image, and its truth unless that is None; counts scatter first if there is a background."""
    # Blocks of rows whose arrays stay in the cache, large enough that few calls are made.
    step = max(1, _BLOCK // image.shape[1])
    for start in range(0, len(image), step):
        rows = slice(start, start + step)
        counts = plane.render(*centre, exposure, rows)
        if truth is not None:
            np.divide(counts, exposure, out=truth[rows], casting="same_kind")
        if background_rms:
            # Shot noise and background are independent and normal, so that one number stands for their sum.
            deviation = np.sqrt(counts + (background_rms * exposure) ** 2)
            deviation *= rng.standard_normal(counts.shape)
            counts += deviation
            np.maximum(counts, 0, out=counts)
        np.divide(draw_poisson(counts, rng), exposure, out=image[rows], casting="same_kind")
