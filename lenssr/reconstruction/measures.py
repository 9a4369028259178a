"""The numbers that a verdict rests on."""

import numpy as np
import torch

__all__ = ["arc_pixels", "lag_one", "measure", "measure_telescope"]

ARC_SIGMA = 3.0
FEWEST_ARC_PIXELS = 12


def measure(scene, fit, observation, residual, covariance, sky_noise, degrees):
    """Measure one fit for `~lenssr.reconstruction.verdict.judge`.

    Parameters
    ----------
    scene : `~lenssr.fitting.scene.Scene`
    fit : `~lenssr.fitting.lens.SceneFit`
    observation : `~lenssr.imaging.Observation`
    residual : `~numpy.ndarray`, shape (ny, nx)
    covariance : `torch.Tensor`, shape (P, P)
    sky_noise : `~lenssr.imaging.correlation.SkyNoise`
    degrees : float
        Degrees of freedom.

    Returns
    -------
    measures : dict
        By flag name.
    """
    weight = fit.weight.reshape(residual.shape).cpu().numpy()
    used = weight > 0
    pulls = residual * np.sqrt(weight)
    lensed_source = fit.lensed_source.reshape(residual.shape).cpu().numpy()
    arcs, degrees = arc_pixels(lensed_source, weight), max(degrees, 1)
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
        "no_arcs": float(np.sqrt((lensed_source**2 * weight).sum()) / widening),
        "flux_disagrees": _flux_offset(residual, light, weight, widening),
        "starts_disagree": min((worse for worse, _ in fit.rivals), default=np.inf),
    }
    if arcs.sum() >= FEWEST_ARC_PIXELS:
        arc_degrees = max(int(arcs.sum()) - 7, 1)
        measures["bad_arc_chi2"] = (float((pulls[arcs] ** 2).sum() / arc_degrees), arc_degrees / widening**2)
        excess = lag_one(pulls, arcs) - lag_one(pulls, used & ~arcs)
        measures["residual_structure"] = excess if excess > 4 / np.sqrt(arcs.sum()) else 0.0
    return (
        measures
        | _bounds(scene, fit)
        | _lens_measures(scene, fit, lensed_source, weight, observation, covariance)
    )


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
    settings : `~lenssr.resolver.Settings`

    Returns
    -------
    measures : dict
        By flag name.
    """
    psf = observation.psf
    # With one sample in the middle of a pixel nothing is said to have passed a telescope.
    return {
        "no_psf": psf is None and settings.oversampling == "auto",
        "psf_undersampled": psf is not None
        and settings.scale > 1
        and psf.undersampled(observation.grid.pixel_scale, subsampling=settings.scale),
        "no_wcs": observation.grid.wcs is None,
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
    names = scene.blocks[0].names if scene.lens is not None else ()
    column = next((k for k, name in enumerate(names) if name.startswith("theta_E")), None)
    measures = {"not_multiply_imaged": _counter_image(scene, fit, lensed_source, weight, observation.grid)}
    if column is not None:
        radius = float(fit.physical[column])
        measures["ring_unresolved"] = radius / observation.grid.pixel_scale
        for source in scene.of_role("source"):
            measures["source_too_large"] = float(fit.physical[source.start + 1]) / radius
        if bool(scene.free[column]):
            measures["theta_E_uncertain"] = float(covariance[column, column].sqrt()) / radius
    return measures


def _counter_image(scene, fit, lensed_source, weight, grid):
    """Signal-to-noise of the images of negative parity: without one the source is seen once."""
    x, y = (torch.as_tensor(c.ravel()).to(fit.physical) for c in (grid.x, grid.y))
    params = fit.physical[scene.blocks[0].slice].unsqueeze(0)
    xx, xy, yy = scene.lens.hessian_at(x, y, params)
    flipped = ((1 - xx) * (1 - yy) - xy**2 < 0)[0].reshape(grid.shape).cpu().numpy()
    return float(np.sqrt((lensed_source**2 * weight)[flipped].sum()))
