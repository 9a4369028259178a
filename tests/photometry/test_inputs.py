"""What `SersicPhotometry` takes, flags and refuses."""

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.modeling.models import Sersic2D
from astropy.nddata import CCDData, StdDevUncertainty
from astropy.table import QTable, Table
from astropy.wcs import WCS

from lenssr import Sersic, SersicPhotometry
from lenssr.exceptions import InputError, LensSRWarning
from lenssr.photometry import SersicFlag, decode_flags

FWHM, SIGMA = 2.5, 0.02
HERE = {"x": [20.0], "y": [20.0]}
OPTIONS = {"psf": FWHM * u.pix, "fit_shape": 35}


@pytest.fixture(scope="module")
def field(galaxy, noisy):
    """Two galaxies well apart, with noise."""
    light = galaxy((60, 90), x=20.3, y=19.6) + galaxy((60, 90), x=65.0, y=33.2, n=1.0, r_eff=3.0)
    return noisy(light + 0.1)


def wcs(shape=(60, 90), rotation=30.0, scale=0.05):
    turned = WCS(naxis=2)
    turned.wcs.ctype, turned.wcs.crval = ["RA---TAN", "DEC--TAN"], [150.0, 2.0]
    turned.wcs.crpix = [shape[1] / 2, shape[0] / 2]
    angle = np.radians(rotation)
    matrix = np.array([[-np.cos(angle), np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    turned.wcs.cd = matrix * scale / 3600
    turned.wcs.set()
    return turned


def fit(image, init_params, **options):
    error = options.pop("error", SIGMA)
    return SersicPhotometry(**(OPTIONS | options))(image, error=error, init_params=init_params)


def flags(table, row=0):
    return set(decode_flags(table["flags"][row]))


# ------------------------------------------------------------------ where galaxies are


@pytest.mark.parametrize(
    "columns", [("x", "y"), ("x_init", "y_init"), ("xcentroid", "ycentroid"), ("x_0", "y_0")], ids=str
)
def test_positions_go_by_several_names(field, columns):
    table = fit(field, Table({columns[0]: [20.0, 65.0], columns[1]: [20.0, 33.0]}))
    assert np.allclose(table["x"], [20.3, 65.0], atol=0.1)
    assert list(table["x_init"]) == [20.0, 65.0]


def test_sky_coordinates_go_in_and_come_out(field):
    frame = wcs()
    image = CCDData(field, unit=u.electron, uncertainty=StdDevUncertainty(np.full(field.shape, SIGMA)))
    image.wcs = frame
    table = SersicPhotometry(psf=FWHM * 0.05 * u.arcsec, fit_shape=35)(
        image, init_params=QTable({"skycoord": frame.pixel_to_world([20.0, 65.0], [20.0, 33.0])})
    )
    assert isinstance(table["skycoord"], SkyCoord)
    assert (
        table["skycoord"].separation(frame.pixel_to_world([20.3, 65.0], [19.6, 33.2])).max()
        < 0.005 * u.arcsec
    )
    assert table["flux"].unit == u.electron
    assert table["r_eff_sky"][0].to_value(u.arcsec) == pytest.approx(0.2, rel=0.05)
    # +x of the frame points 30 degrees from west towards north; the galaxy 35 further towards +y.
    ahead = frame.pixel_to_world(20.3 + np.cos(np.radians(35)), 19.6 + np.sin(np.radians(35)))
    true = frame.pixel_to_world(20.3, 19.6).position_angle(ahead).to_value(u.deg) % 180
    assert abs((table["position_angle"][0].value - true + 90) % 180 - 90) < 3


def test_segments_and_catalogues_say_where_galaxies_are(field):
    from photutils.segmentation import SourceCatalog, detect_sources

    segments = detect_sources(field - 0.1, 5 * SIGMA, 10)
    catalogue = SourceCatalog(field, segments)
    tables = [fit(field, one) for one in (segments, segments.data, catalogue)]
    for table in tables:
        assert np.allclose(np.sort(table["x"]), [20.3, 65.0], atol=0.1)
        assert list(table["id"]) == [1, 2]


def test_galaxies_are_detected_if_nothing_is_given(field):
    table = fit(field, None)
    assert len(table) == 2
    assert np.allclose(np.sort(table["y"]), [19.6, 33.2], atol=0.1)


def test_an_empty_image_gives_an_empty_table_with_all_columns(field, noisy):
    empty = fit(noisy(np.zeros((40, 40))), None)
    assert len(empty) == 0
    assert empty.colnames == fit(field, None).colnames


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"ra": [1.0]}, "ra"),
        ({"skycoord": SkyCoord([1.0], [2.0], unit="deg")}, "no WCS"),
        (5, "int"),
        (np.zeros((3, 3), dtype=int), "segments have shape"),
        (np.zeros((60, 90)), "segments"),
    ],
    ids=["no_position", "no_wcs", "number", "shape", "floats"],
)
def test_what_says_no_positions_is_refused(field, given, match):
    with pytest.raises(InputError, match=match):
        fit(field, given)


