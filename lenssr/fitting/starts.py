"""Where a fit begins: the lens light by itself, the source from the arcs traced back."""

import torch

from lenssr.fitting.least_squares import levenberg_marquardt
from lenssr.fitting.scene import Scene

__all__ = ["light_start", "source_start", "without_light"]

SOURCE_INDEX = 1.0
LIGHT_INDEX = 3.0


def light_start(stack, scene):
    """A first lens light: a Sérsic fitted to the pixels, and again without those that stand out above it.

    Parameters
    ----------
    stack : `~lenssr.fitting.stack.ImageStack`
        Coarse pixels will do.
    scene : `~lenssr.fitting.scene.Scene`

    Returns
    -------
    light : `torch.Tensor`, shape (B, 8), or None if the scene has no lens light
        The Sérsic and the sky below it.
    """
    if not scene.of_role("lens_light"):
        return None
    galaxy = _galaxy(scene, stack)
    sky = _border_level(stack)
    residual = torch.where(stack.valid, stack.data - sky.unsqueeze(1), 0)
    physical = torch.cat([_moments(stack, residual), sky.unsqueeze(1).double()], dim=1)
    weight = stack.weights(stack.first_guess())
    lower, upper = (galaxy.to_fit(bound) for bound in galaxy.bounds(len(stack)))
    kept = weight
    for _ in range(3):
        model = stack.model(galaxy, physical)
        fit = levenberg_marquardt(
            model,
            galaxy.to_fit(physical),
            stack.data,
            kept,
            lower=lower,
            upper=upper,
            max_iterations=20,
            tolerance=1.0,
        )
        physical = galaxy.to_physical(fit.parameters, physical)
        residual = torch.where(stack.valid, stack.data - stack.image(galaxy, physical), 0)
        # The galaxy is smooth but not exactly a Sérsic: a pixel stands out if it is also well above the model.
        image = stack.image(galaxy, physical, roles=("lens_light",))
        kept = torch.where((residual * weight.sqrt() > 3) & (residual > 0.1 * image), 0, weight)
    return physical


def without_light(stack, scene, light):
    """The data without sky and first lens light, 0 where masked.

    Parameters
    ----------
    stack : `~lenssr.fitting.stack.ImageStack`
    scene : `~lenssr.fitting.scene.Scene`
    light : `torch.Tensor`, shape (B, 8), or None
        From `light_start`.

    Returns
    -------
    residual : `torch.Tensor`, shape (B, N)
    """
    if light is None:
        below = _border_level(stack).unsqueeze(1)
    else:
        below = stack.image(_galaxy(scene, stack), light)
    return torch.where(stack.valid, stack.data - below, 0)


def _galaxy(scene, stack):
    return Scene(
        lens=None, lens_free=False, lens_light=1, sky=True, source=0, extent=scene.extent, device=stack.device
    )


def source_start(stack, scene, template, residual):
    """Fill in the sources of a template: where the light traces back to, how wide and how bright it is there.

    Parameters
    ----------
    stack : `~lenssr.fitting.stack.ImageStack`
    scene : `~lenssr.fitting.scene.Scene`
    template : `torch.Tensor`, shape (B, P)
        Lens and lens light filled in.
    residual : `torch.Tensor`, shape (B, N)
        Data without sky and lens light.

    Returns
    -------
    template : `torch.Tensor`, shape (B, P)
    """
    grid = stack.grid
    x, y = (torch.as_tensor(c.ravel()).to(residual) for c in (grid.x, grid.y))
    beta_x, beta_y = scene.source_positions(x, y, template)
    light = _significant(stack, residual)
    total = light.sum(1).clamp_min(torch.finfo(light.dtype).tiny)
    centre_x = (light * beta_x).sum(1) / total
    centre_y = (light * beta_y).sum(1) / total
    spread = (light * ((beta_x - centre_x[:, None]) ** 2 + (beta_y - centre_y[:, None]) ** 2)).sum(1) / total
    # An exponential disc has <r^2> = 3.6 r_eff^2 within the isophotes that stand out of the noise, roughly.
    radius = (spread / 3.6).sqrt().clamp(0.5 * grid.pixel_scale, 0.1 * min(grid.shape) * grid.pixel_scale)
    template = template.clone()
    for block in scene.of_role("source"):
        columns = (torch.ones_like(radius), radius, torch.full_like(radius, SOURCE_INDEX), centre_x, centre_y)
        template[:, block.start : block.start + 5] = torch.stack(columns, dim=1).to(template)
        template[:, block.start + 5 : block.stop] = 0.0
    for block in scene.of_role("sky"):
        template[:, block.slice] = _border_level(stack).unsqueeze(1).to(template)
    shape = stack.image(scene, template, roles=("source",))
    overlap = (light * shape).sum(1) / (shape.square() * (light > 0)).sum(1).clamp_min(
        torch.finfo(shape.dtype).tiny
    )
    for block in scene.of_role("source"):
        template[:, block.start] = overlap.clamp_min(1e-12).to(template)
    return template


def _border_level(stack):
    """Sky (B,) from the median of the outermost eighth of the frame."""
    ny, nx = stack.grid.shape
    depth = max(1, min(ny, nx) // 8)
    border = torch.ones(ny, nx, dtype=torch.bool, device=stack.device)
    border[depth : ny - depth, depth : nx - depth] = False
    data = torch.where(stack.valid & border.flatten(), stack.data, torch.nan)
    level = torch.nanmedian(data, dim=1).values
    return torch.nan_to_num(level)


def _significant(stack, residual):
    """The light that stands 2 sigma above the noise, 0 elsewhere."""
    weight = stack.weights(stack.first_guess())
    return torch.where(residual * weight.sqrt() > 2, residual, 0).clamp_min(0)


def _moments(stack, residual):
    """A Sérsic (B, 7) from the light near the image centre."""
    grid = stack.grid
    x, y = (torch.as_tensor(c.ravel()).to(residual) for c in (grid.x, grid.y))
    half = 0.5 * min(grid.shape) * grid.pixel_scale
    window = torch.exp(-(x**2 + y**2) / (2 * (0.35 * half) ** 2))
    light = _significant(stack, residual) * window
    total = light.sum(1).clamp_min(torch.finfo(light.dtype).tiny)
    peak = light.argmax(1)
    centre_x, centre_y = x[peak], y[peak]
    distance = ((x - centre_x[:, None]) ** 2 + (y - centre_y[:, None]) ** 2).sqrt()
    radius = ((light * distance).sum(1) / total).clamp(2 * grid.pixel_scale, 0.5 * half)
    flux = total * grid.pixel_area if stack.surface_brightness else total
    brightness = flux / (2 * torch.pi * radius**2)
    index = torch.full_like(radius, LIGHT_INDEX)
    zero = torch.zeros_like(radius)
    return torch.stack(
        [brightness.clamp_min(1e-12), radius, index, centre_x, centre_y, zero, zero], dim=1
    ).double()
