"""Flags of the rows of a photometry table."""

from __future__ import annotations  # GroupFit is not imported

import enum
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from lenssr.photometry.groups import cut, first_pixel
from lenssr.photometry.parameters import MEASURED

if TYPE_CHECKING:
    from lenssr.photometry.solve import GroupFit

__all__ = ["NOTICES", "STAMP_RADII", "SersicFlag", "decode_flags", "flags_of"]

# Half-light radius, in FWHM of the PSF, below which a galaxy cannot be told from a star. Chosen: in
# quadrature it widens the image by 4 %.
PSF_SHARE = 0.15
# WEAKLY_CONSTRAINED: error of flux and r_eff relative to their value, and of n, above these. Chosen.
WEAK_SHARE, WEAK_INDEX = 0.5, 1.0
# FAINT: signal to noise below this. Chosen: shapes of fainter ones are prior more than data.
FAINT_SIGNAL = 10.0
# SMALL_STAMP, EDGE: sides of the box below this, in r_eff, or in FWHM of the PSF for small galaxies.
# Chosen: an exponential has 1 % of its light beyond 4 r_eff, half a side.
STAMP_RADII, STAMP_WIDTHS = 8.0, 4.0
# POOR_FIT: chi2 too high by this, in its sigma. Theory: 5 sigma.
POOR_FIT_SIGMA = 5.0


class SersicFlag(enum.IntFlag):
    """Bits of the column ``flags`` of a `~lenssr.SersicPhotometry` table.

    Examples
    --------
    >>> from lenssr.photometry import SersicFlag
    >>> [flag.name for flag in SersicFlag(68)]
    ['NOT_CONVERGED', 'MASKED_CENTRE']
    """

    #: There is no pixel to fit: all are masked, not finite or outside the image. The row is NaN.
    NO_DATA = 1
    #: A parameter ended on a bound: it has no error (NaN), or a one-sided one.
    BOUND = 2
    #: The fit was still moving after its last iteration.
    NOT_CONVERGED = 4
    #: The data hardly constrain flux, r_eff or n: its error is above half its value (n: above 1), or the
    #: galaxy is as small as a point.
    WEAKLY_CONSTRAINED = 8
    #: The signal to noise of the whole galaxy is below 10.
    FAINT = 16
    #: As compact as the PSF: a star, or too small to have a measured profile. Where a shape explains the data
    #: no better than a point, the row describes a point: r_eff, n and ellip are held at 0.02, 2 and 0 and
    #: have no errors (NaN); with intervals of the profile likelihood r_eff_upper is a limit on the size.
    PSF_SIZED = 32
    #: The pixel of the centre is masked or outside the image.
    MASKED_CENTRE = 64
    #: The edge of the image cuts the galaxy: it is nearer than the edge of the stamp, and nearer than 4 r_eff
    #: or twice the FWHM of the PSF.
    EDGE = 128
    #: Neighbours overlap with the galaxy: without fitting them its flux would be off by more than 2 %.
    #: A notice: its numbers depend on how well the neighbours are known, but nothing is wrong.
    BLENDED = 256
    #: Chi2 is more than 5 sigma too high: the galaxy is not a Sérsic, or the errors or the PSF are wrong.
    POOR_FIT = 512
    #: The stamp is smaller than 8 r_eff: sky, flux, r_eff and n trade off against each other.
    SMALL_STAMP = 1024
    #: The errors are from the profile likelihood, because Gaussian ones may be wrong. A notice, too.
    PROFILE_INTERVAL = 2048
    #: The image or its fit failed: ``table.meta["failures"]`` says which and why. The row is NaN.
    FAILED = 4096
    #: A value of ``init_params`` means nothing, such as a negative radius: the fit began at an estimate, or
    #: was not made where the value is needed.
    BAD_START = 8192
    #: An earlier row has the same position, which was fitted there. The row is NaN.
    DUPLICATE = 16384


#: Bits that say how a row was made; nothing is wrong with it.
NOTICES = SersicFlag.BLENDED | SersicFlag.PROFILE_INTERVAL


def decode_flags(flags: ArrayLike) -> list:
    """Names of the bits that are set.

    Parameters
    ----------
    flags : int or array of int
        Value or values of the column ``flags``.

    Returns
    -------
    names : list of str
        For an array a list of such lists.

    Examples
    --------
    >>> from lenssr.photometry import decode_flags
    >>> decode_flags([0, 130])
    [[], ['BOUND', 'EDGE']]
    """
    bits = np.asarray(flags)
    if bits.ndim:
        return [decode_flags(one) for one in bits]
    return [flag.name for flag in SersicFlag if flag & int(bits)]


def flags_of(fit: GroupFit, galaxy: int) -> int:
    """Bits of `SersicFlag` of one galaxy of the fit of a group."""
    task, image = fit.task, fit.task.bands[0]
    x, y = fit.values[galaxy, 0, 0, :2]
    radius = fit.values[galaxy, :, :, MEASURED.index("r_eff")].max()
    # The light fills a box with sides of about this many pixels.
    side = max(STAMP_RADII * radius, STAMP_WIDTHS * fit.fwhm)
    box = [min(one, int(side) | 1) for one in task.boxes[galaxy]]
    corner = first_pixel(task.places[galaxy, 0], task.places[galaxy, 1], box)
    is_star = image.psf is not None and radius < PSF_SHARE * fit.fwhm
    found = {
        SersicFlag.BOUND: not set(fit.at_bound).isdisjoint(fit.layout.profiles[galaxy].flat),
        SersicFlag.NOT_CONVERGED: not fit.converged,
        SersicFlag.WEAKLY_CONSTRAINED: is_star or _weakly_constrained(fit, galaxy),
        SersicFlag.FAINT: fit.signal[galaxy] < FAINT_SIGNAL,
        SersicFlag.PSF_SIZED: is_star,
        SersicFlag.MASKED_CENTRE: not cut(image.valid, first_pixel(x, y, (1, 1)), (1, 1), False).all(),
        SersicFlag.EDGE: (np.less(corner, 0) | (np.add(corner, box) > image.shape)).any(),
        SersicFlag.BLENDED: galaxy in fit.blended,
        SersicFlag.POOR_FIT: fit.chi2 - fit.free > POOR_FIT_SIGMA * np.sqrt(2 * fit.free),
        SersicFlag.SMALL_STAMP: STAMP_RADII * radius > min(task.boxes[galaxy]),
        SersicFlag.PROFILE_INTERVAL: any(place[1] == galaxy for place in fit.intervals),
    }
    return int(sum(flag for flag, is_so in found.items() if is_so))


def _weakly_constrained(fit: GroupFit, galaxy: int) -> bool:
    """Whether the error of flux, r_eff or n is too large; a parameter that is held has none."""
    for component, band in np.ndindex(fit.layout.components, fit.layout.bands):
        for name in ("flux", "r_eff", "n"):
            value, low, high = fit.interval(name, galaxy, component, band)
            if high - low > 2 * (WEAK_INDEX if name == "n" else WEAK_SHARE * value) or value <= 0:
                return True
    return False
