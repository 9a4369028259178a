"""Lenses at several redshifts, which deflect one after the other."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn, Self, TypeAlias

import astropy.constants as const
import astropy.units as u
import numpy as np
import torch
from torch import Tensor

from lenssr._tensors import forward_jacobian
from lenssr.cosmology import lens_distances, time_delay_distance
from lenssr.exceptions import InputError
from lenssr.mass.base import MassModel, MassSystem, from_dict
from lenssr.mass.calculator import Position
from lenssr.mass.critical import curves_of
from lenssr.mass.kernels import Pair, WithJacobian, lift, plain_numbers, sum_in_blocks
from lenssr.mass.point_images import image_positions
from lenssr.mass.rays import Array, Rays, common_limits
from lenssr.units import Boundary, positive_number

if TYPE_CHECKING:  # it takes long to import
    from astropy.cosmology import FLRW

__all__ = ["MultiPlane"]

Plane: TypeAlias = tuple[float, MassModel] | Sequence[Any] | dict[str, Any]
Entries: TypeAlias = tuple[Tensor, Tensor, Tensor, Tensor]

FourArrays: TypeAlias = tuple[Array, Array, Array, Array]

RING = 32
"""Number of points along a ring as which the centre of a lens behind another one is seen."""

ONE_PLANE_ONLY = (
    "has no meaning for lenses at several redshifts: ask one of its planes, or for the deflection, the "
)
ONE_PLANE_ONLY += "jacobian or the magnification"


class MultiPlane(MassSystem):
    """Lenses at several redshifts, in front of a source.

    Parameters
    ----------
    planes : list of tuple
        A redshift and a `MassModel`, which may be a sum, for each plane, in any order. The deflection of each
        model is the reduced one, as if it were the only lens in front of a source at ``z_reference``.
    z_source : float
        Redshift of the source.
    cosmology : `~astropy.cosmology.FLRW`, or str, optional
        By default astropy's ``Planck18``; the name of another of astropy's, such as ``"Planck15"``.
    z_reference : float, optional
        Redshift of the source for which the models are given; by default ``z_source``.

    Raises
    ------
    InputError
        If there is no plane, one is not a redshift and a model of one plane, or a redshift is not between 0
        and that of the reference.

    Notes
    -----
    A ray that is seen at theta passes plane j at theta_j = theta - sum_{i<j} b_ij alpha_i(theta_i) with b_ij
    = D_ij D_s / (D_j D_is) [1]_; centres and shapes of the models are as they would be seen without the
    planes in front. Its deflection, ``theta`` minus the position of the source, has a curl, so that there are
    neither potential nor convergence; its jacobian is not symmetric.

    References
    ----------
    .. [1] Schneider, Ehlers & Falco 1992, Gravitational Lenses, equation 9.7

    Examples
    --------
    >>> from lenssr.mass import SIE, SIS, MultiPlane
    >>> lenses = MultiPlane([(0.3, SIE(1.2, e1=0.1)), (0.8, SIS(0.2, x_0=0.1))], z_source=2.0)
    >>> lenses.param_names
    ('theta_E_0', 'e1_0', 'e2_0', 'x_0_0', 'y_0_0', 'theta_E_1', 'x_0_1', 'y_0_1')
    >>> lenses.deflection(1.0, 0.5)
    (1.2010760, 0.6682478)
    >>> lenses.at(0.8).deflection(1.0, 0.5)
    (0.7572642, 0.4336478)
    """

    _names = ("cosmology",)
    """Arguments that are text in files, no quantities."""

    redshifts: tuple[float, ...]
    z_source: float
    z_reference: float
    cosmology: Any

    def __init__(
        self,
        planes: Sequence[Plane],
        z_source: float,
        *,
        cosmology: "FLRW | str | None" = None,
        z_reference: float | None = None,
    ) -> None:
        read = [_plane(plane) for plane in planes]
        if not read:
            raise InputError("a MultiPlane of no planes: give at least one (redshift, mass model)")
        z_source = positive_number(z_source, u.one, "z_source")
        z_reference = z_source if z_reference is None else positive_number(z_reference, u.one, "z_reference")
        for z, _ in read:
            if not z < z_reference:
                raise InputError(
                    f"a plane at z = {z} is not in front of a source at {z_reference}: leave it out"
                )
        values = {
            "components": tuple(model for _, model in read),
            "covariance": None,
            "param_names": tuple(
                f"{name}_{i}" for i, (_, model) in enumerate(read) for name in model.param_names
            ),
            "redshifts": tuple(z for z, _ in read),
            "z_source": z_source,
            "z_reference": z_reference,
            "cosmology": read_cosmology(cosmology),
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)
        self._scale()

    def _scale(self) -> None:
        """Set which planes deflect, from the front, and their weights at later planes and at the source."""
        order = [i for i in np.argsort(self.redshifts, kind="stable") if self.redshifts[i] < self.z_source]
        object.__setattr__(self, "_order", [int(i) for i in order])
        places = [*(self.redshifts[i] for i in self._order), self.z_source]
        weights = [[self._weight(front, place) for front in places[:j]] for j, place in enumerate(places)]
        object.__setattr__(self, "_weights", weights)

    def _weights_for(self, params: Sequence[Any]) -> list[list[Any]]:
        """Weights of deflections at later planes, and at the source, for these parameters."""
        weights: list[list[Any]] = self._weights
        return weights

    def _weight(self, front: float, back: float) -> float:
        """D_ij D_s / (D_j D_is)."""
        if front == back:
            return 0.0
        if back == self.z_reference:
            return 1.0
        _, d_back, between = lens_distances(front, back, cosmology=self.cosmology)
        _, d_reference, to_reference = lens_distances(front, self.z_reference, cosmology=self.cosmology)
        return float((between / d_back) * (d_reference / to_reference))

    @property
    def planes(self) -> list[tuple[float, MassModel]]:
        """Redshift and model of each plane, as they were given."""
        return list(zip(self.redshifts, self.components, strict=True))

    def at(self, z_source: float) -> Self:
        """The same lenses in front of a source at another redshift.

        Parameters
        ----------
        z_source : float
            Redshift of the source; planes at it or behind do not deflect.

        Returns
        -------
        lenses : `MultiPlane`
            A copy; its ``z_reference`` is the same.
        """
        other = self.copy()
        object.__setattr__(other, "z_source", positive_number(z_source, u.one, "z_source"))
        other._scale()
        return other

    # ------------------------------------------------------------ rays

    def _rays(self, x: Tensor, y: Tensor, params: Sequence[Any]) -> list[tuple[Pair, Pair]]:
        """Where rays pass the planes that deflect, and the source, and their deflection there."""
        parts = list(self._parts())
        rays: list[tuple[Pair, Pair]] = []
        for number, weights in zip([*self._order, None], self._weights_for(params), strict=True):
            pairs = zip(weights, rays, strict=True)
            bent = [(w, alpha) for w, (_, alpha) in pairs if isinstance(w, Tensor) or w]
            here = [place - sum(w * alpha[k] for w, alpha in bent) for k, place in enumerate((x, y))]
            if number is None:
                return [*rays, ((here[0], here[1]), (0 * x, 0 * y))]
            component, part = parts[number]
            rays.append(((here[0], here[1]), component._deflection(*here, *params[part])))
        return rays

    def _deflection(self, x: Tensor, y: Tensor, *params: Tensor) -> Pair:
        x, y, *lifted = lift(x, y, *params)
        numbers = plain_numbers(x, y, *lifted)
        if numbers is not None:
            return sum_in_blocks(x, y, (self._add_deflection, numbers))
        (here_x, here_y), _ = self._rays(x, y, lifted)[-1]
        return x - here_x, y - here_y

    def _add_deflection(self, ax: Tensor, ay: Tensor, x: Tensor, y: Tensor, *numbers: float) -> None:
        """Add the deflection for numbers in place, plane by plane with the kernels of its model."""
        parts = list(self._parts())
        found: list[Pair] = []
        for number, weights in zip(self._order, self._weights_for(numbers), strict=False):
            here_x, here_y = x, y
            for weight, (bx, by) in zip(weights, found, strict=True):
                if weight:
                    here_x, here_y = here_x.sub(bx, alpha=weight), here_y.sub(by, alpha=weight)
            bx, by = torch.zeros_like(x), torch.zeros_like(y)
            component, part = parts[number]
            component._add_deflection(bx, by, here_x, here_y, *numbers[part])
            found.append((bx, by))
        for weight, (bx, by) in zip(self._weights_for(numbers)[-1], found, strict=True):
            ax.add_(bx, alpha=weight)
            ay.add_(by, alpha=weight)

    def _jacobian(self, x: Tensor, y: Tensor, *params: Tensor) -> Entries:
        """The Jacobian of the source's position: A_j = 1 - sum b_ij H_i A_i, H_i the hessian of plane i."""
        x, y, *lifted = lift(x, y, *params)
        rays, parts = self._rays(x, y, lifted), list(self._parts())
        one = torch.ones_like(rays[-1][0][0])
        bent: list[Entries] = []
        planes = zip([*self._order, None], self._weights_for(lifted), rays, strict=True)
        for number, weights, (here, _) in planes:
            entries = [one, 0 * one, 0 * one, one]
            for weight, product in zip(weights, bent, strict=True):
                entries = [entry - weight * part for entry, part in zip(entries, product, strict=True)]
            xx, xy, yx, yy = entries
            if number is not None:
                component, part = parts[number]
                hxx, hxy, hyy = component._hessian(*here, *lifted[part])
                bent.append(
                    (hxx * xx + hxy * yx, hxx * xy + hxy * yy, hxy * xx + hyy * yx, hxy * xy + hyy * yy)
                )
        return xx, xy, yx, yy

    def deflection_jacobian_at(self, x: Tensor, y: Tensor, params: Tensor) -> WithJacobian:
        """Deflection and its derivatives by the parameters, as for one model."""
        (ax, ay), (dax, day) = forward_jacobian(lambda *p: self._deflection(x, y, *p), params)
        return ax, ay, dax, day

    # ------------------------------------------------------------ curves, images and times

    def _ray_map(self) -> Rays:
        """The lens as curves and images need it: a chain of the maps of its planes."""
        every = self._weights_for([parameter.value for parameter in self.parameters])
        chain = [
            (self.components[i]._ray_map(), weights) for i, weights in zip(self._order, every, strict=False)
        ]

        def both(x: Array, y: Array) -> tuple[tuple[Array, Array], FourArrays]:
            bent: list[tuple[Array, ...]] = []
            start = x, y, np.ones_like(x), np.zeros_like(x), np.zeros_like(x), np.ones_like(x)
            for rays, weights in [*chain, (None, every[-1])]:
                here = start
                for weight, part in zip(weights, bent, strict=True):
                    here = tuple(a - weight * b for a, b in zip(here, part, strict=True))
                px, py, xx, xy, yx, yy = here
                if rays is None:
                    break
                (sx, sy), (jxx, jxy, jyx, jyy) = rays.all_at(px, py)
                hxx, hyy = 1 - jxx, 1 - jyy
                left = hxx * xx - jxy * yx, hxx * xy - jxy * yy, hyy * yx - jyx * xx, hyy * yy - jyx * xy
                bent.append((px - sx, py - sy, *left))
            return (px, py), (xx, xy, yx, yy)

        def trace(x: Array, y: Array) -> tuple[Array, Array]:
            ax, ay = self.deflection(x, y)
            return x - ax, y - ay

        limits = [rays.limits for rays, _ in chain if rays.limits is not None]
        cells = [rays.cell for rays, _ in chain if rays.cell is not None]
        return Rays(
            trace,
            lambda x, y: both(x, y)[1],
            np.array(self._centres(), dtype=np.float64).reshape(-1, 2),
            common_limits(*limits) if limits else None,
            min(cells, default=None),
            symmetric=False,
            both=both,
        )

    def _centres(self) -> list[tuple[float, float]]:
        """Where the centres of all planes are seen: they are imaged by the planes in front."""
        found: list[tuple[float, float]] = []
        for i in self._order:
            centres = self.components[i]._centres()
            front = self.at(self.redshifts[i])
            found += centres if not front._order else [at for c in centres for at in seen(front, c)]
        return found

    def time_delays(
        self,
        x: Position,
        y: Position,
        *,
        z_lens: float | None = None,
        z_source: float | None = None,
        cosmology: Any = None,
        source: tuple[Position, Position] | None = None,
    ) -> u.Quantity:
        """Times at which images arrive after the first of them.

        Parameters
        ----------
        x, y : array, `~astropy.units.Quantity` or `torch.Tensor`
            Positions of the images, in arcsec if bare: those of `image_positions`, or observed ones.
        z_lens, z_source, cosmology
            Refused: the lenses have their own.
        source : tuple, optional
            The position (x, y) of the source; by default where each image maps to.

        Returns
        -------
        delays : `~astropy.units.Quantity`, of the shape of x and y
            In days; 0 for the image that comes first.

        Raises
        ------
        InputError
            If a redshift or a cosmology is given.

        References
        ----------
        .. [1] Schneider, Ehlers & Falco 1992, Gravitational Lenses, equation 9.13

        Examples
        --------
        >>> from lenssr.mass import SIS, MultiPlane
        >>> lenses = MultiPlane([(0.5, SIS(1.0)), (1.0, SIS(0.1, y_0=0.1))], z_source=2.0)
        >>> print(lenses.time_delays(*lenses.image_positions(0.3, 0.0)).round(2))
        [66.95  0.  ] d
        """
        self._refuse_redshifts(z_lens=z_lens, z_source=z_source, cosmology=cosmology)
        boundary = Boundary(x, y, *(source or ()))
        px, py, *behind = (tensor.detach().cpu() for tensor in boundary.tensors)
        times = self._times(px, py, behind).numpy()
        return (times - times.min()) * u.day

    def _times(self, x: Tensor, y: Tensor, source: Sequence[Any]) -> Tensor:
        """Arrival times in days, from the same start, of rays to a source, or to where each lands."""
        x, y = torch.broadcast_tensors(x, y)
        params = [parameter.value for parameter in self.parameters]
        rays, parts = self._rays(x, y, params), list(self._parts())
        places = [here for here, _ in rays]
        if source:
            places[-1] = source[0], source[1]
        redshifts = [*(self.redshifts[i] for i in self._order), self.z_source]
        total = torch.zeros_like(x)
        for k, i in enumerate(self._order):
            component, part = parts[i]
            numbers = [x.new_tensor(number) for number in params[part]]
            (here_x, here_y), z = places[k], redshifts[k]
            unit = self._days(z, self.z_reference)
            total = total - unit * component._potential(here_x, here_y, *numbers)
            if redshifts[k + 1] > z:
                (next_x, next_y), unit = places[k + 1], self._days(z, redshifts[k + 1])
                total = total + unit / 2 * ((here_x - next_x) ** 2 + (here_y - next_y) ** 2)
        return total

    def _days(self, front: float, back: float) -> float:
        """Days for an arcsec2 between two planes: (1 + z) D_i D_j / (c D_ij)."""
        distance = time_delay_distance(front, back, cosmology=self.cosmology)
        return float((distance / const.c).to_value(u.day) * (1 * u.arcsec).to_value(u.rad) ** 2)

    def _arrival(self, x: Array, y: Array, source: tuple[float, float]) -> Array:
        times: Array = self._times(torch.from_numpy(x), torch.from_numpy(y), source).numpy()
        return times

    def _delays(self, arrival: Array, **redshifts: Any) -> u.Quantity:
        self._refuse_redshifts(**redshifts)
        return (arrival - np.min(arrival, initial=np.inf)) * u.day

    def _refuse_redshifts(self, **given: Any) -> None:
        for name, value in given.items():
            if value is not None:
                raise InputError(f"{name} = {value} is refused: these lenses have redshifts of their own")

    # ------------------------------------------------------------ what has no meaning

    def _refuse(self, what: str) -> NoReturn:
        raise InputError(f"the {what} {ONE_PLANE_ONLY}")

    def _potential(self, x: Tensor, y: Tensor, *params: Tensor) -> Any:
        self._refuse("potential")

    def _hessian(self, x: Tensor, y: Tensor, *params: Tensor) -> Any:
        self._refuse("hessian")

    def potential(self, x: Position, y: Position) -> NoReturn:
        """Refused: there is none."""
        self._refuse("potential")

    def fermat_potential(
        self, x: Position, y: Position, *, source: tuple[Position, Position] | None = None
    ) -> NoReturn:
        """Refused: there is none; `time_delays` adds the times between planes."""
        self._refuse("Fermat potential")

    def convergence(self, x: Position, y: Position) -> NoReturn:
        """Refused: there is none."""
        self._refuse("convergence")

    def shear(self, x: Position, y: Position) -> NoReturn:
        """Refused: there is none."""
        self._refuse("shear")

    def to_lenstronomy(self) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Describe the lenses as `MassModel.to_lenstronomy` does, with the redshift of each model."""
        from astropy.cosmology import Planck18

        names, redshifts, kwargs = [], [], []
        for z, model in self.planes:
            options, values = model.to_lenstronomy()
            names += options["lens_model_list"]
            redshifts += [z] * len(values)
            kwargs += values
        options = {"lens_model_list": names, "multi_plane": True, "lens_redshift_list": redshifts}
        options |= {"z_source": self.z_source, "z_source_convention": self.z_reference}
        return {**options, "cosmo": Planck18 if self.cosmology is None else self.cosmology}, kwargs

    def _in_plane(self) -> NoReturn:
        raise InputError(
            "a MultiPlane has its own planes and adds to none: add to the model of one of its planes"
        )

    def _main(self) -> tuple[MassModel, Any]:
        return self, np.arange(len(self.param_names))

    # ------------------------------------------------------------ plain data

    def _plain(self) -> Any:
        planes = [{"z": z, "lens": model._plain()} for z, model in self.planes]
        entry: dict[str, Any] = {"planes": planes, "z_source": self.z_source}
        if self.z_reference != self.z_source:
            entry["z_reference"] = self.z_reference
        if self.cosmology is not None:
            entry["cosmology"] = plain_cosmology(self.cosmology)
        if self.covariance is not None:
            entry["covariance"] = np.asarray(self.covariance)
        return {"MultiPlane": entry}

    def __repr__(self) -> str:
        planes = ", ".join(f"({z!r}, {model!r})" for z, model in self.planes)
        more = "" if self.z_reference == self.z_source else f", z_reference={self.z_reference!r}"
        more += "" if self.cosmology is None else f", cosmology={plain_cosmology(self.cosmology)!r}"
        return f"MultiPlane([{planes}], z_source={self.z_source!r}{more})"


def seen(front: MultiPlane, centre: tuple[float, float]) -> list[tuple[float, float]]:
    """Images of the centre of a lens by the planes in front of it, at least the place where it is."""
    rays = front._ray_map()
    try:
        images = np.stack(image_positions(rays, centre), axis=1)
    except InputError:
        # A ring: points along it.
        curves = curves_of(rays, kind="tangential")
        images = np.concatenate([curve.points.T[:: max(1, len(curve.points.T) // RING)] for curve in curves])
    return [(float(x), float(y)) for x, y in images] or [centre]


def _plane(plane: Any) -> tuple[float, MassModel]:
    """Redshift and model of a pair, or of ``{"z": ..., "lens": ...}`` as in files."""
    try:
        z, model = (plane["z"], plane["lens"]) if isinstance(plane, dict) else plane
    except (TypeError, ValueError, KeyError) as error:
        raise InputError(f"{plane!r} is not a plane: give (redshift, mass model)") from error
    model = from_dict(model) if isinstance(model, dict | list) else model
    if not isinstance(model, MassModel) or isinstance(model, MultiPlane):
        raise InputError(f"{model!r} is not a mass model of one plane: give SIE(...), or a sum")
    return positive_number(z, u.one, "z"), model


def read_cosmology(given: Any) -> Any:
    """A cosmology, or None, from one, its name, or ``{class: numbers}``."""
    if given is None:
        return None
    import astropy.cosmology

    if isinstance(given, astropy.cosmology.FLRW):
        return given
    try:
        if isinstance(given, str) and given in astropy.cosmology.available:
            return getattr(astropy.cosmology, given)
        [(kind, numbers)] = given.items()
        return getattr(astropy.cosmology, kind)(**numbers)
    except (AttributeError, TypeError, ValueError) as error:
        names = ", ".join(astropy.cosmology.available)
        remedy = f"give one of astropy's, {names}, or {{'FlatLambdaCDM': {{'H0': 70, 'Om0': 0.3}}}}"
        raise InputError(f"cosmology = {given!r} is not known: {remedy}") from error


def plain_cosmology(cosmology: Any) -> Any:
    """The name of a cosmology of astropy's, or its class and numbers."""
    import astropy.cosmology

    known = cosmology.name in astropy.cosmology.available
    if known and getattr(astropy.cosmology, cosmology.name) == cosmology:
        return cosmology.name
    numbers = {}
    for name, value in cosmology.parameters.items():
        bare = value.value if isinstance(value, u.Quantity) else value
        if bare is not None:
            numbers[name] = np.asarray(bare).tolist()
    return {type(cosmology).__name__: numbers}
