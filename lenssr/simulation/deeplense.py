"""The DeepLense simulations, on which LensSR was tested: Models I, II and III, with dark substructure."""

from dataclasses import dataclass, replace
from functools import cached_property

import astropy.units as u
import numpy as np

from lenssr.exceptions import InputError
from lenssr.imaging.instruments import EUCLID_VIS, HST_WFC3_IR, Instrument
from lenssr.imaging.noise import DeepLenseNoise, PoissonNoise
from lenssr.light.sersic import sersic_flux
from lenssr.light.sersic_shape import sersic_from_lenstronomy
from lenssr.mass import SIE, SIS, Shear
from lenssr.simulation.camera import Camera
from lenssr.simulation.dataset import BatchedLenses, LensDraw, check_count
from lenssr.simulation.subhalos import AxionVortex, ColdSubhalos

__all__ = ["DeepLense"]

# Einstein radius of the lens in arcsec, noise of the sky in electron / s (DeepLenseSim).
THETA_E = 1.28149057
DEEPLENSE_BACKGROUND_RMS = 0.01
# Mass in solar masses whose Einstein radius is THETA_E; the radius scales with its root.
_MASS = 1e12
_SOURCE = {"amp": 20.0, "R_sersic": 0.25, "n_sersic": 1.0}
# AB magnitude and (e1, e2) of the source, largest |x| and |y| of its centre in arcsec.
_MAGNITUDE = 20.0
_ELLIPTICITY = (-0.1, 0.1)
_LARGEST_OFFSET = 0.35
_LENSES = {
    "sie": lambda: SIE(theta_E=THETA_E, e1=0.1, e2=0.0, x_0=0.0, y_0=0.0),
    "sis": lambda: SIS(theta_E=THETA_E, x_0=0.0, y_0=0.0),
    "sie+shear": lambda: SIE(theta_E=THETA_E, e1=0.1, e2=0.0, x_0=0.0, y_0=0.0) + Shear(0.05, 0.0),
}
_SUBSTRUCTURE = {"none": lambda: None, "cdm": ColdSubhalos, "axion": AxionVortex}


@dataclass(frozen=True)
class _Model:
    """Camera, instrument (None for Model I), default lens and default noise of a model."""

    pixels: int
    pixel_scale: float
    instrument: Instrument | None
    lens: str
    noise: bool


_MODELS = {
    "I": _Model(75, 0.05, None, "sie", False),
    "II": _Model(64, 0.101, replace(EUCLID_VIS, pixel_scale=0.101 * u.arcsec), "sie+shear", True),
    "III": _Model(
        64,
        0.08,
        replace(HST_WFC3_IR, pixel_scale=0.08 * u.arcsec, psf_fwhm=0.08 * u.arcsec),
        "sie+shear",
        True,
    ),
}


