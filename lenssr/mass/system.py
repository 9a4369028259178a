"""Sums of mass models."""

import numpy as np
import torch

from lenssr.exceptions import InputError
from lenssr.mass.base import MassModel
from lenssr.mass.blocks import lift, plain_numbers, sum_in_blocks
from lenssr.mass.parameter import Parameter

__all__ = ["MassSystem"]


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
