"""What a result says of itself."""

from lenssr.exceptions import InputError
from lenssr.result import FailedResolution


def test_summary_says_verdict_and_errors(result):
    text = result.summary()
    assert "secure; flags: correlated_noise, psf_undersampled" in text
    assert "1.2000 +- 0.0012" in text
    assert "(fixed)" in text
    assert '36 x 31 pixels of 0.08"' in text
    assert "35 masked" in text


def test_repr_is_one_line(result):
    assert repr(result).startswith('<SuperResolution 72x62 at 0.04", secure, reduced chi2 ')
    assert "\n" not in repr(result)


def test_bad_verdict_is_said(make):
    bad = make(shape=(8, 8), grade="doubtful", flags=("bad_chi2",))
    assert "doubtful" in repr(bad)
    assert "doubtful; flags: bad_chi2" in bad.summary()


def test_failed_resolution_is_false():
    error = InputError("all pixels are masked")
    failed = FailedResolution(error, "a.fits")
    assert not failed
    assert (failed.ok, failed.flags, failed.error, failed.name) == (False, ("failed",), error, "a.fits")


def test_a_result_is_two_tables_in_a_notebook(result):
    html = result._repr_html_()
    assert html.count("<table>") == 2
    assert "correlated_noise, psf_undersampled" in html
    assert ">theta_E_0<" in html


def test_draws_are_one_line(solve):
    draws = solve("sersic", lens=solve.lens, fit_lens=False).sample(2)
    assert repr(draws).startswith("<Draws: images, 2 of 64x64 in electron / s; sources, 2 of 80x80 in")
