"""Lenses and the sources behind them as tensors, before any telescope."""

from dataclasses import dataclass, fields, replace
from functools import cached_property

import astropy.units as u
import numpy as np
import torch

from lenssr.imaging.noise import NoiseModel
from lenssr.light.pixelated_source import PixelatedSource, interpolate_image
from lenssr.light.sersic import Sersic, sersic_brightness
from lenssr.light.sersic_shape import sersic_b
from lenssr.mass import MassModel, MassSystem, PointMass
from lenssr.mass.kernels import tracked
from lenssr.mass.point import point_masses_deflection

__all__ = ["UNIT", "LensScenes", "make_scenes", "map_tensors"]

UNIT = u.electron / u.s


@dataclass(frozen=True, eq=False)
class LensScenes:
    """Lenses and the sources behind them, before any telescope; tensors of one device and type.

    Attributes
    ----------
    lens : `~lenssr.mass.MassModel` or `~lenssr.mass.MassSystem`
        The kind of all lenses, without substructure. Its parameter values mean nothing.
    lens_vector : `torch.Tensor`, shape (B, P)
        The lenses, in the order of ``lens.param_names``.
    source_vector : `torch.Tensor`, shape (B, 7)
        The sources, as `~lenssr.light.sersic_brightness` takes them: brightness at the effective radius in
        electron / s per arcsec2, r_eff_circ, n, x_0, y_0, e1, e2. For a source that is an image: its factor
        and centre, NaN elsewhere.
    subhalos : `torch.Tensor`, shape (B, N, 3), or None
        Point masses: Einstein radius, x and y, in arcsec; shorter lists are padded with zeros.
    source_images : `torch.Tensor`, shape (B, S, S), or None
        Sources that are images, surface brightness before the factor; zeros for the others.
    source_step : `torch.Tensor`, shape (B,), or None
        Step of the pixels of these images in arcsec.
    """

    lens: MassModel | MassSystem
    lens_vector: torch.Tensor
    source_vector: torch.Tensor
    subhalos: torch.Tensor | None = None
    source_images: torch.Tensor | None = None
    source_step: torch.Tensor | None = None

    def __len__(self):
        """Count the lenses."""
        return len(self.lens_vector)

    @cached_property
    def has_source_image(self):
        """Which sources are images, a list of bool."""
        return torch.isnan(self.source_vector[:, 2]).tolist()

    @cached_property
    def _discs(self):
        """Columns (B, 1) that describe sources if all are exponential discs; otherwise None.

        They are the logarithm of the central brightness, and u and v as a x + b y - c each; the brightness is
        exp(log_peak - hypot(u, v)).
        """
        amplitude, r_eff_circ, n, x_0, y_0, e1, e2 = self.source_vector.double().T.unsqueeze(-1)
        if not bool(((n == 1) & (amplitude > 0)).all()):
            return None
        b = sersic_b(1.0)
        scale = b / (r_eff_circ * torch.sqrt(1 - e1**2 - e2**2))
        u, v = ((1 - e1) * scale, -e2 * scale), (-e2 * scale, (1 + e1) * scale)
        columns = [torch.log(amplitude) + b]
        for a_x, a_y in (u, v):
            columns += [a_x, a_y, a_x * x_0 + a_y * y_0]
        return [column.to(self.source_vector.dtype) for column in columns]

    def select(self, rows):
        """Return some of the scenes.

        Parameters
        ----------
        rows : slice or list of int
            Which ones.

        Returns
        -------
        scenes : `LensScenes`
        """
        some = map_tensors(lambda tensor: tensor[rows], self)
        # Select the cached properties, too: to compute them scene by scene would be slow.
        numbers = range(len(self))[rows] if isinstance(rows, slice) else rows
        discs = None if self._discs is None else [column[rows] for column in self._discs]
        some.__dict__.update(
            has_source_image=[self.has_source_image[number] for number in numbers], _discs=discs
        )
        return some

    def deflection(self, x, y):
        """Deflection by the lenses, substructure included.

        Parameters
        ----------
        x, y : `torch.Tensor`, broadcastable with (B, R)
            Positions in arcsec.

        Returns
        -------
        alpha_x, alpha_y : `torch.Tensor`, shape (B, R)
            In arcsec.
        """
        alpha_x, alpha_y = self.lens.deflection_at(x, y, self.lens_vector)
        if self.subhalos is None:
            return alpha_x, alpha_y
        sub_x, sub_y = self.substructure_deflection(x, y)
        return alpha_x + sub_x, alpha_y + sub_y

    def substructure_deflection(self, x, y):
        """Deflection by the substructure alone.

        Parameters
        ----------
        x, y : `torch.Tensor`, broadcastable with (B, R)
            Positions in arcsec.

        Returns
        -------
        alpha_x, alpha_y : `torch.Tensor`, shape (B, R)
            In arcsec; zeros where there is none.
        """
        if self.subhalos is None:
            zeros = torch.zeros_like(x + y).expand(len(self), -1)
            return zeros, zeros
        return point_masses_deflection(x, y, *self.subhalos.unbind(-1))

    def source(self, x, y):
        """Surface brightness of the sources.

        Parameters
        ----------
        x, y : `torch.Tensor`, broadcastable with (B, R)
            Positions in the source plane in arcsec.

        Returns
        -------
        brightness : `torch.Tensor`, shape (B, R)
            In electron / s per arcsec2.
        """
        if not any(self.has_source_image):
            if self._discs is not None and not tracked(x, y, self.source_vector):
                return _exponential(x, y, *self._discs)
            return sersic_brightness(x, y, *self.source_vector.T.unsqueeze(-1))
        if all(self.has_source_image):
            return self._image_brightness(x, y)
        x, y = (positions.expand(len(self), -1) for positions in (x, y))
        total = torch.empty(torch.broadcast_shapes(x.shape, y.shape), dtype=x.dtype, device=x.device)
        for kind in (True, False):
            rows = [
                row for row, has_source_image in enumerate(self.has_source_image) if has_source_image is kind
            ]
            total[rows] = self.select(rows).source(x[rows], y[rows])
        return total

    def _image_brightness(self, x, y):
        factor, x_0, y_0 = (self.source_vector[:, [column]] for column in (0, 3, 4))
        return factor * interpolate_image(x, y, self.source_images, self.source_step[:, None], x_0, y_0)

    def brightness(self, x, y):
        """Surface brightness of the lensed sources at positions in the image plane; as `source`.

        Parameters
        ----------
        x, y : `torch.Tensor`, broadcastable with (B, R)
            Positions in arcsec.

        Returns
        -------
        brightness : `torch.Tensor`, shape (B, R)
            In electron / s per arcsec2.
        """
        alpha_x, alpha_y = self.deflection(x, y)
        return self.source(x - alpha_x, y - alpha_y)

    def to(self, device=None, dtype=None):
        """Return the same scenes on another device or in another precision.

        Parameters
        ----------
        device : `torch.device` or str, optional
        dtype : `torch.dtype`, optional

        Returns
        -------
        scenes : `LensScenes`
        """
        return map_tensors(lambda tensor: tensor.to(device=device, dtype=dtype), self)

    def model(self, row):
        """Lens of one scene as a mass model, its substructure as point masses beside it.

        Parameters
        ----------
        row : int
            Its place in the batch.

        Returns
        -------
        lens : `~lenssr.mass.MassModel` or `~lenssr.mass.MassSystem`
        """
        lens = self.lens.with_vector(self.lens_vector[row].double().cpu())
        if self.subhalos is None:
            return lens
        masses = [PointMass(*numbers) for numbers in self.subhalos[row].tolist() if numbers[0] > 0]
        return MassSystem(lens, *masses) if masses else lens

    def light(self, row):
        """Source of one scene as a light profile.

        Parameters
        ----------
        row : int
            Its place in the batch.

        Returns
        -------
        source : `~lenssr.light.Sersic` or `~lenssr.light.PixelatedSource`
        """
        vector = self.source_vector[row].double().cpu()
        if not self.has_source_image[row]:
            return Sersic.from_vector(vector.numpy(), unit=UNIT)
        brightness = (vector[0] * self.source_images[row].double().cpu()).numpy()
        return PixelatedSource(
            brightness * (UNIT / u.arcsec**2),
            float(self.source_step[row]) * u.arcsec,
            x_0=float(vector[3]),
            y_0=float(vector[4]),
        )


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


def _exponential(x, y, log_peak, u_x, u_y, u_0, v_x, v_y, v_0):
    """Brightness of exponential discs, in place: several times faster than that of any Sérsic profile."""
    u = torch.mul(x, u_x).addcmul_(y, u_y).sub_(u_0)
    v = torch.mul(x, v_x).addcmul_(y, v_y).sub_(v_0)
    radius = u.square_().addcmul_(v, v).sqrt_()
    return torch.sub(log_peak, radius, out=radius).exp_()


def map_tensors(function, value):
    """Apply a function to a tensor, or to all tensors of scenes, a noise model or a dictionary."""
    if isinstance(value, torch.Tensor):
        return function(value)
    if isinstance(value, dict):
        return {name: map_tensors(function, one) for name, one in value.items()}
    if isinstance(value, NoiseModel):
        return value.with_numbers(*(function(getattr(value, name)) for name in value.names))
    if isinstance(value, LensScenes):
        return replace(
            value, **{one.name: map_tensors(function, getattr(value, one.name)) for one in fields(value)}
        )
    return value
