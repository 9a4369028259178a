"""A lens behind which no Sérsic fits, looked for once more with a source that is free on a grid."""

from dataclasses import replace

import torch

from lenssr.model.fit import fit_known_lens, polish
from lenssr.reconstruction.freeform_fit import Inversion
from lenssr.reconstruction.optima import Optimum, other_optima
from lenssr.source.batching import alone

__all__ = ["with_free_source"]

# A Sérsic that does not fit takes the Einstein radius farther off than a prior around a good fit allows.
RADIUS_REACH, RADIUS_WIDTH = 0.3, 0.1


def with_free_source(stack, scene, bare, fit, observation, settings):
    """Find a lens by a source on a coarse grid, from where a fit ended and elsewhere, then fit what shines.

    A Sérsic takes up what is wrong with it by a wrong lens: the Einstein radius behind a clumpy galaxy may be
    off by 10 %, its chi2 not much larger than that of noise. The free source is no part of what is returned.

    Parameters
    ----------
    stack : `~lenssr.model.image_stack.ImageStack`
        Holding the one image, on a CPU.
    scene, bare : `~lenssr.model.scene.Scene`
        With a Sérsic source, and without.
    fit : `~lenssr.model.fit.SceneFit`
        Its ``elsewhere`` are the other lenses.
    observation : `~lenssr.imaging.Observation`
    settings : `~lenssr.options.Settings`

    Returns
    -------
    fit : `~lenssr.model.fit.SceneFit`
        With the likeliest lens, its errors, and the Sérsic that fits best behind it; the one that came in,
        where a Sérsic is likelier than all sources on a grid.
    """
    held = scene.with_lens_held()
    starts = [fit, *(_fit_behind(stack, held, lens, fit) for lens in fit.elsewhere)]
    options = replace(settings, source="pixelated", prior="auto", positive=True)
    radius, found = (RADIUS_REACH, RADIUS_WIDTH), []
    for start in starts:
        inversion = Inversion(stack, scene, bare, start, observation, options, radius=radius)
        problem, solution = alone(inversion.begin())
        found.append((inversion, problem, solution))
        if start is fit:
            parametric = inversion.sersic_evidence.value(stack.data[0])
    inversion, problem, solution = best = max(found, key=lambda one: one[2].evidence)
    if solution.evidence < parametric:
        return fit
    lens = problem.physical(solution.parameters)[0, scene.blocks[0].slice]
    freed = polish(stack, held, 0, _fit_behind(stack, held, lens, fit))
    correlated = inversion.temper / inversion.doubt**2
    count = int(scene.free[scene.blocks[0].slice].sum())
    covariance = torch.as_tensor(solution.factor.parameter_covariance[:count, :count] / correlated)
    optima = [Optimum.of(*one[1:]) for one in found if one is not best]
    rivals = other_optima(Optimum.of(problem, solution), optima)
    lower, upper = problem.bounds
    outside = ((solution.parameters <= lower) | (solution.parameters >= upper))[:count].nonzero()[0]
    return replace(
        freed,
        covariance=_joint_covariance(stack, scene, freed, covariance),
        at_bound=tuple(sorted({*freed.at_bound, *scene.free_index[outside].tolist()})),
        iterations=fit.iterations + freed.iterations + solution.iterations,
        rivals=[(worse, _place(scene, freed, place)) for worse, place in rivals],
        start="pixelated",
    )


def _fit_behind(stack, held, lens, fit):
    """What shines behind a lens (L,) that is held, with the bounds and priors of another fit."""
    return replace(fit_known_lens(stack, held, lens[None])[0], terms=fit.terms)


def _place(scene, fit, place):
    """Parameters of a fit with the lens of another place."""
    there, lens = fit.physical.clone(), scene.blocks[0].slice
    there[lens] = place[lens]
    return there


def _joint_covariance(stack, scene, fit, lens):
    """Covariance of everything: that of the lens (L, L) is given, and what shines follows it.

    With the curvature F of chi2, the best light moves by -F_ss^-1 F_sl with the lens.
    """
    physical = fit.physical[None]
    _, slopes = stack.model(scene, physical)(scene.to_fit(physical), torch.tensor([0]))
    curvature = ((slopes[0] * fit.weight) @ slopes[0].T).double()
    slope = torch.where(scene.log, fit.physical, torch.ones_like(fit.physical))[scene.free]
    light = fit.covariance[scene.free][:, scene.free] / slope[:, None] / slope[None, :]
    count = len(lens)
    follow = torch.cat([torch.eye(count).to(lens), -(light @ curvature)[count:, :count]])
    covariance = follow @ lens @ follow.T
    covariance[count:, count:] += light[count:, count:]
    return scene.physical_covariance(covariance[None], physical)[0]
