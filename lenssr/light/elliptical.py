"""Radii and points on ellipses, in the ellipticity that all light profiles share."""

import torch

__all__ = ["ellipse_points", "elliptical_radius"]


def elliptical_radius(x, y, x_0, y_0, e1, e2):
    """Radius of the ellipse through a position: the product average of its axes.

    Parameters
    ----------
    x, y : `torch.Tensor`, broadcastable with (B, R)
        Positions in arcsec.
    x_0, y_0 : `torch.Tensor` or float, broadcastable with (B, 1)
        Centre in arcsec.
    e1, e2 : `torch.Tensor` or float, broadcastable with (B, 1)
        Ellipticity, ``(1-q)/(1+q)`` times the cosine and sine of ``2 phi``.

    Returns
    -------
    radius : `torch.Tensor`, shape (B, R)
        In arcsec. Its gradient is zero exactly at the centre, where the radius has a cone.

    Examples
    --------
    >>> import torch
    >>> from lenssr.light import elliptical_radius
    >>> elliptical_radius(torch.tensor([0.0, 1.0]), torch.tensor([1.0, 0.0]), 0.0, 0.0, 0.2, 0.0)
    tensor([1.2247, 0.8165])
    """
    dx, dy = x - x_0, y - y_0
    zeta_x, zeta_y = (1 - e1) * dx - e2 * dy, (1 + e1) * dy - e2 * dx
    square = (zeta_x**2 + zeta_y**2) / (1 - e1**2 - e2**2)
    return square.clamp_min(torch.finfo(square.dtype).tiny).sqrt()


def ellipse_points(radius, angle, x_0, y_0, e1, e2):
    """Points x, y (B, R) on ellipses of these radii; equal areas of (radius, angle) have equal areas."""
    scale = radius / (1 - e1**2 - e2**2) ** 0.5
    cosine, sine = torch.cos(angle), torch.sin(angle)
    x = scale * ((1 + e1) * cosine + e2 * sine)
    y = scale * ((1 - e1) * sine + e2 * cosine)
    return x_0 + x, y_0 + y
