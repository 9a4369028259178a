"""Files as 26 archives write them, with one lens in them whose numbers are known; `archives.py` reads them.

Headers have the cards by which lenssr knows a layout, in the archive's own style. Each maker writes its files
into a folder and says what has to come out.
"""

from dataclasses import dataclass, field

import astropy.units as u
import numpy as np
from astropy.io import fits
from astropy.nddata import CCDData, StdDevUncertainty
from astropy.wcs import WCS

from lenssr import PSF, SIE, PixelGrid, Sersic, Shear, render

__all__ = ["LAYOUTS", "Layout", "Made"]

RA, DEC = 150.1, 2.2


@dataclass
class Made:
    """Files of a layout, options of the command for them, and the true values."""

    path: str
    options: list[str] = field(default_factory=list)
    flux: float = 0.0  # of the lensed image, in the unit of the file
    theta_E: float = 0.0  # arcsec
    scale: float = 0.0  # arcsec
    unit: u.UnitBase | None = None
    zero_point: float | None = None
    sigma: float | None = None  # of a pixel of the sky; None where nothing in the file says it
    hidden: int = 0  # pixels
    flags: tuple[str, ...] = ()  # guesses that have to be said
    refused: str | None = None  # words of the refusal


@dataclass
class Layout:
    """One layout: its name here, the reader that has to know it, and what makes its files."""

    name: str
    title: str
    reader: str
    make: object


LAYOUTS: dict[str, Layout] = {}


def layout(name, title, reader="standard names"):
    """Register the maker of a layout."""

    def register(make):
        LAYOUTS[name] = Layout(name, title, reader, make)
        return make

    return register


# ---------------------------------------------------------------- the lens


def scene(n, scale, fwhm, flux, peak=60.0, kernel=None, seed=1):
    """Data, their noise-free part, sigma, and the Einstein radius, which is the same share of any frame."""
    radius = 0.34 * n * scale * 0.9
    lens = SIE(theta_E=radius, e1=0.1, e2=-0.05) + Shear(gamma1=0.03, gamma2=0.02)
    source = Sersic(
        amplitude=1, r_eff=0.16 * radius, n=1, x_0=0.06 * radius, y_0=0.1 * radius, e1=0.1, e2=0.1
    )
    psf = PSF.from_fwhm(fwhm * u.arcsec) if kernel is None else PSF(kernel, includes_pixel=True)
    clean = render(PixelGrid((n, n), scale * u.arcsec), lens=lens, source=source, psf=psf)
    clean *= flux / clean.sum()
    sigma = clean.max() / peak
    return clean + np.random.default_rng(seed).normal(0, sigma, clean.shape), clean, sigma, radius


def tan(n, scale, angle=0.0, **more):
    """Cards of a plain tangent projection, with CD."""
    cos, sin = np.cos(np.radians(angle)) * scale / 3600, np.sin(np.radians(angle)) * scale / 3600
    cards = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": RA, "CRVAL2": DEC}
    cards |= {"CRPIX1": (n + 1) / 2, "CRPIX2": (n + 1) / 2}
    cards |= {"CD1_1": -cos, "CD1_2": sin, "CD2_1": sin, "CD2_2": cos, "RADESYS": "ICRS"}
    return cards | more


def header(*cards, history=()):
    new = fits.Header()
    for key, value in {k: v for one in cards for k, v in one.items()}.items():
        new[key] = value
    for line in history:
        new["HISTORY"] = line
    return new


def image(data, *cards, name=None, ver=None, dtype="f4", history=()):
    return fits.ImageHDU(np.asarray(data, dtype), header(*cards, history=history), name=name, ver=ver)


def save(folder, name, *hdus):
    """Write HDUs behind an empty first one; a first header or image takes its place."""
    first = hdus[0]
    if isinstance(first, fits.Header):
        hdus = (fits.PrimaryHDU(header=first), *hdus[1:])
    elif isinstance(first, fits.ImageHDU) or isinstance(first, fits.CompImageHDU):
        hdus = (fits.PrimaryHDU(), *hdus)
    path = str(folder / name)
    fits.HDUList(list(hdus)).writeto(path, overwrite=True)
    return path


def primary(data, *cards, dtype="f4", history=()):
    return fits.PrimaryHDU(np.asarray(data, dtype), header(*cards, history=history))


