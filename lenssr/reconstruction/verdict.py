"""What a result says about itself: every flag measured on one run, once."""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from lenssr.reconstruction import decisions
from lenssr.reconstruction.result_flags import FLAGS, Flag

__all__ = ["FLAGS", "Flag", "Run", "Verdict", "arc_pixels", "judge"]

# What shines outside the arcs: its parameters count against the pixels there.
FIELD_ROLES = ("lens_light", "sky")


@dataclass(frozen=True)
class Verdict:
    """What is wrong or doubtful.

    Attributes
    ----------
    flags : tuple of str
        In the order of `FLAGS`.
    ok : bool
        Whether none of them is serious.
    measures : dict
        What was measured, as plain values by the names of flags; what could not be measured is left out.
    """

    flags: tuple
    ok: bool
    measures: dict

    @property
    def serious(self):
        """Those of the flags that are."""
        return tuple(name for name in self.flags if FLAGS[name].serious)


@dataclass(frozen=True, eq=False)
class Run:
    """What a verdict looks at: one image, how it was solved, and where that ended.

    Attributes
    ----------
    observation : `~lenssr.imaging.Observation`
    settings : `~lenssr.options.Settings`
    model : `~numpy.ndarray`, shape (ny, nx)
        Expected data.
    weight : `~numpy.ndarray`, shape (ny, nx)
        Inverse variance that was used.
    degrees : float
        Degrees of freedom: the pixels used less what is free, where nodes of a source on a grid count as far
        as the data determine them.
    facts : dict of str to bool
        What only the producer knows, by the names of flags: ``interpolated``, ``unlike_training``.
    scene : `~lenssr.model.scene.Scene` or None
        None, as the next three, where no model stands behind the image.
    fit : `~lenssr.model.fit.Fit` or None
    noise : `~lenssr.imaging.sky.SkyNoise` or None
        Of the residual.
    inversion : tuple of `~lenssr.source.Problem` and `~lenssr.source.Solution`, or None
        Of a source on a grid.
    """

    observation: object
    settings: object
    model: np.ndarray
    weight: np.ndarray
    degrees: float
    facts: dict = field(default_factory=dict)
    scene: object = None
    fit: object = None
    noise: object = None
    inversion: tuple | None = None

    def notes(self, name):
        """Whether the observation notes something, or whoever solved it does."""
        return name in self.observation.flags or bool(self.facts.get(name))

    @cached_property
    def residual(self):
        """Data - model, 0 where masked (ny, nx)."""
        return np.where(self.observation.mask, 0.0, self.observation.data - self.model)

    @cached_property
    def sigma(self):
        """Noise that was used (ny, nx), nan where no pixel was."""
        used = self.weight > 0
        return np.where(used, 1 / np.sqrt(np.where(used, self.weight, 1)), np.nan)

    @cached_property
    def pulls(self):
        """Residual in sigma (ny, nx)."""
        return self.residual * np.sqrt(self.weight)

    @cached_property
    def chi2(self):
        """Reduced chi2 of all pixels."""
        return float((self.pulls**2).sum() / max(self.degrees, 1))

    @property
    def widening(self):
        """By how much errors are wider than independent noise makes them."""
        return 1.0 if self.noise is None else self.noise.factor

    @cached_property
    def covariance(self):
        """Covariance of the parameters (P, P), for the noise as it correlates."""
        return self.fit.covariance * self.widening**2

    @cached_property
    def sky_level(self):
        """The fitted sky of a pixel; 0 without one."""
        return self.scene.sky_of(self.fit.physical)

    @cached_property
    def lensed_source(self):
        """The source's part of the model (ny, nx)."""
        return self.fit.lensed_source.reshape(self.weight.shape).cpu().numpy()

    @cached_property
    def arcs(self):
        """The pixels with arcs, bool (ny, nx)."""
        return arc_pixels(self.lensed_source, self.weight)

    @cached_property
    def beside_arcs(self):
        """The other pixels that were used, bool (ny, nx)."""
        return (self.weight > 0) & ~self.arcs

    @cached_property
    def determined(self):
        """How many parameters the pixels of the arcs and those of the field determine."""
        if self.fit.leverage is not None:
            leverage = self.fit.leverage.reshape(self.weight.shape).cpu().numpy()
            return leverage[self.arcs].sum(), leverage[self.beside_arcs].sum()
        in_field = sum(self.scene.count(role) for role in FIELD_ROLES)
        return np.count_nonzero(self.weight > 0) - self.degrees - in_field, in_field

    @property
    def lens(self):
        """The mass model, or None."""
        return None if self.scene is None else self.scene.lens

    @property
    def theta_E(self):
        """The first Einstein radius in arcsec, or None."""
        column = None if self.scene is None else self.scene.radius
        return None if column is None else float(self.fit.physical[column])


def arc_pixels(lensed_source, weight):
    """Where the lensed source stands more than 3 sigma above the noise, bool (ny, nx)."""
    return lensed_source * np.sqrt(weight) > decisions.ARC_SIGMA


def judge(run):
    """Measure every flag on a `Run` and return the `Verdict`."""
    measured = {name: flag.of(run) for name, flag in FLAGS.items()}
    measured = {name: value for name, value in measured.items() if value is not None}
    flags = tuple(name for name, value in measured.items() if FLAGS[name].raised(value))
    measures = {name: np.asarray(value).tolist() for name, value in measured.items()}
    return Verdict(flags, not any(FLAGS[name].serious for name in flags), measures)
