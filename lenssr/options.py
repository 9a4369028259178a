"""Every option once: its default, its check, its help line, and how the command line and files spell it.

`Settings` are the options of a `~lenssr.SuperResolver`, `PhotometryOptions` those of a
`~lenssr.SersicPhotometry`; ``RESOLVER``, ``PHOTOMETRY`` and ``READING`` list them by name for the command
line, the repr, files and the docs. Nothing here imports torch before it is needed.
"""

from __future__ import annotations

from argparse import ArgumentTypeError
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any, Literal, NewType, get_args

import numpy as np

from lenssr import _option as opt
from lenssr._option import NETWORK, PIXEL, SEARCH, Option, Options, named, option
from lenssr.exceptions import InputError

if TYPE_CHECKING:
    from astropy.units import Quantity

    from lenssr.light import MultiGaussian, Sersic
    from lenssr.light.profile import LightProfile
    from lenssr.mass import MassModel, SourcePlanes
    from lenssr.networks import NetworkSource

__all__ = ["NETWORK", "PHOTOMETRY", "PIXEL", "READING", "RESOLVER", "SEARCH", "SOURCES", "Option"]
__all__ += ["PhotometryOptions", "Settings", "Source", "SourceName", "register_source"]

SourceKind = Literal["interpolation", "pixelated", "perturbed_sersic", "auto", "sersic", "network"]
#: Priors of a source on a grid: "auto", and the names of `lenssr.source.PRIORS`.
PriorName = Literal["auto", "gradient", "curvature", "curvature+laplacian3", "laplacian3", "matern32"]
PRIORS: tuple[str, ...] = get_args(PriorName)
# Families of an unknown lens, each with shear: isothermal, a power law, or whichever is likelier.
LensFamily = Literal["sie", "epl", "auto"]
ISOTHERMAL, AUTO = "sie", "auto"
FAMILIES: tuple[str, ...] = get_args(LensFamily)
# Side in pixels of the box around a galaxy unless its light reaches others.
AUTO_SHAPE = (51, 51)


# ---------------------------------------------------------------- sources

