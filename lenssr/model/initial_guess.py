"""Where a fit begins: the lens light by itself, the source from the arcs traced back."""

import torch

from lenssr.light.profile import FAINTEST
from lenssr.model.least_squares import levenberg_marquardt
from lenssr.model.scene import Scene

__all__ = ["border_level", "first_galaxy", "light_start", "source_start", "without_light"]

LIGHT_INDEX = 3.0
# How far from the image centre the light of the lens is looked for, and may move from there, in arcsec.
CENTRE_REACH = 0.3
# A pixel belongs to something else if it is brighter than the smooth light by this share.
OUTSTANDING = 0.3


def light_start(stack, scene):
    """A first lens light, for any scene: a Sérsic fitted to the pixels that do not stand out above it.

    Parameters
    ----------
    stack : `~lenssr.model.image_stack.ImageStack`
        Coarse pixels will do.
    scene : `~lenssr.model.scene.Scene`

    Returns
    -------
    light : `torch.Tensor`, shape (B, 8), or None if the scene has no lens light
        The Sérsic and the sky below it.
    """
    if not scene.lights:
        return None
    galaxy = first_galaxy(scene, stack)
    weight = stack.first_weights
    physical, smooth = _moments(stack, _hint(scene))
    bounds, centre = galaxy.bounds(len(stack)), [galaxy.lights[0].column(axis) for axis in ("x_0", "y_0")]
    for end, sign in zip(bounds, (-1, 1), strict=True):
        end[:, centre] = physical[:, centre] + sign * CENTRE_REACH
    lower, upper = (galaxy.to_fit(end) for end in bounds)
    for _ in range(4):
        # The galaxy is smooth but no exact Sérsic: a pixel stands out if it is also well above the model.
        sky = physical[:, galaxy["sky"].slice].to(smooth)
        excess = torch.where(stack.valid, stack.data - sky - smooth, 0)
        kept = torch.where((excess * weight.sqrt() > 3) & (excess > OUTSTANDING * smooth), 0, weight)
        model, start = stack.model(galaxy, physical), galaxy.to_fit(physical)
        options = {"lower": lower, "upper": upper, "max_iterations": 20, "tolerance": 1.0}
        fit = levenberg_marquardt(model, start, stack.data, kept, **options)
        physical = galaxy.to_physical(fit.parameters, physical)
        smooth = stack.image(galaxy, physical, roles=("lens_light",))
    return physical


def without_light(stack, scene, light):
    """The data without sky and first lens light, 0 where masked.

    Parameters
    ----------
    stack : `~lenssr.model.image_stack.ImageStack`
    scene : `~lenssr.model.scene.Scene`
    light : `torch.Tensor`, shape (B, 8), or None
        From `light_start`.

    Returns
    -------
    residual : `torch.Tensor`, shape (B, N)
    """
    if light is None:
        below = border_level(stack).unsqueeze(1)
    else:
        below = stack.image(first_galaxy(scene, stack), light)
    return torch.where(stack.valid, stack.data - below, 0)


def first_galaxy(scene, stack):
    """The scene whose parameters `light_start` finds: a Sérsic and the sky."""
    return Scene(
        lens=None, lens_free=False, lens_light=1, sky=True, source=0, extent=scene.extent, device=stack.device
    )


def source_start(stack, scene, template, residual, weight):
    """Fill in the sky and the source: where the light traces back to, how wide and how bright it is there.

    Parameters
    ----------
    stack : `~lenssr.model.image_stack.ImageStack`
    scene : `~lenssr.model.scene.Scene`
    template : `torch.Tensor`, shape (B, P)
        Lens and lens light filled in.
    residual : `torch.Tensor`, shape (B, N)
        Data without sky and lens light.
    weight : `torch.Tensor`, shape (B, N)
        Inverse variance.

    Returns
    -------
    template : `torch.Tensor`, shape (B, P)
    """
    # Only what stands out of the noise may say where the source is.
    light = torch.where(residual * weight.sqrt() > 2, residual, 0)
    template, source = template.clone(), scene["source"]
    if scene["sky"] is not None:
        template[:, scene["sky"].slice] = border_level(stack).unsqueeze(1).to(template)
    if source is None:
        return template
    moments = _source_moments(stack, scene, template, light)
    template[:, source.slice] = source.profile.from_moments(*moments).to(template)
    shape = stack.image(scene, template, roles=("source",))
    scale = (shape.square() * (light > 0)).sum(1).clamp_min(torch.finfo(shape.dtype).tiny)
    factor = ((light * shape).sum(1) / scale).clamp_min(FAINTEST).to(template)
    free = torch.tensor(source.profile.free, device=template.device)
    scaled = source.profile.scaled(template[:, source.slice], factor)
    template[:, source.slice] = torch.where(free, scaled, template[:, source.slice])
    return template


