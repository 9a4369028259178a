"""Every option once: its default, its check, its help line, and how the command line and files spell it.

`Settings` are the options of a `~lenssr.SuperResolver`, `PhotometryOptions` those of a
`~lenssr.SersicPhotometry`; ``RESOLVER``, ``PHOTOMETRY`` and ``READING`` list them by name for the command
line, the repr, files and the docs. Nothing here imports torch before it is needed.
"""

from dataclasses import dataclass
from importlib import import_module
from os import PathLike, fspath
from typing import Any

import numpy as np

from lenssr._option import (
    NETWORK,
    PIXEL,
    SEARCH,
    Option,
    angle,
    check_components,
    check_count,
    check_device,
    check_fit_lens,
    check_fit_shape,
    check_grouper,
    check_lens,
    check_lens_light,
    check_loss,
    check_oversampling,
    check_positive,
    check_psf_out,
    check_seed,
    check_sky,
    check_xy_bounds,
    load_lens,
    load_light,
    load_psf_out,
    names_text,
    one_of,
    option,
    options_of,
    pair,
    psf_out_text,
    psf_text,
    save_lens,
    save_light,
    save_psf_out,
    side_text,
    whole_number,
)
from lenssr.exceptions import InputError

__all__ = [
    "NETWORK",
    "PHOTOMETRY",
    "PIXEL",
    "READING",
    "RESOLVER",
    "SEARCH",
    "SOURCES",
    "Option",
    "PhotometryOptions",
    "Settings",
    "Source",
    "register_source",
]

# Names of the priors of a source on a grid: "auto", and those of `lenssr.source.PRIORS`.
PRIORS = ("auto", "gradient", "curvature", "curvature+laplacian3", "laplacian3", "matern32")
# Side in pixels of the box around a galaxy unless its light reaches others.
AUTO_SHAPE = (51, 51)


# ---------------------------------------------------------------- sources


@dataclass(frozen=True, kw_only=True)
class Source:
    """A kind of source that `~lenssr.SuperResolver` knows by name.

    Parameters
    ----------
    method : str
        What solves it, as ``"module:name"``: it takes a `Settings`.
    help : str, optional
        What it is, in one line.
    has_prior : bool, optional
        Whether it has a prior on its roughness, by default not.
    may_be_negative : bool, optional
        Whether it may do without its positivity, by default not.
    profile : str or callable, optional
        The `~lenssr.light.profile.LightProfile` of a parametric source, as ``"module:name"`` or as what
        makes one. For others the Sérsic, which their fit begins with.
    """

    method: str
    help: str = ""
    has_prior: bool = False
    may_be_negative: bool = False
    profile: Any = "lenssr.light.sersic:SersicProfile"


PARAMETRIC = "lenssr.reconstruction.parametric:ParametricReconstruction"
FREEFORM = {"method": "lenssr.reconstruction.freeform:FreeFormReconstruction", "has_prior": True}
SOURCES = {
    "interpolation": Source(
        method="lenssr.reconstruction.model_free:InterpolationReconstruction",
        help="none: bicubic interpolation, the baseline",
    ),
    "pixelated": Source(
        **FREEFORM, may_be_negative=True, help="brightness on a grid, free but for a prior on its roughness"
    ),
    "perturbed_sersic": Source(
        **FREEFORM, may_be_negative=True, help="a Sérsic profile times a factor on such a grid"
    ),
    "auto": Source(
        **FREEFORM, may_be_negative=True, help="sersic, pixelated or perturbed_sersic, by evidence"
    ),
    "sersic": Source(method=PARAMETRIC, help="a Sérsic profile"),
    "network": Source(
        method="lenssr.reconstruction.network:network_method",
        has_prior=True,
        help="drawn by a trained network",
    ),
}

OWN_SOURCES = frozenset(SOURCES)


