"""Simulated lenses, one by one and in batches, and the bases of data sets of them."""

import math
import operator
from abc import ABC, abstractmethod
from dataclasses import dataclass, field, fields, replace

import numpy as np
import torch
from astropy.modeling import Model
from astropy.nddata import CCDData

from lenssr.exceptions import InputError
from lenssr.grids import PixelGrid
from lenssr.imaging.noise import DeepLenseNoise, NoiseModel, PoissonNoise, stack_noise
from lenssr.imaging.psf import PSF
from lenssr.mass import MassModel, MassSystem
from lenssr.simulation.camera import binned
from lenssr.simulation.poisson import draw_poisson
from lenssr.simulation.scenes import UNIT, LensScenes, make_scenes, map_tensors
from lenssr.simulation.write import write_item
from lenssr.units import strip_unit

__all__ = [
    "BatchedLenses",
    "LensBatch",
    "LensDataset",
    "LensDraw",
    "SimulatedLens",
    "check_count",
    "check_range",
    "image",
    "observed",
]

# Cameras that are kept with their rays.
_CAMERAS_KEPT = 8


@dataclass(frozen=True, eq=False)
class SimulatedLens:
    """One simulated lens: images at two resolutions, and everything that went into them.

    Images are `~astropy.nddata.CCDData` in electron / s per pixel, with a WCS; the exposure in seconds is
    ``meta["EXPTIME"]``.

    Attributes
    ----------
    index : int
        Its place in the data set.
    low, high : `~astropy.nddata.CCDData`
        The noisy images; ``high`` has ``scale`` times as many pixels along a side.
    low_truth, truth : `~astropy.nddata.CCDData`
        The same without noise.
    lens : `~lenssr.mass.MassModel`
        The true lens.
    source : `~lenssr.light.Sersic`
        The true source, in electron / s per arcsec2.
    noise, high_noise : `~lenssr.imaging.NoiseModel`
        How ``low`` and ``high`` were made from their truths; numbers are in electron / s and seconds.
    lens_light : `~lenssr.light.Sersic` or None
        The true light of the lens galaxy.
    psf : `~lenssr.imaging.PSF` or None
        The true point spread function.
    settings : dict
        Numbers of the simulation that belong to no model, such as the signal-to-noise ratio.
    """

    index: int
    low: CCDData
    high: CCDData
    low_truth: CCDData
    truth: CCDData
    lens: MassModel | MassSystem
    source: Model
    noise: NoiseModel
    high_noise: NoiseModel
    lens_light: "Model | None" = None  # quoted: astropy gives | of models a meaning
    psf: PSF | None = None
    settings: dict = field(default_factory=dict)

    @property
    def given(self):
        """What an observer would know besides the image: noise and PSF, as keywords for a resolver's call."""
        known = {"noise": self.noise, "psf": self.psf}
        return {name: value for name, value in known.items() if value is not None}


