"""What every mass model shares: parameters and the contract of methods."""

import copy
import math

import astropy.units as u
import numpy as np
import torch

from lenssr._plain import as_lists, plain_model
from lenssr.autodiff import forward_jacobian
from lenssr.exceptions import InputError
from lenssr.mass import critical
from lenssr.mass.parameter import Parameter
from lenssr.units import Boundary, strip_unit

__all__ = ["MassModel"]


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
        # a system is itself a model, so it cannot be imported above
        from lenssr.mass.system import MassSystem

        return MassSystem(self, other)

    def __repr__(self):
        values = ", ".join(f"{name}={parameter.value!r}" for name, parameter in self._parameters.items())
        return f"{type(self).__name__}({values})"


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
