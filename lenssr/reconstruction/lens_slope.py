"""The slope of an unknown lens: 2 while a lens is looked for, then free where that is asked for or likelier.

`free_slope` does so where a parametric fit has ended, `free_slope_jointly` behind a source on a grid;
`keep_held` compares both ways to describe the slope.
"""

import logging
import math
from dataclasses import replace

from lenssr.model.fit import NEAR_REFITS, SLOPE, SLOPE_PRIOR, polish, refine
from lenssr.options import AUTO, ISOTHERMAL
from lenssr.reconstruction.lens_search import ask_again

__all__ = ["free_slope", "free_slope_jointly", "keep_held", "slope_of"]

log = logging.getLogger(__name__)

# The slope while a lens is looked for: an isothermal one.
HELD_AT = 2.0


def keep_held(slope, error):
    """Whether a slope of 2 is likelier than a free one, which was found to be ``slope`` +- ``error``.

    The ratio of the evidences of both is that of the densities at 2, by the data and by the prior (the
    Savage-Dickey ratio: Trotta 2007, MNRAS 378, 72), since everything else has the same priors.
    """
    mean, width = SLOPE_PRIOR
    return _log_density(HELD_AT, slope, error) > _log_density(HELD_AT, mean, width)


def _log_density(place, mean, width):
    return -0.5 * ((place - mean) / width) ** 2 - math.log(width)


def free_slope(stack, scene, fit, number, family):
    """Scene and fit of image ``number`` of a stack with the slope free, or as they are where it stays 2.

    ``scene`` has the slope held, ``fit`` is where it has led; ``family`` is that of an unknown lens, or None.
    """
    if family in (None, ISOTHERMAL):
        return scene, fit
    freed = scene.with_slope_free()
    constraints = fit.constraints.with_slope_prior(freed)
    (found,) = refine(stack.select([number]), freed, fit.physical[None], constraints, NEAR_REFITS)
    found = polish(stack, freed, number, replace(found, modes=fit.modes, lens_from=fit.lens_from))
    column = freed["lens"].column(SLOPE)
    slope, error = float(found.physical[column]), float(found.covariance[column, column].sqrt())
    if family == AUTO and (error == 0 or keep_held(slope, error)):
        log.info("image %d: a slope of 2 is as likely as %.2f +- %.2f", number, slope, error)
        return scene, fit
    return freed, found


def free_slope_jointly(freeform, kind, problem, solution, **options):
    """Free the slope behind a source on a grid; yields requests, returns problem and solution.

    ``freeform`` is the `~lenssr.reconstruction.freeform_fit.FreeFormFit`, whose part for this kind of source
    has the slope free from then on.
    """
    if freeform.settings.family in (None, ISOTHERMAL):
        return problem, solution
    part = freeform.parts[kind]
    freeform.parts[kind] = freed = part.with_slope_free()
    physical, grid = problem.physical(solution.parameters), problem.grid_at(solution.parameters)
    further = freeform.problem(kind, freed.scene, physical[0], grid)
    start = freed.scene.to_fit(physical)[0].numpy()
    found = yield from ask_again(further, solution, start, **options)
    physical = further.physical(found.parameters)[0]
    slope, error = slope_of(freed.scene, physical, found.factor.parameter_covariance)
    if freeform.settings.family == AUTO and keep_held(slope, error):
        log.info("a slope of 2 is as likely as %.2f +- %.2f", slope, error)
        freeform.parts[kind] = part
        return problem, solution
    return further, found


def slope_of(scene, physical, covariance):
    """Slope and error, of parameters (P,) or those of the lens alone, and the covariance of the free ones."""
    column = scene["lens"].column(SLOPE)
    place = int(scene.free[:column].sum())
    return float(physical[column]), math.sqrt(covariance[place, place])
