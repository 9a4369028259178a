"""What every mass model shares: parameters, the contract of methods, and sums of models."""

import copy
import math

import astropy.units as u
import numpy as np
import torch

from lenssr.autodiff import forward_jacobian
from lenssr.exceptions import InputError
from lenssr.mass.blocks import in_blocks
from lenssr.units import Boundary, strip_unit

__all__ = ["MassModel", "MassSystem", "Parameter"]


class Parameter:
    """One number of a mass model, with the vocabulary of `astropy.modeling.Parameter`.

    In a class body it declares the parameter; on an instance it holds the value.

    Parameters
    ----------
    description : str
        What it is.
    unit : `~astropy.units.Unit`, optional
        Its unit; dimensionless by default.
    limits : tuple of float, optional
        The open interval that physics allows; anything outside is refused.
    fixed : bool, optional
        Whether fits leave it alone by default.

    Attributes
    ----------
    value : float
        The value, in ``unit``.
    bounds : tuple
        Where a fit may go: lower and upper end, None for open, like in astropy.
    std : float or None
        Standard error, after a fit.
    """

    def __init__(self, description, *, unit=u.dimensionless_unscaled, limits=(-math.inf, math.inf), fixed=False):
        self.name = None
        self.description = description
        self.unit = unit
        self.limits = limits
        self.fixed = fixed
        self.std = None
        self._bounds = (None, None)
        self._value = None

    def __set_name__(self, owner, name):
        self.name = name

    def __get__(self, instance, owner):
        return self if instance is None else instance._parameters[self.name]

    def __set__(self, instance, value):
        instance._parameters[self.name].value = value
        instance._validate()

    @property
    def value(self):
        """The value in ``unit``."""
        return self._value

    @value.setter
    def value(self, value):
        number = strip_unit(value, self.unit, self.name)
        try:
            number = float(number)
        except (TypeError, ValueError, RuntimeError) as error:
            raise InputError(
                f"{self.name} = {value!r} is not one number: a model holds one lens, batches go through "
                "deflection_at(x, y, params)"
            ) from error
        low, high = self.limits
        if not math.isfinite(number) or not low < number < high:
            raise InputError(f"{self.name} = {number} is refused: give a finite number between {low} and {high}")
        self._value = number

    @property
    def quantity(self):
        """The value as a `~astropy.units.Quantity`."""
        return self._value * self.unit

    @property
    def bounds(self):
        """Lower and upper end for fits; None leaves an end open."""
        return self._bounds

    @bounds.setter
    def bounds(self, bounds):
        try:
            low, high = (None if b is None else float(strip_unit(b, self.unit, self.name)) for b in bounds)
        except (TypeError, ValueError) as error:
            raise InputError(f"bounds of {self.name} = {bounds!r}: give a pair (lower, upper) or None") from error
        if low is not None and high is not None and not low < high:
            raise InputError(f"bounds of {self.name} = ({low}, {high}): the lower must be below the upper")
        self._bounds = (low, high)

    def __float__(self):
        return self._value

    def __repr__(self):
        parts = [f"value={self._value}"]
        if self.unit != u.dimensionless_unscaled:
            parts.append(f"unit={self.unit}")
        parts += ["fixed=True"] if self.fixed else []
        parts += [f"bounds={self._bounds}"] if self._bounds != (None, None) else []
        parts += [f"std={self.std}"] if self.std is not None else []
        return f"Parameter({self.name!r}, {', '.join(parts)})"


def _columns(params):
    """The columns of (B, P) parameters, each (B, 1)."""
    return tuple(params[..., k : k + 1] for k in range(params.shape[-1]))


