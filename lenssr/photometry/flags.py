"""Flags of the rows of a photometry table."""

import enum

import numpy as np

__all__ = ["NOTICES", "PSF_SHARE", "SersicFlag", "decode_flags"]

# Half-light radius, in FWHM of the PSF, below which a galaxy cannot be told from a star. Chosen: in
# quadrature it widens the image by 4 %.
PSF_SHARE = 0.15


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
    #: A parameter ended on a bound: it has no error (NaN), or only that of the side that is free.
    BOUND = 2
    #: The fit was still moving after its last iteration.
    NOT_CONVERGED = 4
    #: The data hardly constrain flux, r_eff or n: its error is above half its value (n: above 1), or the
    #: galaxy is as small as a point.
    WEAKLY_CONSTRAINED = 8
    #: The signal to noise of the whole galaxy is below 10.
    FAINT = 16
    #: As compact as the PSF: a star, or too small to have a measured profile. Where a shape explains the data
    #: no better than a point, the row is that of a point: r_eff, n and ellip are held at 0.02, 2 and 0 and
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


#: Bits that say how a row was made; nothing is wrong with it.
NOTICES = SersicFlag.BLENDED | SersicFlag.PROFILE_INTERVAL


def decode_flags(flags):
    """Names of the bits that are set.

    Parameters
    ----------
    flags : int or array of int

    Returns
    -------
    names : list of str, or list of those for an array

    Examples
    --------
    >>> from lenssr.photometry import decode_flags
    >>> decode_flags([0, 130])
    [[], ['BOUND', 'EDGE']]
    """
    if np.ndim(flags):
        return [decode_flags(flag) for flag in flags]
    return [flag.name for flag in SersicFlag if flag & int(flags)]
