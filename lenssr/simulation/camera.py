"""The cameras of simulated data sets: noise-free images of lenses and sources, and the noise in them."""

import functools
import math
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from astropy.wcs import WCS
from numpy.typing import ArrayLike, NDArray
from scipy.special import gammaln, xlogy
from torch import Tensor

from lenssr.grids import PixelGrid
from lenssr.imaging import PSF, DeepLenseNoise, ImagingOperator, PoissonNoise
from lenssr.imaging.operator import Convolution, reach_of
from lenssr.imaging.quadrature import gauss_rule, midpoint_rule, rays_in_cells
from lenssr.imaging.render_scene import MARGIN_SHARE
from lenssr.mass import MassModel

# Rays traced at once, by the kind of device; on a CPU the rays of one image stay in its cache.
_RAYS_AT_ONCE = {"cpu": 1, "other": 2**24}
# Number of steepest pixels of an image that are divided, and of the parts along a side. Chosen.
_STEEP, _PARTS = 48, 5
# Step of dense rays in arcsec. A quarter of it changes images by 83 to 96 dB below their peaks.
_RAY_STEP = 0.00625
# Poisson means below _TOP are split into multiples of 1 / _STEPS, whose counts come from a table, and a rest.
# A Poisson number of mean 128 is above 255 once in 10^22, which float64 does not resolve.
_STEPS, _TOP, _COLUMNS = 8, 128, 256
_ROWS = _TOP * _STEPS

# Brightness of a scene at x and y in arcsec.
_Brightness = Callable[[Tensor, Tensor], Tensor]

# ---------------------------------------------------------------- noise-free images