SourceName = NewType("SourceName", str)
"""Name of a registered source, as `register_source` returns it; a plain `str` when a program runs."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """A kind of source that `~lenssr.SuperResolver` knows by name."""

    method: str  #: the class that solves it, as "module:name": it takes a Settings
    help: str = ""  #: one line for people
    has_prior: bool = False  #: whether it has a prior on its roughness
    may_be_negative: bool = False  #: whether the option ``positive`` may be False
    #: Makes the profile of a parametric source, or "module:name"; for others the Sérsic that starts the fit.
    profile: str | Callable[[], LightProfile] = "lenssr.light.sersic:SersicProfile"


LIGHT_CHOICE = "lenssr.reconstruction.light_choice:method_with_light"
PARAMETRIC = "lenssr.reconstruction.parametric:ParametricReconstruction"
FREEFORM = Source(
    method="lenssr.reconstruction.freeform:FreeFormReconstruction", has_prior=True, may_be_negative=True
)
#: Kinds of sources by name.
SOURCES: dict[str, Source] = {
    "interpolation": Source(
        method="lenssr.reconstruction.model_free:InterpolationReconstruction",
        help="none: bicubic interpolation, the baseline",
    ),
    "pixelated": replace(FREEFORM, help="brightness on a grid, free but for a prior on its roughness"),
    "perturbed_sersic": replace(FREEFORM, help="a Sérsic profile times a factor on such a grid"),
    "auto": replace(FREEFORM, help="sersic, pixelated or perturbed_sersic, by evidence"),
    "sersic": Source(method=PARAMETRIC, help="a Sérsic profile"),
    "network": Source(
        method="lenssr.reconstruction.network:network_method",
        has_prior=True,
        help="drawn by a trained network",
    ),
}

OWN_SOURCES = frozenset(SOURCES)


def register_source(name: str, profile: Callable[[], LightProfile], help: str = "") -> SourceName:
    """Add a parametric source model, so that ``SuperResolver(source=name)`` knows it.

    Parameters
    ----------
    name : str
        Its name for ``source=``: letters, digits and underscores. A name that was registered before gets
        the new profile.
    profile : type or callable
        A `~lenssr.light.profile.LightProfile` subclass, or a function without arguments that makes one. To
        be used in several processes it has to be defined in a module.
    help : str, optional
        Its meaning, in one line.

    Returns
    -------
    name : str
        The same name. A type checker accepts it as ``source=``, where it knows lenssr's own names only.

    Raises
    ------
    InputError
        If the name is not such a word or belongs to a source of lenssr, or ``profile`` makes no light
        profile.

    Examples
    --------
    >>> from lenssr import Sersic, SuperResolver, register_source
    >>> from lenssr.light.sersic import SersicProfile
    >>> def exponential():
    ...     return SersicProfile(Sersic(n=1.0, fixed={"n": True}))
    >>> disc = register_source("exponential", exponential, help="an exponential disc")
    >>> SuperResolver(source=disc).settings.profile().given.n.fixed
    True
    """
    from lenssr.light.profile import LightProfile

    if not isinstance(name, str) or not name.isidentifier():
        raise InputError(f"name = {name!r}: give a word of letters, digits and underscores")
    if name in OWN_SOURCES:
        raise InputError(f"the source {name!r} is lenssr's own: give another name")
    if not callable(profile) or not isinstance(profile(), LightProfile):
        raise InputError(f"profile = {profile!r} makes no LightProfile: give a class or function that does")
    SOURCES[name] = Source(method=PARAMETRIC, help=help, profile=profile)
    return SourceName(name)


# ---------------------------------------------------------------- SuperResolver

NETWORK_SOURCE = "lenssr.networks.network_source:NetworkSource"
_check_light = opt.checked_by("lenssr.light.lens_light:check_lens_light")
_check_device = opt.checked_by("lenssr._tensors:choose_device")
_check_angle = opt.such(opt.is_angle, "a positive FWHM such as 0.1 * u.arcsec, 'pixel' or None")


def _check_source(name: str, value: Any) -> None:
    if isinstance(value, str | None) or not isinstance(value, named(NETWORK_SOURCE)):
        opt.one_of(SOURCES)(name, value)


def _check_lens(name: str, value: Any) -> None:
    if isinstance(value, str) and value in FAMILIES:
        return
    if not isinstance(value, named("lenssr.mass.base:MassModel")):
        words = ", ".join(map(repr, FAMILIES))
        raise InputError(f"{name} = {value!r} is not a mass model: give one, such as SIE(1.2), or {words}")


def _plain_lens(lens: Any) -> Any:
    return lens if isinstance(lens, str) else lens.to_dict()


def _load_lens(plain: Any) -> Any:
    return plain if isinstance(plain, str) else named("lenssr.mass:from_dict")(plain)


def _check_planes(name: str, value: Any) -> None:
    if not isinstance(value, named("lenssr.mass:SourcePlanes")):
        raise InputError(f"{name} = {value!r}: give lenssr.mass.SourcePlanes(...), or leave it out")


def _planes_text(text: str) -> Any:
    try:
        return named("lenssr.mass:SourcePlanes").from_text(text)
    except InputError as error:
        raise ArgumentTypeError(str(error)) from error


def _load_planes(plain: Any) -> Any:
    return named("lenssr.mass:SourcePlanes")(**plain)


def _load_psf_out(plain: Any) -> Any:
    return plain if isinstance(plain, str) else named("astropy.units:Quantity")(*plain)


@dataclass(frozen=True, kw_only=True)
class Settings(Options):
    """The options of a `~lenssr.SuperResolver`, checked; it describes them.

    Raises
    ------
    InputError
        If an option has no meaning; the message lists those that have.
    """

    scale: int = option(
        "output pixels along an input pixel",
        default=2, check=opt.whole(1), flag="--scale", metavar="N", parse=opt.whole_number,
    )  # fmt: skip
    source: SourceKind | SourceName | NetworkSource = option(
        "the model of the source",
        default=AUTO, check=_check_source,
        flag="--source", metavar="SOURCE", choices=lambda: tuple(SOURCES),
    )  # fmt: skip
    lens: MassModel | LensFamily | None = option(
        "the lens, if it is known, or what is fitted: sie, epl (slope free), or auto, with shear",
        default=ISOTHERMAL, check=opt.unless((None,), _check_lens), flag="--lens", metavar="lens.yaml",
        save=_plain_lens, load=_load_lens,
    )  # fmt: skip
    source_planes: SourcePlanes | None = option(
        "two sources behind the lens: redshifts of all, 0.22,0.61,2.4, or their scaling, 0.7+-0.05",
        check=opt.unless((None,), _check_planes), flag="--source-planes", metavar="PLANES",
        parse=_planes_text,
        save=lambda planes: planes.to_dict(), load=_load_planes,
    )  # fmt: skip
    fit_lens: bool | None = option(
        "whether a lens that is given is refined",
        check=opt.one_of((None, True, False)), flag="--fit-lens", switch=True,
    )  # fmt: skip
    start: str | PathLike[str] = option(
        "where the fit of an unknown lens begins: search, network, or a file of a network's weights",
        default=SEARCH, flag="--start",
    )  # fmt: skip
    lens_light: str | Sersic | MultiGaussian | list[Any] | tuple[Any, ...] | None = option(
        "light of the lens galaxy, fitted too: none, sersic, mge, several (with commas), or auto",
        default=AUTO, check=_check_light,
        flag="--lens-light", metavar="MODEL", parse=opt.names_text, none=True,
        save=opt.late("lenssr.light:to_dict"), load=opt.late("lenssr.light:from_dict"),
    )  # fmt: skip
    mass_follows_light: bool = option(
        "whether an unknown lens has priors around the light of its galaxy",
        default=True, check=opt.one_of((True, False)),
    )  # fmt: skip
    sky: Literal["constant"] | None = option(
        "the sky that is fitted: constant, or None", default="constant", check=opt.one_of((None, "constant"))
    )
    oversampling: int | Literal["auto"] = option(
        "points along a pixel at which the model is sampled; auto integrates over the pixel",
        default="auto", check=opt.unless(("auto",), opt.whole(1)),
    )  # fmt: skip
    psf_out: Quantity | Literal["pixel"] | None = option(
        "FWHM of a Gaussian PSF of the output, or pixel for none; by default the telescope's",
        check=opt.unless((None, PIXEL), _check_angle),
        flag="--psf-out", metavar="ANGLE", parse=opt.word_or(PIXEL, opt.angle),
        save=lambda value: value if isinstance(value, str) else [float(value.value), str(value.unit)],
        load=_load_psf_out,
    )  # fmt: skip
    prior: PriorName = option(
        "prior on the roughness of a source on a grid",
        default="auto", check=opt.one_of(PRIORS), flag="--prior", metavar="PRIOR", choices=lambda: PRIORS,
    )  # fmt: skip
    positive: bool = option(
        "whether a source on a grid is positive", default=True, check=opt.one_of((True, False))
    )
    device: str = option("cpu, cuda or auto", default="auto", check=_check_device, flag="--device")
    seed: int = option("of the starts of the search, and of draws", default=0, check=opt.whole(0))
    # Kept with the settings: another process has not registered the source.
    _entry: Source = field(init=False, repr=False, compare=False)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        SOURCES.setdefault(self.kind, self._entry)

    def __post_init__(self) -> None:
        if self.lens is None:
            object.__setattr__(self, "lens", ISOTHERMAL)
        if isinstance(self.start, PathLike):
            object.__setattr__(self, "start", fspath(self.start))
        super().__post_init__()
        object.__setattr__(self, "_entry", SOURCES[self.kind])
        self._check_source_options()
        self._check_lens_options()
        if self.fit_lens is None:
            object.__setattr__(self, "fit_lens", not self.knows_lens)

    def _check_source_options(self) -> None:
        """Refuse options of another kind of source."""
        for name, trait in (("prior", "has_prior"), ("positive", "may_be_negative")):
            value = getattr(self, name)
            if value != self.options()[name].default and not getattr(self._entry, trait):
                known = [repr(kind) for kind, source in SOURCES.items() if getattr(source, trait)]
                given = f"{name} = {value!r} with source = {self.source!r}"
                raise InputError(f"{given}: only the sources {', '.join(known)} know it, leave it out")
        if self.psf_out is not None and self.kind == "interpolation":
            raise InputError(f"psf_out = {self.psf_out!r} with source = 'interpolation': leave it out")

    def _check_two_sources(self) -> None:
        """Refuse what is not done for two sources."""
        why = "two sources behind a lens with"
        if self._entry.method != PARAMETRIC and self.source != AUTO:
            raise InputError(f"{why} source = {self.source!r}: give 'sersic', or a source of register_source")
        if self.start != SEARCH:
            raise InputError(f"{why} start = {self.start!r}: leave it out")
        if self.knows_lens and self.source_planes is not None:
            if isinstance(self.lens, named("lenssr.mass.multi_plane:MultiPlane")):
                raise InputError(
                    f"source_planes = {self.source_planes!r}, but the lens has planes: leave it out"
                )

    def _check_lens_options(self) -> None:
        """Refuse options of an unknown lens where it is known, and of a known one where it is not."""
        if self.sources == 2:
            self._check_two_sources()
        if self.start != SEARCH and (self.knows_lens or self.kind == "interpolation"):
            raise InputError(f"start = {self.start!r} is for a fit of an unknown lens: leave it out")
        if isinstance(self.lens, str | None):
            if self.fit_lens is False:
                raise InputError("fit_lens = False without a lens: give lens=, or leave fit_lens out")
            if self.kind == "interpolation" and self.lens != ISOTHERMAL:
                raise InputError(f"lens = {self.lens!r} with source = 'interpolation': leave it out")
            return
        if not self.mass_follows_light:
            raise InputError(
                "mass_follows_light = False, but a lens that is given has no priors: leave it out"
            )
        if not self.fit_lens:
            return
        if self.lens.needs_prior and any(not p.fixed for p in self.lens.parameters if p.name == "kappa"):
            raise InputError("a free ConvergenceSheet is degenerate (mass-sheet degeneracy): fix its kappa")
        if all(parameter.fixed for parameter in self.lens.parameters):
            raise InputError("fit_lens = True, but every parameter of the lens is fixed: free one")

    @property
    def knows_lens(self) -> bool:
        """Whether the lens is given, rather than a family that is fitted."""
        return not isinstance(self.lens, str)

    @property
    def sources(self) -> int:
        """How many sources are behind the lens."""
        double = self.knows_lens and isinstance(self.lens, named("lenssr.mass:DoubleSourcePlane"))
        return 2 if double or self.source_planes is not None else 1

    @property
    def family(self) -> str | None:
        """The family of an unknown lens, or None."""
        return self.lens if isinstance(self.lens, str) else None

    @property
    def kind(self) -> str:
        """The name of the source's kind in ``SOURCES``."""
        return self.source if isinstance(self.source, str) else "network"

    @property
    def network(self) -> NetworkSource | None:
        """Which network draws the source, or None."""
        if self.kind != "network":
            return None
        return named(NETWORK_SOURCE)() if isinstance(self.source, str) else self.source

    def profile(self) -> LightProfile:
        """Make the profile of a parametric source; for others the Sérsic that their fit begins with."""
        make = self._entry.profile
        return (named(make) if isinstance(make, str) else make)()

    def method(self) -> Any:
        """Make the object that solves images with these settings."""
        if self.lens_light == AUTO:
            return named(LIGHT_CHOICE)(self)
        # Beside Gaussians of lens light no Sérsic source is looked for that a factor could multiply.
        lights = self.lens_light if isinstance(self.lens_light, list | tuple) else [self.lens_light]
        free = any(one == "mge" for one in lights if isinstance(one, str))
        source: SourceKind = "sersic" if self.sources == 2 else "pixelated" if free else "auto"
        settings = replace(self, source=source) if self.kind == AUTO else self
        return named(settings._entry.method)(settings)

    def describe(self) -> dict[str, Any]:
        """The settings as plain values, for people."""
        return {name: getattr(self, name) for name in self.names()} | {
            "source": self.kind,
            "lens": self.family or repr(self.lens),
            "source_planes": None if self.source_planes is None else repr(self.source_planes),
            "lens_light": named("lenssr.light.lens_light:describe_lens_light")(self.lens_light),
            "psf_out": None if self.psf_out is None else str(self.psf_out),
            "device": str(self.torch_device),
        }

    def save(self) -> dict[str, Any]:
        """The settings as JSON can hold them; of a network only the steps that follow, ``refine``."""
        plain = {}
        for name, one in self.options().items():
            value = self.kind if name == "source" else getattr(self, name)
            value = one.save(value) if one.save and value is not None else value
            plain[name] = value.item() if isinstance(value, np.generic) else value
        plain["refine"] = 0 if self.network is None else int(self.network.refine)
        return plain

    @classmethod
    def load(cls, plain: dict[str, Any], path: str | PathLike[str]) -> dict[str, Any]:
        """Options for a `~lenssr.SuperResolver` that `save` made plain; the file ``path`` holds the networks.

        Raises
        ------
        InputError
            If the file has options that are unknown here, or a source that is not registered.
        """
        known, options = cls.options(), dict(plain)
        refine = options.pop("refine", 0)
        unknown = [name for name in options if name not in known]
        if unknown:
            raise InputError(f"{path} has the option {unknown[0]!r}, which is unknown here: update lenssr")
        if plain["source"] not in SOURCES:
            raise InputError(f"{path} has source = {plain['source']!r}: import the module that registers it")
        for name, value in options.items():
            load = known[name].load
            options[name] = load(value) if load and value is not None else value
        if plain["source"] == "network":
            options["source"] = named(NETWORK_SOURCE)(path, refine)
        return options


