"""Trial lenses: many unlike lenses, each with the source, lens light and sky that fit best with it.

On binned pixels and a coarse grid of nodes, source, light and sky are the solution of a linear problem for
every lens (variable projection), so that many can be compared by their evidence before any other model is
fitted, and none of them assumes what the source looks like:

1. `~lenssr.reconstruction.trial_pixels.Pixels` holds what is compared.
2. `solve_behind` gives evidence and source behind a batch of lenses. Pixels that no lens explains
   (neighbours, cosmic rays) count as outliers of Student's t, not as data to be met.
3. `search_trial_lenses` draws shapes at Einstein radii all over the field, lets the best of each radius move
   by Gauss-Newton, and returns the lenses that are left, the likeliest first.

References
----------
Golub & Pereyra 1973, SIAM Journal on Numerical Analysis 10, 413 (variable projection); Warren & Dye 2003, ApJ
590, 673 (linear sources behind trial lenses); Lange et al. 1989, JASA 84, 881 (Student's t for outliers).
"""

import functools
from dataclasses import dataclass, fields

import numpy as np
import torch

from lenssr.model.initial_guess import LENS_SHAPES, radii_near
from lenssr.reconstruction import decisions
from lenssr.reconstruction.trial_pixels import CHI2_MEDIAN, OUTLIERS, Pixels
from lenssr.source.priors import Prior

__all__ = ["TrialLens", "lenses_differ", "search_trial_lenses", "solve_behind"]


SIDE = 16  # nodes along a side of the source grid
MOST_ELLIPTICAL = 0.3  # of a lens, where its light is flatter still
HELD = 0.9  # share of their weight that the grid holds
RADII, SHAPES = 12, 6  # trial lenses
# Beside lens light, radii of further ones that have its shape: a ring, of one radius and one shape, is missed
# by all others. Chosen on 10 of 26 real lenses.
LIKE_LIGHT = 24
WIDTHS = 0.5, 1.0, 1.0  # of their shapes over those of the priors: at first, and if none explains the arcs
# Lenses that are kept and the steps that they then move, from round to round: many beside lens light, whose
# evidence says little before they have moved.
QUICK, THOROUGH = ((7, 5), (3, 20)), ((RADII * SHAPES + LIKE_LIGHT, 2), (30, 4), (8, 20))
ROUNDS, MORE_ROUNDS = 2, 4  # in which strength and weights are found: nearby, and anew
PROBES = 8  # random vectors that estimate a trace
WEAKEST, STRONGEST = 1e-6, 1e3  # strengths of the prior, over that at which it weighs as much as the data
RIDGE = 1e-5  # on the amplitudes of sky and light, which have unit length
AT_ONCE = 12
PROBE_SEED = 18
GAIN = 0.3
LEAST_LIT = 8  # pixels that shine, without which there is nothing to compare
SMALLEST, LARGEST = 0.2, 0.4  # Einstein radii: in arcsec, and as a share of the field


@dataclass(frozen=True)
class TrialLens:
    """A lens that trial lenses led to.

    Attributes
    ----------
    lens : `torch.Tensor`, shape (L,)
        Its parameters.
    log_posterior : float
        Evidence of source, light and sky times priors of the lens, tempered by what the best lens leaves.
    extent : float
        Half-light radius of its source over the Einstein radius.
    reach : float
        Radius within which most of what shines lies, over the Einstein radius.
    misfit : float
        Median chi2 of the pixels that shine, over that of noise.
    oddity : float
        What of the log posterior is lost for a wide source, or for images that nobody sees.
    """

    lens: torch.Tensor
    log_posterior: float
    extent: float
    reach: float
    misfit: float
    oddity: float

    @property
    def is_odd(self):
        """Whether its source is wide, or its brightest images are hidden."""
        return self.extent > decisions.WIDEST_SOURCE or self.reach < 1


