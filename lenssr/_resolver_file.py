"""Settings of a resolver as plain values, and back."""

import inspect

import astropy.units as u

from lenssr.exceptions import InputError
from lenssr.mass import from_dict
from lenssr.networks.source import NetworkSource
from lenssr.settings import Settings

__all__ = ["plain_settings", "settings_from"]


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
