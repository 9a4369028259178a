"""What is measured on results for real lenses; the tests on real images measure the same."""

import astropy.units as u
import numpy as np
import torch
from astropy.io import fits
from scipy import ndimage

from lenssr.imaging import PSF

__all__ = [
    "annulus_chi2",
    "bicubic",
    "binned",
    "common_psf",
    "dipole",
    "dipole_scatter",
    "light_centre",
    "offsets",
    "positions",
    "registered",
    "rings",
    "smoothed_bicubic",
    "within",
]

ARCS = (0.8, 1.8)  # arcsec: the annulus with the arcs of the HST lens
CORE = 0.4
RING = 0.1
FWHM = 2 * np.sqrt(2 * np.log(2))


def positions(shape, scale):
    """Positions of pixel centres in arcsec from the image centre, x and y."""
    y, x = (scale * (index - (side - 1) / 2) for index, side in zip(np.indices(shape), shape, strict=True))
    return x, y


def _planes(result):
    """Residual, its standard deviation, which pixels count, positions in arcsec, and the widening."""
    data, error = result.residual.data, result.residual.uncertainty.array
    x, y = positions(data.shape, result.meta["pixel_scale"])
    used = ~result.data.mask & np.isfinite(error)
    return data, error, used, x, y, result.meta["sky_noise"]["factor"]


def light_centre(result):
    """Centre of the galaxy in arcsec: of the light that its profiles put within 0.2" of their middle."""
    light, scale = result.lens_light_image.data, result.meta["pixel_scale"]
    scale *= result.data.shape[0] / light.shape[0]
    x, y = positions(light.shape, scale)
    peak = np.unravel_index(light.argmax(), light.shape)
    near = np.hypot(x - x[peak], y - y[peak]) < 0.2
    return tuple(float((light * axis)[near].sum() / light[near].sum()) for axis in (x, y))


def annulus_chi2(result, inner=ARCS[0], outer=ARCS[1]):
    """Chi2 per pixel of an annulus around the image centre, in arcsec."""
    _, _, used, x, y, _ = _planes(result)
    radius = np.hypot(x, y)
    return float(result.chi2_map[used & (radius >= inner) & (radius < outer)].mean())


def rings(result, outer=2.2, centre=(0.0, 0.0)):
    """Mean residual of rings around a centre over its error, widened for correlated noise.

    Returns
    -------
    inner : `~numpy.ndarray`, shape (n,)
        Inner radii in arcsec.
    mean, error : `~numpy.ndarray`, shape (n,)
        In the image's unit.
    """
    data, sigma, used, x, y, widening = _planes(result)
    radius = np.hypot(x - centre[0], y - centre[1])
    inner = np.arange(0, outer - RING / 2, RING)
    where = [used & (radius >= low) & (radius < low + RING) for low in inner]
    mean = np.array([data[ring].mean() for ring in where])
    error = np.array([widening * np.sqrt((sigma[ring] ** 2).sum()) / ring.sum() for ring in where])
    return inner, mean, error


def dipole(result, centre, radius=CORE):
    """The m = 1 term of the residual around a centre, in sigma, widened as the rings are.

    Returns
    -------
    plain, weighted : float
        The larger of its two components: of the mean residual, as the rings have it, and of the residual
        weighted by inverse variance, which sees more of the outskirts.
    """
    plain, weighted = np.abs(_dipoles(_planes(result), centre, radius)).max(axis=1)
    return float(plain), float(weighted)


def dipole_scatter(result, radius=CORE, places=4000, seed=1):
    """Root mean square of the same dipoles around random places on the sky, where the model is dark.

    Sums of pixels scatter more than the autocorrelation over a few pixels says if the background is uneven on
    larger scales; this is what it does to a dipole of this size.

    Returns
    -------
    plain, weighted : float
        In the units of `dipole`: 1 if the widening tells all.
    """
    planes = _planes(result)
    _, sigma, used, x, y, _ = planes
    (ny, nx), scale = sigma.shape, result.image.shape[0] // sigma.shape[0]
    light = result.lensed_source.data + result.lens_light_image.data
    dark = used & (light.reshape(ny, scale, nx, scale).sum((1, 3)) < sigma)
    reach = np.array([x.max(), y.max()]) - radius
    found = [
        _dipoles(planes, centre, radius)
        for centre in np.random.default_rng(seed).uniform(-reach, reach, (places, 2))
        if dark[np.hypot(x - centre[0], y - centre[1]) < radius].all()
    ]
    plain, weighted = np.sqrt(np.square(found).mean(axis=(0, 2)))
    return float(plain), float(weighted)


def _dipoles(planes, centre, radius):
    """Both components of the plain and of the weighted dipole around a centre, (2, 2), in sigma."""
    data, sigma, used, x, y, widening = planes
    near = used & (np.hypot(x - centre[0], y - centre[1]) < radius)
    angle = np.arctan2(y - centre[1], x - centre[0])[near]
    weights = [sigma[near] ** -power * wave for power in (0, 2) for wave in (np.cos(angle), np.sin(angle))]
    pulls = [(w * data[near]).sum() / np.sqrt((w**2 * sigma[near] ** 2).sum()) for w in weights]
    return np.reshape(pulls, (2, 2)) / widening


