"""One lens in front of two sources, the nearer of which deflects the farther."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn, Self

import astropy.units as u
import numpy as np
import torch
from torch import Tensor

from lenssr.cosmology import lens_distances
from lenssr.exceptions import InputError
from lenssr.mass.base import MassModel, MassSystem, from_dict
from lenssr.mass.isothermal import SIS
from lenssr.mass.kernels import Pair, Triple, WithJacobian
from lenssr.mass.multi_plane import MultiPlane, plain_cosmology, read_cosmology, seen
from lenssr.mass.parameter import Length, Parameter
from lenssr.units import positive_number

if TYPE_CHECKING:  # it takes long to import
    from astropy.cosmology import FLRW

__all__ = ["DoubleSourcePlane", "SourcePlanes"]

# Relative difference of scalings that are the same.
SAME_BETA = 1e-9
# Einstein radius in arcsec of the first source where a fit begins. Chosen.
FIRST_RADIUS = 0.1
NUMBERS = "three redshifts such as 0.22,0.61,2.4, a scaling such as 0.7, or 0.7+-0.05"


@dataclass(frozen=True, init=False)
class SourcePlanes:
    """Where two sources lie behind one lens: their redshifts, or the ratio of its deflections of both.

    Parameters
    ----------
    z_lens : float, optional
        Redshift of the lens.
    z_sources : tuple of float, optional
        Redshifts of the first and of the second source; the first is the nearer one.
    cosmology : `~astropy.cosmology.FLRW`, or str, optional
        By default astropy's ``Planck18``; the name of another of astropy's, such as ``"Planck15"``.
    beta : float, optional
        In place of redshifts: D_ls1 D_s2 / (D_s1 D_ls2), by which the lens deflects the first source less
        than the second, between 0 and 1 [1]_.
    beta_error : float, optional
        Standard deviation of a Gaussian prior around ``beta``, or around what redshifts and cosmology make of
        it; a fit then finds it. ``inf`` is no prior. By default 0: it is held.

    Raises
    ------
    InputError
        If neither redshifts nor ``beta`` are given, or both; redshifts are not in order; ``beta`` is not
        between 0 and 1, or ``beta_error`` negative.

    References
    ----------
    .. [1] Collett & Auger 2014, MNRAS 443, 969

    Examples
    --------
    >>> from lenssr.mass import SourcePlanes
    >>> planes = SourcePlanes(z_lens=0.222, z_sources=(0.609, 2.4), cosmology="Planck18")
    >>> round(planes.beta, 4)
    0.7081
    >>> SourcePlanes(beta=0.7, beta_error=0.05)
    SourcePlanes(beta=0.7, beta_error=0.05)
    """

    z_lens: float | None
    z_sources: tuple[float, float] | None
    cosmology: Any
    beta: float
    beta_error: float

    def __init__(
        self,
        *,
        z_lens: float | None = None,
        z_sources: Sequence[float] | None = None,
        cosmology: "FLRW | str | None" = None,
        beta: float | None = None,
        beta_error: float = 0.0,
    ) -> None:
        known = read_cosmology(cosmology)
        redshifts = None
        if beta is None:
            if z_lens is None or z_sources is None:
                raise InputError("give z_lens= and z_sources= of SourcePlanes, or beta=")
            redshifts = _redshifts(z_sources)
            z_lens = positive_number(z_lens, u.one, "z_lens")
            ratios = [_ratio(z_lens, z, known) for z in redshifts]
            beta = ratios[0] / ratios[1]
        elif z_lens is not None or z_sources is not None or cosmology is not None:
            raise InputError(
                f"beta = {beta!r} and redshifts or a cosmology: give one of them, or beta_error="
            )
        beta = positive_number(beta, u.one, "beta")
        if not beta < 1:
            raise InputError(f"beta = {beta} is refused: it is below 1, since the first source is the nearer")
        try:
            error = float(beta_error)
        except (TypeError, ValueError):
            error = math.nan
        if not error >= 0:
            raise InputError(f"beta_error = {beta_error!r} is refused: give a number, 0 or more")
        values = {"z_lens": z_lens, "z_sources": redshifts, "cosmology": known}
        for name, value in {**values, "beta": beta, "beta_error": error}.items():
            object.__setattr__(self, name, value)

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Read what the command line takes.

        Parameters
        ----------
        text : str
            Redshifts of lens, first and second source with commas, ``"0.22,0.61,2.4"``; or the scaling, with
            an error or without, ``"0.7"`` or ``"0.7+-0.05"``.

        Returns
        -------
        planes : `SourcePlanes`

        Raises
        ------
        InputError
            If it is neither.

        Examples
        --------
        >>> from lenssr.mass import SourcePlanes
        >>> SourcePlanes.from_text("0.7+-0.05")
        SourcePlanes(beta=0.7, beta_error=0.05)
        """
        try:
            numbers = [float(part) for part in re.split(r",|\+-", text)]
        except ValueError:
            numbers = []
        if "+-" in text and "," not in text and len(numbers) == 2:
            return cls(beta=numbers[0], beta_error=numbers[1])
        if len(numbers) == 1:
            return cls(beta=numbers[0])
        if "+-" in text or len(numbers) != 3:
            raise InputError(f"{text!r} names no two source planes: give {NUMBERS}")
        return cls(z_lens=numbers[0], z_sources=numbers[1:])

    def to_dict(self) -> dict[str, Any]:
        """Describe the planes by the keywords of their class, in plain numbers and strings.

        Returns
        -------
        description : dict

        Examples
        --------
        >>> from lenssr.mass import SourcePlanes
        >>> SourcePlanes(z_lens=0.5, z_sources=(1, 2)).to_dict()
        {'z_lens': 0.5, 'z_sources': [1.0, 2.0]}
        """
        if self.z_sources is None:
            told: dict[str, Any] = {"beta": self.beta}
        else:
            told = {"z_lens": self.z_lens, "z_sources": list(self.z_sources)}
            if self.cosmology is not None:
                told["cosmology"] = plain_cosmology(self.cosmology)
        return told | ({"beta_error": self.beta_error} if self.beta_error else {})

    def __repr__(self) -> str:
        told = {key: tuple(one) if isinstance(one, list) else one for key, one in self.to_dict().items()}
        return f"SourcePlanes({', '.join(f'{name}={value!r}' for name, value in told.items())})"


