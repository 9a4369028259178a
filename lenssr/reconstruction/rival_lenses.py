"""Which of several likely trial lenses it is: a rough Sérsic behind each, then a short free-form look."""

import logging
from dataclasses import replace

import numpy as np

from lenssr.model.fit import Constraints, early_fit, refine, softened, template_of
from lenssr.model.initial_guess import source_start, without_light
from lenssr.reconstruction import decisions

__all__ = ["at_end", "likeliest", "rivals", "rough_fit", "start_behind"]

log = logging.getLogger(__name__)

# Iterations of a Sérsic from a trial lens beside lens light: it only has to say where the source begins.
BRIEFLY = 15
# Width of the prior that ties a lens to its start meanwhile, of shapes; of lengths over the Einstein radius.
TIED = 3e-3


def rivals(trials):
    """Trial lenses among which something else has to decide: the likeliest, and of the usual ones."""
    likely = trials[0].log_posterior - decisions.RIVAL_TRIAL
    usual = [number for number, one in enumerate(trials) if not one.is_odd][:1]
    near = [number for number, one in enumerate(trials) if one.log_posterior >= likely]
    return [trials[number] for number in dict.fromkeys([0, *usual, *near])]


def rough_fit(lens, stack, scene, plain, light, constraints, tolerance):
    """Where a free-form source begins behind a trial lens (L,), beside lens light: a few steps of a Sérsic.

    They hardly move the lens: a source that is no Sérsic would, to where no free-form one finds back from.
    """
    physical = start_behind(lens, stack, plain, light)
    if plain is not scene:
        near = constraints.tied_to_lens(plain, physical, TIED)
        physical = scene.from_plain_light(plain, early_fit(stack, plain, physical, near))
    centres = physical[:, scene.lens_centre_columns]
    constraints = Constraints.of(scene, 1).centred_on(scene, centres, decisions.CENTRE_BOUND)
    constraints = constraints.kept_to_light(scene)
    constraints = constraints.with_light_priors(scene, physical)
    near = constraints.tied_to_lens(scene, physical, TIED)
    (fit,) = refine(stack.sparser(), scene, physical, near, 0, tolerance=tolerance, patience=BRIEFLY)
    return replace(fit, constraints=constraints)


def likeliest(fits, begin):
    """The fit from which ``begin(fit)`` leads to the likeliest free-form source, all at one temperature.

    ``fits`` are pairs of a fit and of what its lens loses for being odd. Returns the fit, and where it
    led to, None where nothing had to be decided.
    """
    if len(fits) == 1:
        return fits[0][0], None
    ends = [(begin(fit), oddity) for fit, oddity in fits]
    coolest = min(end.temperature for end, _ in ends)
    evidence = [end.evidence_at(coolest) - oddity for end, oddity in ends]
    log.debug("ln evidence behind trial lenses: %s", evidence)
    best = int(np.argmax(evidence))
    return fits[best][0], ends[best][0]


def at_end(scene, fit, look):
    """A fit with lens, lens light and sky as a look from it has left them, and with that look."""
    physical = fit.physical.clone()
    physical[scene.keep("source")] = look.problem.physical(look.solution.parameters)[0].to(physical)
    return replace(fit, physical=physical, look=look)


def start_behind(lens, stack, scene, light):
    """A physical vector (1, P) with a trial lens (L,), the first lens light, and a source found behind it."""
    template = template_of(scene, stack, lens[None], light)
    weight = softened(stack.first_weights, stack, scene, template)
    return source_start(stack, scene, template, without_light(stack, scene, light), weight)
