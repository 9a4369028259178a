"""The options of a `~lenssr.SuperResolver`, checked, and as plain values for a file."""

import inspect
from dataclasses import dataclass
from os import PathLike, fspath
from typing import Any

import astropy.units as u
import numpy as np

from lenssr.devices import choose_device
from lenssr.exceptions import InputError
from lenssr.light.lens_light import check_lens_light, describe_lens_light
from lenssr.mass import MassModel, from_dict
from lenssr.networks.network_source import NetworkSource
from lenssr.reconstruction.lens_search import SEARCH
from lenssr.reconstruction.output_psf import PIXEL
from lenssr.source.priors import PRIORS

__all__ = ["SOURCES", "Settings", "plain_settings", "settings_from"]

# Where each kind of source is solved.
SOURCES = {
    "interpolation": ("lenssr.reconstruction.model_free", "InterpolationReconstruction"),
    "pixelated": ("lenssr.reconstruction.freeform", "FreeFormReconstruction"),
    "perturbed_sersic": ("lenssr.reconstruction.freeform", "FreeFormReconstruction"),
    "auto": ("lenssr.reconstruction.freeform", "FreeFormReconstruction"),
    "sersic": ("lenssr.reconstruction.parametric", "ParametricReconstruction"),
    "network": ("lenssr.reconstruction.network", "network_method"),
}
SKIES = (None, "constant")
# Sources with a prior on their roughness, and those which may do without its positivity.
WITH_PRIOR = ("pixelated", "perturbed_sersic", "auto", "network")
MAYBE_NEGATIVE = WITH_PRIOR[:3]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The options of a `SuperResolver`, checked.

    Parameters
    ----------
    scale : int
    source : str or `~lenssr.NetworkSource`
    sky : str or None
    lens_light : None, str, model or list of these
    lens : `~lenssr.mass.MassModel` or None
    fit_lens : bool or None
    start : "search", "network" or path
    oversampling : int or "auto"
    psf_out : None, "pixel" or `~astropy.units.Quantity`
    prior : str
    positive : bool
    device : str
    seed : int

    Raises
    ------
    InputError
        If an option has no meaning; the message says which ones do.
    """

    scale: int = 2
    source: Any = "sersic"
    lens: Any = None
    fit_lens: bool | None = None
    start: Any = SEARCH
    lens_light: Any = None
    sky: str | None = "constant"
    oversampling: Any = "auto"
    psf_out: Any = None
    prior: str = "auto"
    positive: bool = True
    device: str = "auto"
    seed: int = 0

    def __post_init__(self):
        _check_count("scale", self.scale)
        if self.oversampling != "auto":
            _check_count("oversampling", self.oversampling)
        if not isinstance(self.source, NetworkSource):
            _check_choice("source", self.source, tuple(SOURCES))
        check_lens_light(self.lens_light)
        _check_choice("sky", self.sky, SKIES)
        self._check_source()
        self._check_psf_out()
        if isinstance(self.seed, bool) or not isinstance(self.seed, int | np.integer) or self.seed < 0:
            raise InputError(f"seed = {self.seed!r}: give an integer, 0 or larger")
        if self.lens is not None and not isinstance(self.lens, MassModel):
            raise InputError(
                f"lens = {self.lens!r} is no mass model: give one, such as SIE(1.2), or None to fit one"
            )
        if self.fit_lens not in (None, True, False):
            raise InputError(f"fit_lens = {self.fit_lens!r}: give True, False or None")
        if isinstance(self.start, PathLike):
            object.__setattr__(self, "start", fspath(self.start))
        if self.start != SEARCH and (self.lens is not None or self.kind == "interpolation"):
            raise InputError(
                f"start = {self.start!r}: it says where the fit of an unknown lens begins, leave it out "
                "where none is fitted"
            )
        if self.lens is None and self.fit_lens is False:
            raise InputError("fit_lens = False without a lens: give lens=, or leave fit_lens out")
        if self.fit_lens is None:
            object.__setattr__(self, "fit_lens", self.lens is None)
        if self.fit_lens and self.lens is not None:
            _check_fittable(self.lens)
        choose_device(self.device)

    @property
    def kind(self):
        """The name of the source's kind: what `SOURCES` knows."""
        return "network" if isinstance(self.source, NetworkSource) else self.source

    @property
    def network(self):
        """Which network draws the source, `~lenssr.NetworkSource`, or None."""
        if isinstance(self.source, NetworkSource):
            return self.source
        return NetworkSource() if self.source == "network" else None

    def _check_source(self):
        """Refuse options of another kind of source."""
        _check_choice("prior", self.prior, ("auto", *PRIORS))
        if not isinstance(self.positive, bool | np.bool_):
            raise InputError(f"positive = {self.positive!r}: give True or False")
        for name, usual, known in (("prior", "auto", WITH_PRIOR), ("positive", True, MAYBE_NEGATIVE)):
            if self.kind not in known and getattr(self, name) != usual:
                raise InputError(
                    f"{name} = {getattr(self, name)!r} with source = {self.source!r}: only the sources "
                    f"{', '.join(map(repr, known))} know it, leave it out"
                )

    def _check_psf_out(self):
        psf_out = self.psf_out
        if psf_out is None or (isinstance(psf_out, str) and psf_out == PIXEL):
            pass
        elif not isinstance(psf_out, u.Quantity) or not psf_out.isscalar:
            raise InputError(f"psf_out = {psf_out!r}: give a FWHM such as 0.1 * u.arcsec, {PIXEL!r} or None")
        elif not psf_out.unit.is_equivalent(u.arcsec) or not 0 < psf_out.value < np.inf:
            raise InputError(f"psf_out = {psf_out} is not a positive angle: give arcsec")
        if psf_out is not None and self.source == "interpolation":
            raise InputError(
                f"psf_out = {psf_out!r} with source = 'interpolation': what is interpolated keeps the PSF of "
                "the telescope, leave it out"
            )

    def profile(self):
        """A fresh light profile of a parametric source."""
        from lenssr.light.sersic_profile import SersicProfile

        return SersicProfile()

    @property
    def torch_device(self):
        """The device that "auto" stands for here."""
        return choose_device(self.device)

    def describe(self):
        """The settings as plain values."""
        plain = {name: getattr(self, name) for name in self.__dataclass_fields__}
        plain["source"] = self.kind
        plain["lens"] = None if self.lens is None else repr(self.lens)
        plain["lens_light"] = describe_lens_light(self.lens_light)
        plain["psf_out"] = None if self.psf_out is None else str(self.psf_out)
        plain["device"] = str(self.torch_device)
        return plain


