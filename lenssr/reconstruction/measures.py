"""The numbers that a verdict rests on."""

import numpy as np
import torch

__all__ = ["arc_pixels", "lag_one", "measure", "measure_source", "measure_telescope"]

ARC_SIGMA = 3.0
FIELD_ROLES = ("lens_light", "sky")
FEWEST_ARC_PIXELS = 12
# Pixels of small arcs share what they determine with those around: they keep at least a quarter of their own.
MOST_DETERMINED = 0.75
# Pixels of a detector that is full read the same; this many that share the highest value are no chance.
FEWEST_FULL_PIXELS = 4
FULL_SIGMA = 10.0
# A source whose light lies as evenly as this percentile of the pixels cannot be told from the sky.
FAINT_SHARE = 10
# Where light is looked for that the grid of a source does not hold: so many times its size, in so many cells.
WIDER, CELLS = 2.5, 25


def measure(scene, fit, observation, residual, covariance, sky_noise, degrees):
    """Measure one fit for `~lenssr.reconstruction.verdict.judge`.

    Parameters
    ----------
    scene : `~lenssr.model.scene.Scene`
    fit : `~lenssr.model.fit.SceneFit`
    observation : `~lenssr.imaging.Observation`
    residual : `~numpy.ndarray`, shape (ny, nx)
    covariance : `torch.Tensor`, shape (P, P)
    sky_noise : `~lenssr.imaging.sky.SkyNoise`
    degrees : float
        Degrees of freedom: the pixels used less what is free, where nodes of a source on a grid count as far
        as the data determine them.

    Returns
    -------
    measures : dict
        By flag name.
    """
    weight = fit.weight.reshape(residual.shape).cpu().numpy()
    used = weight > 0
    pulls = residual * np.sqrt(weight)
    lensed_source = fit.lensed_source.reshape(residual.shape).cpu().numpy()
    arcs = arc_pixels(lensed_source, weight)
    field = used & ~arcs
    in_arcs, in_field = _determined(scene, fit, arcs, field, degrees)
    degrees = max(degrees, 1)
    widening = sky_noise.factor
    sky = sum(float(fit.physical[block.start]) for block in scene.of_role("sky"))
    light = observation.data - residual - sky
    chi2 = float((pulls**2).sum() / degrees)
    measures = {
        "correlated_noise": sky_noise.lag1,
        "errors_too_small": sky_noise.rms_ratio,
        "bad_chi2": (chi2, degrees / widening**2),
        "low_chi2": chi2,
        "not_converged": not fit.converged,
        "no_arcs": _signal(scene, lensed_source, weight) / widening,
        "flux_disagrees": _flux_offset(residual, light, weight, widening),
        "starts_disagree": min((worse for worse, _ in fit.rivals), default=np.inf),
    }
    measures["bad_field_chi2"] = _chi2(pulls[field], in_field, widening)
    if arcs.sum() >= FEWEST_ARC_PIXELS:
        measures["bad_arc_chi2"] = _chi2(pulls[arcs], in_arcs, widening)
        excess = lag_one(pulls, arcs) - lag_one(pulls, field)
        measures["residual_structure"] = excess if excess > 4 / np.sqrt(arcs.sum()) else 0.0
    return (
        measures
        | _bounds(scene, fit)
        | _lens_measures(scene, fit, lensed_source, weight, observation, covariance)
    )


def _determined(scene, fit, arcs, field, degrees):
    """How many parameters the pixels of the arcs and those of the field determine."""
    if fit.leverage is not None:
        leverage = fit.leverage.reshape(arcs.shape).cpu().numpy()
        return leverage[arcs].sum(), leverage[field].sum()
    in_field = sum(int(scene.free[block.slice].sum()) for block in scene.blocks if block.role in FIELD_ROLES)
    return np.count_nonzero(arcs | field) - degrees - in_field, in_field