def register_source(name, profile, help=""):
    """Add a parametric source model, so that ``SuperResolver(source=name)`` knows it.

    Parameters
    ----------
    name : str
        How ``source=`` calls it: letters, digits and underscores. A name that was registered before gets
        the new profile.
    profile : type or callable
        A `~lenssr.light.profile.LightProfile` subclass, or a function without arguments that makes one. To
        be solved in several processes it has to stand in a module, as all that is sent to them.
    help : str, optional
        What it is, in one line.

    Raises
    ------
    InputError
        If the name is no such word or that of a source of lenssr, or ``profile`` makes no light profile.

    Examples
    --------
    >>> from lenssr import Sersic, SuperResolver, register_source
    >>> from lenssr.light.sersic import SersicProfile
    >>> def exponential():
    ...     return SersicProfile(Sersic(n=1.0, fixed={"n": True}))
    >>> register_source("exponential", exponential, help="an exponential disc")
    >>> SuperResolver(source="exponential").settings.profile().given.n.fixed
    True
    """
    from lenssr.light.profile import LightProfile

    if not isinstance(name, str) or not name.isidentifier():
        raise InputError(f"name = {name!r}: give a word of letters, digits and underscores")
    if name in OWN_SOURCES:
        raise InputError(f"the source {name!r} is lenssr's own: give another name")
    if not callable(profile) or not isinstance(profile(), LightProfile):
        raise InputError(
            f"profile = {profile!r} makes no LightProfile: give a subclass of it that needs no arguments, or "
            "a function that returns one"
        )
    SOURCES[name] = Source(method=PARAMETRIC, help=help, profile=profile)


def _named(text):
    """The object that ``"module:name"`` stands for."""
    module, _, name = text.partition(":")
    return getattr(import_module(module), name)


# ---------------------------------------------------------------- SuperResolver


