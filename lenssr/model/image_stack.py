"""Images of equal shape on one grid behind one telescope, ready to be fitted together."""

import copy
from collections.abc import Iterator
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from lenssr.grids import PixelGrid, rows_of
from lenssr.imaging.noise import GaussianNoise, NoiseModel, stack_noise
from lenssr.imaging.operator import ImagingOperator, margin_around, sharpened

# Within this share of a pixel around a centre of light, derivatives with respect to position cancel.
CUSP_PIXELS = 0.1
# Defaults of the options of the operator of a stack.
OPTIONS = {"oversampling": "auto", "kernel_subsampling": 1, "includes_pixel": False}
OPTIONS |= {"device": "cpu", "dtype": torch.float64}


# Values of derivatives at rays above which strips of an image are computed one by one; those of a strip,
# about, its fewest rows, and values of it that are computed at once.
MOST_VALUES, STRIP_VALUES, FEWEST_ROWS, PART_VALUES = 2**23, 2**22, 8, 2**21


def bin_kernel(kernel: NDArray, factor: int) -> NDArray:
    """The kernel (odd sides) for pixels ``factor`` times larger, of light that is flat within them."""

    def weights(size):
        offset = np.arange(size) - size // 2
        reach = -(-(size // 2) // factor)
        coarse = np.arange(-reach, reach + 1)
        return np.clip(1 - np.abs(offset[None, :] / factor - coarse[:, None]), 0, None)

    return weights(kernel.shape[0]) @ kernel @ weights(kernel.shape[1]).T


class ImageStack:
    """B images with their noise, and the operator that turns ray brightness into their pixels.

    ``data`` and ``valid`` (B, ny, nx) are tensors or arrays; ``noise`` is one model for each image, or a
    stack of all. ``kernel`` is the PSF at the sampling of ``grid`` over ``kernel_subsampling``; the operator
    refines its rays where ``refine`` is steep, and takes the other ``options``. Pixels are flux, or
    brightness per solid angle if ``surface_brightness``. Large images are computed strip after strip: their
    rays would take gigabytes together.

    ``shows_ghost`` says whether the data were sampled at points that include pixel centres, by default as
    ``oversampling`` does. At r = 0 the deflection of a singular lens is taken as 0, so such a pixel shows the
    source un-lensed; while the lens moves in a fit it would appear and vanish.
    """

    def __init__(
        self,
        data,
        valid,
        noise,
        grid,
        kernel,
        *,
        surface_brightness=False,
        refine=None,
        shows_ghost=None,
        **options,
    ):
        self.grid, self.kernel, self.options = grid, kernel, {**OPTIONS, **options}
        oversampling, device, dtype = (self.options[name] for name in ("oversampling", "device", "dtype"))
        self.noise = (noise if isinstance(noise, NoiseModel) else stack_noise(noise)).on(device)
        if shows_ghost is None:
            shows_ghost = oversampling != "auto" and oversampling % 2 == 1
        self.surface_brightness, self.shows_ghost = surface_brightness, shows_ghost
        self._same = {"surface_brightness": surface_brightness, "shows_ghost": shows_ghost}
        self._refine = refine
        # Only where pixels are integrated; a point sample has the derivative that it has.
        self.cusp = CUSP_PIXELS * grid.pixel_scale if oversampling == "auto" else 0.0
        self.factor = 1 / grid.pixel_area if surface_brightness else 1.0
        self.data = torch.as_tensor(data).to(device=device, dtype=dtype).flatten(1)
        self.valid = torch.as_tensor(valid).to(device=device).flatten(1)
        self.gaussian = isinstance(self.noise, GaussianNoise)

    def __len__(self):
        return len(self.data)

    @property
    def device(self):
        """Where the tensors live."""
        return self.data.device

    @cached_property
    def operator(self):
        """The `~lenssr.imaging.ImagingOperator` of the whole image."""
        return self._operator(self.grid)

    def _operator(self, grid):
        return ImagingOperator(grid, self.kernel, refine=self._refine, **self.options)

    def _parts(self, values):
        """Parts of the images: one, or an iterator of strips where ``values`` at each ray would be too many.

        Each is the slice of its pixels, an operator, and the slice of rows of what that gives.
        """
        k, (ny, nx) = self.options["kernel_subsampling"], self.grid.shape
        points = 2 * k if self.options["oversampling"] == "auto" else self.options["oversampling"]
        # Light of all cells within the kernel reaches a row; the margin of an operator holds most of them.
        reach = 0 if self.kernel is None else -(-(self.kernel.shape[0] // 2) // k)
        margin = 0 if self.kernel is None else margin_around(self.kernel, k)
        rows = max(int(STRIP_VALUES / (points**2 * values * nx)), 2 * reach, FEWEST_ROWS)
        if ny * nx * points**2 * values <= MOST_VALUES or rows >= ny:
            return [(slice(None), self.operator, slice(None))]
        return self._strips(rows, max(reach - margin, 0))

    def _strips(self, rows, beyond) -> Iterator[tuple[slice, ImagingOperator, slice]]:
        ny, nx = self.grid.shape
        for first in range(0, ny, rows):
            last = min(first + rows, ny)
            low, high = max(first - beyond, 0), min(last + beyond, ny)
            operator = self._operator(rows_of(self.grid, low, high))
            yield slice(first * nx, last * nx), operator, slice(first - low, last - low)

    def single(self):
        """The same images behind the same operator in single precision."""
        twin = copy.copy(self)
        vars(twin).pop("_sparser", None)
        twin.options, twin.data = {**self.options, "dtype": torch.float32}, self.data.float()
        if "operator" in vars(self):
            twin.operator = self.operator.to(torch.float32)
        return twin

    def select(self, indices, *, refine=None):
        """The images with these numbers, behind an operator refined where ``refine`` is steep."""
        if refine is None and self._refine is None and list(indices) == list(range(len(self))):
            return self
        return self._twin(torch.as_tensor(indices, device=self.device), self.kernel, refine=refine)

    def sparser(self):
        """The same images with one ray in each cell, where cells are finer than pixels; else themselves.

        The kernel makes up to second order for the light that a cell then misses. Behind PSFs of 1.7 and 2
        pixels, chi2 changes by less than 0.5: enough to compare sources and to find a lens.
        """
        return self if self._sparser is None else self._sparser

    @cached_property
    def _sparser(self):
        """The stack of `sparser`, made once; None where that is this one."""
        subsampling = self.options["kernel_subsampling"]
        if subsampling == 1 or self.options["oversampling"] != "auto" or self._refine is not None:
            return None
        kernel = self.kernel
        if not self.options["includes_pixel"]:
            kernel = sharpened(torch.as_tensor(kernel), -1 / 12).numpy()
        return self._twin(slice(None), kernel, oversampling=subsampling)

    def _twin(self, index, kernel, **options):
        shape = (-1, *self.grid.shape)
        planes = self.data[index].reshape(shape), self.valid[index].reshape(shape), self.noise.select(index)
        return ImageStack(*planes, self.grid, kernel, **{**self._same, **self.options, **options})

    def moments(self, model, index=None, pixels=slice(None)):
        """Expected data (b, n) of images ``index``, by default all, d/d(model), and the variance.

        ``pixels``, whole rows, are those of the model, by default all.
        """
        noise, nx = self.noise if index is None else self.noise.select(index), self.grid.shape[1]
        if pixels != slice(None):
            noise = noise.rows(slice(pixels.start // nx, pixels.stop // nx))
        images = model.reshape(len(model), -1, nx)
        return tuple(part.to(model).expand_as(images).flatten(1) for part in noise.moments(images))

    def weights(self, model):
        """Inverse variance (B, N) of the data if ``model`` were the truth; 0 on masked pixels."""
        variance = self.moments(model)[2]
        return torch.where(self.valid, 1 / variance.clamp_min(torch.finfo(variance.dtype).tiny), 0)

    def first_guess(self):
        """The data (B, N) averaged over 3x3 valid pixels, a model good enough to weigh the first fit."""
        valid, pool = self.valid.to(self.data), torch.nn.AvgPool2d(3, stride=1, padding=1, divisor_override=1)
        planes = torch.stack([self.data * valid, valid], dim=1).reshape(len(self), 2, *self.grid.shape)
        total, number = pool(planes).flatten(2).unbind(1)
        return total / number.clamp_min(1)

    @cached_property
    def first_weights(self):
        """The weights of the first guess, which several starts ask for."""
        return self.weights(self.first_guess())

    def image(self, scene, physical, *, positions=None, roles=("source", "lens_light", "sky")):
        """Model images (b, N) without noise, in the unit of the data."""
        parts = []
        for pixels, operator, rows in self._parts(4 * len(physical)):
            here = positions if pixels == slice(None) else None
            light = scene.brightness(operator.x, operator.y, physical, roles=roles, positions=here)
            parts.append(operator(light)[..., rows, :].flatten(-2) * self.factor)
        image = parts[0] if len(parts) == 1 else torch.cat(parts, -1)
        if scene["sky"] is not None and "sky" in roles:
            image = image + physical[:, scene["sky"].slice].to(image)
        return image

    def expected(self, scene, physical):
        """Expected data (B, N) of all images: the model as the noise shifts it."""
        image = self.image(scene, physical)
        return image if self.gaussian else self.moments(image)[0]

    def model(self, scene, template):
        """The function that `levenberg_marquardt` fits: expected data and Jacobian from fit vectors."""
        positions = None
        if not scene.lens_moves and isinstance(self._parts(4 * len(template)), list):
            positions = scene.source_positions(self.operator.x, self.operator.y, template)

        def cells(operator, physical, index, whole):
            """Flux in cells, and its derivatives; those of a strip from some rays at a time."""
            here = None
            if whole and positions is not None:
                here = tuple(axis[index] for axis in positions)

            def light(rays):
                where = operator.x[rays], operator.y[rays]
                return scene.brightness_jacobian(*where, physical, positions=here, cusp=self.cusp)

            if whole:
                return (operator.collect(one) for one in light(slice(None)))
            return operator.collect_in_parts(light, PART_VALUES // physical.numel())

        def part(pixels, operator, rows, physical, index):
            found = cells(operator, physical, index, pixels == slice(None))
            image, jacobian = (operator.convolve(one)[..., rows, :].flatten(-2) for one in found)
            image = image * self.factor
            if self.factor != 1:
                jacobian.mul_(self.factor)
            if scene["sky"] is not None:
                image = image + physical[:, scene["sky"].slice].to(image)
                jacobian = torch.cat([jacobian, torch.ones_like(image).unsqueeze(1)], dim=1)
            if not self.gaussian:
                mean, slope, _ = self.moments(image, index, pixels)
                image, jacobian = mean, jacobian.mul_(slope.unsqueeze(1))
            return image, jacobian

        def evaluate(fit, index):
            physical = scene.to_physical(fit, template[index])
            parts = self._parts(fit.numel())
            if isinstance(parts, list):
                return part(*parts[0], physical, index)
            return ((one[0], *part(*one, physical, index)) for one in parts)

        return evaluate

    def binned(self, factor):
        """The stack with ``factor`` x ``factor`` pixels summed; masked ones take the mean of their block."""
        if factor == 1:
            return self
        ny, nx = (side // factor for side in self.grid.shape)
        start = [(side - factor * count) // 2 for side, count in zip(self.grid.shape, (ny, nx), strict=True)]

        def blocks(image):
            image = image.reshape(-1, *self.grid.shape)
            image = image[:, start[0] : start[0] + ny * factor, start[1] : start[1] + nx * factor]
            return image.reshape(-1, ny, factor, nx, factor).sum((2, 4))

        weight = self.first_weights
        variance = torch.where(self.valid, 1 / weight.clamp_min(torch.finfo(weight.dtype).tiny), 0)
        number = blocks(self.valid.to(self.data))
        fill = factor**2 / number.clamp_min(1) / (factor**2 if self.surface_brightness else 1)
        data = blocks(torch.where(self.valid, self.data, 0)) * fill
        error = blocks(variance).sqrt() * fill
        valid = number >= factor**2 / 2
        noise = GaussianNoise(1.0).with_numbers(torch.where(valid, error, 1.0))
        grid = PixelGrid((ny, nx), matrix=self.grid.matrix * factor, origin=self.grid.origin)
        times = factor * self.options["kernel_subsampling"]
        kernel = None if self.kernel is None else bin_kernel(self.kernel, times)
        coarse = {"oversampling": 2, "kernel_subsampling": 1, "includes_pixel": False}
        options = {**self._same, **self.options, **coarse}
        return ImageStack(torch.where(valid, data, 0), valid, noise, grid, kernel, **options)
