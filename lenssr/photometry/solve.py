"""The fit of a batch of groups of galaxies."""

from dataclasses import dataclass

import numpy as np
import torch

from lenssr.fitting.least_squares import levenberg_marquardt
from lenssr.fitting.scene import Scene
from lenssr.imaging.following import FINE_POINTS_ACROSS, POINTS_ACROSS, FollowingOperator, effective_kernel
from lenssr.imaging.noise import GaussianNoise
from lenssr.light.sersic import sersic_flux
from lenssr.photometry.constraints import make_space
from lenssr.photometry.moments import border_level, moments
from lenssr.photometry.space import Layout
from lenssr.photometry.stamps import Stamps, cut
from lenssr.photometry.tasks import psf_key

__all__ = ["GroupFit", "Solver"]

ITERATIONS = 60
EARLY_TOLERANCE, LAST_TOLERANCE = 0.1, 1e-3
# Photon noise follows the model: its weights are refitted so often.
NOISE_REFITS = 3
# Root of the chi2 that the error of the lattice may make: it shifts no parameter by more sigma than this.
LATTICE_SIGMA = 0.1
START_INDEX = 2.0


@dataclass
class GroupFit:
    """Where the fit of one group ended.

    Attributes
    ----------
    task : `~lenssr.photometry.tasks.Task`
    layout : `~lenssr.photometry.space.Layout`
    coordinates : `torch.Tensor`, shape (C,)
        With e1 and e2, and the mean radius.
    covariance : `torch.Tensor`, shape (C, C)
    chi2 : float
    pixels : int
    parameters : int
        How many were free.
    iterations : int
    converged : bool
    at_bound : tuple of int
        Columns that ended on a bound.
    blended : bool
        Whether pixels were left to neighbours.
    signal : list of float
        Signal to noise of each galaxy, ``sqrt(sum(model^2 / sigma^2))``.
    fwhm : float
        Of the PSF in pixels.
    """

    task: object
    layout: Layout
    coordinates: torch.Tensor
    covariance: torch.Tensor
    chi2: float
    pixels: int
    parameters: int
    iterations: int
    converged: bool
    at_bound: tuple
    blended: bool
    signal: list
    fwhm: float


class Solver:
    """Fit batches of groups of galaxies.

    Parameters
    ----------
    settings : `~lenssr.photometry.photometry.Settings`
    """

    def __init__(self, settings):
        self.settings = settings
        self._kernels = {}

    def operator(self, psf, pixel_scale, shape, points_across=POINTS_ACROSS):
        """The operator of a telescope for stamps of one shape."""
        key = psf_key(psf), pixel_scale, points_across
        if key not in self._kernels:
            self._kernels[key] = effective_kernel(psf, pixel_scale, points_across=points_across)
        kernel, subsampling = self._kernels[key]
        return FollowingOperator(shape, kernel, subsampling=subsampling, device=self.settings.torch_device)

    def solve(self, tasks):
        """Fit a batch.

        Parameters
        ----------
        tasks : list of `~lenssr.photometry.tasks.Task`
            Of one shape, number of galaxies, telescope and kind of noise.

        Returns
        -------
        fits : list of `GroupFit` or None
            None where there are fewer pixels than parameters.
        """
        problem = _Problem(self, tasks)
        enough = torch.nonzero(problem.number > problem.layout.size).squeeze(1).tolist()
        fits = [None] * len(tasks)
        if not enough:
            return fits
        if len(enough) < len(tasks):
            problem = _Problem(self, [tasks[i] for i in enough])
        for i, fit in zip(enough, problem.run(), strict=True):
            fits[i] = fit
        return fits


