"""Where a fit begins: the lens light by itself, lenses of all sizes, the source from the arcs traced back."""

import numpy as np
import torch

from lenssr.light.profile import FAINTEST
from lenssr.model.least_squares import levenberg_marquardt
from lenssr.model.scene import Scene

LENS_SHAPES = ("e1", "e2", "gamma1", "gamma2")
# Standard deviation of the shapes and shears of starts, which keep them from sharing one symmetry.
START_SHAPE = 0.02
# Factor within which of an expected Einstein radius starts lie.
EXPECTED_WITHIN = 1.4
LIGHT_INDEX = 3.0
# Largest distance in arcsec of the lens light from the expected centre, and of its fit from there.
CENTRE_REACH = 0.3
# Times that light is shared out anew between two sources.
SHARINGS = 5
# Excess over the smooth light, as a share of it, above which a pixel belongs to another object.
OUTSTANDING = 0.3


def light_start(stack, scene):
    """A first lens light (B, 8), Sérsic and sky, fitted to the pixels that do not stand out above it.

    None if the scene has no lens light. Coarse pixels suffice.
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
    """The data (B, N) without sky and first lens light (B, 8), if any; 0 where masked."""
    sky = light is None
    below = border_level(stack).unsqueeze(1) if sky else stack.image(first_galaxy(scene, stack), light)
    return torch.where(stack.valid, stack.data - below, 0)


def first_galaxy(scene, stack):
    """The scene whose parameters `light_start` finds: a Sérsic and the sky."""
    light = {"lens_light": 1, "sky": True, "source": 0}
    return Scene(lens=None, lens_free=False, extent=scene.extent, device=stack.device, **light)


def source_start(stack, scene, template, residual, weight):
    """Fill sky and source into a template (B, P) that holds lens and lens light.

    Position, size and flux are those of the light in the residual (B, N), without sky and lens light, traced
    back to the source plane; ``weight`` (B, N) is its inverse variance.
    """
    # Only light that stands out of the noise counts.
    light = torch.where(residual * weight.sqrt() > 2, residual, 0)
    template = template.clone()
    if scene["sky"] is not None:
        template[:, scene["sky"].slice] = border_level(stack).unsqueeze(1).to(template)
    lights = _shared_out(stack, scene, template, light) if len(scene.sources) == 2 else [light]
    for source, own in zip(scene.sources, lights, strict=False):
        moments = _source_moments(stack, scene, template, own, source)
        template[:, source.slice] = source.profile.from_moments(*moments).to(template)
        template = scene.with_ties(template)
    for source, own in zip(scene.sources, lights, strict=False):
        shape = stack.image(scene, _alone(scene, template, source), roles=("source",))
        scale = (shape.square() * (own > 0)).sum(1).clamp_min(torch.finfo(shape.dtype).tiny)
        factor = ((own * shape).sum(1) / scale).clamp_min(FAINTEST).to(template)
        free = torch.tensor(source.profile.free, device=template.device)
        scaled = source.profile.scaled(template[:, source.slice], factor)
        template[:, source.slice] = torch.where(free, scaled, template[:, source.slice])
    return template


def _alone(scene, physical, source):
    """Physical vectors (B, P) with the other sources dark."""
    physical = physical.clone()
    for block in scene.sources:
        if block is not source:
            dark = torch.full_like(physical[:, 0], FAINTEST)
            physical[:, block.slice] = block.profile.scaled(physical[:, block.slice], dark)
    return physical


def _shared_out(stack, scene, template, light):
    """Light (B, N) of each of two sources: that which comes from nearer its own middle.

    At first the light outside the geometric mean of both Einstein radii is that of the second.
    """
    first, second = scene.sources
    x, y = (torch.as_tensor(c.ravel()).to(light) for c in (stack.grid.x, stack.grid.y))
    centre = scene.lens_centre(template).to(light)
    radius = template[:, scene.radius] * template[:, scene["lens"].stop - 1].sqrt()
    inner = torch.hypot(x - centre[:, :1], y - centre[:, 1:]) < radius[:, None].to(light)
    template = template.clone()
    for _ in range(SHARINGS):
        distances = []
        for source, own in ((first, light * inner), (second, light * ~inner)):
            _, x_0, y_0 = _source_moments(stack, scene, template, own, source)
            template[:, [source.start + k for k in source.profile.centre]] = torch.stack([x_0, y_0], 1).to(
                template
            )
            places = scene.source_positions(x, y, template)[2 * source.rank :]
            distances.append(torch.hypot(places[0] - x_0[:, None], places[1] - y_0[:, None]))
        inner = distances[0] < distances[1]
    return [light * inner, light * ~inner]


def _source_moments(stack, scene, template, light, source):
    """Effective radius and centre x, y, each (B,) in arcsec, of light (B, N) traced back to a source."""
    grid = stack.grid
    x, y = (torch.as_tensor(c.ravel()).to(light) for c in (grid.x, grid.y))
    beta_x, beta_y = scene.source_positions(x, y, template)[2 * source.rank :][:2]
    total = light.sum(1).clamp_min(torch.finfo(light.dtype).tiny)
    centre_x, centre_y = ((light * beta).sum(1) / total for beta in (beta_x, beta_y))
    spread = (light * ((beta_x - centre_x[:, None]) ** 2 + (beta_y - centre_y[:, None]) ** 2)).sum(1) / total
    # An exponential disc has <r^2> = 3.6 r_eff^2 within the isophotes that stand out of the noise, roughly.
    radius = (spread / 3.6).sqrt().clamp(0.5 * grid.pixel_scale, 0.1 * min(grid.shape) * grid.pixel_scale)
    return radius, centre_x, centre_y


def border_level(stack):
    """Sky (B,) from the median of the outermost eighth of the frame."""
    ny, nx = stack.grid.shape
    depth = max(1, min(ny, nx) // 8)
    border = torch.ones(ny, nx, dtype=torch.bool, device=stack.device)
    border[depth : ny - depth, depth : nx - depth] = False
    data = torch.where(stack.valid & border.flatten(), stack.data, torch.nan)
    return torch.nanmedian(data, dim=1).values.nan_to_num()


def _hint(scene):
    """Expected centre of the lens galaxy: that of a given model, or the middle of the image."""
    for block in scene.lights:
        if block.profile.given is not None:
            return tuple(float(block.profile.given_vector[k]) for k in block.profile.centre)
    return 0.0, 0.0


def _moments(stack, hint):
    """A Sérsic with sky (B, 8) at the brightest point near a place, and its light (B, N).

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
        quartile = torch.where(ring == k, data, torch.nan).nanquantile(0.25, dim=1, keepdim=True)
        smooth = torch.where(ring == k, quartile.nan_to_num().clamp_min(0), smooth)
    total = smooth.sum(1).clamp_min(torch.finfo(smooth.dtype).tiny)
    radius = (smooth * ring).sum(1) / total * grid.pixel_scale
    radius = radius.clamp(grid.pixel_scale, 0.25 * min(grid.shape) * grid.pixel_scale)
    flux = total * grid.pixel_area if stack.surface_brightness else total
    brightness = (flux / (2 * torch.pi * radius**2)).clamp_min(FAINTEST)
    index, zero = torch.full_like(radius, LIGHT_INDEX), torch.zeros_like(radius)
    columns = (brightness, radius, index, centre[:, 0], centre[:, 1], zero, zero, sky)
    return torch.stack(columns, dim=1).double(), smooth


