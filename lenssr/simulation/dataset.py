"""The bases of simulated data sets, and the files that they write."""

import inspect
import io
import logging
import math
import operator
import os
import re
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from astropy.io import fits
from astropy.nddata import CCDData
from astropy.table import QTable, Table
from astropy.units import UnitBase
from astropy.wcs import FITSFixedWarning
from numpy.random import Generator
from numpy.typing import NDArray
from tqdm import tqdm

from lenssr._files import atomic, local_path, package_version, sweep
from lenssr._limits import check_memory
from lenssr._quiet import quiet
from lenssr._tensors import usual_torch
from lenssr.exceptions import InputError
from lenssr.grids import PixelGrid
from lenssr.imaging.noise import PoissonNoise, stack_noise
from lenssr.mass import MassModel, MassSystem, PointMass
from lenssr.simulation.camera import Camera, binned, draw_noise
from lenssr.simulation.notes import Notes
from lenssr.simulation.scenes import LensBatch, LensDraw, SimulatedLens, image, make_scenes
from lenssr.units import positive_integer, strip_unit

# Cameras that are kept with their rays.
_CAMERAS_KEPT = 8
_MANIFEST = "manifest.ecsv"
# Rows of the manifest while a data set is written; bytes of one in memory.
_NOTES, ROW_BYTES = "manifest.unfinished.jsonl", 1500

log = logging.getLogger(__name__)


class LensDataset(ABC):
    """A seeded sequence of simulated lenses.

    Item i depends on the seed and on i only, not on the items made before it. Subclasses make an item in
    ``_item(index)``. Their settings are those arguments of their call that are attributes of the same name.

    Parameters
    ----------
    size : int
        Number of lenses.
    seed : int
        Seed of the random numbers; not negative.
    """

    size: int
    seed: int
    _stream = 0

    def __init__(self, size: int, seed: int) -> None:
        self.size, self.seed = positive_integer(size, "size"), positive_integer(seed, "seed", 0)

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> SimulatedLens:
        """Simulate one lens; negative numbers count from the end."""
        return self._item(self._checked_index(index))

    def __iter__(self) -> Iterator[SimulatedLens]:
        return (self[index] for index in range(self.size))

    def __repr__(self) -> str:
        settings = ", ".join(f"{name}={value!r}" for name, value in self._arguments().items())
        return f"{type(self).__name__}({settings})"

    def _arguments(self) -> dict[str, Any]:
        names = inspect.signature(type(self)).parameters
        return {name: getattr(self, name) for name in names if hasattr(self, name)}

    def rng(self, index: int, *purpose: int) -> Generator:
        """Start the random numbers of an item; ``purpose`` names another, independent stream of it."""
        return np.random.default_rng([self.seed, index, self._stream, *purpose])

    def settings(self) -> dict[str, Any]:
        """Return the settings by name, plain values."""
        plain = (str, int, float, type(None))
        values = {n: v if isinstance(v, plain) else repr(v) for n, v in self._arguments().items()}
        return {"dataset": type(self).__name__, **values}

    def write(self, index: int, directory: str | Path, *, overwrite: bool = False) -> Path:
        """Write one lens as a FITS file in an existing folder, named by its index (``000042.fits``).

        Returns the path. Raises `InputError` if the folder does not exist, or if the file does, unless
        ``overwrite`` is True.
        """
        return _write_item(self[index], directory, self.settings(), overwrite)

    @abstractmethod
    def _item(self, index: int) -> SimulatedLens:
        """Simulate the lens of a checked index."""

    def _checked_index(self, index: Any) -> int:
        try:
            number = operator.index(index)
        except TypeError as error:
            raise InputError(f"index {index!r} is not an integer: give one, or iterate") from error
        if not -self.size <= number < self.size:
            raise IndexError(f"index {number} is out of range: the data set has {self.size} lenses")
        return number % self.size


