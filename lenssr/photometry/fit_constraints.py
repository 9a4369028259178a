"""Parameters that a user fixes, bounds or ties, as `astropy.modeling` does."""

import math
from numbers import Real

import astropy.units as u
import numpy as np
import torch
from astropy.modeling.models import Sersic2D

from lenssr.exceptions import InputError
from lenssr.light.sersic import Sersic
from lenssr.photometry.parameters import (
    LIMITS,
    SHAPE,
    ParameterTransform,
    group_axes_from_smooth,
    log_unit_flux,
)

__all__ = ["ComponentConstraints", "make_transform"]

SERSIC2D_NAMES = ("amplitude", *SHAPE)
_ALIASES = {"x": "x_0", "y": "y_0"}
_AXES = ("r_eff", "ellip", "theta")
# Smallest ellip at the start: theta has no derivative where a galaxy is round. Chosen.
MIN_START_ELLIP = 0.02


class ComponentConstraints:
    """Fixed values, bounds and ties of the parameters of one component.

    They come from ``model``, a ``Sersic2D`` or `~lenssr.light.Sersic` in pixels, and from dicts by names of
    ``Sersic2D`` (or ``x``, ``y``), which take precedence over those of the model.
    """

    def __init__(self, model=None, *, fixed=None, bounds=None, tied=None):
        if isinstance(model, Sersic):
            model = _as_sersic2d(model)
        if model is not None and not isinstance(model, Sersic2D):
            raise InputError(f"model = {model!r}: give a Sersic2D or a lenssr.Sersic, in pixels")
        self.model = model
        self.fixed = {name: bool(getattr(model, name).fixed) if model else False for name in SERSIC2D_NAMES}
        self.bounds = {
            name: getattr(model, name).bounds if model else (None, None) for name in SERSIC2D_NAMES
        }
        self.tied = {name: getattr(model, name).tied if model else False for name in SERSIC2D_NAMES}
        for given, own in ((fixed, self.fixed), (bounds, self.bounds), (tied, self.tied)):
            for name, value in (given or {}).items():
                name = _ALIASES.get(name, name)
                if name not in SERSIC2D_NAMES:
                    raise InputError(
                        f"{name!r} is not a parameter of a Sérsic: use one of {', '.join(SERSIC2D_NAMES)}"
                    )
                own[name] = value
        for name in SERSIC2D_NAMES:
            self._check(name)

    def _check(self, name):
        fixed, tied, ends = self.fixed[name], self.tied[name], self.bounds[name]
        if not isinstance(fixed, bool | np.bool_):
            raise InputError(f"fixed[{name!r}] = {fixed!r}: give True or False, and the value in model=")
        if tied and not callable(tied):
            raise InputError(f"tied[{name!r}] = {tied!r}: give a function of the model")
        try:
            low, high = ends
        except TypeError:
            raise InputError(f"bounds[{name!r}] = {ends!r}: give two ends, None for no end") from None
        if any(not (end is None or isinstance(end, Real | u.Quantity)) for end in ends):
            raise InputError(f"bounds[{name!r}] = {ends!r}: give two numbers, None for no end")
        low, high = (getattr(end, "value", end) for end in ends)
        if low is not None and high is not None and not low < high:
            raise InputError(f"bounds[{name!r}] = {ends!r}: the lower end is not below the upper one")
        self.bounds[name] = low, high

    @property
    def needs_axes(self):
        """Whether the semi-major axis, ellip and theta have to be the coordinates of the fit."""
        return any(self.tied.values()) or any(
            self.fixed[name] or self.bounds[name] != (None, None) for name in _AXES
        )

    @property
    def involves_amplitude(self):
        """Whether the amplitude is fixed, bounded or tied, or a tie may depend on it."""
        return any(self.tied.values()) or self.fixed["amplitude"] or self.bounds["amplitude"] != (None, None)

    def value_if_fixed(self, name, other):
        """The value in the model of a fixed parameter, else ``other``."""
        if self.model is None or not self.fixed[name]:
            return other
        return np.full_like(other, float(getattr(self.model, name).value))

    def describe(self):
        """The constraints as plain values."""
        return {
            "fixed": {n: self._value(n) for n in SERSIC2D_NAMES if self.fixed[n]},
            "bounds": {n: ends for n, ends in self.bounds.items() if ends != (None, None)},
            "tied": [n for n in SERSIC2D_NAMES if self.tied[n]],
        }

    def _value(self, name):
        return None if self.model is None else float(getattr(self.model, name).value)


