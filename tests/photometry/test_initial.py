"""Where fits begin: at what is given, else near the truth."""

import astropy.units as u
import numpy as np
import pytest
from astropy.table import QTable

from lenssr.imaging import PSF, Observation
from lenssr.photometry.fit_constraints import FitSettings
from lenssr.photometry.groups import make_tasks
from lenssr.photometry.parameters import MEASURED, measured
from lenssr.photometry.solve import Solver
from lenssr.photometry.sources import find_sources, initial_coordinates, psf_fwhm_in_pixels
from lenssr.photometry.task_batch import TaskBatch

SIGMA, SKY = 0.01, 0.5
TRUTH = {"r_eff": 4.0, "n": 2.0, "ellip": 0.4, "theta": 0.6}


def start(light, params, **options):
    """Initial values of a Sérsic by name, and the smooth coordinates (C,)."""
    data = light + np.random.default_rng(2).normal(SKY, SIGMA, light.shape)
    psf = PSF.from_fwhm(2.5 * u.arcsec)
    image = Observation.from_any(data, noise=SIGMA, psf=psf, pixel_scale=1.0)
    image.meta.update(sigma=image.sigma(), widening=1.0)
    settings = FitSettings(fit_shape=light.shape, **options)
    tasks, _ = make_tasks([image], find_sources(params, image), light.shape, None)
    batch = TaskBatch(tasks, settings, Solver(settings).operator)
    coordinates, layout = initial_coordinates(batch)[0].numpy(), batch.layout
    values, _ = measured(coordinates[layout.profiles[0, 0, 0]])
    return dict(zip(MEASURED, values, strict=True)), coordinates, layout


def test_a_fit_begins_near_the_truth(drawn):
    values, coordinates, layout = start(drawn(**TRUTH), {"x": [25.0], "y": [25.0]})
    assert values["r_eff"] == pytest.approx(4.0, rel=0.2)
    assert values["ellip"] == pytest.approx(0.4, abs=0.1)
    assert values["theta"] == pytest.approx(0.6, abs=0.1)
    assert values["flux"] == pytest.approx(drawn(**TRUTH).sum(), rel=0.15)
    assert coordinates[layout.column("sky", band=0)] == pytest.approx(SKY, abs=0.02)


def test_what_is_given_is_where_a_fit_begins(drawn):
    given = {"r_eff": 7.0, "n": 3.5, "ellip": 0.2, "theta": 1.1}
    table = QTable({"x": [25.2], "y": [24.9]} | {name: [value] for name, value in given.items()})
    table["theta"].unit = u.rad
    values = start(drawn(**TRUTH), table)[0]
    assert {name: values[name] for name in given} == pytest.approx(given)
    assert (values["x"], values["y"]) == pytest.approx((0.2, -0.1))


def test_width_of_a_psf_in_pixels():
    psf = PSF.from_fwhm(0.3 * u.arcsec)
    image = Observation.from_any(np.zeros((9, 9)), noise=1.0, psf=psf, pixel_scale=0.1)
    assert psf_fwhm_in_pixels(image) == pytest.approx(3.0)
    assert psf_fwhm_in_pixels(Observation.from_any(np.zeros((9, 9)), noise=1.0, pixel_scale=0.1)) == 1.0