class DeepLense(BatchedLenses):
    """Models I, II and III of DeepLenseSim as a seeded sequence: one lens, sources in different places.

    The lens has an Einstein radius of 1.28149057", and for an SIE e1 = 0.1; ``"sie+shear"`` adds
    gamma1 = 0.05. The source is an exponential disc (lenstronomy's R_sersic 0.25", e = (-0.1, 0.1)) whose
    centre is uniform within 0.35" of the axis in x and y.

    ========================  ==================  =======================  ==============================
    model                     I                   II                       III
    ========================  ==================  =======================  ==============================
    camera                    none                Euclid VIS               HST WFC3/IR F160W
    low pixels                75 x 75 of 0.05"    64 x 64 of 0.101"        64 x 64 of 0.08"
    Gaussian PSF, FWHM        none                0.16"                    0.08"
    light in pixels           at their centres    integrated               integrated
    source                    amplitude 20        magnitude 20             magnitude 20
    exposure in s             ``10**U(3, 3.5)``   2260                     2400
    lens, unless given        "sie"               "sie+shear"              "sie+shear"
    noise, unless given       Poisson             Poisson, sky, read-out   Poisson, sky, read-out
    ========================  ==================  =======================  ==============================

    Parameters
    ----------
    model : {"I", "II", "III"}, optional
        "I" by default.
    lens : {"sie", "sis", "sie+shear"}, optional
        The lens; by default as in the table.
    noise : bool, optional
        Whether there is more than the photon noise of the source. In Model I the counts of the low image
        scatter before they are clipped at zero and drawn (`~lenssr.imaging.DeepLenseNoise`, background 0.01
        electron / s); in Models II and III the instrument's sky and read-out add Gaussian noise to both
        images. By default as in the table.
    size : int, optional
        How many lenses; 1000 by default.
    seed : int, optional
        Which ones; 0 by default. The same seed gives the same sources in all models, with and without
        substructure and noise, and the same exposures and high images with and without noise.
    scale : int, optional
        How many high pixels lie along a low one; 2 by default.
    substructure : {"none", "cdm", "axion"}, `ColdSubhalos` or `AxionVortex`, optional
        Point masses beside the lens. A name stands for the class with its defaults, which are those of
        DeepLenseSim; "none" by default.

    Raises
    ------
    InputError
        If a setting is none of these.

    Notes
    -----
    Model I samples light at pixel centres, as the original does, so its low image is not the sum of the
    high one. In Models II and III light is integrated over high pixels, the PSF is applied at their sampling,
    and sums of them make the low image.

    The numbers of lens, source and substructure are those of DeepLenseSim's ``deeplense/lens.py``. Einstein
    radii there follow from luminosity distances (redshifts 0.5 and 1, flat, H0 = 70, Om0 = 0.3): a mass M in
    solar masses has 1.28149057" sqrt(M / 1e12), where angular-diameter distances would give 1.665". Pixel
    scales and widths of the PSFs are those of lenstronomy's configurations of Euclid's VIS and HST's
    drizzled F160W, which it uses; zero points, sky, read-out noise and exposures are those of
    ``lenssr.imaging.instruments``. DeepLenseSim as published computes noise for Model II and then does not
    add it.

    References
    ----------
    Alexander et al. 2020, ApJ 893, 15 (Model I); 2021, ApJ 909, 140 and arXiv:2112.12121.
    DeepLenseSim, https://github.com/mwt5345/DeepLenseSim.

    Examples
    --------
    >>> from lenssr.simulation import DeepLense
    >>> data = DeepLense(lens="sis", noise=True, size=10, seed=1)
    >>> item = data[3]
    >>> item.low.shape, item.high.shape, item.low.unit
    ((75, 75), (150, 150), Unit("electron / s"))
    >>> batch = DeepLense("II", substructure="cdm", size=10).batch(slice(0, 4))
    >>> batch.low.shape, batch.truth.shape, batch.scenes.subhalos.shape
    (torch.Size([4, 64, 64]), torch.Size([4, 128, 128]), torch.Size([4, 25, 3]))
    """

    _settings = ("model", "lens", "noise", "size", "seed", "scale", "substructure")
    _stream = 1

    def __init__(self, model="I", *, lens=None, noise=None, size=1000, seed=0, scale=2, substructure="none"):
        super().__init__(size, seed)
        self._model = _named(model, _MODELS, "model")
        lens = self._model.lens if lens is None else lens
        noise = self._model.noise if noise is None else noise
        self._common_lens = self._lens = _named(lens, _LENSES, "lens")()
        if not isinstance(noise, bool | np.bool_):
            raise InputError(f"noise = {noise!r}: give True or False")
        self.model, self.lens, self.noise = model, lens, bool(noise)
        self.scale, self.substructure = check_count(scale, "scale", 1), substructure
        self._subhalos = substructure
        if not isinstance(substructure, ColdSubhalos | AxionVortex):
            self._subhalos = _named(substructure, _SUBSTRUCTURE, "substructure")()

    def _make_camera(self, number):
        instrument = self._model.instrument
        psf = None if instrument is None else instrument.psf()
        return Camera(
            self._model.pixels, self._model.pixel_scale, self.scale, psf, integrate=instrument is not None
        )

    def _draw(self, index):
        rng = self.rng(index)
        centre = rng.uniform(-_LARGEST_OFFSET, _LARGEST_OFFSET, 2)
        exposures = 10 ** rng.uniform(3.0, 3.5, 2)
        # The first data sets draw all noise from the stream of the source, the high image's first.
        first = self._subhalos is None and self._model.instrument is None
        streams = (rng, rng) if first else (self.rng(index, 1), self.rng(index, 2))
        subhalos, settings = np.zeros((0, 3)), {}
        if self._subhalos is not None:
            masses, x, y, settings = self._subhalos.draw(self.rng(index, 3))
            subhalos = np.stack([THETA_E * np.sqrt(masses / _MASS), x, y], axis=1)
        noise, high_noise = self._noises(*map(float, exposures))
        return LensDraw(
            lens=self._lens_vector,
            source=np.array([*self._source, *centre, *_ELLIPTICITY]),
            noise=noise,
            high_noise=high_noise,
            streams=streams,
            subhalos=subhalos,
            settings=settings,
        )

    @cached_property
    def _lens_vector(self):
        return self._lens.vector.numpy()

    @cached_property
    def _source(self):
        """Amplitude, circular radius and index of the source."""
        amplitude, r_eff_circ = sersic_from_lenstronomy(**_SOURCE)
        n = _SOURCE["n_sersic"]
        if self._model.instrument is not None:
            flux = self._model.instrument.count_rate(_MAGNITUDE)
            amplitude = flux / float(sersic_flux(1.0, r_eff_circ, n))
        return amplitude, r_eff_circ, n

    def _noises(self, exposure, high_exposure):
        instrument = self._model.instrument
        if instrument is None:
            low = DeepLenseNoise(exposure, DEEPLENSE_BACKGROUND_RMS) if self.noise else PoissonNoise(exposure)
            return low, PoissonNoise(high_exposure)
        noise = instrument.noise()
        rms = noise.background_rms if self.noise else 0.0
        return PoissonNoise(noise.exposure, rms), PoissonNoise(noise.exposure, rms / self.scale)


def _named(name, table, what):
    if not isinstance(name, str) or name not in table:
        raise InputError(f"{what} = {name!r} is not known: give one of {', '.join(map(repr, table))}")
    return table[name]
