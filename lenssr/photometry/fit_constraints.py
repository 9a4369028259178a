"""Options of a fit, and parameters that a user fixes, bounds or ties, as `astropy.modeling` does."""

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from numbers import Real
from types import SimpleNamespace

import numpy as np
import torch
from astropy.modeling.models import Sersic2D

from lenssr.exceptions import InputError
from lenssr.light.sersic import Sersic
from lenssr.options import PhotometryOptions
from lenssr.photometry.groups import AutoGrouper
from lenssr.photometry.parameters import AXES, LIMITS, SMOOTH, ParameterTransform, group_axes_from_smooth

__all__ = ["FitSettings", "make_transform"]

# Side of a stamp over the separation of galaxies that are fitted together. Chosen: their boxes
# overlap by half.
GROUP_SHARE = 2.5
# Distance in pixels that a centre may move: one that moves farther is on its way to another galaxy. Chosen.
FARTHEST_CENTRE = 10.0
# Smallest ellip at the start: theta has no derivative where a galaxy is round. Chosen.
MIN_START_ELLIP = 0.02
# Parameters of a Sersic2D in the order of `AXES`, and what else users may call them.
NAMES = ("amplitude", *AXES[1:])
ALIASES = {"x": "x_0", "y": "y_0"}
CENTRE = ("x_0", "y_0")


@dataclass(frozen=True, kw_only=True)
class FitSettings(PhotometryOptions):
    """Options of a `~lenssr.SersicPhotometry`; ``templates`` has the constraints of each component."""

    templates: tuple = field(init=False)

    def __post_init__(self):
        super().__post_init__()
        count = self.n_components
        models = list(self.model) if isinstance(self.model, list | tuple) else [self.model] * count
        if len(models) != count:
            raise InputError(f"model has {len(models)} entries for {count} components: give one each")
        if count == 2 and models[1] is None:
            # The disc of a bulge and a disc is exponential; give a model to free it.
            models[1] = Sersic2D(n=1.0, fixed={"n": True})
        given = self.fixed, self.bounds, self.tied
        own = ([_of_component(one or {}, k, count) for k in range(count)] for one in given)
        object.__setattr__(self, "templates", tuple(map(ComponentConstraints, models, *own)))

    @property
    def reach(self):
        """How far a centre may move along x and y, in pixels."""
        return self.xy_bounds or tuple(min(side / 4, FARTHEST_CENTRE) for side in self.box[::-1])

    def make_grouper(self):
        """Callable that groups galaxies by position, or None."""
        return AutoGrouper(min(self.box) / GROUP_SHARE) if self.grouper == "auto" else self.grouper

    def describe(self):
        """The options as plain values, for people; without the PSF and the grouper."""
        names = ("fit_shape", "sky", "n_components", "xy_bounds", "loss", "intervals")
        constraints = [template.describe() for template in self.templates]
        plain = {name: getattr(self, name) for name in names}
        return plain | {"constraints": constraints, "device": str(self.torch_device)}


def _of_component(given, k, count):
    """Entries of a dict by name that concern component ``k``; with two, names may end in _0 or _1."""
    if count == 1:
        return given
    shared = {name: value for name, value in given.items() if name in CENTRE or name[-2:] not in ("_0", "_1")}
    own = {n[:-2]: value for n, value in given.items() if n not in CENTRE and n.endswith(f"_{k}")}
    return shared | own


