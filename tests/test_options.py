"""Options are declared once, and everything that knows them agrees."""

import inspect
import pickle
import subprocess
import sys

import astropy.units as u
import numpy as np
import pytest

from lenssr import (
    SIE,
    InputError,
    NetworkSource,
    PixelGrid,
    Sersic,
    SersicPhotometry,
    SuperResolver,
    register_source,
    render,
)
from lenssr.imaging.observation import Reading
from lenssr.light import LightProfile
from lenssr.light.sersic import SersicProfile
from lenssr.options import PHOTOMETRY, PIXEL, PRIORS, RESOLVER, SEARCH, SOURCES, Settings
from lenssr.photometry.task_batch import LOSSES
from lenssr.source import PRIORS as SPECTRA


@pytest.fixture
def registry(monkeypatch):
    """The registry of sources, put back afterwards."""
    for name in SOURCES:
        monkeypatch.setitem(SOURCES, name, SOURCES[name])
    before = set(SOURCES)
    yield SOURCES
    for name in set(SOURCES) - before:
        del SOURCES[name]


def exponential():
    return SersicProfile(Sersic(n=1.0, fixed={"n": True}))


@pytest.mark.parametrize(
    ("cls", "options"),
    [(SuperResolver, RESOLVER), (SersicPhotometry, PHOTOMETRY)],
    ids=["resolver", "photometry"],
)
def test_signatures_have_the_options_and_their_defaults(cls, options):
    signature = inspect.signature(cls).parameters.values()
    assert {one.name: one.default for one in signature} == {
        name: one.default for name, one in options.items()
    }
    assert all(one.kind is inspect.Parameter.KEYWORD_ONLY for one in signature)


@pytest.mark.parametrize("method", ["__call__", "map", "fine_tune"])
def test_what_is_said_of_an_image_is_in_the_signature(method):
    """What `Observation.from_any` takes; nothing hides behind two stars."""
    parameters = inspect.signature(getattr(SuperResolver, method)).parameters
    assert not [one for one in parameters.values() if one.kind is one.VAR_KEYWORD]
    assert set(Reading.__annotations__) <= set(parameters)


@pytest.mark.parametrize("cls", [SuperResolver, SersicPhotometry])
def test_docstrings_name_the_options(cls):
    for name in inspect.signature(cls).parameters:
        assert name in cls.__doc__.split("Attributes")[0]


@pytest.mark.parametrize("options", [RESOLVER, PHOTOMETRY], ids=["resolver", "photometry"])
def test_help_is_one_line(options):
    for name, one in options.items():
        assert one.help and "\n" not in one.text, name


def test_words_are_those_of_the_rooms_that_use_them():
    assert PRIORS == ("auto", *SPECTRA)
    assert RESOLVER["start"].default == SEARCH
    assert SuperResolver(source="sersic", psf_out=PIXEL).settings.psf_out == PIXEL
    for loss in LOSSES:
        assert SersicPhotometry(loss=loss).settings.loss == loss


def test_declarations_need_no_numerics():
    code = (
        "import sys, lenssr.exceptions; before = set(sys.modules); import lenssr.options\n"
        "print(sorted(name.partition('.')[0] for name in set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['argparse', 'gettext', 'lenssr', 'lenssr', 'lenssr']"


def test_a_repr_can_be_pasted():
    resolver = SuperResolver(scale=3, prior="curvature", source="pixelated", sky=None)
    again = eval(repr(resolver), {"SuperResolver": SuperResolver})  # noqa: S307
    assert again.settings == resolver.settings


# ---------------------------------------------------------------- sources


@pytest.mark.parametrize("source", [*SOURCES, NetworkSource()], ids=str)
def test_every_source_has_a_method_and_a_profile(source):
    settings = Settings(source=source)
    assert isinstance(settings.profile(), LightProfile)
    assert hasattr(settings.method(), "solve")


def test_a_registered_source_is_an_option(registry):
    register_source("disc", exponential, help="an exponential disc")
    settings = SuperResolver(source="disc").settings
    assert settings.kind == settings.describe()["source"] == "disc"
    assert settings.profile().given.n.fixed and settings.profile() is not settings.profile()
    register_source("disc", lambda: exponential())  # a cell of a notebook that runs again
    with pytest.raises(InputError, match="source = 'round': give one of .*'disc'"):
        SuperResolver(source="round")
    with pytest.raises(InputError, match="prior = 'curvature' with source = 'disc'"):
        SuperResolver(source="disc", prior="curvature")


def test_a_registered_source_with_a_given_model_is_fitted(registry):
    register_source("disc", exponential)
    lens, grid = SIE(1.0, 0.1, 0.05), PixelGrid((40, 40), 0.1)
    truth = Sersic(300.0, 0.15, 1.0, x_0=0.1, y_0=-0.05)
    image = render(grid, lens=lens, source=truth) + np.random.default_rng(1).normal(0, 0.1, grid.shape)
    result = SuperResolver(source="disc", lens=lens)(image * u.electron, noise=0.1, pixel_scale=0.1)
    assert result.ok and result.source_model.n.value == 1.0
    assert result.source_model.r_eff.value == pytest.approx(0.15, rel=0.02)


def test_another_process_knows_a_registered_source(registry):
    register_source("disc", exponential)
    sent = pickle.dumps(Settings(source="disc"))
    del registry["disc"]
    assert pickle.loads(sent).profile().given.n.value == 1.0


@pytest.mark.parametrize(
    ("name", "profile", "match"),
    [
        ("sersic", exponential, "the source 'sersic' is lenssr's own: give another name"),
        ("a disc", exponential, "name = 'a disc': give a word"),
        (3, exponential, "name = 3"),
        ("disc", Sersic, "makes no LightProfile"),
        ("disc", SersicProfile(), "makes no LightProfile"),
    ],
)
def test_what_cannot_be_registered(registry, name, profile, match):
    before = dict(registry)
    with pytest.raises(InputError, match=match):
        register_source(name, profile)
    assert registry == before
