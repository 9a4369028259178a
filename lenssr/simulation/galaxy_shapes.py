"""Sources that are images: cutouts of real galaxies, blends of these, and clumpy discs."""

import copy
import functools
import importlib.util
import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from lenssr._quiet import quiet
from lenssr.exceptions import InputError
from lenssr.imaging.fits_files import open_fits
from lenssr.imaging.image_file import ImageFile, float_plane

# Nodes along a side of an image of a source; light is bilinear between them.
NODES = 128
# Half the side of the box of a clumpy disc, in effective radii of the disc.
HALF_BOX = 3.5
# Radii, over half the box, between which the light of a disc fades to zero.
_FADE = 0.8, 1.0
# Ranges in a blend: exponent of the brightness, ratio of the axes of the squeeze, scale of the second galaxy.
_EXPONENTS, _SQUEEZES, _SECOND = (0.7, 1.5), (0.6, 1.0), (0.3, 0.8)

SUFFIXES = (".fits", ".fit", ".fits.gz", ".npy", ".png")
# Smallest side of a cutout in pixels.
_SMALLEST = 12
# Standard deviation of the blur, in pixels and over the side of the box; the larger one counts. Chosen.
_BLUR_PIXELS, _BLUR_BOX = 0.8, 1 / 250
# Radii, over the distance of the first and last pixel, between which light fades to zero: no edge shows in a
# rotated box.
_TAPER = 0.4, 0.5

_DEEP_FIELD = "hubble_deep_field"
# The name, optionally with a slice that selects galaxies.
_NAMED = re.compile(_DEEP_FIELD + r"(?:\[(-?\d+)?:(-?\d+)?(?::(-?[1-9]\d*)?)?\])?")
# Threshold of detection in sigma, least area of an object and of a part of one in pixels, contrast of a part.
# Chosen.
_DETECTION_SIGMA, _LEAST_PIXELS, _DEBLEND_CONTRAST = 4.0, (20, 60), 0.03
# Least area of a galaxy in pixels: about twenty pixels across show arms and clumps.
_GALAXY_PIXELS = 350
# Half sides, in radii of the galaxy, of the box that is searched for neighbours and of the cutout.
_SEARCH_MARGIN, _CUTOUT_MARGIN = 1.25, 1.1
# Largest light of neighbours in the box, over that of the galaxy. Spikes count: that excludes stars as well.
_NEIGHBOURS = 0.15


