"""The Sérsic profile: pure functions on tensors, and the `Sersic` model built on them."""

import math

import astropy.units as u
import numpy as np
import torch
from astropy.modeling import Fittable2DModel, Parameter
from astropy.modeling.models import Sersic2D

from lenssr.exceptions import InputError
from lenssr.light.profile import with_covariance
from lenssr.light.sersic_shape import N_RANGE, b_and_slope
from lenssr.units import strip_unit

__all__ = [
    "Sersic",
    "from_circular_jacobian",
    "sersic_brightness",
    "sersic_brightness_jacobian",
    "sersic_flux",
]


def _as_tensors(*values):
    """Tensors of the type and device of the first tensor among the values."""
    like = next((value for value in values if isinstance(value, torch.Tensor)), None)
    kind = {"dtype": torch.float64} if like is None else {"dtype": like.dtype, "device": like.device}
    return [value if isinstance(value, torch.Tensor) else torch.as_tensor(value, **kind) for value in values]


def sersic_brightness(x, y, amplitude, r_eff_circ, n, x_0, y_0, e1, e2):
    """Surface brightness of an elliptical Sérsic profile.

    Parameters
    ----------
    x, y : `torch.Tensor`, broadcastable with (B, R)
        Positions in arcsec.
    amplitude : `torch.Tensor` or float, broadcastable with (B, 1)
        Surface brightness at the effective radius, in image unit per arcsec2.
    r_eff_circ : `torch.Tensor` or float
        Product-average effective radius in arcsec, ``sqrt(a b)``: in it the profile is smooth at e = 0.
    n : `torch.Tensor` or float
        Sérsic index; outside 0.1 to 12 the result is not a number, so that one bad problem of a batch
        does not stop the others.
    x_0, y_0 : `torch.Tensor` or float
        Centre in arcsec.
    e1, e2 : `torch.Tensor` or float
        Ellipticity, ``(1-q)/(1+q)`` times the cosine and sine of ``2 phi``.

    Returns
    -------
    brightness : `torch.Tensor`, shape (B, R)
        In image unit per arcsec2. Its gradient with respect to the position is zero exactly at the centre,
        where that of the profile does not exist.

    Notes
    -----
    With w = (x - x_0) + i (y - y_0), eps = e1 + i e2 and zeta = w - eps conj(w), the elliptical radius is
    ``|zeta| / sqrt(1 - |eps|^2)``, which needs no angle.

    Examples
    --------
    >>> import torch
    >>> from lenssr.light.sersic import sersic_brightness
    >>> radius = torch.tensor([0.0, 0.25, 1.0], dtype=torch.float64)
    >>> sersic_brightness(radius, 0.0, 2.0, 0.25, 1.0, 0.0, 0.0, 0.0, 0.0)
    tensor([10.7134,  2.0000,  0.0130], dtype=torch.float64)
    """
    x, y, amplitude, r_eff_circ, n, x_0, y_0, e1, e2 = _as_tensors(
        x, y, amplitude, r_eff_circ, n, x_0, y_0, e1, e2
    )
    dx, dy = x - x_0, y - y_0
    zeta_x, zeta_y = (1 - e1) * dx - e2 * dy, (1 + e1) * dy - e2 * dx
    scale = 1 / ((1 - e1**2 - e2**2) * r_eff_circ**2)
    radius2 = (scale * (zeta_x**2 + zeta_y**2)).clamp(min=torch.finfo(zeta_x.dtype).tiny)
    b = b_and_slope(n)[0]
    return amplitude * torch.exp(b - b * torch.exp(torch.log(radius2) / (2 * n)))