@dataclass(frozen=True, eq=False)
class LensBatch:
    """Simulated lenses of one camera as tensors: one shape, pixel scale and PSF, one device and type.

    Images are in electron / s per pixel.

    Attributes
    ----------
    index : `torch.Tensor`, shape (B,), int64
        Numbers of the lenses in the data set; on the CPU.
    low : `torch.Tensor`, shape (B, ny, nx)
        The noisy images.
    low_truth : `torch.Tensor`, shape (B, ny, nx)
        The same without noise.
    truth : `torch.Tensor`, shape (B, ny * scale, nx * scale)
        The noise-free images with ``scale`` times as many pixels along a side.
    noise : `~lenssr.imaging.NoiseModel`
        Noise of ``low``. ``noise.moments(model)`` takes images of that shape; its numbers are tensors
        (B, 1, 1).
    scenes : `LensScenes`
        Lenses and sources.
    grid : `~lenssr.grids.PixelGrid`
        Pixels of ``low``.
    scale : int
    psf : `~lenssr.imaging.PSF` or None
        The point spread function.
    oversampling : "auto" or int
        Integration over pixels, as the option of `~lenssr.SuperResolver`; 1 where the data set samples light
        at pixel centres.
    exposure : `torch.Tensor`, shape (B,)
        Of ``low``, in seconds.
    high : `torch.Tensor`, shape (B, ny * scale, nx * scale), or None
        Noisy images of the shape of ``truth``, if they were asked for.
    high_noise : `~lenssr.imaging.NoiseModel` or None
        Noise of ``high``.
    settings : dict of str to `torch.Tensor`, shape (B,)
        Numbers of the simulation that belong to no model, such as the signal-to-noise ratio.
    """

    index: torch.Tensor
    low: torch.Tensor
    low_truth: torch.Tensor
    truth: torch.Tensor
    noise: NoiseModel
    scenes: LensScenes
    grid: PixelGrid
    scale: int
    psf: PSF | None
    oversampling: "str | int"
    exposure: torch.Tensor
    high: torch.Tensor | None = None
    high_noise: NoiseModel | None = None
    settings: dict = field(default_factory=dict)

    def __len__(self):
        """Count the lenses."""
        return len(self.low)

    @property
    def device(self):
        """Where the tensors are."""
        return self.low.device

    @property
    def pixel_scale(self):
        """Side of the low pixels in arcsec."""
        return self.grid.pixel_scale

    @property
    def psf_fwhm(self):
        """FWHM of the PSF in arcsec; 0 where there is none."""
        return 0.0 if self.psf is None else self.psf.fwhm_at(self.pixel_scale)

    @property
    def variance(self):
        """True variance of ``low``, shape (B, ny, nx), from the noise-free image."""
        return self.noise.moments(self.low_truth)[2].expand(self.low.shape)

    def kernel(self, subsampling=1):
        """Kernel of the PSF for `torch.Tensor` images.

        Parameters
        ----------
        subsampling : int, optional
            Samples along a low pixel; 1 by default, ``scale`` for images of the shape of ``truth``.

        Returns
        -------
        kernel : `torch.Tensor`, odd sides, or None
            Normalised to a sum of 1; None without a PSF.
        """
        if self.psf is None:
            return None
        return torch.as_tensor(self.psf.kernel(self.pixel_scale, subsampling)).to(self.low)

    def to(self, device=None, dtype=None):
        """Return the same batch on another device or in another precision.

        Parameters
        ----------
        device : `torch.device` or str, optional
        dtype : `torch.dtype`, optional

        Returns
        -------
        batch : `LensBatch`
        """
        values = {one.name: getattr(self, one.name) for one in fields(self) if one.name != "index"}
        return replace(self, **map_tensors(lambda tensor: tensor.to(device=device, dtype=dtype), values))

    def item(self, row):
        """Return one lens as `~astropy.nddata.CCDData` and models, as resolvers take it.

        Parameters
        ----------
        row : int
            Its place in the batch.

        Returns
        -------
        item : `SimulatedLens`
            Without ``high`` and ``high_noise`` unless the batch has them.
        """
        fine = self.grid.upsample(self.scale)
        numbers = {name: getattr(self, name) for name in ("noise", "high_noise", "settings")}
        numbers = map_tensors(lambda values: float(values[row]), numbers)

        def view(values, grid, noise=None):
            exposure = None if noise is None else noise.exposure
            return None if values is None else image(values[row].double().cpu().numpy(), grid, exposure)

        return SimulatedLens(
            index=int(self.index[row]),
            low=view(self.low, self.grid, numbers["noise"]),
            high=view(self.high, fine, numbers["high_noise"]),
            low_truth=view(self.low_truth, self.grid),
            truth=view(self.truth, fine),
            lens=self.scenes.model(row),
            source=self.scenes.light(row),
            psf=self.psf,
            **numbers,
        )


