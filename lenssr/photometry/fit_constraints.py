"""Parameters that a user holds, bounds or ties, in the manner of `astropy.modeling`."""

import math
from numbers import Real

import astropy.units as u
import numpy as np
import torch
from astropy.modeling.models import Sersic2D

from lenssr.exceptions import InputError
from lenssr.light.sersic import Sersic
from lenssr.photometry.parameters import LIMITS, SHAPE, Space, theta_turned, unit_flux

__all__ = ["Constraints", "make_space"]

NAMES = ("amplitude", *SHAPE)
_ALIASES = {"x": "x_0", "y": "y_0"}
_AXES = ("r_eff", "ellip", "theta")
# A start that is exactly round has no direction to begin with.
LEAST_ELLIP = 0.02


class Constraints:
    """What a user says of the parameters of one component.

    Parameters
    ----------
    model : `~astropy.modeling.functional_models.Sersic2D` or `~lenssr.light.Sersic`, optional
        Whose ``fixed``, ``bounds``, ``tied`` and values hold, in pixels.
    fixed, bounds, tied : dict, optional
        As `~astropy.modeling.Model` takes them, by names of ``Sersic2D`` (``x`` and ``y`` will do); they
        add to those of the model.
    """

    def __init__(self, model=None, *, fixed=None, bounds=None, tied=None):
        if isinstance(model, Sersic):
            model = _as_sersic2d(model)
        if model is not None and not isinstance(model, Sersic2D):
            raise InputError(f"model = {model!r}: give a Sersic2D or a lenssr.Sersic, in pixels")
        self.model = model
        self.fixed = {name: bool(getattr(model, name).fixed) if model else False for name in NAMES}
        self.bounds = {name: getattr(model, name).bounds if model else (None, None) for name in NAMES}
        self.tied = {name: getattr(model, name).tied if model else False for name in NAMES}
        for given, own in ((fixed, self.fixed), (bounds, self.bounds), (tied, self.tied)):
            for name, value in (given or {}).items():
                name = _ALIASES.get(name, name)
                if name not in NAMES:
                    raise InputError(f"{name!r} is no parameter of a Sérsic: use one of {', '.join(NAMES)}")
                own[name] = value
        for name in NAMES:
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
    def axes(self):
        """Whether they need the semi-major axis, ellip and theta as coordinates."""
        return any(self.tied.values()) or any(
            self.fixed[name] or self.bounds[name] != (None, None) for name in _AXES
        )

    @property
    def bright(self):
        """Whether they speak of the amplitude, or of what may follow from it."""
        return any(self.tied.values()) or self.fixed["amplitude"] or self.bounds["amplitude"] != (None, None)

    def held(self, name, other):
        """The value of the model for a parameter that is fixed, else ``other``."""
        if self.model is None or not self.fixed[name]:
            return other
        return np.full_like(other, float(getattr(self.model, name).value))

    def describe(self):
        """The constraints as plain values."""
        return {
            "fixed": {n: self._value(n) for n in NAMES if self.fixed[n]},
            "bounds": {n: ends for n, ends in self.bounds.items() if ends != (None, None)},
            "tied": [n for n in NAMES if self.tied[n]],
        }

    def _value(self, name):
        return None if self.model is None else float(getattr(self.model, name).value)


def _as_sersic2d(model):
    """Carry a lenssr model with its constraints over; ellipticities have no counterpart one by one."""
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


