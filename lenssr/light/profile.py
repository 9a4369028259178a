"""What a fit asks of a light profile: parameters, brightness, start, size and flux."""

import copy
import math
from abc import ABC, abstractmethod

import astropy.units as u
import numpy as np
import torch

from lenssr._tensors import forward_jacobian
from lenssr.exceptions import InputError
from lenssr.light.elliptical import ellipse_points

__all__ = ["LightProfile", "with_covariance"]

# Amplitudes and fluxes are positive in whatever unit the image has.
FAINTEST = 1e-60
# Shortest length (arcsec) and largest |e1|, |e2| of a fit.
SHORTEST, LONGEST_SHAPE = 1e-3, 0.6
# Sérsic index of a first source.
FIRST_INDEX = 1.0
# Half side of the square that shows a profile, in effective radii along the major axis.
WINDOW_RADII = 4.0
# Curve of growth: first and last radius in arcsec, step in the logarithm, and points on every ellipse. A ring
# is integrated to round-off if its standard deviation is 2 % of its radius or more.
INNERMOST, OUTERMOST, RADIUS_STEP, ANGLES = 1e-4, 1e2, 0.02, 16
# Standard deviations of the priors with which evidence compares a source: of the logarithm of a brightness
# and of a length, of centre (arcsec) and ellipticity, of all else.
BRIGHT_WIDTH, LOG_WIDTH, PLACE_WIDTH, OTHER_WIDTH = 3.0, 1.0, 0.3, 2.0


