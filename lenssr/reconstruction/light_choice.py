"""``lens_light="auto"``: whether and how the galaxy that lenses shines, as simply as the image allows.

And ``mask="auto"``: other objects are hidden, unless one Sérsic behind a lens explains the image with them.

For the light of the lens galaxy:

1. No light where no galaxy is seen, in the image and in what a fit without it leaves; or where such a fit
   explains all pixels with one Sérsic.
2. One Sérsic where this and one behind the lens explain all pixels, and leave no object.
3. Else two groups of Gaussians, if they explain what lies beside the arcs.
4. Else the likeliest of all, by evidence: behind the lens that was found, each description of the light has a
   free-form source of its own, whatever the source of the result is.
"""

import logging
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
import torch
from astropy.stats import gaussian_fwhm_to_sigma
from numpy.typing import NDArray

from lenssr.imaging.detection import galaxy_place, psf_width, significance_map
from lenssr.imaging.observation import Observation
from lenssr.options import AUTO, Settings
from lenssr.reconstruction import decisions
from lenssr.reconstruction.agreement import explains, explains_beside_arcs
from lenssr.reconstruction.field_mask import without_others
from lenssr.reconstruction.model_free import ModelFreeReconstruction
from lenssr.reconstruction.parametric import ParametricReconstruction

__all__ = ["FIRST", "LIGHTS", "LightChoiceReconstruction", "chosen", "method_with_light", "shows_galaxy"]
__all__ += ["with_light_shown"]

log = logging.getLogger(__name__)

Finish: TypeAlias = Callable[[Any, Observation], Any]

# From simple to complex.
LIGHTS: tuple[Any, ...] = (
    None, "sersic", ["sersic", "sersic"], "mge", ["mge", "mge"], ["mge", "mge", "mge"],
)  # fmt: skip
# With which the lens is found beside a galaxy that is no Sérsic.
FIRST = ["mge", "mge"]
# Options of a fit with one Sérsic behind the lens, whatever the source of the result is.
PLAIN: dict[str, Any] = {"source": "sersic", "prior": "auto", "positive": True, "start": "search"}


def method_with_light(settings: Settings) -> Any:
    """What solves images with ``lens_light="auto"``; methods without a model of the image know no light."""
    dark = replace(settings, lens_light=None).method()
    return dark if isinstance(dark, ModelFreeReconstruction) else LightChoiceReconstruction(settings, dark)


class LightChoiceReconstruction:
    """Solve images with the light of their lens galaxies that they need.

    Parameters
    ----------
    settings : `~lenssr.options.Settings`
        With ``lens_light="auto"``.
    dark : object
        What solves them without lens light.
    """

    def __init__(self, settings: Settings, dark: Any) -> None:
        self.settings, self.dark = settings, dark
        self.networks = getattr(dark, "networks", [])

    def parts(self, members: list[Any]) -> list[list[Any]]:
        """Cut a list of (number, observation) into pieces for processes to share."""
        lit = [shows_galaxy(observation) for _, observation in members]
        dark = [member for member, shines in zip(members, lit, strict=True) if not shines]
        alone = [[member] for member, shines in zip(members, lit, strict=True) if shines]
        return [*(self.dark.parts(dark) if dark else ()), *alone]

    def solve(self, observations: list[Observation], finish: Finish) -> list[Any]:
        """Results ``finish(solved, observation)`` of images; an image that fails gives an exception."""
        lit = {number for number, one in enumerate(observations) if shows_galaxy(one)}
        dark = [number for number in range(len(observations)) if number not in lit]
        found: list[Any] = [None] * len(observations)  # None where a galaxy has to be described
        tell = self._telling(finish, None)

        def unless_lit(solved: Any, observation: Observation) -> Any:
            return None if _leaves_galaxy(solved.fit, observation) else tell(solved, observation)

        solved = self.dark.solve([observations[number] for number in dark], unless_lit) if dark else []
        for number, one in zip(dark, solved, strict=True):
            found[number] = one
        for number, observation in enumerate(observations):
            if found[number] is None:
                found[number] = self._beside_galaxy(observation, finish, sure=number not in lit)
        return found

    def _beside_galaxy(self, observation: Observation, finish: Finish, *, sure: bool) -> Any:
        """The result of an image that seems to show a galaxy, or is ``sure`` to."""
        light = self._simple_light(observation, sure)
        if light != FIRST:
            return self._with_light(light, observation, finish)
        (solved,) = self._method(FIRST).solve([observation], lambda solved, _: solved)
        if isinstance(solved, Exception):
            return solved
        # Two sources are parametric: there is no free one to compare lights by.
        if self.settings.sources == 2 or explains_beside_arcs(*_scaled(solved.fit, observation)):
            return self._telling(finish, FIRST)(solved, observation)
        lens = solved.scene.lens.with_vector(solved.fit.physical[solved.scene["lens"].slice].cpu())
        evidence = list(evidence_of_lights(self.settings, lens, observation))
        light = chosen(evidence)
        if light == FIRST:
            return self._telling(finish, light, lens_lights=evidence)(solved, observation)
        return self._with_light(light, observation, finish, lens_lights=evidence)

    def _simple_light(self, observation: Observation, sure: bool) -> Any:
        """No light, or one Sérsic, where with a Sérsic behind the lens it explains all pixels; or `FIRST`."""
        shining, lit = plain_fit(self._settings("sersic"), observation)
        if not sure:
            scene, dark = plain_fit(self._settings(None), observation)
            # The galaxy's own light may explain it better; one on a bound is no galaxy.
            as_good = _explains(dark, observation) and dark.chi2 < lit.chi2 + decisions.SECOND_MODE
            spurious = _light_at_bound(shining, lit) and _is_noise(dark)
            if _is_lensed(scene, dark, observation) and (as_good or spurious):
                return None
        # Arcs before a bright galaxy may be lost among its pixels: they are objects that chi2 does not see.
        alone = _brightest_spot(lit, observation) < decisions.OBJECT_PEAK
        return "sersic" if alone and _explains(lit, observation) else FIRST

    def _method(self, light: Any) -> Any:
        """The method of the source with a light of the lens galaxy."""
        return self.dark.with_light(light) if self.networks else self._settings(light).method()

    def _settings(self, light: Any) -> Settings:
        return replace(self.settings, lens_light=light)

    def _telling(self, finish: Finish, light: Any, **told: Any) -> Finish:
        """A ``finish`` whose results tell what the light is."""
        told["lens_light"], chosen = light, self._settings(light)
        return lambda solved, observation: finish(
            replace(solved, settings=chosen, meta=solved.meta | told), observation
        )

    def _with_light(self, light: Any, observation: Observation, finish: Finish, **told: Any) -> Any:
        """The result of one image with a light of the lens galaxy."""
        log.info("the light of the lens galaxy: %s", light or "none")
        (found,) = self._method(light).solve([observation], self._telling(finish, light, **told))
        return found


