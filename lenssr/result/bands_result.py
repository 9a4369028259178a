"""The result of several bands or exposures of one lens: what they share, and a result of each band."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self

import astropy.units as u
import numpy as np
from astropy.table import QTable, vstack
from numpy.typing import NDArray

from lenssr.exceptions import InputError
from lenssr.result.bands_file import prefixes, read, write
from lenssr.result.grade import OK_GRADES, worst
from lenssr.result.resolution import SuperResolution
from lenssr.result.text import as_html, describe_bands

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.figure

    from lenssr.mass import MassModel

__all__ = ["BandsResolution"]

# What only a band has.
_OF_A_BAND = {one.name for one in fields(SuperResolution)} | {"magnitudes", "sample", "colours"}


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class BandsResolution:
    """The result of one run of `~lenssr.SuperResolver` on several bands or exposures of one lens.

    The lens is shared; ``result["F814W"]`` is the `SuperResolution` of a band, with its image, source, lens
    light, residual, sky and errors. Attributes of a band (``result.image``) are those of the only band, where
    there is one.

    Parameters
    ----------
    bands : dict of `SuperResolution`
        By the names of the bands, in the order in which they were given.
    lens : `~lenssr.mass.MassModel` or None
        In the image frame of the first band, with errors by all bands that were fitted together.
    left_out : tuple of str
        Bands that the lens does not explain: solved behind the lens of the others.
    flags : tuple of str
        Flags of all bands by their names; flags of single ones behind the band, ``"F814W: bad_chi2"``.
    grade : {"secure", "probable", "doubtful", "failed"}
        The worst grade of a band that is not left out; "doubtful" at best if only one band is left.
    meta : dict
        ``seconds``, ``evidence`` of all bands, and the band in which the lens was found,
        ``lens_found_in``.

    Examples
    --------
    >>> from astropy.nddata import CCDData
    >>> from lenssr import SuperResolver
    >>> import numpy as np
    >>> image = CCDData(np.eye(20), unit="electron/s")
    >>> resolver = SuperResolver(source="interpolation")
    >>> result = resolver({"g": image, "r": image}, pixel_scale=0.1, noise=0.1)
    >>> list(result.bands), result["r"].image.shape
    (['g', 'r'], (40, 40))
    """

    bands: Mapping[str, SuperResolution]
    lens: MassModel | None = None
    left_out: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    grade: str = "probable"
    meta: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        bands: Mapping[str, SuperResolution],
        *,
        lens: MassModel | None = None,
        left_out: Iterable[str] | None = None,
        meta: Mapping[str, Any] | None = None,
    ) -> Self:
        """Put results of bands together.

        Parameters
        ----------
        bands : dict of `SuperResolution`
        lens : `~lenssr.mass.MassModel`, optional
            The lens that they share, which then is the lens of each.
        left_out : iterable of str, optional
        meta : dict, optional

        Returns
        -------
        result : `BandsResolution`
        """
        out = tuple(left_out or ())
        shared = {name: one if lens is None else _with_lens(one, lens) for name, one in bands.items()}
        kept = [one for name, one in shared.items() if name not in out]
        grade = worst([one.grade for one in kept] + ["doubtful"] * bool(out and len(kept) < 2))
        flags = _joined_flags(shared)
        return cls(
            bands=MappingProxyType(shared),
            lens=lens,
            left_out=out,
            flags=flags,
            grade=grade,
            meta=dict(meta or {}),
        )

    @property
    def ok(self) -> bool:
        """Whether the grade is "secure" or "probable"."""
        return self.grade in OK_GRADES

    def __getitem__(self, band: str) -> SuperResolution:
        if band not in self.bands:
            raise InputError(f"there is no band {band!r}: give one of {', '.join(self.bands)}")
        return self.bands[band]

    def __iter__(self) -> Iterator[str]:
        return iter(self.bands)

    def __len__(self) -> int:
        return len(self.bands)

    def __getattr__(self, name: str) -> Any:
        if name not in _OF_A_BAND:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        if len(self.bands) > 1:
            known, first = ", ".join(self.bands), next(iter(self.bands))
            raise AttributeError(f"{name} is of a band: ask result[{first!r}].{name} (bands: {known})")
        return getattr(next(iter(self.bands.values())), name)

    def __reduce__(self) -> Any:
        return _made, (
            {one.name: getattr(self, one.name) for one in fields(self)} | {"bands": dict(self.bands)},
        )

    @property
    def R_E(self) -> u.Quantity:
        """Effective Einstein radius in arcsec, as of `SuperResolution`."""
        return next(iter(self.bands.values())).R_E

    @property
    def R_E_error(self) -> u.Quantity:
        """Standard error of ``R_E``, by all bands."""
        return next(iter(self.bands.values())).R_E_error

    @property
    def reduced_chi2(self) -> float:
        """Chi2 of all bands that are not left out, over their degrees of freedom."""
        kept = [one for name, one in self.bands.items() if name not in self.left_out]
        chi2 = np.array([one.chi2_map.sum() for one in kept])
        each = np.array([one.reduced_chi2 for one in kept])
        degrees = chi2 / np.where(each > 0, each, 1.0)
        return float(chi2.sum() / max(degrees.sum(), np.finfo(float).tiny))

    @property
    def parameters(self) -> QTable:
        """Parameters of all bands; the column ``band`` is empty for those of the lens."""
        parts = []
        for number, (name, one) in enumerate(self.bands.items()):
            table = one.parameters.copy()
            table.meta.clear()
            of_lens = np.array([row == "lens" for row in table["component"]], dtype=bool)
            bands = np.where(of_lens & (self.lens is not None), "", name)
            table.add_column(bands, index=0, name="band")
            parts.append(table if number == 0 or self.lens is None else table[~of_lens])
        return vstack(parts)

    def colour(self, what: str = "image") -> NDArray[np.uint8]:
        """Colour picture of two or three bands, by `~astropy.visualization.make_lupton_rgb`.

        Parameters
        ----------
        what : {"data", "lens_subtracted", "model", "image", "source"}, optional
            The data, also without the light of the lens, the model of them, the super-resolved model
            (default) or the source, on the pixels of the first band.

        Returns
        -------
        picture : `~numpy.ndarray`, shape (ny, nx, 3)
            Red is the band with the longest wavelength, by the numbers in the names of the bands; of two
            bands green is their mean.

        Raises
        ------
        InputError
            If there are fewer than two or more than three bands, or one has no such plane or light of the
            lens.
        """
        from lenssr.result.colour import colour_picture

        return colour_picture(self, what)

    def write(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write everything to one FITS file; names of planes stand behind that of the band.

        Parameters
        ----------
        path : str or `~pathlib.Path`
        overwrite : bool, optional
            Whether an existing file may be replaced; no by default.

        Raises
        ------
        InputError
            If the file exists and ``overwrite`` is false, or its folder is missing or not writable.
        """
        write(self, path, overwrite)

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Self:
        """Read a file that `write` made.

        Parameters
        ----------
        path : str or `~pathlib.Path`

        Returns
        -------
        result : `BandsResolution`

        Raises
        ------
        InputError
            If the file is missing, damaged or not the result of bands.
        """
        return read(path, cls, SuperResolution)

    def plot(
        self,
        *,
        panels: Sequence[str] | None = None,
        figure: matplotlib.figure.Figure | matplotlib.figure.SubFigure | None = None,
        path: str | os.PathLike[str] | None = None,
    ) -> matplotlib.figure.Figure | matplotlib.figure.SubFigure:
        """Draw a row of panels for every band, and one of colour pictures and the verdict.

        Parameters
        ----------
        panels : sequence of str, optional
            Of a row, as for `SuperResolution.plot`.
        figure : `~matplotlib.figure.Figure` or subfigure, optional
            Where to draw; a new figure, outside pyplot, by default.
        path : str or `~pathlib.Path`, optional
            Where to save it; not saved by default.

        Returns
        -------
        figure : `~matplotlib.figure.Figure`

        Raises
        ------
        InputError
            If there is no such panel, or the path cannot be written.
        """
        from lenssr.result.bands_plot import draw_bands
        from lenssr.result.plot import save

        figure = draw_bands(self, figure, panels)
        if path is not None:
            save(figure, path)
        return figure

    def to_coolest(
        self,
        path: str | os.PathLike[str],
        *,
        z_lens: float | None = None,
        z_source: float | None = None,
        overwrite: bool = False,
    ) -> None:
        """Write a template of COOLEST for each band, and the files beside them: all of them, or none.

        Parameters
        ----------
        path : str or `~pathlib.Path`
            ``NAME.json``: the template of a band is ``NAME_BAND.json``.
        z_lens, z_source : float, optional
            Redshifts, which some codes ask for; unknown by default.
        overwrite : bool, optional
            Whether existing files may be replaced; no by default.

        Raises
        ------
        InputError
            As `SuperResolution.to_coolest` does.
        """
        from lenssr.result.coolest_files import template_path, write_coolest

        place = template_path(path)
        found = {
            place.with_name(f"{place.stem}_{prefix.strip('_')}.json"): self.bands[name]
            for name, prefix in prefixes(self.bands).items()
        }
        write_coolest(found, z_lens=z_lens, z_source=z_source, overwrite=overwrite)

    def plot_panel(self, panel: str, *, ax: matplotlib.axes.Axes | None = None) -> matplotlib.axes.Axes:
        """Draw the colour picture of two or three bands into axes; ``result[band].plot_panel`` draws a band.

        Parameters
        ----------
        panel : {"data", "lens_subtracted", "model", "image", "source"}
        ax : `~matplotlib.axes.Axes`, optional
            Where to draw; axes of a new figure, outside pyplot, by default.

        Returns
        -------
        ax : `~matplotlib.axes.Axes`

        Raises
        ------
        InputError
            If there is no such picture, or it cannot be made, see `colour`.
        """
        from lenssr.result.bands_plot import draw_colour
        from lenssr.result.plot import new_axes

        return draw_colour(self, panel, new_axes() if ax is None else ax, titled=True)

    def summary(self) -> str:
        """Say in a few lines of text what came out: of the lens, and of every band."""
        return describe_bands(self)

    def _repr_html_(self) -> str:
        return as_html(self)

    def __repr__(self) -> str:
        flags = f", flags: {', '.join(self.flags)}" if self.flags else ""
        names = ", ".join(self.bands)
        return f"<BandsResolution {names}, {self.grade}, reduced chi2 {self.reduced_chi2:.3g}{flags}>"


def _made(told: dict[str, Any]) -> BandsResolution:
    """Undo `BandsResolution.__reduce__`: a mapping proxy has no copy."""
    return BandsResolution(**told | {"bands": MappingProxyType(told["bands"])})


def _with_lens(result: SuperResolution, lens: MassModel) -> SuperResolution:
    """The result of a band with the lens that all bands share, in its table too."""
    table = result.parameters.copy()
    shared = dict(zip(lens.param_names, lens.parameters, strict=True))
    for row, (component, name) in enumerate(zip(table["component"], table["name"], strict=True)):
        if component != "lens":
            continue
        parameter = shared[str(name)]
        table["value"][row] = float(parameter.value)
        if not table["fixed"][row]:
            table["error"][row] = np.nan if parameter.std is None else float(parameter.std)
    return replace(result, lens=lens, parameters=table)


def _joined_flags(bands: Mapping[str, SuperResolution]) -> tuple[str, ...]:
    """Flags that all bands have, then those of single bands behind their names."""
    first = next(iter(bands.values())).flags
    common = [flag for flag in first if all(flag in one.flags for one in bands.values())]
    single = [f"{name}: {flag}" for name, one in bands.items() for flag in one.flags if flag not in common]
    return (*common, *single)
