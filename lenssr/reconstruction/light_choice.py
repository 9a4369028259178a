"""``lens_light="auto"``: how the galaxy that lenses shines, by evidence.

The lens is found with the light that follows galaxies most closely; behind it, every description of that
light has a free-form source of its own, whatever the source of the result is.
"""

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from lenssr.imaging.observation import Observation
from lenssr.options import Settings
from lenssr.reconstruction import decisions
from lenssr.reconstruction.parametric import ParametricReconstruction

__all__ = ["FIRST", "LIGHTS", "LightChoiceReconstruction", "chosen"]

log = logging.getLogger(__name__)

# From simple to complex.
LIGHTS: tuple[Any, ...] = (
    None, "sersic", ["sersic", "sersic"], "mge", ["mge", "mge"], ["mge", "mge", "mge"],
)  # fmt: skip
# With which the lens is found.
FIRST = ["mge", "mge"]


class LightChoiceReconstruction:
    """Solve images one after the other, each with the light of its lens galaxy that is the likeliest.

    Parameters
    ----------
    settings : `~lenssr.options.Settings`
        With ``lens_light="auto"``.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def parts(self, members: list[Any]) -> list[list[Any]]:
        """Cut a list of (number, observation) into pieces for processes to share."""
        return [[member] for member in members]

    def solve(self, observations: list[Observation], finish: Callable[[Any, Observation], Any]) -> list[Any]:
        """Results ``finish(solved, observation)`` of images; an image that fails gives an exception."""
        return [self._solve(observation, finish) for observation in observations]

    def _solve(self, observation: Observation, finish: Callable[[Any, Observation], Any]) -> Any:
        solved = self._with_light(FIRST, observation, lambda solved, _: solved)
        if isinstance(solved, Exception):
            return solved
        lens = solved.scene.lens.with_vector(solved.fit.physical[solved.scene["lens"].slice].cpu())
        evidence = list(evidence_of_lights(self.settings, lens, observation))
        light = chosen(evidence)
        told = {"lens_light": light, "lens_lights": evidence}
        log.info("the lens light is %s", light)

        def tell(solved: Any, observation: Observation) -> Any:
            return finish(replace(solved, meta=solved.meta | told), observation)

        return tell(solved, observation) if light == FIRST else self._with_light(light, observation, tell)

    def _with_light(self, light: Any, observation: Observation, finish: Callable[..., Any]) -> Any:
        """What the method of the source gives of one image with a light of the lens galaxy."""
        (found,) = replace(self.settings, lens_light=light).method().solve([observation], finish)
        return found


def evidence_of_lights(settings: Settings, lens: Any, observation: Observation) -> Iterator[list[Any]]:
    """Each of `LIGHTS` with its ln evidence behind a lens that is held, all at one temperature."""
    source = {"source": "pixelated", "prior": "curvature", "positive": True, "start": "search"}
    held = replace(settings, lens=lens, fit_lens=False, mass_follows_light=True, **source)
    looks = []
    for light in LIGHTS:
        method = ParametricReconstruction(replace(held, lens_light=light))
        _, scene, (fit,) = method.fit([observation])
        looks.append(method.begin(scene.on("cpu"), fit, observation, prior="curvature", compares_light=True))
    coolest = min(look.temperature for look in looks)
    for light, look in zip(LIGHTS, looks, strict=True):
        yield [light, look.evidence_at(coolest)]


def chosen(evidence: list[list[Any]]) -> Any:
    """The likeliest light; of those as likely the simplest, and none unless one is seen at 5 sigma."""
    best, none = max(value for _, value in evidence), evidence[0][1]
    if best < none + decisions.SECOND_MODE / 2:
        return None
    return next(light for light, value in evidence[1:] if value > best - decisions.SAME_EVIDENCE)