# ---------------------------------------------------------------- what an image needs


def hiding_others(observation: Observation, settings: Settings) -> Observation:
    """The observation with other objects masked where they are to be found, and where there are any.

    What seem to be some are none where a fit without lens light explains the image as it is.
    """
    if observation.meta.get("mask") != AUTO:
        return observation
    masked = without_others(observation)
    if settings.lens_light not in (None, AUTO) or np.array_equal(masked.mask, observation.mask):
        return masked
    scene, fit = plain_fit(replace(settings, lens_light=None), observation)
    alone = _brightest_spot(fit, observation) < decisions.OBJECT_PEAK
    explained = _explains(fit, observation) and _is_lensed(scene, fit, observation)
    return observation if alone and explained else masked


def plain_fit(settings: Settings, observation: Observation) -> Any:
    """Scene and fit with one Sérsic behind the lens, whatever the source of the result is.

    Without lens light it is to explain the image or not, and gives up early.
    """
    method = ParametricReconstruction(replace(settings, **PLAIN))
    _, scene, (fit,) = method.fit([observation], thorough=settings.lens_light is not None)
    return scene, fit


def _is_lensed(scene: Any, fit: Any, observation: Observation) -> bool:
    """Whether the source of a fit is lensed: a galaxy may pass for one that is not."""
    radius = math.inf if scene.radius is None else float(fit.physical[scene.radius])
    return radius > decisions.RESOLVED_RING * observation.pixel_scale


def _light_at_bound(scene: Any, fit: Any) -> bool:
    """Whether a parameter of the lens light ended on a bound."""
    return any(
        block.slice.start <= column < block.slice.stop for block in scene.lights for column in fit.at_bound
    )


def _is_noise(fit: Any) -> bool:
    """Whether chi2 of all pixels together is that of noise, within three standard deviations."""
    return bool(fit.chi2 < fit.used + 3 * math.sqrt(2 * fit.used))


def with_light_shown(settings: Settings, observations: Iterable[Observation]) -> Settings:
    """Settings for images of one lens of which the light is "auto": none, or what follows real galaxies."""
    return replace(settings, lens_light=FIRST if any(map(shows_galaxy, observations)) else None)


def shows_galaxy(observation: Observation) -> bool:
    """Whether an image seems to show the galaxy that lenses: light that falls off on all sides."""
    return _has_galaxy(observation.data - observation.sky.level, observation)


def _leaves_galaxy(fit: Any, observation: Observation) -> bool:
    """Whether a fit without lens light leaves a galaxy."""
    return _has_galaxy(observation.data - fit.model.reshape(observation.shape).cpu().numpy(), observation)


def _has_galaxy(image: NDArray[np.float64], observation: Observation) -> bool:
    return galaxy_place(np.where(observation.valid, image, 0.0), observation) is not None


def _explains(fit: Any, observation: Observation) -> bool:
    """Whether a fit leaves noise alone."""
    return explains(*_scaled(fit, observation), arcs_seen=False)


def _brightest_spot(fit: Any, observation: Observation) -> float:
    """Significance of what a fit leaves where it leaves most, smoothed by the PSF, in sigma."""
    model, weight = (one.reshape(observation.shape).cpu().numpy() for one in (fit.model, fit.weight))
    residual = np.where(observation.valid, observation.data - model, 0.0)
    sigma = psf_width(observation) * gaussian_fwhm_to_sigma
    return float(significance_map(residual, weight, sigma).max()) / observation.sky.factor


def _scaled(fit: Any, observation: Observation) -> tuple[Any, torch.Tensor]:
    """A fit whose errors are as large as the noise of the sky where they are larger, and its data (N,)."""
    data = np.where(observation.valid, observation.data, 0.0).ravel()
    smaller = min(1.0, observation.sky.rms_ratio) ** 2
    scaled = replace(fit, chi2=fit.chi2 / smaller, weight=fit.weight / smaller)
    return scaled, torch.as_tensor(data).to(fit.model)


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
