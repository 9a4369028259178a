"""Draws of the parameters of one lens, with their weights and what the sampler says of itself."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import astropy.units as u
import numpy as np
from astropy.table import QTable
from numpy.typing import NDArray

from lenssr.exceptions import InputError
from lenssr.units import positive_integer

if TYPE_CHECKING:
    import matplotlib.figure

__all__ = ["PARETO_LIMIT", "PosteriorDraws"]

# Shape of the tail of the weights above which a Gaussian around the most likely lens does not stand for the
# posterior, and its re-weighted draws are unreliable. Theory: Vehtari et al. 2024 (JMLR 25, 72, section 3.2).
PARETO_LIMIT = 0.7
QUANTILES = {"q16": 0.16, "median": 0.5, "q84": 0.84}


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class PosteriorDraws:
    """Draws from the posterior of one lens, as `SuperResolution.sample_posterior` makes them.

    Parameters
    ----------
    names : tuple of str
        The K free parameters, named as in ``result.covariance_names`` and ``result.table``.
    values : `~numpy.ndarray`, shape (n, K)
    units : tuple of str
        Of the parameters; empty for plain numbers.
    method : str
        "laplace", "psis" or "emcee".
    weights : `~numpy.ndarray`, shape (n,), optional
        They sum to 1; equal by default.
    diagnostics : dict, optional
        What the method says of itself: ``pareto_k`` and ``effective_size`` of "psis"; ``r_hat`` and
        ``autocorrelation`` (steps) by parameter, ``steps``, ``accepted``, ``effective_size`` and
        ``converged`` of "emcee"; ``seconds`` of all.
    image, source : `~astropy.units.Quantity`, shapes (n, ny, nx) and (n, my, mx), optional
        The super-resolved image and the source of each draw, where they were asked for.

    Examples
    --------
    >>> import numpy as np
    >>> from lenssr.posterior import PosteriorDraws
    >>> values = np.random.default_rng(0).normal([1.2, 0.8], 0.01, (500, 2))
    >>> about = {"names": ("lens.theta_E", "lens.q"), "units": ("arcsec", ""), "method": "psis"}
    >>> draws = PosteriorDraws(values=values, **about)
    >>> draws["lens.theta_E"].unit, len(draws)
    (Unit("arcsec"), 500)
    >>> low, high = draws.interval("lens.theta_E")
    >>> bool(low < 1.2 * high.unit < high)
    True
    """

    names: tuple[str, ...]
    values: NDArray[np.float64]
    units: tuple[str, ...]
    method: str
    weights: NDArray[np.float64] | None = None
    diagnostics: dict[str, Any] = field(default_factory=dict)
    image: u.Quantity | None = None
    source: u.Quantity | None = None

    def __post_init__(self) -> None:
        count = len(self.values)
        weights = np.ones(count) if self.weights is None else np.asarray(self.weights, dtype=float)
        if np.shape(self.values) != (count, len(self.names)) or len(self.units) != len(self.names):
            shape, number = np.shape(self.values), len(self.names)
            raise InputError(
                f"values of shape {shape} with {number} names and {len(self.units)} units: give (n, K)"
            )
        if weights.shape != (count,) or not weights.sum() > 0 or weights.min() < 0:
            raise InputError(f"weights of shape {weights.shape} for {count} draws: give one each, 0 or more")
        # Weights of a file add up to 1 but for rounding, and stay as they are.
        total = 1.0 if abs(weights.sum() - 1) < count * np.finfo(float).eps else weights.sum()
        object.__setattr__(self, "weights", weights / total)

    def __len__(self) -> int:
        return len(self.values)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __getitem__(self, name: str) -> u.Quantity:
        """The draws (n,) of one parameter."""
        return u.Quantity(self.values[:, self._place(name)], u.Unit(self.units[self._place(name)]))

    def _place(self, name: str) -> int:
        if name not in self.names:
            raise InputError(f"{name!r} is not a free parameter: give one of {', '.join(self.names)}")
        return self.names.index(name)

    @property
    def pareto_k(self) -> float:
        """Shape of the tail of the weights of "psis", infinite where a few draws have all of the weight.

        nan for other methods; see `doubtful`.
        """
        return float(self.diagnostics.get("pareto_k", np.nan))

    @property
    def doubtful(self) -> bool:
        """Whether ``pareto_k`` exceeds 0.7: neither Laplace errors nor these weights hold, use "emcee"."""
        return self.pareto_k > PARETO_LIMIT

    @property
    def effective_size(self) -> float:
        """Number of independent draws that would say as much; for weights 1 / sum of their squares."""
        assert self.weights is not None
        return float(self.diagnostics.get("effective_size", 1 / np.sum(self.weights**2)))

    @property
    def table(self) -> QTable:
        """A row for each draw: a column a parameter, with its unit, and ``weight``."""
        columns: dict[str, Any] = {
            name: self[name] if unit else self.values[:, k]
            for k, (name, unit) in enumerate(zip(self.names, self.units, strict=True))
        }
        return QTable({**columns, "weight": self.weights}, meta={"method": self.method, **self.diagnostics})

    def quantile(self, name: str, share: float) -> u.Quantity:
        """The value of a parameter below which a share of the posterior lies.

        Parameters
        ----------
        name : str
        share : float
            0 to 1.
        """
        assert self.weights is not None
        values = self[name]
        order = np.argsort(values.value)
        below = np.cumsum(self.weights[order]) - 0.5 * self.weights[order]
        return np.interp(share, below, values.value[order]) * values.unit

    def interval(self, name: str, share: float = 0.68) -> tuple[u.Quantity, u.Quantity]:
        """Ends of the central interval of a parameter.

        Parameters
        ----------
        name : str
        share : float, optional
            Of the posterior, 0.68 by default.
        """
        return self.quantile(name, (1 - share) / 2), self.quantile(name, (1 + share) / 2)

    @property
    def summary(self) -> QTable:
        """A row for each parameter: ``name``, ``mean``, ``std``, ``q16``, ``median``, ``q84``, ``unit``."""
        assert self.weights is not None
        mean = self.weights @ self.values
        std = np.sqrt(self.weights @ (self.values - mean) ** 2)
        columns: dict[str, Any] = {"name": list(self.names), "mean": mean, "std": std}
        for column, share in QUANTILES.items():
            columns[column] = [self.quantile(name, share).value for name in self.names]
        return QTable({**columns, "unit": list(self.units)})

    def resampled(self, n: int | None = None, seed: int = 0) -> PosteriorDraws:
        """Draws of equal weight, drawn from these by their weights, with replacement.

        Parameters
        ----------
        n : int, optional
            Their number, by default as many as there are.
        seed : int, optional
            0 by default.
        """
        count = len(self) if n is None else positive_integer(n, "n")
        chosen = np.random.default_rng(positive_integer(seed, "seed", 0)).choice(
            len(self), count, p=self.weights
        )
        image, source = (None if one is None else one[chosen] for one in (self.image, self.source))
        parts: dict[str, Any] = {"names": self.names, "units": self.units, "method": self.method}
        parts |= {"diagnostics": dict(self.diagnostics), "image": image, "source": source}
        return PosteriorDraws(values=self.values[chosen], **parts)

    def corner(
        self,
        names: Sequence[str] | None = None,
        *,
        truth: Mapping[str, Any] | None = None,
        others: Mapping[str, PosteriorDraws] | None = None,
        label: str | None = None,
        figure: matplotlib.figure.Figure | None = None,
        path: str | os.PathLike[str] | None = None,
    ) -> matplotlib.figure.Figure:
        """Draw the parameters against one another (needs the extra ``posterior``).

        Parameters
        ----------
        names : sequence of str, optional
            Which, by default those of the lens, or all if there are none.
        truth : mapping, optional
            True values by name, numbers in ``units`` or quantities: lines across the panels.
        others : mapping of str to `PosteriorDraws`, optional
            More draws by their label, on top: of another method, or of another result. Parameters that they
            lack are left out.
        label : str, optional
            Of these draws in the legend, by default their method.
        figure : `~matplotlib.figure.Figure`, optional
            Where to draw; a new one, outside pyplot, by default.
        path : str or `~pathlib.Path`, optional
            Where to save it, in the format of its suffix.

        Returns
        -------
        figure : `~matplotlib.figure.Figure`

        Raises
        ------
        InputError
            If a parameter is unknown, or corner is not installed.

        References
        ----------
        Foreman-Mackey 2016, JOSS 1, 24 (corner).
        """
        from lenssr.posterior.corner_plot import draw_corner

        if names is None:
            names = [name for name in self.names if name.startswith("lens.")] or self.names
        for name in names:
            self._place(name)
        labelled = {label or self.method: self, **(others or {})}
        return draw_corner(labelled, list(names), truth=truth or {}, figure=figure, path=path)

    def __repr__(self) -> str:
        told = "" if np.isnan(self.pareto_k) else f", pareto k {self.pareto_k:.2f}"
        r_hat = self.diagnostics.get("r_hat")
        told += f", R-hat {max(r_hat.values()):.3f}" if r_hat else ""
        size = f"effective size {self.effective_size:.0f}"
        return f"<PosteriorDraws {self.method}: {len(self)} of {len(self.names)} parameters, {size}{told}>"
