"""`SuperResolver`: cutouts of a lens in; a super-resolved image, its source and its lens out."""

from __future__ import annotations

import contextlib
import functools
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, Unpack

from numpy.typing import ArrayLike
from tqdm import tqdm

from lenssr._files import listed
from lenssr._limits import limited
from lenssr._option import shows_keywords
from lenssr._tensors import usual_torch
from lenssr._workers import count_jobs, solve_parts
from lenssr.exceptions import InputError, LensSRDeprecationWarning
from lenssr.imaging.cutting import MOST_PIXELS
from lenssr.imaging.groups_of_images import exposures_of, is_group, of_exposure
from lenssr.imaging.observation import ImageLike, NoiseLike, Observation, PSFLike, Reading
from lenssr.options import AUTO, RESOLVER, LensFamily, PriorName, Settings, SourceKind, SourceName
from lenssr.reconstruction.fine_images import check_output_psf
from lenssr.reconstruction.light_choice import hiding_others
from lenssr.reconstruction.model_free import ModelFreeReconstruction
from lenssr.reconstruction.needs import check_lens, check_need, check_sense, expecting, pixel_need
from lenssr.reconstruction.parametric import kind_of
from lenssr.result import BandsResolution, FailedResolution, SuperResolution

if TYPE_CHECKING:
    from astropy.units import Quantity

    from lenssr.light import MultiGaussian, Sersic
    from lenssr.mass import MassModel, SourcePlanes
    from lenssr.networks import Card, NetworkSource

    LightChoice = Literal["auto", "sersic", "mge"] | Sersic | MultiGaussian

__all__ = ["SuperResolver"]

# Frames that are interpolated only may be larger than those that are fitted.
MOST_INTERPOLATED = 4096**2