class MassModel:
    """Base of everything that bends light.

    A model declares its parameters and points at three pure functions::

        class SIS(MassModel):
            theta_E = Parameter("Einstein radius", unit=u.arcsec, limits=(0, math.inf))
            x_0 = Parameter("centre along x", unit=u.arcsec)
            y_0 = Parameter("centre along y", unit=u.arcsec)
            _potential = staticmethod(sis_potential)
            _deflection = staticmethod(sis_deflection)
            _hessian = staticmethod(sis_hessian)

    Everything else follows from them. Positions are in arcsec, in the image frame (x right, y up).

    Parameters
    ----------
    **values : float or `~astropy.units.Quantity`
        One for each parameter, bare numbers in the parameter's unit.
    """

    param_names = ()
    needs_prior = False
    _declared = {}
    _deflection_jacobian = None

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        own = {name: item for name, item in vars(cls).items() if isinstance(item, Parameter)}
        cls._declared = {**cls._declared, **own}
        if own:
            cls.param_names = tuple(cls._declared)

    def __init__(self, **values):
        self._parameters = {name: copy.copy(declared) for name, declared in self._declared.items()}
        self.covariance = None
        for name, value in values.items():
            self._parameters[name].value = value
        self._validate()

    def _validate(self):
        """Refuse combinations of values that no single limit can describe; models override it."""

    # ---- parameters -------------------------------------------------------------------------------

    @property
    def parameters(self):
        """The `Parameter` objects, in order."""
        return tuple(self._parameters[name] for name in self.param_names)

    @property
    def vector(self):
        """Values of all parameters: float64 tensor of shape (P,)."""
        return torch.tensor([parameter.value for parameter in self.parameters], dtype=torch.float64)

    def copy(self):
        """Make an independent copy."""
        return copy.deepcopy(self)

    def with_vector(self, vector, *, covariance=None):
        """Copy the model with other values.

        Parameters
        ----------
        vector : array_like or `torch.Tensor`, shape (P,)
            The new values, in the parameters' units.
        covariance : array_like, shape (P, P), optional
            Their covariance; its diagonal sets ``std``.

        Returns
        -------
        model : `MassModel`
            A copy with the same ``fixed`` and ``bounds``.

        Raises
        ------
        InputError
            If the shapes do not fit, or a value is refused.
        """
        values = _to_array(vector)
        if values.shape != (len(self.param_names),):
            raise InputError(f"vector has shape {values.shape}: give {len(self.param_names)} values")
        model = self.copy()
        if covariance is not None:
            covariance = _to_array(covariance)
            if covariance.shape != (len(values), len(values)):
                raise InputError(f"covariance has shape {covariance.shape}: give {(len(values),) * 2}")
        model._take(values, covariance)
        return model

    def _take(self, values, covariance):
        self.covariance = covariance
        for k, parameter in enumerate(self.parameters):
            parameter.value = values[k]
            parameter.std = None if covariance is None else float(np.sqrt(max(covariance[k, k], 0.0)))
        self._validate()

    # ---- for batches of vectors: tensors in arcsec, no units ----------------------------------------

    def potential_at(self, x, y, params):
        """Potential for a batch of parameter vectors.

        Parameters
        ----------
        x, y : `torch.Tensor`, broadcastable with (B, R)
            Positions in arcsec.
        params : `torch.Tensor`, shape (B, P)
            One vector a problem.

        Returns
        -------
        potential : `torch.Tensor`, shape (B, R)
        """
        return self._potential(x, y, *_columns(params))

    def deflection_at(self, x, y, params):
        """Deflection for a batch of parameter vectors.

        Parameters
        ----------
        x, y : `torch.Tensor`, broadcastable with (B, R)
            Positions in arcsec.
        params : `torch.Tensor`, shape (B, P)
            One vector a problem.

        Returns
        -------
        alpha_x, alpha_y : `torch.Tensor`, shape (B, R)
        """
        return self._deflection(x, y, *_columns(params))

    def hessian_at(self, x, y, params):
        """Second derivatives of the potential for a batch of parameter vectors.

        Parameters
        ----------
        x, y : `torch.Tensor`, broadcastable with (B, R)
            Positions in arcsec.
        params : `torch.Tensor`, shape (B, P)
            One vector a problem.

        Returns
        -------
        psi_xx, psi_xy, psi_yy : `torch.Tensor`, shape (B, R)
        """
        return self._hessian(x, y, *_columns(params))

    def deflection_jacobian_at(self, x, y, params):
        """Deflection and its derivatives by the parameters, for a batch of vectors.

        Parameters
        ----------
        x, y : `torch.Tensor`, broadcastable with (B, R)
            Positions in arcsec.
        params : `torch.Tensor`, shape (B, P)
            One vector a problem.

        Returns
        -------
        alpha_x, alpha_y : `torch.Tensor`, shape (B, R)
        d_alpha_x, d_alpha_y : `torch.Tensor`, shape (B, P, R)
        """
        if self._deflection_jacobian is not None:
            return self._deflection_jacobian(x, y, *_columns(params))
        (ax, ay), (dax, day) = forward_jacobian(lambda *p: self._deflection(x, y, *p), params)
        return ax, ay, dax, day

    # ---- for users ----------------------------------------------------------------------------------

    def _evaluate(self, function, boundary):
        x, y = torch.broadcast_tensors(*boundary.tensors)
        params = [x.new_tensor(parameter.value) for parameter in self.parameters]
        return function(x, y, *params)

    def potential(self, x, y):
        """Lensing potential.

        Parameters
        ----------
        x, y : `~astropy.units.Quantity`, array or `torch.Tensor`
            Positions, of any shapes that broadcast; arcsec if bare.

        Returns
        -------
        potential : like the positions
            In arcsec2.
        """
        boundary = Boundary(x, y)
        return boundary.leave(self._evaluate(self._potential, boundary), u.arcsec**2)

    def deflection(self, x, y):
        """Deflection angle, so that the source is at position minus deflection.

        Parameters
        ----------
        x, y : `~astropy.units.Quantity`, array or `torch.Tensor`
            Positions, of any shapes that broadcast; arcsec if bare.

        Returns
        -------
        alpha_x, alpha_y : like the positions
            In arcsec.
        """
        boundary = Boundary(x, y)
        ax, ay = self._evaluate(self._deflection, boundary)
        return boundary.leave(ax, u.arcsec), boundary.leave(ay, u.arcsec)

    def convergence(self, x, y):
        """Surface density over the critical one.

        Parameters
        ----------
        x, y : `~astropy.units.Quantity`, array or `torch.Tensor`
            Positions, of any shapes that broadcast; arcsec if bare.

        Returns
        -------
        kappa : like the positions
            Without dimension.
        """
        boundary = Boundary(x, y)
        xx, _, yy = self._evaluate(self._hessian, boundary)
        return boundary.leave((xx + yy) / 2)

    def shear(self, x, y):
        """Shear, two components.

        Parameters
        ----------
        x, y : `~astropy.units.Quantity`, array or `torch.Tensor`
            Positions, of any shapes that broadcast; arcsec if bare.

        Returns
        -------
        gamma1, gamma2 : like the positions
            Without dimension.
        """
        boundary = Boundary(x, y)
        xx, xy, yy = self._evaluate(self._hessian, boundary)
        return boundary.leave((xx - yy) / 2), boundary.leave(xy)

    def jacobian(self, x, y):
        """Jacobian of the lens equation, d(source position) / d(image position).

        Parameters
        ----------
        x, y : `~astropy.units.Quantity`, array or `torch.Tensor`
            Positions, of any shapes that broadcast; arcsec if bare.

        Returns
        -------
        jacobian : like the positions, shape (..., 2, 2)
        """
        boundary = Boundary(x, y)
        xx, xy, yy = self._evaluate(self._hessian, boundary)
        rows = torch.stack((1 - xx, -xy, -xy, 1 - yy), dim=-1)
        return boundary.leave(rows.unflatten(-1, (2, 2)))

    def magnification(self, x, y):
        """Signed magnification, infinite on a critical curve.

        Parameters
        ----------
        x, y : `~astropy.units.Quantity`, array or `torch.Tensor`
            Positions, of any shapes that broadcast; arcsec if bare.

        Returns
        -------
        magnification : like the positions
        """
        boundary = Boundary(x, y)
        xx, xy, yy = self._evaluate(self._hessian, boundary)
        return boundary.leave(1 / ((1 - xx) * (1 - yy) - xy * xy))

    def __add__(self, other):
        if not isinstance(other, MassModel):
            return NotImplemented
        return MassSystem(self, other)

    def __repr__(self):
        values = ", ".join(f"{name}={parameter.value!r}" for name, parameter in self._parameters.items())
        return f"{type(self).__name__}({values})"