@dataclass
class Behind:
    """Source, lens light and sky with T lenses.

    Attributes
    ----------
    evidence : `torch.Tensor`, shape (T,)
        ln of their evidence.
    strength : `torch.Tensor`, shape (T,)
    extent : `torch.Tensor`, shape (T,)
        Half-light radius of the source in arcsec.
    residual, trust : `torch.Tensor`, shape (T, P)
        Data less model in sigma, and weights of pixels: below 1 for outliers.
    slope : `torch.Tensor`, shape (T, L, P)
        Derivative of the model by the lens, in sigma.
    projected : `torch.Tensor`, shape (T, L, L)
        Curvature of the log posterior by the lens, source and light following.
    """

    evidence: torch.Tensor
    strength: torch.Tensor
    extent: torch.Tensor
    residual: torch.Tensor
    trust: torch.Tensor
    slope: torch.Tensor
    projected: torch.Tensor

    def replace_where(self, better, other):
        """Take over those of another that are better (T,)."""
        for field in fields(self):
            getattr(self, field.name)[better] = getattr(other, field.name)[better]


def solve_behind(pixels, lens, vectors, *, temperature=1.0, last=None):
    """Solve for source, light and sky with lenses, and for the strength of the source's prior.

    Parameters
    ----------
    pixels : `~lenssr.reconstruction.trial_pixels.Pixels`
    lens : `~lenssr.mass.MassModel`
    vectors : `torch.Tensor`, shape (T, L)
    temperature : float, optional
        By which chi2 counts less; 1 by default.
    last : `Behind`, optional
        From lenses nearby: strengths and weights begin there.

    Returns
    -------
    behind : `Behind`
    """
    ax, ay, dax, day = lens.deflection_jacobian_at(pixels.x[None], pixels.y[None], vectors)
    bx, by = pixels.x - ax, pixels.y - ay
    trust = torch.ones_like(bx) if last is None else last.trust
    x_0, y_0, half, extent = _place(pixels, bx, by, trust)
    index, value, along_x, along_y = _bilinear(bx, by, x_0, y_0, half)
    value = value * pixels.root[:, None]
    strength = None if last is None else last.strength
    for _ in range(MORE_ROUNDS if last is None else ROUNDS):
        system = _System.of(pixels, index, value, trust / temperature)
        strength = system.first_strength() if strength is None else strength
        solution, cholesky = system.solve(strength)
        source, amplitudes = solution[:, : SIDE**2], solution[:, SIDE**2 :]
        at_nodes = source.gather(1, index.flatten(1)).reshape(index.shape)
        residual = pixels.data - (value * at_nodes).sum(-1) - amplitudes @ pixels.light
        evidence = system.evidence(strength, source, cholesky, residual, temperature)
        used = strength
        strength = system.next_strength(strength, source, cholesky)
        trust = 1 / (1 + residual**2 / (OUTLIERS * temperature))
    slope = (at_nodes * along_x).sum(-1)[:, None] * -dax + (at_nodes * along_y).sum(-1)[:, None] * -day
    slope = slope * pixels.root
    projected = system.projected(slope, trust / temperature, cholesky)
    return Behind(evidence, used, extent, residual, trust, slope, projected)


def _place(pixels, bx, by, trust):
    """Centre and half side (T, 1) of the grid that holds what shines, and its half-light radius (T,)."""
    lit = pixels.shining > 0
    x, y, weight = bx[:, lit], by[:, lit], pixels.shining[lit] * trust[:, lit]
    x_0, y_0 = _quantile(x, weight, 0.5), _quantile(y, weight, 0.5)
    half = _quantile(torch.maximum((x - x_0).abs(), (y - y_0).abs()), weight, HELD)
    light = (pixels.residual / pixels.root)[lit].clamp_min(0) * trust[:, lit]
    middle = _quantile(x, light, 0.5), _quantile(y, light, 0.5)
    extent = _quantile(torch.hypot(x - middle[0], y - middle[1]), light, 0.5)[:, 0]
    return x_0, y_0, 1.25 * half + 0.5 * pixels.size, extent


def _quantile(value, weight, share):
    """Weighted quantile (T, 1) of values (T, P)."""
    ordered, order = value.sort(dim=1)
    below = weight.gather(1, order).cumsum(1)
    place = (below < share * below[:, -1:]).sum(1, keepdim=True)
    return ordered.gather(1, place.clamp_max(value.shape[1] - 1))


