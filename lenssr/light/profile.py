"""What a fit asks of a light profile: names, bounds, brightness and derivatives of one parameter vector."""

import copy
from abc import ABC, abstractmethod

import astropy.units as u
import numpy as np
import torch

from lenssr.exceptions import InputError

__all__ = ["LightProfile"]

# Amplitudes and fluxes are positive in whatever unit the image has.
FAINTEST = 1e-60


class LightProfile(ABC):
    """One component of light in a fit: the contract between ``lenssr.model`` and a profile.

    A profile describes its parameters as a vector of fixed length, in arcsec and the unit of the image, and
    works on batches of such vectors. To add one, write its pure functions and its astropy model in a file of
    their own and its `LightProfile` beside it; nothing else needs to know it.

    Parameters
    ----------
    given : `~astropy.modeling.Model`, optional
        A model that the user handed over: the fit starts there, and honours its ``fixed`` and ``bounds``.
    crowded : bool, optional
        Whether other free profiles share the light, which makes weak priors necessary; by default not.

    Attributes
    ----------
    names : tuple of str
        Parameters of the vector, named as those of the model.
    log : tuple of bool
        Which of them a fit takes the logarithm of, because they must stay positive.
    centre : tuple of int
        Where x_0 and y_0 stand in the vector.
    prior : tuple of float
        Standard deviations of Gaussian priors around the start, in fit variables (of the logarithm where
        ``log`` is set); infinite for none.
    """

    names = ()
    log = ()
    centre = (0, 1)
    # Which parameters scale with the flux, and their unit over that of the flux.
    bright, bright_unit = (), u.dimensionless_unscaled

    def __init__(self, given=None, *, crowded=False):
        self.given, self.crowded = given, crowded
        if given is not None:
            _check_constraints(given)

    @property
    def prior(self):
        """Standard deviations of the priors; none by default."""
        return (torch.inf,) * len(self.names)

    @property
    def plain(self):
        """Whether this is just what a search begins with: a Sérsic of which nothing is known."""
        return False

    @property
    def free(self):
        """Which parameters are fitted, as a tuple of bool."""
        if self.given is None:
            return (True,) * len(self.names)
        return tuple(not getattr(self.given, name).fixed for name in self.names)

    def bounds(self, extent, share=1.0):
        """Ends of the parameters in a fit: the user's where there are some, else those of the profile.

        Parameters
        ----------
        extent : float
            Half the field in arcsec.
        share : float, optional
            How much of it the profile may fill, by default all.

        Returns
        -------
        lower, upper : list of float
        """
        lower, upper = self._default_bounds(extent, share)
        if self.given is None:
            return lower, upper
        for k, name in enumerate(self.names):
            low, high = self.own_bounds(name)
            start = float(self.given_vector[k])
            # A start beyond what the profile expects is the user's choice.
            lower[k] = min(lower[k], start) if low is None else low
            upper[k] = max(upper[k], start) if high is None else high
            if self.log[k]:
                lower[k] = max(lower[k], FAINTEST)
        return lower, upper

    @abstractmethod
    def _default_bounds(self, extent, share):
        """Ends of the parameters where nobody sets them; see `bounds`."""

    @abstractmethod
    def brightness(self, x, y, parameters):
        """Surface brightness.

        Parameters
        ----------
        x, y : `torch.Tensor`, shape (R,) or (B, R)
        parameters : `torch.Tensor`, shape (B, P)

        Returns
        -------
        brightness : `torch.Tensor`, shape (B, R)
        """

    @abstractmethod
    def jacobian(self, x, y, parameters, cusp=0.0):
        """Surface brightness and its derivatives.

        Parameters
        ----------
        x, y : `torch.Tensor`, shape (R,) or (B, R)
        parameters : `torch.Tensor`, shape (B, P)
        cusp : float, optional
            Closer to a cusp than this, in arcsec, derivatives with respect to the position are zero.

        Returns
        -------
        brightness, d_dx, d_dy : `torch.Tensor`, shape (B, R)
        d_dp : `torch.Tensor`, shape (B, P, R)
            Not shared with anything: the caller may overwrite it.
        """

    def start(self, sersic, rank=0, count=1):
        """Where a fit begins, from a Sérsic already fitted to all the light.

        Parameters
        ----------
        sersic : `torch.Tensor`, shape (B, 7)
            As `~lenssr.light.sersic_brightness` takes it.
        rank, count : int, optional
            The light is shared by ``count`` profiles, of which this is number ``rank``, the compact ones
            first; by default it has all.

        Returns
        -------
        parameters : `torch.Tensor`, shape (B, P)
        """
        if self.given is None:
            return self._start(sersic, rank, count)
        return self.given_vector.to(sersic).expand(len(sersic), -1).clone()

    @abstractmethod
    def _start(self, sersic, rank, count):
        """Where a fit begins if no model was given; see `start`."""

    @property
    def given_vector(self):
        """The parameters of the given model, shape (P,), in its own unit of flux."""
        return self.given.vector

    def in_unit(self, unit):
        """Return the profile with its given model in another unit of flux (a plain number is left alone).

        Parameters
        ----------
        unit : `~astropy.units.Unit`
            Of the flux in a pixel.

        Returns
        -------
        profile : `LightProfile`

        Raises
        ------
        InputError
            If the units do not convert.
        """
        if self.given is None or getattr(self.given, self.bright[0]).unit is None:
            return self
        unit, twin = unit * self.bright_unit, copy.copy(self)
        twin.given = self.given.copy()
        for name in self.bright:
            old = getattr(self.given, name)
            if not old.unit.is_equivalent(unit):
                raise InputError(
                    f"{name} of a given {type(self.given).__name__} is in {old.unit}, the image asks for "
                    f"{unit}: give it in a unit that converts"
                )
            factor = old.unit.to(unit)
            setattr(twin.given, name, old.value * factor * unit)
            getattr(twin.given, name).bounds = tuple(
                None if end is None else end * factor for end in old.bounds
            )
        return twin

    def own_bounds(self, name):
        """Bounds of a given model's parameter as the user set them: None where an end is the usual one."""
        ends, usual = getattr(self.given, name).bounds, self.usual_bounds(name)
        return tuple(None if end == common else end for end, common in zip(ends, usual, strict=True))

    @staticmethod
    @abstractmethod
    def usual_bounds(name):
        """Bounds that a parameter of the model has if nobody sets them."""

    def model(self, vector, covariance=None, unit=None):
        """The model that users see.

        Parameters
        ----------
        vector, covariance : `torch.Tensor`, shapes (P,), (P, P)
        unit : `~astropy.units.Unit`, optional
            Of the flux in a pixel.

        Returns
        -------
        model : `~astropy.modeling.Model`
            With errors, and with ``fixed`` and ``bounds`` of the given one.
        """
        model = self._model(vector, covariance, unit)
        for name in () if self.given is None else self.names:
            old, new = getattr(self.given, name), getattr(model, name)
            new.fixed, new.bounds = old.fixed, old.bounds
        return model

    @abstractmethod
    def _model(self, vector, covariance, unit):
        """The model as the vector has it; see `model`."""

    def outward(self, vector):
        """Derivatives (P, P) of the parameters of the model with respect to those of the vector, an array."""
        return np.eye(len(vector))


def _check_constraints(model):
    kind = type(model).__name__
    if len(model) != 1:
        raise InputError(f"a {kind} of {len(model)} parameter sets is no single profile: give a list of them")
    for name in model.param_names:
        parameter = getattr(model, name)
        if parameter.tied:
            raise InputError(
                f"{name} of a given {kind} is tied, which a fit of an image cannot follow: untie it"
            )
        low, high = (
            sign * np.inf if end is None else end for sign, end in zip((-1, 1), parameter.bounds, strict=True)
        )
        if not parameter.fixed and not (low < high and low <= parameter.value <= high):
            raise InputError(
                f"{name} = {parameter.value:g} of a given {kind} lies outside its bounds {parameter.bounds}"
            )