class BatchedLenses(LensDataset):
    """A seeded sequence of simulated lenses, one by one or in batches.

    Subclasses of this `LensDataset` draw the parameters of a lens in ``_draw(index)``, on the CPU, make its
    camera in ``_make_camera(number)``, and name the kind of lens in ``_lens``.
    """

    # Number of lenses in a row that share a camera; None: all do.
    _block: int | None = None
    _lens: MassModel | MassSystem
    # The lens, if all scenes have the same one.
    _common_lens: MassModel | MassSystem | None = None

    def __init__(self, size: int, seed: int) -> None:
        super().__init__(size, seed)
        self._cameras: dict[int, Camera] = {}

    @usual_torch()
    @torch.no_grad()
    def batch(
        self,
        indices: slice | Sequence[int] | None = None,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        high: bool = False,
    ) -> LensBatch:
        """Simulate many lenses at once.

        Parameters
        ----------
        indices : slice, sequence of int or None, optional
            Which lenses; all by default. They must have one camera (see `index_batches`).
        device : `torch.device` or str, optional
            Where images are rendered, and stay; the CPU by default.
        dtype : `torch.dtype`, optional
            Of all tensors; float32 by default.
        high : bool, optional
            Whether to draw noisy high images too; False by default.

        Returns
        -------
        batch : `~lenssr.simulation.LensBatch`

        Raises
        ------
        IndexError
            If an index is out of range.
        InputError
            If there is no index, or the lenses have different cameras.

        Notes
        -----
        A lens depends on the seed and its index alone. Its parameters and the random numbers of its noise are
        drawn on the CPU from separate streams, so they are identical in every batch and on every
        device. Images are equal within the rounding of ``dtype``; where rounding moves a mean count across a
        limit, about one pixel in 10^5 in float32, the count drawn from it differs, too.
        """
        index = self._indices(indices)
        cameras = {self._camera_number(number) for number in index}
        if len(cameras) != 1:
            raise InputError(f"the lenses are seen by {len(cameras)} cameras: take batches of index_batches")
        camera = self._camera(cameras.pop())
        draws = [self._draw(number) for number in index]
        scenes = make_scenes(self._lens, draws).to(device, dtype)
        truth, low_truth = camera.render(scenes, self._common_lens)
        low, many = draw_noise(draws, truth, low_truth, high)
        noise = stack_noise([one.noise for one in draws]).on("cpu")
        settings = {name: [one.settings[name] for one in draws] for name in draws[0].settings}
        return LensBatch(
            index=torch.tensor(index),
            low=low,
            low_truth=low_truth,
            truth=truth,
            noise=noise,
            scenes=scenes,
            grid=camera.grid,
            scale=camera.scale,
            psf=camera.psf,
            oversampling=camera.oversampling,
            exposure=noise.exposure.flatten(),
            high=many,
            high_noise=stack_noise([one.high_noise for one in draws]).on("cpu") if high else None,
            settings={name: torch.tensor(numbers).double() for name, numbers in settings.items()},
        ).to(device, dtype)

    def index_batches(
        self, size: int, *, indices: Iterable[int] | None = None, seed: int | None = None
    ) -> list[list[int]]:
        """Divide the data set into batches of lenses that one camera sees.

        Parameters
        ----------
        size : int
            Most lenses in a batch; the last batch of a camera may be smaller.
        indices : iterable of int, optional
            Which lenses; all by default.
        seed : int, optional
            Shuffles lenses, and batches. By default they stay in order.

        Examples
        --------
        >>> from lenssr.simulation import DeepLense
        >>> DeepLense(size=5).index_batches(2)
        [[0, 1], [2, 3], [4]]
        """
        size = positive_integer(size, "size")
        cameras: dict[int, list[int]] = {}
        for number in self._indices(indices):
            cameras.setdefault(self._camera_number(number), []).append(number)
        seen = cameras.values()
        rng = None if seed is None else np.random.default_rng([positive_integer(seed, "seed", 0), 0])
        if rng is not None:
            for numbers in seen:
                rng.shuffle(numbers)
        batches = [numbers[n : n + size] for numbers in seen for n in range(0, len(numbers), size)]
        if rng is not None:
            rng.shuffle(batches)
        return batches

    def _item(self, index: int) -> SimulatedLens:
        return self.batch([index], dtype=torch.float64, high=True).item(0)

    @abstractmethod
    def _draw(self, index: int) -> LensDraw:
        """Draw one lens, a `LensDraw`."""

    @abstractmethod
    def _make_camera(self, number: int) -> Camera:
        """Make one of the cameras."""

    def _camera(self, number: int) -> Camera:
        """Return one of the cameras; a few are kept with their rays."""
        if number not in self._cameras:
            if len(self._cameras) >= _CAMERAS_KEPT:
                del self._cameras[next(iter(self._cameras))]
            self._cameras[number] = self._make_camera(number)
        return self._cameras[number]

    def _camera_number(self, index: int) -> int:
        return 0 if self._block is None else index // self._block

    def _indices(self, indices: slice | Iterable[int] | None) -> list[int]:
        if indices is None or isinstance(indices, slice):
            indices = range(self.size)[indices or slice(None)]
        index = [self._checked_index(number) for number in indices]
        if not index:
            raise InputError("there are no indices: name at least one lens")
        return index