def gaussian(fwhm, samples, side):
    """A Gaussian of a FWHM in pixels, with some samples a pixel."""
    x = (np.arange(side) - (side - 1) / 2) / samples
    line = np.exp(-4 * np.log(2) * (x / fwhm) ** 2)
    return np.outer(line, line)


def ab(flam, plam):
    """AB zero point of PHOTFLAM and PHOTPLAM, by the formula of the ACS Data Handbook."""
    return -2.5 * np.log10(flam) - 5 * np.log10(plam) - 2.408


# ---------------------------------------------------------------- space

HST = {"TELESCOP": "HST", "INSTRUME": "ACS", "DETECTOR": "WFC", "FILTER1": "CLEAR1L", "FILTER2": "F814W"}
HST_TIME = 2028.0
SENSITIVITY = {"PHOTFLAM": 7.04e-20, "PHOTPLAM": 8045.5}


def drizzled(folder, name, weight, history=()):
    n, scale = 64, 0.05
    data, clean, sigma, radius = scene(n, scale, 0.1, 60.0, peak=40)
    factor = np.sqrt(0.055 * HST_TIME + 64.0) / HST_TIME / sigma  # sky of 0.055 e/s, four reads of 4 e
    data, clean, sigma = data * factor, clean * factor, sigma * factor
    wht = np.full(data.shape, HST_TIME if weight == "EXP" else sigma**-2)
    wht[:, :3], data[:, :3] = 0, 0
    first = header(HST, {"TARGNAME": "LENS", "EXPTIME": HST_TIME, "NDRIZIM": 4, "DATE-OBS": "2004-01-01"},
                   history=history)  # fmt: skip
    sky = tan(n, scale, 32.0)
    planes = [image(data, sky, SENSITIVITY, {"BUNIT": "ELECTRONS/S", "NCOMBINE": 4}, name="SCI")]
    planes += [image(wht, sky, name="WHT"), image(np.ones((n, n)), name="CTX", dtype="i4")]
    told = {"flux": clean.sum(), "theta_E": radius, "scale": scale, "unit": u.electron / u.s}
    told |= {"zero_point": ab(7.04e-20, 8045.5), "hidden": 3 * n}
    return Made(save(folder, name, first, *planes), ["--psf-fwhm", "0.1arcsec"], sigma=sigma, **told)


@layout("hst-drz-exp", "HST drz, WHT an exposure time", "hst-drizzled")
def hst_exp(folder):
    made = drizzled(folder, "lens_drz.fits", "EXP")
    made.flags = ("noise_from_exposure",)
    return made


@layout("hst-drc-ivm", "HST drc, WHT by its history", "hst-drizzled")
def hst_ivm(folder):
    return drizzled(folder, "lens_drc.fits", "IVM", ["AstroDrizzle: final_wht_type = IVM"])


@layout("hst-flc", "HST flc: two chips, SIP, DQ", "hst-exposure")
def hst_flc(folder):
    n, scale = 64, 0.05
    data, clean, sigma, radius = scene(n, scale, 0.1, 9e5, peak=60)
    sip = {"CTYPE1": "RA---TAN-SIP", "CTYPE2": "DEC--TAN-SIP", "A_ORDER": 2, "B_ORDER": 2}
    sip |= {"A_2_0": 2e-6, "B_0_2": 1.5e-6, "A_1_1": -1e-6}
    quality, rng = np.zeros((n, n), "i2"), np.random.default_rng(2)
    quality[clean > 5 * sigma] |= 64  # warm pixels were corrected
    hits = rng.integers(0, n, (12, 2))
    data[tuple(hits.T)] += 400 * sigma
    quality[tuple(hits.T)] |= 4096
    planes = []
    for chip in (1, 2):
        cards = header(tan(n, scale, 10.0), sip, SENSITIVITY, {"BUNIT": "ELECTRONS", "NCOMBINE": 1})
        planes.append(fits.ImageHDU((data * chip).astype("f4"), cards, name="SCI", ver=chip))
        planes.append(fits.ImageHDU(np.full((n, n), sigma * chip, "f4"), name="ERR", ver=chip))
        planes.append(fits.ImageHDU(quality, name="DQ", ver=chip))
    path = save(folder, "lens_flc.fits", header(HST, {"EXPTIME": 507.0}), *planes)
    zero = ab(7.04e-20, 8045.5) + 2.5 * np.log10(507.0)
    options = ["--sci", "SCI,2", "--psf-fwhm", "0.1arcsec"]
    told = {
        "flux": 2 * clean.sum(),
        "theta_E": radius,
        "scale": scale,
        "unit": u.electron,
        "zero_point": zero,
    }
    hidden = int((quality & 4096 != 0).sum())
    return Made(path, options, sigma=2 * sigma, hidden=hidden, flags=("single_exposure",), **told)