def radii_starts(scene, grid, means, rng, number):
    """Lens vectors (B, S, L): Einstein radii all over the field, centred as means (B, P), nearly round."""
    places = means[:, scene.lens_centre_columns].tolist()
    radii = einstein_radii(grid, number) if scene.theta_E is None else radii_near(scene.theta_E, number)
    return torch.stack([torch.stack([_lens_start(scene, rng, r, *place) for r in radii]) for place in places])


def _lens_start(scene, rng, radius, x_0, y_0):
    """The unknown lens (L,) with an Einstein radius and a centre, and small random shapes and shears."""
    vector, block = scene.lens.vector.clone().double(), scene["lens"]
    for name, value in (("theta_E", radius), ("x_0", x_0), ("y_0", y_0)):
        vector[block.column(name) - block.start] = value
    shapes = [k - block.start for name in LENS_SHAPES for k in block.columns(name)]
    vector[shapes] = torch.as_tensor(rng.normal(0, START_SHAPE, len(shapes)))
    return vector


def radii_near(theta_E, number):
    """Einstein radii to start from where one is expected, in arcsec."""
    return theta_E * np.geomspace(1 / EXPECTED_WITHIN, EXPECTED_WITHIN, number)


def einstein_radii(grid, number):
    """Einstein radii to start from, in arcsec: 0.3 to 0.4 of the field, evenly in the logarithm."""
    field_size = min(grid.shape) * grid.pixel_scale
    lowest = min(max(0.3, 2 * grid.pixel_scale), 0.2 * field_size)
    return np.geomspace(lowest, 0.4 * field_size, number)