def _check_source(name, value):
    if isinstance(value, str) or value is None:
        one_of(SOURCES)(name, value)
        return
    from lenssr.networks.network_source import NetworkSource

    if not isinstance(value, NetworkSource):
        one_of(SOURCES)(name, value)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The options of a `~lenssr.SuperResolver`, checked; see there for what they mean.

    Raises
    ------
    InputError
        If an option has no meaning; the message says which ones do.
    """

    scale: int = option(
        "output pixels along an input pixel",
        default=2, check=check_count, flag="--scale", metavar="N", parse=whole_number,
    )  # fmt: skip
    source: Any = option(
        "what describes the source",
        default="sersic", check=_check_source,
        flag="--source", metavar="SOURCE", choices=lambda: tuple(SOURCES),
    )  # fmt: skip
    lens: Any = option(
        "the lens, if it is known; by default SIE and shear are fitted",
        check=check_lens, flag="--lens", metavar="lens.yaml", save=save_lens, load=load_lens,
    )  # fmt: skip
    fit_lens: bool | None = option(
        "whether a lens that is given is refined", check=check_fit_lens, flag="--fit-lens", switch=True
    )
    start: Any = option(
        "where the fit of an unknown lens begins: search, network, or a file of a network's weights",
        default=SEARCH, flag="--start",
    )  # fmt: skip
    lens_light: Any = option(
        "light of the lens galaxy, fitted too: sersic, mge, or several (with commas); by default none",
        check=check_lens_light, flag="--lens-light", metavar="MODEL", parse=names_text,
        save=save_light, load=load_light,
    )  # fmt: skip
    sky: str | None = option(
        "the sky that is fitted: constant, or None", default="constant", check=one_of((None, "constant"))
    )
    oversampling: Any = option(
        "points along a pixel at which the model is sampled; auto integrates over the pixel",
        default="auto", check=check_oversampling,
    )  # fmt: skip
    psf_out: Any = option(
        "FWHM of a Gaussian PSF of the output, or pixel for none; by default the telescope's",
        check=check_psf_out, flag="--psf-out", metavar="ANGLE", parse=psf_out_text,
        save=save_psf_out, load=load_psf_out,
    )  # fmt: skip
    prior: str = option(
        "prior on the roughness of a source on a grid",
        default="auto", check=one_of(PRIORS), flag="--prior", metavar="PRIOR", choices=lambda: PRIORS,
    )  # fmt: skip
    positive: bool = option("whether a source on a grid is positive", default=True, check=check_positive)
    device: str = option("cpu, cuda or auto", default="auto", check=check_device, flag="--device")
    seed: int = option("of the starts of the search, and of draws", default=0, check=check_seed)

    def __post_init__(self):
        if isinstance(self.start, PathLike):
            object.__setattr__(self, "start", fspath(self.start))
        for name, one in options_of(type(self)).items():
            if one.check is not None:
                one.check(name, getattr(self, name))
        # Kept with the settings: another process does not know what was registered here.
        object.__setattr__(self, "_entry", SOURCES[self.kind])
        self._check_source_options()
        self._check_lens_options()
        if self.fit_lens is None:
            object.__setattr__(self, "fit_lens", self.lens is None)

    def _check_source_options(self):
        """Refuse options of another kind of source."""
        usual = options_of(type(self))
        for name, trait in (("prior", "has_prior"), ("positive", "may_be_negative")):
            value = getattr(self, name)
            if value != usual[name].default and not getattr(self._entry, trait):
                known = [repr(kind) for kind, source in SOURCES.items() if getattr(source, trait)]
                raise InputError(
                    f"{name} = {value!r} with source = {self.source!r}: only the sources {', '.join(known)} "
                    "know it, leave it out"
                )
        if self.psf_out is not None and self.kind == "interpolation":
            raise InputError(
                f"psf_out = {self.psf_out!r} with source = 'interpolation': what is interpolated keeps the "
                "PSF of the telescope, leave it out"
            )

    def _check_lens_options(self):
        """Refuse options of a lens that is unknown where it is known, and the other way round."""
        if self.start != SEARCH and (self.lens is not None or self.kind == "interpolation"):
            raise InputError(
                f"start = {self.start!r}: it says where the fit of an unknown lens begins, leave it out "
                "where none is fitted"
            )
        if self.lens is None and self.fit_lens is False:
            raise InputError("fit_lens = False without a lens: give lens=, or leave fit_lens out")
        if self.lens is None or not self.fit_lens:
            return
        if self.lens.needs_prior and any(not p.fixed for p in self.lens.parameters if p.name == "kappa"):
            raise InputError(
                "a free ConvergenceSheet cannot be told from the size of the source (mass-sheet degeneracy): "
                "set its kappa.fixed = True"
            )
        if all(parameter.fixed for parameter in self.lens.parameters):
            raise InputError(
                "fit_lens = True, but every parameter of the lens is fixed: free one, or leave fit_lens out"
            )

    @property
    def kind(self):
        """The name of the source's kind: what ``SOURCES`` knows."""
        return self.source if isinstance(self.source, str) else "network"

    @property
    def network(self):
        """Which network draws the source, `~lenssr.NetworkSource`, or None."""
        if self.kind != "network":
            return None
        from lenssr.networks.network_source import NetworkSource

        return NetworkSource() if self.source == "network" else self.source

    @property
    def torch_device(self):
        """The device that "auto" stands for here."""
        from lenssr.devices import choose_device

        return choose_device(self.device)

    @classmethod
    def names(cls):
        """Names of the options, in order."""
        return tuple(options_of(cls))

    def profile(self):
        """Make the profile of a parametric source; the Sérsic's for all others, whose fit begins with it.

        Returns
        -------
        profile : `~lenssr.light.profile.LightProfile`
        """
        make = self._entry.profile
        return (_named(make) if isinstance(make, str) else make)()

    def method(self):
        """Make what solves images with these settings."""
        return _named(self._entry.method)(self)

    def describe(self):
        """The settings as plain values, for people."""
        from lenssr.light.lens_light import describe_lens_light

        plain = {name: getattr(self, name) for name in options_of(type(self))}
        plain["source"] = self.kind
        plain["lens"] = None if self.lens is None else repr(self.lens)
        plain["lens_light"] = describe_lens_light(self.lens_light)
        plain["psf_out"] = None if self.psf_out is None else str(self.psf_out)
        plain["device"] = str(self.torch_device)
        return plain

    def save(self):
        """The settings as JSON can hold them; of a network only the steps that follow, ``refine``.

        Returns
        -------
        plain : dict
        """
        plain = {}
        for name, one in options_of(type(self)).items():
            value = self.kind if name == "source" else getattr(self, name)
            value = one.save(value) if one.save else value
            plain[name] = value.item() if isinstance(value, np.generic) else value
        plain["refine"] = 0 if self.network is None else int(self.network.refine)
        return plain

    @classmethod
    def load(cls, plain, path):
        """Options that `save` made plain.

        Parameters
        ----------
        plain : dict
        path : str or `~pathlib.Path`
            Of the file that holds them, and the networks.

        Returns
        -------
        options : dict
            For `~lenssr.SuperResolver`.

        Raises
        ------
        InputError
            If the file has options that are unknown here, or a source that is not registered.
        """
        known = options_of(cls)
        refine = plain.get("refine", 0)
        unknown = [name for name in plain if name not in known and name != "refine"]
        if unknown:
            raise InputError(f"{path} has the option {unknown[0]!r}, which is unknown here: update lenssr")
        if plain["source"] not in SOURCES:
            raise InputError(
                f"{path} has source = {plain['source']!r}, which is not registered here: import the module "
                "that calls lenssr.register_source with it, and load again"
            )
        options = {
            name: one.load(plain[name]) if one.load else plain[name]
            for name, one in known.items()
            if name in plain
        }
        if plain["source"] == "network":
            from lenssr.networks.network_source import NetworkSource

            options["source"] = NetworkSource(path, refine)
        return options