class GalaxyShapes:
    """Shapes of galaxies without their brightness: square images, dark at the rim, each with a sum of 1.

    Cutouts are padded to squares. Their background (the median of their outermost pixels) is subtracted,
    negative values are set to zero, and the image is blurred a little and faded out towards the circle that
    fits into the box.

    Parameters
    ----------
    images : sequence of array, shape (ny, nx) or (ny, nx, channels)
        Cutouts, at least 12 pixels a side, a galaxy in the middle of each. Channels are averaged. Pixels that
        are not finite count as background.
    names : sequence of str, optional
        What they are called; their numbers by default.

    Attributes
    ----------
    names : tuple of str

    Raises
    ------
    InputError
        If there is none, or one is too small, has another number of dimensions, or no light above its
        background.

    Notes
    -----
    The blur is a Gaussian with a standard deviation of 0.8 pixels, or of a 250th of the box if that is more.
    What is left can be interpolated without showing the pixels.

    Examples
    --------
    >>> import numpy as np
    >>> from lenssr.simulation import GalaxyShapes
    >>> y, x = np.indices((40, 30))
    >>> shapes = GalaxyShapes([100 + np.exp(-np.hypot(x - 15, y - 20) / 3)], names=["disc"])
    >>> shapes
    <GalaxyShapes: 1 cutout>
    >>> shapes[0].shape, float(shapes[0].sum())
    ((40, 40), 1.0)
    """

    def __init__(self, images: Iterable[ArrayLike], names: Sequence[str] | None = None) -> None:
        images = list(images)
        names = list(map(str, range(len(images)) if names is None else names))
        if len(names) != len(images):
            raise InputError(f"{len(names)} names for {len(images)} cutouts: give as many")
        if not images:
            raise InputError("there are no cutouts: give at least one")
        self._images = tuple(_shape_of_cutout(image, name) for image, name in zip(images, names, strict=True))
        self.names = tuple(names)

    @classmethod
    def hubble_deep_field(cls) -> "GalaxyShapes":
        """Galaxies of the Hubble extreme deep field, cut from the image that scikit-image brings along.

        The image is a JPEG with a non-linear stretch: bright cores are compressed and faint outskirts raised.
        Use the galaxies for their shapes, not for photometry.

        Returns
        -------
        shapes : `GalaxyShapes`
            Some twenty galaxies in boxes of 31 to 65 pixels a side, named by their column and row in the
            image, in the order of rows. Neighbours are taken out of a cutout; galaxies with bright ones, at
            the edge of the image, or under 350 pixels are left out, and so are the stars.

        Raises
        ------
        InputError
            If scikit-image came without the image. Nothing is downloaded.

        References
        ----------
        Illingworth et al. 2013, ApJS 209, 6 (the extreme deep field).
        """
        return _from_deep_field()

    @classmethod
    def from_folder(cls, path: str | Path) -> "GalaxyShapes":
        """Cutouts from the files of a folder.

        Parameters
        ----------
        path : str or `~pathlib.Path`
            The folder. All its FITS, PNG and NPY files are taken, in the order of their names, as the
            names of the shapes; of a FITS file the HDU ``SCI`` or ``IMAGE``, or the first two-dimensional
            one.

        Returns
        -------
        shapes : `GalaxyShapes`

        Raises
        ------
        InputError
            If the folder does not exist or is empty, or a file cannot be read or is not a cutout (see
            `GalaxyShapes`); the message names the file.
        """
        folder = Path(path)
        if not folder.is_dir():
            raise InputError(f"{folder} is not a folder: give one with cutouts of galaxies")
        named = (file for file in folder.glob("[!.]*") if file.name.lower().endswith(SUFFIXES))
        files = sorted(file for file in named if file.is_file())
        if not files:
            raise InputError(f"{folder} holds no cutouts: put files there that end in {', '.join(SUFFIXES)}")
        return cls([_read(file) for file in files], [file.name for file in files])

    @classmethod
    def from_any(cls, shapes: "GalaxyShapes | str | Path | Sequence[ArrayLike] | None") -> "GalaxyShapes":
        """Shapes from a folder, cutouts, or the name of a collection.

        Parameters
        ----------
        shapes : `GalaxyShapes`, str, `~pathlib.Path`, sequence of array, or None
            A folder, or cutouts; None and ``"hubble_deep_field"`` stand for `hubble_deep_field`,
            ``"hubble_deep_field[::2]"`` for every second of its galaxies.

        Returns
        -------
        shapes : `GalaxyShapes`
        """
        if isinstance(shapes, GalaxyShapes):
            return shapes
        if shapes is None:
            return cls.hubble_deep_field()
        named = _NAMED.fullmatch(shapes) if isinstance(shapes, str) else None
        if named:
            ends = [int(number) if number else None for number in named.groups()]
            return cls.hubble_deep_field()[slice(*ends)]
        return cls.from_folder(shapes) if isinstance(shapes, str | Path) else cls(shapes)

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, number: Any) -> Any:
        """Return one, (side, side); for a slice some of them as `GalaxyShapes`."""
        if not isinstance(number, slice):
            return self._images[number]
        images, names = self._images[number], self.names[number]
        if not images:
            raise InputError(f"{number} takes none of {len(self)} cutouts: take at least one")
        some = copy.copy(self)
        some._images, some.names = images, names
        return some

    def __repr__(self) -> str:
        return f"<GalaxyShapes: {len(self)} cutout{'s' * (len(self) > 1)}>"


def _read(file: Path) -> NDArray:
    try:
        if file.suffix.lower() == ".npy":
            return np.load(file, allow_pickle=False)
        if file.suffix.lower() == ".png":
            from matplotlib.image import imread

            return imread(file)
        with open_fits(file) as hdus:
            image = ImageFile(hdus)
            return float_plane(image.read(image.science))
    except InputError:
        raise
    except Exception as error:  # whatever a broken file makes its reader raise
        raise InputError(f"{file} cannot be read ({error}): take it out of the folder") from error