def _bilinear(bx, by, x_0, y_0, half):
    """Nodes (T, P, 4) around rays, their weights, and the derivatives of these along x and y, per arcsec."""
    spacing = 2 * half / (SIDE - 1)
    u, v = (bx - x_0 + half) / spacing, (by - y_0 + half) / spacing
    inside = (u >= 0) & (u <= SIDE - 1) & (v >= 0) & (v <= SIDE - 1)
    column, row = (axis.floor().clamp(0, SIDE - 2) for axis in (u, v))
    u, v = u - column, v - row
    first = (row * SIDE + column).long()
    index = torch.stack([first, first + 1, first + SIDE, first + SIDE + 1], -1)
    value = torch.stack([(1 - u) * (1 - v), u * (1 - v), (1 - u) * v, u * v], -1) * inside[..., None]
    per_arcsec = (inside / spacing)[..., None]
    along_x = torch.stack([v - 1, 1 - v, -v, v], -1) * per_arcsec
    along_y = torch.stack([u - 1, -u, 1 - u, u], -1) * per_arcsec
    return index, value, along_x, along_y


class _System:
    """Normal equations of T linear problems: n nodes, then K amplitudes of sky and light."""

    def __init__(self, index, value, light, weight, matrix, right):
        self.index, self.value, self.light, self.weight = index, value, light, weight
        self.matrix, self.right = matrix, right

    @classmethod
    def of(cls, pixels, index, value, weight):
        """From nodes (T, P, 4) and their values, and weights (T, P) of data in sigma."""
        count, nodes, light = len(index), SIDE**2, pixels.light
        size = nodes + len(light)
        weighed = value * weight[..., None]
        matrix = torch.zeros(count, size, size, dtype=value.dtype)
        pairs = (index[..., :, None] * size + index[..., None, :]).flatten(1)
        products = (weighed[..., :, None] * value[..., None, :]).flatten(1)
        matrix.view(count, -1).scatter_add_(1, pairs, products)
        system = cls(index, value, light, weight, matrix, None)
        of_light = light * weight[:, None]
        cross = system._onto_nodes(of_light)
        matrix[:, nodes:, :nodes], matrix[:, :nodes, nodes:] = cross, cross.transpose(1, 2)
        matrix[:, nodes:, nodes:] = of_light @ light.T
        system.right = system._onto((pixels.data * weight)[:, None])[..., 0]
        return system

    def _onto_nodes(self, rows):
        """Rows (T, L, P) times the map from nodes, (T, L, n)."""
        count, number, _ = rows.shape
        index = self.index.flatten(1)[:, None].expand(-1, number, -1)
        values = (rows[..., None] * self.value[:, None]).flatten(2)
        return torch.zeros(count, number, SIDE**2, dtype=rows.dtype).scatter_add_(2, index, values)

    def _onto(self, rows):
        """Rows (T, L, P) times the map from nodes and light, (T, n + K, L)."""
        return torch.cat([self._onto_nodes(rows), rows @ self.light.T], dim=2).transpose(1, 2)

    def first_strength(self):
        """Strength at which a prior has a hundredth of the weight of the data."""
        return 1e-2 * self._balance()

    def _balance(self):
        return self.matrix.diagonal(dim1=1, dim2=2)[:, : SIDE**2].sum(1).clamp_min(1e-300) / _prior().trace()

    def solve(self, strength):
        """Nodes and amplitudes (T, n + K), and the Cholesky factor of the matrix."""
        matrix = self.matrix.clone()
        matrix[:, : SIDE**2, : SIDE**2] += strength[:, None, None] * _prior()
        matrix.diagonal(dim1=1, dim2=2)[:, SIDE**2 :] += RIDGE
        cholesky = torch.linalg.cholesky(matrix)
        return torch.cholesky_solve(self.right[..., None], cholesky)[..., 0], cholesky

    def evidence(self, strength, source, cholesky, residual, temperature):
        """Logarithm of the evidence (T,), up to a constant."""
        misfit = OUTLIERS * torch.log1p(residual**2 / (OUTLIERS * temperature)).sum(1)
        determinant = 2 * cholesky.diagonal(dim1=1, dim2=2).log().sum(1)
        return 0.5 * (SIDE**2 * strength.log() - misfit - strength * _roughness(source) - determinant)

    def next_strength(self, strength, source, cholesky):
        """Where the evidence is stationary: nodes that the data determine over the roughness (MacKay)."""
        probes, rough = _probes()
        onto = torch.nn.functional.pad(rough, (0, 0, 0, len(self.light))).expand(len(strength), -1, -1)
        trace = (torch.cholesky_solve(onto, cholesky)[:, : SIDE**2] * probes).sum((1, 2)) / PROBES
        determined = (SIDE**2 - strength * trace).clamp_min(1.0)
        ends = self._balance()
        found = determined / _roughness(source).clamp_min(1e-300)
        return torch.minimum(torch.maximum(found, WEAKEST * ends), STRONGEST * ends)

    def projected(self, slope, weight, cholesky):
        """Curvature (T, L, L) by parameters with slopes (T, L, P), all that is linear following."""
        weighed = slope * weight[:, None]
        onto = self._onto(weighed)
        followed = onto.transpose(1, 2) @ torch.cholesky_solve(onto, cholesky)
        return weighed @ slope.transpose(1, 2) - followed