@torch.no_grad()
def sersic_brightness_jacobian(x, y, amplitude, r_eff_circ, n, x_0, y_0, e1, e2):
    """Surface brightness of a Sérsic profile and its derivatives, by hand.

    The inner loop of the batched fits: one logarithm and two exponentials per ray. The results carry
    no graph.

    Parameters
    ----------
    x, y : `torch.Tensor`, broadcastable with (B, R)
        Positions in arcsec.
    amplitude, r_eff_circ, n, x_0, y_0, e1, e2 : `torch.Tensor` or float, broadcastable with (B, 1)
        As in `sersic_brightness`.

    Returns
    -------
    brightness : `torch.Tensor`, shape (B, R)
    d_dx, d_dy : `torch.Tensor`, shape (B, R)
        Derivatives with respect to the position, zero exactly at the centre.
    d_dp : `torch.Tensor`, shape (B, 7, R)
        Derivatives with respect to the parameters, in the order of the arguments.

    Examples
    --------
    >>> import torch
    >>> from lenssr.light.sersic import sersic_brightness_jacobian
    >>> x = torch.tensor([[0.1, 0.2, 0.3]])
    >>> value, d_dx, d_dy, d_dp = sersic_brightness_jacobian(x, 0.1, 1.0, 0.3, 2.0, 0.0, 0.0, 0.1, 0.0)
    >>> value.shape, d_dp.shape
    (torch.Size([1, 3]), torch.Size([1, 7, 3]))
    """
    x, y, amplitude, r_eff_circ, n, x_0, y_0, e1, e2 = _as_tensors(
        x, y, amplitude, r_eff_circ, n, x_0, y_0, e1, e2
    )
    b, db_dn = b_and_slope(n)
    dx, dy = x - x_0, y - y_0
    zeta_x = torch.addcmul((1 - e1) * dx, e2, dy, value=-1)
    zeta_y = torch.addcmul((1 + e1) * dy, e2, dx, value=-1)
    q2 = 1 - e1**2 - e2**2
    tiny = torch.finfo(zeta_x.dtype).tiny
    zeta2 = torch.addcmul(zeta_x.square(), zeta_y, zeta_y)
    log_radius = zeta2.mul(1 / (q2 * r_eff_circ**2)).clamp_(min=tiny).log_()
    power = torch.exp(log_radius / (2 * n))
    relative = torch.exp(b - b * power)
    brightness = amplitude * relative

    # fall = -d I / d ln(radius); turned is finite and multiplies zeta = 0 at the centre
    fall = (brightness * power).mul_(b / n)
    turned = fall / zeta2.clamp_(min=tiny**0.5)
    zeta_x.mul_(turned)
    zeta_y.mul_(turned)
    d_dx = torch.addcmul(e2 * zeta_y, 1 - e1, zeta_x, value=-1)
    d_dy = torch.addcmul(e2 * zeta_x, 1 + e1, zeta_y, value=-1)

    d_dp = brightness.new_empty((*brightness.shape[:-1], 7, brightness.shape[-1]))
    d_dp[..., 0, :] = relative
    torch.mul(fall, 1 / r_eff_circ, out=d_dp[..., 1, :])
    slope_n = torch.addcmul(-db_dn * n / b, log_radius, 0.5 / n).mul_(fall)
    torch.addcmul(slope_n, brightness, db_dn, out=d_dp[..., 2, :])
    torch.neg(d_dx, out=d_dp[..., 3, :])
    torch.neg(d_dy, out=d_dp[..., 4, :])
    of_e1 = torch.addcmul(zeta_x * dx, zeta_y, dy, value=-1)
    of_e2 = torch.addcmul(zeta_x * dy, zeta_y, dx)
    torch.addcmul(of_e1, fall, -e1 / q2, out=d_dp[..., 5, :])
    torch.addcmul(of_e2, fall, -e2 / q2, out=d_dp[..., 6, :])
    return brightness, d_dx, d_dy, d_dp


def sersic_flux(amplitude, r_eff_circ, n):
    """Total flux of a Sérsic profile.

    Parameters
    ----------
    amplitude, r_eff_circ, n : `torch.Tensor` or float
        As in `sersic_brightness`.

    Returns
    -------
    flux : `torch.Tensor`
        In image unit.

    References
    ----------
    Graham & Driver (2005), PASA 22, 118, equation 4.

    Examples
    --------
    >>> from lenssr.light.sersic import sersic_flux
    >>> sersic_flux(1.0, 1.0, 1.0)
    tensor(11.9485, dtype=torch.float64)
    """
    amplitude, r_eff_circ, n = _as_tensors(amplitude, r_eff_circ, n)
    b = b_and_slope(n)[0]
    shape = 2 * math.pi * n * torch.exp(b - 2 * n * torch.log(b) + torch.lgamma(2 * n))
    return amplitude * r_eff_circ**2 * shape