@layout("dja", "DAWN JWST Archive cutout: a SCI and a WHT of each filter", "dja")
def dja(folder):
    n, scale = 64, 0.05
    data, clean, sigma, radius = scene(n, scale, 0.12, 100.0)
    planes = []
    for number, name in ((1, "F115W"), (2, "F444W")):
        cards = tan(n, scale, 0, BUNIT="10.0*nanoJansky", FILTER=name, TELESCOP="JWST", PHOTFNU=1e-8)
        planes.append(image(number * data, cards, name="SCI", ver=number))
        planes.append(image(np.full(data.shape, (number * sigma) ** -2), {"FILTER": name}, name="WHT"))
    options = ["--band", "F444W", "--psf-fwhm", "0.12arcsec"]
    told = {"unit": 10 * u.nJy, "zero_point": 31.4 - 2.5, "sigma": 2 * sigma}
    return Made(save(folder, "dja.fits", *planes), options, 2 * clean.sum(), radius, scale, **told)


JWST = {"TELESCOP": "JWST", "INSTRUME": "NIRCAM", "FILTER": "F200W", "PUPIL": "CLEAR"}


def jwst_zero():
    """AB magnitude of 1 MJy/sr over one arcsec2."""
    return -2.5 * np.log10((1 * u.MJy / u.sr * u.arcsec**2).to_value(u.Jy) / 3631)


@layout("jwst-i2d", "JWST i2d, PSF of STPSF", "jwst")
def jwst_i2d(folder):
    n, scale, fwhm = 64, 0.031, 0.075
    data, clean, sigma, radius = scene(n, scale, fwhm, 500.0)
    data[:4], error = np.nan, np.full(data.shape, sigma)
    error[:4] = np.nan
    sky = tan(n, scale, 20.0, BUNIT="MJy/sr", PIXAR_SR=(scale / 206265) ** 2)
    weights = {name: image(np.full((n, n), 1000.0), name=name) for name in ("WHT", "VAR_POISSON", "CON")}
    planes = [image(data, sky, name="SCI"), image(error, {"BUNIT": "MJy/sr"}, name="ERR"), *weights.values()]
    path = save(folder, "lens_i2d.fits", header(JWST, {"EFFEXPTM": 1000.0}), *planes)
    over = {"PIXELSCL": scale / 4, "OVERSAMP": 4, "DET_SAMP": 4}
    native = {"PIXELSCL": scale, "OVERSAMP": 4, "DET_SAMP": 1}
    wrong, right = gaussian(4 * fwhm / scale, 4, 121), gaussian(fwhm / scale, 4, 121)
    psf = [primary(wrong, over), image(wrong[::4, ::4], native, name="DET_SAMP")]
    psf += [image(right, over, name="OVERDIST"), image(right[::4, ::4], native, name="DET_DIST")]
    options = ["--psf-file", save(folder, "psf.fits", *psf)]
    told = {"unit": u.MJy / u.sr, "zero_point": jwst_zero(), "sigma": sigma, "hidden": 4 * n}
    return Made(path, options, clean.sum(), radius, scale, flags=("errors_missing",), **told)


@layout("jwst-cal", "JWST cal: DQ, jumps on the lens", "jwst")
def jwst_cal(folder):
    n, scale = 64, 0.031
    data, clean, sigma, radius = scene(n, scale, 0.075, 500.0)
    quality = np.where(clean > 3 * sigma, 4, 0).astype("u4")
    quality[5:7, 5:9] |= 1
    data[5:7, 5:9] = 1e6
    sky = tan(n, scale, 20.0, BUNIT="MJy/sr", CTYPE1="RA---TAN-SIP", CTYPE2="DEC--TAN-SIP")
    sky |= {"A_ORDER": 2, "B_ORDER": 2, "A_2_0": 1e-6, "B_0_2": 1e-6}
    planes = [image(data, sky, name="SCI"), image(np.full((n, n), sigma), name="ERR")]
    planes += [image(quality, name="DQ", dtype="u4")]
    path = save(folder, "lens_cal.fits", header(JWST, {"EFFEXPTM": 100.0}), *planes)
    told = {"unit": u.MJy / u.sr, "zero_point": jwst_zero(), "sigma": sigma, "hidden": 8}
    options = ["--psf-fwhm", "0.075arcsec"]
    return Made(path, options, clean.sum(), radius, scale, flags=("single_exposure",), **told)