class Camera:
    """A camera with square images of ``pixels`` low pixels a side, which renders scenes in batches.

    Light is integrated over the high pixels, by 2 x 2 Gauss-Legendre points, 10 x 10 points in the 48
    steepest pixels of an image; the ``psf`` is applied at their sampling, and the low image is the sum over
    high pixels. Without a PSF light is sampled at the centres of the low and of the high pixels, as in the
    first DeepLense simulations.
    """

    def __init__(self, pixels: int, pixel_scale: float, scale: int, psf: PSF | None) -> None:
        self.grid = sky_grid((pixels, pixels), float(pixel_scale))
        self.scale, self.psf = scale, psf
        # Integration over pixels, as `~lenssr.SuperResolver` takes it.
        self.oversampling: Literal["auto"] | int = 1 if psf is None else "auto"
        self._ray_grids: dict[Any, list[_RayGrid]] = {}

    def render(self, scenes: Any, common_lens: Any = None) -> tuple[Tensor, Tensor]:
        """Noise-free images in electron / s per pixel: high (B, ny scale, nx scale) and low (B, ny, nx).

        ``common_lens`` is the one lens of all scenes: rays are then traced through it once. On a CPU scenes
        are rendered one by one, elsewhere as many at once as memory allows.
        """
        like = scenes.lens_vector
        ray_grids = self._ray_grids_for(like.device, like.dtype, common_lens)
        at_once = _RAYS_AT_ONCE.get(like.device.type, _RAYS_AT_ONCE["other"])
        step = max(1, at_once // sum(len(ray_grid.x) for ray_grid in ray_grids))
        low = self.grid.shape[0]
        truth, low_truth = (_image_memory((len(scenes), n, n), like) for n in (low * self.scale, low))
        for row in range(0, len(scenes), step):
            rows = slice(row, row + step)
            part = scenes.select(rows)
            images = [ray_grid(part) for ray_grid in ray_grids]
            if len(images) == 1:
                images.append(images[0].reshape(-1, low, self.scale, low, self.scale).sum((2, 4)))
            truth[rows], low_truth[rows] = images
        return truth, low_truth

    def _ray_grids_for(self, device: torch.device, dtype: torch.dtype, common_lens: Any) -> "list[_RayGrid]":
        key = str(device), dtype, common_lens
        if key not in self._ray_grids:
            fine = self.grid.upsample(self.scale)
            options: dict[str, Any] = {"dtype": dtype, "device": device}
            if self.psf is None:
                operators = [ImagingOperator(grid, oversampling=1, **options) for grid in (fine, self.grid)]
            else:
                operators = [ImagingOperator(fine, self.psf.kernel(fine.pixel_scale), **options)]
            self._ray_grids[key] = [_RayGrid(operator, common_lens) for operator in operators]
        return self._ray_grids[key]

    def __getstate__(self) -> dict[str, Any]:
        # Rays are cheap to trace again: do not send them to workers.
        return {**self.__dict__, "_ray_grids": {}}


def _image_memory(shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Memory for images; numpy asks the system for large pages, which is several times faster."""
    if like.device.type != "cpu":
        return like.new_empty(shape)
    return torch.from_numpy(np.empty(shape, dtype=like[:0].numpy().dtype))


class _RayGrid:
    """The rays of one grid, traced through the common lens if there is one.

    Rays are ordered by their place in the pixel, then by pixel, so that sums over a pixel run along rows.
    """

    def __init__(self, operator: ImagingOperator, lens: Any) -> None:
        self._operator, self._lens = operator, lens
        number = math.prod(operator.cells)
        self.x, self.y = (ray.reshape(number, -1).T.reshape(-1) for ray in (operator.x, operator.y))
        if lens is not None:
            x, y = self.x.double()[None], self.y.double()[None]
            alpha = lens.deflection_at(x, y, lens.vector[None].to(x))
            self._beta = [(ray - shift).to(self.x) for ray, shift in zip((x, y), alpha, strict=True)]
        self._finer: Any = None
        if len(self.x) > number:
            self._pixels = [ray.reshape(-1, number).mean(0) for ray in (self.x, self.y)]
            x, y = midpoint_rule(_PARTS)
            parts = rays_in_cells(x, y, 1 / _PARTS, gauss_rule())
            self._finer = [(offset * operator.grid.pixel_scale).to(self.x) for offset in parts]

    def __call__(self, scenes: Any) -> Tensor:
        """Images (B, ny, nx) of scenes."""
        values = self._values(scenes)
        values = values.reshape(len(scenes), -1, math.prod(self._operator.cells))
        pixels = values[:, 0] if self._finer is None else self._refined(scenes, values)
        pixels = pixels.reshape(len(scenes), *self._operator.cells)
        return self._operator.convolve(pixels.mul_(self._operator.grid.pixel_area))

    def _values(self, scenes: Any) -> Tensor:
        x, y = self.x[None], self.y[None]
        if self._lens is None:
            return scenes.brightness(x, y)
        beta_x, beta_y = self._beta
        if scenes.subhalos is not None:
            alpha_x, alpha_y = scenes.substructure_deflection(x, y)
            beta_x, beta_y = beta_x - alpha_x, beta_y - alpha_y
        return scenes.source(beta_x, beta_y)

    def _refined(self, scenes: Any, values: Tensor) -> Tensor:
        """Means over pixels, with many more rays in the steepest: cusps, and light near a mass."""
        means = values.mean(1)
        number = min(_STEEP, means.shape[1])
        steep = (values.amax(1) - values.amin(1)).topk(number, dim=1, sorted=False).indices
        middles = zip(self._pixels, self._finer, strict=True)
        x, y = ((middle[steep].unsqueeze(-1) + offset).flatten(1) for middle, offset in middles)
        finer = scenes.brightness(x, y).reshape(len(scenes), number, -1).mean(-1)
        return means.scatter(1, steep, finer)


def sky_grid(shape: tuple[int, int], pixel_scale: float) -> PixelGrid:
    """Grid with a plain TAN projection, north up, east to the left, its centre at (180, 0) degrees."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.cunit = ["deg", "deg"]
    wcs.wcs.crval = [180.0, 0.0]
    wcs.wcs.crpix = [(shape[1] + 1) / 2, (shape[0] + 1) / 2]
    wcs.wcs.cd = np.diag([-1.0, 1.0]) * pixel_scale / 3600
    wcs.pixel_shape = shape[::-1]
    wcs.wcs.set()
    return PixelGrid(shape, pixel_scale, wcs)


def binned(values: NDArray, factor: int) -> NDArray:
    """Sums over blocks of ``factor`` x ``factor`` pixels."""
    ny, nx = values.shape
    return values.reshape(ny // factor, factor, nx // factor, factor).sum(axis=(1, 3))


def lensed(lens: MassModel, brightness: _Brightness) -> _Brightness:
    """Brightness function of the image plane, at positions (M,), from the one of the source plane."""

    def seen(x: Tensor, y: Tensor) -> Tensor:
        alpha_x, alpha_y = lens.deflection_at(x[None], y[None], lens.vector[None])
        return brightness(x - alpha_x[0], y - alpha_y[0])

    return seen


def render_steep(grid: PixelGrid, psf: PSF, *brightness: _Brightness) -> list[NDArray]:
    """Flux per pixel (ny, nx) of scenes, each ``brightness(x, y)``, within 0.1 % wherever it is bright."""

    def scenes(x: Tensor, y: Tensor) -> Tensor:
        return torch.stack([function(x, y) for function in brightness])

    kernel = psf.kernel(grid.pixel_scale)
    operator = ImagingOperator(grid, kernel, refine=scenes, margin=reach_of(kernel, MARGIN_SHARE))
    return [scene.numpy() for scene in operator(scenes(operator.x, operator.y))]


def render_densely(grid: PixelGrid, psf: PSF | None, brightness: _Brightness) -> Tensor:
    """Flux per pixel before the PSF, from rays 0.006" apart, on a field wider by half of the PSF's kernel."""
    rim = 0 if psf is None else max(psf.kernel(grid.pixel_scale).shape) // 2
    wide = PixelGrid(tuple(side + 2 * rim for side in grid.shape), grid.pixel_scale)
    operator = ImagingOperator(wide, oversampling=max(2, math.ceil(grid.pixel_scale / _RAY_STEP)))
    # Blocks of rays that fit into the cache.
    blocks = zip(operator.x.split(2**17), operator.y.split(2**17), strict=True)
    return operator(torch.cat([brightness(x, y) for x, y in blocks]))


def convolve_and_crop(scene: Tensor, grid: PixelGrid, psf: PSF | None) -> NDArray:
    """Image (ny, nx) of a scene of `render_densely`: convolved with a PSF, cut to the pixels of the grid."""
    if psf is not None:
        scene = Convolution(psf.kernel(grid.pixel_scale), scene.shape)(scene)
    rim = (scene.shape[0] - grid.shape[0]) // 2
    return scene[rim : rim + grid.shape[0], rim : rim + grid.shape[1]].numpy()


# ---------------------------------------------------------------- noise


def draw_noise(draws: Any, truth: Tensor, low_truth: Tensor, high: bool) -> tuple[Tensor, Tensor | None]:
    """Noisy low images of a batch, and high ones (None unless ``high``), from their truths.

    ``draws`` are `~lenssr.simulation.scenes.LensDraw`.
    """
    fine, coarse = (images.cpu().numpy() for images in (truth, low_truth))
    # One image serves for all high ones that nobody asked for.
    low, many = np.empty_like(coarse), np.empty_like(fine if high else fine[:1])
    for row, one in enumerate(draws):
        first, second = one.streams
        if high or first is second:
            _fill_noisy(many[row if high else 0], fine[row], one.high_noise, first)
        _fill_noisy(low[row], coarse[row], one.noise, second)
    return torch.from_numpy(low).to(truth), torch.from_numpy(many).to(truth) if high else None


def _fill_noisy(image: NDArray, truth: NDArray, noise: PoissonNoise, rng: np.random.Generator) -> None:
    """Fill an image as `~lenssr.imaging.NoiseModel.draw` does, with fewer random numbers."""
    exposure, rms = noise.exposure, noise.background_rms
    deeplense = isinstance(noise, DeepLenseNoise)
    counts = np.multiply(truth, exposure, dtype=np.float64 if deeplense else truth.dtype)
    if deeplense:
        # One number stands for shot noise and background, as both are normal and independent.
        deviation = np.sqrt(counts + (rms * exposure) ** 2)
        counts += deviation * rng.standard_normal(counts.shape)
    draw_poisson(np.maximum(counts, 0, out=counts), rng, out=image)
    image /= exposure
    if rms and not deeplense:
        image += rms * rng.standard_normal(image.shape)


@functools.cache
def _tables() -> NDArray[np.uint32]:
    """Alias tables of Poisson distributions, shape (_ROWS * _COLUMNS,), uint32.

    Column c of a row stands for the number c with the probability in the upper 24 bits, else for the number
    in the lower 8.
    """
    mean = np.arange(_ROWS)[:, None] / _STEPS
    number = np.arange(_COLUMNS)
    height = np.exp(xlogy(number, mean) - mean - gammaln(number + 1))
    height *= _COLUMNS / height.sum(axis=1, keepdims=True)
    alias = np.broadcast_to(number, height.shape).copy()
    share = np.ones_like(height)
    done = np.zeros(height.shape, dtype=bool)
    rows = np.arange(_ROWS)
    for _ in range(_COLUMNS - 1):
        # The highest column fills up the lowest, which is then complete (all rows at once).
        low = np.where(done, np.inf, height).argmin(axis=1)
        high = np.where(done, -np.inf, height).argmax(axis=1)
        share[rows, low] = np.minimum(height[rows, low], 1.0)
        alias[rows, low] = high
        height[rows, high] -= 1 - share[rows, low]
        done[rows, low] = True
    # A full column must never hand over, not even to round-off.
    alias = np.where(share >= 1, number, alias)
    upper = np.minimum(np.rint(share * 2.0**24), 2.0**24 - 1).astype(np.uint32)
    return (upper << np.uint32(8) | alias.astype(np.uint32)).ravel()


def draw_poisson(mean: ArrayLike, rng: np.random.Generator, out: NDArray | None = None) -> NDArray:
    """Poisson numbers of the shape of ``mean``, written to ``out`` if given (contiguous), else float64.

    The sum of Poisson numbers is a Poisson number of the sum of their means. A mean below 128 is therefore
    split into a multiple of 1/8, drawn from an alias table (Walker 1977, ACM Transactions on Mathematical
    Software 3, 253), and a rest below 1/8, drawn as a Poisson process by thinning (Lewis and Shedler 1979,
    Naval Research Logistics Quarterly 26, 403). Larger means go to numpy. Probabilities come from 32 random
    bits, exact within 1e-9.
    """
    mean = np.asarray(mean)
    numbers = np.empty(mean.shape) if out is None else out
    flat = numbers.reshape(-1)
    steps = np.multiply(mean, _STEPS, dtype=None if mean.dtype.kind == "f" else np.float64).ravel()
    large = None
    if steps.size and steps.max() >= _ROWS:
        large = np.flatnonzero(steps >= _ROWS)
        large_mean = steps[large].astype(np.float64) / _STEPS
        steps[large] = 0
    row = steps.astype(np.int32)

    # Two numbers out of each 64 bits: half the time of asking for 32 at once.
    bits = rng.bit_generator.random_raw((row.size + 1) // 2).view(np.uint32)[: row.size]
    place = row * np.int32(_COLUMNS)
    place |= bits.view(np.int32) & (_COLUMNS - 1)
    entry = _tables().take(place)
    # The lower 8 bits of the smaller one: the column if the random bits are below the entry, else its alias.
    flat[:] = np.minimum(entry, bits, out=entry).astype(np.uint8)

    # Points spread evenly over pixels (the integer part) and heights (the fraction).
    points = rng.random(rng.poisson(row.size / _STEPS))
    points *= row.size
    pixel = points.astype(np.int32)
    points -= pixel
    # numpy is fast where both are of one type
    np.add.at(flat, pixel.compress(points < steps.take(pixel) - row.take(pixel)), flat.dtype.type(1))
    if large is not None:
        flat[large] = rng.poisson(large_mean)
    return numbers
