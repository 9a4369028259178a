"""What a result keeps to draw from its posterior: enough to build the fit again, in memory and in files.

Numbers only, no matrices: those of an inversion are made anew when draws are asked for.
"""

import copy
import dataclasses
from dataclasses import dataclass
from functools import cached_property

import astropy.units as u
import numpy as np
import torch

from lenssr._limits import check_unit_text
from lenssr.exceptions import InputError
from lenssr.grids import PixelGrid
from lenssr.imaging.noise import GaussianNoise
from lenssr.imaging.observation import Observation
from lenssr.imaging.psf import PSF, GaussianPSF
from lenssr.model.fit import Constraints
from lenssr.options import Settings, named
from lenssr.posterior.targets import FreeFormTarget, SceneTarget
from lenssr.reconstruction.fine_freeform import FineView, FreeForm, FreeFormPosterior
from lenssr.reconstruction.fine_images import ParametricPosterior, fine_scene, source_pixels
from lenssr.source import BoundFactor, GridMotion, LocalPrior, Prior, Problem, SourceGrid, View
from lenssr.source.gauss_newton import solve
from lenssr.source.priors import LINKS

__all__ = ["KeptPosterior", "from_plain", "keep_posterior"]

# These fit the images; they import this file, too.
STACK_OF = "lenssr.reconstruction.parametric:stack_of"
STEEP_LIGHT = "lenssr.reconstruction.freeform_fit:steep_light"
PARAMETRIC = "lenssr.reconstruction.parametric:ParametricReconstruction"
FINE = ("scale", "oversampling", "psf_out")


