"""The DeepLense simulations, on which LensSR was tested: Models I, II and III, with dark substructure."""

import math
from dataclasses import KW_ONLY, dataclass, replace
from functools import cached_property
from typing import Any, Literal

import astropy.units as u
import numpy as np
from numpy.typing import NDArray

from lenssr._option import one_of
from lenssr.exceptions import InputError
from lenssr.imaging.instruments import EUCLID_VIS, HST_WFC3_IR, Instrument
from lenssr.imaging.noise import DeepLenseNoise, PoissonNoise
from lenssr.light import sersic_flux, sersic_from_lenstronomy
from lenssr.mass import SIE, SIS, Shear
from lenssr.simulation.camera import Camera
from lenssr.simulation.dataset import BatchedLenses, check_range
from lenssr.simulation.scenes import LensDraw
from lenssr.units import positive_integer, positive_number

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
# Half length of a vortex times the mass of the axion, in arcsec eV (DeepLenseSim).
_LENGTH_TIMES_MASS = 0.03e-22

# Masses in solar masses, x and y in arcsec, shape (N,) each, and other numbers that were drawn.
_Masses = tuple[NDArray, NDArray, NDArray, dict[str, float]]


@dataclass(frozen=True)
class ColdSubhalos:
    """Subhalos of cold dark matter as point masses, dN/dm ~ m^slope.

    Parameters
    ----------
    number : int, optional
        Number of subhalos; 25 by default.
    slope : float, optional
        Exponent of the mass function; by default -0.9, as in the code of the DeepLense simulations. Their
        comments, and simulations of dark matter, say -1.9.
    poisson : bool, optional
        Whether the number is a Poisson number with mean ``number``. By default it is ``number``, as in that
        code, which draws a Poisson number and leaves it unused.
    masses : tuple of float, optional
        Least and largest mass in solar masses; (1e6, 1e10) by default.
    radii : tuple of float, optional
        Least and largest distance from the centre in arcsec, uniform in between, as the angle is; (0.25, 2)
        by default.

    Raises
    ------
    InputError
        If a setting is out of range.

    References
    ----------
    Alexander et al. 2020, ApJ 893, 15. DeepLenseSim, https://github.com/mwt5345/DeepLenseSim,
    ``draw_old_cdm_sub_masses`` and ``make_old_cdm`` in ``deeplense/lens.py``.

    Examples
    --------
    >>> import numpy as np
    >>> from lenssr.simulation import ColdSubhalos
    >>> masses, x, y, _ = ColdSubhalos(slope=-1.9).draw(np.random.default_rng(1))
    >>> masses.shape, bool(masses.min() >= 1e6), bool(np.hypot(x, y).max() <= 2)
    ((25,), True, True)
    """

    number: int = 25
    _: KW_ONLY
    slope: float = -0.9
    poisson: bool = False
    masses: tuple[float, float] = (1e6, 1e10)
    radii: tuple[float, float] = (0.25, 2.0)

    def __post_init__(self) -> None:
        if not math.isfinite(self.slope):
            raise InputError(f"slope = {self.slope}: give the exponent of the mass function, such as -1.9")
        self.__dict__.update(
            number=positive_integer(self.number, "number"),
            slope=float(self.slope),
            poisson=bool(self.poisson),
            masses=check_range(self.masses, u.Msun, "masses"),
            radii=check_range(self.radii, u.arcsec, "radii"),
        )

    def draw(self, rng: np.random.Generator) -> _Masses:
        """Draw masses in solar masses, x and y in arcsec, shape (N,) each, and other numbers (none here)."""
        number = int(rng.poisson(self.number)) if self.poisson else self.number
        share, radius, angle = rng.uniform(size=(3, number))
        low, high = self.masses
        power = self.slope + 1
        if abs(power) < 1e-9:
            masses = low * (high / low) ** share
        else:
            masses = (low**power + (high**power - low**power) * share) ** (1 / power)
        radius = self.radii[0] + (self.radii[1] - self.radii[0]) * radius
        angle = 2 * math.pi * angle
        return masses, radius * np.cos(angle), radius * np.sin(angle), {}