@dataclass
class LensDraw:
    """Random numbers of one lens, before anything is rendered: plain numbers and float64 arrays.

    ``lens`` (P,), ``source`` (7,) and ``subhalos`` (N, 3) are as in `LensScenes`; ``source_image`` (S, S) is
    the source as an image, with pixels of ``source_step`` arcsec. ``streams`` are the generators for the
    noise of the high and of the low image; if they are one, the high image's noise is always drawn first.
    """

    lens: np.ndarray
    source: np.ndarray
    noise: PoissonNoise
    high_noise: PoissonNoise
    streams: tuple
    subhalos: np.ndarray = field(default_factory=lambda: np.zeros((0, 3)))
    source_image: "np.ndarray | None" = None
    source_step: float = 1.0
    settings: dict = field(default_factory=dict)


class LensDataset(ABC):
    """A seeded sequence of simulated lenses.

    Item i depends on the seed and on i only, not on the items made before it. Subclasses make an item in
    ``_item(index)`` and name their settings in ``_settings``.

    Parameters
    ----------
    size : int
        How many lenses there are.
    seed : int
        Which ones; not negative.
    """

    _settings = ("size", "seed")
    _stream = 0

    def __init__(self, size, seed):
        self.size = check_count(size, "size", 1)
        self.seed = check_count(seed, "seed", 0)

    def __len__(self):
        """Count the lenses."""
        return self.size

    def __getitem__(self, index):
        """Simulate one lens; negative numbers count from the end."""
        return self._item(self._checked_index(index))

    def __iter__(self):
        """Simulate one lens after the other."""
        return (self[index] for index in range(self.size))

    def __repr__(self):
        """Show a call that makes the same data set."""
        settings = ", ".join(f"{name}={getattr(self, name)!r}" for name in self._settings)
        return f"{type(self).__name__}({settings})"

    def rng(self, index, *purpose):
        """Start the random numbers of an item.

        Parameters
        ----------
        index : int
            Which item.
        *purpose : int
            Numbers that name another, independent stream of the same item; none name the first.

        Returns
        -------
        rng : `numpy.random.Generator`
        """
        return np.random.default_rng([self.seed, index, self._stream, *purpose])

    def settings(self):
        """Return the settings by name, plain values.

        Returns
        -------
        settings : dict
        """
        values = {name: getattr(self, name) for name in self._settings}
        plain = (str, int, float, type(None))
        return {
            "dataset": type(self).__name__,
            **{name: value if isinstance(value, plain) else repr(value) for name, value in values.items()},
        }

    def write(self, index, directory, *, overwrite=False):
        """Write one lens as a FITS file.

        Parameters
        ----------
        index : int
            Which lens.
        directory : str or `~pathlib.Path`
            An existing folder; the file is named by the index, ``000042.fits``.
        overwrite : bool, optional
            Whether a file of that name may be replaced; False by default.

        Returns
        -------
        path : `~pathlib.Path`

        Raises
        ------
        InputError
            If the file exists, or the folder does not.
        """
        return write_item(self[index], directory, self.settings(), overwrite=overwrite)

    @abstractmethod
    def _item(self, index):
        """Simulate the lens of a checked index."""

    def _checked_index(self, index):
        try:
            number = operator.index(index)
        except TypeError as error:
            raise InputError(f"index {index!r} is not an integer: give one, or iterate") from error
        if not -self.size <= number < self.size:
            raise IndexError(f"index {number} is out of range: the data set has {self.size} lenses")
        return number % self.size