# ------------------------------------------------------------------ units


@pytest.mark.parametrize(
    ("unit", "flux"), [(u.nJy, u.nJy), (u.MJy / u.sr, u.MJy), (u.electron / u.s, u.electron / u.s)], ids=str
)
def test_units_in_are_units_out(field, unit, flux):
    image = CCDData(field, unit=unit, uncertainty=StdDevUncertainty(np.full(field.shape, SIGMA)), wcs=wcs())
    plain = fit(field, HERE)
    table = SersicPhotometry(**OPTIONS)(image, init_params=HERE)
    assert table["amplitude"].unit == table["sky"].unit == unit
    assert table["flux"].unit == flux
    area = ((0.05 * u.arcsec) ** 2).to_value(u.sr) if unit != flux else 1.0
    assert table["flux"][0].value == pytest.approx(float(plain["flux"][0]) * area, rel=1e-6)


@pytest.mark.parametrize("scale", [1e-20, 1e20])
def test_images_too_bright_or_faint_for_single_precision_are_fitted_alike(field, scale):
    found, expected = fit(field * scale, HERE, error=SIGMA * scale), fit(field, HERE)
    for name in ("x", "r_eff", "n", "ellip"):
        value, error = (u.Quantity(expected[end]).value for end in (name, f"{name}_err"))
        assert np.allclose(u.Quantity(found[name]).value, value, rtol=0, atol=0.05 * error)


def test_guesses_are_where_fits_begin_and_their_units_convert(field):
    start = QTable({"x": [20.0], "y": [20.0], "theta": [35.0] * u.deg, "r_eff": [4.0] * u.pix, "n": [1.5]})
    table = fit(field, start)
    assert table["iterations"][0] <= fit(field, HERE)["iterations"][0]
    assert table["theta"][0].to_value(u.deg) == pytest.approx(35, abs=3)


# ------------------------------------------------------------------ constraints


def test_fixed_values_come_from_the_model_and_have_no_error(field):
    table = fit(field, HERE, model=Sersic2D(n=2.0, fixed={"n": True}))
    assert table["n"][0] == 2.0
    assert np.isnan([table[f"n{end}"][0] for end in ("_err", "_lower", "_upper")]).all()
    assert table["reduced_chi2"][0] > fit(field, HERE)["reduced_chi2"][0]


def test_fixed_values_come_from_the_table_first(field):
    start = {**HERE, "n": [1.2]}
    assert fit(field, start, fixed={"n": True})["n"][0] == pytest.approx(1.2)


def test_fixed_without_a_value_is_refused(field):
    with pytest.raises(InputError, match="ellip is fixed, but nowhere given"):
        fit(field, HERE, fixed={"ellip": True})


@pytest.mark.parametrize("name", ["r_eff", "ellip", "theta"])
def test_axes_can_be_fixed(field, name):
    held = {"r_eff": 3.8, "ellip": 0.2, "theta": 0.5}[name]
    table = fit(field, HERE, model=Sersic2D(**{name: held}, fixed={name: True}))
    found = u.Quantity(table[name][0])
    assert (found.to_value(u.rad) if name == "theta" else found.value) == pytest.approx(held, abs=1e-6)
    assert np.isnan(u.Quantity(table[f"{name}_err"][0]).value)


def test_positions_can_be_fixed(field):
    table = fit(field, HERE, fixed={"x": True, "y": True})
    assert (table["x"][0], table["y"][0]) == (20.0, 20.0)


