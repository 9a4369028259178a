"""Data sets that simulate many lenses at once, on any device."""

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

__all__ = ["BatchedLenses", "Drawn", "make_scenes"]

_CAMERAS_KEPT = 8


@dataclass
class Drawn:
    """What is drawn for one lens, before anything is rendered; plain numbers and float64 arrays.

    Attributes
    ----------
    lens : array, shape (P,)
    source : array, shape (7,)
        As in `~lenssr.simulation.LensScenes`.
    noise, high_noise : `~lenssr.imaging.PoissonNoise`
        Of the low and of the high image; their numbers are in electron / s and seconds.
    streams : tuple of `numpy.random.Generator`
        For the noise of the high and of the low image, in this order. If they are one, the high image's noise
        is drawn first, always.
    subhalos : array, shape (N, 3)
    picture : array, shape (S, S), or None
    picture_step : float
    settings : dict of str to float
    """

    lens: np.ndarray
    source: np.ndarray
    noise: PoissonNoise
    high_noise: PoissonNoise
    streams: tuple
    subhalos: np.ndarray = field(default_factory=lambda: np.zeros((0, 3)))
    picture: "np.ndarray | None" = None
    picture_step: float = 1.0
    settings: dict = field(default_factory=dict)


class BatchedLenses(LensDataset):
    """A seeded sequence of simulated lenses, which come one by one or many at once.

    Subclasses draw what a lens is in ``_draw(index)``, on the processor, make the
    `~lenssr.simulation.camera.Camera` that sees it in ``_make_camera(number)``, and name the kind of lens in
    ``_lens``.

    Parameters
    ----------
    size : int
        How many lenses there are.
    seed : int
        Which ones; not negative.
    """

    # Lenses with equal index // _block share a camera; None: all do.
    _block = None
    _lens: MassModel
    # The lens itself, where it is always the same.
    _traced = None

    def __init__(self, size, seed):
        super().__init__(size, seed)
        self._cameras = {}

    @torch.no_grad()
    def batch(self, indices=None, *, device="cpu", dtype=torch.float32, high=False):
        """Simulate many lenses at once.

        Parameters
        ----------
        indices : slice, sequence of int or None, optional
            Which lenses; all by default. They must be of one camera (see `index_batches`).
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
            If there is none, or lenses are seen by different cameras.

        Notes
        -----
        What a lens is depends on the seed and its index alone. Its numbers and the random numbers of its
        noise are drawn on the processor, each from a stream of its own, so they are the same to the last bit
        in every batch, on every device. Images are the same within the rounding of ``dtype``; where a mean
        count is rounded to another side of a limit, about one pixel in 10^5 in float32, the count that is
        drawn from it is another one too.
        """
        index = self._indices(indices)
        cameras = {self._camera_number(number) for number in index}
        if len(cameras) != 1:
            raise InputError(
                f"the lenses asked for are seen by {len(cameras)} cameras: a batch is of one; "
                "index_batches(size) gives indices that go together"
            )
        camera = self._camera(cameras.pop())
        drawn = [self._draw(number) for number in index]
        scenes = make_scenes(self._lens, drawn).to(device, dtype)
        truth, low_truth = camera.render(scenes, self._traced)
        low, many = _noisy(drawn, truth, low_truth, high)
        settings = {name: _tensor([one.settings[name] for one in drawn], truth) for name in drawn[0].settings}
        return LensBatch(
            index=torch.tensor(index),
            low=low,
            low_truth=low_truth,
            truth=truth,
            noise=_stacked([one.noise for one in drawn], truth),
            scenes=scenes,
            grid=camera.grid,
            scale=camera.scale,
            psf=camera.psf,
            oversampling=camera.oversampling,
            exposure=_tensor([one.noise.exposure for one in drawn], truth),
            high=many,
            high_noise=_stacked([one.high_noise for one in drawn], truth) if high else None,
            settings=settings,
        )

    def index_batches(self, size, *, indices=None, seed=None):
        """Divide the data set into batches of lenses that one camera sees.

        Parameters
        ----------
        size : int
            How many lenses a batch has at most; batches come out smaller where a camera's lenses end.
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
        """Draw one lens, a `Drawn`."""

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


def make_scenes(lens, drawn):
    """Scenes of a batch in float64.

    Parameters
    ----------
    lens : `~lenssr.mass.MassModel` or `~lenssr.mass.MassSystem`
        The kind of lens.
    drawn : list of `Drawn`

    Returns
    -------
    scenes : `~lenssr.simulation.LensScenes`
    """
    number = max(len(one.subhalos) for one in drawn)
    subhalos = pictures = steps = None
    if number:
        padded = [np.pad(one.subhalos, ((0, number - len(one.subhalos)), (0, 0))) for one in drawn]
        subhalos = torch.from_numpy(np.stack(padded))
    shapes = [one.picture.shape for one in drawn if one.picture is not None]
    if shapes:
        blank = np.zeros(shapes[0])
        pictures = np.stack([blank if one.picture is None else one.picture for one in drawn])
        pictures, steps = torch.from_numpy(pictures), torch.tensor([one.picture_step for one in drawn])
    return LensScenes(
        lens=lens,
        lens_vector=torch.from_numpy(np.stack([one.lens for one in drawn])),
        source_vector=torch.from_numpy(np.stack([one.source for one in drawn])),
        subhalos=subhalos,
        pictures=pictures,
        picture_step=steps,
    )


def _stacked(noises, like):
    """Noise of a batch of images, its numbers tensors like another one."""
    noise = stack_noise(noises)
    return noise.with_numbers(*(_tensor(getattr(noise, name), like) for name in noise.names))


def _noisy(drawn, truth, low_truth, high):
    """Draw the low images of a batch, and the high ones, or None, of their truths; on its device."""
    fine, coarse = (images.cpu().numpy() for images in (truth, low_truth))
    low, many = np.empty_like(coarse), np.empty_like(fine) if high else None
    unseen = np.empty_like(fine[0])
    for row, one in enumerate(drawn):
        first, second = one.streams
        if high or first is second:
            _draw_image(fine[row], one.high_noise, first, many[row] if high else unseen)
        _draw_image(coarse[row], one.noise, second, low[row])
    return tuple(None if images is None else torch.from_numpy(images).to(truth) for images in (low, many))


def _draw_image(truth, noise, rng, image):
    """Fill an image as `~lenssr.imaging.NoiseModel.draw` does, with fewer random numbers, faster."""
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
