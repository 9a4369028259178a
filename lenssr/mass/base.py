"""The methods of every mass model, sums of models, and models from plain data."""

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import Any, ClassVar

import astropy.units as u
import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from lenssr._exchange.lenstronomy_names import mass_to
from lenssr._limits import quoted
from lenssr._plain import arguments_of, read_models
from lenssr._tensors import forward_jacobian
from lenssr.cosmology import Cosmology
from lenssr.exceptions import InputError
from lenssr.mass import critical
from lenssr.mass.arrival import delays
from lenssr.mass.calculator import LensCalculator, Position, Values
from lenssr.mass.kernels import Pair, Triple, WithJacobian, lift, plain_numbers, sum_in_blocks
from lenssr.mass.parameter import Parameter, Parametrised
from lenssr.mass.rays import Limits, Rays, common_limits, single_plane
from lenssr.units import Boundary

__all__ = ["MassModel", "MassSystem", "from_dict"]

# Components whose centres are within this many Einstein radii of each other are one galaxy. Chosen.
SHARED_CENTRE = 0.1


def _columns(params: Tensor) -> tuple[Tensor, ...]:
    """The columns of (B, P) parameters, each (B, 1)."""
    return params.unsqueeze(-2).unbind(-1)


class MassModel(LensCalculator, Parametrised):
    """Base of all mass models.

    A model declares its parameters and points at three pure functions::

        class SIS(MassModel):
            theta_E = Parameter("Einstein radius", unit=u.arcsec, limits=(0, math.inf))
            x_0 = Parameter("centre along x", unit=u.arcsec)
            y_0 = Parameter("centre along y", unit=u.arcsec)
            _potential = staticmethod(sis_potential)
            _deflection = staticmethod(sis_deflection)
            _hessian = staticmethod(sis_hessian)

    Everything else follows from them.

    Parameters
    ----------
    **values : float or `~astropy.units.Quantity`
        One for each parameter, bare numbers in the parameter's unit.

    Notes
    -----
    The positions x, y of its methods are in the image frame (x right, y up): `~astropy.units.Quantity`,
    numbers, arrays or `torch.Tensor` of any shapes that broadcast, in arcsec if bare. Results are of the same
    kind: a Quantity for a Quantity, a tensor for a tensor. Methods that end in ``_at`` take tensors in arcsec
    and a batch of parameter vectors.
    """

    _potential: ClassVar[Callable[..., Tensor]]
    _deflection: ClassVar[Callable[..., Pair]]
    _hessian: ClassVar[Callable[..., Triple]]
    _deflection_jacobian: ClassVar[Callable[..., WithJacobian] | None] = None
    _add_hessian: ClassVar[Callable[..., None] | None] = None

    @property
    def needs_prior(self) -> bool:
        """Whether a fit of its free parameters is refused without a prior."""
        return False

    def potential_at(self, x: Tensor, y: Tensor, params: Tensor) -> Tensor:
        """Potential for a batch of parameter vectors.

        Parameters
        ----------
        x, y : `torch.Tensor`, broadcastable with (B, R)
            Positions in arcsec.
        params : `torch.Tensor`, shape (B, P)

        Returns
        -------
        potential : `torch.Tensor`, shape (B, R)
            In arcsec2.
        """
        return self._potential(x, y, *_columns(params))

    def deflection_at(self, x: Tensor, y: Tensor, params: Tensor) -> Pair:
        """Deflection alpha_x, alpha_y in arcsec, (B, R) each, as `potential_at`."""
        return self._deflection(x, y, *_columns(params))

    def hessian_at(self, x: Tensor, y: Tensor, params: Tensor) -> Triple:
        """Second derivatives psi_xx, psi_xy, psi_yy of the potential, (B, R) each, as `potential_at`."""
        return self._hessian(x, y, *_columns(params))

    def deflection_jacobian_at(self, x: Tensor, y: Tensor, params: Tensor) -> WithJacobian:
        """Deflection, (B, R) each, and its derivatives by the parameters, (B, P, R) each."""
        if self._deflection_jacobian is not None:
            return self._deflection_jacobian(x, y, *_columns(params))
        (ax, ay), (dax, day) = forward_jacobian(lambda *p: self._deflection(x, y, *p), params)
        return ax, ay, dax, day

    def _add_deflection(self, ax: Tensor, ay: Tensor, x: Tensor, y: Tensor, *numbers: float) -> None:
        """Add the deflection in place, for `kernels.sum_in_blocks`; models with a faster way override it."""
        dx, dy = self._deflection(x, y, *numbers)
        ax.add_(dx)
        ay.add_(dy)

    def _evaluate(self, name: str, x: Position, y: Position) -> tuple[Boundary, Any]:
        boundary = Boundary(x, y)
        places = torch.broadcast_tensors(*boundary.tensors)
        params = (places[0].new_tensor(parameter.value) for parameter in self.parameters)
        return boundary, getattr(self, name)(*places, *params)

    def potential(self, x: Position, y: Position) -> Values:
        """Lensing potential in arcsec2."""
        boundary, potential = self._evaluate("_potential", x, y)
        return boundary.leave(potential, u.arcsec**2)

    def deflection(self, x: Position, y: Position) -> tuple[Values, Values]:
        """Deflection angle in arcsec, so that the source is at position minus deflection."""
        boundary, (ax, ay) = self._evaluate("_deflection", x, y)
        return boundary.leave(ax, u.arcsec), boundary.leave(ay, u.arcsec)

    def convergence(self, x: Position, y: Position) -> Values:
        """Surface density over the critical one."""
        boundary, (xx, _, yy) = self._evaluate("_hessian", x, y)
        return boundary.leave((xx + yy) / 2)

    def shear(self, x: Position, y: Position) -> tuple[Values, Values]:
        """Components gamma1 and gamma2 of the shear."""
        boundary, (xx, xy, yy) = self._evaluate("_hessian", x, y)
        return boundary.leave((xx - yy) / 2), boundary.leave(xy)

    def _jacobian(self, x: Tensor, y: Tensor, *params: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The Jacobian of the lens equation: its entries xx, xy, yx and yy."""
        xx, xy, yy = self._hessian(x, y, *params)
        return 1 - xx, -xy, -xy, 1 - yy

    def jacobian_at(self, x: Tensor, y: Tensor, params: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Entries xx, xy, yx and yy of the Jacobian of the lens equation, (B, R) each, as `potential_at`."""
        return self._jacobian(x, y, *_columns(params))

    def jacobian(self, x: Position, y: Position) -> Values:
        """Jacobian of the lens equation, d(source position) / d(image position), shape (..., 2, 2)."""
        boundary, entries = self._evaluate("_jacobian", x, y)
        return boundary.leave(torch.stack(entries, dim=-1).unflatten(-1, (2, 2)))

    def magnification(self, x: Position, y: Position) -> Values:
        """Signed magnification, infinite on a critical curve."""
        boundary, (xx, xy, yx, yy) = self._evaluate("_jacobian", x, y)
        return boundary.leave(1 / (xx * yy - xy * yx))

    def fermat_potential(
        self, x: Position, y: Position, *, source: tuple[Position, Position] | None = None
    ) -> Values:
        """Fermat potential, the arrival time in units of a distance: abs(theta - beta)^2 / 2 - psi(theta).

        Parameters
        ----------
        x, y : float, array, `~astropy.units.Quantity` or `torch.Tensor`
            Positions theta in the image plane, in arcsec if bare.
        source : tuple, optional
            The position (x, y) of the source, beta; by default where each position maps to.

        Returns
        -------
        potential : like the positions
            In arcsec2. Only differences mean something.

        References
        ----------
        .. [1] Schneider 1985, A&A 143, 413

        Examples
        --------
        >>> from lenssr.mass import SIS
        >>> SIS(1.0).fermat_potential(1.2, 0.0, source=(0.2, 0.0))
        -0.7
        """
        boundary = Boundary(x, y, *(source or ()))
        places = torch.broadcast_tensors(*boundary.tensors)
        params = [places[0].new_tensor(parameter.value) for parameter in self.parameters]
        px, py, *behind = places
        ax, ay = (px - behind[0], py - behind[1]) if behind else self._deflection(px, py, *params)
        potential = (ax * ax + ay * ay) / 2 - self._potential(px, py, *params)
        return boundary.leave(potential, u.arcsec**2)

    def time_delays(
        self,
        x: Position,
        y: Position,
        *,
        z_lens: float,
        z_source: float,
        cosmology: Cosmology = None,
        source: tuple[Position, Position] | None = None,
    ) -> u.Quantity:
        """Times at which images arrive after the first of them.

        Parameters
        ----------
        x, y : array, `~astropy.units.Quantity` or `torch.Tensor`
            Positions of the images, in arcsec if bare: those of `image_positions`, or observed ones.
        z_lens, z_source : float
            Redshifts, 0 < z_lens < z_source.
        cosmology : `~astropy.cosmology.FLRW`, optional
            By default astropy's ``Planck18``.
        source : tuple, optional
            The position (x, y) of the source; by default where each image maps to.

        Returns
        -------
        delays : `~astropy.units.Quantity`, of the shape of x and y
            In days; 0 for the image that comes first.

        Raises
        ------
        InputError
            If the redshifts are not in order.

        References
        ----------
        .. [1] Refsdal 1964, MNRAS 128, 307

        Examples
        --------
        >>> from lenssr.mass import SIS
        >>> lens = SIS(1.0)
        >>> print(lens.time_delays(*lens.image_positions(0.2, 0.0), z_lens=0.5, z_source=2.0).round(4))
        [ 0.     34.4223] d
        """
        boundary = Boundary(x, y, *(source or ()))
        px, py, *behind = (tensor.detach().cpu() for tensor in boundary.tensors)
        potential = self.fermat_potential(px, py, source=(behind[0], behind[1]) if behind else None)
        return delays(potential.numpy(), z_lens, z_source, cosmology)

    @property
    def _field(self) -> Limits | None:
        """Centre (x, y) and half-widths in arcsec of the rectangle that the model is limited to, if it is."""
        return None

    def _ray_map(self) -> Rays:
        """The lens as curves, images and times need it, see `lenssr.mass.rays`."""
        return single_plane(getattr(self, "components", (self,)), self._centres(), self._field)

    def _arrival(self, x: NDArray, y: NDArray, source: tuple[float, float]) -> NDArray:
        """Fermat potential in arcsec2 of images."""
        values: NDArray = self.fermat_potential(x, y, source=source)
        return values

    def _delays(self, arrival: NDArray, **redshifts: Any) -> u.Quantity | None:
        """Time delays in days of Fermat potentials, if a redshift is given."""
        wanted = any(redshifts[name] is not None for name in ("z_lens", "z_source"))
        return delays(arrival, **redshifts) if wanted else None

    def _centres(self) -> list[tuple[float, float]]:
        """Where the model may be singular or vary on small scales, in arcsec."""
        if "x_0" not in self.param_names:
            return []
        return [(self._parameters["x_0"].value, self._parameters["y_0"].value)]

    def _main(self) -> tuple["MassModel", NDArray[np.intp]]:
        """The lens without satellites, and where its parameters stand among all."""
        return self, np.arange(len(self.param_names))

    def _in_plane(self) -> Sequence["MassModel"]:
        """The models that it adds to a plane."""
        return [self]

    def to_lenstronomy(self) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Describe the lens in the names and keywords of lenstronomy, which need not be installed.

        Returns
        -------
        options : dict
            What ``LensModel(**options)`` takes: ``lens_model_list``, and for a `MultiPlane` redshifts and
            cosmology.
        kwargs_lens : list of dict
            Keywords of each model.

        Raises
        ------
        InputError
            If lenstronomy has no such lens: an elliptical `CoredPowerLaw` that is not isothermal, an
            `EllipticalMultipole` unless m = 4 with the major axis along x, a model of your own.

        Notes
        -----
        Deflections agree to 1e-6 arcsec. An `EllipticalNFW` is therefore written as the 87 ellipsoids
        (``CSE``) that it is the sum of; lenstronomy's own ``NFW_ELLIPSE_CSE``, which takes the same numbers,
        is a fit that is off by some 1e-5. lenstronomy interpolates maps linearly between their pixels, here
        they are cubic splines.

        See Also
        --------
        lenssr.mass.from_lenstronomy : The way back.

        Examples
        --------
        >>> from lenssr.mass import SIS
        >>> SIS(1.2).to_lenstronomy()
        ({'lens_model_list': ['SIS']}, [{'theta_E': 1.2, 'center_x': 0.0, 'center_y': 0.0}])
        """
        parts = [
            pair for part in self._in_plane() for pair in mass_to(type(part).__name__, part._described())
        ]
        return {"lens_model_list": [name for name, _ in parts]}, [values for _, values in parts]

    def _described(self) -> dict[str, Any]:
        """Numbers and other arguments by name, as other codes are told them."""
        return {**arguments_of(self), **{one.name: one.value for one in self.parameters}}

    def __add__(self, other: "MassModel") -> "MassSystem":
        return MassSystem(self, other) if isinstance(other, MassModel) else NotImplemented


class MassSystem(MassModel):
    """Mass models that act together, in one plane.

    Parameters
    ----------
    *components : `MassModel`
        The models; systems among them are expanded.

    Examples
    --------
    >>> from lenssr.mass import SIE, Shear
    >>> system = SIE(1.2, e1=0.1) + Shear(0.03, -0.01)
    >>> system.param_names
    ('theta_E_0', 'e1_0', 'e2_0', 'x_0_0', 'y_0_0', 'gamma1_1', 'gamma2_1', 'x_0_1', 'y_0_1')
    >>> system.theta_E.value
    1.2
    """

    def __init__(self, *components: MassModel) -> None:
        flat: list[MassModel] = []
        for component in components:
            if not isinstance(component, MassModel):
                raise InputError(f"{component!r} is not a mass model: give SIE(...), Shear(...), ...")
            flat += component._in_plane()
        if not flat:
            raise InputError("a MassSystem of nothing: give at least one mass model")
        self.components: tuple[MassModel, ...] = tuple(flat)
        self.covariance = None
        self.param_names = tuple(f"{name}_{i}" for i, c in enumerate(flat) for name in c.param_names)

    @property
    def needs_prior(self) -> bool:
        """Whether a fit of the free parameters of a component is refused without a prior."""
        return any(component.needs_prior for component in self.components)

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """The `Parameter` objects of all components, in order."""
        return tuple(parameter for component in self.components for parameter in component.parameters)

    def _validate(self) -> None:
        for component in self.components:
            component._validate()

    def _in_plane(self) -> Sequence[MassModel]:
        return self.components

    def _take(self, values: NDArray, covariance: NDArray | None) -> None:
        self.covariance = covariance
        for component, part in self._parts():
            component._take(values[part], None if covariance is None else covariance[part, part])

    def _parts(self) -> Iterator[tuple[MassModel, slice]]:
        """Components, and where the parameters of each stand in the vector."""
        start = 0
        for component in self.components:
            stop = start + len(component.param_names)
            yield component, slice(start, stop)
            start = stop

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name == "components":
            raise AttributeError(name)
        if name in self.param_names:
            return self.parameters[self.param_names.index(name)]
        owners = [component for component in self.components if name in component.param_names]
        if len(owners) == 1:
            return getattr(owners[0], name)
        if owners:
            numbered = ", ".join(n for n in self.param_names if n.rpartition("_")[0] == name)
            raise AttributeError(f"{len(owners)} components have {name}: ask for one of {numbered}")
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        if name in {"components", "covariance", "param_names"}:
            object.__setattr__(self, name, value)
            return
        parameter = getattr(self, name)
        if not isinstance(parameter, Parameter):
            raise AttributeError(f"{name} cannot be set")
        parameter.value = value
        self._validate()

    def __getitem__(self, index: int) -> MassModel:
        return self.components[index]

    def __len__(self) -> int:
        return len(self.components)

    def __iter__(self) -> Iterator[MassModel]:
        return iter(self.components)

    @property
    def _field(self) -> Limits | None:
        """The part that all components know."""
        fields = [component._field for component in self.components if component._field is not None]
        return common_limits(*fields) if fields else None

    def _centres(self) -> list[tuple[float, float]]:
        return [centre for component in self.components for centre in component._centres()]

    def _main(self) -> tuple[MassModel, NDArray[np.intp]]:
        """The main lens with shear, sheets and maps; other components count only if they share its centre.

        The main lens is the first component with a centre or map of its own.
        """
        masses = [component for component in self.components if component._centres() or component._field]
        if len(masses) < 2:
            return super()._main()
        first = masses[0]._centres()
        reach = SHARED_CENTRE * critical.einstein_radius(self)

        def counts(component: MassModel) -> bool:
            pairs = product(first, component._centres())
            return not component._centres() or any(math.dist(*pair) <= reach for pair in pairs)

        kept = [(component, part) for component, part in self._parts() if counts(component)]
        indices = np.concatenate([np.arange(part.start, part.stop) for _, part in kept])
        return MassSystem(*(component for component, _ in kept)), indices

    def _plain(self) -> Any:
        """The system as `to_dict` has it; its covariance, last, includes its components'."""
        parts = [component._plain() for component in self.components]
        if self.covariance is not None:
            for part in parts:
                for entry in part.values():
                    entry.pop("covariance", None)
            parts.append({"covariance": np.asarray(self.covariance)})
        # A list of one model is that model.
        return {"MassSystem": {"components": parts}} if len(self) == 1 else parts

    def _potential(self, x: Tensor, y: Tensor, *params: Tensor) -> Any:
        return sum(component._potential(x, y, *params[part]) for component, part in self._parts())

    def _deflection(self, x: Tensor, y: Tensor, *params: Tensor) -> Any:
        x, y, *lifted = lift(x, y, *params)
        numbers = plain_numbers(x, y, *lifted)
        if numbers is None:
            return self._sum("_deflection", x, y, lifted)
        terms = ((component._add_deflection, numbers[part]) for component, part in self._parts())
        return sum_in_blocks(x, y, *terms)

    def _add_deflection(self, ax: Tensor, ay: Tensor, x: Tensor, y: Tensor, *numbers: float) -> None:
        for component, part in self._parts():
            component._add_deflection(ax, ay, x, y, *numbers[part])

    def _hessian(self, x: Tensor, y: Tensor, *params: Tensor) -> Any:
        return self._sum("_hessian", x, y, params)

    def _sum(self, name: str, x: Tensor, y: Tensor, params: Sequence[Tensor]) -> tuple[Tensor, ...]:
        parts = (getattr(component, name)(x, y, *params[part]) for component, part in self._parts())
        return tuple(sum(terms[1:], start=terms[0]) for terms in zip(*parts, strict=True))

    def deflection_jacobian_at(self, x: Tensor, y: Tensor, params: Tensor) -> WithJacobian:
        """Deflection and its derivatives by the parameters, as for one model."""
        parts = (c.deflection_jacobian_at(x, y, params[..., part]) for c, part in self._parts())
        ax, ay, dax, day = zip(*parts, strict=True)
        return sum(ax[1:], ax[0]), sum(ay[1:], ay[0]), torch.cat(dax, dim=-2), torch.cat(day, dim=-2)

    def __repr__(self) -> str:
        return " + ".join(repr(component) for component in self.components)


def from_dict(description: dict[str, Any] | list[dict[str, Any]]) -> MassModel:
    """Build a mass model, or a system, from plain numbers and strings.

    Parameters
    ----------
    description : dict or list of dict
        ``{"SIE": {"theta_E": 1.2, "e1": 0.1}}``: names of models and their parameters, in arcsec or as
        strings with a unit (``"1.2 arcsec"``). Elliptical models also take ``q`` and ``phi``
        (``"30 deg"``). Two more keys for fits: ``fixed``, a list of the parameters to hold, and
        ``bounds``, a dictionary of pairs; two that a fit has written: ``std``, a dictionary of errors, and
        ``covariance``, nested lists. Several models make a system; a last entry ``{"covariance": ...}``
        belongs to all parameters of the system. Your own models are found by name once they are imported.

    Returns
    -------
    model : `~lenssr.mass.MassModel`

    Raises
    ------
    InputError
        If a name is unknown, or a value refused.

    See Also
    --------
    lenssr.mass.MassModel.to_dict : The way back.

    Examples
    --------
    >>> from lenssr.mass import from_dict
    >>> from_dict([{"SIE": {"theta_E": 1.2, "e1": 0.1}}, {"Shear": {"gamma1": 0.05, "gamma2": 0.0}}])
    SIE(theta_E=1.2, e1=0.1, e2=0.0, x_0=0.0, y_0=0.0) + Shear(gamma1=0.05, gamma2=0.0, x_0=0.0, y_0=0.0)
    """
    entries = description if isinstance(description, list) else [description]
    if not entries or not all(isinstance(entry, dict) and entry for entry in entries):
        given = quoted(description)
        raise InputError(f'{given} describes no lens: give {{"SIE": {{"theta_E": 1.2}}}}, or a list')
    try:
        return _from_entries(entries)
    except InputError:
        raise
    except Exception as error:  # values of another type or shape
        why = f"{type(error).__name__}: {error}"
        raise InputError(
            f"{quoted(description)} describes no lens ({why}): see lenssr.mass.from_dict"
        ) from error


def _from_entries(entries: list[dict[str, Any]]) -> MassModel:
    if list(entries[0]) == ["MassSystem"]:
        return _system(**entries[0]["MassSystem"])
    return _system(entries) if len(entries) > 1 else read_models(entries, MassModel, "mass model")[0]


def _system(components: list[dict[str, Any]], covariance: ArrayLike | None = None) -> MassSystem:
    """A system of models, with the covariance that stands beside them or after the last."""
    if components and list(components[-1]) == ["covariance"]:
        *components, last = components
        covariance = last["covariance"]
    system = MassSystem(*read_models(components, MassModel, "mass model"))
    if covariance is None:
        return system
    errors = [parameter.std for parameter in system.parameters]
    system._take(system.vector.numpy(), np.array(covariance, dtype=np.float64))
    # Set last: a covariance has 0 for a parameter that is fixed, which is not an error.
    for parameter, std in zip(system.parameters, errors, strict=True):
        parameter.std = std
    return system