@dataclass(frozen=True)
class AxionVortex:
    """A vortex of axion dark matter: equal point masses on a line through the centre, at a random angle.

    Half the length of the line is 0.03e-22 eV / m arcsec, which is the de Broglie wavelength of an axion of
    mass m in a halo at redshift 0.5.

    Parameters
    ----------
    mass : float or `~astropy.units.Quantity`, optional
        Of the whole line, in solar masses; 3e10 by default.
    number : int, optional
        Number of point masses, one at each end of the line; 100 by default.
    log_axion_mass : tuple of float, optional
        Least and largest decimal logarithm of the axion's mass in eV, uniform in between; (-24, -22) by
        default.

    Raises
    ------
    InputError
        If a setting is out of range.

    References
    ----------
    Alexander et al. 2020, ApJ 893, 15. DeepLenseSim, https://github.com/mwt5345/DeepLenseSim,
    ``make_vortex`` in ``deeplense/lens.py`` and the masses in ``Model_II/sim_axion.py``.

    Examples
    --------
    >>> import numpy as np
    >>> from lenssr.simulation import AxionVortex
    >>> masses, x, y, numbers = AxionVortex(log_axion_mass=(-23, -23)).draw(np.random.default_rng(1))
    >>> masses.shape, round(float(np.hypot(x, y).max()), 6), numbers
    ((100,), 0.3, {'log_axion_mass': -23.0})
    """

    mass: float | u.Quantity = 3e10
    _: KW_ONLY
    number: int = 100
    log_axion_mass: tuple[float, float] = (-24.0, -22.0)

    def __post_init__(self) -> None:
        one = u.dimensionless_unscaled
        self.__dict__.update(
            mass=positive_number(self.mass, u.Msun, "mass"),
            # A point mass at each end.
            number=positive_integer(self.number, "number", 2),
            log_axion_mass=check_range(self.log_axion_mass, one, "log_axion_mass", -math.inf),
        )

    def draw(self, rng: np.random.Generator) -> _Masses:
        """Draw as `ColdSubhalos.draw`; the other number is ``log_axion_mass``."""
        log_mass, angle = float(rng.uniform(*self.log_axion_mass)), rng.uniform(0, 2 * math.pi)
        half = _LENGTH_TIMES_MASS / 10**log_mass
        along = np.linspace(-half, half, self.number)
        masses = np.full(self.number, self.mass / self.number)
        return masses, along * math.cos(angle), along * math.sin(angle), {"log_axion_mass": log_mass}


@dataclass(frozen=True)
class _Model:
    """Camera, instrument (None for Model I), default lens and default noise of a model."""

    pixels: int
    pixel_scale: float
    instrument: Instrument | None
    lens: Literal["sie", "sie+shear"]
    noise: bool


_VIS = replace(EUCLID_VIS, pixel_scale=0.101 * u.arcsec)
_F160W = replace(HST_WFC3_IR, pixel_scale=0.08 * u.arcsec, psf_fwhm=0.08 * u.arcsec)
_MODELS = {
    "I": _Model(75, 0.05, None, "sie", False),
    "II": _Model(64, 0.101, _VIS, "sie+shear", True),
    "III": _Model(64, 0.08, _F160W, "sie+shear", True),
}
_SIE = SIE(theta_E=THETA_E, e1=0.1, e2=0.0, x_0=0.0, y_0=0.0)
_LENSES: dict[Any, Any] = {"sie": _SIE, "sis": SIS(THETA_E), "sie+shear": _SIE + Shear(0.05, 0.0)}
_SUBSTRUCTURE: dict[Any, Any] = {"none": lambda: None, "cdm": ColdSubhalos, "axion": AxionVortex}


