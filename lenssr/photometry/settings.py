"""Options of `~lenssr.SersicPhotometry`, checked."""

from dataclasses import dataclass
from numbers import Real

import numpy as np

from lenssr.devices import choose_device
from lenssr.exceptions import InputError
from lenssr.photometry.fit_constraints import ComponentConstraints
from lenssr.photometry.groups import AutoGrouper
from lenssr.photometry.robust import LOSSES

__all__ = ["Settings", "checked_grouper", "checked_pair", "checked_settings"]

# Of the side of a stamp: galaxies nearer to each other are fitted together.
GROUP_SHARE = 2.5
# A centre that moves farther than this many pixels is on its way to another galaxy.
REACH = 10.0
INTERVALS = ("auto", "gaussian", "profile")
AUTO_SHAPE = (51, 51)
SKIES = ("constant", None)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Options of `SersicPhotometry`, checked.

    Attributes are those of the class; ``templates`` holds the constraints of each component, and
    ``grows`` says that boxes may be larger than ``fit_shape``.
    """

    fit_shape: tuple
    grows: bool
    sky: str | None
    n_components: int
    templates: tuple
    xy_bounds: tuple | None
    loss: str | None
    intervals: str
    device: str

    @property
    def torch_device(self):
        """The device that "auto" stands for here."""
        return choose_device(self.device)

    @property
    def reach(self):
        """How far a centre may move along x and y, in pixels."""
        return self.xy_bounds or tuple(min(side / 4, REACH) for side in self.fit_shape[::-1])


def checked_settings(*, fit_shape, sky, n_components, constraints, xy_bounds, loss, intervals, device):
    """Make `Settings` of what a user gives.

    Parameters
    ----------
    fit_shape, sky, n_components, xy_bounds, loss, intervals, device
        As `~lenssr.SersicPhotometry` takes them.
    constraints : tuple
        Its model, fixed, bounds and tied.

    Returns
    -------
    settings : `Settings`

    Raises
    ------
    InputError
        If an option has no meaning.
    """
    grows = isinstance(fit_shape, str) and fit_shape == "auto"
    fit_shape = AUTO_SHAPE if grows else checked_pair(fit_shape, "fit_shape", integer=True)
    if sky not in SKIES:
        raise InputError(f"sky = {sky!r}: give 'constant' or None")
    if n_components not in (1, 2):
        raise InputError(f"n_components = {n_components!r}: give 1, or 2 for a bulge and a disc")
    if loss is not None and loss not in LOSSES:
        raise InputError(f"loss = {loss!r}: give {', '.join(map(repr, LOSSES))} or None")
    if intervals not in INTERVALS:
        raise InputError(f"intervals = {intervals!r}: give one of {', '.join(map(repr, INTERVALS))}")
    choose_device(device)
    return Settings(
        fit_shape=fit_shape,
        grows=grows,
        sky=sky,
        n_components=n_components,
        templates=_templates(*constraints, n_components),
        xy_bounds=None if xy_bounds is None else checked_pair(xy_bounds, "xy_bounds"),
        loss=loss,
        intervals=intervals,
        device=device,
    )


def checked_pair(value, name, *, integer=False):
    """One or two positive numbers as a pair.

    Parameters
    ----------
    value : number or tuple of number
    name : str
        What a message calls it.
    integer : bool, optional
        Whether only integers are taken; by default not.

    Returns
    -------
    pair : tuple of float or int
    """
    values = (value, value) if np.ndim(value) == 0 else tuple(value)
    good = len(values) == 2 and all(isinstance(v, Real) and np.isfinite(v) and v > 0 for v in values)
    if not good or (integer and any(int(v) != v for v in values)):
        raise InputError(
            f"{name} = {value!r}: give one or two positive {'integers' if integer else 'numbers'}"
        )
    return tuple(int(v) if integer else float(v) for v in values)


def _templates(model, fixed, bounds, tied, count):
    """ComponentConstraints of each component."""
    models = list(model) if isinstance(model, list | tuple) else [model] * count
    if len(models) != count:
        raise InputError(f"model has {len(models)} entries for {count} components: give one each")
    options = []
    for k in range(count):
        own = {}
        for name, given in (("fixed", fixed), ("bounds", bounds), ("tied", tied)):
            given = given or {}
            mine = {
                key: v
                for key, v in given.items()
                if count == 1 or key[-2:] not in ("_0", "_1") or key in ("x_0", "y_0")
            }
            if count > 1:
                mine |= {
                    key[:-2]: v
                    for key, v in given.items()
                    if key.endswith(f"_{k}") and key not in ("x_0", "y_0")
                }
            own[name] = mine
        options.append(own)
    if count == 2 and models[1] is None:
        from astropy.modeling.models import Sersic2D

        # The disc of a bulge and a disc is exponential; give a model to free it.
        models[1] = Sersic2D(n=1.0, fixed={"n": True})
    return tuple(ComponentConstraints(one, **own) for one, own in zip(models, options, strict=True))


def checked_grouper(grouper, fit_shape):
    """What says which galaxies are fitted together.

    Parameters
    ----------
    grouper : callable, "auto" or None
    fit_shape : tuple of int

    Returns
    -------
    grouper : callable or None
    """
    if isinstance(grouper, str):
        if grouper != "auto":
            raise InputError(f"grouper = {grouper!r}: give a photutils SourceGrouper, 'auto' or None")
        return AutoGrouper(min(fit_shape) / GROUP_SHARE)
    if grouper is not None and not callable(grouper):
        raise InputError(f"grouper = {grouper!r}: give a photutils SourceGrouper, 'auto' or None")
    return grouper