class MassSystem(MassModel):
    """Mass models that act together, in one plane.

    Parameters
    ----------
    *components : `MassModel`
        The models; systems among them are taken apart.

    Examples
    --------
    >>> from lenssr.mass import SIE, Shear
    >>> system = SIE(1.2, e1=0.1) + Shear(0.03, -0.01)
    >>> system.param_names
    ('theta_E_0', 'e1_0', 'e2_0', 'x_0_0', 'y_0_0', 'gamma1_1', 'gamma2_1', 'x_0_1', 'y_0_1')
    >>> system.theta_E.value
    1.2
    """

    def __init__(self, *components):
        flat = []
        for component in components:
            if not isinstance(component, MassModel):
                raise InputError(f"{component!r} is not a mass model: give SIE(...), Shear(...), ...")
            flat += component.components if isinstance(component, MassSystem) else [component]
        if not flat:
            raise InputError("a MassSystem of nothing: give at least one mass model")
        self.components = tuple(flat)
        self.covariance = None
        self.param_names = tuple(f"{name}_{i}" for i, c in enumerate(flat) for name in c.param_names)

    @property
    def needs_prior(self):
        """Whether a component must not be fitted without a prior."""
        return any(component.needs_prior for component in self.components)

    @property
    def parameters(self):
        """The `Parameter` objects of all components, in order."""
        return tuple(parameter for component in self.components for parameter in component.parameters)

    def _validate(self):
        for component in self.components:
            component._validate()

    def _take(self, values, covariance):
        self.covariance = covariance
        for component, part in zip(self.components, self._slices(), strict=True):
            component._take(values[part], None if covariance is None else covariance[part, part])

    def _slices(self):
        start = 0
        for component in self.components:
            yield slice(start, start + len(component.param_names))
            start += len(component.param_names)

    def __getattr__(self, name):
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

    def __setattr__(self, name, value):
        if name in {"components", "covariance", "param_names"}:
            object.__setattr__(self, name, value)
            return
        parameter = getattr(self, name)
        if not isinstance(parameter, Parameter):
            raise AttributeError(f"{name} cannot be set")
        parameter.value = value
        self._validate()

    def __getitem__(self, index):
        return self.components[index]

    def __len__(self):
        return len(self.components)

    def __iter__(self):
        return iter(self.components)

    def _potential(self, x, y, *params):
        return sum(c._potential(x, y, *params[part]) for c, part in zip(self.components, self._slices(), strict=True))

    def _deflection(self, x, y, *params):
        return in_blocks(self._sum_of_deflections, x, y, *params)

    def _sum_of_deflections(self, x, y, *params):
        return self._sum("_deflection", x, y, params)

    def _hessian(self, x, y, *params):
        return self._sum("_hessian", x, y, params)

    def _sum(self, name, x, y, params):
        parts = (
            getattr(component, name)(x, y, *params[part])
            for component, part in zip(self.components, self._slices(), strict=True)
        )
        return tuple(sum(terms[1:], start=terms[0]) for terms in zip(*parts, strict=True))

    def deflection_jacobian_at(self, x, y, params):
        """Deflection and its derivatives by the parameters, for a batch of vectors.

        Parameters
        ----------
        x, y : `torch.Tensor`, broadcastable with (B, R)
            Positions in arcsec.
        params : `torch.Tensor`, shape (B, P)
            One vector a problem.

        Returns
        -------
        alpha_x, alpha_y : `torch.Tensor`, shape (B, R)
        d_alpha_x, d_alpha_y : `torch.Tensor`, shape (B, P, R)
        """
        parts = [
            component.deflection_jacobian_at(x, y, params[..., part])
            for component, part in zip(self.components, self._slices(), strict=True)
        ]
        ax, ay, dax, day = zip(*parts, strict=True)
        return sum(ax[1:], ax[0]), sum(ay[1:], ay[0]), torch.cat(dax, dim=-2), torch.cat(day, dim=-2)

    def __repr__(self):
        return " + ".join(repr(component) for component in self.components)


def _to_array(values):
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu().numpy()
    return np.asarray(values, dtype=np.float64)