def test_bounds_hold_and_are_flagged(field):
    table = fit(field, HERE, bounds={"r_eff": (4.6, 9.0)})
    assert table["r_eff"][0].value == pytest.approx(4.6)
    assert "BOUND" in flags(table)


def test_a_bound_far_from_the_guess_keeps_the_flux_to_begin_with(field):
    table = fit(field, HERE, model=Sersic2D(n=2, fixed={"n": True}), bounds={"r_eff": (0.02, 0.021)})
    assert table["flux"][0] > 10


def test_ties_follow(field):
    table = fit(field, HERE, tied={"r_eff": lambda model: 2.5 * model.n})
    assert table["r_eff"][0].value == pytest.approx(2.5 * table["n"][0])
    assert table["r_eff_err"][0].value == pytest.approx(2.5 * table["n_err"][0], rel=1e-3)


def test_our_own_model_constrains_too(field):
    table = fit(field, HERE, model=Sersic(n=1.3, fixed={"n": True}))
    assert table["n"][0] == pytest.approx(1.3)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"fixed": {"m": True}}, "has no parameter 'm'"),
        ({"fixed": {"n": 4}}, "True or False"),
        ({"tied": {"n": 4}}, "function"),
        ({"bounds": {"n": (3, 1)}}, "not below"),
        ({"bounds": {"n": 3}}, "two ends"),
        ({"model": "sersic"}, "Sersic2D"),
        ({"fit_shape": 0}, "fit_shape"),
        ({"fit_shape": (5.5, 5)}, "fit_shape"),
        ({"sky": "median"}, "sky"),
        ({"n_components": 3}, "n_components"),
        ({"loss": "l1"}, "loss"),
        ({"grouper": 4}, "grouper"),
        ({"intervals": "mcmc"}, "intervals"),
        ({"device": "abacus"}, "device"),
        ({"xy_bounds": -1}, "xy_bounds"),
    ],
    ids=lambda option: next(iter(option)) if isinstance(option, dict) else "",
)
def test_options_without_meaning_are_refused(options, match):
    with pytest.raises(InputError, match=match):
        SersicPhotometry(**(OPTIONS | options))


def test_a_run_needs_an_image():
    with pytest.raises(InputError, match="images is empty"):
        SersicPhotometry().map([])


# ------------------------------------------------------------------ hard images


def test_masked_pixels_are_not_fitted(field):
    spoiled, mask = field.copy(), np.zeros(field.shape, dtype=bool)
    mask[25:30, 10:18] = True
    spoiled[mask] = 1e6
    table = SersicPhotometry(**OPTIONS)(spoiled, mask=mask, error=SIGMA, init_params=HERE)
    assert table["n"][0] == pytest.approx(1.5, abs=0.2)
    assert table["n_pixels"][0] == 35 * 35 - 40


def test_pixels_that_are_not_finite_are_masked_with_a_warning(field):
    spoiled = field.copy()
    spoiled[15, 15:20] = np.nan
    with pytest.warns(LensSRWarning, match="5 of"):
        table = fit(spoiled, HERE)
    assert table["n_pixels"][0] == 35 * 35 - 5


def test_a_masked_stamp_is_a_row_of_nan_with_a_flag(field):
    mask = np.zeros(field.shape, dtype=bool)
    mask[:, :45] = True
    table = SersicPhotometry(**OPTIONS)(
        field, mask=mask, error=SIGMA, init_params={"x": [20.0, 65.0], "y": [20.0, 33.0]}
    )
    assert flags(table, 0) == {"NO_DATA"}
    assert np.isnan(table["x"][0]) and np.isnan(table["flux"][0])
    assert table["flags"][1] == 0


@pytest.mark.parametrize("place", [(500.0, 20.0), (np.nan, 20.0)], ids=["outside", "nan"])
def test_a_galaxy_nowhere_is_a_row_of_nan(field, place):
    table = fit(field, {"x": [place[0]], "y": [place[1]]})
    assert flags(table) == {"NO_DATA"}