#: Options of `~lenssr.SuperResolver` by name.
RESOLVER: dict[str, Option] = {
    **Settings.options(),
    "psf": Option(help="the PSF of every image; by default the one in its file"),
    "noise": Option(help="the noise of every image; by default its error plane"),
    "mask": Option(
        help="what to hide; auto: other objects",
        default=AUTO,
        flag="--mask",
        none=True,
        choices=lambda: (AUTO, opt.NONE),
    ),
}

#: How images are read; in Python the names of HDUs are hdus={"sci": ..., "err": ...}.
READING: dict[str, Option] = {
    "sci": Option(
        help="HDU of the image: a name, a number, or SCI,2 (default: SCI, IMAGE, DATA, or the only one)",
        flag="--sci", metavar="HDU",
    ),
    "err": Option(help="HDU of its errors, 1 sigma (default: ERR, RMS, ...)", flag="--err", metavar="HDU"),
    "band": Option(help="filter, or number of the plane, of a file with several", flag="--band"),
    "centre": Option(
        help="the lens's place on the sky, such as '10:00:28.6 +02:12:21' or '150.119 2.206' (degrees)",
        flag="--centre", metavar="PLACE",
    ),
    "size": Option(
        help="side of the cutout about --centre, such as 6arcsec",
        flag="--size", metavar="ANGLE", parse=opt.angle,
    ),
    "radius": Option(
        help="or: radius that holds lens and arcs, such as 2arcsec; half as much again is read",
        flag="--radius", metavar="ANGLE", parse=opt.angle,
    ),
    "error": Option(help="a FITS file of the errors (or variances)", flag="--err-file", metavar="F"),
    "weight": Option(help="a FITS file of the weights", flag="--wht-file", metavar="F"),
    "weight_kind": Option(
        help="what the weights are, where nothing says so", flag="--wht-kind",
        choices=lambda: ("exposure", "inverse_variance", "variance", "relative"),
    ),
    "exposure": Option(help="a FITS file of the exposure times", flag="--exposure-file", metavar="F"),
    "mask_bits": Option(
        help="bits of the mask that hide a pixel: names, a sum, or any (default: the archive's defects)",
        flag="--mask-bits", metavar="BITS", parse=opt.bits_text,
    ),
    "psf_oversampling": Option(
        help="samples of the PSF along a pixel, where its file does not say",
        flag="--psf-oversampling", metavar="N", parse=opt.whole_number,
    ),
    "psf_includes_pixel": Option(
        help="the PSF holds the response of the pixel", flag="--psf-includes-pixel", switch=True
    ),
    "unit": Option(help="unit of the pixels, such as electron/s, where BUNIT does not say", flag="--unit"),
    "zero_point": Option(
        help="AB magnitude of one unit, where the header does not say",
        flag="--zero-point", metavar="MAG", parse=float,
    ),
    "pixel_scale": Option(
        help="such as 0.05arcsec, where there is no WCS",
        flag="--pixel-scale", metavar="ANGLE", parse=opt.angle,
    ),
}  # fmt: skip