@layout("euclid-mer", "Euclid MER mosaic: RMS and flags in files of their own, cut by place", "euclid")
def euclid_mer(folder):
    n, scale, full = 64, 0.1, 400
    data, clean, sigma, radius = scene(n, scale, 0.2, 2000.0)
    mosaic = np.random.default_rng(3).normal(0, sigma, (full, full))
    corner = 200
    mosaic[corner : corner + n, corner : corner + n] = data
    flags = np.zeros((full, full), "i4")
    flags[corner + 3, corner + 4] = 1 << 3
    flags[corner : corner + n, corner : corner + n] |= 1 << 24  # it overlaps an object: no defect
    sky = tan(full, scale, 0, TELESCOP="Euclid", INSTRUME="VIS", FILTER="VIS", MAGZERO=23.9)
    sky |= {"CRPIX1": corner + (n + 1) / 2, "CRPIX2": corner + (n + 1) / 2}
    path = save(folder, "mer.fits", primary(mosaic, sky))
    options = ["--err-file", save(folder, "mer_rms.fits", primary(np.full((full, full), sigma), sky))]
    options += ["--mask-file", save(folder, "mer_flag.fits", primary(flags, sky, dtype="i4"))]
    options += ["--centre", f"{RA} {DEC}", "--size", f"{n * scale}arcsec", "--psf-fwhm", "0.2arcsec"]
    told = {"unit": u.dimensionless_unscaled, "zero_point": 23.9, "sigma": sigma, "hidden": 1}
    return Made(path, options, clean.sum(), radius, scale, **told)


@layout("euclid-q1", "Euclid Q1 lens cutout: bands by names of HDUs")
def euclid_q1(folder):
    n, scale, fwhm = 64, 0.1, 0.2
    data, clean, sigma, radius = scene(n, scale, fwhm, 2000.0)
    planes = []
    for band, factor in (("DES_G", 2.0), ("VIS", 1.0), ("NIR_Y", 3.0)):
        cards = tan(n, scale, 0, MAGZERO=24.6 if band == "VIS" else 30.0, CDELT1=1.0, CDELT2=1.0)
        planes.append(image(factor * data, cards, name=f"{band}_BGSUB"))
        planes.append(image(gaussian(fwhm / scale, 1, 21), name=f"{band}_PSF", dtype="f8"))
        planes.append(image(np.full(data.shape, factor * sigma), name=f"{band}_RMS"))
    told = {"unit": u.dimensionless_unscaled, "zero_point": 24.6, "sigma": sigma}
    return Made(save(folder, "q1.fits", *planes), ["--band", "VIS"], clean.sum(), radius, scale, **told)


# ---------------------------------------------------------------- surveys from the ground

AFW = "BAD SAT INTRP CR EDGE DETECTED DETECTED_NEGATIVE SUSPECT NO_DATA".split()


def afw(folder, name, first, **science):
    n, scale = 60, 0.2
    data, clean, sigma, radius = scene(n, scale, 0.7, 1e4)
    mask = np.where(clean > 3 * sigma, 1 << AFW.index("DETECTED"), 0).astype("i4")
    mask[3:5, 10:14] |= 1
    bits = {f"HIERARCH MP_{one}": bit for bit, one in enumerate(AFW)}
    sky = tan(n, scale)
    planes = [image(data, sky, science, {"EXTTYPE": "IMAGE"}, name="IMAGE")]
    planes += [image(mask, sky, bits, {"EXTTYPE": "MASK"}, name="MASK", dtype="i4")]
    planes += [image(np.full((n, n), sigma**2), sky, {"EXTTYPE": "VARIANCE"}, name="VARIANCE")]
    planes += [fits.BinTableHDU.from_columns([fits.Column("id", "J", array=[1])], name="ARCHIVE_INDEX")]
    path = save(folder, name, header(first), *planes)
    options = ["--psf-fwhm", "0.7arcsec"]
    return Made(path, options, clean.sum(), radius, scale, sigma=sigma, hidden=8)