def test_a_masked_centre_is_flagged(field):
    mask = np.zeros(field.shape, dtype=bool)
    mask[19:21, 19:22] = True
    table = SersicPhotometry(**OPTIONS)(field, mask=mask, error=SIGMA, init_params=HERE)
    assert "MASKED_CENTRE" in flags(table)


def test_a_galaxy_cut_by_the_edge_is_found_and_flagged(field):
    table = fit(field[:, 16:], {"x": [4.0], "y": [20.0]})
    assert "EDGE" in flags(table)
    assert table["x"][0] == pytest.approx(4.3, abs=0.05)
    assert table["r_eff"][0].value == pytest.approx(4.0, abs=0.3)


@pytest.fixture(scope="module", params=[0.0, 1.0], ids=["thin", "as wide as the PSF"])
def star(request):
    """A star of flux 50, its light integrated over pixels or, narrower than any model, not."""
    places = (np.arange(21) - 10) / (FWHM / 2.3548)
    line = np.exp(-0.5 * places**2) / (FWHM / 2.3548 * np.sqrt(2 * np.pi))
    # The second derivative times 1/24 is what the box of a pixel adds, to second order.
    line *= 1 + request.param * (places**2 - 1) / 24 / (FWHM / 2.3548) ** 2
    return 50 * np.outer(line, line)


def test_a_star_is_flagged_and_has_the_flux_of_a_point(star, noisy):
    image = np.zeros((41, 41))
    image[10:31, 10:31] = star
    table = fit(noisy(image), HERE, intervals="gaussian")
    assert {"PSF_SIZED", "WEAKLY_CONSTRAINED"} <= flags(table) and "NOT_CONVERGED" not in flags(table)
    assert table["x"][0] == pytest.approx(20, abs=0.02)
    assert table["flux"][0] == pytest.approx(50, rel=0.05)
    assert table["flux_err"][0] < 0.2


def test_the_size_of_a_star_has_an_upper_limit_and_its_shape_no_error(star, noisy):
    image = np.zeros((41, 41))
    image[10:31, 10:31] = star
    table = fit(noisy(image), HERE)

    def value(name):
        return float(u.Quantity(table[name][0]).value)

    assert "BOUND" not in flags(table)
    assert 0.02 < value("r_eff_upper") < 0.06
    none = ("r_eff_err", "r_eff_lower", "n_err", "n_upper", "ellip_err", "theta_err")
    assert np.isnan([value(name) for name in none]).all()
    assert (
        value("flux") - 0.1 < value("flux_lower") < value("flux") < value("flux_upper") < value("flux") + 0.2
    )


def test_a_group_with_stars_converges(star, galaxy, noisy):
    image = galaxy((60, 60), x=22.0, y=30.0)
    image[20:41, 24:45] += star
    image[30:51, 12:33] += 0.4 * star
    where = {"x": [22.0, 34.0, 22.0], "y": [30.0, 30.0, 40.0], "group_id": [1, 1, 1]}
    table = fit(noisy(image), where)
    assert all("NOT_CONVERGED" not in flags(table, row) for row in range(3))
    assert ["PSF_SIZED" in flags(table, row) for row in range(3)] == [False, True, True]


def test_noise_is_flagged_as_faint(noisy):
    table = fit(noisy(np.zeros((41, 41))), HERE, intervals="gaussian")
    assert {"FAINT", "WEAKLY_CONSTRAINED"} <= flags(table)


def test_a_small_stamp_is_flagged(galaxy, noisy):
    table = fit(noisy(galaxy(r_eff=6.0)), HERE)
    assert "SMALL_STAMP" in flags(table)


def test_wrong_errors_are_flagged(field):
    assert "POOR_FIT" in flags(fit(field, HERE, error=SIGMA / 3))


@pytest.mark.parametrize("error", [0.0, np.nan, -1.0])
def test_errors_that_are_not_positive_are_refused(field, error):
    plane = np.full(field.shape, SIGMA)
    plane[30, 30] = error
    with pytest.raises(InputError, match="positive"):
        fit(field, HERE, error=plane)