def _as_sersic2d(model):
    """Convert a `~lenssr.light.Sersic` with its constraints; e1 and e2 can only be fixed together."""
    twin = model.to_sersic2d()
    for name in ("amplitude", "r_eff", "n", "x_0", "y_0"):
        old, new = getattr(model, name), getattr(twin, name)
        usual = getattr(Sersic, name).bounds
        new.fixed, new.tied = old.fixed, old.tied
        new.bounds = tuple(
            None if end == common else end for end, common in zip(old.bounds, usual, strict=True)
        )
    if model.e1.fixed != model.e2.fixed:
        raise InputError(
            "e1 and e2 of the model must both be fixed, or both free: fix ellip or theta of a Sersic2D"
        )
    twin.ellip.fixed = twin.theta.fixed = model.e1.fixed
    return twin


def make_transform(problem, start, *, flux=False):
    """Transform of a batch with the bounds of its free numbers, from smooth coordinates (B, C) to start at.

    ``flux`` asks for axes and for fluxes instead of amplitudes.
    """
    layout, constraints = problem.layout, problem.settings.templates
    axes = flux or any(one.needs_axes for one in constraints)
    base = group_axes_from_smooth(layout, start, flux=flux) if axes else start.clone()
    started, kind = base.clone(), {"axes": axes, "flux": flux}
    free = torch.ones(layout.size, dtype=torch.bool, device=base.device)
    lower, upper = torch.full_like(base, -torch.inf), torch.full_like(base, torch.inf)
    middle = torch.as_tensor(np.array([task.middle for task in problem.tasks])).to(base)
    alias, ties = {}, []
    for galaxy in range(layout.galaxies):
        for component, own in enumerate(constraints):
            place = layout, galaxy, component
            _default_bounds(place, problem, base, lower, upper, axes)
            for name in SERSIC2D_NAMES:
                if name in ("ellip", "theta") and not axes:
                    continue
                for column in _parameter_columns(place, name):
                    _own_bounds(own, name, column, middle, lower, upper)
                    if own.fixed[name]:
                        _hold(problem, own, name, column, galaxy, base)
                        free[column] = False
                    elif own.tied[name]:
                        ties.append((column, _tie(own.tied[name], place, name, column, middle)))
            if component:
                # By default a bulge and its disc have one centre.
                for name in ("x_0", "y_0"):
                    if not own.fixed[name] and not own.tied[name] and own.bounds[name] == (None, None):
                        alias[layout.column(name, galaxy, component)] = layout.column(name, galaxy, 0)
    base = torch.where(free, torch.minimum(torch.maximum(base, lower), upper), base)
    for first in layout.starts:
        # Where a bound changed the shape, keep the flux: from a wrong one the fit may find no step downhill.
        bright = [column for column in range(first, first + layout.bands) if free[column]]
        lost = log_unit_flux(layout, started, first, **kind) - log_unit_flux(layout, base, first, **kind)
        base[:, bright] = (base[:, bright] + lost.unsqueeze(1)).clamp(lower[:, bright], upper[:, bright])
    transform = ParameterTransform(layout, base, free, alias=alias, ties=ties, **kind)
    transform.lower, transform.upper = lower[:, transform.index], upper[:, transform.index]
    return transform