def _source_moments(stack, scene, template, light):
    """Effective radius and centre x, y, each (B,) in arcsec, of light (B, N) traced back to the source."""
    grid = stack.grid
    x, y = (torch.as_tensor(c.ravel()).to(light) for c in (grid.x, grid.y))
    beta_x, beta_y = scene.source_positions(x, y, template)
    total = light.sum(1).clamp_min(torch.finfo(light.dtype).tiny)
    centre_x = (light * beta_x).sum(1) / total
    centre_y = (light * beta_y).sum(1) / total
    spread = (light * ((beta_x - centre_x[:, None]) ** 2 + (beta_y - centre_y[:, None]) ** 2)).sum(1) / total
    # An exponential disc has <r^2> = 3.6 r_eff^2 within the isophotes that stand out of the noise, roughly.
    radius = (spread / 3.6).sqrt().clamp(0.5 * grid.pixel_scale, 0.1 * min(grid.shape) * grid.pixel_scale)
    return radius, centre_x, centre_y


def border_level(stack):
    """Sky from the median of the outermost eighth of the frame.

    Parameters
    ----------
    stack : `~lenssr.model.image_stack.ImageStack`

    Returns
    -------
    level : `torch.Tensor`, shape (B,)
    """
    ny, nx = stack.grid.shape
    depth = max(1, min(ny, nx) // 8)
    border = torch.ones(ny, nx, dtype=torch.bool, device=stack.device)
    border[depth : ny - depth, depth : nx - depth] = False
    data = torch.where(stack.valid & border.flatten(), stack.data, torch.nan)
    level = torch.nanmedian(data, dim=1).values
    return torch.nan_to_num(level)


def _hint(scene):
    """Where the lens galaxy is looked for: the middle of the image, or where a given model puts it."""
    for block in scene.lights:
        if block.profile.given is not None:
            return tuple(float(block.profile.given_vector[k]) for k in block.profile.centre)
    return 0.0, 0.0


def _moments(stack, hint=(0.0, 0.0)):
    """A Sérsic with sky (B, 8) at the brightest point near a place, and the light (B, N) it is from.

    Arcs are bright at their radius but fill little of a circle: the light is the lower quartile on rings.
    """
    grid, sky = stack.grid, border_level(stack)
    x, y = (torch.as_tensor(c.ravel()).to(stack.data) for c in (grid.x, grid.y))
    data = torch.where(stack.valid, stack.data - sky.unsqueeze(1), torch.nan)
    near = torch.hypot(x - hint[0], y - hint[1]) < max(CENTRE_REACH, 2 * grid.pixel_scale)
    peak = torch.where(near, torch.nan_to_num(data, nan=-torch.inf), -torch.inf).argmax(1)
    centre = torch.stack([x[peak], y[peak]], dim=1)
    ring = (torch.hypot(x - centre[:, :1], y - centre[:, 1:]) / grid.pixel_scale).round().long()
    smooth = torch.zeros_like(data)
    for k in range(int(ring.max()) + 1):
        level = (
            torch.nanquantile(torch.where(ring == k, data, torch.nan), 0.25, dim=1).nan_to_num().clamp_min(0)
        )
        smooth = torch.where(ring == k, level.unsqueeze(1), smooth)
    total = smooth.sum(1).clamp_min(torch.finfo(smooth.dtype).tiny)
    radius = (smooth * ring).sum(1) / total * grid.pixel_scale
    radius = radius.clamp(grid.pixel_scale, 0.25 * min(grid.shape) * grid.pixel_scale)
    flux = total * grid.pixel_area if stack.surface_brightness else total
    brightness = (flux / (2 * torch.pi * radius**2)).clamp_min(FAINTEST)
    index, zero = torch.full_like(radius, LIGHT_INDEX), torch.zeros_like(radius)
    columns = (brightness, radius, index, centre[:, 0], centre[:, 1], zero, zero, sky)
    return torch.stack(columns, dim=1).double(), smooth