def make_space(problem, start, *, flux=False):
    """The space of a batch, and the bounds of its coordinates.

    Parameters
    ----------
    problem : `~lenssr.photometry.task_batch.Batch`
    start : `torch.Tensor`, shape (B, C)
        Coordinates to begin with, of the smooth kind.
    flux : bool, optional
        Whether the space has axes in any case, and fluxes instead of amplitudes; by default not.

    Returns
    -------
    space : `Space`
    """
    layout, constraints = problem.layout, problem.settings.templates
    axes = flux or any(one.axes for one in constraints)
    base = theta_turned(layout, start, flux=flux) if axes else start.clone()
    begun, kind = base.clone(), {"axes": axes, "flux": flux}
    free = torch.ones(layout.size, dtype=torch.bool, device=base.device)
    lower, upper = torch.full_like(base, -torch.inf), torch.full_like(base, torch.inf)
    middle = torch.as_tensor(np.array([task.middle for task in problem.tasks])).to(base)
    alias, ties = {}, []
    for galaxy in range(layout.galaxies):
        for component, own in enumerate(constraints):
            place = layout, galaxy, component
            _default_bounds(place, problem, base, lower, upper, axes)
            for name in NAMES:
                if name in ("ellip", "theta") and not axes:
                    continue
                for column in _columns(place, name):
                    _own_bounds(own, name, column, middle, lower, upper)
                    if own.fixed[name]:
                        _hold(problem, own, name, column, galaxy, base)
                        free[column] = False
                    elif own.tied[name]:
                        ties.append((column, _tie(own.tied[name], place, name, column, middle)))
            if component:
                # A bulge sits in its disc unless the user says otherwise.
                for name in ("x_0", "y_0"):
                    if not own.fixed[name] and not own.tied[name] and own.bounds[name] == (None, None):
                        alias[layout.column(name, galaxy, component)] = layout.column(name, galaxy, 0)
    base = torch.where(free, torch.minimum(torch.maximum(base, lower), upper), base)
    for first in layout.starts:
        # A shape that a bound moved keeps its light: with a wrong one no step may be found to take.
        bright = [column for column in range(first, first + layout.bands) if free[column]]
        lost = unit_flux(layout, begun, first, **kind) - unit_flux(layout, base, first, **kind)
        base[:, bright] = (base[:, bright] + lost.unsqueeze(1)).clamp(lower[:, bright], upper[:, bright])
    space = Space(layout, base, free, alias=alias, ties=ties, **kind)
    space.lower, space.upper = lower[:, space.index], upper[:, space.index]
    return space


def _columns(place, name):
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
        base[:, column] = base[:, column].clamp_min(LEAST_ELLIP)
        # The limits are those of the mean radius, whatever the coordinate is.
        longer = torch.log1p(-base[:, column]) / 2
        for ends in (lower, upper):
            ends[:, layout.column("r_eff", galaxy, component)] -= longer


def _own_bounds(own, name, column, middle, lower, upper):
    for end, ends in zip(own.bounds[name], (lower, upper), strict=True):
        if end is not None:
            ends[:, column] = _coordinate(name, float(end), middle)


def _coordinate(name, value, middle):
    """A parameter of ``Sersic2D`` as a coordinate."""
    if name in ("amplitude", "r_eff"):
        return math.log(value) if value > 0 else -math.inf
    if name in ("x_0", "y_0"):
        return value - middle[:, ("x_0", "y_0").index(name)]
    return value


def _hold(problem, own, name, column, galaxy, base):
    """Put a fixed parameter where init_params has it, else where the model does."""
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


class _Number(float):
    """A number that answers like an astropy parameter."""

    @property
    def value(self):
        return float(self)


class _View:
    """Parameters of one galaxy under the names that a tie of astropy expects."""

    def __init__(self, values):
        self.__dict__.update(values)


def _tie(function, place, name, column, middle):
    layout, galaxy, component = place

    def follow(c, index):
        result = torch.empty(len(c), dtype=c.dtype)
        for i, row in enumerate(c.tolist()):
            where = middle[index][i].tolist()
            views = [_view(layout, row, galaxy, k, where) for k in range(layout.components)]
            values = {n: _Number(v) for n, v in views[component].items()}
            if layout.components > 1:
                values |= {f"{n}_{k}": _Number(v) for k, one in enumerate(views) for n, v in one.items()}
            value = float(function(_View(values)))
            result[i] = _coordinate(name, value, torch.tensor([where]))
        return result.to(c)

    return follow


def _view(layout, row, galaxy, component, where):
    values = {n: row[layout.column(n, galaxy, component)] for n in SHAPE}
    values["amplitude"] = math.exp(row[layout.column("bright", galaxy, component)])
    values["r_eff"] = math.exp(values["r_eff"])
    values["x_0"], values["y_0"] = values["x_0"] + where[0], values["y_0"] + where[1]
    return values