@dataclass(frozen=True, eq=False)
class Inversion:
    """Where the inversion of a source on a grid ended; the arguments of its `Problem` and of `solve`.

    ``log_floor``, ``drift`` and ``growth`` are those of the problem and of its `GridMotion`.
    """

    grid: SourceGrid
    template: torch.Tensor
    drift: torch.Tensor
    growth: torch.Tensor
    log_floor: float
    prior: Prior
    strength: float
    mean: object
    link: str
    field: np.ndarray
    parameters: np.ndarray

    @classmethod
    def of(cls, problem, solution):
        """The numbers of a problem and its solution."""
        motion = problem.motion
        return cls(
            problem.grid,
            problem.template[0],
            motion.drift,
            motion.growth,
            problem.log_floor,
            solution.prior,
            solution.strength,
            solution.mean,
            solution.options["link"],
            solution.field,
            solution.parameters,
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class KeptPosterior:
    """The posterior of one image, from which `~lenssr.SuperResolution` draws.

    ``covariance`` (P, P) is that of ``physical`` (P,) for the noise as it is. ``weight`` and ``offset`` (N,)
    are as of `~lenssr.source.View`; ``widening`` is the factor of errors over those that the weights know.
    ``ready`` holds the posterior that the run made itself, where there was one.
    """

    settings: Settings
    observation: Observation
    scene: object
    physical: torch.Tensor
    covariance: torch.Tensor
    constraints: Constraints
    weight: np.ndarray
    offset: np.ndarray
    widening: float
    names: tuple
    units: tuple
    inversion: Inversion | None = None
    ready: object = None

    @property
    def _fine(self):
        """Options of the fine images."""
        return {name: getattr(self.settings, name) for name in FINE}

    @cached_property
    def _stack(self):
        return named(STACK_OF)([self.observation], self.settings, "cpu")

    def __getstate__(self):
        """What travels between processes: no operators, which are made anew."""
        return {name: value for name, value in vars(self).items() if not name.startswith("_")}

    def changes(self, count, rng):
        """Differences of draws from the most likely image and source, (count, ny, nx) and (count, my, mx)."""
        ready = self.ready
        if ready is None:
            object.__setattr__(self, "ready", ready := self._made_ready())
        return ready.changes(count, rng)

    def _made_ready(self):
        """The posterior that a run would have made."""
        if self.inversion is None:
            return ParametricPosterior(
                self.scene, self.physical, self.covariance, self.observation, self._fine
            )
        problem, solution = self._inverted(1.0)
        state = self._state(problem, solution.parameters, solution.values, solution.slope)
        return FreeFormPosterior(state, solution.factor, self.observation, self._fine, self.widening)

    def target(self, method="psis"):
        """The `~lenssr.posterior.targets.Target`; `InputError` where the fit is not at its maximum."""
        if self.settings.kind == "network" and method != "laplace":
            raise InputError(
                f"method = {method!r} with a source that a network has drawn, which is no maximum of the "
                "posterior: use 'laplace', or run with source='pixelated'"
            )
        scene = self.scene
        slope = torch.where(scene.log, self.physical, 1.0)[scene.free]
        covariance = self.covariance[scene.free][:, scene.free] / slope[:, None] / slope[None, :]
        about = {
            "scene": scene,
            "physical": self.physical,
            "covariance": covariance.numpy(),
            "constraints": self.constraints,
            "names": self.names,
            "units": self.units,
        }
        if self.inversion is not None:
            problem, solution = self._inverted(self.widening**2)
            return FreeFormTarget(problem=problem, solution=solution, **about)
        stack = self._stack
        if self.settings.oversampling == "auto":
            stack = stack.select([0], refine=scene.brightness_at(self.physical[None]))
        planes = {"weight": torch.as_tensor(self.weight), "offset": torch.as_tensor(self.offset)}
        return SceneTarget(stack=stack, temperature=self.widening**2, **planes, **about)

    def _inverted(self, temperature):
        """Problem and solution of the inversion, chi2 divided by a temperature."""
        kept, scene, stack = self.inversion, self.scene, self._stack
        bare = scene.without("source") if scene["source"] is not None else scene
        light = self.physical[scene.keep("source")][None]
        view = View(
            stack,
            named(STEEP_LIGHT)(stack, bare, light, self.settings),
            self.weight / temperature,
            self.offset,
        )
        problem = Problem([view], scene, kept.template, self.constraints, kept.grid)
        problem.log_floor, problem.motion = kept.log_floor, GridMotion(kept.drift, kept.growth)
        options = {"link": kept.link, "mean": kept.mean, "adapt": False, "max_iterations": 0}
        start = kept.prior, kept.strength, kept.field, kept.parameters
        return problem, solve(problem, *start, **options)

    def _state(self, problem, parameters, values, slope):
        """A `FreeForm` at parameters (K,)."""
        grid, physical = problem.grid_at(parameters), problem.physical(parameters)
        return FreeForm(grid, self.scene, physical, values, slope, problem.motion)

    def images(self, target, vectors, rng):
        """Images (m, ny, nx) and sources (m, my, mx) of vectors (m, F), on the pixels of the result.

        Of a source on a grid a draw at each vector, from the Gaussian around its most likely logarithm there.
        """
        draw = self._parametric if self.inversion is None else self._freeform
        images, sources = zip(*draw(target, vectors, rng), strict=True)
        return np.stack(images), np.stack(sources)

    def _parametric(self, target, vectors, rng):
        block = self.scene["source"]
        rays = source_pixels(block.profile, self.physical[block.slice])
        nothing = torch.zeros_like(self.covariance)
        for physical in target.to_physical(vectors):
            fine = fine_scene(self.scene, physical, nothing, self.observation, **self._fine)
            source = block.profile.brightness(*(axis.ravel() for axis in rays), physical[None, block.slice])[
                0
            ]
            yield fine.image("source", "lens_light", "sky"), source.reshape(rays[0].shape).numpy()

    def _freeform(self, target, vectors, rng):
        problem, link = target.problem, LINKS[self.inversion.link]
        nodes = None
        for vector in np.concatenate([target.centre[None], vectors]):
            if nodes is None:  # at the most likely lens: the pixels of the result
                values = target.solution.values, target.solution.slope
                nodes = FineView(self._state(problem, vector, *values), self.observation, self._fine).grid
                continue
            found = target.source_at(vector)
            field = found.field + found.factor.sample(rng.standard_normal((found.factor.size, 1)))[:, 0]
            state = self._state(problem, vector, *link.on_arrays(field, problem.log_floor))
            view = FineView(state, self.observation, self._fine)
            image = view.image(view.matrix @ state.values) + view.fine.image("lens_light", "sky")
            yield image, (state.rays(*nodes.nodes).matrix() @ state.values).reshape(nodes.side, nodes.side)

    # ------------------------------------------------------------ in files

    def plain(self):
        """Numbers, text and arrays, in dicts and lists; None where the settings cannot be written."""
        try:
            settings = self.settings.save()
        except InputError:  # a model with tied parameters
            return None
        if settings["source"] == "network":  # the network itself is not needed any more
            settings |= {"source": "pixelated", "refine": 0, "start": "search"}
        observation = self.observation
        plain = {
            "settings": settings,
            "network": self.settings.kind == "network",
            "unit": observation.unit.to_string(),
            "grid": _plain_grid(observation.grid),
            "psf": _plain_psf(observation.psf),
            "data": observation.data,
            "mask": observation.mask.astype(np.uint8),
            "free": self.scene.free.tolist(),
            "has_source": self.scene["source"] is not None,
            "widening": float(self.widening),
            "names": list(self.names),
            "units": list(self.units),
            "physical": self.physical.numpy(),
            "covariance": self.covariance.numpy(),
            "weight": self.weight,
            "offset": self.offset,
            "constraints": {name: part.numpy() for name, part in vars(self.constraints).items()},
        }
        if self.inversion is not None:
            plain["inversion"] = _plain_inversion(self.inversion)
        return plain


def keep_posterior(run, ready, names, units):
    """The `KeptPosterior` of a `~lenssr.reconstruction.verdict.Run`; None where images share a lens."""
    scene, fit = run.scene.on("cpu"), run.fit.on("cpu")
    widening, inversion = run.widening, None
    if run.inversion is not None:
        problem, solution = run.inversion
        alone = len(problem.views) == 1 and not problem.views[0].pointing
        if not alone or isinstance(solution.factor, BoundFactor):
            return None
        inversion = Inversion.of(problem, solution)
        widening = getattr(ready, "widening", widening)
        view = problem.views[0]
        weight, offset = view.weight, view.offset
        constraints = _constraints_of(problem)
        fit = dataclasses.replace(fit, physical=problem.physical(solution.parameters)[0])
    else:
        weight, constraints = fit.weight.numpy(), fit.constraints
        image = run.model.ravel() - _without_noise(run, scene, fit)
        offset = np.where(weight > 0, image, 0.0)
    return KeptPosterior(
        settings=run.settings,
        observation=run.observation,
        scene=scene,
        physical=fit.physical,
        covariance=run.covariance.cpu(),
        constraints=constraints,
        weight=weight,
        offset=offset,
        widening=float(widening),
        names=tuple(names),
        units=tuple(units),
        inversion=inversion,
        ready=ready,
    )


def _without_noise(run, scene, fit):
    """The image (N,) as the scene has it, before the noise shifts it; where it shifts nothing, the model."""
    if run.observation.noise is None or run.observation.noise.unbiased:
        return run.model.ravel()
    stack = named(STACK_OF)([run.observation], run.settings, "cpu")
    return stack.image(scene, fit.physical[None])[0].numpy()


def _constraints_of(problem):
    """Bounds and priors of a `~lenssr.source.Problem` as `Constraints`."""
    scene = problem.scene
    constraints = Constraints.of(scene, 1)
    (mean, stiffness), (lower, upper) = problem.parameter_prior, problem.bounds
    for part, values in (("mean", mean), ("stiffness", stiffness)):
        getattr(constraints, part)[0, scene.free] = torch.as_tensor(values)
    for part, ends in (("lower", lower), ("upper", upper)):
        end = torch.as_tensor(ends)
        getattr(constraints, part)[0, scene.free] = torch.where(scene.log[scene.free], end.exp(), end)
    return constraints


# ---------------------------------------------------------------- plain forms


def _plain_grid(grid):
    return {
        "shape": list(grid.shape),
        "matrix": grid.matrix.tolist(),
        "origin": [float(x) for x in grid.origin],
    }


def _plain_psf(psf):
    if psf is None:
        return None
    if isinstance(psf, GaussianPSF):
        return {"fwhm": float(psf.fwhm.to_value(u.arcsec))}
    scale = None if psf.pixel_scale is None else float(psf.pixel_scale)
    about = {"oversampling": psf.oversampling, "includes_pixel": psf.includes_pixel, "pixel_scale": scale}
    return {"array": psf.array, **about}


def _psf_of(plain):
    if plain is None:
        return None
    if "fwhm" in plain:
        return GaussianPSF(plain["fwhm"] * u.arcsec)
    psf = copy.copy(
        PSF(np.ones((1, 1)), plain["oversampling"], plain["includes_pixel"], plain["pixel_scale"])
    )
    psf.array = np.asarray(plain["array"])  # as it was: normalised, and warned of where it is off its centre
    return psf


def _plain_inversion(inversion):
    grid = dataclasses.asdict(inversion.grid)
    prior = {"name": inversion.prior.name, "side": inversion.prior.side, "length": inversion.prior.length}
    if isinstance(inversion.prior, LocalPrior):
        prior["stiffness"] = inversion.prior.stiffness
    return {
        "grid": {name: float(value) if name != "side" else int(value) for name, value in grid.items()},
        "prior": prior,
        "mean": inversion.mean if isinstance(inversion.mean, float) else np.asarray(inversion.mean),
        "log_floor": None if np.isinf(inversion.log_floor) else float(inversion.log_floor),
        "strength": float(inversion.strength),
        "link": inversion.link,
        "field": inversion.field,
        "parameters": inversion.parameters,
        **{name: getattr(inversion, name).numpy() for name in ("template", "drift", "growth")},
    }


def _inversion_of(plain):
    prior, grid = dict(plain["prior"]), SourceGrid(**plain["grid"])
    if "stiffness" in prior:
        made = LocalPrior(prior["side"], np.asarray(prior["stiffness"]))
    else:
        length = prior["length"] if prior["name"] == "matern32" else None
        made = Prior(prior["name"], prior["side"], length=length)
    tensors = {name: torch.as_tensor(plain[name]) for name in ("template", "drift", "growth")}
    floor = -np.inf if plain["log_floor"] is None else plain["log_floor"]
    rest = {name: plain[name] for name in ("strength", "mean", "link", "field", "parameters")}
    return Inversion(grid=grid, prior=made, log_floor=floor, **tensors, **rest)


def from_plain(plain):
    """Undo `KeptPosterior.plain`."""
    settings = Settings(**Settings.load(plain["settings"], "the file"))
    check_unit_text(plain["unit"], "the unit of the image")
    unit = u.Unit(plain["unit"], parse_strict="silent")
    place = plain["grid"]
    grid = PixelGrid(place["shape"], matrix=np.array(place["matrix"]), origin=place["origin"])
    mask = np.asarray(plain["mask"]).astype(bool)
    about = {"psf": _psf_of(plain["psf"]), "noise": GaussianNoise(1.0)}
    observation = Observation(np.asarray(plain["data"]), mask, None, unit, grid, **about)
    scene = named(PARAMETRIC)(settings).scene(observation, "cpu")
    if not plain["has_source"]:
        scene = scene.without("source")
    scene._set_free(torch.tensor(plain["free"], dtype=torch.bool))
    tensors = {name: torch.as_tensor(plain[name]) for name in ("physical", "covariance")}
    return KeptPosterior(
        settings=settings if not plain["network"] else dataclasses.replace(settings, source="network"),
        observation=observation,
        scene=scene,
        constraints=Constraints(**{k: torch.as_tensor(v) for k, v in plain["constraints"].items()}),
        weight=np.asarray(plain["weight"]),
        offset=np.asarray(plain["offset"]),
        widening=plain["widening"],
        names=tuple(plain["names"]),
        units=tuple(plain["units"]),
        inversion=_inversion_of(plain["inversion"]) if "inversion" in plain else None,
        **tensors,
    )