class BatchedLenses(LensDataset):
    """A seeded sequence of simulated lenses, one by one or in batches.

    Subclasses draw the parameters of a lens in ``_draw(index)``, on the CPU, make its camera in
    ``_make_camera(number)``, and name the kind of lens in ``_lens``.

    Parameters
    ----------
    size : int
        How many lenses there are.
    seed : int
        Which ones; not negative.
    """

    # Number of lenses in a row that share a camera; None: all do.
    _block = None
    _lens: MassModel
    # The lens, if all scenes have the same one.
    _common_lens = None

    def __init__(self, size, seed):
        super().__init__(size, seed)
        self._cameras = {}

    @torch.no_grad()
    def batch(self, indices=None, *, device="cpu", dtype=torch.float32, high=False):
        """Simulate many lenses at once.

        Parameters
        ----------
        indices : slice, sequence of int or None, optional
            Which lenses; all by default. They must have one camera (see `index_batches`).
        device : `torch.device` or str, optional
            Where images are rendered, and stay; the CPU by default.
        dtype : `torch.dtype`, optional
            Of all tensors; float32 by default.
        high : bool, optional
            Whether to draw noisy high images too; False by default.

        Returns
        -------
        batch : `~lenssr.simulation.LensBatch`

        Raises
        ------
        IndexError
            If an index is out of range.
        InputError
            If there is no index, or the lenses have different cameras.

        Notes
        -----
        A lens depends on the seed and its index alone. Its parameters and the random numbers of its noise are
        drawn on the CPU, each from a stream of its own, so they are identical in every batch and on every
        device. Images are equal within the rounding of ``dtype``; where rounding moves a mean count across a
        limit, about one pixel in 10^5 in float32, the count drawn from it differs, too.
        """
        index = self._indices(indices)
        cameras = {self._camera_number(number) for number in index}
        if len(cameras) != 1:
            raise InputError(
                f"the lenses asked for are seen by {len(cameras)} cameras: a batch has one; "
                "index_batches(size) gives indices that go together"
            )
        camera = self._camera(cameras.pop())
        draws = [self._draw(number) for number in index]
        scenes = make_scenes(self._lens, draws).to(device, dtype)
        truth, low_truth = camera.render(scenes, self._common_lens)
        low, many = _noisy(draws, truth, low_truth, high)
        settings = {name: _tensor([one.settings[name] for one in draws], truth) for name in draws[0].settings}
        return LensBatch(
            index=torch.tensor(index),
            low=low,
            low_truth=low_truth,
            truth=truth,
            noise=_stacked([one.noise for one in draws], truth),
            scenes=scenes,
            grid=camera.grid,
            scale=camera.scale,
            psf=camera.psf,
            oversampling=camera.oversampling,
            exposure=_tensor([one.noise.exposure for one in draws], truth),
            high=many,
            high_noise=_stacked([one.high_noise for one in draws], truth) if high else None,
            settings=settings,
        )

    def index_batches(self, size, *, indices=None, seed=None):
        """Divide the data set into batches of lenses that one camera sees.

        Parameters
        ----------
        size : int
            Most lenses in a batch; the last batch of a camera may be smaller.
        indices : iterable of int, optional
            Which lenses; all by default.
        seed : int, optional
            Shuffle lenses, and batches; the same seed gives the same order. By default they stay in order.

        Returns
        -------
        batches : list of list of int

        Examples
        --------
        >>> from lenssr.simulation import DeepLense
        >>> DeepLense(size=5).index_batches(2)
        [[0, 1], [2, 3], [4]]
        """
        size = check_count(size, "size", 1)
        rng = None if seed is None else np.random.default_rng([check_count(seed, "seed", 0), 0])
        cameras = {}
        for number in self._indices(indices):
            cameras.setdefault(self._camera_number(number), []).append(number)
        if rng is not None:
            for numbers in cameras.values():
                rng.shuffle(numbers)
        batches = [
            numbers[start : start + size]
            for numbers in cameras.values()
            for start in range(0, len(numbers), size)
        ]
        if rng is not None:
            rng.shuffle(batches)
        return batches

    def _item(self, index):
        return self.batch([index], dtype=torch.float64, high=True).item(0)

    @abstractmethod
    def _draw(self, index):
        """Draw one lens, a `LensDraw`."""

    @abstractmethod
    def _make_camera(self, number):
        """Make one of the cameras."""

    def _camera(self, number):
        """Return one of the cameras; a few are kept with their rays."""
        if number not in self._cameras:
            while len(self._cameras) >= _CAMERAS_KEPT:
                del self._cameras[next(iter(self._cameras))]
            self._cameras[number] = self._make_camera(number)
        return self._cameras[number]

    def _camera_number(self, index):
        return 0 if self._block is None else index // self._block

    def _indices(self, indices):
        if indices is None or isinstance(indices, slice):
            indices = range(self.size)[indices or slice(None)]
        index = [self._checked_index(number) for number in indices]
        if not index:
            raise InputError("there are no indices: name at least one lens")
        return index