@dataclass(repr=False, eq=False)
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
        Number of lenses; 1000 by default.
    seed : int, optional
        Seed of the random numbers; 0 by default. The same seed gives the same sources in all models, with and
        without substructure and noise, and the same exposures and high images with and without noise.
    scale : int, optional
        High pixels along a low one; 2 by default.
    substructure : {"none", "cdm", "axion"}, `ColdSubhalos` or `AxionVortex`, optional
        Point masses beside the lens; "none" by default. A name stands for the class with its defaults, as in
        DeepLenseSim.

    Raises
    ------
    InputError
        If a setting is none of these.

    Notes
    -----
    Model I samples light at pixel centres, as the original does, so its low image is not the sum of the
    high one. In Models II and III light is integrated over high pixels, the PSF is applied at their sampling,
    and sums of them make the low image.

    The numbers of lens, source and substructure are from DeepLenseSim's ``deeplense/lens.py``. Einstein
    radii there follow from luminosity distances (redshifts 0.5 and 1, flat, H0 = 70, Om0 = 0.3): a mass M in
    solar masses has 1.28149057" sqrt(M / 1e12), where angular-diameter distances would give 1.665". Pixel
    scales and widths of the PSFs are from lenstronomy's configurations of Euclid's VIS and HST's drizzled
    F160W, which it uses; zero points, sky, read-out noise and exposures are from
    ``lenssr.imaging.instruments``. DeepLenseSim as published computes noise for Model II without adding it.

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

    _stream = 1

    model: Literal["I", "II", "III"] = "I"
    _: KW_ONLY
    lens: Literal["sie", "sis", "sie+shear"] | None = None
    noise: bool | None = None
    size: int = 1000
    seed: int = 0
    scale: int = 2
    substructure: Literal["none", "cdm", "axion"] | ColdSubhalos | AxionVortex = "none"

    def __post_init__(self) -> None:
        super().__init__(self.size, self.seed)
        one_of(_MODELS)("model", self.model)
        self._model = _MODELS[self.model]
        self.lens = self._model.lens if self.lens is None else self.lens
        self.noise = self._model.noise if self.noise is None else self.noise
        one_of(_LENSES)("lens", self.lens)
        one_of((True, False))("noise", self.noise)
        self.noise, self.scale = bool(self.noise), positive_integer(self.scale, "scale")
        self._common_lens = self._lens = _LENSES[self.lens]
        self._lens_vector = self._lens.vector.numpy()
        self._subhalos: Any = self.substructure
        if not isinstance(self.substructure, ColdSubhalos | AxionVortex):
            one_of(_SUBSTRUCTURE)("substructure", self.substructure)
            self._subhalos = _SUBSTRUCTURE[self.substructure]()

    def _make_camera(self, number: int) -> Camera:
        instrument = self._model.instrument
        psf = None if instrument is None else instrument.psf()
        return Camera(self._model.pixels, self._model.pixel_scale, self.scale, psf)

    def _draw(self, index: int) -> LensDraw:
        rng = self.rng(index)
        centre = rng.uniform(-_LARGEST_OFFSET, _LARGEST_OFFSET, 2)
        exposures = 10 ** rng.uniform(3.0, 3.5, 2)
        noise, high_noise = self._noises(*map(float, exposures))
        draw = LensDraw(
            lens=self._lens_vector,
            source=np.array([*self._source, *centre, *_ELLIPTICITY]),
            noise=noise,
            high_noise=high_noise,
            # The first data sets draw all noise from the stream of the source, the high image's first.
            streams=(rng, rng),
        )
        if self._model.instrument is not None or self._subhalos is not None:
            draw.streams = self.rng(index, 1), self.rng(index, 2)
        if self._subhalos is not None:
            masses, x, y, draw.settings = self._subhalos.draw(self.rng(index, 3))
            draw.subhalos = np.stack([THETA_E * np.sqrt(masses / _MASS), x, y], axis=1)
        return draw

    @cached_property
    def _source(self) -> tuple[float, float, float]:
        """Amplitude, circular radius and index of the source."""
        amplitude, r_eff_circ = sersic_from_lenstronomy(**_SOURCE)
        n = _SOURCE["n_sersic"]
        if self._model.instrument is not None:
            flux = self._model.instrument.count_rate(_MAGNITUDE)
            amplitude = flux / float(sersic_flux(1.0, r_eff_circ, n))
        return amplitude, r_eff_circ, n

    def _noises(self, exposure: float, high_exposure: float) -> tuple[PoissonNoise, PoissonNoise]:
        instrument = self._model.instrument
        if instrument is None:
            low = DeepLenseNoise(exposure, DEEPLENSE_BACKGROUND_RMS) if self.noise else PoissonNoise(exposure)
            return low, PoissonNoise(high_exposure)
        noise = instrument.noise()
        rms = noise.background_rms if self.noise else 0.0
        return PoissonNoise(noise.exposure, rms), PoissonNoise(noise.exposure, rms / self.scale)