@layout("rubin", "Rubin DP1 coadd: nJy, MASK by its MP_ names", "rubin")
def rubin(folder):
    made = afw(folder, "rubin.fits", {}, BUNIT="nJy")
    made.unit, made.zero_point = u.nJy, 31.4
    return made


@layout("hsc", "HSC PDR3 coadd: FLUXMAG0", "rubin")
def hsc(folder):
    made = afw(folder, "hsc.fits", {"FLUXMAG0": 63095734448.0194})
    made.unit, made.zero_point = u.dimensionless_unscaled, 27.0
    return made


@layout("des", "DES coadd: SCI, MSK, WGT, tile-compressed", "des")
def des(folder):
    n, scale = 60, 0.263
    data, clean, sigma, radius = scene(n, scale, 0.9, 3000.0)
    mask = np.where(clean > 5 * sigma, 32, 0).astype("i4")
    mask[7, 7:10] |= 2
    sky = header(tan(n, scale, 0, MAGZERO=30.0, FILTER="i DECam SDSS c0003", TELESCOP="CTIO 4.0-m"))
    compressed = {"compression_type": "GZIP_2", "quantize_level": 0}
    planes = [fits.CompImageHDU(data.astype("f4"), sky, name="SCI", **compressed)]
    planes += [fits.CompImageHDU(mask, name="MSK", compression_type="RICE_1")]
    planes += [fits.CompImageHDU(np.full((n, n), sigma**-2, "f4"), name="WGT", **compressed)]
    told = {"unit": u.dimensionless_unscaled, "zero_point": 30.0, "sigma": sigma, "hidden": 3}
    options = ["--psf-fwhm", "0.9arcsec"]
    return Made(save(folder, "des.fits.fz", *planes), options, clean.sum(), radius, scale, **told)


@layout("legacy-cube", "Legacy Surveys cutout: cubes of bands and of inverse variances", "legacy-surveys")
def legacy_cube(folder):
    n, scale = 60, 0.262
    data, clean, sigma, radius = scene(n, scale, 1.0, 100.0)
    sky = tan(n, scale, 0, SURVEY="LegacySurvey", VERSION="DR9", IMAGETYP="image", BANDS="grz", BAND0="g",
              BAND1="r", BAND2="z")  # fmt: skip
    cube = np.stack([data, 2 * data, 3 * data])
    weights = np.stack([np.full(data.shape, (k * sigma) ** -2) for k in (1, 2, 3)])
    path = save(folder, "cutout_grz.fits", primary(cube, sky), image(weights, sky))
    told = {"unit": u.Unit("nmgy"), "zero_point": 22.5, "sigma": 2 * sigma}
    options = ["--band", "r", "--psf-fwhm", "1arcsec"]
    return Made(path, options, 2 * clean.sum(), radius, scale, **told)


@layout("legacy-brick", "Legacy Surveys brick: image and invvar, tile-compressed", "legacy-surveys")
def legacy_brick(folder):
    n, scale = 60, 0.262
    data, clean, sigma, radius = scene(n, scale, 1.0, 100.0)
    sky = header(tan(n, scale, 0, BRICK="1501p022", FILTER="r", IMTYPE="image", SURVEY="LegacySurvey DR10"))
    kept = {"compression_type": "GZIP_2", "quantize_level": 0}
    path = save(folder, "image-r.fits.fz", fits.CompImageHDU(data.astype("f4"), sky, **kept))
    weights = fits.CompImageHDU(np.full((n, n), sigma**-2, "f4"), sky, **kept)
    options = ["--wht-file", save(folder, "invvar-r.fits.fz", weights), "--psf-fwhm", "1arcsec"]
    told = {"unit": u.Unit("nmgy"), "zero_point": 22.5, "sigma": sigma}
    return Made(path, options, clean.sum(), radius, scale, **told)


@layout("kids", "KiDS coadd and its weight", "kids")
def kids(folder):
    n, scale = 60, 0.2
    data, clean, sigma, radius = scene(n, scale, 0.7, 1e-7)
    sky = tan(n, scale, 0, INSTRUME="OMEGACAM", OBJECT="KIDS_150.1_2.2", FILTER="OCAM_r_SDSS", EXPTIME=1800.0)
    path = save(folder, "kids.fits", primary(data, sky, dtype="f8"))
    weight = save(folder, "kids.weight.fits", primary(np.full((n, n), sigma**-2), sky, dtype="f8"))
    options = ["--wht-file", weight, "--psf-fwhm", "0.7arcsec"]
    told = {"unit": u.dimensionless_unscaled, "zero_point": 0.0, "sigma": sigma}
    return Made(path, options, clean.sum(), radius, scale, **told)