def _parameter_columns(place, name):
    layout, galaxy, component = place
    if name == "amplitude":
        return [layout.column("bright", galaxy, component, band) for band in range(layout.bands)]
    return [layout.column(name, galaxy, component)]


def _default_bounds(place, problem, base, lower, upper, axes):
    layout, galaxy, component = place
    reach = problem.settings.reach
    limits = LIMITS | {"r_eff": (LIMITS["r_eff"][0], math.log(max(problem.shape) / 2))}
    for name in ("r_eff", "n", *(("ellip",) if axes else ("e1", "e2"))):
        column = layout.column(name, galaxy, component)
        lower[:, column], upper[:, column] = limits[name]
    for name, length in zip(("x_0", "y_0"), reach, strict=True):
        column = layout.column(name, galaxy, component)
        lower[:, column], upper[:, column] = base[:, column] - length, base[:, column] + length
    if axes:
        column = layout.column("ellip", galaxy, component)
        base[:, column] = base[:, column].clamp_min(MIN_START_ELLIP)
        # LIMITS holds those of the mean radius; the coordinate here is the semi-major axis.
        longer = torch.log1p(-base[:, column]) / 2
        for ends in (lower, upper):
            ends[:, layout.column("r_eff", galaxy, component)] -= longer


def _own_bounds(own, name, column, middle, lower, upper):
    for end, ends in zip(own.bounds[name], (lower, upper), strict=True):
        if end is not None:
            ends[:, column] = _coordinate(name, float(end), middle)


def _coordinate(name, value, middle):
    """Coordinate of the fit for a parameter of ``Sersic2D``."""
    if name in ("amplitude", "r_eff"):
        return math.log(value) if value > 0 else -math.inf
    if name in ("x_0", "y_0"):
        return value - middle[:, ("x_0", "y_0").index(name)]
    return value


def _hold(problem, own, name, column, galaxy, base):
    """Set a fixed parameter to its value in init_params, else to that in the model."""
    given = np.array([task.sources.guess(name)[task.members[galaxy]] for task in problem.tasks])
    if name in ("x_0", "y_0") or (np.isfinite(given).all() and name in ("amplitude", "n")):
        return
    if np.isfinite(given).all():
        base[:, column] = torch.as_tensor([_coordinate(name, value, None) for value in given]).to(base)
        return
    if own.model is None:
        raise InputError(
            f"{name} is fixed, but nothing says where: give a column {name} in init_params, or model="
        )
    base[:, column] = _coordinate(name, float(getattr(own.model, name).value), None)


class _ParameterValue(float):
    """A number that answers like an astropy parameter."""

    @property
    def value(self):
        return float(self)


class _TieArguments:
    """Parameters of one galaxy as attributes, as a tie of astropy expects them."""

    def __init__(self, values):
        self.__dict__.update(values)


def _tie(function, place, name, column, middle):
    layout, galaxy, component = place

    def follow(c, index):
        result = torch.empty(len(c), dtype=c.dtype)
        for i, row in enumerate(c.tolist()):
            where = middle[index][i].tolist()
            views = [_tie_arguments(layout, row, galaxy, k, where) for k in range(layout.components)]
            values = {n: _ParameterValue(v) for n, v in views[component].items()}
            if layout.components > 1:
                values |= {
                    f"{n}_{k}": _ParameterValue(v) for k, one in enumerate(views) for n, v in one.items()
                }
            value = float(function(_TieArguments(values)))
            result[i] = _coordinate(name, value, torch.tensor([where]))
        return result.to(c)

    return follow


def _tie_arguments(layout, row, galaxy, component, where):
    values = {n: row[layout.column(n, galaxy, component)] for n in SHAPE}
    values["amplitude"] = math.exp(row[layout.column("bright", galaxy, component)])
    values["r_eff"] = math.exp(values["r_eff"])
    values["x_0"], values["y_0"] = values["x_0"] + where[0], values["y_0"] + where[1]
    return values