@functools.cache
def _prior():
    """Precision (n, n) of the source."""
    return torch.as_tensor(Prior("curvature", SIDE).dense)


@functools.cache
def _probes():
    """Random signs (n, PROBES), and the precision of the source times these."""
    signs = np.random.default_rng(PROBE_SEED).choice([-1.0, 1.0], size=(SIDE**2, PROBES))
    signs = torch.as_tensor(signs)
    return signs, _prior() @ signs


def _roughness(source):
    return torch.einsum("ti,ij,tj->t", source, _prior(), source)


# ---------------------------------------------------------------- the search


def search_trial_lenses(stack, scene, constraints, rng, light=None):
    """Lenses that explain the arcs of one image, whatever the source looks like, the likeliest first.

    Parameters
    ----------
    stack : `~lenssr.model.image_stack.ImageStack`
        Holding the one image, on a CPU.
    scene : `~lenssr.model.scene.Scene`
    constraints : `~lenssr.model.fit.Constraints`
        Bounds and priors of the one scene.
    rng : `numpy.random.Generator`
    light : `torch.Tensor`, shape (1, 8), optional
        First lens light, from `~lenssr.model.initial_guess.light_start`; none by default.

    Returns
    -------
    found : list of `TrialLens`
        Empty if nothing shines, or if no lens was found that explains what does.
    """
    pixels = Pixels.of(stack, scene, light)
    if int((pixels.shining > 0).sum()) < LEAST_LIT:
        return []
    prior = _LensPrior.of(scene, constraints, pixels)
    for width in WIDTHS:
        found = _search(pixels, scene, prior, prior.draw(scene, pixels, stack.grid, width, rng))
        if scene.lights or found[0].misfit < decisions.TRIAL_MISFIT:
            return found
    return []


def _search(pixels, scene, prior, vectors):
    """The `TrialLens`es to which trial lenses (T, L) lead, the likeliest first."""
    lens = scene.lens
    first = _in_parts(lambda some: solve_behind(pixels, lens, some), vectors)
    temperature = _temperature(first)
    score = first.evidence / temperature + prior(vectors)
    rounds, score = THOROUGH, score - _oddity(*_sizes(pixels, scene, vectors, first))
    if not scene.lights:
        best = score.reshape(RADII, SHAPES).argmax(1) + SHAPES * torch.arange(RADII)
        rounds, score, vectors = QUICK, score[best], vectors[best]
    for kept, steps in rounds:
        vectors = vectors[score.argsort(descending=True)[:kept]]
        vectors, behind = _climb(pixels, lens, prior, vectors, temperature, steps)
        score = behind.evidence + prior(vectors) - _oddity(*_sizes(pixels, scene, vectors, behind))
    return _distinct(pixels, scene, vectors, behind, score)


