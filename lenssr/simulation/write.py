"""Simulated lenses on disk: a FITS file for each, and a table of them."""

import logging
import warnings
from pathlib import Path

import numpy as np
import torch
from astropy.io import fits
from astropy.table import QTable, Table, vstack
from astropy.wcs import FITSFixedWarning

from lenssr._files import atomic, package_version
from lenssr.exceptions import InputError
from lenssr.grids import PixelGrid
from lenssr.mass import MassSystem, PointMass

__all__ = ["MANIFEST", "write_dataset", "write_item"]

MANIFEST = "manifest.ecsv"

log = logging.getLogger(__name__)


def write_dataset(dataset, directory, indices=None, *, overwrite=False, progress=False):
    """Write the lenses of a data set as FITS files, and ``manifest.ecsv``, a table of them.

    Parameters
    ----------
    dataset : `~lenssr.simulation.LensDataset`
        The data set.
    directory : str or `~pathlib.Path`
        Where to; made if it does not exist.
    indices : iterable of int, optional
        Which lenses; all by default.
    overwrite : bool, optional
        Whether files may be replaced; False by default.
    progress : bool, optional
        Whether to show a progress bar; False by default.

    Returns
    -------
    manifest : `~astropy.table.Table`
        One row for each lens: file, true parameters, exposures. Its ``meta`` holds the settings of the data
        set and the version of lenssr.

    Raises
    ------
    InputError
        If a file exists, before anything is written.

    Examples
    --------
    >>> import tempfile
    >>> from lenssr.simulation import DeepLense, write_dataset
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     manifest = write_dataset(DeepLense(size=3), folder)
    >>> list(manifest["file"])
    ['000000.fits', '000001.fits', '000002.fits']
    """
    directory = Path(directory)
    indices = list(range(len(dataset)) if indices is None else indices)
    if not indices:
        raise InputError("there are no indices: name at least one lens")
    _make_folder(directory)
    paths = [directory / MANIFEST, *(directory / file_name(index) for index in indices)]
    existing = [path for path in paths if path.exists()]
    if existing and not overwrite:
        raise InputError(
            f"{len(existing)} files exist, such as {existing[0]}: choose another folder, or overwrite=True"
        )
    log.info("simulating %d lenses in %s", len(indices), directory)
    if progress:
        from tqdm import tqdm

        indices = tqdm(indices, desc="simulating", unit="lens")
    rows = []
    for index in indices:
        item = dataset[index]
        path = write_item(item, directory, dataset.settings(), overwrite=overwrite)
        rows.append(Table([{"file": path.name, "index": item.index, **_manifest_row(item)}]))
    manifest = vstack(rows, metadata_conflicts="silent")
    manifest.meta = {**dataset.settings(), "version": package_version()}
    with atomic(directory / MANIFEST) as temporary:
        manifest.write(temporary, format="ascii.ecsv")
    return manifest


def file_name(index):
    """Name of the file of a lens."""
    return f"{index:06d}.fits"


def write_item(item, directory, settings, *, overwrite=False):
    """Write one simulated lens as a FITS file named by its index; return the path.

    Its HDUs: SCI (the low image), ERR (expected errors, where the noise does not follow from EXPTIME), PSF
    (at low pixels, if any), HIGH, TRUTH, LOWTRUTH, the tables LENS, LIGHT and, for point masses beside the
    lens, SUBHALOS. ``settings`` go into the primary header. Raises `InputError` if the file exists, or the
    folder does not.
    """
    path = Path(directory) / file_name(item.index)
    with atomic(path, overwrite) as temporary:
        _hdus(item, settings).writeto(temporary)
    return path


def _hdus(item, settings):
    primary = fits.PrimaryHDU()
    primary.header["ORIGIN"] = f"lenssr {package_version()}"
    primary.header["INDEX"] = item.index
    for name, value in settings.items():
        primary.header[name[:8].upper()] = value
    hdus = [primary, _ccd_hdu(item.low, "SCI")]
    _, _, variance = item.noise.moments(torch.as_tensor(item.low_truth.data))
    if np.any(item.noise.background_rms):
        error = np.broadcast_to(variance.sqrt().numpy(), item.low.shape)
        hdus.append(_ccd_hdu(item.low_truth, "ERR", error))
    if item.psf is not None:
        pixels = PixelGrid.from_wcs(item.low.wcs, item.low.shape).matrix
        hdus.append(fits.ImageHDU(item.psf.kernel(pixels), name="PSF"))
    for name, values in (("HIGH", item.high), ("TRUTH", item.truth), ("LOWTRUTH", item.low_truth)):
        hdus.append(_ccd_hdu(values, name))
    masses = [component for component in _components(item) if isinstance(component, PointMass)]
    if masses:
        columns = {name: [getattr(mass, name).value for mass in masses] for name in PointMass.param_names}
        hdus.append(fits.table_to_hdu(QTable(columns, units=dict.fromkeys(columns, "arcsec"))))
        hdus[-1].name = "SUBHALOS"
    for name, values in (("LENS", _lens_numbers(item)), ("LIGHT", _light_numbers(item))):
        table = QTable({"name": list(values), "value": np.array(list(values.values()), dtype=np.float64)})
        hdus.append(fits.table_to_hdu(table))
        hdus[-1].name = name
    return fits.HDUList(hdus)


def _ccd_hdu(image, name, data=None):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FITSFixedWarning)
        header = image.wcs.to_header()
    hdu = fits.ImageHDU(np.ascontiguousarray(image.data if data is None else data), header=header, name=name)
    hdu.header["BUNIT"] = str(image.unit)
    if "EXPTIME" in image.meta:
        hdu.header["EXPTIME"] = image.meta["EXPTIME"], "seconds"
    return hdu


def _components(item):
    return item.lens.components if isinstance(item.lens, MassSystem) else [item.lens]


def _lens_numbers(item):
    numbers = {}
    for component in _components(item):
        names = component.param_names
        # The origin of a shear has the names of the galaxy's centre, and is that of the image frame.
        names = [name for name in names if f"lens_{name}" not in numbers]
        numbers.update({f"lens_{name}": float(getattr(component, name).value) for name in names})
    return numbers


def _light_numbers(item):
    profiles = {"source": item.source, "light": item.lens_light}
    return {
        f"{prefix}_{name}": float(getattr(profile, name).value)
        for prefix, profile in profiles.items()
        if profile is not None
        for name in profile.param_names
    }


def _manifest_row(item):
    exposures = {"exposure": item.low.meta["EXPTIME"], "high_exposure": item.high.meta["EXPTIME"]}
    return {**_lens_numbers(item), **_light_numbers(item), **exposures, **item.settings}


def _make_folder(directory):
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{directory} cannot be made ({error.strerror}): give another folder") from error
