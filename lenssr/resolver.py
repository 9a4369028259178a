"""`SuperResolver`: one lens cutout in; a super-resolved image, its source and its lens out."""

import contextlib
import functools
import time
import warnings
from pathlib import Path

from lenssr._workers import count_jobs, solve_parts
from lenssr.exceptions import InputError, LensSRDeprecationWarning
from lenssr.imaging.observation import Observation
from lenssr.options import RESOLVER, Settings
from lenssr.reconstruction.fine_images import check_output_psf
from lenssr.result import FailedResolution

__all__ = ["SuperResolver"]


class SuperResolver:
    """Super-resolve images of strong lenses with a model of lens and source.

    Parameters
    ----------
    scale : int, optional
        How many output pixels lie along an input pixel, by default 2.
    source : {"sersic", "pixelated", "perturbed_sersic", "auto", "network", "interpolation"}, a name of \
`~lenssr.register_source`, or `~lenssr.NetworkSource`, optional
        What describes the source: a Sérsic profile (default); its brightness on a grid, free but for a prior
        on its roughness, started from the Sérsic fit ("pixelated"); that Sérsic times a factor on a grid with
        such a prior, which need not follow the cusp itself ("perturbed_sersic"); whichever of these three
        has the highest evidence ("auto"; ``result.meta`` names it and its candidates); a trained network,
        which draws it in milliseconds ("network", or a `~lenssr.NetworkSource` that says which network, and
        how many steps of the free-form source follow; ``result.meta["network"]`` names it); a profile of your
        own, registered under a name; or nothing: plain bicubic interpolation.
    lens : `~lenssr.mass.MassModel`, optional
        The lens. By default it is unknown, and an SIE with external shear is fitted without any hint: with
        Einstein radii to start from between 0.3" and 0.4 of the field, the centre within 0.3" of the light
        of the lens (of the image centre where none is fitted), and weak Gaussian priors on its shape and
        place (see the page on the method). A given lens is fitted without priors.
    fit_lens : bool, optional
        Whether a given lens is refined, honouring ``fixed`` and ``bounds`` of its parameters; by default it
        is kept.
    start : {"search", "network"} or path, optional
        Where the fit of an unknown lens begins: at Einstein radii all over the field (default), or where a
        `~lenssr.networks.DeflectionNetwork` sees the lens, its weights those that come with lenssr or in a
        file. Where the end of that leaves more than noise and is far from what the network says, or lies on
        a bound, the search follows; where a Sérsic leaves some of the arcs, a free-form source refines the
        lens, and the Sérsic is that behind it. ``result.meta["lens_from"]`` says what found the lens.
    lens_light : None, "sersic", "mge", model, or a list of these, optional
        What the lens galaxy looks like, fitted with the rest: a Sérsic profile; a multi-Gaussian expansion
        of its light, which follows real galaxies more closely (`~lenssr.light.MultiGaussian`); or several of
        them, such as ``["sersic", "sersic"]`` for a bulge and a disc. A `~lenssr.light.Sersic` or
        `~lenssr.light.MultiGaussian` says where the fit begins, honouring ``fixed`` and ``bounds`` of its
        parameters. By default the galaxy does not shine.
    sky : {"constant", None}, optional
        Whether a constant sky level is fitted; it is by default.
    psf, noise, mask : optional
        What `__call__` takes, for every image.
    oversampling : int or "auto", optional
        An integer s samples the model at s x s points of a pixel (1: at its centre, as the DeepLense images
        are); "auto", the default, integrates over the pixel.
    psf_out : None, "pixel" or `~astropy.units.Quantity`, optional
        What ``image``, ``lensed_source`` and ``lens_light_image`` are seen with: the PSF of the telescope
        (None, the default); a Gaussian of this FWHM, at least two output pixels and narrower than the PSF
        of the image; or the output pixels alone, which shows detail that the data do not hold: the result
        is then flagged ``extrapolated``.
    prior : str, optional
        The prior on the roughness of a source on a grid: a name of `lenssr.source.PRIORS`, or "auto",
        the default, which compares some of them by evidence. Its strength is always found by evidence. Only
        the errors of a source that a network draws feel it, unless steps follow.
    positive : bool, optional
        Whether a source on a grid is positive, by default True: the prior is then on the logarithm of its
        brightness. False gives the linear inversion, whose prior is on the brightness itself, so that it
        may fall below zero.
    device : str, optional
        "auto" (default: CUDA where there is one), "cpu", "cuda", ... On a CPU a source on a grid is solved
        with banded matrices, on other devices with dense ones, many images of `map` together; their errors
        and fine images are then made on the CPU, one image after the other.
    seed : int, optional
        Of the random shapes that the search for an unknown lens starts from, and of the draws that give a
        pixelated source its errors; by default 0.

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
        scale=2,
        source="sersic",
        lens=None,
        fit_lens=None,
        start="search",
        lens_light=None,
        sky="constant",
        psf=None,
        noise=None,
        mask=None,
        oversampling="auto",
        psf_out=None,
        prior="auto",
        positive=True,
        device="auto",
        seed=0,
    ):
        options = locals()  # the keywords above, by name: nothing else is local yet
        self.psf, self.noise, self.mask = psf, noise, mask
        self.settings = Settings(**{name: options[name] for name in Settings.names()})
        self._method = self.settings.method()

    def __repr__(self):
        values = {name: getattr(self.settings, name, getattr(self, name, None)) for name in RESOLVER}
        return f"SuperResolver({', '.join(f'{name}={value!r}' for name, value in values.items())})"

    def __call__(self, image, *, psf=None, noise=None, mask=None, **reading):
        """Super-resolve one image.

        Parameters
        ----------
        image : path, `~astropy.io.fits.HDUList`, `~astropy.nddata.CCDData` or `~astropy.nddata.NDData`
            The cutout, shape (ny, nx), lens near the middle.
        psf : `~lenssr.imaging.PSF`, array, path, FWHM as a Quantity, kernel or photutils PSF model, optional
            Instead of the one of the resolver or the file.
        noise : `~lenssr.imaging.NoiseModel`, Quantity, number or array, optional
            Noise model, or one standard deviation per pixel. By default the error plane of the image.
        mask : array of bool, shape (ny, nx), or "auto", optional
            True hides a pixel; "auto" hides other objects in the field and keeps the arcs.
        **reading
            ``pixel_scale``, ``unit``, ``zero_point`` and ``hdus``, where the image does not say them itself;
            see `~lenssr.imaging.Observation.from_any`.

        Returns
        -------
        result : `~lenssr.SuperResolution`

        Raises
        ------
        InputError
            If the image cannot be used; the message names the value and the remedy.
        """
        started = time.perf_counter()
        observation = self._observe(image, psf, noise, mask, reading)
        (result,) = self._method.solve([observation], _finisher(self.settings, 1, started))
        if isinstance(result, Exception):
            raise result
        return result

    def map(self, images, *, psf=None, noise=None, mask=None, jobs=1, progress=False, **reading):
        """Super-resolve many images: in batches, in several processes, whatever becomes of any one of them.

        Sérsic sources of images of one shape and telescope are fitted together; so are, on a GPU, sources on
        a grid.

        Parameters
        ----------
        images : sequence
            Each as in `__call__`.
        psf, noise, mask : optional
            As in `__call__`: one for all images, or a list with one for each.
        jobs : int, optional
            In how many processes images are solved on the CPU; -1 or None: one for each core. Each has one
            thread for its arithmetic, unless ``OMP_NUM_THREADS`` says otherwise, and gives what 1 process,
            the default, gives with as many threads. On a GPU it is 1, for batches fill it.
        progress : bool, optional
            Whether a progress bar is shown, by default not.
        **reading
            As in `__call__`, for all images.

        Returns
        -------
        results : list
            In the order of the images: a `~lenssr.SuperResolution` each, or a
            `~lenssr.FailedResolution` that holds the error where one failed.

        Raises
        ------
        InputError
            If there are more or fewer PSFs, noise models or masks than images, or if ``jobs`` is no number
            of processes, or they cannot be started.

        Notes
        -----
        A script that asks for several processes must do so below ``if __name__ == "__main__":``, for each of
        them imports it. An image whose process ends, for lack of memory say, fails by itself. Log records
        of other processes reach the handlers of this one with the results.
        """
        images = list(images)
        jobs = count_jobs(jobs, self._method.settings.torch_device)
        names = [_name(image, i) for i, image in enumerate(images)]
        extras = _extras(len(images), psf=psf, noise=noise, mask=mask)
        results = [None] * len(images)
        groups = {}
        for i, image in enumerate(images):
            try:
                observation = self._observe(image, *(extra[i] for extra in extras), reading)
            except (InputError, OSError, ValueError, TypeError) as error:
                results[i] = FailedResolution(error, names[i])
                continue
            groups.setdefault(_group_key(observation), []).append((i, observation))
        parts = [part for members in groups.values() for part in self._method.parts(members)]
        solving = contextlib.closing(solve_parts(functools.partial(reconstruct, self._method), parts, jobs))
        with _bar(len(images), progress) as bar, solving as solved:
            bar.update(sum(result is not None for result in results))
            for numbers, found in solved:
                for i, result in zip(numbers, found, strict=True):
                    failed = isinstance(result, Exception)
                    results[i] = FailedResolution(result, names[i]) if failed else result
                bar.update(len(numbers))
        return results

    def fine_tune(
        self,
        images,
        *,
        lenses=None,
        psf=None,
        noise=None,
        mask=None,
        steps=200,
        learning_rate=3e-4,
        folder=None,
        progress=False,
        **reading,
    ):
        """Train the network that draws the source further, on images of one's own.

        It needs no finer images: in each step some pixels of one image are hidden from the network, which
        draws the source from the others, and the source, re-lensed, has to predict them. A tenth of the
        pixels of each image is held back from all steps, and tells what these have brought: see `training`.
        Deterministic on a CPU: the same images and seed of the resolver give the same network.

        Parameters
        ----------
        images : list
            Each as in `__call__`; their shapes, PSFs, pixel scales, units and noise may differ.
        lenses : list of `~lenssr.mass.MassModel` and None, or one `~lenssr.mass.MassModel`, optional
            One for each image, or one for all. Where there is none, the lens of the resolver; if that has
            none either, it is fitted to the image with a Sérsic source first, as it is in `__call__`.
        psf, noise, mask : optional
            As in `map`: one for all images, or a list with one for each.
        steps : int, optional
            How many are taken, by default 200, one image in each.
        learning_rate : float, optional
            At its highest, by default 0.0003.
        folder : str or `~pathlib.Path`, optional
            Where the network (``source.safetensors``, as `~lenssr.networks.save_weights` writes it) and the
            log of its losses are written. By default nothing is: `save` writes the resolver.
        progress : bool, optional
            Whether progress bars are shown, by default not.
        **reading
            As in `__call__`, for all images.

        Returns
        -------
        resolver : `SuperResolver`
            This one. It solves images with the new network from here on, and flags those unlike the ones
            given here (``unlike_training``). The files that come with lenssr stay as they are.

        Raises
        ------
        InputError
            If the source is not drawn by a `~lenssr.networks.RelensingNetwork`, there are no images or one
            cannot be used, there are more or fewer lenses, PSFs, noise models or masks than images, Lightning
            is not installed (extra ``train``), or the training diverges.

        Notes
        -----
        Training begins with the network that the resolver has; with several, with that for the first image.
        Pixels whose noise is correlated tell each other's, so that some of it may be learned too. A
        `~lenssr.exceptions.LensSRWarning` says so if chi2 of the pixels held back is more than 1 % larger
        after it.

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
        if isinstance(images, str | Path) or not (images := list(images)):
            raise InputError("images: none are given; give a list of one or more")
        names = [_name(image, i) for i, image in enumerate(images)]
        *extras, lenses = _extras(len(images), psf=psf, noise=noise, mask=mask, lenses=lenses)
        observations = [self._observe(*each, reading) for each in zip(images, *extras, strict=True)]
        options = {"steps": steps, "learning_rate": learning_rate, "folder": folder, "progress": progress}
        self._method = fine_tune(self._method, observations, names, lenses, **options)
        return self

    def fit(self, images, **options):
        """Do what `fine_tune` does, under the name that it had; deprecated.

        Parameters
        ----------
        images, **options
            Those of `fine_tune`.

        Returns
        -------
        resolver : `SuperResolver`
        """
        warnings.warn(
            "SuperResolver.fit is deprecated: it trains a network, call fine_tune",
            LensSRDeprecationWarning,
            stacklevel=2,
        )
        return self.fine_tune(images, **options)

    @property
    def training(self):
        """What came of `fine_tune`: the `~lenssr.networks.Card` of the network, or None where there was none.

        Its ``scores`` are chi2 per pixel of the pixels held back, ``hidden_pixels`` after the training and
        ``hidden_pixels_before``; 1 is noise alone.
        """
        from lenssr.reconstruction.fine_tuning import training_of

        return training_of(self._method)

    def save(self, path):
        """Write the settings, and the networks where the source is one, to a file that cannot run code.

        Parameters
        ----------
        path : str or `~pathlib.Path`
            Ends in ``.safetensors``. A file there is replaced, at once and whole.

        Raises
        ------
        InputError
            If the resolver holds what belongs to images (PSF, noise, mask), or a model with tied parameters.
        ImportError
            If safetensors is not installed (extra ``networks``).
        """
        from lenssr.networks.weights import save_bundle

        for name in ("psf", "noise", "mask"):
            if getattr(self, name) is not None:
                raise InputError(
                    f"{name}= belongs to images, and is not saved with a resolver: leave it out here, and "
                    "give it with the images"
                )
        known = getattr(self._method, "networks", [])
        networks = [(one.network, one.card, one.origin) for one in known]
        save_bundle(path, self.settings.save(), networks)

    @classmethod
    def load(cls, path):
        """Read a resolver from a file of `save`. Nothing in it is run.

        Parameters
        ----------
        path : str or `~pathlib.Path`

        Returns
        -------
        resolver : `SuperResolver`
            That gives the same results, to the last bit.

        Raises
        ------
        InputError
            If the file is no such one, or damaged, or has a source or a model that is not known here: import
            the modules that define them first.
        ImportError
            If safetensors is not installed (extra ``networks``).
        """
        from lenssr.networks.weights import load_bundle

        return cls(**Settings.load(load_bundle(path)[0], path))

    @classmethod
    def from_pretrained(cls, name, **options):
        """Make a resolver with weights that come with lenssr.

        Parameters
        ----------
        name : str
            One of `lenssr.networks.available`, or a file of weights.
        **options
            Of the resolver, but for ``source``; the scale of an SISR is its own by default.

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
        own = {"scale": network.scale} if network.kind == "SISR" else {}
        return cls(source=NetworkSource(name), **{**own, **options})

    def _observe(self, image, psf, noise, mask, reading):
        mask = self.mask if mask is None else mask
        automatic = isinstance(mask, str)
        if automatic and mask != "auto":
            raise InputError(f"mask = {mask!r}: give an array of bool, 'auto' or None")
        observation = Observation.from_any(
            image,
            psf=self.psf if psf is None else psf,
            noise=self.noise if noise is None else noise,
            mask=None if automatic else mask,
            **reading,
        )
        check_output_psf(self.settings.psf_out, observation, self.settings.scale)
        if automatic:
            from lenssr.reconstruction.field_mask import auto_mask

            return observation.masked(auto_mask(observation))
        return observation


def reconstruct(method, observations):
    """Results of observations that are solved together, or exceptions where single ones failed."""
    return method.solve(observations, _finisher(method.settings, len(observations), time.perf_counter()))


def _finisher(settings, count, started):
    """What makes a result as soon as an image is solved, with its share of the seconds since the start.

    A method calls it before it turns to the next image, so that one inversion is held at a time.
    """

    def seconds():
        return (time.perf_counter() - started) / count

    return lambda solved, observation: solved.result(observation, settings, seconds)


def _group_key(observation):
    """Images with the same key are solved together: one shape, sampling, PSF, kind of unit and of noise."""
    psf = observation.psf
    kernel = None if psf is None else (psf.kernel(observation.grid.matrix).tobytes(), psf.includes_pixel)
    pixels = tuple(observation.grid.matrix.round(9).ravel().tolist())
    key = observation.shape, pixels, kernel, observation.conserves_sum
    return *key, type(observation.noise)


def _extras(count, **values):
    return [_one_each(name, value, count) for name, value in values.items()]


def _one_each(name, value, count):
    if not isinstance(value, list | tuple):
        return [value] * count
    if len(value) != count:
        raise InputError(f"{name} has {len(value)} entries for {count} images: give one each, or one for all")
    return list(value)


def _name(image, number):
    return str(image) if isinstance(image, str | Path) else f"image {number}"


def _bar(total, shown):
    from tqdm import tqdm

    return tqdm(total=total, disable=not shown, unit="image")
