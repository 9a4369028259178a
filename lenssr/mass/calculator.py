"""What any lens answers of whom only the map of rays is known: curves, areas, images, pictures."""

import math
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import astropy.units as u
import numpy as np
import torch
from astropy.table import QTable
from numpy.typing import ArrayLike
from torch import Tensor

from lenssr.cosmology import Cosmology
from lenssr.exceptions import InputError
from lenssr.mass import critical
from lenssr.mass.parameter import Length
from lenssr.mass.point_images import image_positions
from lenssr.mass.rays import Array, Rays
from lenssr.mass.source_areas import cross_section, cuts
from lenssr.units import Boundary, positive_integer

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Curves", "Kind", "LensCalculator", "Position", "Values"]

Position: TypeAlias = u.Quantity | ArrayLike | Tensor
# Of the kind of the positions: a Quantity, an array or a tensor.
Values: TypeAlias = Any
Curves = list[tuple[Values, Values]]
Kind = Literal["all", "tangential", "radial"]


class LensCalculator:
    """Curves, areas, images and pictures of a lens that has ``_ray_map``, ``_arrival`` and ``_delays``."""

    def _ray_map(self) -> Rays:
        """The lens as a map of numbers."""
        raise NotImplementedError

    def _arrival(self, x: Array, y: Array, source: tuple[float, float]) -> Array:
        """Times at which images (n,) arrive, in any unit, from any start; arguments in arcsec."""
        raise NotImplementedError

    def _delays(self, arrival: Array, **redshifts: Any) -> u.Quantity | None:
        """Times after the first in days, of what `_arrival` gives; None if they are not wanted."""
        raise NotImplementedError

    # ------------------------------------------------------------ curves

    def critical_curves(self, extent: Length | None = None, *, kind: Kind = "all") -> Curves:
        """Curves of infinite magnification, all of them.

        Parameters
        ----------
        extent : float or `~astropy.units.Quantity`, optional
            Half-width of the square around the origin in which they are searched, in arcsec; by default
            where the lens needs it, and for maps all that they cover.
        kind : {"all", "tangential", "radial"}, optional
            Which ones.

        Returns
        -------
        curves : list of tuple of array
            One (x, y) a curve, in arcsec (with the unit, if ``extent`` has one), tangential ones first;
            closed curves end where they begin. Points are exact to rounding, and so dense that chords are
            within 1e-6 of the radius of the largest curve.

        Notes
        -----
        The smaller (tangential) and the larger (radial) eigenvalue of the Jacobian are computed on a
        quadtree, which is divided towards every centre, where they change on small scales, and where their
        zero lines bend. Curves of companions are found at any size above 1e-7 arcsec.

        Examples
        --------
        >>> from lenssr.mass import SIS
        >>> [(x, y)] = SIS(1.0).critical_curves()
        >>> bool(abs(x**2 + y**2 - 1).max() < 1e-12)
        True
        """
        curves = critical.curves_of(self._ray_map(), extent, kind=kind)
        return _with_unit([curve.points for curve in curves], extent)

    def caustics(self, extent: Length | None = None, *, kind: Kind = "all") -> Curves:
        """Critical curves, mapped to the source plane, as `critical_curves`.

        The cut of an isothermal lens is no caustic: `pseudo_caustics` has it.
        """
        rays = self._ray_map()
        curves = critical.curves_of(rays, extent, kind=kind)
        return _with_unit([np.stack(rays.trace(*curve.points)) for curve in curves], extent)

    def pseudo_caustics(self) -> Curves:
        """Cuts of singular isothermal lenses, where one image vanishes in the centre.

        Returns
        -------
        curves : list of tuple of array
            One closed (x, y) for each centre where the deflection jumps, in arcsec in the source plane; none
            for a lens with another slope: inside of the isothermal one its radial caustic takes their place.

        References
        ----------
        .. [1] Kormann, Schneider & Bartelmann 1994, A&A 284, 285

        Examples
        --------
        >>> from lenssr.mass import EPL, SIS
        >>> [(x, y)] = SIS(1.2).pseudo_caustics()
        >>> bool(abs(x**2 + y**2 - 1.44).max() < 1e-9)
        True
        >>> EPL(1.2, gamma=1.9).pseudo_caustics()
        []
        """
        return [(x, y) for x, y in cuts(self._ray_map())]

    # ------------------------------------------------------------ areas

    def critical_areas(self, extent: Length | None = None, *, kind: Kind = "all") -> u.Quantity:
        """Area inside each critical curve.

        Parameters
        ----------
        extent, kind
            As for `critical_curves`.

        Returns
        -------
        areas : `~astropy.units.Quantity`, shape (n,)
            In arcsec2, in the order of `critical_curves`; nan for a curve that leaves the field.

        Examples
        --------
        >>> from lenssr.mass import SIS
        >>> SIS(1.0).critical_areas()
        <Quantity [3.14159265] arcsec2>
        """
        curves = critical.curves_of(self._ray_map(), extent, kind=kind)
        areas = [critical.area_of(*critical.nodes(c.points)) if c.closed else math.nan for c in curves]
        return u.Quantity(areas, u.arcsec**2)

    def caustic_areas(self, extent: Length | None = None, *, kind: Kind = "all") -> u.Quantity:
        """Area inside each caustic, as `critical_areas`.

        Where a caustic crosses itself, parts count as often as it winds around them.

        Examples
        --------
        >>> from lenssr.mass import EPL
        >>> EPL(1.0, gamma=1.8).caustic_areas(kind="radial")
        <Quantity [0.89917629] arcsec2>
        """
        rays = self._ray_map()
        curves = critical.curves_of(rays, extent, kind=kind)
        areas = [critical.area_of(*critical.caustic_nodes(rays, c)) if c.closed else math.nan for c in curves]
        return u.Quantity(areas, u.arcsec**2)

    def cross_section(self, n_images: int = 2, *, extent: Length | None = None) -> u.Quantity:
        """Area of the source plane in which a point source has at least so many images.

        Parameters
        ----------
        n_images : int, optional
            Least number of images, 2 by default: the cross-section of strong lensing.
        extent
            As for `critical_curves`.

        Returns
        -------
        area : `~astropy.units.Quantity`
            In arcsec2, to about 1e-5 of itself; infinite where sources far away have so many, as behind
            point masses.

        Raises
        ------
        InputError
            If critical curves leave the field.

        Examples
        --------
        >>> from lenssr.mass import SIS
        >>> print(f"{SIS(1.0).cross_section():.4f}")
        3.1416 arcsec2
        """
        least = positive_integer(n_images, "n_images")
        return cross_section(self._ray_map(), least, extent) * u.arcsec**2

    def einstein_radius(self, extent: Length | None = None) -> u.Quantity:
        """Effective Einstein radius: of the circle as large as the outermost tangential critical curve.

        For an isothermal ellipsoid it is ``theta_E`` at any ellipticity; a shear changes it in second order.

        Parameters
        ----------
        extent : float or `~astropy.units.Quantity`, optional
            As for `critical_curves`.

        Returns
        -------
        theta_E : `~astropy.units.Quantity`
            In arcsec.

        Raises
        ------
        InputError
            If nothing is critical.

        References
        ----------
        .. [1] Meneghetti et al. 2013, Space Science Reviews 177, 31

        Examples
        --------
        >>> from lenssr.mass import SIE
        >>> SIE(1.2, e1=0.2).einstein_radius()
        <Quantity 1.2 arcsec>
        """
        return critical.einstein_radius(self, extent) * u.arcsec

    # ------------------------------------------------------------ images

    def image_positions(
        self, x: Position, y: Position, *, extent: Length | None = None
    ) -> tuple[Values, Values]:
        """Images of a point source, all of them.

        Parameters
        ----------
        x, y : float, `~astropy.units.Quantity` or `torch.Tensor`
            One position in the source plane; arcsec if bare.
        extent : float or `~astropy.units.Quantity`, optional
            As for `critical_curves`.

        Returns
        -------
        x, y : like the source position, 1-D
            The images, the most magnified first. They solve the lens equation to 1e-10 arcsec.

        Raises
        ------
        InputError
            If there is more than one position, if it is not finite, or if its image is a ring: a point
            behind the centre of a round lens.

        Notes
        -----
        All cells of a grid that may hold an image, by the images of their corners and by second
        derivatives, are divided until the map of each is nearly linear; there Newton's method starts. Around
        each centre cells are in ln(r) and angle. Left out are images within 1e-8 arcsec of a singular
        centre, and one of each pair that is closer than 1e-7 arcsec and of one parity.
        """
        boundary, source = _source(x, y)
        like = boundary.tensors[0]
        places = (torch.as_tensor(a).to(like) for a in image_positions(self._ray_map(), source, extent))
        x, y = (boundary.leave(place, u.arcsec) for place in places)
        return x, y

    def images(
        self,
        x: Position,
        y: Position,
        *,
        extent: Length | None = None,
        z_lens: float | None = None,
        z_source: float | None = None,
        cosmology: Cosmology = None,
    ) -> QTable:
        """Images of a point source as a table.

        Parameters
        ----------
        x, y, extent
            As for `image_positions`.
        z_lens, z_source : float, optional
            Redshifts, for time delays.
        cosmology : `~astropy.cosmology.FLRW`, optional
            By default astropy's ``Planck18``.

        Returns
        -------
        images : `~astropy.table.QTable`
            One row an image, the most magnified first: ``x`` and ``y`` in arcsec, ``magnification`` with its
            sign, ``parity`` +1 or -1, ``type``, of the arrival time: "minimum", "saddle" or "maximum",
            ``order`` of arrival, from 1, and with redshifts ``time_delay`` in days after the first.

        Raises
        ------
        InputError
            As `image_positions`.

        Examples
        --------
        >>> from lenssr.mass import SIS
        >>> images = SIS(1.0).images(0.2, 0.0)
        >>> images["magnification"].round(9).tolist(), images["type"].tolist(), images["order"].tolist()
        ([6.0, -4.0], ['minimum', 'saddle'], [1, 2])
        """
        _, source = _source(x, y)
        rays = self._ray_map()
        px, py = image_positions(rays, source, extent)
        xx, xy, yx, yy = rays.jacobian(px, py) if len(px) else 4 * (px,)
        determinant = xx * yy - xy * yx
        parity = np.where(determinant > 0, 1, -1)
        kinds = np.where(parity < 0, "saddle", np.where(xx + yy > 0, "minimum", "maximum"))
        arrival = self._arrival(px, py, source)
        table = QTable({"x": px * u.arcsec, "y": py * u.arcsec})
        with np.errstate(divide="ignore"):
            table["magnification"] = 1 / determinant
        table["parity"], table["type"] = parity, kinds
        table["order"] = np.argsort(np.argsort(arrival, kind="stable"), kind="stable") + 1
        delays = self._delays(arrival, z_lens=z_lens, z_source=z_source, cosmology=cosmology)
        if delays is not None:
            table["time_delay"] = delays
        table.meta.update(x_source=source[0] * u.arcsec, y_source=source[1] * u.arcsec)
        return table

    def plot(
        self,
        source: tuple[Length, Length] | None = None,
        *,
        ax: "Axes | None" = None,
        extent: Length | None = None,
    ) -> "Axes":
        """Draw convergence, critical curves and caustics, and the images of a point source.

        Parameters
        ----------
        source : tuple of float or `~astropy.units.Quantity`, optional
            Position (x, y) in the source plane, in arcsec if bare; none by default.
        ax : `~matplotlib.axes.Axes`, optional
            Where to draw; pyplot's current axes by default.
        extent : float or `~astropy.units.Quantity`, optional
            Half-width of the square around the origin that is searched and shown, in arcsec; by default what
            holds all curves and images, and for maps all that they cover.

        Returns
        -------
        ax : `~matplotlib.axes.Axes`

        Examples
        --------
        >>> from matplotlib.figure import Figure
        >>> from lenssr.mass import SIE
        >>> SIE(1.2, e1=0.2).plot((0.1, 0.05), ax=Figure().subplots()).get_xlabel()
        'x (arcsec)'
        """
        from lenssr.mass.plot import draw

        place = None if source is None else _source(*source)[1]
        if ax is None:
            import matplotlib.pyplot as plt

            ax = plt.gca()
        draw(self, ax, place, extent)
        return ax


def _source(x: Position, y: Position) -> tuple[Boundary, tuple[float, float]]:
    """One position in arcsec, and the boundary that gives results the kind of x and y."""
    boundary = Boundary(x, y)
    if any(tensor.numel() != 1 for tensor in boundary.tensors):
        raise InputError("image_positions takes one source position: call it for each")
    source = float(boundary.tensors[0].detach()), float(boundary.tensors[1].detach())
    if not all(math.isfinite(value) for value in source):
        raise InputError(f"source position {source} is refused: give finite numbers")
    return boundary, source


def _with_unit(curves: list[Array], like: Length | None) -> Curves:
    unit = u.arcsec if isinstance(like, u.Quantity) else None
    return [(x, y) if unit is None else (x * unit, y * unit) for x, y in curves]
