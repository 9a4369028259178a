"""PyAutoLens as `peer_source.py` uses it: a pixelized source behind a known SIE, chosen by its own evidence.

PyAutoLens has y first and its first row on top; images are turned over on the way in and on the way out.
"""

import os

os.environ.setdefault("PYAUTO_SKIP_WORKSPACE_VERSION_CHECK", "1")

import importlib.metadata
import logging
import math
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it says at every import which Python it likes best
    import autolens as al

import numpy as np
import torch
from scipy.optimize import minimize

from lenssr import SIE, Shear

__all__ = ["SETTINGS", "VERSION", "Setting", "reconstruct"]

logging.getLogger("autoarray").setLevel(logging.WARNING)
# That it pads an image for the PSF.
warnings.filterwarnings("ignore", message="Mask padded")

VERSION = f"PyAutoLens {importlib.metadata.version('autolens')}"
SIDE = 30
# How finely a pixel is sampled and the PSF applied, where pixels integrate; the high pixels are half as wide.
SUBPIXELS, PSF_SUBPIXELS = 4, 2
STEPS, TOLERANCE, TRIALS = 0.7, 0.1, 40
IMPOSSIBLE = 1e12
DEFLECTIONS_AGREE = 1e-8


@dataclass(frozen=True)
class Setting:
    """A mesh with a regularization; logarithms (base 10) of its numbers are searched from a start."""

    name: str
    mesh: Callable
    regularization: Callable
    start: tuple
    vertices: int | None = None  # along a side of the image, of a mesh that starts from points there


SETTINGS = (
    Setting(
        "uniform mesh, constant",
        lambda: al.mesh.RectangularUniform(shape=(SIDE, SIDE)),
        lambda strength: al.reg.Constant(coefficient=strength),
        (1.0,),
    ),
    Setting(
        "adaptive mesh, constant",
        lambda: al.mesh.RectangularAdaptDensity(shape=(SIDE, SIDE)),
        lambda strength: al.reg.Constant(coefficient=strength),
        (1.0,),
    ),
    Setting(
        "Delaunay mesh, constant split",
        lambda: al.mesh.Delaunay(pixels=SIDE**2),
        lambda strength: al.reg.ConstantSplit(coefficient=strength),
        (1.0,),
        vertices=SIDE,
    ),
    Setting(
        "uniform mesh, Matérn 3/2",
        lambda: al.mesh.RectangularUniform(shape=(SIDE, SIDE)),
        lambda strength, scale: al.reg.MaternKernel(coefficient=strength, scale=scale, nu=1.5),
        (1.0, -0.3),
    ),
)


@dataclass(frozen=True)
class Reconstruction:
    """What PyAutoLens made of one image; images have their first row at the bottom."""

    image: np.ndarray
    model: np.ndarray
    source: np.ndarray | None  # of a mesh with rows and columns
    numbers: np.ndarray  # of the regularization
    chi2: float
    log_evidence: float
    trials: int
    seconds: float


def reconstruct(data, sigma, lens, psf, pixel_scale, setting, *, integrate):
    """Reconstruct with the regularization of the highest evidence; lens the source at twice the resolution.

    Parameters
    ----------
    data, sigma : array, shape (ny, nx)
    lens : `~lenssr.mass.MassModel`
        An SIE, or an SIE with a shear.
    psf : `~lenssr.imaging.PSF` or None
    pixel_scale : float
        In arcsec.
    setting : `Setting`
    integrate : bool
        Whether pixels integrate, or are sampled at their centres.

    Returns
    -------
    reconstruction : `Reconstruction`
    """
    start = time.process_time()
    problem = _Problem(data, sigma, lens, psf, pixel_scale, setting, integrate)
    first = np.array(setting.start)
    corners = np.vstack([first, first + STEPS * np.eye(len(first))])
    found = minimize(
        lambda numbers: -problem.log_evidence(numbers),
        first,
        method="Nelder-Mead",
        options={"initial_simplex": corners, "xatol": TOLERANCE, "fatol": 1.0, "maxfev": TRIALS},
    )
    inversion, log_evidence, chi2 = problem.solve(found.x)
    image = problem.fine_image(np.asarray(inversion.reconstruction))
    seconds = time.process_time() - start
    return Reconstruction(
        image=image,
        model=_turned(problem.model(inversion)),
        source=None if setting.vertices else _turned(np.reshape(inversion.reconstruction, (SIDE, SIDE))),
        numbers=10**found.x,
        chi2=chi2 / data.size,
        log_evidence=log_evidence,
        trials=found.nfev,
        seconds=seconds,
    )