@shows_keywords(Reading)
class SuperResolver:
    """Super-resolve images of strong lenses with a model of lens and source.

    Parameters
    ----------
    scale : int, optional
        Number of output pixels along an input pixel, by default 2.
    source : {"sersic", "pixelated", "perturbed_sersic", "auto", "network", "interpolation"}, a name of \
`~lenssr.register_source`, or `~lenssr.NetworkSource`, optional
        The model of the source. "sersic": a Sérsic profile, the quickest. "pixelated": its brightness on a
        grid with a prior on its roughness, started from the Sérsic fit. "perturbed_sersic": that Sérsic times
        a factor on a grid with such a prior, which leaves the cusp to the Sérsic. "auto" (default): the one
        of these three with the highest evidence, ``result.meta`` names all; "pixelated" beside "mge",
        "sersic" where there are two. "network": a network predicts it in milliseconds; a
        `~lenssr.NetworkSource` names it, and the number of steps that follow. "interpolation": bicubic.
    lens : {"sie", "epl", "auto"} or `~lenssr.mass.MassModel`, optional
        The lens, or what is fitted with external shear where it is unknown: a singular isothermal ellipsoid
        ("sie", the default; None means it, too), an elliptical power law, its slope 2.08 +- 0.2 a priori
        ("epl"), or a power law whose slope is 2 unless a free one is likelier ("auto"). Einstein radii to
        start from lie between 0.3" and 0.4 of the field, the centre within 0.3" of the light of the lens (of
        the image if none is fitted); weak priors are on the page on the method. A given lens has none.
    source_planes : `~lenssr.mass.SourcePlanes`, optional
        That there are two parametric sources, of which the nearer deflects the farther, and where they lie.
        ``lens``, fitted or given, is that of the farther one. See the page on lens families.
    fit_lens : bool, optional
        Whether a given lens is refined, honouring ``fixed`` and ``bounds`` of its parameters (default: no).
    start : {"search", "network"} or path, optional
        Where the fit of an unknown lens begins: at Einstein radii all over the field (default), or at the
        estimate of a `~lenssr.networks.DeflectionNetwork`, its weights those that come with lenssr or in a
        file. If that fit leaves more than noise and ends far from the estimate, or on a bound, the search
        follows; if a Sérsic leaves some of the arcs, a free-form source refines the lens before the Sérsic is
        fitted again. ``result.meta["lens_from"]`` says what found the lens.
    lens_light : None, "auto", "sersic", "mge", model, or a list of the last three, optional
        Light of the lens galaxy, fitted with the rest: a Sérsic profile; a multi-Gaussian expansion, which
        follows real galaxies more closely (`~lenssr.light.MultiGaussian`); or several of them, such as
        ``["sersic", "sersic"]`` for a bulge and a disc. A `~lenssr.light.Sersic` or
        `~lenssr.light.MultiGaussian` is where the fit begins, honouring ``fixed`` and ``bounds`` of its
        parameters. "auto" (default): the simplest that explains the image, from None to three "mge".
    mass_follows_light : bool, optional
        Whether an unknown lens has priors around place and shape of its light (default True).
    sky : {"constant", None}, optional
        Whether a constant sky level is fitted; it is by default.
    psf, noise, mask : optional
        As in `__call__`, for every image. ``mask`` is "auto" by default, None hides nothing.
    oversampling : int or "auto", optional
        An integer s samples the model at s x s points of a pixel (1: at its centre, as the DeepLense images
        are); "auto", the default, integrates over the pixel.
    psf_out : None, "pixel" or `~astropy.units.Quantity`, optional
        PSF of ``image``, ``lensed_source`` and ``lens_light_image``: that of the telescope (None, the
        default); a Gaussian of this FWHM, at least two output pixels and narrower than the PSF of the image;
        or the output pixels alone, which shows detail that the data do not hold: the result is then flagged
        ``extrapolated``.
    prior : str, optional
        Prior on the roughness of a source on a grid: a name of `lenssr.source.PRIORS`, or "auto", the
        default, which compares some of them by evidence. Its strength is always chosen by evidence. For a
        source from a network it affects only the errors, unless steps follow.
    positive : bool, optional
        Whether a source on a grid is positive, by default True: the prior is then on the logarithm of its
        brightness. False gives the linear inversion, with a prior on the brightness itself, which may fall
        below zero.
    device : str, optional
        "auto" (default: CUDA where there is one), "cpu", "cuda", ... On a CPU a source on a grid is solved
        with banded matrices, on other devices with dense ones, many images of `map` together.
    seed : int, optional
        Seed of the starts of the search for an unknown lens, and of draws for errors; by default 0.

    Raises
    ------
    InputError
        If an option has no meaning.

    Examples
    --------
    >>> from lenssr import SIE, SuperResolver
    >>> from lenssr.simulation import DeepLense
    >>> item = DeepLense(lens="sie", noise=False, size=1, seed=1)[0]
    >>> resolver = SuperResolver(lens=item.lens, oversampling=1)
    >>> result = resolver(item.low, noise=item.noise)
    >>> result.image.shape, result.ok
    ((150, 150), True)
    """

    def __init__(
        self,
        *,
        scale: int = 2,
        source: SourceKind | SourceName | NetworkSource = "auto",
        lens: MassModel | LensFamily | None = "sie",
        source_planes: SourcePlanes | None = None,
        fit_lens: bool | None = None,
        start: str | PathLike[str] = "search",
        lens_light: LightChoice | Sequence[LightChoice] | None = "auto",
        mass_follows_light: bool = True,
        sky: Literal["constant"] | None = "constant",
        psf: PSFLike | None = None,
        noise: NoiseLike | None = None,
        mask: ArrayLike | Literal["auto"] | None = "auto",
        oversampling: int | Literal["auto"] = "auto",
        psf_out: Quantity | Literal["pixel"] | None = None,
        prior: PriorName = "auto",
        positive: bool = True,
        device: str = "auto",
        seed: int = 0,
    ) -> None:
        options = locals()  # the keywords above, by name: nothing else is local yet
        self.psf, self.noise, self.mask = psf, noise, mask
        with usual_torch():
            self.settings = Settings(**{name: options[name] for name in Settings.names()})
            check_lens(self.settings.lens)
            self._method = self.settings.method()
            self._model_free = isinstance(self._method, ModelFreeReconstruction)

    def __repr__(self) -> str:
        values = {name: getattr(self.settings, name, getattr(self, name, None)) for name in RESOLVER}
        return f"SuperResolver({', '.join(f'{name}={value!r}' for name, value in values.items())})"

    @usual_torch()
    def __call__(
        self,
        image: ImageLike,
        *,
        psf: PSFLike | None = None,
        noise: NoiseLike | None = None,
        mask: ArrayLike | Literal["auto"] | None = None,
        theta_E: Quantity | float | None = None,
        **reading: Unpack[Reading],
    ) -> SuperResolution | BandsResolution:
        """Super-resolve one image, or several bands and exposures of one lens.

        Parameters
        ----------
        image : path, `~astropy.io.fits.HDUList`, `~astropy.nddata.NDData`, array, `~lenssr.Observation`, ...
            The cutout, shape (ny, nx), lens near the middle; or a larger frame, of which ``centre=`` and
            ``size=`` cut it. Or a dict of such images by band, ``{"F606W": a, "F814W": b}``, or of lists of
            exposures, ``{"F814W": [a, b]}``: bands share the lens, exposures also source and lens light; all
            else below may then be a dict by band, with lists for exposures.
        psf : `~lenssr.imaging.PSF`, array, path, FWHM as a Quantity, kernel or photutils PSF model, optional
            Instead of the one of the resolver or the file.
        noise : `~lenssr.imaging.NoiseModel`, Quantity, number or array, optional
            Noise model, or one standard deviation per pixel. By default the error plane of the image.
        mask : array of bool, shape (ny, nx), "auto", path or HDU, optional
            True hides a pixel; "auto", the resolver's default, hides other objects in the field and keeps the
            arcs (nothing, where there is no model of lens and source).
        theta_E : `~astropy.units.Quantity` or float, optional
            The Einstein radius that is expected of an unknown lens, a number in arcsec: where its search
            begins, and a prior of 20 %. By default all radii are tried.
        **reading
            What the image does not hold or say, as `~lenssr.imaging.Observation.from_any` takes it:
            ``pixel_scale``, ``unit``, ``hdus``, ``centre`` (the lens's place), ``size``, ``error``, ...

        Returns
        -------
        result : `~lenssr.SuperResolution`, or `~lenssr.result.BandsResolution` of several bands or exposures

        Raises
        ------
        InputError
            If the image cannot be used; the message names the value and the remedy. Several bands or
            exposures need ``source="auto"`` and one place on the sky, or are interpolated.
        """
        started = time.perf_counter()
        if is_group(image, reading.get("band")):
            group = self._observe_group(image, psf, noise, mask, theta_E, reading).hiding_others()
            return self._bands().solve(group, _finisher(self.settings, len(group.bands), started), started)
        observation = expecting(self.settings, theta_E, self._observe(image, psf, noise, mask, reading))
        check_need(self.settings, observation)
        seen = [hiding_others(observation, self.settings)]
        (result,) = self._method.solve(seen, _finisher(self.settings, 1, started))
        if isinstance(result, Exception):
            raise result
        return result

    @usual_torch()
    def map(
        self,
        images: Iterable[ImageLike] | str,
        *,
        psf: PSFLike | Sequence[PSFLike] | None = None,
        noise: NoiseLike | Sequence[NoiseLike] | None = None,
        mask: ArrayLike | Literal["auto"] | Sequence[ArrayLike | None] | None = None,
        theta_E: Quantity | float | Sequence[Quantity | float | None] | None = None,
        jobs: int | None = 1,
        progress: bool = False,
        **reading: Unpack[Reading],
    ) -> list[SuperResolution | BandsResolution | FailedResolution]:
        """Super-resolve many images, in batches and in several processes; failures are results, too.

        Sérsic sources of images of one shape and telescope are fitted together; on a GPU others are, too.

        Parameters
        ----------
        images : sequence or str
            Each as in `__call__`, dicts of bands too; or one path, a pattern such as ``"cutouts/*.fits"``, or
            a folder, for the FITS files in it in the order of their names.
        psf, noise, mask, theta_E : optional
            As in `__call__`: one for all images, or a list with one for each.
        jobs : int, optional
            Number of processes that solve images on the CPU, by default 1; -1 or None: one for each core.
            Each has one thread, unless ``OMP_NUM_THREADS`` says otherwise; with as many, results do not
            depend on it. On a GPU it is 1, because batches fill the GPU.
        progress : bool, optional
            Whether a progress bar is shown, by default not.
        **reading
            As in `__call__`, for all images.

        Returns
        -------
        results : list
            In the order of the images: a `~lenssr.SuperResolution` each, a `~lenssr.result.BandsResolution`
            of several bands, or where an image failed a `~lenssr.FailedResolution` with the error.

        Raises
        ------
        InputError
            If the numbers of images and of PSFs, noise models, masks or radii differ, a pattern or folder
            has no files, ``jobs`` is not a number of processes, or they cannot be started.

        Notes
        -----
        A script that asks for several processes must do so below ``if __name__ == "__main__":``, because each
        of them imports the script. If a process ends, for example for lack of memory, only its image fails.
        """
        images = listed(images)
        jobs = count_jobs(jobs, self._method.settings.torch_device)
        names = [_name(image, i) for i, image in enumerate(images)]
        given = _extras(len(images), psf=psf, noise=noise, mask=mask, theta_E=theta_E)
        results: list[Any] = [None] * len(images)
        groups: dict[tuple[Any, ...], list[tuple[int, Observation]]] = {}
        lenses: list[list[tuple[int, Any]]] = []  # of several bands or exposures, each by itself
        for i, image in enumerate(images):
            try:
                with limited(jobs=jobs):
                    psf, noise, mask, theta_E = (values[i] for values in given)
                    if is_group(image, reading.get("band")):
                        group = self._observe_group(image, psf, noise, mask, theta_E, reading)
                        lenses.append([(i, group)])
                        continue
                    observation = expecting(
                        self.settings, theta_E, self._observe(image, psf, noise, mask, reading)
                    )
                    check_need(self.settings, observation)
                key = kind_of(observation)
            except Exception as error:  # noqa: BLE001 - one image must not stop the rest
                results[i] = FailedResolution(error, names[i])
                continue
            groups.setdefault(key, []).append((i, observation))
        parts = [part for members in groups.values() for part in self._method.parts(members)] + lenses
        solving = contextlib.closing(solve_parts(functools.partial(reconstruct, self._method), parts, jobs))
        bar = tqdm(total=len(images), disable=not progress, unit="image")
        with limited(jobs=jobs), bar, solving as solved:
            bar.update(sum(result is not None for result in results))
            for numbers, found in solved:
                for i, result in zip(numbers, found, strict=True):
                    failed = isinstance(result, Exception)
                    results[i] = FailedResolution(result, names[i]) if failed else result
                bar.update(len(numbers))
        return results

    @usual_torch()
    def fine_tune(
        self,
        images: Sequence[ImageLike],
        *,
        lenses: MassModel | Sequence[MassModel | None] | None = None,
        psf: PSFLike | Sequence[PSFLike] | None = None,
        noise: NoiseLike | Sequence[NoiseLike] | None = None,
        mask: ArrayLike | Literal["auto"] | Sequence[ArrayLike | None] | None = None,
        steps: int = 200,
        learning_rate: float = 3e-4,
        folder: str | PathLike[str] | None = None,
        progress: bool = False,
        **reading: Unpack[Reading],
    ) -> Self:
        """Train the network that predicts the source further, on images of one's own.

        It needs no finer images: in each step some pixels of one image are hidden from the network, which
        predicts the source from the others, and the re-lensed source has to predict them. A tenth of the
        pixels of each image is held back from all steps to validate the training: see `training`. On a CPU
        the same images and seed of the resolver give the same network.

        Parameters
        ----------
        images : list
            Each as in `__call__`; their shapes, PSFs, pixel scales, units and noise may differ.
        lenses : list of `~lenssr.mass.MassModel` and None, or one `~lenssr.mass.MassModel`, optional
            One for each image, or one for all. By default the lens of the resolver; if that is None too, the
            lens is fitted to the image with a Sérsic source first, as in `__call__`.
        psf, noise, mask : optional
            As in `map`: one for all images, or a list with one for each.
        steps : int, optional
            Number of steps, by default 200, one image in each.
        learning_rate : float, optional
            The highest, by default 0.0003.
        folder : str or `~pathlib.Path`, optional
            Where the network (``source.safetensors``, as `~lenssr.networks.save_weights` writes it) and the
            log of its losses are written. By default nothing is written; `save` writes the resolver.
        progress : bool, optional
            Whether progress bars are shown, by default not.
        **reading
            As in `__call__`, for all images.

        Returns
        -------
        resolver : `SuperResolver`
            This one. It solves images with the new network from now on, and flags those unlike the ones
            given here (``unlike_training``). The files that come with lenssr do not change.

        Raises
        ------
        InputError
            If the source does not come from a `~lenssr.networks.RelensingNetwork`, there are no images or one
            cannot be used, the numbers of images and of lenses, PSFs, noise models or masks differ, Lightning
            is not installed (extra ``train``), or the training diverges.

        Notes
        -----
        Training begins with the network of the resolver; with several, with the one for the first image.
        Where noise is correlated, hidden pixels can be predicted from the noise of their neighbours, which
        may be learned too. A `~lenssr.exceptions.LensSRWarning` is issued if chi2 of the pixels held back
        grows by more than 1 %.

        Examples
        --------
        >>> from lenssr import SuperResolver
        >>> from lenssr.simulation import DeepLense
        >>> items = list(DeepLense(lens="sie", noise=True, size=2, seed=1))
        >>> resolver = SuperResolver(source="network", oversampling=1)
        >>> lows, noises = [item.low for item in items], [item.noise for item in items]
        >>> lenses = [item.lens for item in items]
        >>> resolver = resolver.fine_tune(lows, noise=noises, lenses=lenses, steps=2, learning_rate=1e-4)
        >>> sorted(resolver.training.scores)
        ['hidden_pixels', 'hidden_pixels_before']
        """
        from lenssr.reconstruction.fine_tuning import check_method, fine_tune

        check_method(self._method)
        if isinstance(images, str | PathLike) or not (images := listed(images)):
            raise InputError("images is empty: give a list of one or more")
        names = [_name(image, i) for i, image in enumerate(images)]
        *extras, lenses = _extras(len(images), psf=psf, noise=noise, mask=mask, lenses=lenses)
        given = zip(images, *extras, strict=True)
        observations = [hiding_others(self._observe(*(*each, reading)), self.settings) for each in given]
        options = {"steps": steps, "learning_rate": learning_rate, "folder": folder, "progress": progress}
        self._method = fine_tune(self._method, observations, names, lenses, **options)
        return self

    def fit(self, images: Sequence[ImageLike], **options: Any) -> Self:
        """Call `fine_tune`: its former name, deprecated.

        Parameters
        ----------
        images, **options
            Those of `fine_tune`.

        Returns
        -------
        resolver : `SuperResolver`
        """
        told = "SuperResolver.fit is deprecated: it trains a network, call fine_tune"
        warnings.warn(told, LensSRDeprecationWarning, stacklevel=2)
        return self.fine_tune(images, **options)

    @property
    def training(self) -> Card | None:
        """The `~lenssr.networks.Card` of the network of `fine_tune`, or None before it.

        Its ``scores`` are chi2 per pixel of the pixels held back, ``hidden_pixels`` after the training and
        ``hidden_pixels_before``; 1 is noise alone.
        """
        from lenssr.reconstruction.fine_tuning import training_of

        return training_of(self._method)

    def save(self, path: str | Path) -> None:
        """Write the settings, and the networks of a source that is one, to a file that cannot run code.

        Parameters
        ----------
        path : str or `~pathlib.Path`
            Ends in ``.safetensors``. An existing file is replaced atomically.

        Raises
        ------
        InputError
            If the resolver has a PSF, noise or mask, which belong to images, or a model with tied parameters.
        ImportError
            If safetensors is not installed (extra ``networks``).
        """
        from lenssr.networks.weights import save_bundle

        mask = None if _is_found(self.mask) else self.mask
        for name, value in (("psf", self.psf), ("noise", self.noise), ("mask", mask)):
            if value is not None:
                raise InputError(f"{name}= is not saved with a resolver: leave it out, give it with images")
        known = getattr(self._method, "networks", [])
        networks = [(one.network, one.card, one.origin) for one in known]
        save_bundle(path, self.settings.save() | {"mask": self.mask}, networks)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a resolver from a file of `save`, without running any code in it.

        Parameters
        ----------
        path : str or `~pathlib.Path`

        Returns
        -------
        resolver : `SuperResolver`
            Its results are identical, to the last bit.

        Raises
        ------
        InputError
            If the file was not written by `save`, is damaged, or has a source or a model that is not known
            here: import the modules that define them first.
        ImportError
            If safetensors is not installed (extra ``networks``).
        """
        from lenssr.networks.weights import load_bundle

        try:
            plain = load_bundle(path)
            return cls(mask=plain.pop("mask", None), **Settings.load(plain, path))  # old files have no mask
        except InputError:
            raise
        except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
            why = f"{type(error).__name__}: {error}"
            raise InputError(f"{path} holds no settings of a resolver ({why}): save it again") from error

    @classmethod
    def from_pretrained(cls, name: str, **options: Any) -> Self:
        """Make a resolver with weights that come with lenssr.

        Parameters
        ----------
        name : str
            One of `lenssr.networks.available`, or a file of weights.
        **options
            Options of the resolver except ``source``; by default an SISR brings its scale.

        Returns
        -------
        resolver : `SuperResolver`

        Raises
        ------
        InputError
            If there are no such weights.

        Examples
        --------
        >>> from lenssr import SuperResolver
        >>> SuperResolver.from_pretrained("relensing").settings.source
        NetworkSource(weights='relensing', refine=0)
        """
        from lenssr.networks.network_source import NetworkSource
        from lenssr.networks.weights import load

        network, _ = load(name)
        own: dict[str, Any] = {"scale": network.scale} if network.kind == "SISR" else {}
        return cls(source=NetworkSource(name), **own | options)

    def _bands(self) -> Any:
        """The method that solves several bands and exposures together."""
        from lenssr.reconstruction.bands import BandsReconstruction

        return BandsReconstruction(self.settings)

    def _observe_group(
        self, images: Any, psf: Any, noise: Any, mask: Any, theta_E: Any, reading: Reading
    ) -> Any:
        """The observations of a dict of bands, in a `~lenssr.reconstruction.bands.Group`."""
        from lenssr.reconstruction.bands import Group

        self._bands()  # refuses a source that bands cannot have, before anything is read
        exposures = exposures_of(images)
        own = {"psf": psf, "noise": noise, "mask": mask}
        options = {**reading, **{k: getattr(self, k) if one is None else one for k, one in own.items()}}
        found: dict[str, list[Observation]] = {}
        for band, some in exposures.items():
            found[band] = []
            for number, image in enumerate(some):
                told: Any = {
                    name: of_exposure(value, name, exposures, band, number) for name, value in options.items()
                }
                planes = {name: told.pop(name) for name in own}
                observation = expecting(self.settings, theta_E, self._observe(image, **planes, reading=told))
                check_need(self.settings, observation)
                found[band].append(observation)
        return Group(found)

    def _observe(self, image: Any, psf: Any, noise: Any, mask: Any, reading: Reading) -> Observation:
        mask = self.mask if mask is None else mask
        found = _is_found(mask)
        psf, noise = self.psf if psf is None else psf, self.noise if noise is None else noise
        hidden = None if found else mask
        limit = MOST_INTERPOLATED if self.settings.kind == "interpolation" else MOST_PIXELS
        given: Any = {"most_pixels": limit, **reading}
        with limited(per_pixel=pixel_need(self.settings)):
            observation = Observation.from_any(image, psf=psf, noise=noise, mask=hidden, **given)
        check_sense(observation)
        check_output_psf(self.settings.psf_out, observation, self.settings.scale)
        hides = {"mask": AUTO} if found and not self._model_free else {}
        return replace(observation, meta=observation.meta | hides)


def reconstruct(method: Any, observations: list[Any]) -> list[Any]:
    """Results of observations that are solved together, or exceptions where single ones failed.

    A `~lenssr.reconstruction.bands.Group` is by itself.
    """
    settings, started = method.settings, time.perf_counter()
    if not isinstance(observations[0], Observation):
        from lenssr.reconstruction.bands import BandsReconstruction

        group = observations[0].hiding_others()
        finish = _finisher(settings, len(group.bands), started)
        return [BandsReconstruction(settings).solve(group, finish, started)]
    observations = [hiding_others(one, settings) for one in observations]
    return method.solve(observations, _finisher(settings, len(observations), started))


def _finisher(settings: Settings, count: int, started: float) -> Callable[[Any, Observation], Any]:
    """Function that makes the result of a solved image, with its share of the seconds since the start."""

    def seconds() -> float:
        return (time.perf_counter() - started) / count

    return lambda solved, observation: solved.result(observation, settings, seconds)


def _is_found(mask: Any) -> bool:
    """Whether what a mask hides is to be found, rather than given."""
    found = isinstance(mask, str) and not Path(mask).is_file()
    if found and mask != AUTO:
        raise InputError(f"mask = {mask!r}: give an array of bool, a file, 'auto' or None")
    return found


def _extras(count: int, **values: Any) -> list[list[Any]]:
    """One value for each image: those of a list, or one for all."""
    for name, value in values.items():
        if isinstance(value, list | tuple) and len(value) != count:
            raise InputError(f"{name} has {len(value)} entries for {count} images: give one each, or one")
    return [list(one) if isinstance(one, list | tuple) else [one] * count for one in values.values()]


def _name(image: Any, number: int) -> str:
    return str(image) if isinstance(image, str | PathLike) else f"image {number}"