def check_range(values: Any, unit: UnitBase, name: str, above: float = 0.0) -> tuple[float, float]:
    """Return (least, largest) as floats in ``unit``, the first above a limit, or raise an `InputError`."""
    low, high = (float(strip_unit(value, unit, name)) for value in values)
    if not above < low <= high < math.inf:
        numbers = " of positive numbers" if above == 0 else ""
        raise InputError(f"{name} = {values} is not a range{numbers}: give (least, largest)")
    return low, high


def observed(truth: NDArray, grid: PixelGrid, scale: int, noise: PoissonNoise, rng: Generator) -> dict:
    """Both images of a `SimulatedLens`, the low one drawn first with ``noise``, from the high truth."""
    fine, low_truth = grid.upsample(scale), binned(truth, scale)
    high_noise = PoissonNoise(noise.exposure, noise.background_rms / scale)
    return {
        "low": image(noise.draw(low_truth, rng), grid, noise.exposure),
        "high": image(high_noise.draw(truth, rng), fine, noise.exposure),
        "low_truth": image(low_truth, grid),
        "truth": image(truth, fine),
        "noise": noise,
        "high_noise": high_noise,
    }


# ---------------------------------------------------------------- files


def write_dataset(
    dataset: LensDataset,
    directory: str | Path,
    indices: Iterable[int] | None = None,
    *,
    overwrite: bool = False,
    progress: bool = False,
) -> Table:
    """Write the lenses of a data set as FITS files, and ``manifest.ecsv``, a table of them.

    One lens after the other is made and written. Where an earlier call with the same data set was
    interrupted, this one goes on: what the folder lacks is written.

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
        If a file exists, before anything is written; if the folder holds the beginning of another data set;
        or if the files would not fit on the disk.

    Examples
    --------
    >>> import tempfile
    >>> from lenssr.simulation import DeepLense, write_dataset
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     manifest = write_dataset(DeepLense(size=3), folder)
    >>> list(manifest["file"])
    ['000000.fits', '000001.fits', '000002.fits']
    """
    directory = local_path(directory, "directory")
    chosen = range(len(dataset)) if indices is None else [dataset._checked_index(one) for one in indices]
    if not chosen:
        raise InputError("there are no indices: name at least one lens")
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{directory} cannot be made ({error.strerror}): give another folder") from error
    told = {**dataset.settings(), "version": package_version()}
    notes = Notes(directory / _NOTES, told)
    done = None if overwrite else notes.read()
    if done is not None:  # what was deleted since is made again
        done = {index for index in done if (directory / _file_name(index)).is_file()}
    elif not overwrite:
        _refuse_existing(directory, chosen)
    notes.begin()
    sweep(directory)
    log.info("simulating %d lenses in %s", len(chosen) - len(done or ()), directory)
    with notes:
        checked = False
        for index in tqdm(chosen, "simulating", unit="lens", disable=not progress):
            if index in (done or ()):
                continue
            item = dataset[index]
            hdus = fits.HDUList(list(_hdus(item, dataset.settings())))
            if not checked:
                _check_space(hdus, len(chosen) - len(done or ()), directory)
                checked = True
            name = _file_name(item.index)
            with atomic(directory / name, overwrite=True, alone=False) as temporary:
                hdus.writeto(temporary, checksum=True)
            lens, light = _true_numbers(item)
            exposures = {"exposure": item.low.meta["EXPTIME"], "high_exposure": item.high.meta["EXPTIME"]}
            notes.add({"file": name, "index": item.index} | lens | light | exposures | item.settings)
    manifest = notes.table(chosen)
    manifest.meta = told
    with atomic(directory / _MANIFEST) as temporary:
        manifest.write(temporary, format="ascii.ecsv")
    notes.discard()
    return manifest


