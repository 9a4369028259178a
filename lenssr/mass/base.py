"""What every mass model shares, parameters and the contract of methods, and the sum of models."""

import copy
import math

import astropy.units as u
import numpy as np
import torch

from lenssr._plain import as_lists, plain_model, read_models
from lenssr._tensors import forward_jacobian
from lenssr.exceptions import InputError
from lenssr.mass import critical
from lenssr.mass.blocks import lift, plain_numbers, sum_in_blocks
from lenssr.mass.parameter import Parameter
from lenssr.units import Boundary, strip_unit

__all__ = ["MassModel", "MassSystem", "from_dict"]


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

    def _add_deflection(self, ax, ay, x, y, *numbers):
        """Add the deflection in place, for `blocks.sum_in_blocks`; models with a faster way override it."""
        dx, dy = self._deflection(x, y, *numbers)
        ax.add_(dx)
        ay.add_(dy)

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

    def critical_curves(self, extent=None, *, kind="all"):
        """Curves of infinite magnification.

        Parameters
        ----------
        extent : float or `~astropy.units.Quantity`, optional
            Half-width of the square around the origin in which they are searched, on a grid of 200 x 200
            cells, in arcsec; by default where the lens needs it.
        kind : {"all", "tangential", "radial"}, optional
            Which ones.

        Returns
        -------
        curves : list of tuple of array
            One (x, y) a curve, in arcsec (with the unit, if ``extent`` has one); closed curves end
            where they begin. Points are exact to rounding.

        Examples
        --------
        >>> from lenssr.mass import SIS
        >>> [(x, y)] = SIS(1.0).critical_curves()
        >>> bool(abs(x**2 + y**2 - 1).max() < 1e-12)
        True
        """
        return _with_unit(critical.critical_curves(self, _arcsec(extent, "extent"), kind=kind), extent)

    def caustics(self, extent=None, *, kind="all"):
        """Critical curves, mapped to the source plane.

        Parameters
        ----------
        extent : float or `~astropy.units.Quantity`, optional
            As for `critical_curves`.
        kind : {"all", "tangential", "radial"}, optional
            Which ones. Singular isothermal lenses have no radial one (their cut is not a caustic).

        Returns
        -------
        curves : list of tuple of array
            One (x, y) a curve, in arcsec (with the unit, if ``extent`` has one).
        """
        return _with_unit(critical.caustics(self, _arcsec(extent, "extent"), kind=kind), extent)

    def image_positions(self, x, y, *, extent=None):
        """Images of a point source.

        Parameters
        ----------
        x, y : float, `~astropy.units.Quantity` or `torch.Tensor`
            One position in the source plane; arcsec if bare.
        extent : float or `~astropy.units.Quantity`, optional
            Half-width of the square around the origin in which they are searched, in arcsec; by default all
            the field that the lens needs.

        Returns
        -------
        x, y : like the source position, 1-D
            The images, the most magnified first. They solve the lens equation to 1e-10 arcsec.

        Notes
        -----
        Triangles of a grid, divided further along critical curves and at centres, are mapped to the source
        plane; those that hold the source start Newton's method. Pairs of images closer than about 1e-4 of
        the field's width may be missed. The image that a capped singular centre would make is left out.
        """
        boundary = Boundary(x, y)
        if any(tensor.numel() != 1 for tensor in boundary.tensors):
            raise InputError("image_positions takes one source position: call it for each")
        source = tuple(float(tensor.detach()) for tensor in boundary.tensors)
        if not all(math.isfinite(value) for value in source):
            raise InputError(f"source position {source} is refused: give finite numbers")
        images = critical.image_positions(self, source, _arcsec(extent, "extent"))
        like = boundary.tensors[0]
        return tuple(boundary.leave(torch.as_tensor(a).to(like), u.arcsec) for a in images)

    def einstein_radius(self, extent=None):
        """Effective Einstein radius: of the circle as large as the outermost tangential critical curve.

        For an isothermal ellipsoid it is ``theta_E``, whatever its ellipticity; a shear changes it in second
        order.

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
        return critical.einstein_radius(self, _arcsec(extent, "extent")) * u.arcsec

    # What critical.py knows of a model: where it is evaluated, where its centres are, and the
    # (x, y, half-width) it is limited to, if it is.
    _field = None

    def _evaluate_plain(self, name, x, y):
        tensors = tuple(torch.as_tensor(np.asarray(a, dtype=np.float64)) for a in (x, y))
        return getattr(self, name)(*tensors, *self.vector.unbind())

    def _centres(self):
        if "x_0" not in self.param_names:
            return []
        return [(self._parameters["x_0"].value, self._parameters["y_0"].value)]

    def to_dict(self):
        """Describe the model in plain numbers and strings, ready for YAML; all of it, to the last digit.

        Returns
        -------
        description : dict or list of dict
            ``{"SIE": {"theta_E": 1.2, ...}}``, with the names of ``fixed`` parameters and ``bounds`` where
            they are not the usual ones, and ``std`` and ``covariance`` where a fit made some. A list of those
            for a system, with ``{"covariance": ...}`` as its last entry where a fit made one; a system of one
            is ``{"MassSystem": {"components": [...]}}``.

        See Also
        --------
        lenssr.mass.from_dict : The way back.

        Examples
        --------
        >>> from lenssr.mass import SIE
        >>> SIE(1.2, e1=0.1).to_dict()
        {'SIE': {'theta_E': 1.2, 'e1': 0.1, 'e2': 0.0, 'x_0': 0.0, 'y_0': 0.0}}
        """
        return as_lists(self._plain())

    def _plain(self):
        """The model as `to_dict` has it, maps and covariance as arrays."""
        return plain_model(self)

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

    @property
    def _field(self):
        fields = [component._field for component in self.components if component._field is not None]
        return min(fields, key=lambda field: field[2]) if fields else None

    def _centres(self):
        return [centre for component in self.components for centre in component._centres()]

    def _plain(self):
        """The system as `to_dict` has it; its covariance, last, holds those of its components."""
        parts = [component._plain() for component in self.components]
        if self.covariance is not None:
            for part in parts:
                for entry in part.values():
                    entry.pop("covariance", None)
            parts.append({"covariance": np.asarray(self.covariance)})
        # A list of one model is that model.
        return {"MassSystem": {"components": parts}} if len(self) == 1 else parts

    def _potential(self, x, y, *params):
        return sum(
            c._potential(x, y, *params[part]) for c, part in zip(self.components, self._slices(), strict=True)
        )

    def _deflection(self, x, y, *params):
        x, y, *params = lift(x, y, *params)
        numbers = plain_numbers(x, y, *params)
        if numbers is None:
            return self._sum("_deflection", x, y, params)
        terms = zip(self.components, self._slices(), strict=True)
        return sum_in_blocks(x, y, *((c._add_deflection, numbers[part]) for c, part in terms))

    def _hessian(self, x, y, *params):
        return self._sum("_hessian", x, y, params)

    def _sum(self, name, x, y, params):
        parts = (
            getattr(component, name)(x, y, *params[part])
            for component, part in zip(self.components, self._slices(), strict=True)
        )
        return tuple(sum(terms[1:], start=terms[0]) for terms in zip(*parts, strict=True))

    def deflection_jacobian_at(self, x, y, params):
        """Deflection and its derivatives by the parameters, as for one model."""
        parts = [
            component.deflection_jacobian_at(x, y, params[..., part])
            for component, part in zip(self.components, self._slices(), strict=True)
        ]
        ax, ay, dax, day = zip(*parts, strict=True)
        return sum(ax[1:], ax[0]), sum(ay[1:], ay[0]), torch.cat(dax, dim=-2), torch.cat(day, dim=-2)

    def __repr__(self):
        return " + ".join(repr(component) for component in self.components)


def from_dict(description):
    """Build a mass model, or a system, from plain numbers and strings.

    Parameters
    ----------
    description : dict or list of dict
        ``{"SIE": {"theta_E": 1.2, "e1": 0.1}}``: names of models and their parameters, in arcsec or as
        strings with a unit (``"1.2 arcsec"``). Elliptical models also take ``q`` and ``phi``
        (``"30 deg"``). Two more keys for fits: ``fixed``, a list of parameters that stay as they are, and
        ``bounds``, a dictionary of pairs; two that a fit has written: ``std``, a dictionary of errors, and
        ``covariance``, nested lists. Several models make a system; a last entry ``{"covariance": ...}`` is
        that of all its parameters. Models of your own are found by name once they are imported.

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
        raise InputError(
            f'{description!r} describes no lens: give {{"SIE": {{"theta_E": 1.2}}}} or a list of such'
        )
    if list(entries[0]) == ["MassSystem"]:
        return _system(**entries[0]["MassSystem"])
    if len(entries) > 1:
        return _system(entries)
    return read_models(entries, MassModel, "mass model")[0]


def _system(components, covariance=None):
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


def _arcsec(value, name):
    return None if value is None else strip_unit(value, u.arcsec, name)


def _with_unit(curves, like):
    return (
        [tuple(a * u.arcsec for a in curve) for curve in curves] if isinstance(like, u.Quantity) else curves
    )


def _to_array(values):
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu().numpy()
    return np.asarray(values, dtype=np.float64)