@dataclass(frozen=True)
class _LensPrior:
    """Bounds and Gaussian priors of a lens vector (L,)."""

    mean: torch.Tensor
    stiffness: torch.Tensor
    lower: torch.Tensor
    upper: torch.Tensor
    free: torch.Tensor

    @classmethod
    def of(cls, scene, constraints, pixels):
        """Those of a fit of the scene, and where lens light is fitted an ellipticity like its own."""
        block = scene["lens"]
        parts = constraints.mean, constraints.stiffness, constraints.lower, constraints.upper
        mean, stiffness, lower, upper = (part[0, block.slice].double().clone() for part in parts)
        if scene.lights and scene.follows_light:
            shape = pixels.shape * (MOST_ELLIPTICAL / pixels.shape.norm().clamp_min(MOST_ELLIPTICAL))
            for name, value in zip(("e1", "e2"), shape, strict=True):
                columns = [k - block.start for k in block.columns(name)]
                mean[columns], stiffness[columns] = value.double(), decisions.FOLLOWS_LIGHT**-2
        return cls(mean, stiffness, lower, upper, scene.free_of("lens"))

    def __call__(self, vectors):
        """Logarithm of the prior (T,), up to a constant."""
        return -0.5 * (self.stiffness * (vectors - self.mean) ** 2)[:, self.free].sum(1)

    def clipped(self, vectors):
        """Vectors within the bounds."""
        return torch.minimum(torch.maximum(vectors, self.lower), self.upper)

    def draw(self, scene, pixels, grid, width, rng):
        """Vectors (T, L): Einstein radii all over the field, the rest from the priors or at their means."""
        block, vector = scene["lens"], scene.lens.vector.double()
        noise = rng.normal(size=(RADII * SHAPES, len(vector)))
        radii = np.repeat(_spread_radii(scene, pixels, grid, RADII), SHAPES)
        if scene.lights:
            noise = np.concatenate([noise, np.zeros((LIKE_LIGHT, len(vector)))])
            radii = np.concatenate([radii, _spread_radii(scene, pixels, grid, LIKE_LIGHT)])
        spread = torch.where(self.stiffness > 0, width * self.stiffness.clamp_min(1e-30) ** -0.5, 0.0)
        mean = torch.where(self.stiffness > 0, self.mean, vector)
        vectors = torch.where(self.free, mean + spread * torch.as_tensor(noise), vector)
        vectors[:, block.column("theta_E") - block.start] = torch.as_tensor(radii)
        return self.clipped(vectors)


def _spread_radii(scene, pixels, grid, count):
    """Einstein radii all over the field, or near the one that is expected."""
    if scene.theta_E is not None:
        return radii_near(scene.theta_E, count)
    field = min(grid.shape) * grid.pixel_scale
    return np.geomspace(max(SMALLEST, 1.5 * pixels.size), LARGEST * field, count)


def _in_parts(solve, vectors):
    """Results of a few lenses at a time, joined."""
    parts = [solve(vectors[i : i + AT_ONCE]) for i in range(0, len(vectors), AT_ONCE)]
    return Behind(*(torch.cat([getattr(part, field.name) for part in parts]) for field in fields(Behind)))


def _temperature(behind):
    """Factor of chi2 over that of noise for the likeliest of lenses, by the median of what is left."""
    left = behind.residual[behind.evidence.argmax()] ** 2
    return max(1.0, float(left.median()) / CHI2_MEDIAN)