def _redshifts(given: Any) -> tuple[float, float]:
    """Two redshifts in order."""
    try:
        first, second = (positive_number(z, u.one, "z_sources") for z in given)
    except (TypeError, ValueError) as error:
        raise InputError(f"z_sources = {given!r}: give two redshifts, such as (0.6, 2.4)") from error
    if not first < second:
        raise InputError(f"z_sources = {given!r}: give the nearer source first")
    return first, second


def _ratio(z_lens: float, z_source: float, cosmology: Any) -> float:
    """D_ls / D_s."""
    _, d_source, between = lens_distances(z_lens, z_source, cosmology=cosmology)
    return float(between / d_source)


class _Scaling(MassModel):
    """The scaling of two source planes, a parameter beside those of the masses; it deflects nothing."""

    beta = Parameter("deflection of the first source over that of the second", limits=(0, 1))

    @staticmethod
    def _deflection(x: Tensor, y: Tensor, beta: Tensor) -> Pair:
        return 0 * x, 0 * y

    @staticmethod
    def _hessian(x: Tensor, y: Tensor, beta: Tensor) -> Triple:
        return 0 * x, 0 * x, 0 * y


class DoubleSourcePlane(MultiPlane):
    """A lens in front of two sources, the first of which deflects the second as an isothermal sphere.

    Parameters
    ----------
    lens : `MassModel`
        The lens; its deflection is that of the second source, as if the first were not there.
    planes : `SourcePlanes`
        Where the sources lie.
    theta_E, x_0, y_0 : float or `~astropy.units.Quantity`, optional
        Einstein radius of the first source for the second one, and its place, unlensed, in arcsec. By
        default 0.1" in the middle.
    beta : float, optional
        The scaling, if it is not that of ``planes``, as where a fit has found another.
    source : {2, 1}, optional
        Which source all methods are about; by default the second.

    Raises
    ------
    InputError
        If the lens has several planes itself, or there is no such source.

    Notes
    -----
    A ray that is seen at theta passes the plane of the first source at y_1 = theta - beta alpha(theta), and
    hits that of the second at y_2 = theta - alpha(theta) - alpha_1(y_1) [1]_. As for every `MultiPlane`
    there are neither potential nor convergence. The parameters are those of the lens, of the sphere, and
    ``beta``, numbered as in a `MassSystem`.

    References
    ----------
    .. [1] Collett & Auger 2014, MNRAS 443, 969, equations 5 and 6

    Examples
    --------
    >>> from lenssr.mass import SIE, DoubleSourcePlane, SourcePlanes
    >>> lens = DoubleSourcePlane(SIE(1.5, e1=0.1), SourcePlanes(beta=0.7), theta_E=0.2)
    >>> lens.param_names
    ('theta_E_0', 'e1_0', 'e2_0', 'x_0_0', 'y_0_0', 'theta_E_1', 'x_0_1', 'y_0_1', 'beta_2')
    >>> lens.of_source(1).einstein_radius(), lens.einstein_radius()
    (<Quantity 1.05 arcsec>, <Quantity 1.7011852 arcsec>)
    """

    source_planes: SourcePlanes
    source: int

    def __init__(
        self,
        lens: MassModel | dict[str, Any] | list[dict[str, Any]],
        planes: SourcePlanes | dict[str, Any],
        *,
        theta_E: Length = FIRST_RADIUS,
        x_0: Length = 0.0,
        y_0: Length = 0.0,
        beta: float | None = None,
        source: int = 2,
    ) -> None:
        lens = from_dict(lens) if isinstance(lens, dict | list) else lens
        planes = SourcePlanes(**planes) if isinstance(planes, dict) else planes
        if not isinstance(lens, MassModel) or isinstance(lens, MultiPlane):
            raise InputError(f"{lens!r} is not a mass model of one plane: give SIE(...), or a sum")
        if not isinstance(planes, SourcePlanes):
            raise InputError(f"planes = {planes!r}: give SourcePlanes(...)")
        if source not in (1, 2):
            raise InputError(f"source = {source!r}: there are the sources 1 and 2")
        scaling = _Scaling(beta=planes.beta if beta is None else beta)
        scaling.beta.fixed = planes.beta_error == 0
        components = (*lens.copy()._in_plane(), SIS(theta_E, x_0, y_0), scaling)
        z_lens, (z_first, z_second) = planes.z_lens, planes.z_sources or (None, None)
        values = {
            "components": components,
            "covariance": None,
            "param_names": tuple(f"{name}_{i}" for i, c in enumerate(components) for name in c.param_names),
            "source_planes": planes,
            "source": source,
            "redshifts": (*[z_lens] * (len(components) - 2), z_first, z_first),
            "z_source": z_second if source == 2 else z_first,
            "z_reference": z_second,
            "cosmology": planes.cosmology,
            "_order": list(range(len(components) - (3 - source))),
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @property
    def lens(self) -> MassModel:
        """The lens without the sources, its deflection that of the second source."""
        main = self.components[:-2]
        return main[0] if len(main) == 1 else MassSystem(*main)

    @property
    def sphere(self) -> MassModel:
        """The mass of the first source."""
        return self.components[-2]

    @property
    def planes(self) -> list[tuple[float, MassModel]]:
        """Redshift and model of lens and first source; `InputError` where redshifts are not known."""
        self._need_redshifts("planes")
        return list(zip(self.redshifts[:-1], self.components[:-1], strict=True))

    def of_source(self, source: int) -> Self:
        """The same lens for one of its sources.

        Parameters
        ----------
        source : {1, 2}
            The first or the second.

        Returns
        -------
        lens : `DoubleSourcePlane`
            A copy, whose deflection, curves and images are those of this source. Its parameters are the same.
        """
        other = type(self)(self.lens, self.source_planes, source=source)
        values = self.vector.numpy(), self.covariance
        for mine, theirs in zip(self.parameters, other.parameters, strict=True):
            theirs.fixed, theirs.bounds = mine.fixed, mine.bounds
        other._take(*values)
        for mine, theirs in zip(self.parameters, other.parameters, strict=True):
            theirs.std = mine.std
        return other

    def at(self, z_source: float) -> NoReturn:
        """Refused: there are two sources, see `of_source`."""
        raise InputError(f"z_source = {z_source}: a DoubleSourcePlane has two sources, use of_source(1)")

    # ------------------------------------------------------------ rays

    def _weights_for(self, params: Sequence[Any]) -> list[list[Any]]:
        beta, number = params[-1], len(self.components) - 2
        at_lens: list[list[Any]] = [[0.0] * i for i in range(number)]
        if self.source == 1:
            return [*at_lens, [beta] * number]
        return [*at_lens, [beta] * number, [1.0] * (number + 1)]

    def rays_at(self, x: Tensor, y: Tensor, params: Tensor) -> tuple[Pair, Pair]:
        """Where rays meet the planes of both sources.

        Parameters
        ----------
        x, y : `torch.Tensor`, broadcastable with (B, R)
            Positions in arcsec.
        params : `torch.Tensor`, shape (B, P)

        Returns
        -------
        first, second : tuple of `torch.Tensor`, shape (B, R)
            Positions x and y in arcsec in the planes of the first and of the second source.
        """
        main, sphere, beta = self._split(params)
        ax, ay = self.lens.deflection_at(x, y, main)
        first = x - beta * ax, y - beta * ay
        sx, sy = self.sphere.deflection_at(*first, sphere)
        return first, (x - ax - sx, y - ay - sy)

    def rays_jacobian_at(self, x: Tensor, y: Tensor, params: Tensor, cusp: float = 0.0) -> tuple[Any, Any]:
        """What `rays_at` returns, and the derivatives (B, P, R) of the positions by the parameters.

        Closer to the centre of the sphere than ``cusp`` (arcsec) its tidal field is that at this distance: it
        grows without limit, and a few rays that come near would outweigh all others.
        """
        number = params.shape[1] - 4
        main, sphere, beta = self._split(params)
        ax, ay, dax, day = self.lens.deflection_jacobian_at(x, y, main)
        first = x - beta * ax, y - beta * ay
        sx, sy, dsx, dsy = self.sphere.deflection_jacobian_at(*first, sphere)
        if cusp:
            distance = torch.hypot(first[0] - sphere[:, 1:2], first[1] - sphere[:, 2:])
            near = (distance / cusp).clamp_max(1.0).unsqueeze(1)
            dsx[:, 1:], dsy[:, 1:] = dsx[:, 1:] * near, dsy[:, 1:] * near
        # Where the sphere moves, its deflection changes as where the ray does, with the other sign.
        hxx, hxy, hyy = -dsx[:, 1:2], -dsx[:, 2:], -dsy[:, 2:]
        d_first = [torch.zeros(*a.shape[:1], number + 4, a.shape[-1]).to(a) for a in (ax, ay)]
        for slope, alpha, d_alpha in zip(d_first, (ax, ay), (dax, day), strict=True):
            slope[:, :number] = -beta.unsqueeze(-1) * d_alpha
            slope[:, -1] = -alpha
        fx, fy = d_first
        d_second = [-(hxx * fx + hxy * fy), -(hxy * fx + hyy * fy)]
        for slope, d_alpha, d_sphere in zip(d_second, (dax, day), (dsx, dsy), strict=True):
            slope[:, :number] -= d_alpha
            slope[:, number:-1] -= d_sphere
        return (first, (x - ax - sx, y - ay - sy)), (tuple(d_first), tuple(d_second))

    def _split(self, params: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Parameters (B, L) of the lens, (B, 3) of the sphere, and beta (B, 1)."""
        return params[:, :-4], params[:, -4:-1], params[:, -1:]

    def deflection_at(self, x: Tensor, y: Tensor, params: Tensor) -> Pair:
        """Deflection of the source that the lens is about, as of one model."""
        here = self.rays_at(x, y, params)[self.source - 1]
        return x - here[0], y - here[1]

    def deflection_jacobian_at(self, x: Tensor, y: Tensor, params: Tensor) -> WithJacobian:
        """Deflection and its derivatives by the parameters, as of one model."""
        places, slopes = self.rays_jacobian_at(x, y, params)
        (px, py), (dx, dy) = places[self.source - 1], slopes[self.source - 1]
        return x - px, y - py, -dx, -dy

    def _centres(self) -> list[tuple[float, float]]:
        centres = [centre for component in self.components[:-2] for centre in component._centres()]
        if self.source == 1:
            return centres
        first = self.of_source(1)
        return centres + [at for centre in self.sphere._centres() for at in seen(first, centre)]

    # ------------------------------------------------------------ times, other codes and plain data

    def _need_redshifts(self, what: str) -> None:
        """Refuse what depends on redshifts where they are not known, or the scaling is not theirs."""
        scaling: Any = self.components[-1]
        planes, beta = self.source_planes, scaling.beta.value
        if planes.z_sources is None:
            raise InputError(f"{what} needs redshifts, but only beta is known: give z_lens and z_sources")
        if not math.isclose(beta, planes.beta, rel_tol=SAME_BETA):
            raise InputError(
                f"{what} needs the beta of the redshifts, {planes.beta:.6g}, not {beta:.6g}: fix it"
            )

    def _times(self, x: Tensor, y: Tensor, source: Sequence[Any]) -> Tensor:
        self._need_redshifts("an order or time of arrival")
        return super()._times(x, y, source)

    def to_lenstronomy(self) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Describe the lenses as `MultiPlane.to_lenstronomy` does; it needs redshifts."""
        return super().to_lenstronomy()

    def _plain(self) -> Any:
        plain = self.lens._plain()
        for part in plain if isinstance(plain, list) else [plain]:
            next(iter(part.values())).pop("covariance", None)  # that of all parameters holds it
        named = dict(zip(self.param_names, self.parameters, strict=True))
        own = dict(list(named.items())[-4:])  # those of the lens stand in its entry
        entry = {"lens": plain, "planes": self.source_planes.to_dict()}
        entry |= {one.name: one.value for one in own.values()}
        entry |= {"source": self.source} if self.source != 2 else {}
        entry["fixed"] = [name for name, one in named.items() if one.fixed]
        bounds = {name: list(one.bounds) for name, one in own.items() if one.bounds != (None, None)}
        std = {name: one.std for name, one in own.items() if one.std is not None}
        entry |= {name: told for name, told in (("bounds", bounds), ("std", std)) if told}
        if self.covariance is not None:
            entry["covariance"] = np.asarray(self.covariance)
        return {"DoubleSourcePlane": entry}

    def __repr__(self) -> str:
        own = ", ".join(f"{one.name}={one.value!r}" for one in self.parameters[-4:])
        more = "" if self.source == 2 else f", source={self.source}"
        return f"DoubleSourcePlane({self.lens!r}, {self.source_planes!r}, {own}{more})"