def test_correlated_noise_widens_the_errors(galaxy):
    from scipy import ndimage

    white = np.random.default_rng(2).normal(size=(80, 80))
    noise = ndimage.gaussian_filter(white, 0.8)
    noise *= SIGMA / noise.std()
    image = galaxy((80, 80), x=40.0, y=40.0) + noise
    there = {"x": [40.0], "y": [40.0]}
    table = fit(image, there)
    plain = fit(galaxy((80, 80), x=40.0, y=40.0) + SIGMA * white, there)
    assert table["r_eff_err"][0] > 1.5 * plain["r_eff_err"][0]


def test_flags_have_names():
    assert decode_flags(int(SersicFlag.BOUND | SersicFlag.EDGE)) == ["BOUND", "EDGE"]


# ------------------------------------------------------------------ residual images


def test_residuals_of_a_file_are_those_of_its_image(field, tmp_path):
    from astropy.io import fits

    hdus = fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(field, name="SCI")])
    hdus["SCI"].header["BUNIT"] = "electron/s"
    path = tmp_path / "field.fits"
    hdus.writeto(path)
    phot = SersicPhotometry(**OPTIONS, intervals="gaussian")
    phot(path, error=SIGMA, init_params={"x": [20.0, 65.0], "y": [20.0, 33.0]})
    plain = phot.make_residual_image(field * u.electron / u.s, include_sky=True)
    assert abs(plain.value.std() - SIGMA) < 0.1 * SIGMA
    for given in (path, str(path), hdus, hdus["SCI"]):
        left = phot.make_residual_image(given, include_sky=True)
        np.testing.assert_allclose(left.to_value(u.electron / u.s), plain.value, atol=1e-12)


def test_residuals_of_another_image_are_refused(field):
    phot = SersicPhotometry(**OPTIONS, intervals="gaussian")
    phot(field, error=SIGMA, init_params=HERE)
    for wrong in (field[:, :-1], field.T, field[0], CCDData(field[1:], unit="adu")):
        with pytest.raises(InputError, match=r"the image has shape .*\(60, 90\)"):
            phot.make_residual_image(wrong)


def test_an_interval_of_no_width_is_no_error(field):
    """A profile interval at a bound may be left with its round-off."""
    phot = SersicPhotometry(**OPTIONS, intervals="gaussian")
    phot(field, error=SIGMA, init_params=HERE)
    found, _ = phot._rows.fits[0]
    value = found.interval("ellip", 0, 0, 0)[0]
    found.intervals["ellip", 0, 0, 0] = value - 6e-11, value + 6e-11
    assert np.isnan(found.interval("ellip", 0, 0, 0)[1:]).all()
    found.intervals["ellip", 0, 0, 0] = value - 6e-6, value + 6e-6
    assert found.interval("ellip", 0, 0, 0)[1:] == pytest.approx((value - 6e-6, value + 6e-6))


# ------------------------------------------------------------------ figure and command


def test_every_galaxy_of_the_figure_has_its_number_beside_it(field):
    phot = SersicPhotometry(**OPTIONS, intervals="gaussian")
    table = phot(field, error=SIGMA, init_params={"x": [20.0, 65.0, 21.5], "y": [20.0, 33.0, 21.0]})
    axes = phot.plot().axes[0]
    ids = {text.get_text(): np.array(text.get_position()) for text in axes.texts}
    assert sorted(ids) == ["1", "2", "3"]
    assert len(axes.patches) == 3
    for row in table:
        place = ids[str(row["id"])]
        radius = float(getattr(row["r_eff"], "value", row["r_eff"]))
        assert radius < np.hypot(*(place - (row["x"], row["y"]))) < 2 * radius + 10
        assert (place > 0).all() and (place < (90, 60)).all()
    assert np.hypot(*(ids["1"] - ids["3"])) > 3