def _bare(value):
    """Drop a unit; ellipticities and indices have none to convert."""
    return np.asarray(getattr(value, "value", value), dtype=np.float64)


def _check_shape(r_eff, n, e1, e2):
    if np.any(np.asarray(r_eff) <= 0):
        raise InputError(f"r_eff = {r_eff} is not positive: give the semi-major axis in arcsec")
    if not np.all((np.asarray(n) >= N_RANGE[0]) & (np.asarray(n) <= N_RANGE[1])):
        raise InputError(f"Sérsic index n = {n} is outside {N_RANGE[0]} to {N_RANGE[1]}: give one inside")
    if np.any(np.hypot(e1, e2) >= 1):
        raise InputError(f"e1 = {e1}, e2 = {e2} is no ellipse: sqrt(e1^2 + e2^2) must be below 1")


def _axis_ratio(e1, e2):
    modulus = np.hypot(e1, e2)
    return (1 - modulus) / (1 + modulus)


class Sersic(Fittable2DModel):
    """A galaxy with an elliptical Sérsic profile.

    Parameters
    ----------
    amplitude : float or `~astropy.units.Quantity`, optional
        Surface brightness at the effective radius, in image unit per arcsec2. Default 1.
    r_eff : float or `~astropy.units.Quantity`, optional
        Semi-major axis of the ellipse that holds half of the light, in arcsec. Default 1.
    n : float, optional
        Sérsic index, 0.1 to 12: 1 is an exponential disc, 4 a de Vaucouleurs profile. Default 1.
    x_0, y_0 : float or `~astropy.units.Quantity`, optional
        Centre in arcsec. Default 0.
    e1, e2 : float, optional
        Ellipticity, ``(1-q)/(1+q)`` times the cosine and sine of ``2 phi``, phi counter-clockwise from +x.
        Default 0.
    **kwargs
        As for every `~astropy.modeling.Model`: ``name``, ``fixed``, ``bounds``, ``tied``, ``meta``.

    Attributes
    ----------
    covariance : `numpy.ndarray`, shape (7, 7), or None
        Covariance of the parameters, where a fit made one; its diagonal is in the ``std`` of each parameter.

    Notes
    -----
    b_n is exact, as in `~astropy.modeling.functional_models.Sersic2D`; lenstronomy approximates it
    (`sersic_from_lenstronomy` converts).

    Examples
    --------
    >>> import astropy.units as u
    >>> from lenssr.light import Sersic
    >>> galaxy = Sersic(amplitude=2.0, r_eff=0.3, n=1.5, e1=0.1)
    >>> float(galaxy(0.3, 0.0))
    2.0
    >>> bright = Sersic(amplitude=2.0 * u.electron / u.arcsec**2, r_eff=300 * u.mas)
    >>> bright.flux.to(u.electron)
    <Quantity 2.15072905 electron>
    """

    amplitude = Parameter(default=1.0, description="Surface brightness at r_eff, per arcsec2")
    r_eff = Parameter(
        default=1.0, bounds=(np.finfo(np.float64).tiny, None), description="Semi-major axis (arcsec)"
    )
    n = Parameter(default=1.0, bounds=N_RANGE, description="Sérsic index")
    x_0 = Parameter(default=0.0, description="Centre along x (arcsec)")
    y_0 = Parameter(default=0.0, description="Centre along y (arcsec)")
    e1 = Parameter(default=0.0, bounds=(-0.7, 0.7), description="Ellipticity along x and y")
    e2 = Parameter(default=0.0, bounds=(-0.7, 0.7), description="Ellipticity along the diagonals")

    covariance = None

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        _check_shape(self.r_eff.value, self.n.value, self.e1.value, self.e2.value)

    @staticmethod
    def evaluate(x, y, amplitude, r_eff, n, x_0, y_0, e1, e2):
        """Surface brightness at positions; called by the model itself."""
        lengths = (_bare(strip_unit(value, u.arcsec, "position")) for value in (x, y, r_eff, x_0, y_0))
        x, y, r_eff, x_0, y_0 = lengths
        n, e1, e2 = _bare(n), _bare(e1), _bare(e2)
        _check_shape(r_eff, n, e1, e2)
        circular = r_eff * np.sqrt(_axis_ratio(e1, e2))
        arrays = (x, y, _bare(amplitude), circular, n, x_0, y_0, e1, e2)
        brightness = sersic_brightness(*(torch.as_tensor(np.array(array)) for array in arrays)).numpy()
        return brightness * getattr(amplitude, "unit", 1)

    @staticmethod
    def fit_deriv(x, y, amplitude, r_eff, n, x_0, y_0, e1, e2):
        """Differentiate with respect to the parameters; called by astropy's fitters."""
        x, y, *parameters = (_bare(value) for value in (x, y, amplitude, r_eff, n, x_0, y_0, e1, e2))
        vector = np.array([value.item() for value in parameters])
        inner = _to_circular(vector)
        flat = (torch.as_tensor(np.ascontiguousarray(position).ravel()) for position in (x, y))
        jacobian = sersic_brightness_jacobian(*flat, *torch.as_tensor(inner[:, None]))[3].numpy()
        derivatives = np.linalg.inv(from_circular_jacobian(inner)).T @ jacobian
        return [derivative.reshape(x.shape) for derivative in derivatives]

    @property
    def input_units(self):
        """Units of the positions: those of the centre, or of the radius."""
        unit = self.x_0.input_unit or self.r_eff.input_unit
        return None if unit is None else {self.inputs[0]: unit, self.inputs[1]: unit}

    def _parameter_units_for_data_units(self, inputs_unit, outputs_unit):
        length = inputs_unit[self.inputs[0]]
        return {"x_0": length, "y_0": length, "r_eff": length, "amplitude": outputs_unit[self.outputs[0]]}

    @property
    def q(self):
        """Axis ratio, minor over major."""
        return float(_axis_ratio(self.e1.value, self.e2.value))

    @property
    def phi(self):
        """Direction of the major axis, counter-clockwise from +x, as a `~astropy.units.Quantity`."""
        return np.degrees(np.arctan2(self.e2.value, self.e1.value) / 2) * u.deg

    @property
    def r_eff_circ(self):
        """Product-average effective radius, ``r_eff sqrt(q)`` (lenstronomy's ``R_sersic``)."""
        return _plain(self.r_eff) * np.sqrt(self.q)

    @property
    def flux(self):
        """Total flux, in the image unit."""
        shape = sersic_flux(1.0, 1.0, float(self.n.value)).item()
        return _plain(self.amplitude) * self.r_eff_circ**2 * shape

    @property
    def vector(self):
        """The parameters of `sersic_brightness` as a float64 tensor of shape (7,): arcsec, `r_eff_circ`."""
        r_eff, x_0, y_0 = (
            strip_unit(_plain(length), u.arcsec, "length") for length in (self.r_eff, self.x_0, self.y_0)
        )
        values = [self.amplitude.value, r_eff, self.n.value, x_0, y_0, self.e1.value, self.e2.value]
        return torch.as_tensor(_to_circular(np.array(values, dtype=np.float64)))

    @classmethod
    def from_vector(cls, vector, *, covariance=None, unit=None, **kwargs):
        """Build a model from the parameters of `sersic_brightness`.

        Parameters
        ----------
        vector : `torch.Tensor` or array, shape (7,)
            amplitude, r_eff_circ, n, x_0, y_0, e1, e2 in arcsec.
        covariance : `torch.Tensor` or array, shape (7, 7), optional
            Covariance of these parameters. It is carried to the parameters of the model; at e = 0, where
            the axis ratio has a cone, its slope there counts as zero (the mean over directions).
        unit : `~astropy.units.Unit`, optional
            Image unit: with it the amplitude gets this unit per arcsec2, and lengths get arcsec.
        **kwargs
            Passed to `Sersic`.

        Returns
        -------
        model : `Sersic`
        """
        inner = torch.as_tensor(vector).detach().cpu().numpy().astype(np.float64)
        values = inner.copy()
        values[1] /= np.sqrt(_axis_ratio(*inner[5:]))
        units = dict.fromkeys(cls.param_names, 1)
        if unit is not None:
            units.update(amplitude=u.Unit(unit) / u.arcsec**2, r_eff=u.arcsec, x_0=u.arcsec, y_0=u.arcsec)
        named = zip(cls.param_names, values, strict=True)
        model = cls(**{name: value * units[name] for name, value in named}, **kwargs)
        if covariance is not None:
            slope = torch.as_tensor(from_circular_jacobian(inner))
            covariance = slope @ torch.as_tensor(covariance).detach().cpu().double() @ slope.T
        return with_covariance(model, covariance)

    def to_sersic2d(self):
        """Convert to astropy's model of the same profile.

        Returns
        -------
        model : `~astropy.modeling.functional_models.Sersic2D`
        """
        return Sersic2D(
            _plain(self.amplitude), _plain(self.r_eff), self.n.value, _plain(self.x_0), _plain(self.y_0),
            ellip=1 - self.q, theta=self.phi.to(u.rad) if self._has_units else self.phi.to_value(u.rad),
        )  # fmt: skip

    @classmethod
    def from_sersic2d(cls, model, **kwargs):
        """Build the same profile from astropy's model.

        Parameters
        ----------
        model : `~astropy.modeling.functional_models.Sersic2D`
            Lengths in arcsec.
        **kwargs
            Passed to `Sersic`.

        Returns
        -------
        model : `Sersic`
        """
        q = 1 - float(model.ellip.value)
        phi = _plain(model.theta)
        phi = phi.to_value(u.rad) if isinstance(phi, u.Quantity) else phi
        modulus = (1 - q) / (1 + q)
        names = ("amplitude", "r_eff", "n", "x_0", "y_0")
        shape = {"e1": modulus * np.cos(2 * phi), "e2": modulus * np.sin(2 * phi)}
        return cls(**{name: _plain(getattr(model, name)) for name in names}, **shape, **kwargs)

    @classmethod
    def from_axis_ratio(
        cls, amplitude=1.0, r_eff=1.0, n=1.0, x_0=0.0, y_0=0.0, *, q=1.0, phi=0.0 * u.deg, **kwargs
    ):
        """Build a model from an axis ratio and a direction.

        Parameters
        ----------
        amplitude, r_eff, n, x_0, y_0 : float or `~astropy.units.Quantity`, optional
            As in `Sersic`.
        q : float, optional
            Axis ratio, minor over major, in (0, 1]. Default 1.
        phi : `~astropy.units.Quantity`, optional
            Direction of the major axis, counter-clockwise from +x. Default 0 degrees.
        **kwargs
            Passed to `Sersic`.

        Returns
        -------
        model : `Sersic`
        """
        if not 0 < q <= 1:
            raise InputError(f"q = {q} is no axis ratio: give one above 0, at most 1")
        angle, modulus = 2 * strip_unit(phi, u.rad, "phi", bare=False), (1 - q) / (1 + q)
        return cls(
            amplitude, r_eff, n, x_0, y_0, e1=modulus * np.cos(angle), e2=modulus * np.sin(angle), **kwargs
        )


def _plain(parameter):
    """Return a parameter as a Quantity where it has a unit, otherwise as a number."""
    return parameter.value if parameter.unit is None else parameter.quantity


def _to_circular(values):
    inner = values.copy()
    inner[1] *= np.sqrt(_axis_ratio(*values[5:]))
    return inner


def from_circular_jacobian(inner):
    """Differentiate the parameters of `Sersic` with respect to those of `sersic_brightness`.

    Parameters
    ----------
    inner : `~numpy.ndarray`, shape (7,)
        amplitude, r_eff_circ, n, x_0, y_0, e1, e2.

    Returns
    -------
    jacobian : `~numpy.ndarray`, shape (7, 7)
        One row a parameter of `Sersic`. At e = 0, where the axis ratio has a cone, its slope counts as zero.
    """
    jacobian = np.eye(7)
    modulus = np.hypot(*inner[5:])
    jacobian[1, 1] = np.sqrt((1 + modulus) / (1 - modulus))
    if modulus > 0:
        of_modulus = inner[1] * jacobian[1, 1] / (1 - modulus**2)
        jacobian[1, 5:] = of_modulus * inner[5:] / modulus
    return jacobian