def _chi2(pulls, parameters, widening):
    """Reduced chi2 of some pixels that determine so many parameters, and their degrees of freedom."""
    degrees = max(len(pulls) - min(parameters, MOST_DETERMINED * len(pulls)), 1)
    return float((pulls**2).sum() / degrees), degrees / widening**2


def _signal(scene, lensed_source, weight, region=...):
    """Signal-to-noise of the lensed source, less what a fitted sky could take."""
    level = np.percentile(lensed_source[weight > 0], FAINT_SHARE) if scene.of_role("sky") else 0.0
    return float(np.sqrt((np.maximum(lensed_source - level, 0) ** 2 * weight)[region].sum()))


def _flux_offset(residual, light, weight, widening):
    """Share of the flux by which data and model differ where the model shines, 0 within 5 sigma."""
    shining = light * np.sqrt(weight) > 1
    if not shining.any():
        return 0.0
    offset = abs(residual[shining].sum())
    error = widening * np.sqrt((1 / weight[shining]).sum())
    return float(offset / light[shining].sum()) if offset > 5 * error else 0.0


def measure_telescope(observation, settings):
    """What image and settings say by themselves, for any kind of source.

    Parameters
    ----------
    observation : `~lenssr.imaging.Observation`
    settings : `~lenssr.options.Settings`

    Returns
    -------
    measures : dict
        By flag name.
    """
    psf, data = observation.psf, observation.data[observation.valid]
    highest = data.max()
    full = highest > FULL_SIGMA * np.median(observation.sigma()[observation.valid])
    # With one sample in the middle of a pixel nothing is said to have passed a telescope.
    return {
        "no_psf": psf is None and settings.oversampling == "auto",
        # Behind another PSF the telescope's is not needed any finer than it is given.
        "psf_undersampled": psf is not None
        and settings.scale > 1
        and settings.psf_out is None
        and psf.undersampled(observation.grid.pixel_scale, subsampling=settings.scale),
        "no_wcs": observation.grid.wcs is None,
        "saturated": full and data.min() < highest and (data == highest).sum() >= FEWEST_FULL_PIXELS,
    }


def arc_pixels(lensed_source, weight):
    """Where the lensed source stands more than 3 sigma above the noise."""
    return lensed_source * np.sqrt(weight) > ARC_SIGMA


def lag_one(pulls, region):
    """Correlation between neighbouring pixels of a region, along rows and columns; 0 where it has none."""
    products, squares = [], []
    for axis in (0, 1):
        shifted = np.roll(pulls, -1, axis=axis)
        both = region & np.roll(region, -1, axis=axis)
        both[(slice(None), -1)[:: 1 if axis else -1]] = False
        products.append((pulls * shifted)[both])
        squares.append((0.5 * (pulls**2 + shifted**2))[both])
    total = np.concatenate(squares).sum()
    return float(np.concatenate(products).sum() / total) if total > 0 else 0.0


def _bounds(scene, fit):
    found = {}
    for role, name in (
        ("lens", "lens_at_bound"),
        ("source", "source_at_bound"),
        ("lens_light", "lens_light_at_bound"),
    ):
        places = [block for block in scene.of_role(role)]
        found[name] = any(block.start <= k < block.stop for block in places for k in fit.at_bound)
    return found


def _lens_measures(scene, fit, lensed_source, weight, observation, covariance):
    """What only a lens has: its radius, the second image, the size of what it magnifies."""
    column = _radius_column(scene)
    measures = {"not_multiply_imaged": _counter_image(scene, fit, lensed_source, weight, observation.grid)}
    if column is not None:
        radius = float(fit.physical[column])
        measures["ring_unresolved"] = radius / observation.grid.pixel_scale
        for source in scene.of_role("source"):
            measures["source_too_large"] = float(fit.physical[source.start + 1]) / radius
        if bool(scene.free[column]):
            measures["theta_E_uncertain"] = float(covariance[column, column].sqrt()) / radius
    return measures