# ---------------------------------------------------------------- SersicPhotometry


@dataclass(frozen=True, kw_only=True)
class PhotometryOptions(Options):
    """The options of a `~lenssr.SersicPhotometry`, checked; it describes them.

    Raises
    ------
    InputError
        If an option has no meaning; the message lists those that have.
    """

    fit_shape: int | tuple[int, int] | Literal["auto"] = option(
        "side of the stamps in pixels; auto: 51, more for those whose light reaches others",
        default="auto", check=opt.unless(("auto",), lambda name, value: opt.pair(value, name, integer=True)),
        flag="--fit-shape", metavar="N", parse=opt.word_or("auto", opt.whole_number),
    )  # fmt: skip
    sky: Literal["constant"] | None = option(
        "the sky under each group: constant, or None",
        default="constant",
        check=opt.one_of(("constant", None)),
    )
    n_components: Literal[1, 2] = option(
        "2: a bulge and a disc",
        default=1, check=opt.one_of((1, 2)), flag="--components", parse=int, choices=lambda: (1, 2),
    )  # fmt: skip
    model: Any = option("a Sersic2D or Sersic whose fixed, bounds and tied hold")
    fixed: dict[str, bool] | None = option("parameters that are held, by name")
    bounds: dict[str, Any] | None = option("bounds of parameters, by name")
    tied: dict[str, Any] | None = option("functions that tie parameters, by name")
    xy_bounds: Any = option(
        "how far centres may move in pixels; by default a quarter of the stamp, at most 10",
        check=opt.unless((None,), lambda name, value: opt.pair(value, name)),
    )
    grouper: Any = option(
        "groups of galaxies that are fitted together",
        default="auto",
        check=opt.unless((None, "auto"), opt.such(callable, "a photutils SourceGrouper, 'auto' or None")),
    )
    loss: Literal["huber", "cauchy"] | None = option(
        "how residuals count: huber, cauchy, or None for squares", check=opt.one_of(("huber", "cauchy", None))
    )
    intervals: Literal["auto", "gaussian", "profile"] = option(
        "where errors come from", default="auto", check=opt.one_of(("auto", "gaussian", "profile"))
    )
    device: str = option("cpu, cuda or auto", default="auto", check=_check_device, flag="--device")
    progress_bar: bool = option(
        "whether a bar counts the fits", default=False, check=opt.one_of((False, True))
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.xy_bounds is not None:
            object.__setattr__(self, "xy_bounds", opt.pair(self.xy_bounds, "xy_bounds"))
        if not self.grows:
            object.__setattr__(self, "fit_shape", opt.pair(self.fit_shape, "fit_shape", integer=True))

    @property
    def box(self) -> tuple[int, int]:
        """Rows and columns of the box around a galaxy, in pixels."""
        return self.fit_shape if isinstance(self.fit_shape, tuple) else AUTO_SHAPE

    @property
    def grows(self) -> bool:
        """Whether boxes may be larger than `box`."""
        return isinstance(self.fit_shape, str)


#: Options of `~lenssr.SersicPhotometry` by name.
PHOTOMETRY: dict[str, Option] = {
    **PhotometryOptions.options(),
    "psf": Option(
        help="PSF: a FITS file, or a FWHM such as 0.1arcsec or 2.5pix; by default the image's own",
        flag="--psf", metavar="PSF", parse=opt.psf_text,
    ),
}  # fmt: skip
