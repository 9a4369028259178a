"""Data sets that simulate lenses in batches, on any device."""

from abc import abstractmethod
from dataclasses import dataclass, field

import numpy as np
import torch

from lenssr.exceptions import InputError
from lenssr.imaging.noise import DeepLenseNoise, PoissonNoise, stack_noise
from lenssr.mass import MassModel
from lenssr.simulation.item import LensDataset, check_count
from lenssr.simulation.lens_batch import LensBatch, LensScenes
from lenssr.simulation.poisson import draw_poisson

__all__ = ["BatchedLenses", "LensDraw", "make_scenes"]

# Cameras that are kept with their rays.
_CAMERAS_KEPT = 8


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


def _tensor(values, like):
    return torch.as_tensor(np.asarray(values, dtype=np.float64)).to(like)


def make_scenes(lens, draws):
    """`LensScenes` of a batch in float64, from the kind of lens and a list of `LensDraw`."""
    number = max(len(one.subhalos) for one in draws)
    subhalos = source_images = steps = None
    if number:
        padded = [np.pad(one.subhalos, ((0, number - len(one.subhalos)), (0, 0))) for one in draws]
        subhalos = torch.from_numpy(np.stack(padded))
    shapes = [one.source_image.shape for one in draws if one.source_image is not None]
    if shapes:
        blank = np.zeros(shapes[0])
        source_images = np.stack([blank if one.source_image is None else one.source_image for one in draws])
        source_images, steps = (
            torch.from_numpy(source_images),
            torch.tensor([one.source_step for one in draws]),
        )
    return LensScenes(
        lens=lens,
        lens_vector=torch.from_numpy(np.stack([one.lens for one in draws])),
        source_vector=torch.from_numpy(np.stack([one.source for one in draws])),
        subhalos=subhalos,
        source_images=source_images,
        source_step=steps,
    )


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