@layout("cfht", "CFHT MegaPipe stack, relative weights, PSF of PSFEx", "cfht")
def cfht(folder):
    n, scale, fwhm = 60, 0.186, 0.65
    data, clean, sigma, radius = scene(n, scale, fwhm, 3000.0, kernel=gaussian(fwhm / scale, 1, 25))
    sky = tan(
        n, scale, 0, TELESCOP="CFHT 3.6m", INSTRUME="MegaPrime", FILTER="r.MP9601", PHOTZP=30.0, GAIN=4000.0
    )
    path = save(folder, "cfht.fits", primary(data, sky))
    weight = save(folder, "cfht.weight.fits", primary(np.full((n, n), 7.0), sky))
    samples = 1 / 0.7
    mask = gaussian(fwhm / scale, samples, 35)[None, None]
    column = fits.Column("PSF_MASK", f"{mask.size}E", dim=str(mask.shape[::-1][:3]), array=mask)
    table = fits.BinTableHDU.from_columns([column], name="PSF_DATA")
    table.header.update(
        {"POLNAXIS": 0, "PSF_SAMP": 0.7, "PSFNAXIS": 3, "PSFAXIS1": 35, "PSFAXIS2": 35, "PSFAXIS3": 1}
    )
    options = ["--wht-file", weight, "--psf-file", save(folder, "cfht.psf", fits.PrimaryHDU(), table)]
    told = {"unit": u.adu, "zero_point": 30.0, "sigma": sigma, "flags": ("weight_guessed",)}
    return Made(path, options, clean.sum(), radius, scale, **told)


@layout("pan-starrs", "Pan-STARRS stack: asinh, variances and mask in files of their own", "pan-starrs")
def panstarrs(folder):
    n, scale = 60, 0.25
    data, clean, sigma, radius = scene(n, scale, 1.1, 3e4)
    soften, offset = 100.0, 3.0
    stored = 2.5 / np.log(10) * np.arcsinh((data - offset) / (2 * soften))
    sky = tan(n, scale, 0, TELESCOP="PS1", INSTRUME="GPC1", EXPTIME=900.0)
    asinh = {"BSOFTEN": soften, "BOFFSET": offset, "HIERARCH FPA.FILTERID": "i.00000"}
    path = save(folder, "ps1.fits", primary(stored, sky, asinh))
    variance = save(folder, "ps1.wt.fits", primary(np.full((n, n), sigma**2), sky))
    mask = np.where(clean > 5 * sigma, 64, 0).astype("i4")
    mask[2, 2:6] |= 1
    names = {"MSKNAM00": "DETECTOR", "MSKVAL00": 1, "MSKNAM01": "SUSPECTED", "MSKVAL01": 64}
    hidden = save(folder, "ps1.mask.fits", primary(mask, sky, names, dtype="i4"))
    options = ["--wht-file", variance, "--mask-file", hidden, "--psf-fwhm", "1.1arcsec"]
    told = {"unit": u.adu, "zero_point": 25 + 2.5 * np.log10(900.0), "sigma": sigma, "hidden": 4}
    return Made(path, options, clean.sum(), radius, scale, **told)


@layout("sdss", "SDSS frame: nanomaggies", "sdss")
def sdss(folder):
    n, scale = 60, 0.396
    data, clean, sigma, radius = scene(n, scale, 1.3, 100.0)
    cards = tan(n, scale, 0, BUNIT="nanomaggy", NMGYPER=0.005, RUN=3900, RERUN="301", CAMCOL=6, FILTER="r",
                TELESCOP="2.5m", EXPTIME="53.907456")  # fmt: skip
    calibration = fits.ImageHDU(np.full(n, 0.005, "f4"))
    sky_table = fits.BinTableHDU.from_columns([fits.Column("ALLSKY", "4E", array=np.zeros((1, 4)))])
    path = save(folder, "frame-r.fits", primary(data, cards), calibration, sky_table)
    told = {"unit": u.Unit("nmgy"), "zero_point": 22.5, "flags": ("noise_guessed",)}
    return Made(path, ["--psf-fwhm", "1.3arcsec"], clean.sum(), radius, scale, **told)