RESOLVER = {
    **options_of(Settings),
    "psf": Option(help="the PSF of every image; by default that of its file"),
    "noise": Option(help="the noise of every image; by default its error plane"),
    "mask": Option(
        help="pixels to hide; auto: other objects in the field", flag="--mask", choices=lambda: ("auto",)
    ),
}

# How images are read; in Python the names of HDUs are hdus={"sci": ..., "err": ...}.
HDU = {"metavar": "HDU"}
READING = {
    "sci": Option(
        help="name of the HDU of the image (default: SCI, IMAGE, or the first image)", flag="--sci", **HDU
    ),
    "err": Option(help="name of the HDU of its errors, 1 sigma (default: ERR or RMS)", flag="--err", **HDU),
    "unit": Option(help="unit of the pixels, such as electron/s, where BUNIT does not say", flag="--unit"),
    "pixel_scale": Option(
        help="such as 0.05arcsec, where there is no WCS", flag="--pixel-scale", metavar="ANGLE", parse=angle
    ),
}


# ---------------------------------------------------------------- SersicPhotometry


@dataclass(frozen=True, kw_only=True)
class PhotometryOptions:
    """The options of a `~lenssr.SersicPhotometry`, checked; see there for what they mean.

    Raises
    ------
    InputError
        If an option has no meaning; the message says which ones do.
    """

    fit_shape: Any = option(
        "side of the stamps in pixels; auto: 51, more for those whose light reaches others",
        default="auto", check=check_fit_shape, flag="--fit-shape", metavar="N", parse=side_text,
    )  # fmt: skip
    sky: str | None = option(
        "the sky under each group: constant, or None", default="constant", check=check_sky
    )
    n_components: int = option(
        "2: a bulge and a disc",
        default=1, check=check_components, flag="--components", parse=int, choices=lambda: (1, 2),
    )  # fmt: skip
    model: Any = option("a Sersic2D or Sersic whose fixed, bounds and tied hold")
    fixed: Any = option("parameters that are held, by name")
    bounds: Any = option("bounds of parameters, by name")
    tied: Any = option("functions that tie parameters, by name")
    xy_bounds: Any = option(
        "how far centres may move in pixels; by default a quarter of the stamp, at most 10",
        check=check_xy_bounds,
    )
    grouper: Any = option("what says which galaxies are fitted together", default="auto", check=check_grouper)
    loss: str | None = option("how residuals count: huber, cauchy, or None for squares", check=check_loss)
    intervals: str = option(
        "where errors come from", default="auto", check=one_of(("auto", "gaussian", "profile"))
    )
    device: str = option("cpu, cuda or auto", default="auto", check=check_device, flag="--device")

    def __post_init__(self):
        for name, one in options_of(type(self)).items():
            if one.check is not None:
                one.check(name, getattr(self, name))
        if self.xy_bounds is not None:
            object.__setattr__(self, "xy_bounds", pair(self.xy_bounds, "xy_bounds"))
        if not self.grows:
            object.__setattr__(self, "fit_shape", pair(self.fit_shape, "fit_shape", integer=True))

    @classmethod
    def names(cls):
        """Names of the options, in order."""
        return tuple(options_of(cls))

    @property
    def box(self):
        """Rows and columns of the box around a galaxy, in pixels."""
        return AUTO_SHAPE if self.grows else self.fit_shape

    @property
    def grows(self):
        """Whether boxes may be larger than `box`."""
        return isinstance(self.fit_shape, str)

    @property
    def torch_device(self):
        """The device that "auto" stands for here."""
        from lenssr.devices import choose_device

        return choose_device(self.device)


PHOTOMETRY = {
    **options_of(PhotometryOptions),
    "psf": Option(
        help="PSF: a FITS file, or a FWHM such as 0.1arcsec or 2.5pix; by default that of the image",
        flag="--psf", metavar="PSF", parse=psf_text,
    ),
}  # fmt: skip