class _Problem:
    """One batch: its stamps in each band, where its fit begins, and how it goes."""

    def __init__(self, solver, tasks):
        self.solver, self.tasks, settings = solver, tasks, solver.settings
        self.settings = settings
        first = tasks[0]
        self.shape, self.device = first.shape, settings.torch_device
        self.layout = Layout(
            len(first.members), settings.n_components, len(first.bands), sky=settings.sky is not None
        )
        shares = [task.share() for task in tasks]
        self.blended = [left for _, left in shares]
        self.corners = np.array([task.corner for task in tasks])
        own = np.stack([share for share, _ in shares])
        self.bands = [self._stamps(number, own) for number in range(len(first.bands))]
        self.number = sum((band.weight > 0).sum(1) for band in self.bands)

    def _stamps(self, band, own):
        boxes = {"data": [], "sigma": [], "valid": []}
        for task, corner in zip(self.tasks, self.corners, strict=True):
            image = task.bands[band]
            planes = {"data": image.data, "sigma": image.sigma(), "valid": image.valid}
            for name, fill in (("data", 0.0), ("sigma", 1.0), ("valid", False)):
                boxes[name].append(cut(planes[name], corner[None], self.shape, fill)[0])
        data, sigma, valid = (np.stack(boxes[name]) for name in ("data", "sigma", "valid"))
        weight = np.where(valid & own, sigma**-2.0, 0.0)
        image = self.tasks[0].bands[band]
        operator = self.solver.operator(image.psf, image.grid.pixel_scale, self.shape)
        return Stamps(*(torch.as_tensor(part, device=self.device) for part in (data, weight)), operator)

    # ------------------------------------------------------------ where it begins

    def start(self):
        """Coordinates (B, C) from what was given, and from moments for the rest."""
        layout, c = self.layout, np.zeros((len(self.tasks), self.layout.size))
        centres = np.stack([task.centres for task in self.tasks])
        guessed = [self._moments(band, centres) for band in range(layout.bands)]
        # The band that shows the galaxies best says what they look like.
        signal = [(b.weight * b.data**2).sum(1).sqrt().cpu().numpy() for b in self.bands]
        best = np.argmax(np.stack(signal), axis=0)
        shape = np.stack([guessed[band][1][i] for i, band in enumerate(best)])
        for galaxy in range(layout.galaxies):
            members = [task.members[galaxy] for task in self.tasks]
            own = _Guess(self.tasks, members, shape[:, galaxy])
            for component in range(layout.components):
                radius, index, share = own.part(component, layout.components)
                template = self.settings.templates[component]
                index = own.given("n", template.held("n", index))
                column = layout.column("r_eff", galaxy, component)
                c[:, column : column + 6] = np.stack(
                    [np.log(radius), index, *centres[:, galaxy].T, own.e1, own.e2], axis=1
                )
                unit_flux = np.array(
                    [sersic_flux(1.0, r, n).item() for r, n in zip(radius, index, strict=True)]
                )
                for band in range(layout.bands):
                    flux = share * own.given("flux", guessed[band][1][:, galaxy, 0])
                    c[:, layout.column("bright", galaxy, component, band)] = np.log(
                        own.given("amplitude", np.maximum(flux / unit_flux, 1e-60))
                    )
        for band in range(layout.bands if layout.sky else 0):
            c[:, layout.column("sky", band=band)] = guessed[band][0]
        return torch.as_tensor(c, device=self.device)

    def _moments(self, band, centres):
        stamps, image = self.bands[band], self.tasks[0].bands[band]
        data = stamps.data.reshape(-1, *self.shape).cpu().numpy()
        valid = stamps.weight.reshape(data.shape).cpu().numpy() > 0
        level = border_level(data, valid) if self.layout.sky else np.zeros(len(data))
        fwhm = _fwhm(image)
        found = [
            moments(one - sky, good, place, fwhm)
            for one, sky, good, place in zip(data, level, valid, centres, strict=True)
        ]
        return level, np.stack(found)

    # ------------------------------------------------------------ the fit

    def run(self):
        """Fit, and collect the results."""
        start = self.start()
        self.space, lower, upper = make_space(self, start)
        self.lower, self.upper = lower[:, self.space.index], upper[:, self.space.index]
        z = self.space.start()
        weights = [band.weight for band in self.bands]
        gaussian = all(isinstance(image.noise, GaussianNoise) for image in self.tasks[0].bands)
        iterations = torch.zeros(len(z), dtype=torch.long, device=self.device)
        passes = 1 if gaussian else NOISE_REFITS
        for number in range(passes):
            last = number == passes - 1
            fit = self._minimise(z, weights, LAST_TOLERANCE if last else EARLY_TOLERANCE)
            z, iterations = fit.parameters, iterations + fit.iterations
            if not last:
                weights = self._reweighted(z)
        fit, more = self._sharpen(fit, weights)
        return self._collect(fit, weights, iterations + more)

    def scene(self, image_unit=None):
        """The scene of one band: so many Sérsics and a sky."""
        layout = self.layout
        return Scene(
            lens=None,
            lens_free=False,
            lens_light=layout.galaxies * layout.components,
            sky=layout.sky,
            source=0,
            extent=max(self.shape) / 2,
            device=self.device,
        )

    def _minimise(self, z, weights, tolerance, index=None, bands=None):
        every = torch.arange(len(z), device=self.device) if index is None else index
        bands = self.bands if bands is None else bands
        data = torch.cat([band.data[every] for band in bands], 1)
        weight = torch.cat([part[every] for part in weights], 1)
        function = self.function(bands)

        def model(parameters, which):
            return function(parameters, every[which])

        bounds = {"lower": self.lower[every], "upper": self.upper[every]}
        options = {"max_iterations": ITERATIONS, "tolerance": tolerance}
        return levenberg_marquardt(model, z[every], data, weight, **bounds, **options)

    def function(self, bands):
        """Images of all bands, one after the other, and their derivatives by the free numbers."""
        scene = self.scene()
        template = torch.ones(1, scene.size, dtype=torch.float64, device=self.device)
        models = [band.model(scene, template.expand(len(self.tasks), -1)) for band in bands]

        def evaluate(z, index):
            vectors, slopes = self.space.expand(z, index)
            images, jacobians = [], []
            for model, vector, slope in zip(models, vectors, slopes, strict=True):
                image, jacobian = model(vector, index)
                images.append(image)
                jacobians.append(jacobian if slope is None else slope.mT @ jacobian)
            if len(images) == 1:
                return images[0], jacobians[0]
            return torch.cat(images, 1), torch.cat(jacobians, 2)

        return evaluate

    def images(self, z, bands=None, index=None):
        """Model images (b, N) of every band."""
        scene, bands = self.scene(), self.bands if bands is None else bands
        index = torch.arange(len(z), device=self.device) if index is None else index
        template = torch.ones(len(z), scene.size, dtype=torch.float64, device=self.device)
        vectors = self.space.expand(z, index)[0]
        return [
            band.image(scene, scene.to_physical(vector, template))
            for band, vector in zip(bands, vectors, strict=True)
        ]

    def _reweighted(self, z):
        """Weights for the noise that the model expects."""
        weights = []
        for number, (band, image) in enumerate(zip(self.bands, self.images(z), strict=True)):
            variance = torch.stack(
                [self._noise(task.bands[number], corner).moments(one.reshape(self.shape))[2].flatten()
                 for task, corner, one in zip(self.tasks, self.corners, image, strict=True)]
            )  # fmt: skip
            weights.append(torch.where(band.weight > 0, 1 / variance, 0))
        return weights

    def _noise(self, image, corner):
        noise, numbers = image.noise, []
        for name in noise.names:
            value = np.asarray(getattr(noise, name), dtype=float)
            if value.ndim:
                value = cut(value, corner[None], self.shape, float(np.median(value)))[0]
            numbers.append(torch.as_tensor(value, device=self.device))
        return noise.with_numbers(*numbers)

    def _sharpen(self, fit, weights):
        """Fit again on a finer lattice those whose image that one changes."""
        images = [task for task in self.tasks[0].bands]
        fine = [
            band.behind(self.solver.operator(i.psf, i.grid.pixel_scale, self.shape, FINE_POINTS_ACROSS))
            for band, i in zip(self.bands, images, strict=True)
        ]
        more = torch.zeros_like(fit.iterations)
        if all(a.operator.step == b.operator.step for a, b in zip(self.bands, fine, strict=True)):
            return fit, more
        coarse, sharp = self.images(fit.parameters), self.images(fit.parameters, fine)
        change = sum(
            (w * (a - b).square()).sum(1) for w, a, b in zip(weights, coarse, sharp, strict=True)
        ).sqrt()
        index = torch.nonzero(change > LATTICE_SIGMA).squeeze(1)
        self.change, self.fine = change, fine
        for part in index.split(max(1, len(index) // 4)) if len(index) else ():
            again = self._minimise(fit.parameters, weights, LAST_TOLERANCE, part, fine)
            for name in ("parameters", "chi2", "curvature", "converged", "at_bound"):
                getattr(fit, name)[part] = getattr(again, name)
            more[part] = again.iterations
        return fit, more

    def _collect(self, fit, weights, iterations):
        space, layout = self.space, self.layout
        z = fit.parameters
        every = torch.arange(len(z), device=self.device)
        c, slope = space.coordinates(z, every), space.slope(z, every)
        covariance = slope @ fit.covariance() @ slope.mT
        smooth, turn = space.smooth(c)
        covariance = turn @ covariance @ turn.mT
        columns = space.index.tolist()
        signal = self._signal(smooth, weights)
        return [
            GroupFit(
                task,
                layout,
                smooth[i].cpu(),
                covariance[i].cpu(),
                float(fit.chi2[i]),
                int(self.number[i]),
                z.shape[1],
                int(iterations[i]),
                bool(fit.converged[i]),
                tuple(column for column, hit in zip(columns, fit.at_bound[i].tolist(), strict=True) if hit),
                self.blended[i],
                signal[i].tolist(),
                _fwhm(task.bands[0]),
            )
            for i, task in enumerate(self.tasks)
        ]

    def _signal(self, smooth, weights):
        """Signal to noise (B, G) of each galaxy, all bands together."""
        scene, layout = self.scene(), self.layout
        blocks = scene.of_role("lens_light")
        total = torch.zeros(len(smooth), layout.galaxies, dtype=smooth.dtype, device=smooth.device)
        for number, (band, weight) in enumerate(zip(self.bands, weights, strict=True)):
            template = torch.ones(len(smooth), scene.size, dtype=smooth.dtype, device=smooth.device)
            physical = scene.to_physical(smooth[:, layout.columns(number)], template)
            for galaxy in range(layout.galaxies):
                own = blocks[galaxy * layout.components : (galaxy + 1) * layout.components]
                light = sum(band.light(physical, block) for block in own)
                total[:, galaxy] += (weight * light.square()).sum(1)
        return total.sqrt()


class _Guess:
    """What is known of one galaxy of each task: what was given, else what moments say."""

    def __init__(self, tasks, members, shape):
        self._sources = [(task.sources, member) for task, member in zip(tasks, members, strict=True)]
        q = 1 - self.given("ellip", np.full(len(tasks), np.nan))
        theta = self.given("theta", np.full(len(tasks), np.nan))
        modulus = (1 - q) / (1 + q)
        moments_modulus = np.hypot(shape[:, 2], shape[:, 3])
        modulus = np.where(np.isfinite(modulus), modulus, moments_modulus)
        twice = np.where(np.isfinite(theta), 2 * theta, np.arctan2(shape[:, 3], shape[:, 2]))
        self.e1, self.e2 = modulus * np.cos(twice), modulus * np.sin(twice)
        self.radius = shape[:, 1]
        given = self.given("r_eff", np.full(len(tasks), np.nan))
        self.radius = np.where(
            np.isfinite(given), given * np.sqrt((1 - modulus) / (1 + modulus)), self.radius
        )

    def given(self, name, other):
        """Guesses (B,) that were given, else ``other``."""
        values = np.array([sources.guess(name)[member] for sources, member in self._sources], dtype=float)
        return np.where(np.isfinite(values), values, other)

    def part(self, component, components):
        """Mean radius, index and share of the light of one component."""
        if components == 1:
            return self.radius, np.full(len(self.radius), START_INDEX), 1.0
        # A compact bulge and a wide disc.
        radius, index = ((0.5, 2.5), (1.3, 1.0))[component]
        return self.radius * radius, np.full(len(self.radius), index), 0.5


def _fwhm(image):
    if image.psf is None:
        return 1.0
    fwhm = image.psf.fwhm
    return fwhm.value if str(fwhm.unit) == "pix" else float(fwhm.to_value("arcsec")) / image.grid.pixel_scale