@layout("decam", "DECam Community Pipeline: TPV, ood and oow", "decam")
def decam(folder):
    n, scale = 60, 0.263
    data, clean, sigma, radius = scene(n, scale, 0.9, 3e4)
    cards = tan(n, scale, 0, INSTRUME="DECam", TELESCOP="CTIO 4.0-m telescope", FILTER="i DECam",
                EXPTIME=90.0, GAIN=4.0, MAGZERO=29.5, CTYPE1="RA---TPV", CTYPE2="DEC--TPV")  # fmt: skip
    cards |= {"PV1_0": 0.0, "PV1_1": 1.0, "PV1_4": 0.3, "PV2_0": 0.0, "PV2_1": 1.0, "PV2_4": 0.2}
    codes = np.zeros((n, n), "i2")
    hits = np.random.default_rng(4).integers(0, n, (9, 2))
    data[tuple(hits.T)] += 300 * sigma
    codes[tuple(hits.T)] = 5
    codes[0, :5] = 1
    path = save(folder, "c4d_ooi_i.fits", primary(data, cards))
    options = ["--mask-file", save(folder, "c4d_ood_i.fits", primary(codes, cards, dtype="i2"))]
    options += ["--mask-bits", "any"]
    options += ["--wht-file", save(folder, "c4d_oow_i.fits", primary(np.full((n, n), sigma**-2), cards))]
    options += ["--psf-fwhm", "0.9arcsec"]
    told = {"unit": u.adu, "zero_point": 29.5, "sigma": sigma, "hidden": int((codes != 0).sum())}
    return Made(path, options, clean.sum(), radius, scale, flags=("single_exposure",), **told)


@layout("vista", "VISTA: ZPN, a Vega zero point that is not taken", "vega")
def vista(folder):
    n, scale = 60, 0.339
    data, clean, sigma, radius = scene(n, scale, 0.95, 3e4)
    cards = tan(n, scale, 0, INSTRUME="VIRCAM", TELESCOP="VISTA", FILTER="Ks", MAGZPT=23.0, GAIN=4.2)
    cards |= {"CTYPE1": "RA---ZPN", "CTYPE2": "DEC--ZPN", "PV2_1": 1.0, "PV2_3": 42.0}
    path = save(folder, "vista.fits", primary(data, cards))
    options = ["--wht-file", save(folder, "vista_conf.fits", primary(np.full((n, n), 100.0), cards))]
    told = {"unit": u.adu, "zero_point": None, "sigma": sigma, "flags": ("weight_guessed",)}
    return Made(path, [*options, "--psf-fwhm", "0.95arcsec"], clean.sum(), radius, scale, **told)


# ---------------------------------------------------------------- others


@layout("alma", "ALMA: axes of length 1, Jy/beam", "interferometer")
def alma(folder):
    n, scale, major, minor = 64, 0.03, 0.13, 0.10
    rows, columns = (np.mgrid[-12:13, -12:13]) * scale
    kernel = np.exp(-4 * np.log(2) * ((rows / major) ** 2 + (columns / minor) ** 2))
    data, clean, sigma, radius = scene(n, scale, 0.1, 1.0, kernel=kernel)
    cards = {
        "CTYPE1": "RA---SIN",
        "CRVAL1": RA,
        "CDELT1": -scale / 3600,
        "CRPIX1": (n + 1) / 2,
        "CUNIT1": "deg",
    }
    cards |= {"CTYPE2": "DEC--SIN", "CRVAL2": DEC, "CDELT2": scale / 3600, "CRPIX2": (n + 1) / 2}
    cards |= {
        "CTYPE3": "FREQ",
        "CRVAL3": 2.3e11,
        "CDELT3": 1e9,
        "CRPIX3": 1.0,
        "CUNIT3": "Hz",
        "CUNIT2": "deg",
    }
    cards |= {"CTYPE4": "STOKES", "CRVAL4": 1.0, "CDELT4": 1.0, "CRPIX4": 1.0, "BUNIT": "Jy/beam"}
    cards |= {"BMAJ": major / 3600, "BMIN": minor / 3600, "BPA": 0.0, "TELESCOP": "ALMA"}
    path = save(folder, "alma.fits", primary(data[None, None], cards))
    told = {"unit": u.Jy / u.beam, "flags": ("noise_guessed",)}
    return Made(path, [], clean.sum(), radius, scale, **told)


