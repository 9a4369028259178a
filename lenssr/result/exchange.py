"""What a `~lenssr.SuperResolution` says to other codes: COOLEST and lenstronomy."""

import os
from typing import Any, Self, cast

from lenssr.result.coolest_files import result_from, template_path, write_coolest
from lenssr.result.lenstronomy_kwargs import lenstronomy_kwargs
from lenssr.units import positive_integer

__all__ = ["Exchange"]


class Exchange:
    """Methods of a result that write and read what other codes take."""

    def to_lenstronomy(self) -> dict[str, Any]:
        """Describe model and data in the names and keywords of lenstronomy, which need not be installed.

        Returns
        -------
        told : dict
            ``kwargs_model``, the names of lens, source and lens light; ``kwargs_lens``, ``kwargs_source`` and
            ``kwargs_lens_light``, the keywords of each; ``kwargs_data``, data less the sky with their errors
            and pixels; ``kwargs_psf`` and ``kwargs_numerics``, the PSF at the sampling of the fine image.
            Positions have x to the right. Without ``kwargs_psf`` if the result holds another PSF than the
            telescope's (``psf_out=``).

        Raises
        ------
        InputError
            If there is no lens, source or pixel scale, or lenstronomy has no such lens.

        See Also
        --------
        lenssr.mass.from_lenstronomy, lenssr.light.from_lenstronomy : The way back.

        Notes
        -----
        Brightnesses and deflections are the same to 1e-6, and so are images whose pixels are sampled alike.
        A source that is neither a Sersic nor a sum of Gaussians is the plane ``source`` as ``INTERPOL``.

        Examples
        --------
        >>> import astropy.units as u
        >>> from lenssr import SIS, PixelGrid, Sersic, SuperResolver, render
        >>> source = Sersic(9.0, 0.3, 1.0, 0.1, 0.05)
        >>> image = render(PixelGrid((30, 30), 0.1 * u.arcsec), lens=SIS(1.0), source=source)
        >>> told = SuperResolver(lens=SIS(1.0))(image, pixel_scale=0.1, noise=0.01).to_lenstronomy()
        >>> told["kwargs_model"]["lens_model_list"], told["kwargs_model"]["source_light_model_list"]
        (['SIS'], ['SERSIC_ELLIPSE'])
        """
        return lenstronomy_kwargs(self)

    def to_coolest(
        self,
        path: str | os.PathLike[str],
        *,
        z_lens: float | None = None,
        z_source: float | None = None,
        overwrite: bool = False,
    ) -> None:
        """Write a template of COOLEST, the format that lens-modelling codes share, and the files beside it.

        It needs the package coolest (``pip install "lenssr[coolest]"``), whose loader checks what is written
        before it appears. Data less sky, errors, mask and PSF; lens, lens light and source, on a regular grid
        where the format has no such profile; errors of the parameters and 500 draws: of those that
        `with_draws` has kept, by their weights, or else from the covariance. The result itself, with the
        errors of its pixels, is ``NAME_lenssr.fits``. One file a band.

        Parameters
        ----------
        path : str or `~pathlib.Path`
            The ``.json`` file to make.
        z_lens, z_source : float, optional
            Redshifts, which some codes ask for; unknown by default.
        overwrite : bool, optional
            Whether existing files may be replaced; no by default.

        Raises
        ------
        InputError
            If the package is missing, the lens has several planes, there is none, the image is not square
            and cannot be made so evenly, or the files exist.
        """
        write_coolest({template_path(path): self}, z_lens=z_lens, z_source=z_source, overwrite=overwrite)

    @classmethod
    def from_coolest(cls, path: str | os.PathLike[str], *, scale: int = 2) -> Self:
        """Render a template of COOLEST that any code may have written.

        It needs the package coolest (``pip install "lenssr[coolest]"``). Nothing in a file is run.

        Parameters
        ----------
        path : str or `~pathlib.Path`
            The ``.json`` file; files that it names lie beside it.
        scale : int, optional
            Number of pixels of ``image`` along one of the data, 2 by default.

        Returns
        -------
        result : `SuperResolution`
            The models of the template, what they look like, and how they fit its data. It has no errors and
            was not judged: ``ok`` is False.

        Raises
        ------
        InputError
            If the package is missing, its loader refuses the file, or a profile has no counterpart here.
        """
        return cast("Self", result_from(cls, path, positive_integer(scale, "scale")))