def check_count(value, name, least):
    """Return an integer that is at least ``least``, or raise an `InputError`."""
    try:
        number = operator.index(value)
    except TypeError as error:
        raise InputError(f"{name} = {value!r} is not an integer") from error
    if number < least:
        raise InputError(f"{name} = {number} is below {least}: give a larger one")
    return number


def check_range(values, unit, name, above=0.0):
    """Return (least, largest) as floats in ``unit``, the first above a limit, or raise an `InputError`."""
    low, high = (float(strip_unit(value, unit, name)) for value in values)
    if not above < low <= high < math.inf:
        numbers = " of positive numbers" if above == 0 else ""
        raise InputError(f"{name} = {values} is not a range{numbers}: give (least, largest)")
    return low, high


def observed(truth, grid, scale, noise, rng):
    """Both images of a simulated lens, `CCDData`, and their noise, from the truth at the high pixels.

    ``noise`` is that of the low image, a `~lenssr.imaging.PoissonNoise`; the low image's is drawn first.
    """
    fine, low_truth = grid.upsample(scale), binned(truth, scale)
    high_noise = PoissonNoise(noise.exposure, noise.background_rms / scale)
    return {
        "low": image(noise.draw(low_truth, rng), grid, noise.exposure),
        "high": image(high_noise.draw(truth, rng), fine, noise.exposure),
        "low_truth": image(low_truth, grid),
        "truth": image(truth, fine),
        "noise": noise,
        "high_noise": high_noise,
    }


def image(values, grid, exposure=None):
    """Make a `~astropy.nddata.CCDData` on a grid."""
    header = {} if exposure is None else {"EXPTIME": float(exposure)}
    return CCDData(values, unit=UNIT, wcs=grid.wcs, meta=header)


def _tensor(values, like):
    return torch.as_tensor(np.asarray(values, dtype=np.float64)).to(like)


def _stacked(noises, like):
    """Noise model of a batch of images, its numbers as tensors of the type of ``like``."""
    noise = stack_noise(noises)
    return noise.with_numbers(*(_tensor(getattr(noise, name), like) for name in noise.names))


def _noisy(draws, truth, low_truth, high):
    """Noisy low images of a batch, and high ones (None unless ``high``), from their truths."""
    fine, coarse = (images.cpu().numpy() for images in (truth, low_truth))
    low, many = np.empty_like(coarse), np.empty_like(fine) if high else None
    unseen = np.empty_like(fine[0])
    for row, one in enumerate(draws):
        first, second = one.streams
        if high or first is second:
            _draw_noisy_image(fine[row], one.high_noise, first, many[row] if high else unseen)
        _draw_noisy_image(coarse[row], one.noise, second, low[row])
    return tuple(None if images is None else torch.from_numpy(images).to(truth) for images in (low, many))


def _draw_noisy_image(truth, noise, rng, image):
    """Fill an image as `~lenssr.imaging.NoiseModel.draw` does, with fewer random numbers."""
    exposure, rms = noise.exposure, noise.background_rms
    deeplense = isinstance(noise, DeepLenseNoise)
    # One number stands for shot noise and background, as both are normal and independent.
    counts = np.multiply(truth, exposure, dtype=np.float64 if deeplense else truth.dtype)
    if deeplense:
        deviation = counts + (rms * exposure) ** 2
        np.sqrt(deviation, out=deviation)
        deviation *= rng.standard_normal(counts.shape)
        counts += deviation
    draw_poisson(np.maximum(counts, 0, out=counts), rng, out=image)
    image /= exposure
    if rms and not deeplense:
        image += rms * rng.standard_normal(image.shape)