def plain_settings(settings):
    """Options of a `~lenssr.SuperResolver` as JSON can hold them; networks by the steps that follow only."""
    plain = {name: getattr(settings, name) for name in Settings.__dataclass_fields__}
    plain["source"], network = settings.kind, settings.network
    plain["refine"] = 0 if network is None else int(network.refine)
    plain["lens"] = None if settings.lens is None else _plain_lens(settings.lens)
    light = settings.lens_light
    entries = light if isinstance(light, list | tuple) else [light]
    if not all(entry is None or isinstance(entry, str) for entry in entries):
        raise InputError(
            f"lens_light = {light!r}: a resolver is saved with lights by name only, such as 'sersic'; give "
            "the model again after loading"
        )
    plain["lens_light"] = list(light) if isinstance(light, tuple) else light
    if isinstance(settings.psf_out, u.Quantity):
        plain["psf_out"] = [float(settings.psf_out.value), str(settings.psf_out.unit)]
    return {name: value.item() if hasattr(value, "item") else value for name, value in plain.items()}


def settings_from(plain, path):
    """Options of a `~lenssr.SuperResolver` from what `plain_settings` made; networks are in a file."""
    options = dict(plain)
    refine = options.pop("refine")
    if options["source"] == "network":
        options["source"] = NetworkSource(path, refine)
    if options["lens"] is not None:
        options["lens"] = from_dict(options["lens"])
    if isinstance(options["psf_out"], list):
        options["psf_out"] = u.Quantity(*options["psf_out"])
    return options


def _check_count(name, value):
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise InputError(f"{name} = {value!r}: give an integer, 1 or larger")


def _check_choice(name, value, choices):
    if not (value is None or isinstance(value, str)) or value not in choices:
        raise InputError(f"{name} = {value!r}: give one of {', '.join(map(repr, choices))}")


def _check_fittable(lens):
    if lens.needs_prior and any(not p.fixed for p in lens.parameters if p.name == "kappa"):
        raise InputError(
            "a free ConvergenceSheet cannot be told from the size of the source (mass-sheet degeneracy): "
            "set its kappa.fixed = True"
        )
    if all(parameter.fixed for parameter in lens.parameters):
        raise InputError(
            "fit_lens = True, but every parameter of the lens is fixed: free one, or leave fit_lens out"
        )


def _plain_lens(lens):
    parts = getattr(lens, "components", (lens,))
    return [{type(part).__name__: _plain_part(part)} for part in parts]


def _plain_part(part):
    more = [name for name in inspect.signature(type(part)).parameters if name not in part.param_names]
    if more:
        raise InputError(
            f"a {type(part).__name__} has {more[0]}, which is not saved with a resolver: leave lens= out"
        )
    values = {p.name: float(p.value) for p in part.parameters}
    bounds = {p.name: list(p.bounds) for p in part.parameters if p.bounds != (None, None)}
    return {**values, "fixed": [p.name for p in part.parameters if p.fixed], "bounds": bounds}