def _refuse_existing(directory: Path, chosen: Sequence[int]) -> None:
    """Refuse a folder that holds a file of this data set."""
    wanted = chosen if isinstance(chosen, range) else set(chosen)
    for name in sorted(entry.name for entry in os.scandir(directory)):
        match = re.fullmatch(r"(\d{6,12})\.fits", name)
        if name == _MANIFEST or (match and int(match[1]) in wanted and name == _file_name(int(match[1]))):
            raise InputError(f"{directory / name} exists: choose another folder, or overwrite=True")


def _check_space(hdus: fits.HDUList, count: int, directory: Path) -> None:
    """Refuse a number of lenses whose files, or whose table, would not fit."""
    buffer = io.BytesIO()
    hdus.writeto(buffer)
    need, free = count * buffer.tell(), shutil.disk_usage(directory).free
    if need > free:
        text = f"{count} lenses need {need / 1e9:.3g} GB of disk, {directory} has {free / 1e9:.3g} GB"
        raise InputError(f"{text}: simulate fewer, or choose another folder")
    check_memory(ROW_BYTES * count, f"a manifest of {count} lenses", "simulate fewer into each folder")


def _file_name(index: int) -> str:
    return f"{index:06d}.fits"


def _write_item(item: SimulatedLens, directory: str | Path, settings: dict, overwrite: bool) -> Path:
    """Write one simulated lens as a FITS file named by its index; return the path."""
    path = local_path(directory, "directory") / _file_name(item.index)
    with atomic(path, overwrite) as temporary:
        fits.HDUList(list(_hdus(item, settings))).writeto(temporary, checksum=True)
    return path


def _hdus(item: SimulatedLens, settings: dict[str, Any]) -> Iterator[Any]:
    """HDUs of a file; ``settings`` go into the primary header.

    SCI (the low image), ERR (expected errors, where the noise does not follow from EXPTIME), PSF (at low
    pixels, if any), HIGH, TRUTH, LOWTRUTH, tables SUBHALOS (point masses beside the lens), LENS and LIGHT.
    """
    primary = fits.PrimaryHDU()
    primary.header.update(ORIGIN=f"lenssr {package_version()}", INDEX=item.index)
    primary.header.update({name[:8].upper(): value for name, value in settings.items()})
    yield primary
    yield _ccd_hdu(item.low, "SCI")
    _, _, variance = item.noise.moments(torch.as_tensor(item.low_truth.data))
    if np.any(item.noise.background_rms):
        error = np.broadcast_to(variance.sqrt().numpy(), item.low.shape)
        yield _ccd_hdu(item.low_truth, "ERR", error)
    if item.psf is not None:
        pixels = PixelGrid.from_wcs(item.low.wcs, item.low.shape).matrix
        yield fits.ImageHDU(item.psf.kernel(pixels), name="PSF")
    for name in ("high", "truth", "low_truth"):
        yield _ccd_hdu(getattr(item, name), name.replace("_", "").upper())
    masses = [part for part in getattr(item.lens, "components", ()) if isinstance(part, PointMass)]
    if masses:
        names: tuple[str, ...] = PointMass.param_names
        columns = {name: [getattr(mass, name).value for mass in masses] for name in names}
        yield fits.BinTableHDU(QTable(columns, units=dict.fromkeys(columns, "arcsec")), name="SUBHALOS")
    for name, numbers in zip(("LENS", "LIGHT"), _true_numbers(item), strict=True):
        values = np.array(list(numbers.values()), dtype=np.float64)
        yield fits.BinTableHDU(Table({"name": list(numbers), "value": values}), name=name)


def _ccd_hdu(image: CCDData, name: str, data: NDArray | None = None) -> fits.ImageHDU:
    with quiet(FITSFixedWarning):
        header = image.to_hdu()[0].header
    return fits.ImageHDU(np.ascontiguousarray(image.data if data is None else data), header, name)


def _true_numbers(item: SimulatedLens) -> tuple[dict[str, float], dict[str, float]]:
    """Parameters of lens and lights by name."""
    lens: dict[str, float] = {}
    for part in getattr(item.lens, "components", (item.lens,)):
        for name in part.param_names:
            # The origin of a shear, at (0, 0), has the names of the galaxy's centre, which comes first.
            lens.setdefault(f"lens_{name}", float(getattr(part, name).value))
    lights = [("source", item.source), ("light", item.lens_light)]
    known = [(prefix, model) for prefix, model in lights if model is not None]
    return lens, {f"{p}_{name}": float(getattr(m, name).value) for p, m in known for name in m.param_names}