@pytest.mark.parametrize("components", [1, 2])
def test_the_figure_shows_noise_where_the_fit_is_good(field, tmp_path, components):
    phot = SersicPhotometry(**OPTIONS, n_components=components, intervals="gaussian")
    phot(field, error=SIGMA, init_params={"x": [20.0, 65.0], "y": [20.0, 33.0]})
    figure = phot.plot(tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 1000
    left = figure.axes[2].images[0].get_array()
    assert abs(left.std() - 1) < 0.1


def test_the_command_writes_table_and_figure(field, tmp_path, capsys):
    from astropy.io import fits

    from lenssr.cli import main

    error = np.full(field.shape, SIGMA)
    mask = np.zeros(field.shape, dtype=np.uint8)
    mask[:, 45:] = 1
    planes = [fits.PrimaryHDU(), fits.ImageHDU(0 * field, name="SCI"), fits.ImageHDU(0 * error, name="ERR")]
    planes += [fits.ImageHDU(field, name="VIS"), fits.ImageHDU(error, name="VIS_RMS")]
    fits.HDUList(planes).writeto(tmp_path / "field.fits")
    fits.writeto(tmp_path / "mask.fits", mask)
    Table({"x": [20.0], "y": [20.0]}).write(tmp_path / "positions.ecsv")
    written = [str(tmp_path / name) for name in ("table.ecsv", "figure.png")]
    options = ["--psf", "2.5pix", "--fit-shape", "35", "--mask", str(tmp_path / "mask.fits")]
    options += ["--init", str(tmp_path / "positions.ecsv"), "--plot", written[1]]
    options += ["--sci", "VIS", "--err", "VIS_RMS"]
    assert main(["sersic", str(tmp_path / "field.fits"), "-o", written[0], *options]) == 0
    table = QTable.read(written[0])
    assert table["x"][0] == pytest.approx(20.3, abs=0.05)
    assert "1, 1 without a warning" in capsys.readouterr().out
    assert main(["sersic", str(tmp_path / "field.fits"), "-o", written[0], *options]) == 1
    assert "exists" in capsys.readouterr().err


def test_the_command_writes_a_table_that_verifies(field, tmp_path, fitsverify, capsys):
    from astropy.io import fits
    from astropy.wcs import WCS

    from lenssr.cli import main

    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval, wcs.wcs.cdelt = ["RA---TAN", "DEC--TAN"], [150.0, 2.0], [-1e-5, 1e-5]
    header = wcs.to_header()
    header.update({"BUNIT": "electron/s", "MAGZERO": 25.0, "TELESCOP": "HST"})
    planes = [fits.PrimaryHDU(), fits.ImageHDU(field, header, name="SCI")]
    planes += [fits.ImageHDU(np.full(field.shape, SIGMA), header, name="ERR")]
    fits.HDUList(planes).writeto(tmp_path / "field.fits")
    assert main(["sersic", str(tmp_path / "field.fits"), "-o", str(tmp_path / "table.fits")]) == 0
    fitsverify(tmp_path / "table.fits")
    assert not capsys.readouterr().err.count("warning")
    header = fits.getheader(tmp_path / "table.fits", "GALAXIES")
    units = {header[f"TTYPE{k}"]: header.get(f"TUNIT{k}") for k in range(1, header["TFIELDS"] + 1)}
    wanted = {"x": None, "flux": "electron / s", "mag": "mag", "ra": "deg", "dec": "deg", "r_eff": "pix"}
    assert {name: units[name] for name in wanted} == wanted
    assert (header["INFILE"], header["TELESCOP"], header["ZEROPNT"]) == ("field.fits", "HST", 25.0)
    assert 'settings: {"psf": "None"' in str(header["COMMENT"]).replace("\n", "")
    assert fits.getdata(tmp_path / "table.fits")["ra"][0] == pytest.approx(150.0, abs=0.01)


def test_tables_say_where_images_come_from(tmp_path, field):
    from astropy.io import fits

    for name in ("a", "b"):
        header = fits.Header({"FILTER": name, "BUNIT": "electron/s"})
        fits.writeto(tmp_path / f"{name}.fits", field, header)
    with pytest.warns(LensSRWarning, match="missing.fits"):
        table = SersicPhotometry(**OPTIONS).map([tmp_path / f"{name}.fits" for name in ("a", "missing", "b")])
    assert [one and one[""]["FILTER"] for one in table.meta["inputs"]] == ["a", {}, "b"]


@pytest.mark.parametrize(("psf", "match"), [("2.5", "no unit"), ("-1arcsec", "not a positive angle")])
def test_the_command_refuses_widths_without_meaning(psf, match, capsys):
    from lenssr.cli import main

    with pytest.raises(SystemExit):
        main(["sersic", "field.fits", "-o", "table.ecsv", f"--psf={psf}"])
    assert match in capsys.readouterr().err
