"""A `~lenssr.SuperResolution` in words."""

import numpy as np

from lenssr._html import html_table
from lenssr._wcs import pixel_side, scale_matrix


def meta_value(meta, *names, default=None):
    """Look a value up in a dict or header, by its name in any case."""
    lower = {str(key).lower(): value for key, value in meta.items()}
    return next((lower[name] for name in names if name in lower), default)


def sky_scale(image):
    """Pixel scale of an image in arcsec: of its meta, or else its WCS; None without both."""
    value = meta_value(image.meta, "pixel_scale", "pixscale")
    if value is not None:
        return float(getattr(value, "value", value))
    if image.wcs is None:
        return None
    matrix = scale_matrix(image.wcs.celestial if image.wcs.has_celestial else image.wcs)
    to_arcsec = 3600.0 if image.wcs.has_celestial else 1.0
    return pixel_side(matrix[:2, :2]) * to_arcsec


def pixel_scales(result):
    """Pixel scales of input and image in arcsec; (None, None) if neither meta nor WCS has one."""
    coarse = sky_scale(result.data) or meta_value(result.meta, "pixel_scale")
    if coarse is None:
        return None, None
    return float(coarse), float(coarse) * result.data.shape[1] / result.image.shape[1]


def is_model(result):
    """Whether the image is a model rather than interpolated."""
    return bool(meta_value(result.image.meta, "model", default=True))


def number_text(value, error=np.nan):
    """Write a value with its error, to two digits of the error."""
    if not np.isfinite(error) or error <= 0:
        return f"{value:.5g}"
    # Fixed decimals read better, but for errors far above or below 1.
    decimals = 1 - int(np.floor(np.log10(error)))
    if -2 <= decimals <= 8 and abs(value) < 1e6:
        return f"{value:.{max(decimals, 0)}f} +- {error:.{max(decimals, 0)}f}"
    return f"{value:.6g} +- {error:.2g}"


def rows_text(result):
    """List (component, name, value with error, unit) of every parameter."""
    for row in result.parameters:
        value = number_text(float(row["value"]), float(row["error"]))
        value += "  (fixed)" if row["fixed"] else ""
        yield str(row["component"]), str(row["name"]), value, str(row["unit"])


def einstein_text(result):
    """Einstein radius of the lens with its error, if it has one parameter of that name; otherwise None."""
    lens = [row for row in result.parameters if row["component"] == "lens"]
    radii = [row for row in lens if row["name"].startswith("theta_E")]
    return number_text(float(radii[0]["value"]), float(radii[0]["error"])) if len(radii) == 1 else None


def describe(result):
    """Write the text of `~lenssr.SuperResolution.summary`."""
    coarse, fine = pixel_scales(result)
    kind = "model" if is_model(result) else "interpolated"
    flags = ", ".join(result.flags) or "none"
    masked = 0 if result.data.mask is None else int(np.sum(result.data.mask))
    lines = [
        f"verdict        {result.grade}; flags: {flags}",
        f"data           {_size(result.data, coarse)}, {masked} masked",
        f"image          {_size(result.image, fine)}, {kind}, {_unit(result.image)}",
    ]
    if result.source is not None:
        size = _size(result.source, sky_scale(result.source))
        lines.append(f"source         {size}, {_unit(result.source)}")
    if result.second_source is not None:
        size = _size(result.second_source, sky_scale(result.second_source))
        lines.append(f"second source  {size}, {_unit(result.second_source)}")
    if np.isfinite(result.R_E):
        radius = number_text(result.R_E.value, result.R_E_error.value)
        lines.append(f"R_E            {radius} arcsec, of the area inside the tangential critical curve")
    if np.isfinite(result.magnification):
        total = number_text(result.magnification, result.magnification_error)
        if np.isfinite(result.second_magnification):
            second = number_text(result.second_magnification, result.second_magnification_error)
            total += f", {second} of the second source"
        lines.append(f"magnification  {total}, conditional on the family of the mass model")
    if result.magnitudes:
        told = ", ".join(
            f"{name.replace('_', ' ')} {one.value:.3f}" for name, one in result.magnitudes.items()
        )
        lines.append(f"AB magnitudes  {told}")
    lines.append(f"reduced chi2   {result.reduced_chi2:.4g}")
    if "seconds" in result.meta:
        lines.append(f"seconds        {result.meta['seconds']:.3g}")
    rows = list(rows_text(result))
    if rows:
        widths = [max(len(row[i]) for row in rows) for i in range(3)]
        lines.append("parameters (errors conditional on the model)")
        for *cells, unit in rows:
            padded = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
            lines.append(f"  {'  '.join(padded)}  {unit}".rstrip())
    return "\n".join(lines)


def describe_bands(result):
    """Write the text of `~lenssr.result.BandsResolution.summary`."""
    flags = ", ".join(result.flags) or "none"
    lines = [
        f"verdict        {result.grade}; flags: {flags}",
        f"bands          {', '.join(map(str, result.bands))}",
    ]
    if result.left_out:
        lines.append(f"left out       {', '.join(result.left_out)}")
    if np.isfinite(result.R_E):
        radius = number_text(result.R_E.value, result.R_E_error.value)
        lines.append(f"R_E            {radius} arcsec, of the area inside the tangential critical curve")
    lines.append(f"reduced chi2   {result.reduced_chi2:.4g}")
    if "seconds" in result.meta:
        lines.append(f"seconds        {result.meta['seconds']:.3g}")
    told = ("verdict", "data", "image", "source", "magnification", "AB magnitudes", "reduced chi2")
    for name, band in result.bands.items():
        lines.append(f"band {name}")
        lines += [f"  {line}" for line in describe(band).splitlines() if line.startswith(told)]
    table = result.parameters
    if len(table):
        lines.append("parameters (errors conditional on the model)")
        rows = [
            (str(row["band"]) or "shared", *told) for row, told in zip(table, rows_text(result), strict=True)
        ]
        widths = [max(len(row[i]) for row in rows) for i in range(4)]
        for *cells, unit in rows:
            padded = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
            lines.append(f"  {'  '.join(padded)}  {unit}".rstrip())
    return "\n".join(lines)


def as_html(result):
    """The summary of a result, and the table of its parameters, for a notebook."""
    lines = result.summary().split("parameters (errors")[0].splitlines()
    facts = [(line[:15].strip(), line[15:].strip()) for line in lines]
    table = result.parameters
    columns = ("band", "component", "name", "value", "error", "unit", "fixed")
    names = [name for name in columns if name in table.colnames]
    rows = [[_cell(row[name]) for name in names] for row in table]
    return html_table(type(result).__name__, facts) + (html_table("parameters", rows, names) if rows else "")


def _cell(value):
    """A cell of the table of parameters; empty for no error, and for what is not fixed."""
    if isinstance(value, float | np.floating):
        return f"{value:.5g}" if np.isfinite(value) else ""
    return ("yes" if value else "") if isinstance(value, bool | np.bool_) else str(value)


def _size(image, scale):
    return f"{image.shape[1]} x {image.shape[0]} pixels" + ("" if scale is None else f' of {scale:.4g}"')


def _unit(image):
    unit = image.unit.to_string()
    return f"unit {unit}" if unit else "no unit"
