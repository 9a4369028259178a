"""Whether the fit of a parametric source can be believed, or the lens has to be looked for by other means."""

from lenssr.reconstruction import decisions

__all__ = ["agreement_wanted", "explains", "explains_beside_arcs"]


def agreement_wanted(fit, data):
    """Sigma from the network's estimate within which a fit of data (N,) needs no second look."""
    chi2, number = _left_in_arcs(fit, data)
    if chi2 > decisions.HOPELESS_CHI2 * number:
        return 0.0
    arcs_left = chi2 > number + decisions.ARCS_LEFT_SIGMA * (2 * number) ** 0.5
    return decisions.AGREES_WITH_ARCS_LEFT if arcs_left else decisions.AGREES


def explains(fit, data, *, arcs_seen=True):
    """Whether a Sérsic leaves noise alone of data (N,), also in the arcs: then no trial lenses are needed.

    Without arcs it does not, unless they need not be ``arcs_seen``.
    """
    chi2, number = _left_in_arcs(fit, data)
    enough = number > 0 or not arcs_seen
    return enough and fit.chi2 < decisions.BAD_CHI2 * fit.used and chi2 <= decisions.BAD_CHI2 * number


def explains_beside_arcs(fit, data):
    """Whether a fit leaves noise alone of those data (N,) where no source shines."""
    chi2, number = _left_in_arcs(fit, data)
    return fit.chi2 - chi2 < decisions.BAD_CHI2 * (fit.used - number)


def _left_in_arcs(fit, data):
    """chi2 of the arcs that a fit of data (N,) leaves, and their number of pixels."""
    arcs = fit.lensed_source * fit.weight.sqrt() > decisions.ARC_SIGMA
    return float((fit.weight * (data - fit.model) ** 2)[arcs].sum()), int(arcs.sum())