class ComponentConstraints:
    """Fixed values, bounds and ties of the parameters of one component.

    They come from ``model``, a ``Sersic2D`` or `~lenssr.light.Sersic` in pixels, and from dicts by names of
    ``Sersic2D`` (or ``x``, ``y``), which take precedence over those of the model. ``needs_axes`` says that
    the semi-major axis, ellip and theta have to be the coordinates of the fit, ``involves_amplitude`` that
    the amplitude is constrained, or a tie may depend on it.
    """

    def __init__(self, model, fixed, bounds, tied):
        self.model = model = _as_sersic2d(model) if isinstance(model, Sersic) else model
        if model is not None and not isinstance(model, Sersic2D):
            raise InputError(f"model = {model!r}: give a Sersic2D or a lenssr.Sersic, in pixels")
        for kind, given in (("fixed", fixed), ("bounds", bounds), ("tied", tied)):
            own = dict(getattr(Sersic2D() if model is None else model, kind))
            own |= {ALIASES.get(name, name): value for name, value in given.items()}
            if unknown := own.keys() - set(NAMES):
                raise InputError(f"a Sérsic has no parameter {unknown.pop()!r}: use {', '.join(NAMES)}")
            setattr(self, kind, own)
        for name in NAMES:
            self._check(name)
        self.constrained = {
            name for name in NAMES if self.fixed[name] or self.tied[name] or self.bounds[name] != (None, None)
        }
        ties = any(self.tied.values())
        self.needs_axes = ties or not self.constrained.isdisjoint(("r_eff", "ellip", "theta"))
        self.involves_amplitude = ties or "amplitude" in self.constrained

    def _check(self, name):
        fixed, tied, ends = self.fixed[name], self.tied[name], self.bounds[name]
        if not isinstance(fixed, bool | np.bool_):
            raise InputError(f"fixed[{name!r}] = {fixed!r}: give True or False, and the value in model=")
        if tied and not callable(tied):
            raise InputError(f"tied[{name!r}] = {tied!r}: give a function of the model")
        numbers = [getattr(end, "value", end) for end in ends] if isinstance(ends, Iterable) else []
        if len(numbers) != 2 or any(not (end is None or isinstance(end, Real)) for end in numbers):
            raise InputError(f"bounds[{name!r}] = {ends!r}: give two ends as numbers, None for no end")
        if None not in numbers and not numbers[0] < numbers[1]:
            raise InputError(f"bounds[{name!r}] = {ends!r}: the lower end is not below the upper one")
        self.bounds[name] = tuple(numbers)

    def value(self, name):
        """Value of a parameter in the model; None without a model."""
        return None if self.model is None else float(getattr(self.model, name).value)

    def describe(self):
        """The constraints as plain values."""
        return {
            "fixed": {name: self.value(name) for name in NAMES if self.fixed[name]},
            "bounds": {name: ends for name, ends in self.bounds.items() if ends != (None, None)},
            "tied": [name for name in NAMES if self.tied[name]],
        }


def _as_sersic2d(model):
    """Convert a `~lenssr.light.Sersic` with its constraints; e1 and e2 can only be fixed together."""
    twin = model.to_sersic2d()
    for name in NAMES[:5]:
        old, new, usual = getattr(model, name), getattr(twin, name), getattr(Sersic, name).bounds
        new.fixed, new.tied = old.fixed, old.tied
        pairs = zip(old.bounds, usual, strict=True)
        new.bounds = tuple(None if end == other else end for end, other in pairs)
    if model.e1.fixed != model.e2.fixed:
        raise InputError("fix both e1 and e2 of the model, or neither: else fix ellip or theta of a Sersic2D")
    twin.ellip.fixed = twin.theta.fixed = model.e1.fixed
    return twin


def make_transform(batch, start, *, flux=False):
    """Transform of a batch with the bounds of its free numbers, from smooth coordinates (B, C) to start at.

    ``flux`` asks for axes and for fluxes instead of amplitudes.
    """
    layout, templates = batch.layout, batch.settings.templates
    axes = flux or any(one.needs_axes for one in templates)
    base = group_axes_from_smooth(layout, start, flux=flux) if axes else start.clone()
    started, free = base.clone(), torch.ones(layout.size, dtype=torch.bool, device=base.device)
    lower, upper = _default_bounds(batch, base, axes=axes)
    middle = torch.as_tensor(np.array([task.middle for task in batch.tasks])).to(base)
    alias, ties = {}, []
    places = itertools.product(range(layout.galaxies), enumerate(templates), enumerate(NAMES))
    for galaxy, (component, own), (place, name) in places:
        if name in ("ellip", "theta") and not axes:
            continue
        for column in set(layout.profiles[galaxy, component, :, place].tolist()):
            for end, ends in zip(own.bounds[name], (lower, upper), strict=True):
                if end is not None:
                    ends[:, column] = _coordinate(name, float(end), middle)
            if own.fixed[name]:
                free[column] = False
                if name not in CENTRE:
                    base[:, column] = base.new_tensor(_held_value(batch.tasks, own, name, galaxy))
            elif own.tied[name]:
                ties.append((column, _tie(own.tied[name], layout, galaxy, component, name, middle)))
            elif component and name in CENTRE and name not in own.constrained:
                # By default a bulge and its disc have one centre.
                alias[column] = layout.column(name, galaxy, 0)
    base = torch.where(free, torch.minimum(torch.maximum(base, lower), upper), base)
    transform = ParameterTransform(layout, base, free, axes=axes, flux=flux, alias=alias, ties=ties)
    # Where a bound changed the shape, keep the flux: from a wrong one the fit may find no step downhill.
    kept = base.clone()
    transform.keep_flux(kept, started)
    transform.base = torch.where(free, torch.minimum(torch.maximum(kept, lower), upper), base)
    transform.lower, transform.upper = lower[:, transform.index], upper[:, transform.index]
    return transform