class LightProfile(ABC):
    """One component of light in a fit, on the lens or behind it: the contract that a light model fulfils.

    A profile names the parameters of a vector of fixed length, in arcsec and the unit of the image, and draws
    batches of such vectors. A subclass gives ``names``, ``bright``, ``lengths``, ``brightness`` and
    ``from_sersic``, and the ``model_class`` that users see; everything else has a default that may be
    replaced by something faster or better.

    Parameters
    ----------
    given : `~astropy.modeling.Model`, optional
        A model that the user handed over: the fit starts there, and honours its ``fixed`` and ``bounds``.
    crowded : bool, optional
        Whether other free profiles share the light, which makes weak priors necessary. Default False.

    Attributes
    ----------
    names : tuple of str
        Parameters of the vector, named as those of the model; x_0, y_0 the centre and, if there are any, e1,
        e2 the ellipticity as `elliptical_radius` takes it.
    model_class : type or None
        The class of `~astropy.modeling.Model` that users see, with these parameters.
    bright : tuple of str
        Parameters that scale with the flux.
    bright_unit : `~astropy.units.Unit`
        Their unit over that of the flux in a pixel: ``arcsec**-2`` for a surface brightness, none for a flux.
    lengths : tuple of str
        Parameters in arcsec beside the centre.
    ranges : dict of (float, float)
        Ends of parameters in a fit, where those of `limits` do not do.
    shape_priors : dict of float
        Standard deviations of Gaussian priors around 0, by name, on a source that nobody has described.

    Examples
    --------
    An exponential disc of scale length h:

    >>> import astropy.units as u
    >>> import torch
    >>> from lenssr.light import LightProfile, elliptical_radius
    >>> class Disc(LightProfile):
    ...     names = ("amplitude", "h", "x_0", "y_0", "e1", "e2")
    ...     bright, bright_unit, lengths = ("amplitude",), u.arcsec**-2, ("h",)
    ...     def brightness(self, x, y, parameters):
    ...         amplitude, h, *shape = parameters.unsqueeze(-1).unbind(1)
    ...         return amplitude * torch.exp(-elliptical_radius(x, y, *shape) / h)
    ...     def from_sersic(self, sersic, rank, count):
    ...         amplitude, r_eff = sersic[:, :1] * 5.36 / count, sersic[:, 1:2]
    ...         return torch.cat([amplitude, r_eff / 1.678, sersic[:, 3:]], dim=1)
    >>> disc = Disc()
    >>> vector = torch.tensor([1.0, 0.5, 0.0, 0.0, 0.1, 0.0], dtype=torch.float64)
    >>> disc.effective_radius(vector), disc.flux(vector)
    (tensor(0.8392, dtype=torch.float64), tensor(1.5708, dtype=torch.float64))
    """

    names, model_class = (), None
    bright, bright_unit, lengths = (), u.dimensionless_unscaled, ()
    ranges, shape_priors = {}, {"e1": 0.3, "e2": 0.3}

    def __init__(self, given=None, *, crowded=False):
        self.given, self.crowded = given, crowded
        if given is not None:
            _check_constraints(given)

    @property
    def log(self):
        """Which parameters a fit takes the logarithm of, by default brightness and lengths: tuple of bool."""
        return tuple(name in self.bright or name in self.lengths for name in self.names)

    @property
    def centre(self):
        """Positions of x_0 and y_0 in the vector."""
        return self.names.index("x_0"), self.names.index("y_0")

    @property
    def prior(self):
        """Standard deviations of priors around the start, in fit variables; infinite (none) by default."""
        return (torch.inf,) * len(self.names)

    @property
    def evidence_widths(self):
        """Standard deviations of the priors, in fit variables, with which evidence compares a source."""
        widths = dict.fromkeys(("x_0", "y_0", "e1", "e2"), PLACE_WIDTH)
        logarithms = [name for name, log in zip(self.names, self.log, strict=True) if log]
        widths |= {name: BRIGHT_WIDTH if name in self.bright else LOG_WIDTH for name in logarithms}
        return tuple(widths.get(name, OTHER_WIDTH) for name in self.names)

    @property
    def plain(self):
        """Whether this is the model that a search starts from: an unconstrained Sérsic."""
        return False

    @property
    def free(self):
        """Which parameters are fitted, as a tuple of bool."""
        if self.given is None:
            return (True,) * len(self.names)
        return tuple(not getattr(self.given, name).fixed for name in self.names)

    def bounds(self, extent, share=1.0):
        """Ends of the parameters in a fit: the user's where there are some, else those of `limits`.

        Parameters
        ----------
        extent : float
            Half the field in arcsec.
        share : float, optional
            Share of ``extent`` that lengths may reach. Default 1.

        Returns
        -------
        lower, upper : list of float
        """
        lower, upper = self.limits(extent, share)
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

    def limits(self, extent, share):
        """Ends of the parameters where nobody sets them.

        By default a brightness is positive, a length lies between 0.001 arcsec and ``share * extent``, the
        centre in the field, the ellipticity within 0.6, and all else where ``ranges`` says, or anywhere.

        Parameters
        ----------
        extent, share : float
            As in `bounds`.

        Returns
        -------
        lower, upper : list of float
        """
        ends = dict.fromkeys(self.bright, (FAINTEST, math.inf))
        ends |= dict.fromkeys(self.lengths, (SHORTEST, share * extent))
        ends |= dict.fromkeys(("x_0", "y_0"), (-extent, extent))
        ends |= dict.fromkeys(("e1", "e2"), (-LONGEST_SHAPE, LONGEST_SHAPE)) | self.ranges
        pairs = [ends.get(name, (-math.inf, math.inf)) for name in self.names]
        return [low for low, _ in pairs], [high for _, high in pairs]

    @abstractmethod
    def brightness(self, x, y, parameters):
        """Surface brightness.

        Parameters
        ----------
        x, y : `torch.Tensor`, shape (R,) or (B, R)
            Positions in arcsec.
        parameters : `torch.Tensor`, shape (B, P)

        Returns
        -------
        brightness : `torch.Tensor`, shape (B, R)
            In image unit per arcsec2; made of operations that torch differentiates.
        """

    @torch.no_grad()
    def jacobian(self, x, y, parameters, cusp=0.0):
        """Surface brightness and its derivatives, by default by forward-mode differentiation.

        Parameters
        ----------
        x, y : `torch.Tensor`, shape (R,) or (B, R)
            Positions in arcsec.
        parameters : `torch.Tensor`, shape (B, P)
        cusp : float, optional
            Closer to the centre than this, in arcsec, derivatives with respect to the position, and to the
            centre, are zero. Default 0.

        Returns
        -------
        brightness, d_dx, d_dy : `torch.Tensor`, shape (B, R)
        d_dp : `torch.Tensor`, shape (B, P, R)
            Not shared with anything: the caller may overwrite it.
        """

        def brightness(move_x, move_y, *columns):
            vectors = torch.cat(columns, dim=-1)
            rays = ((x + move_x).flatten(0, -2), (y + move_y).flatten(0, -2))
            return self.brightness(*rays, vectors.flatten(0, -2)).reshape(*vectors.shape[:-1], -1)

        still = parameters.new_zeros(len(parameters), 2)
        value, slopes = forward_jacobian(brightness, torch.cat([still, parameters], dim=1))
        if cusp > 0:
            places = list(self.centre)
            centre_x, centre_y = parameters[:, places].unsqueeze(-1).unbind(1)
            inside = torch.hypot(x - centre_x, y - centre_y) <= cusp
            for column in (0, 1, *(place + 2 for place in places)):
                slopes[:, column].masked_fill_(inside, 0)
        return value, slopes[:, 0], slopes[:, 1], slopes[:, 2:]

    def start(self, sersic, rank=0, count=1):
        """Where a fit begins: at the given model, else `from_sersic`.

        Parameters
        ----------
        sersic : `torch.Tensor`, shape (B, 7)
            A Sérsic already fitted to all the light, as `~lenssr.light.sersic_brightness` takes it.
        rank, count : int, optional
            The light is shared by ``count`` profiles, of which this is number ``rank``, the compact ones
            first. By default it has all.

        Returns
        -------
        parameters : `torch.Tensor`, shape (B, P)
        """
        if self.given is None:
            return self.from_sersic(sersic, rank, count)
        return self.given_vector.to(sersic).expand(len(sersic), -1).clone()

    @abstractmethod
    def from_sersic(self, sersic, rank, count):
        """Where a fit begins if no model was given.

        Parameters
        ----------
        sersic : `torch.Tensor`, shape (B, 7)
        rank, count : int
            As in `start`.

        Returns
        -------
        parameters : `torch.Tensor`, shape (B, P)
        """

    def from_moments(self, radius, x, y):
        """Where the fit of a source begins: round, its brightness in units of 1 per arcsec2.

        Of a given model brightness, lengths and centre begin there too, unless they are fixed.

        Parameters
        ----------
        radius, x, y : `torch.Tensor`, shape (B,)
            Effective radius and centre in arcsec.

        Returns
        -------
        parameters : `torch.Tensor`, shape (B, P)
            By default `from_sersic` of an exponential disc.
        """
        one, zero = torch.ones_like(radius), torch.zeros_like(radius)
        disc = torch.stack([one, radius, FIRST_INDEX * one, x, y, zero, zero], dim=1)
        found = self.from_sersic(disc, 0, 1)
        if self.given is None:
            return found
        seen = {*self.bright, *self.lengths, "x_0", "y_0"}
        moved = [free and name in seen for free, name in zip(self.free, self.names, strict=True)]
        return torch.where(torch.tensor(moved, device=found.device), found, self.given_vector.to(found))

    def scaled(self, vector, factor):
        """Parameters of the profile made brighter.

        Parameters
        ----------
        vector : `torch.Tensor`, shape (..., P)
        factor : `torch.Tensor`, shape (...)

        Returns
        -------
        vector : `torch.Tensor`, shape (..., P)
        """
        bright = torch.tensor([name in self.bright for name in self.names], device=vector.device)
        return torch.where(bright, vector * factor.unsqueeze(-1), vector)

    def effective_radius(self, vector):
        """Half-light radius.

        Parameters
        ----------
        vector : `torch.Tensor`, shape (..., P)

        Returns
        -------
        radius : `torch.Tensor`, shape (...)
            Product average of the axes, in arcsec; by default from a numerical integral, within 0.1 %.
        """
        radii, inside = self._curve_of_growth(vector)
        half = 0.5 * inside[..., -1:]
        above = (inside < half).sum(-1, keepdim=True).clamp(1, len(radii) - 1)
        low, high = inside.gather(-1, above - 1), inside.gather(-1, above)
        # Between two radii the flux grows evenly in the logarithm of the radius.
        return (radii[above - 1] * torch.exp(RADIUS_STEP * (half - low) / (high - low))).squeeze(-1)

    def flux(self, vector):
        """Total flux.

        Parameters
        ----------
        vector : `torch.Tensor`, shape (..., P)

        Returns
        -------
        flux : `torch.Tensor`, shape (...)
            In image unit, differentiable; by default a numerical integral from 0.0001 to 100 arcsec.
        """
        return self._curve_of_growth(vector)[1][..., -1]

    def _curve_of_growth(self, vector):
        """Radii (n,) in arcsec, product averages of the axes, and the flux (..., n) within."""
        radii, flat = growth_radii(vector), vector.reshape(-1, vector.shape[-1])
        angles = torch.arange(ANGLES).to(vector) * (2 * math.pi / ANGLES)
        columns = dict(zip(self.names, flat.unsqueeze(-1).unbind(1), strict=True))
        place = (columns.get(name, 0.0 * flat[:, :1]) for name in ("x_0", "y_0", "e1", "e2"))
        grid = torch.meshgrid(radii, angles, indexing="ij")
        rays = ellipse_points(*(axis.flatten() for axis in grid), *place)
        rings = self.brightness(*rays, flat).reshape(len(flat), len(radii), ANGLES).mean(-1)
        flux = rings * (2 * math.pi * RADIUS_STEP * radii**2)
        # Trapezoids, from a core of constant brightness.
        inside = flux.cumsum(-1) - 0.5 * flux + flux[:, :1] * (0.5 / RADIUS_STEP - 0.5)
        return radii, inside.reshape(*vector.shape[:-1], len(radii))

    def window(self, vector):
        """A square that shows the profile: by default 4 effective radii along the major axis each way.

        Parameters
        ----------
        vector : `torch.Tensor`, shape (P,)

        Returns
        -------
        x_0, y_0, half_side : float
            In arcsec.
        """
        x_0, y_0 = (float(vector[k]) for k in self.centre)
        shape = [float(vector[k]) for k, name in enumerate(self.names) if name in ("e1", "e2")]
        modulus = math.hypot(*shape)
        major = float(self.effective_radius(vector)) * math.sqrt((1 + modulus) / (1 - modulus))
        return x_0, y_0, WINDOW_RADII * major

    @property
    def given_vector(self):
        """The parameters of the given model, shape (P,), in arcsec and its own unit of flux."""
        values = []
        for name in self.names:
            parameter = getattr(self.given, name)
            long = parameter.unit is not None and name in ("x_0", "y_0", *self.lengths)
            values.append(float(parameter.value) * (parameter.unit.to(u.arcsec) if long else 1))
        return torch.tensor(values, dtype=torch.float64)

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

    def usual_bounds(self, name):
        """Bounds that a parameter of the model has if nobody sets them."""
        return getattr(self.model_class, name).bounds

    def model(self, vector, covariance=None, unit=None):
        """The model that users see.

        Parameters
        ----------
        vector, covariance : `torch.Tensor`, shapes (P,), (P, P)
        unit : `~astropy.units.Unit`, optional
            Of the flux in a pixel: with it the parameters get units.

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

    def _model(self, vector, covariance, unit):
        """The model as the vector has it; see `model`."""
        if self.model_class is None:
            raise InputError(f"{type(self).__name__} has no model for users: set its model_class")
        values = dict(zip(self.names, torch.as_tensor(vector).tolist(), strict=True))
        if unit is not None:
            units = dict.fromkeys(("x_0", "y_0", *self.lengths), u.arcsec)
            units |= dict.fromkeys(self.bright, u.Unit(unit) * self.bright_unit)
            values = {name: value * units.get(name, 1) for name, value in values.items()}
        return with_covariance(self.model_class(**values), covariance)

    def outward(self, vector):
        """Derivatives (P, P) of the parameters of the model with respect to those of the vector, an array."""
        return np.eye(len(vector))


def growth_radii(like):
    """Radii (n,) in arcsec of curves of growth, evenly spaced in the logarithm, as a tensor like another."""
    number = 1 + round(math.log(OUTERMOST / INNERMOST) / RADIUS_STEP)
    return INNERMOST * torch.exp(RADIUS_STEP * torch.arange(number).to(like))


def with_covariance(model, covariance):
    """Return the model with this covariance (P, P) of its parameters and their errors, if it is not None."""
    if covariance is not None:
        model.covariance = torch.as_tensor(covariance).detach().cpu().numpy().astype(np.float64)
        for name, variance in zip(model.param_names, np.diag(model.covariance), strict=True):
            getattr(model, name).std = float(np.sqrt(max(variance, 0.0)))
    return model


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
