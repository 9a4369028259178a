"""What a fit makes of the options of a `~lenssr.SersicPhotometry`."""

from dataclasses import dataclass, field

from lenssr.exceptions import InputError
from lenssr.options import PhotometryOptions
from lenssr.photometry.fit_constraints import ComponentConstraints
from lenssr.photometry.groups import AutoGrouper

__all__ = ["FitSettings"]

# Side of a stamp over the separation of galaxies that are fitted together. Chosen: their boxes
# overlap by half.
GROUP_SHARE = 2.5
# Distance in pixels that a centre may move: one that moves farther is on its way to another galaxy. Chosen.
FARTHEST_CENTRE = 10.0


@dataclass(frozen=True, kw_only=True)
class FitSettings(PhotometryOptions):
    """Options of a `~lenssr.SersicPhotometry` with what follows from them.

    Attributes
    ----------
    templates : tuple of `~lenssr.photometry.fit_constraints.ComponentConstraints`
        What the user says of each component.
    """

    templates: tuple = field(init=False)

    def __post_init__(self):
        super().__post_init__()
        constraints = (self.model, self.fixed, self.bounds, self.tied)
        object.__setattr__(self, "templates", _templates(*constraints, self.n_components))

    @property
    def reach(self):
        """How far a centre may move along x and y, in pixels."""
        return self.xy_bounds or tuple(min(side / 4, FARTHEST_CENTRE) for side in self.box[::-1])

    def make_grouper(self):
        """What says which galaxies are fitted together: a callable, or None."""
        return AutoGrouper(min(self.box) / GROUP_SHARE) if self.grouper == "auto" else self.grouper

    def describe(self):
        """The options as plain values, for people; without the PSF and the grouper."""
        plain = {
            name: getattr(self, name)
            for name in ("fit_shape", "sky", "n_components", "xy_bounds", "loss", "intervals")
        }
        constraints = [template.describe() for template in self.templates]
        return plain | {"constraints": constraints, "device": str(self.torch_device)}


def _templates(model, fixed, bounds, tied, count):
    """Constraints of each component."""
    models = list(model) if isinstance(model, list | tuple) else [model] * count
    if len(models) != count:
        raise InputError(f"model has {len(models)} entries for {count} components: give one each")
    options = []
    for k in range(count):
        own = {}
        for name, given in (("fixed", fixed), ("bounds", bounds), ("tied", tied)):
            given = given or {}
            mine = {
                key: v
                for key, v in given.items()
                if count == 1 or key[-2:] not in ("_0", "_1") or key in ("x_0", "y_0")
            }
            if count > 1:
                mine |= {
                    key[:-2]: v
                    for key, v in given.items()
                    if key.endswith(f"_{k}") and key not in ("x_0", "y_0")
                }
            own[name] = mine
        options.append(own)
    if count == 2 and models[1] is None:
        from astropy.modeling.models import Sersic2D

        # The disc of a bulge and a disc is exponential; give a model to free it.
        models[1] = Sersic2D(n=1.0, fixed={"n": True})
    return tuple(ComponentConstraints(one, **own) for one, own in zip(models, options, strict=True))