def _shape_of_cutout(cutout: ArrayLike, name: str) -> NDArray:
    """Shape of a cutout: square, without background, blurred, dark at the rim, its sum 1."""
    image = np.asarray(cutout)
    if image.ndim not in (2, 3) or not np.issubdtype(image.dtype, np.number) or np.iscomplexobj(image):
        raise InputError(f"cutout {name} has shape {image.shape} and type {image.dtype}: give a plain image")
    image = image.astype(np.float64)
    if image.ndim == 3:
        # The last of two or four channels is the opacity.
        image = image[..., : image.shape[2] - (image.shape[2] in (2, 4))].mean(axis=2)
    if min(image.shape) < _SMALLEST:
        raise InputError(f"cutout {name} of {image.shape} pixels: give at least {_SMALLEST} a side")
    image[~np.isfinite(image)] = np.nan
    rim = np.concatenate([image[0], image[-1], image[1:-1, 0], image[1:-1, -1]])
    background = 0.0 if np.isnan(rim).all() else np.nanmedian(rim)
    image = np.nan_to_num(np.maximum(image - background, 0.0))
    side = max(image.shape)
    image = np.pad(image, [((side - size) // 2, (side - size + 1) // 2) for size in image.shape])
    # The box is dark outside.
    image = ndimage.gaussian_filter(image, max(_BLUR_PIXELS, _BLUR_BOX * side), mode="constant")
    image = image * _fade(side)
    total = image.sum()
    if not total > 0:
        raise InputError(f"cutout {name} has no light above its background: take it out")
    image = image / total
    image.flags.writeable = False
    return image


def _fade(side: int) -> NDArray:
    """Return 1 within a circle, 0 towards the edges of the box, smooth between."""
    positions = (np.arange(side) - (side - 1) / 2) / (side - 1)
    radius = np.hypot(positions, positions[:, None])
    inner, outer = _TAPER
    share = np.clip((radius - inner) / (outer - inner), 0, 1)
    return (1 + np.cos(np.pi * share)) / 2


@functools.cache
def _from_deep_field() -> GalaxyShapes:
    from astropy.stats import sigma_clipped_stats
    from photutils.segmentation import SourceFinder

    image = _deep_field()
    image = image - np.median(image)
    smooth = ndimage.gaussian_filter(image, 1.0)
    threshold = _DETECTION_SIGMA * sigma_clipped_stats(smooth, sigma=3.0)[2]
    finder = SourceFinder(_LEAST_PIXELS, contrast=_DEBLEND_CONTRAST, progress_bar=False)
    # photutils warns that small objects have too few pixels for all levels.
    with quiet():
        segments = finder(smooth, threshold)
    cutouts = [
        _isolated_cutout(image, segments.data, label, box)
        for label, box, area in zip(segments.labels, segments.slices, segments.areas, strict=True)
        if area >= _GALAXY_PIXELS
    ]
    found = sorted((each for each in cutouts if each is not None), key=lambda each: each[:2])
    return GalaxyShapes([each[2] for each in found], [f"{column}_{row}" for row, column, _ in found])


def _deep_field() -> NDArray:
    """Brightness of the image in scikit-image's folder, rows from the top as in the file."""
    from matplotlib.image import imread

    # The file itself and not `skimage.data`, which would go and fetch it where it is missing.
    origin = getattr(importlib.util.find_spec("skimage"), "origin", None) or "scikit-image"
    file = Path(origin).parent / "data" / f"{_DEEP_FIELD}.jpg"
    if not file.is_file():
        raise InputError(f"{file} is missing: install version 0.22 or later of scikit-image, or give cutouts")
    return imread(file).astype(np.float64).mean(axis=2)


def _isolated_cutout(image: NDArray, segments: NDArray, label: int, box: Any) -> tuple | None:
    """Row, column and cutout of a galaxy, or None if it is not alone or at the edge."""
    rows, columns = np.nonzero(segments[box] == label)
    rows, columns = rows + box[0].start, columns + box[1].start
    light = np.maximum(image[rows, columns], 0)
    row, column = (int(round((light * place).sum() / light.sum())) for place in (rows, columns))
    radius = np.hypot(rows - row, columns - column).max()
    half = math.ceil(_SEARCH_MARGIN * radius)
    if not all(half <= place < size - half for place, size in zip((row, column), image.shape, strict=True)):
        return None
    window = slice(row - half, row + half + 1), slice(column - half, column + half + 1)
    own, light = segments[window] == label, np.maximum(image[window], 0.0)
    neighbours = ndimage.binary_dilation((segments[window] > 0) & ~own) & ~own
    if light[neighbours & (_fade(len(own)) > 0)].sum() > _NEIGHBOURS * light[own].sum():
        return None
    # Fade to zero within a few pixels beyond the segment.
    share = ndimage.gaussian_filter(ndimage.binary_dilation(own, iterations=2).astype(float), 1.5)
    cut = half - math.ceil(_CUTOUT_MARGIN * radius)
    inner = slice(cut, len(own) - cut)
    return row, column, np.where(neighbours, 0.0, light * share)[inner, inner]


def clumpy_disc(rng: Generator, r_eff: float, q: float, phi: float) -> tuple[NDArray, float]:
    """Draw a clumpy disc: surface brightness (NODES, NODES) per arcsec2 for a flux of 1, and step in arcsec.

    The disc is a Sérsic profile of product-average radius ``r_eff``, with an index of 0.6 to 1.6. Three to
    ten Gaussian clumps, 0.12 to 0.3 effective radii wide, hold a fifth to three fifths of the light; they are
    distributed like the light of the disc.
    """
    step = 2 * HALF_BOX * r_eff / NODES
    # Positions in units of r_eff, along and across the major axis.
    places = (np.arange(NODES) + 0.5) * (step / r_eff) - HALF_BOX
    x, y = places, places[:, None]
    cos, sin, root = math.cos(phi), math.sin(phi), math.sqrt(q)
    square = ((x * cos + y * sin) * root) ** 2 + ((y * cos - x * sin) / root) ** 2
    n = rng.uniform(0.6, 1.6)
    disc = np.exp(-(2 * n - 1 / 3) * square ** (0.5 / n))

    number, share = int(rng.integers(3, 11)), rng.uniform(0.2, 0.6)
    along, across = 0.8 * rng.standard_normal((2, number))
    centre_x = (along * cos / root - across * sin * root)[:, None]
    centre_y = (along * sin / root + across * cos * root)[:, None]
    width, flux = rng.uniform(0.12, 0.3, (number, 1)), rng.uniform(0.3, 1.0, (number, 1))
    columns = np.exp(-(((x - centre_x) / width) ** 2) / 2) * (flux / width)
    rows = np.exp(-(((x - centre_y) / width) ** 2) / 2) / width
    clumps = rows.T @ columns

    low, high = _FADE
    fade = np.clip((high - np.hypot(x, y) / HALF_BOX) / (high - low), 0.0, 1.0)
    image = ((1 - share) * disc / disc.sum() + share * clumps / clumps.sum()) * fade**2 * (3 - 2 * fade)
    return image / (image.sum() * step**2), step


def resample_shape(shape: NDArray, nodes: int = NODES, angle: float = 0.0) -> NDArray:
    """Cubic spline of a cutout (side, side), turned counter-clockwise by ``angle``, on (nodes, nodes)."""
    side = len(shape)
    x = ((np.arange(nodes) + 0.5) / nodes - 0.5) * side
    y = x[:, None]
    columns = x * math.cos(angle) + y * math.sin(angle) + (side - 1) / 2
    rows = y * math.cos(angle) - x * math.sin(angle) + (side - 1) / 2
    # The corners of a turned box lie outside the cutout, which is dark at its rim.
    return np.maximum(ndimage.map_coordinates(shape, [rows, columns], order=3, mode="grid-constant"), 0.0)


def blend_galaxies(rng: Generator, first: NDArray, second: NDArray) -> NDArray:
    """Draw a new galaxy from the images (NODES, NODES) of two; its sum is 1.

    The brightness of each is raised to a power of 0.7 to 1.5, which changes the contrast of its core; each is
    squeezed to 0.6 to 1 along one axis and rotated. The second is scaled by 0.3 to 0.8, lies anywhere within
    the box, and holds up to half of the light.
    """
    size = rng.uniform(*_SECOND)
    reach, angle = 0.5 * (1 - size) * math.sqrt(rng.uniform()), rng.uniform(0, 2 * math.pi)
    place = reach * NODES * np.array([math.sin(angle), math.cos(angle)])
    share = rng.uniform(0.0, 0.5)
    return (1 - share) * _deformed(rng, first) + share * _deformed(rng, second, size, place)


def _deformed(rng: Generator, image: NDArray, size: float = 1.0, place: ArrayLike = (0.0, 0.0)) -> NDArray:
    """Change contrast, squeeze, rotate, scale, and shift an image by ``place`` nodes; its sum is 1."""
    exponent, squeeze = rng.uniform(*_EXPONENTS), rng.uniform(*_SQUEEZES)
    first, second = (_turn(rng.uniform(0, 2 * math.pi)) for _ in range(2))
    # The transform maps the new position of light to the old one.
    matrix = second @ np.diag([1.0, 1 / squeeze]) @ first / size
    middle = (NODES - 1) / 2
    offset = middle - matrix @ (middle + np.asarray(place))
    deformed = ndimage.affine_transform(image**exponent, matrix, offset, order=1)
    return deformed / deformed.sum()


def _turn(angle: float) -> NDArray:
    return np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])


def half_light_radius(image: NDArray) -> float:
    """Radius, over the side, of a circle as large as the brightest pixels that hold half of the light."""
    half = image.sum() / 2
    bright = image[image > half / image.size]
    if bright.sum() < half:
        bright = image
    light = np.cumsum(np.sort(bright, axis=None)[::-1])
    number = np.searchsorted(light, half) + 1
    return math.sqrt(number / math.pi) / len(image)


def rotate_or_mirror(image: NDArray, number: int) -> NDArray:
    """One of the eight rotations by 90 degrees and mirror images of an image; ``number`` is 0 to 7."""
    turned = np.rot90(image, number % 4)
    return turned[:, ::-1] if number >= 4 else turned