def _default_bounds(batch, base, *, axes):
    """Bounds (B, C) around a start (B, C), whose galaxies are made elongated enough for a fit with axes."""
    lower, upper = torch.full_like(base, -torch.inf), torch.full_like(base, torch.inf)
    limits = LIMITS | {"r_eff": (LIMITS["r_eff"][0], math.log(max(batch.shape) / 2))}
    columns = dict(zip(AXES if axes else SMOOTH, batch.layout.flat[:, 0].T, strict=True))
    for name in limits.keys() & columns.keys():
        lower[:, columns[name]], upper[:, columns[name]] = limits[name]
    for name, reach in zip(CENTRE, batch.settings.reach, strict=True):
        place = base[:, columns[name]]
        lower[:, columns[name]], upper[:, columns[name]] = place - reach, place + reach
    if axes:
        ellip = base[:, columns["ellip"]].clamp_min(MIN_START_ELLIP)
        base[:, columns["ellip"]] = ellip
        # LIMITS holds those of the mean radius; the coordinate here is the semi-major axis.
        for ends in (lower, upper):
            ends[:, columns["r_eff"]] -= torch.log1p(-ellip) / 2
    return lower, upper


def _coordinate(name, value, middle=None):
    """Coordinate of the fit for a parameter of ``Sersic2D``; ``middle`` (..., 2) is that of the stamp."""
    if name in ("amplitude", "r_eff"):
        return math.log(value) if value > 0 else -math.inf
    return value - middle[..., CENTRE.index(name)] if name in CENTRE else value


def _held_value(tasks, own, name, galaxy):
    """Coordinates of a fixed parameter: a list from init_params, else the number of the model."""
    given = np.array([task.sources.guess(name)[task.members[galaxy]] for task in tasks])
    if np.isfinite(given).all():
        return [_coordinate(name, value) for value in given]
    if own.model is None:
        raise InputError(f"{name} is fixed, but nowhere given: give init_params a column {name}, or model=")
    return _coordinate(name, own.value(name))


class _ParameterValue(float):
    """A number that answers like an astropy parameter."""

    value = property(float)


def _tie(function, layout, galaxy, component, name, middle):
    """Coordinates (b,) that a user's function of a model ties, as a function of all coordinates (b, C)."""

    def follow(c, index):
        tied = []
        for row, where in zip(c.tolist(), middle[index], strict=True):
            models = [_parameter_values(row, columns[0], where) for columns in layout.profiles[galaxy]]
            named = {f"{n}_{k}": value for k, values in enumerate(models) for n, value in values.items()}
            values = (named if layout.components > 1 else {}) | models[component]
            tied.append(float(_coordinate(name, float(function(SimpleNamespace(**values))), where)))
        return c.new_tensor(tied)

    return follow


def _parameter_values(row, columns, where):
    """Parameters of a ``Sersic2D`` by name, in pixels of the image, from all coordinates in a list."""
    values = dict(zip(NAMES, (row[column] for column in columns), strict=True))
    values |= {name: math.exp(values[name]) for name in ("amplitude", "r_eff")}
    values |= {name: values[name] + float(place) for name, place in zip(CENTRE, where, strict=True)}
    return {name: _ParameterValue(value) for name, value in values.items()}
