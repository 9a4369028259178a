"""Sérsic photometry of galaxies that no PSF blurs."""

import numpy as np
import pytest
from astropy.modeling.models import Sersic2D

from lenssr import SersicPhotometry

SIDE, FINE, SIGNAL = 41, 45, 2000.0


def integrated(model):
    """Mean of a model over pixels, those near the centre from more points."""

    def mean(x, y, parts):
        within = (np.arange(parts) - (parts - 1) / 2) / parts
        return model(*np.meshgrid(x + within, y + within)).mean()

    near = round(model.x_0.value), round(model.y_0.value)
    return np.array([
        [mean(x, y, 20 * FINE + 1 if (x, y) == near else FINE) for x in range(SIDE)] for y in range(SIDE)
    ])  # fmt: skip


@pytest.mark.parametrize(("r_eff", "n", "ellip"), [(2.0, 6.0, 0.2), (4.0, 1.0, 0.6)], ids=["cusp", "disc"])
def test_galaxies_without_a_psf_are_recovered_without_bias(r_eff, n, ellip):
    model = Sersic2D(1.0, r_eff, n, 20.23, 19.6, ellip=ellip, theta=0.6)
    image = integrated(model)
    sigma = np.sqrt((image**2).sum()) / SIGNAL
    phot = SersicPhotometry(fit_shape=SIDE, sky=None, intervals="gaussian")
    row = phot(image, error=sigma, init_params={"x": [20.0], "y": [20.0]})[0]
    for name, true in (("r_eff", r_eff), ("n", n), ("ellip", ellip), ("x", 20.23), ("y", 19.6)):
        found, error = (float(getattr(row[key], "value", row[key])) for key in (name, f"{name}_err"))
        # There is no noise in the image: what is off is bias.
        assert abs(found - true) < 0.2 * error, name