def within(result, place, radius):
    """What the residual holds near a place: as a share of the lensed source's light there, and in sigma."""
    data, sigma, used, x, y, widening = _planes(result)
    near = used & (np.hypot(x - place[0], y - place[1]) < radius)
    (ny, nx), scale = data.shape, result.lensed_source.shape[0] // data.shape[0]
    source = result.lensed_source.data.reshape(ny, scale, nx, scale).sum((1, 3))
    left = data[near].sum()
    error = widening * np.sqrt((sigma[near] ** 2).sum())
    return float(left / source[near].sum()), float(left / error)


def registered(lens, first, second):
    """The lens of one result where the image of another has it, by the light of the galaxy in both."""
    shift = np.subtract(light_centre(second), light_centre(first))
    moved = lens.with_vector(lens.vector)
    for name, distance in zip(("x_0", "y_0"), shift, strict=True):
        parameter = getattr(moved[0], name)
        parameter.value = float(parameter.value) + float(distance)
    return moved


def offsets(first, second):
    """Differences between the lenses of two results over their combined errors.

    Centres are taken relative to the galaxy's light, since the two images are not registered to a pixel.
    """
    found = {}
    centres = [dict(zip(("x_0", "y_0"), light_centre(result), strict=True)) for result in (first, second)]
    for place, names in ((0, ("theta_E", "e1", "e2", "x_0", "y_0")), (1, ("gamma1", "gamma2"))):
        for name in names:
            pair = [getattr(result.lens[place], name) for result in (first, second)]
            values = [float(p.value) - centre.get(name, 0.0) for p, centre in zip(pair, centres, strict=True)]
            errors = [float(getattr(p.std, "value", p.std)) for p in pair]
            found[name] = (*values, float((values[1] - values[0]) / np.hypot(*errors)))
    return found


def binned(path, rng):
    """An image of half the resolution with independent noise of twice its error, and what it was made from.

    Returns
    -------
    image : `~astropy.io.fits.HDUList`
        SCI and ERR.
    psf : `~lenssr.imaging.PSF`
        The PSF at the original sampling, two samples along a binned pixel.
    data, error : `~numpy.ndarray`
        The original.
    """
    with fits.open(path) as hdus:
        data, error, psf = (hdus[name].data.astype(float) for name in ("SCI", "ERR", "PSF"))
        header = hdus["SCI"].header
    unit = {"BUNIT": header["BUNIT"]}
    side = data.shape[0] // 2
    low = data.reshape(side, 2, side, 2).sum((1, 3))
    variance = (error**2).reshape(side, 2, side, 2).sum((1, 3))
    low = low + 2 * np.sqrt(variance) * rng.standard_normal(low.shape)
    planes = [fits.PrimaryHDU(), fits.ImageHDU(low, fits.Header(unit), "SCI")]
    planes.append(fits.ImageHDU(np.sqrt(5 * variance), name="ERR"))
    return fits.HDUList(planes), PSF(psf, oversampling=2), data, error


def bicubic(image, factor=2):
    """Bicubic interpolation that keeps the sum."""
    tensor = torch.as_tensor(image)[None, None]
    fine = torch.nn.functional.interpolate(tensor, scale_factor=factor, mode="bicubic", align_corners=False)
    return fine[0, 0].numpy() / factor**2


def smoothed_bicubic(image, score, widths=None):
    """The best score of bicubic interpolation after Gaussian smoothing, before or after, and its width."""
    widths = np.arange(0, 3.01, 0.1) if widths is None else widths
    fine = bicubic(image)
    scores = [score(ndimage.gaussian_filter(fine, width)) for width in widths]
    best = int(np.argmin(scores))
    return scores[best], float(widths[best])


def common_psf(image, kernel, fwhm, scale):
    """An image behind a known PSF brought to a Gaussian PSF, with noise kept in check (Wiener).

    Parameters
    ----------
    image, kernel : `~numpy.ndarray`
        On one pixel scale.
    fwhm : `~astropy.units.Quantity`
        Wider than the PSF.
    scale : float
        Pixel scale in arcsec.
    """
    frequency = np.meshgrid(*(np.fft.fftfreq(side, scale) for side in image.shape), indexing="ij")
    sigma = fwhm.to_value(u.arcsec) / FWHM
    target = np.exp(-2 * (np.pi * sigma) ** 2 * (frequency[0] ** 2 + frequency[1] ** 2))
    padded = np.zeros(image.shape)
    ny, nx = kernel.shape
    padded[:ny, :nx] = kernel
    own = np.fft.fft2(np.roll(padded, (-(ny // 2), -(nx // 2)), (0, 1)))
    ratio = target * own.conj() / (np.abs(own) ** 2 + 1e-4)
    return np.fft.ifft2(np.fft.fft2(image) * ratio).real
