"""Gauss-Newton for a source and the parameters of lens, lens light and sky, with its evidence."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.special import lambertw

from lenssr.source.evidence import laplace_evidence

__all__ = ["DEEPEST", "LINKS", "Solution", "log_field", "solve", "weigh"]

# How far below the floor a logarithm still falls: beyond e^-240 all is dark.
DEEPEST = np.log(240.0)
LARGEST_STEP = 2.0  # a node may brighten by e^2 in one step; fading is harmless
TRIES = 8  # steps that are tried, each a third of the one before
PROBES = 8
PROBE_SEED = 20061
# Strengths settle within this factor; the evidence is flat there.
SETTLED = 1.1
# Where the strength begins that is looked for around a given field, in units of a first guess; in how many
# rounds, and which share of the way a round may leave.
FIRST_STRENGTH, ROUNDS, MOST_LEFT = 100.0, 6, 0.8
WEAKEST, STRONGEST = 1e-8, 1e9


@dataclass(frozen=True)
class Link:
    """How brightness follows from the field that has the Gaussian prior.

    Attributes
    ----------
    brightness, slope : callable
        Of the field (n,) and the logarithm of the floor: brightness, and its derivative.
    is_linear : bool
    """

    brightness: object
    slope: object
    is_linear: bool


def _fading(field, log_floor):
    return np.exp(np.minimum(log_floor - field, DEEPEST))


def _log_brightness(field, log_floor):
    return np.exp(field - _fading(field, log_floor))


def _log_slope(field, log_floor):
    return _log_brightness(field, log_floor) * (1 + _fading(field, log_floor))


LINKS = {
    "log": Link(_log_brightness, _log_slope, False),
    "linear": Link(lambda field, _: field, lambda field, _: np.ones_like(field), True),
}


def log_field(brightness, log_floor):
    """The field of a positive brightness where the link is logarithmic.

    Parameters
    ----------
    brightness : `~numpy.ndarray`
    log_floor : float
        Logarithm of the floor; -inf for none.

    Returns
    -------
    field : `~numpy.ndarray`

    Notes
    -----
    With a floor f, brightness s and field g obey log s = g - f exp(-g): well above the floor s is
    exp(g) - f, below it s fades to nothing within a few units of g.

    Examples
    --------
    >>> import numpy as np
    >>> from lenssr.source.gauss_newton import LINKS, log_field
    >>> LINKS["log"].brightness(log_field(np.array([1e-3, 1.0, 1e3]), np.log(0.1)), np.log(0.1))
    array([1.e-03, 1.e+00, 1.e+03])
    """
    return np.log(brightness) + lambertw(np.exp(log_floor) / brightness).real


class Solution:
    """Where the inversion ended; the factor there, and what needs it, is made when asked for.

    Attributes
    ----------
    field : `~numpy.ndarray`, shape (n,)
        Logarithm of the node values where these are well above the floor (see ``log_field``), or the values
        themselves if the inversion was linear.
    parameters : `~numpy.ndarray`, shape (K,)
    strength : float
    mean : float or `~numpy.ndarray`, shape (n,)
        Mean of the prior of the field.
    chi2 : float
    prior : `~lenssr.source.priors.Prior`
    options : dict
        ``link`` and ``mean`` as `solve` was given them.
    iterations : int
    converged : bool
    """

    def __init__(self, state, iterations, converged, options):
        self._state, self._link, self.options = state, LINKS[options["link"]], options
        self.field, self.parameters, self.strength = state.field, state.parameters, state.strength
        self.mean, self.chi2, self.prior = state.mean, state.chi2, state.prior
        self.iterations, self.converged = iterations, converged

    @classmethod
    def found(cls, problem, prior, options, end):
        """A solution that was found elsewhere.

        Parameters
        ----------
        problem, prior
            As for `solve`.
        options : dict
            Its keywords.
        end : dict
            Where it ended, by name: ``field``, ``parameters``, ``strength``, ``mean``, ``evidence``,
            ``determined``, ``iterations``, ``converged``.

        Returns
        -------
        solution : `Solution`
        """
        kept = {"link": options.get("link", "log"), "mean": options.get("mean")}
        link = LINKS[kept["link"]]
        state = _State(problem, prior, end["field"], end["parameters"], float(end["mean"]), link)
        state.set_strength(end["strength"])
        solution = cls(state, int(end["iterations"]), bool(end["converged"]), kept)
        solution.evidence, solution.determined = float(end["evidence"]), float(end["determined"])
        return solution

    @property
    def nearly_determined(self):
        """`determined` one step before the end, where that is known: it takes no factor."""
        return self.determined if self._state.latest is None else self._state.latest

    def strength_of(self, prior, field=None):
        """The strength at which another prior would let the data determine as many nodes.

        Parameters
        ----------
        prior : `~lenssr.source.Prior`
        field : `~numpy.ndarray`, optional
            This solution on the grid of the prior, by default its own.

        Returns
        -------
        strength : float
        """
        field = self.field if field is None else field
        finds_mean = self.options["mean"] is None and not self._link.is_linear
        offset = field - (field.mean() if finds_mean else self.mean)
        return self.determined / max(float(offset @ prior.apply(offset)), 1e-300)

    @property
    def values(self):
        """Node values, shape (n,)."""
        return self._link.brightness(self.field, self._state.log_floor)

    @property
    def slope(self):
        """Derivative of the node values with respect to the field, shape (n,)."""
        return self._link.slope(self.field, self._state.log_floor)

    @cached_property
    def factor(self):
        """`~lenssr.source.Factor` of the Gauss-Newton matrix at the end."""
        return self._state.factorise(exact=True)

    @cached_property
    def next_step(self):
        """The Gauss-Newton step (n + K,) that would follow."""
        return self._state.step(self.factor)

    @cached_property
    def evidence(self):
        """Logarithm of the Laplace evidence, up to what data alone determine."""
        return self._state.evidence(self.factor)

    @cached_property
    def determined(self):
        """Number of nodes that the data determine."""
        return self._state.determined(self.factor)


def solve(
    problem,
    prior,
    strength,
    field,
    parameters,
    *,
    mean=None,
    link="log",
    adapt=True,
    max_iterations=40,
    tolerance=0.05,
):
    """Maximise the posterior, and with it the evidence of the strength of the prior.

    Between Gauss-Newton steps the strength moves to where the evidence would be stationary if the posterior
    were Gaussian, (nodes that the data determine) / (roughness of the field), and so does the constant mean.

    Parameters
    ----------
    problem : object
        ``problem.predict(source, parameters)`` gives the expected data (N,), ``problem.jacobian`` its
        derivatives (N, K); ``problem.adjoint(values, parameters)`` the transpose of the map from source to
        data; ``problem.normal(parameters, exact=)`` a `~lenssr.source.linalg.NormalMatrix`;
        ``problem.data``, ``problem.weight`` (N,), ``problem.parameter_prior`` (mean, inverse variance) and
        ``problem.bounds`` (lower, upper), each (K,); ``problem.log_floor``, the logarithm of the brightness
        below which a positive source fades to nothing (-inf for none).
    prior : `~lenssr.source.priors.Prior`
    strength : float or None
        Where its strength begins; None takes what ``field`` suggests.
    field, parameters : `~numpy.ndarray`, shapes (n,), (K,)
        Where they begin.
    mean : float or `~numpy.ndarray`, shape (n,), optional
        Mean of the prior; by default a constant that is found with the strength, or 0 if the link is linear.
    link : {"log", "linear"}, optional
        What the field is: the logarithm of a positive source (default), or the source.
    adapt : bool, optional
        Whether the strength moves; it does by default.
    max_iterations : int, optional
    tolerance : float, optional
        Converged once a step gains less than this in twice the log posterior, and the strength has settled.

    Returns
    -------
    solution : `Solution`

    References
    ----------
    MacKay 1992, Neural Computation 4, 415 (eq. 4.10); Suyu et al. 2006, MNRAS 371, 983.
    """
    state = _State(problem, prior, field, parameters, mean, LINKS[link])
    state.set_strength(state.rough_strength() if strength is None else strength)
    iteration, converged, settled = 0, False, not adapt
    while iteration < max_iterations and not (converged and settled):
        iteration += 1
        factor = state.factorise()
        converged = state.advance(state.step(factor)) < tolerance
        if adapt:
            likeliest = state.likeliest_strength(factor)
            before = state.strength
            state.set_strength(likeliest)
            settled = abs(np.log(state.strength / before)) < np.log(SETTLED)
    return Solution(state, iteration, converged and settled, {"link": link, "mean": mean})


def weigh(problem, prior, field, parameters, *, mean=None, link="log", rounds=ROUNDS, settled=SETTLED):
    """Find the strength of a prior by the evidence of the problem linearised around a field, which is held.

    What a field has that is rougher than the prior allows, and that data do not ask for, would be gone after
    one step: the roughness that counts is that of the field one Gauss-Newton step on.

    Parameters
    ----------
    problem, prior, field, parameters, mean, link
        As for `solve`.
    rounds : int, optional
        How often the strength may move, by default 6.
    settled : float, optional
        It moves no more once it would by less than this factor, by default 1.1.

    Returns
    -------
    solution : `Solution`
        With the field and the parameters as they were.
    """
    state = _State(problem, prior, field, parameters, mean, LINKS[link])
    state.set_strength(FIRST_STRENGTH * state.rough_strength())
    before, done, number = None, False, 0
    while number < rounds and not done:
        number += 1
        factor = state.factorise()
        step = factor.solve(state.gradient()[:, None])[: factor.count, 0]
        now = np.log(state.strength), np.log(state.likeliest_strength(factor, state.field + step))
        change = now[1] - now[0]
        done = abs(change) < np.log(settled) or now[1] > np.log(STRONGEST)
        if before is not None and now[0] != before[0]:
            # Each round leaves the same share of the way; the rest is taken at once.
            left = (now[1] - before[1]) / (now[0] - before[0])
            change /= 1 - np.clip(left, 0.0, MOST_LEFT)
        before = now
        state.set_strength(np.exp(now[0] + change))
    return Solution(state, 0, done, {"link": link, "mean": mean})


class _State:
    """Field and parameters with what they predict."""

    def __init__(self, problem, prior, field, parameters, mean, link):
        self.latest = None
        self.problem, self.prior, self.link, self.log_floor = problem, prior, link, problem.log_floor
        self.finds_mean = mean is None and not link.is_linear
        self.mean = float(field.mean()) if self.finds_mean else (0.0 if mean is None else mean)
        self._move(field, parameters, self._predict(field, parameters))
        size = len(field) + len(parameters)
        self.probes = np.random.default_rng(PROBE_SEED).choice([-1.0, 1.0], (size, PROBES))

    def _predict(self, field, parameters):
        return self.problem.data - self.problem.predict(self._brightness(field), parameters)

    def _brightness(self, field):
        return self.link.brightness(field, self.log_floor)

    def _move(self, field, parameters, residual):
        self.field, self.parameters, self.residual = field, parameters, residual
        self.slope = self.link.slope(field, self.log_floor)
        self.chi2 = float((self.problem.weight * residual**2).sum())
        self.jacobian = self.problem.jacobian(self._brightness(field), parameters)

    def _roughness(self, field):
        offset = field - self.mean
        return float(offset @ self.prior.apply(offset))

    def _penalty(self, field, parameters):
        mean, stiffness = self.problem.parameter_prior
        return self.strength * self._roughness(field) + float((stiffness * (parameters - mean) ** 2).sum())

    def set_strength(self, strength):
        """Change the strength of the prior."""
        self.strength = float(np.clip(strength, WEAKEST, STRONGEST))

    def rough_strength(self):
        """A first strength: as if the data determined a tenth of the nodes, but no stiffer than the data."""
        rough = self._roughness(self.field)
        data = (self.slope**2 * self.problem.normal(self.parameters).diagonal).sum()
        stiffness = self.prior.spectrum.sum()
        return min(0.1 * len(self.field) / max(rough, 1e-300), data / stiffness)

    def gradient(self):
        """Half the gradient of the log posterior, (n + K,)."""
        weighted = self.problem.weight * self.residual
        rough = self.prior.apply(self.field - self.mean)
        mean, stiffness = self.problem.parameter_prior
        return np.concatenate(
            [
                self.slope * self.problem.adjoint(weighted, self.parameters) - self.strength * rough,
                self.jacobian.T @ weighted - stiffness * (self.parameters - mean),
            ]
        )

    def factorise(self, *, exact=False):
        """Factor the Gauss-Newton matrix."""
        jacobian = self.jacobian
        weighted = jacobian * self.problem.weight[:, None]
        cross = self.slope[:, None] * self.problem.adjoint(weighted, self.parameters)
        corner = jacobian.T @ weighted + np.diag(self.problem.parameter_prior[1])
        normal = self.problem.normal(self.parameters, exact=exact)
        return normal.factor(self.slope, self.prior, self.strength, cross, corner)

    def step(self, factor):
        """The Gauss-Newton step (n + K,), shortened where a node would brighten beyond what is linear."""
        step = factor.solve(self.gradient()[:, None])[:, 0]
        if not self.link.is_linear:
            step *= min(1.0, LARGEST_STEP / max(step[: factor.count].max(), 1e-300))
        return step

    def advance(self, step):
        """Move along a step, shortened until the posterior grows; returns the gain."""
        before = self.chi2 + self._penalty(self.field, self.parameters)
        count = len(self.field)
        for _ in range(TRIES):
            field = self.field + step[:count]
            parameters = np.clip(self.parameters + step[count:], *self.problem.bounds)
            # Light that the data do not hold may leap far: a chi2 that overflows is no gain.
            with np.errstate(over="ignore", invalid="ignore"):
                residual = self._predict(field, parameters)
                chi2 = float((self.problem.weight * residual**2).sum())
                gain = before - chi2 - self._penalty(field, parameters)
            if gain > 0:
                self._move(field, parameters, residual)
                return gain
            step = step / 3
        return 0.0

    def determined(self, factor):
        """Number of nodes that the data determine: n - strength tr(A^-1 C), the trace by fixed probes.

        Probes are spread as the posterior, z^T z - strength x^T C x with x = L^-T z: of what remains only the
        determined directions scatter, so that a few probes are enough.
        """
        fields = factor.sample(self.probes)[: factor.count]
        undetermined = self.strength * (fields * self.prior.apply(fields)).sum() / PROBES
        return float(np.clip(factor.count - undetermined, 1.0, factor.count))

    def likeliest_strength(self, factor, field=None):
        """The strength at which the evidence of a field, by default the present one, is stationary."""
        field = self.field if field is None else field
        if self.finds_mean:
            self.mean = float(field.mean())
        self.latest = self.determined(factor)
        return self.latest / max(self._roughness(field), 1e-300)

    def evidence(self, factor):
        """Laplace evidence: fit, prior, and the ratio of the volumes of posterior and prior."""
        stiffness = self.problem.parameter_prior[1]
        prior = self.prior.log_determinant + len(self.field) * np.log(self.strength)
        prior += float(np.log(stiffness[stiffness > 0]).sum())
        penalty = self.chi2 + self._penalty(self.field, self.parameters)
        return laplace_evidence(prior, factor.log_determinant, penalty)
