"""The forward model: rays in pixels, flux in pixels, convolution with the PSF."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cached_property
from typing import Any, Literal

import numpy as np
import scipy.fft
import scipy.sparse as sparse
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from lenssr.exceptions import InputError
from lenssr.grids import PixelGrid, transformed
from lenssr.imaging import quadrature
from lenssr.imaging.quadrature import Brightness, KnownLights, Rule
from lenssr.units import positive_integer

__all__ = ["Convolution", "ImagingOperator", "margin_around", "reach_of"]

# The margin around an image holds the first share of a PSF, but is at most 1.25 times as wide as what holds
# the second: pixels at the edge lack 0.1 % to 0.7 % of their light, not 25 % (see benchmarks/margin.py).
MARGIN_SHARE, MARGIN_CORES, CORE_SHARE = 0.99, 1.25, 0.95
# Share of a PSF in the core that is enough for the curvature of chi2, and its largest number of samples.
CORE_LIGHT, CORE_SAMPLES = 0.99, 600

Device = torch.device | str
Oversampling = int | Literal["auto"]


class Convolution:
    """Convolution of images (ny, nx) with one kernel, zero outside.

    The kernel (ky, kx) has odd sides, its centre in the middle, is not normalised, and may be larger than the
    images. A frame of ``margin`` pixels is cut from the convolved images; `transposed` adds it again.
    """

    def __init__(
        self,
        kernel: ArrayLike | Tensor,
        shape: tuple[int, ...],
        *,
        margin: int = 0,
        dtype: torch.dtype = torch.float64,
        device: Device = "cpu",
    ) -> None:
        kernel = torch.as_tensor(kernel).to(device, torch.float64)
        if kernel.ndim != 2 or any(side % 2 == 0 for side in kernel.shape):
            raise InputError(f"kernel of shape {tuple(kernel.shape)}: give two odd sides, with a middle")
        if not bool(torch.isfinite(kernel).all()):
            raise InputError("the kernel holds values that are not finite: replace them, for example by 0")
        self.shape, self._margin = tuple(shape), margin
        # Cut the kernel to shifts within the image that end inside the frame.
        sides = zip(kernel.shape, shape, strict=True)
        half_y, half_x = (min(side // 2, size - 1 - margin) for side, size in sides)
        cut_y, cut_x = kernel.shape[0] // 2 - half_y, kernel.shape[1] // 2 - half_x
        self.kernel = kernel[cut_y : kernel.shape[0] - cut_y, cut_x : kernel.shape[1] - cut_x]
        # Light may wrap around into the frame, which is cut, and into as much padding as that lacks.
        sizes = (shape[0] + max(0, half_y - margin), shape[1] + max(0, half_x - margin))
        self._size = [scipy.fft.next_fast_len(size, real=True) for size in sizes]
        padded = kernel.new_zeros(self._size)
        padded[: self.kernel.shape[0], : self.kernel.shape[1]] = self.kernel
        self._transform = torch.fft.rfft2(padded.roll((-half_y, -half_x), (0, 1)))
        self._transform = self._transform.to(torch.complex64 if dtype == torch.float32 else torch.complex128)

    def __call__(self, image: Tensor) -> Tensor:
        """Convolve images (..., ny, nx) to (..., ny - 2 margin, nx - 2 margin)."""
        return without_frame(self._filter(image, self._transform), self._margin)

    def transposed(self, image: Tensor) -> Tensor:
        """Transpose of the convolution, from images (..., ny - 2 margin, nx - 2 margin) to (..., ny, nx)."""
        return self._filter(torch.nn.functional.pad(image, [self._margin] * 4), self._transform.conj())

    def _filter(self, image: Tensor, transform: Tensor) -> Tensor:
        if image.numel() == 0:  # MKL fails for no images, such as derivatives by no parameters.
            return image
        product = torch.fft.rfft2(image, s=self._size) * transform
        return torch.fft.irfft2(product, s=self._size)[..., : self.shape[0], : self.shape[1]]


def without_frame(image: Tensor, margin: int) -> Tensor:
    """Images (..., ny, nx) without their ``margin`` outer pixels on each side."""
    return image[..., margin : image.shape[-2] - margin, margin : image.shape[-1] - margin]


def reach_of(kernel: ArrayLike | Tensor, share: float, subsampling: int = 1) -> int:
    """Half the side, in whole pixels, of the square around the middle that holds a share of a kernel.

    The kernel (ky, kx) has ``subsampling`` samples along a pixel.
    """
    kernel = np.asarray(kernel.cpu() if isinstance(kernel, Tensor) else kernel)
    half = max(kernel.shape) // 2
    rows, columns = (np.abs(np.arange(size) - size // 2) for size in kernel.shape)
    distance = np.maximum(rows[:, None], columns)
    inside = np.array([kernel[distance <= k].sum() for k in range(half + 1)])
    return -(-int(np.argmax(inside > share * inside[-1])) // subsampling)


def margin_around(kernel: ArrayLike | Tensor, subsampling: int = 1) -> int:
    """Pixels on each side of an image from which a kernel scatters light into it.

    They hold 99 % of the kernel, but are at most 1.25 times those that hold 95 %, the ratio of a Gaussian:
    the wings of a kernel would take much time and scatter little light.
    """
    most, least = (reach_of(kernel, share, subsampling) for share in (MARGIN_SHARE, CORE_SHARE))
    return min(most, round(MARGIN_CORES * least))


class ImagingOperator:
    """The linear map from the brightness at rays to the flux in pixels.

    Its rays are at ``x``, ``y``; given the brightness there it integrates over the pixels and convolves. It
    works on any number of images of one shape, along leading dimensions. Behind a PSF the rays also cover a
    ``margin`` around the pixels, because the PSF scatters light from beyond their edge in.

    Parameters
    ----------
    grid : `~lenssr.grids.PixelGrid`
        The pixels.
    kernel : array or `torch.Tensor`, shape (ky, kx), optional
        Point-spread function with odd sides, sampled at the pixel scale over ``kernel_subsampling``, not
        normalised. Default: none.
    oversampling : "auto" or int, optional
        An integer s puts s x s rays at the centres of equal parts of each pixel (1: pixel centres).
        "auto" (the default) takes 2 x 2 Gauss-Legendre points in each cell, and more where ``refine`` says.
    kernel_subsampling : int, optional
        Cells along a pixel on which light is collected and convolved, before cells are summed to pixels.
        Must divide an integer ``oversampling``. Default 1: cells are pixels.
    includes_pixel : bool, optional
        Whether the kernel already holds the integration over the pixel; see Notes. Default False.
    refine : callable, optional
        ``brightness(x, y)`` of the image plane (lens light and lensed source), from tensors (M,) to (M,) or
        (..., M). Cells are divided where it is steep, until each pixel above 1 % of the brightest is
        right within 3e-4. The rays are fixed: build a new operator when the light moves. Light between the
        first rays, of a source much smaller than a cell, is found if this is a ``KnownLights``.
    tolerance : float, optional
        Relative error aimed at by ``refine``. Default 3e-4.
    margin : int, optional
        Pixels on each side around the image whose light is modelled too, 0 without a kernel. By default they
        hold 99 % of the PSF, or at least 95 % if it has wide wings.
    dtype : `torch.dtype`, optional
        Default float64.
    device : `torch.device` or str, optional
        Default "cpu".

    Attributes
    ----------
    x, y : `torch.Tensor`, shape (R,)
        Positions of the rays in arcsec.
    shape : tuple of int
        ``(ny, nx)`` of the images.
    margin : int
        Pixels on each side around the image whose light is modelled too.
    cells : tuple of int
        Shape of the grid of cells on which light is collected, ``((ny + 2 margin) k, (nx + 2 margin) k)`` for
        ``k = kernel_subsampling``. The first cell of pixel (row, column) is ``((row + margin) k, (column +
        margin) k)``. Without ``refine`` all have equally many rays, one cell after the other.

    Raises
    ------
    InputError
        If options do not fit together; the message names them.

    Notes
    -----
    With ``includes_pixel`` the flux in a pixel is (pixel area) times the brightness convolved with the
    kernel, *at the pixel centre*. The convolution is a sum over cells, and the cell at the pixel centre is
    picked, so ``kernel_subsampling`` must be odd. With one ray at the centre of each cell this is exactly the
    sum over point samples. Several rays in a cell give its mean instead, which keeps the flux of a cusp but
    blurs by the variance v of the ray positions; the kernel is then sharpened by ``-v/2`` times its discrete
    Laplacian, which takes the blur out to second order.

    Examples
    --------
    >>> from lenssr.grids import PixelGrid
    >>> from lenssr.imaging.operator import ImagingOperator
    >>> operator = ImagingOperator(PixelGrid((2, 3), 0.1), oversampling=2)
    >>> operator.x.shape
    torch.Size([24])
    >>> operator(operator.x**0)
    tensor([[0.0100, 0.0100, 0.0100],
            [0.0100, 0.0100, 0.0100]], dtype=torch.float64)
    """

    def __init__(
        self,
        grid: PixelGrid,
        kernel: ArrayLike | Tensor | None = None,
        *,
        oversampling: Oversampling = "auto",
        kernel_subsampling: int = 1,
        includes_pixel: bool = False,
        refine: Brightness | None = None,
        tolerance: float = 3e-4,
        margin: int | None = None,
        dtype: torch.dtype = torch.float64,
        device: Device = "cpu",
    ) -> None:
        _check(kernel, oversampling, kernel_subsampling, includes_pixel, refine)
        self.grid, self.shape = grid, grid.shape
        self._subsampling = k = kernel_subsampling
        # Weights of the cells of a pixel; a cell has 1 / k^2 of its area.
        self._pattern = torch.full((k, k), 0.0 if includes_pixel else 1.0, dtype=dtype, device=device)
        if includes_pixel:
            self._pattern[k // 2, k // 2] = k**2
        if kernel is None:
            self.margin = 0
        else:
            self.margin = margin_around(kernel, k) if margin is None else margin
        cells = grid.padded(self.margin).upsample(k)
        self.cells, self._area = cells.shape, cells.pixel_area
        if oversampling == "auto":
            rule, variance = quadrature.gauss_rule(device=device), 1 / 12
        else:
            parts = oversampling // k
            rule, variance = quadrature.midpoint_rule(parts, device=device), (1 - 1 / parts**2) / 12
        self._number = len(rule[0])
        self._place_rays(cells, rule, refine, tolerance)
        self._kernel = None if kernel is None else torch.as_tensor(kernel).to(device, torch.float64)
        if self._kernel is not None and includes_pixel and variance:
            self._kernel = sharpened(self._kernel, variance)
        self._cast(dtype, device)

    def _cast(self, dtype: torch.dtype, device: Device) -> None:
        """Bring rays, weights and the kernel to a precision and a device."""
        for name in ("x", "y", "_weight", "_pattern"):
            setattr(self, name, getattr(self, name).to(device, dtype))
        for name in ("_plain", "_divided", "_index"):
            setattr(self, name, getattr(self, name).to(device))
        self._convolution: Convolution | None = None
        if self._kernel is not None:
            options: Any = {"margin": self.margin * self._subsampling, "dtype": dtype, "device": device}
            self._convolution = Convolution(self._kernel, self.cells, **options)

    def _place_rays(self, cells: PixelGrid, rule: Rule, refine: Brightness | None, tolerance: float) -> None:
        """Put rays into cells: first those of undivided cells, cell by cell, then those of divided ones."""
        x, y = (torch.as_tensor(centre, device=rule[0].device).reshape(-1) for centre in (cells.x, cells.y))
        side, unit_matrix = cells.pixel_scale, cells.unit_matrix
        extra_x = extra_y = self._weight = x[:0]
        self._divided = self._index = extra_x.long()
        if refine is not None:
            compact = refine.compact(side) if isinstance(refine, KnownLights) else None
            self._divided, extra_x, extra_y, self._weight, self._index = quadrature.adaptive_rays(
                refine, x, y, side, unit_matrix=unit_matrix, compact=compact, tolerance=tolerance
            )
        plain = torch.ones_like(x, dtype=torch.bool).index_fill(0, self._divided, False)
        self._plain = plain.nonzero().squeeze(1)
        base_x, base_y = quadrature.rays_in_cells(x[plain], y[plain], side, transformed(unit_matrix, *rule))
        self.x, self.y = torch.cat([base_x, extra_x]), torch.cat([base_y, extra_y])

    def __repr__(self) -> str:
        blur = self._convolution
        kernel = "no kernel" if blur is None else f"kernel {tuple(blur.kernel.shape)}"
        return f"<ImagingOperator: {len(self.x)} rays to {self.shape} pixels, {kernel}, margin {self.margin}>"

    def to(self, dtype: torch.dtype, *, device: Device | None = None) -> ImagingOperator:
        """The same operator in another precision, or on another device (by default the same)."""
        device = self.x.device if device is None else torch.device(device)
        if (dtype, device) == (self.x.dtype, self.x.device):
            return self
        twin = copy.copy(self)
        twin._cast(dtype, device)
        return twin

    @property
    def inside(self) -> Tensor:
        """Whether each ray lies in a pixel of the image rather than in the margin; bool, shape (R,)."""
        inside = torch.zeros(self.cells, dtype=torch.bool, device=self.x.device)
        self.crop(inside)[:] = True
        return inside.flatten()[self.shares[0]]

    def collect_in_parts(
        self, evaluate: Callable[[slice], tuple[Tensor, ...]], size: int
    ) -> tuple[Tensor, ...]:
        """`collect` of what ``evaluate(rays)`` gives for about ``size`` rays at a time, several tensors.

        The brightness at all rays, which may be many times the size of the image, never is in memory at once.
        """
        extra, number = len(self._weight), self._number
        plain = len(self.x) - extra
        step = max(number, size // number * number)
        found: list[tuple[Tensor, ...]] = []
        for start in range(0, plain, step):
            values = evaluate(slice(start, min(start + step, plain)))
            sums = (one.unflatten(-1, (-1, number)).sum(-1) * (self._area / number) for one in values)
            found.append(tuple(sums))
        cells = tuple(torch.cat(parts, -1) for parts in zip(*found, strict=True))
        del found
        if extra:
            wide = []
            for one in cells:
                empty = one.new_zeros(*one.shape[:-1], self.cells[0] * self.cells[1])
                wide.append(empty.index_copy_(-1, self._plain, one))
            cells = tuple(wide)
            for start in range(0, extra, step):
                values = evaluate(slice(plain + start, plain + min(start + step, extra)))
                share = self._weight[start : start + step] * self._area
                place = self._divided[self._index[start : start + step]]
                for one, part in zip(cells, values, strict=True):
                    one.index_add_(-1, place, part * share)
        return tuple(one.unflatten(-1, self.cells) for one in cells)

    def crop(self, cells: Tensor) -> Tensor:
        """View of the cells (..., ny k, nx k) of the image, k along a pixel, out of those of `collect`."""
        return without_frame(cells, self.margin * self._subsampling)

    @property
    def shares(self) -> tuple[Tensor, Tensor]:
        """Cell of each ray, and its flux at unit brightness, each (R,)."""
        cell = self._plain.repeat_interleave(self._number)
        share = torch.full_like(self.x[: len(cell)], self._area / self._number)
        cell = torch.cat([cell, self._divided[self._index]])
        return cell, torch.cat([share, self._weight * self._area])

    def __call__(self, values: Tensor) -> Tensor:
        """Flux in the pixels (..., ny, nx) from the brightness at the rays (..., R), per arcsec2."""
        return self.convolve(self.collect(values))

    def convolve(self, cells: Tensor) -> Tensor:
        """Flux in the pixels (..., ny, nx) from the flux in the cells ``(..., *cells)`` of `collect`."""
        image = cells if self._convolution is None else self._convolution(cells)
        k = self._subsampling
        if k == 1:
            return image
        image = image.unflatten(-2, (-1, k)).unflatten(-1, (-1, k))
        return torch.einsum("...yixj,ij->...yx", image, self._pattern.to(image.dtype))

    def spread(self, image: Tensor) -> Tensor:
        """Transpose of `convolve`, from pixels (..., ny, nx) to cells ``(..., *cells)``."""
        cells = image if self._subsampling == 1 else torch.kron(image, self._pattern.to(image.dtype))
        return cells if self._convolution is None else self._convolution.transposed(cells)

    @cached_property
    def response(self) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        """Response of a pixel to the cells around it: offsets along y and x from its first cell, and shares.

        Cells beyond the margin, which some offsets reach, are dark.
        """
        import scipy.signal

        kernel = torch.ones(1, 1) if self._convolution is None else self._convolution.kernel
        # A cell sends kernel[j] to the cell at distance j: a pixel collects with the kernel flipped.
        values = scipy.signal.convolve2d(kernel.flip(0, 1).cpu().numpy(), self._pattern.cpu().numpy())
        rows, columns = np.indices(values.shape)
        rows, columns = rows - kernel.shape[0] // 2, columns - kernel.shape[1] // 2
        return rows.ravel(), columns.ravel(), values.ravel()

    @property
    def first_cells(self) -> tuple[NDArray[np.int_], ...]:
        """Rows and columns of the cells in which pixels begin, two arrays (ny,) and (nx,)."""
        margin, k = self.margin, self._subsampling
        return tuple((np.arange(pixels) + margin) * k for pixels in self.shape)

    @cached_property
    def core(self) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        """The strongest samples of `response`, scaled to its sum: three arrays, too."""
        rows, columns, values = self.response
        order = np.argsort(-np.abs(values))
        total = np.abs(values[order]).cumsum()
        kept = order[: min(CORE_SAMPLES, int(np.searchsorted(total, CORE_LIGHT * total[-1])) + 1)]
        return rows[kept], columns[kept], values[kept] * (values.sum() / values[kept].sum())

    @cached_property
    def core_matrix(self) -> sparse.csr_array:
        """The `core` as a sparse array from cells to pixels, (ny nx, cells)."""
        rows, columns, values = self.core
        (cy, cx), (first_y, first_x) = self.cells, self.first_cells
        row = np.repeat(first_y, len(first_x))[:, None] + rows
        column = np.tile(first_x, len(first_y))[:, None] + columns
        inside = (row >= 0) & (row < cy) & (column >= 0) & (column < cx)
        starts = np.concatenate([[0], inside.sum(axis=1).cumsum()])
        index = (row * cx + column)[inside]
        values = np.broadcast_to(values, inside.shape)[inside]
        return sparse.csr_array((values, index, starts), shape=(len(row), cy * cx))

    def collect(self, values: Tensor) -> Tensor:
        """Flux in the cells ``(..., *cells)``, not convolved, from the brightness at the rays (..., R)."""
        lead = values.shape[:-1]
        extra = len(self._weight)
        plain = values[..., : values.shape[-1] - extra]
        if self._number > 1:
            plain = plain.reshape(*lead, -1, self._number).sum(-1)
        plain = plain * (self._area / self._number)
        if extra:
            shares = values[..., -extra:] * (self._weight * self._area)
            divided = values.new_zeros(*lead, len(self._divided)).index_add(-1, self._index, shares)
            cells = values.new_zeros(*lead, self.cells[0] * self.cells[1])
            plain = cells.index_copy(-1, self._plain, plain).index_copy(-1, self._divided, divided)
        return plain.reshape(*lead, *self.cells)


def _check(kernel: Any, oversampling: Any, kernel_subsampling: Any, includes_pixel: Any, refine: Any) -> None:
    positive_integer(kernel_subsampling, "kernel_subsampling")
    if oversampling != "auto" and positive_integer(oversampling, "oversampling") % kernel_subsampling:
        text = f"oversampling = {oversampling} is not a multiple of kernel_subsampling"
        raise InputError(f"{text} = {kernel_subsampling}: all cells need equally many rays")
    if refine is not None and oversampling != "auto":
        raise InputError(f"refine needs oversampling='auto', not {oversampling}: give one of them")
    if kernel is None and (kernel_subsampling != 1 or includes_pixel):
        raise InputError("kernel_subsampling and includes_pixel describe a kernel: give kernel=")
    if includes_pixel and kernel_subsampling % 2 == 0:
        raise InputError(f"kernel_subsampling = {kernel_subsampling} with includes_pixel: give an odd one")


def sharpened(kernel: Tensor, variance: float) -> Tensor:
    """Kernel deconvolved to second order by a blur of this variance, in cells, along each axis."""
    padded = torch.nn.functional.pad(kernel, (1, 1, 1, 1))
    neighbours = torch.stack([padded.roll(shift, axis) for axis in (0, 1) for shift in (-1, 1)]).sum(0)
    # The frame of zeros keeps rolled values from wrapping around.
    return padded - variance / 2 * (neighbours - 4 * padded)
