"""A real lens that ships with lenssr: two HST bands of one galaxy and the galaxy behind it.

The images are the example data of `dolphin <https://github.com/ajshajib/dolphin>`__, cropped about the lens
(BSD 3-clause licence; the notice lies beside the files). Simulated lenses are in `lenssr.simulation`.
"""

from importlib.resources import files
from pathlib import Path

__all__ = ["hst_lens"]

BANDS = ("F475X", "F600LP")


def hst_lens() -> dict[str, Path]:
    """Files of a lens that HST saw with WFC3/UVIS, by band.

    Each has the HDUs ``SCI`` (112 x 112 pixels of 0.04 arcsec, electron/s, with a WCS of offsets only),
    ``ERR`` (1 sigma), ``EXPTIME`` (seconds, by pixel) and ``PSF`` (61 x 61, same pixels). An arc lies 1.3
    arcsec from a red lens galaxy, its counter-image on the other side. F475X shows the arc best; in F600LP
    the galaxy outshines it.

    Returns
    -------
    files : dict of str to `pathlib.Path`
        Paths of the FITS files of ``"F475X"`` and ``"F600LP"``. One of them is an image for a
        `~lenssr.SuperResolver`, the whole dict are the bands of one lens.

    Notes
    -----
    Source: the example data of dolphin, Copyright (c) 2020-2025, dolphin developers, BSD 3-clause licence.
    ``benchmarks/datasets_hst.py`` cropped them.

    References
    ----------
    A. J. Shajib et al. 2025, ApJ 992, 40 (arXiv:2503.22657), presents dolphin.

    Examples
    --------
    >>> from lenssr import Observation
    >>> from lenssr.datasets import hst_lens
    >>> image = Observation.from_any(hst_lens()["F475X"])
    >>> image.data.shape, image.unit
    ((112, 112), Unit("electron / s"))
    """
    folder = Path(str(files(__name__) / "hst"))
    return {band: folder / f"hst_{band.lower()}.fits" for band in BANDS}