class _Problem:
    """One image with everything but the regularization; what does not depend on that is computed once."""

    def __init__(self, data, sigma, lens, psf, pixel_scale, setting, integrate):
        self.scale, self.shape, self.psf, self.setting = pixel_scale, data.shape, psf, setting
        self.images = [self._array(values, pixel_scale) for values in (data, sigma)]
        self.galaxy = al.Galaxy(redshift=0.5, **_profiles(lens))
        _check_deflections(self.galaxy, lens, data.shape, pixel_scale)
        self.subpixels = SUBPIXELS if integrate else 1
        self.mapper, self.dataset = self._mapper(self.subpixels)

    @staticmethod
    def _array(values, pixel_scale):
        return al.Array2D.no_mask(_turned(np.asarray(values, dtype=np.float64)), pixel_scales=pixel_scale)

    def _dataset(self, subpixels):
        if self.psf is None:
            convolver, finer = al.Convolver.no_blur(pixel_scales=self.scale), 1
        else:
            finer = PSF_SUBPIXELS
            convolver = self._convolver(self.scale / finer, convolve_over_sample_size=finer)
        data, sigma = self.images
        whole = al.Mask2D.all_false(shape_native=self.shape, pixel_scales=self.scale)
        return al.Imaging(
            data=data,
            noise_map=sigma,
            psf=convolver,
            over_sample_size_lp=1,
            over_sample_size_pixelization=subpixels,
            convolve_over_sample_size_pixelization=finer,
        ).apply_mask(mask=whole)

    def _convolver(self, pixel_scale, **options):
        kernel = al.Array2D.no_mask(self.psf.kernel(pixel_scale), pixel_scales=pixel_scale)
        return al.Convolver(kernel=kernel, use_fft=False, **options)

    def _mapper(self, subpixels):
        """Where the pixels lie on the mesh, and the data as PyAutoLens prepares them for an inversion."""
        pixelization = al.Pixelization(
            mesh=self.setting.mesh(), regularization=self._regularization(np.array(self.setting.start))
        )
        source = al.Galaxy(redshift=1.0, pixelization=pixelization)
        dataset, adapt = self._dataset(subpixels), None
        if self.setting.vertices:
            points = al.image_mesh.Overlay(shape=(self.setting.vertices,) * 2)
            points = points.image_plane_mesh_grid_from(mask=dataset.mask)
            adapt = al.AdaptImages(galaxy_image_plane_mesh_grid_dict={source: points})
        tracer = al.Tracer(galaxies=[self.galaxy, source])
        prepared = al.FitImaging(dataset=dataset, tracer=tracer, adapt_images=adapt).tracer_to_inversion
        return prepared.linear_obj_list[0], prepared.dataset

    def _regularization(self, numbers):
        return self.setting.regularization(*(10.0**numbers))

    def solve(self, numbers):
        """Inversion, log evidence (without what the data alone determine) and chi2."""
        mapper = al.Mapper(self.mapper.interpolator, regularization=self._regularization(numbers))
        inversion = al.Inversion(dataset=self.dataset, linear_obj_list=[mapper])
        residual = (_native(self.dataset.data) - self.model(inversion)) / _native(self.dataset.noise_map)
        chi2 = float((residual**2).sum())
        log_evidence = -0.5 * (
            chi2
            + inversion.regularization_term
            + inversion.log_det_curvature_reg_matrix_term
            - inversion.log_det_regularization_matrix_term
        )
        return inversion, float(log_evidence), chi2

    def log_evidence(self, numbers):
        try:
            value = self.solve(numbers)[1]
        except (np.linalg.LinAlgError, al.exc.InversionException):
            return -IMPOSSIBLE
        return value if math.isfinite(value) else -IMPOSSIBLE

    def model(self, inversion):
        return np.asarray(inversion.mapped_reconstructed_operated_data.array).reshape(self.shape)

    @cached_property
    def _fine_mapper(self):
        return self._mapper(2 * max(1, self.subpixels // 2))[0]

    def fine_image(self, source):
        """Flux in pixels half as wide, behind the PSF; the mesh is that of the fit."""
        mapper = self._fine_mapper
        weights = np.array(mapper.pix_weights_for_sub_slim_index)
        used = np.arange(weights.shape[1]) < np.asarray(mapper.pix_sizes_for_sub_slim_index)[:, None]
        values = np.where(used, source[mapper.pix_indexes_for_sub_slim_index] * weights, 0).sum(axis=1)
        rows, columns = self.shape
        side = math.isqrt(len(values) // (rows * columns))
        per_part = side // 2  # rays along a high pixel
        parts = values.reshape(rows, columns, 2, per_part, 2, per_part).mean(axis=(3, 5))
        image = parts.transpose(0, 2, 1, 3).reshape(2 * rows, 2 * columns) / 4
        return _turned(image if self.psf is None else self._convolved(image))

    def _convolved(self, image):
        image = al.Array2D.no_mask(image, pixel_scales=self.scale / 2)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that no light comes from beyond the image
            return _native(self._convolver(self.scale / 2).convolved_image_from(image, blurring_image=None))


def _native(array):
    return np.asarray(array.native.array)


def _turned(image):
    return np.ascontiguousarray(np.flipud(image))


def _profiles(lens):
    """Mass profiles by name."""
    profiles = {}
    for component in getattr(lens, "components", (lens,)):
        value = dict(zip(component.param_names, component.vector.tolist(), strict=True))
        if isinstance(component, SIE):
            e1, e2 = value["e1"], value["e2"]
            profiles["mass"] = al.mp.Isothermal(
                centre=(value["y_0"], value["x_0"]),
                ell_comps=(e2, e1),
                # Its radius is that of another axis: the mean of both, not their geometric mean.
                einstein_radius=value["theta_E"] / math.sqrt(1 - e1**2 - e2**2),
            )
        elif isinstance(component, Shear):
            profiles["shear"] = al.mp.ExternalShear(gamma_1=value["gamma1"], gamma_2=value["gamma2"])
        else:
            raise ValueError(f"{component!r}: only an SIE and a shear are translated")
    return profiles


def _check_deflections(galaxy, lens, shape, pixel_scale):
    """Raise an error unless both packages mean the same lens."""
    grid = al.Grid2D.uniform(shape_native=shape, pixel_scales=pixel_scale, over_sample_size=1)
    positions = np.asarray(grid.array)
    tracer = al.Tracer(galaxies=[galaxy, al.Galaxy(redshift=1.0)])
    theirs = np.asarray(tracer.deflections_yx_2d_from(grid=grid).array)
    y, x = (torch.as_tensor(axis)[None] for axis in positions.T)
    own = torch.stack([axis[0] for axis in lens.deflection_at(x, y, lens.vector[None])[::-1]], dim=1).numpy()
    apart = np.abs(theirs - own)[np.hypot(*positions.T) > pixel_scale].max()
    if not apart < DEFLECTIONS_AGREE:
        raise RuntimeError(f'the two lenses deflect differently, by up to {apart:.1e}"')