MUSE_UNIT = 1e-20 * u.erg / u.s / u.cm**2 / u.AA
MUSE = {"INSTRUME": "MUSE", "TELESCOP": "ESO-VLT-U4", "OBJECT": "lens"}
MUSE_BUNIT = "10**(-20)*erg/s/cm**2/Angstrom"


@layout("muse-image", "MUSE image: DATA, STAT", "muse")
def muse_image(folder):
    n, scale = 60, 0.2
    data, clean, sigma, radius = scene(n, scale, 0.7, 1e4)
    planes = [image(data, tan(n, scale), {"BUNIT": MUSE_BUNIT}, name="DATA")]
    planes += [image(np.full((n, n), sigma**2), {"BUNIT": f"({MUSE_BUNIT})**2"}, name="STAT")]
    path = save(folder, "muse.fits", header(MUSE), *planes)
    told = {"unit": MUSE_UNIT, "sigma": sigma}
    return Made(path, ["--psf-fwhm", "0.7arcsec"], clean.sum(), radius, scale, **told)


@layout("muse-cube", "MUSE cube without a choice: refused", "muse")
def muse_cube(folder):
    cards = tan(20, 0.2, 0, CTYPE3="AWAV", CRVAL3=4750.0, CD3_3=1.25, CRPIX3=1.0, CUNIT3="Angstrom")
    cube = image(np.zeros((5, 20, 20)), cards, {"BUNIT": MUSE_BUNIT}, name="DATA")
    path = save(folder, "muse_cube.fits", header(MUSE), cube)
    return Made(path, refused="a cube of 5 planes .*choose one by band=")


@layout("nirc2", "Keck NIRC2: DN, ITIME x COADDS", "nirc2")
def nirc2(folder):
    n, scale = 64, 0.01
    data, clean, sigma, radius = scene(n, scale, 0.05, 1e5, peak=60)
    cards = {"INSTRUME": "NIRC2", "TELESCOP": "Keck II", "FILTER": "Kp", "ITIME": 20.0, "COADDS": 3}
    path = save(folder, "nirc2.fits", primary(data, cards))
    options = ["--pixel-scale", "0.01arcsec", "--psf-fwhm", "0.05arcsec"]
    told = {"unit": u.DN, "flags": ("single_exposure", "noise_from_exposure")}
    return Made(path, options, clean.sum(), radius, scale, **told)


@layout("three-files", "PyAutoLens, lenstronomy: data, noise map and PSF in three files")
def three_files(folder):
    n, scale, fwhm = 64, 0.05, 0.11
    data, clean, sigma, radius = scene(n, scale, fwhm, 100.0)
    path = save(folder, "data.fits", primary(data, dtype="f8"))
    options = ["--err-file", save(folder, "noise_map.fits", primary(np.full((n, n), sigma), dtype="f8"))]
    options += ["--psf-file", save(folder, "psf.fits", primary(gaussian(fwhm / scale, 1, 21), dtype="f8"))]
    options += ["--pixel-scale", "0.05arcsec"]
    told = {"unit": u.dimensionless_unscaled, "sigma": sigma, "flags": ("unit_missing",)}
    return Made(path, options, clean.sum(), radius, scale, **told)


@layout("ccddata", "CCDData of astropy, written by itself")
def ccddata(folder):
    n, scale = 64, 0.05
    data, clean, sigma, radius = scene(n, scale, 0.11, 100.0)
    ccd = CCDData(data, unit="electron/s", wcs=WCS(header(tan(n, scale))))
    ccd.uncertainty, ccd.mask = StdDevUncertainty(np.full((n, n), sigma)), np.zeros((n, n), bool)
    ccd.mask[4:6, 4:6] = True
    ccd.write(folder / "ccd.fits")
    told = {"unit": u.electron / u.s, "sigma": sigma, "hidden": 4}
    return Made(str(folder / "ccd.fits"), ["--psf-fwhm", "0.11arcsec"], clean.sum(), radius, scale, **told)


@layout("mosaic", "A mosaic too large to fit, uncut: refused")
def mosaic(folder):
    n = 1100
    path = save(folder, "mosaic.fits", primary(np.zeros((n, n)), tan(n, 0.05, BUNIT="nJy")))
    return Made(path, refused="1100 x 1100 pixels, .*--centre .* --size")
