"""Posterior and draws of a result in a file."""

import astropy.units as u
import numpy as np
from astropy.table import Table

from lenssr._limits import check_unit_text
from lenssr.exceptions import InputError
from lenssr.options import named
from lenssr.posterior import PosteriorDraws

__all__ = ["DRAWN_PLANES", "StoredPosterior", "draws_of", "draws_table", "plain_draws"]

FROM_PLAIN = "lenssr.reconstruction.kept_posterior:from_plain"
# HDUs of the images of draws, by field.
DRAWN_PLANES = {"image": "DRAWS_SCI", "source": "DRAWS_SOURCE"}
WEIGHT = "weight"


class StoredPosterior:
    """The posterior of a result that was read, built when it is asked for."""

    def __init__(self, plain):
        self._plain, self._kept = plain, None

    def plain(self):
        """What the file held."""
        return self._plain

    def __getattr__(self, name):
        if name.startswith("_") or name not in ("changes", "target", "images"):
            raise AttributeError(name)
        if self._kept is None:
            try:
                self._kept = named(FROM_PLAIN)(self._plain)
            except InputError:
                raise
            except (ArithmeticError, LookupError, TypeError, ValueError) as error:
                why = f"{type(error).__name__}: {error}"
                raise InputError(f"the posterior of the file cannot be built ({why}): run again") from error
        return getattr(self._kept, name)


def draws_table(draws):
    """The DRAWS table: a column for each parameter, with its unit, and ``weight``."""
    table = Table({_column_name(name): draws.values[:, k] for k, name in enumerate(draws.names)})
    for name, unit in zip(draws.names, draws.units, strict=True):
        table[_column_name(name)].unit = _fits_unit(unit)
    table[WEIGHT] = draws.weights
    return table


def _column_name(name):
    """A parameter's name in letters, digits and underscores, as FITS wants those of columns."""
    return name.replace(".", "_")


def _fits_unit(text):
    """The unit of a column as FITS spells it; None where it cannot, META has it then."""
    try:
        return u.Unit(u.Unit(text).to_string("fits")) if text else None
    except ValueError:
        return None


def plain_draws(draws):
    """What META holds of draws, and name, array, comment and unit of the HDUs of their images."""
    about = {"names": list(draws.names), "units": list(draws.units), "method": draws.method}
    about["diagnostics"] = draws.diagnostics
    planes = []
    for field, hdu in DRAWN_PLANES.items():
        value = getattr(draws, field)
        if value is not None:
            about[f"{field}.unit"] = value.unit.to_string()
            planes.append((hdu, value.value, f"{field} of each draw", value.unit))
    return about, planes


def draws_of(about, found):
    """Draws from what META holds, and the data of their HDUs by name."""
    table, planes = found["DRAWS"], {}
    # Older files have the names of the parameters themselves.
    columns = [name if name in table.dtype.names else _column_name(name) for name in about["names"]]
    for field, hdu in DRAWN_PLANES.items():
        if hdu in found:
            check_unit_text(about[f"{field}.unit"], f"the unit of {hdu}")
            planes[field] = found[hdu] * u.Unit(about[f"{field}.unit"], parse_strict="silent")
    for unit in about["units"]:
        check_unit_text(unit, "the unit of a parameter")
    return PosteriorDraws(
        names=tuple(about["names"]),
        values=np.stack([np.asarray(table[name], dtype=float) for name in columns], axis=1),
        units=tuple(about["units"]),
        method=about["method"],
        weights=np.asarray(table[WEIGHT], dtype=float),
        diagnostics=about["diagnostics"],
        **planes,
    )