def _climb(pixels, lens, prior, vectors, temperature, steps):
    """Move lenses (T, L) uphill by damped Gauss-Newton steps; the lenses and what is `Behind` them."""
    behind = solve_behind(pixels, lens, vectors, temperature=temperature)
    score = behind.evidence + prior(vectors)
    damping = torch.full((len(vectors),), 1e-2, dtype=torch.float64)
    for _ in range(steps):
        step = _step(prior, vectors, behind, damping, temperature)
        there = prior.clipped(vectors + step)
        found = solve_behind(pixels, lens, there, temperature=temperature, last=behind)
        reached = found.evidence + prior(there)
        better = reached > score
        damping = torch.where(better, 0.3 * damping, 8 * damping).clamp(1e-4, 1e4)
        vectors = torch.where(better[:, None], there, vectors)
        behind.replace_where(better, found)
        gain, score = (reached - score).clamp_min(0), torch.where(better, reached, score)
        if bool((gain < GAIN).all() and (better | (damping > 10)).all()):
            break
    return vectors, behind


def _step(prior, vectors, behind, damping, temperature):
    """Gauss-Newton steps (T, L) of the free parameters."""
    free = prior.free
    weighed = behind.residual * behind.trust / temperature
    uphill = (behind.slope @ weighed[..., None])[..., 0] - prior.stiffness * (vectors - prior.mean)
    curvature = behind.projected + torch.diag(prior.stiffness)
    curvature = curvature[:, free][:, :, free]
    diagonal = curvature.diagonal(dim1=1, dim2=2)
    curvature = curvature + torch.diag_embed(
        damping[:, None] * diagonal + 1e-9 * diagonal.amax(1, keepdim=True)
    )
    step = torch.zeros_like(vectors)
    step[:, free] = torch.linalg.solve(curvature, uphill[:, free])
    return step


def _sizes(pixels, scene, vectors, behind):
    """Half-light radii of sources and radii that hold most of what shines, over the Einstein radii (T,)."""
    radii = _radii(scene, vectors)
    columns = [k - scene["lens"].start for k in scene.lens_centre_columns]
    x_0, y_0 = vectors[:, columns].T.unsqueeze(2)
    lit = pixels.shining > 0
    away = torch.hypot(pixels.x[lit] - x_0, pixels.y[lit] - y_0)
    light = (pixels.residual / pixels.root)[lit].clamp_min(0) * behind.trust[:, lit]
    return behind.extent / radii, _quantile(away, light, decisions.MOST_OF_ARCS)[:, 0] / radii


def _oddity(extent, reach):
    """How much less likely lenses of such `_sizes` are than the evidence says (T,): the sky has few of them.

    What is not lensed is its own source, and so is what a weak lens hardly changes: but sources are small.
    And behind a lens within whose Einstein radius everything lies, the brightest images are those that nobody
    sees: an isothermal lens shows more than half of a source's light outside.
    """
    wide = (extent / decisions.WIDEST_SOURCE).log().clamp_min(0)
    near = reach.clamp_min(1e-3).log().clamp_max(0)
    return decisions.WIDE * wide**2 + decisions.NEAR * near**2


def _radii(scene, vectors):
    block = scene["lens"]
    return vectors[:, block.column("theta_E") - block.start]


def _distinct(pixels, scene, vectors, behind, score):
    """`TrialLens`es that differ, the likeliest first."""
    (extent, reach), found = _sizes(pixels, scene, vectors, behind), []
    oddity = _oddity(extent, reach)
    for k in score.argsort(descending=True).tolist():
        if all(lenses_differ(scene["lens"], vectors[k], one.lens) for one in found):
            misfit = float((behind.residual[k, pixels.shining > 0] ** 2).median()) / CHI2_MEDIAN
            numbers = (float(part[k]) for part in (score, extent, reach))
            found.append(TrialLens(vectors[k], *numbers, misfit, float(oddity[k])))
    return found


def lenses_differ(block, first, second):
    """Whether two vectors (L,) of a lens block are more than one mode: in radius, ellipticity or shear."""
    apart = (first - second).abs()
    radii = [k - block.start for k in block.columns("theta_E")]
    shapes = [k - block.start for name in LENS_SHAPES for k in block.columns(name)]
    # The sphere of two source planes is small, and known no better than the lens.
    return bool(
        (apart[radii] > decisions.SAME_RADIUS * second[radii].abs().max()).any()
        or (apart[shapes] > decisions.SAME_SHAPE).any()
    )
