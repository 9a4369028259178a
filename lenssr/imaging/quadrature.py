"""Where to put rays in pixels so that the light which falls into each is right."""

import math

import torch

__all__ = ["adaptive_rays", "gauss_rule", "midpoint_rule", "rays_in_cells"]

# Rays whose brightness is computed at once while cells are tested: they stay in cache.
_BLOCK = 2**17
MAX_LEVEL = 12
# Errors of neighbouring cells add with one sign, so one cell may use only a part of what its pixel may.
SHARE = 0.1
# Where light is smooth the quarters differ to third order and cancel in sum, which is of fourth order.
QUARTER_SHARE = 0.1


def midpoint_rule(number, *, dtype=torch.float64, device="cpu"):
    """Centres of the ``number`` x ``number`` equal parts of a cell of side 1 around the origin.

    Parameters
    ----------
    number : int
        Parts along a side.
    dtype : `torch.dtype`, optional
    device : `torch.device` or str, optional

    Returns
    -------
    x, y : `torch.Tensor`, shape (number**2,)
        Rows from below, as pixels are ordered. All weigh the same.
    """
    nodes = (torch.arange(number, dtype=dtype, device=device) + 0.5) / number - 0.5
    y, x = torch.meshgrid(nodes, nodes, indexing="ij")
    return x.reshape(-1), y.reshape(-1)


def gauss_rule(*, dtype=torch.float64, device="cpu"):
    """Return the 2 x 2 Gauss-Legendre points of a cell of side 1 around the origin.

    Exact for polynomials to third order in x and in y, with four equal weights.

    Parameters
    ----------
    dtype : `torch.dtype`, optional
    device : `torch.device` or str, optional

    Returns
    -------
    x, y : `torch.Tensor`, shape (4,)
    """
    x, y = midpoint_rule(2, dtype=dtype, device=device)
    return x * (2 / math.sqrt(3)), y * (2 / math.sqrt(3))


def rays_in_cells(x, y, side, rule):
    """Put the points of a rule into square cells.

    Parameters
    ----------
    x, y : `torch.Tensor`, shape (C,)
        Centres of the cells.
    side : float or `torch.Tensor`, shape (C, 1)
        Their sides.
    rule : tuple of `torch.Tensor`, shape (points,)
        As from `gauss_rule` or `midpoint_rule`.

    Returns
    -------
    ray_x, ray_y : `torch.Tensor`, shape (C * points,)
        Cell by cell.
    """
    return tuple(
        (centre[:, None] + side * nodes).reshape(-1) for centre, nodes in zip((x, y), rule, strict=True)
    )


def _sample(brightness, x, y, side, rule):
    """Brightness at the points of a rule in square cells, (..., C, points)."""
    samples = []
    step = max(1, _BLOCK // len(rule[0]))
    for start in range(0, len(x), step):
        part = slice(start, start + step)
        rays = rays_in_cells(x[part], y[part], side, rule)
        samples.append(brightness(*rays).unflatten(-1, (-1, len(rule[0]))))
    return torch.cat(samples, -2)


@torch.no_grad()
def adaptive_rays(brightness, x, y, side, *, tolerance=3e-4, floor=0.01, max_rays=None):
    """Divide square cells where the light is steep, until each holds the right mean brightness.

    Every cell starts with the 2 x 2 Gauss rule. It is compared with the same rule on its four quarters, both
    in sum and quarter by quarter (in sum a cusp can hide: its errors cancel somewhere in a cell). Where the
    two disagree by more than a part of the tolerance, the quarters replace the cell and are tested in turn.

    Parameters
    ----------
    brightness : callable
        ``brightness(x, y)`` for tensors (M,) gives a tensor (M,), or (..., M) for several scenes at once,
        whose cells are then divided where any of the scenes needs it.
    x, y : `torch.Tensor`, shape (C,)
        Centres of the cells in arcsec.
    side : float
        Side of the cells in arcsec.
    tolerance : float, optional
        Relative error aimed at in cells as bright as ``floor`` times the brightest; the fainter ones get
        the absolute error of those. Default 3e-4.
    floor : float, optional
        Default 0.01.
    max_rays : int, optional
        Bound on the rays returned; the cells in error most are divided first. Default: 50 000 and 16 times
        the number of cells.

    Returns
    -------
    divided : `torch.Tensor`, shape (D,)
        Which cells do not keep the rule, in ascending order.
    ray_x, ray_y : `torch.Tensor`, shape (M,)
        The rays that replace it in them.
    weight : `torch.Tensor`, shape (M,)
        Share of the cell that each ray stands for; those of a cell sum to 1.
    index : `torch.Tensor`, shape (M,)
        Position in ``divided`` of the cell of each ray.
    """
    rule = gauss_rule(dtype=x.dtype, device=x.device)
    quarters = midpoint_rule(2, dtype=x.dtype, device=x.device)
    budget = max_rays or 50_000 + 16 * len(x)
    samples = _sample(brightness, x, y, side, rule)
    # A ray that is not finite may not hide what all other cells need.
    mean = samples.mean(-1).abs().nan_to_num(0.0, posinf=0.0)
    allowed = tolerance * torch.maximum(mean, floor * mean.amax(-1, keepdim=True))
    owner = torch.arange(len(x), device=x.device)
    kept = []
    for level in range(MAX_LEVEL + 1):
        child_side = side / 2 ** (level + 1)
        child_x, child_y = rays_in_cells(x, y, 2 * child_side, quarters)
        children = _sample(brightness, child_x, child_y, child_side, rule)
        error = _disagreement(samples, children) / 4**level
        ratio = (error / allowed[..., owner]).nan_to_num(0.0).reshape(-1, len(x)).amax(0)
        split = ratio > SHARE if level < MAX_LEVEL else torch.zeros_like(ratio, dtype=torch.bool)
        if 12 * int(split.sum()) > budget:
            worst = ratio.argsort(descending=True)[: budget // 12]
            split = torch.zeros_like(split).index_fill(0, worst, True)
        if level > 0:
            kept.append((x[~split], y[~split], torch.full_like(x[~split], 2 * child_side), owner[~split]))
        budget -= 12 * int(split.sum())
        if not split.any():
            break
        four = split.repeat_interleave(4)
        x, y, samples = child_x[four], child_y[four], children[..., four, :]
        owner = owner[split].repeat_interleave(4)
    return _gather(kept, side, rule)


def _disagreement(samples, children):
    """How much the mean over a cell (..., C, 4) and over its quarters (..., 4 C, 4) differ."""
    near = (1 + math.sqrt(3) / 2) / 2
    line = samples.new_tensor([[near, 1 - near], [1 - near, near]])
    # What the bilinear function through the points of the cell has as means over its quarters.
    expected = samples @ torch.kron(line, line)
    difference = (children.mean(-1).unflatten(-1, (-1, 4)) - expected) / 4
    return torch.maximum(difference.sum(-1).abs(), QUARTER_SHARE * difference.abs().sum(-1))


def _gather(kept, side, rule):
    """Rays of the cells kept at all levels."""
    if not kept:
        empty = rule[0][:0]
        return empty.long(), empty, empty, empty, empty.long()
    x, y, own_side, owner = (torch.cat(parts) for parts in zip(*kept, strict=True))
    rays = rays_in_cells(x, y, own_side[:, None], rule)
    number = len(rule[0])
    weight = ((own_side / side) ** 2 / number).repeat_interleave(number)
    divided, index = torch.unique(owner.repeat_interleave(number), return_inverse=True)
    return divided, *rays, weight, index