def _radius_column(scene):
    """Where the first Einstein radius lies in the parameter vector; None without one."""
    names = scene.blocks[0].names if scene.lens is not None else ()
    return next((k for k, name in enumerate(names) if name.startswith("theta_E")), None)


def _counter_image(scene, fit, lensed_source, weight, grid):
    """Signal-to-noise of the images of negative parity: without one the source is seen once."""
    x, y = (torch.as_tensor(c.ravel()).to(fit.physical) for c in (grid.x, grid.y))
    params = fit.physical[scene.blocks[0].slice].unsqueeze(0)
    xx, xy, yy = scene.lens.hessian_at(x, y, params)
    flipped = ((1 - xx) * (1 - yy) - xy**2 < 0)[0].reshape(grid.shape).cpu().numpy()
    return _signal(scene, lensed_source, weight, flipped)


def measure_source(problem, solution, fit, sky_noise):
    """Measure a free-form source: whether its grid holds it, and how large it is.

    Parameters
    ----------
    problem : `~lenssr.source.Problem`
    solution : `~lenssr.source.Solution`
    fit : `~lenssr.model.fit.SceneFit`
        The inversion as a fit.
    sky_noise : `~lenssr.imaging.sky.SkyNoise`

    Returns
    -------
    measures : dict
        By flag name.
    """
    grid = problem.grid_at(solution.parameters)
    rows, columns = np.divmod(np.arange(grid.size), grid.side)
    rim = (np.minimum(rows, columns) == 0) | (np.maximum(rows, columns) == grid.side - 1)
    on_rim = problem.lensed_source(np.where(rim, solution.values, 0.0), solution.parameters)
    on_rim = float((on_rim * np.sqrt(fit.weight.numpy())).max())
    # Errors that are too small make spots of mere noise.
    beyond = _beyond(problem, solution, fit) / (sky_noise.factor * max(sky_noise.rms_ratio, 1.0))
    measures = {"source_off_grid": max(on_rim, beyond)}
    column = _radius_column(problem.scene)
    if column is not None:
        brightness = problem.mapping(solution.parameters).brightness(solution.values)
        measures["source_too_large"] = _half_light_radius(grid, brightness) / float(fit.physical[column])
    return measures


def _beyond(problem, solution, fit):
    """Significance of the brightest spot that the data would have in the source plane, off the grid."""
    grid, shape = problem.grid_at(solution.parameters), problem.stack.grid
    x, y = (torch.as_tensor(axis.ravel()) for axis in (shape.x, shape.y))
    rays = problem.scene.source_positions(x, y, problem.physical(solution.parameters))
    across, along = (rays[0][0].numpy() - grid.x_0) / grid.half, (rays[1][0].numpy() - grid.y_0) / grid.half
    outside = (np.maximum(np.abs(across), np.abs(along)) > 1) & (np.hypot(across, along) < WIDER)
    cell = [np.floor((axis[outside] + WIDER) / (2 * WIDER) * CELLS).astype(int) for axis in (across, along)]
    where = cell[1] * CELLS + cell[0]
    weight = fit.weight.numpy()[outside]
    residual = (problem.stack.data[0] - fit.model).numpy()[outside]
    signal = np.bincount(where, weight * residual, minlength=CELLS**2)
    information = np.bincount(where, weight, minlength=CELLS**2)
    return float((signal / np.sqrt(np.maximum(information, np.finfo(float).tiny))).max())


def _half_light_radius(grid, brightness):
    """Radius around the centre of light that holds half of it, in arcsec."""
    step = np.gradient(grid.offsets)
    light = np.maximum(brightness, 0) * np.outer(step, step).ravel()
    light /= max(light.sum(), np.finfo(float).tiny)
    x, y = grid.nodes
    radius = np.hypot(x - light @ x, y - light @ y)
    order = np.argsort(radius)
    return float(radius[order][np.searchsorted(light[order].cumsum(), 0.5).clip(max=grid.size - 1)])
