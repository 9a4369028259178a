"""The peers of `sersic.py`, each as its own documentation uses it: a function from a sample to fits.

Every function takes a `Sample`, the starts (a table with x, y, r_eff, n, ellip, theta, flux, and
segmentation maps) and yields for every galaxy a dictionary with x, y, r_eff, n and ellip, or the exception
that kept it from that. A package is imported when its function is called.
"""

import contextlib
import os
import tempfile
import warnings

import numpy as np
from astropy.modeling.fitting import TRFLSQFitter
from astropy.modeling.models import Sersic2D
from scipy.special import gamma, gammaincinv
from sersic_sample import psf_kernel

__all__ = ["astropy_trf", "astrophot_batch", "astrophot_lm", "brightness", "pysersic_map", "statmorph_fit"]

BOUNDS = {"n": (0.3, 8.0), "ellip": (0.0, 0.95), "r_eff": (0.3, 60.0)}


def brightness(start):
    """Surface brightness at r_eff of a Sérsic of known flux."""
    n, b = start["n"], gammaincinv(2 * start["n"], 0.5)
    area = 2 * np.pi * (1 - start["ellip"]) * start["r_eff"] ** 2
    return start["flux"] / (area * n * np.exp(b) * b ** (-2 * n) * gamma(2 * n))


def each(fit, *columns):
    """Fits of galaxies one by one; an exception stands in for the fit that it ended."""
    for row in zip(*columns, strict=True):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield fit(*row)
        except Exception as error:  # noqa: BLE001 - whatever ends a fit is counted, and shown
            yield error


def astropy_trf(sample, starts):
    """The Sersic2D of astropy at pixel centres: its fitters know no PSF."""
    y, x = np.mgrid[: sample.images.shape[1], : sample.images.shape[2]]

    def fit(image, sigma, start):
        values = {name: start[name] for name in ("r_eff", "n", "ellip", "theta")}
        model = Sersic2D(brightness(start), x_0=start["x"], y_0=start["y"], bounds=BOUNDS, **values)
        found = TRFLSQFitter()(model, x, y, image, weights=np.full(image.shape, 1 / sigma))
        values = {name: getattr(found, name).value for name in ("r_eff", "n", "ellip")}
        return {"x": found.x_0.value, "y": found.y_0.value, **values}

    return each(fit, sample.images, sample.sigma, starts)


def statmorph_fit(sample, starts):
    """Statmorph, morphology and all; it samples at pixel centres, so its PSF has the pixel in it."""
    import statmorph

    kernel = psf_kernel(pixel=True)

    def fit(image, sigma, start):
        weights = np.full(image.shape, sigma)
        (found,) = statmorph.source_morphology(image, start["segment"], weightmap=weights, psf=kernel)
        if found.flag_sersic:
            raise RuntimeError(f"flag_sersic = {found.flag_sersic}")
        names = {"x": "xc", "y": "yc", "r_eff": "rhalf", "n": "n", "ellip": "ellip"}
        values = {name: float(found[f"sersic_{theirs}"]) for name, theirs in names.items()}
        return {**values, "seconds": found.sersic_runtime}

    return each(fit, sample.images, sample.sigma, starts)


def _astrophot():
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        warnings.simplefilter("ignore")
        import astrophot  # opens AstroPhot.log where it is imported

    astrophot.config.set_logging_output(stdout=False, filename=None)
    return astrophot


def _astrophot_target(peer, image, sigma, number=0):
    psf = peer.PSFImage(data=psf_kernel())
    variance = np.full(image.shape, sigma**2)
    return peer.TargetImage(name=f"image{number}", data=image, pixelscale=1.0, variance=variance, psf=psf)


def _astrophot_start(start):
    return {
        "center": (start["x"], start["y"]),
        "q": 1 - start["ellip"],
        "PA": (start["theta"] - np.pi / 2) % np.pi,
        "n": start["n"],
        "Re": start["r_eff"],
        "Ie": brightness(start),
    }


def _astrophot_found(model):
    names = ("center", "Re", "n", "q")
    center, radius, n, q = (np.atleast_1d(getattr(model, name).value.detach().numpy()) for name in names)
    rows = np.column_stack([center.reshape(-1, 2), radius, n, 1 - q]).tolist()
    return [dict(zip(("x", "y", "r_eff", "n", "ellip"), row, strict=True)) for row in rows]


def astrophot_lm(sample, starts):
    """AstroPhot with its defaults: Simpson's rule, the brightest pixels refined, Levenberg-Marquardt."""
    peer = _astrophot()

    def fit(image, sigma, start):
        target = _astrophot_target(peer, image, sigma)
        model = peer.Model(model_type="sersic galaxy model", target=target, **_astrophot_start(start))
        model.initialize()
        done = peer.fit.LM(model, verbose=0).fit()
        if done.message.startswith("fail"):
            raise RuntimeError(done.message)
        return _astrophot_found(model)[0]

    return each(fit, sample.images, sample.sigma, starts)


def astrophot_batch(sample, starts):
    """AstroPhot's fit of one model to all images at a time."""
    peer = _astrophot()
    numbers = range(len(sample))
    targets = [
        _astrophot_target(peer, *row) for row in zip(sample.images, sample.sigma, numbers, strict=True)
    ]
    batch = peer.TargetImageBatch(targets)
    values = [_astrophot_start(start) for start in starts]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = peer.Model(model_type="sersic galaxy model", target=targets[0], **values[0])
        model.initialize()
        for name in values[0]:
            setattr(model, name, tuple(value[name] for value in values))
        peer.fit.BatchLM(model, batch, batch.window, verbose=0).fit()
    return _astrophot_found(model)


def pysersic_map(sample, starts):
    """Pysersic with its own priors; its rendering in Fourier space wants the PSF with the pixel in it."""
    from jax.random import PRNGKey
    from pysersic import FitSingle
    from pysersic.loss import gaussian_loss
    from pysersic.priors import SourceProperties

    kernel = psf_kernel(pixel=True)

    def fit(image, sigma, key):
        prior = SourceProperties(image).generate_prior("sersic", sky_type="none")
        rms = np.full(image.shape, sigma)
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):  # its progress bars
            fitter = FitSingle(data=image, rms=rms, psf=kernel, prior=prior, loss_func=gaussian_loss)
            found = fitter.find_MAP(rkey=PRNGKey(key))
        names = {"x": "xc", "y": "yc", "r_eff": "r_eff", "n": "n", "ellip": "ellip"}
        return {name: float(found[theirs]) for name, theirs in names.items()}

    return each(fit, sample.images, sample.sigma, range(len(sample)))
