"""A lens, its light, a source and the sky as one function of one parameter vector."""

import copy
from dataclasses import dataclass

import torch

from lenssr.exceptions import InputError
from lenssr.imaging.quadrature import CompactLights, KnownLights
from lenssr.light.gaussians_profile import GaussiansProfile
from lenssr.light.profile import LightProfile
from lenssr.light.sersic_profile import SersicProfile

__all__ = ["Block", "Scene"]

# A source larger than this share of half the field is no longer told from the halo of the lens.
SOURCE_SHARE = 0.3
# Options of a scene without a role.
NOTHING = {"lens": None, "source": (), "lens_light": (), "sky": False}

# Where a fit may take a shape that the user has not bounded: beyond, no lens galaxy has been seen.
SHAPE_BOUNDS = {"e1": 0.5, "e2": 0.5, "gamma1": 0.3, "gamma2": 0.3}
INSIDE = 1e-6


def _bounds_of(parameter):
    """Ends of a mass parameter in a fit: the user's, else the shape's, else just inside the limits."""
    low, high = parameter.bounds
    shape = SHAPE_BOUNDS.get(parameter.name, torch.inf)
    low = max(parameter.limits[0] + INSIDE, -shape) if low is None else low
    high = min(parameter.limits[1] - INSIDE, shape) if high is None else high
    return low, high


def _profiles(light):
    """Profiles of one role; a number stands for that many Sérsics."""
    if isinstance(light, LightProfile):
        return (light,)
    return tuple(SersicProfile() for _ in range(light)) if isinstance(light, int) else tuple(light)


def _sizes(block, physical, trace):
    """`CompactLights` of one profile, of parameters in a physical vector (1, P)."""
    vector = physical[:, block.slice]
    x_0, y_0 = (vector[:, place] for place in block.profile.centre)
    radius = block.profile.effective_radius(vector)
    shape = [
        vector[:, block.profile.names.index(name)] for name in ("e1", "e2") if name in block.profile.names
    ]
    modulus = torch.stack([*shape, torch.zeros_like(radius)]).norm(dim=0)
    root = ((1 - modulus) / (1 + modulus)).sqrt()
    return CompactLights(x_0, y_0, radius * root, radius / root, trace)


@dataclass(frozen=True)
class Block:
    """The place of one component in the parameter vector.

    Attributes
    ----------
    role : {"lens", "source", "lens_light", "sky"}
    names : tuple of str
    start, stop : int
        Its slice of the vector.
    profile : `~lenssr.light.LightProfile` or None
        What shines, if it does.
    """

    role: str
    names: tuple
    start: int
    stop: int
    profile: LightProfile | None = None

    @property
    def slice(self):
        """Where the block lies."""
        return slice(self.start, self.stop)

    def columns(self, stem):
        """Positions in the physical vector of the parameters named ``stem``, or ``stem_0``, ``stem_1``, ...

        Parameters
        ----------
        stem : str

        Returns
        -------
        columns : list of int
        """
        named = (name == stem or name.removeprefix(f"{stem}_").isdigit() for name in self.names)
        return [column for column, is_it in enumerate(named, start=self.start) if is_it]

    def column(self, name):
        """Position in the physical vector of the first of these parameters, or None; see `columns`."""
        return next(iter(self.columns(name)), None)


class Scene:
    """Which components make an image, where their parameters lie, and which of them are free.

    The physical vector holds the lens parameters, then those of the source and of each profile on the lens,
    as their `~lenssr.light.LightProfile` orders them, then the sky. A fit works on the free ones, with the
    logarithm of what must stay positive. ``scene["lens"]``, ``scene["source"]`` and ``scene["sky"]`` are the
    `Block` of that role, None without one, and ``scene.lights`` those of the lens light.

    Parameters
    ----------
    lens : `~lenssr.mass.MassModel` or None
        Gives names, bounds and the deflection; its values are not used.
    lens_free : bool
        Whether parameters of the lens that are not ``fixed`` are fitted.
    lens_light : `~lenssr.light.LightProfile`, sequence of them, or int
        What shines on the lens, or how many Sérsics do.
    sky : bool
        Whether a constant is added to every pixel.
    source : `~lenssr.light.LightProfile`, sequence of at most one, 0 or 1, optional
        What shines behind it, or how many Sérsics do. Default 1.
    extent : float
        Half the field in arcsec; centres of light stay inside it.
    device : str or `torch.device`, optional
        By default the CPU.

    Attributes
    ----------
    blocks : list of `Block`
        In the order of the physical vector.
    lights : tuple of `Block`
        Of the lens light.
    lower, upper : `torch.Tensor`, shape (P,)
        Bounds of the physical vector.
    log, free : `torch.Tensor` of bool, shape (P,)
        Which parameters a fit takes the logarithm of, and which it fits.
    """

    def __init__(self, *, lens, lens_free, lens_light, sky, extent, source=1, device="cpu"):
        self.lens, self.extent = lens, extent
        light = {"source": _profiles(source), "lens_light": _profiles(lens_light)}
        if len(light["source"]) > 1:
            raise InputError(f"a scene of {len(light['source'])} sources: give one, or none")
        self._options = {"lens": lens, "lens_free": lens_free, "sky": sky, "extent": extent, "device": device}
        self._options |= light
        self.blocks = []
        lower, upper, log, free = [], [], [], []
        if lens is not None:
            self._add("lens", lens.param_names)
            bounds = [_bounds_of(parameter) for parameter in lens.parameters]
            lower += [bound[0] for bound in bounds]
            upper += [bound[1] for bound in bounds]
            log += [False] * len(bounds)
            free += [lens_free and not parameter.fixed for parameter in lens.parameters]
        for role, profile in [(role, one) for role, profiles in light.items() for one in profiles]:
            self._add(role, profile.names, profile)
            ends = profile.bounds(extent, SOURCE_SHARE if role == "source" else 1.0)
            lower, upper = lower + ends[0], upper + ends[1]
            log += profile.log
            free += profile.free
        if sky:
            self._add("sky", ("sky",))
            lower, upper, log, free = [*lower, -torch.inf], [*upper, torch.inf], [*log, False], [*free, True]
        self.lights = tuple(block for block in self.blocks if block.role == "lens_light")
        self._single = {block.role: block for block in self.blocks if block.role != "lens_light"}
        self.lower = torch.tensor(lower, dtype=torch.float64, device=device)
        self.upper = torch.tensor(upper, dtype=torch.float64, device=device)
        self.log = torch.tensor(log, dtype=torch.bool, device=device)
        self._set_free(torch.tensor(free, dtype=torch.bool, device=device))

    def _add(self, role, names, profile=None):
        self.blocks.append(Block(role, tuple(names), self.size, self.size + len(names), profile))

    def _set_free(self, free):
        self.free, self.free_index = free, torch.nonzero(free).squeeze(1)

    def __getitem__(self, role):
        """Return the block of the lens, the source or the sky; None if the scene has none."""
        if role == "lens_light":
            raise KeyError("a scene may have several lens lights: use scene.lights")
        if role not in NOTHING:
            raise KeyError(f"a scene has no {role!r}: ask for 'lens', 'source' or 'sky', or use scene.lights")
        return self._single.get(role)

    @property
    def radius(self):
        """Column of the Einstein radius (of the first component that has one); None without one."""
        return None if self.lens is None else self["lens"].column("theta_E")

    def keep(self, *roles):
        """Mask (P,) of the physical vector that leaves out the components with these roles."""
        unknown = set(roles) - set(NOTHING)
        if unknown:
            raise KeyError(f"no roles of a scene: {sorted(unknown)}; give some of {', '.join(NOTHING)}")
        kept = torch.ones_like(self.free)
        for block in self.blocks:
            if block.role in roles:
                kept[block.slice] = False
        return kept

    def free_of(self, role):
        """Which parameters (K,) of the components with a role are free."""
        return self.free[~self.keep(role)]

    def count(self, role):
        """Number of free parameters of the components with a role."""
        return int(self.free_of(role).sum())

    def fit_rows(self, *roles):
        """Mask (F,) of the entries of the fit vector that belong to the components with these roles."""
        return ~self.keep(*roles)[self.free]

    def without(self, role):
        """The scene without the components with a role; of the rest the same parameters are free."""
        kept = self.keep(role)
        rest = Scene(**{**self._options, role: NOTHING[role]})
        rest._set_free(self.free[kept])
        return rest

    def on(self, device):
        """Return the scene with its tensors on a device."""
        twin = copy.copy(self)
        twin._options = {**self._options, "device": device}
        for name in ("lower", "upper", "log", "free", "free_index"):
            setattr(twin, name, getattr(self, name).to(device))
        return twin

    def with_lens_held(self):
        """The scene with its lens as it is given."""
        held = copy.copy(self)
        held._set_free(self.free & self.keep("lens"))
        return held

    def with_plain_light(self):
        """The scene with one Sérsic for all light of the lens, or itself if that is what it has."""
        if not self.lights or (len(self.lights) == 1 and self.lights[0].profile.plain):
            return self
        return Scene(**{**self._options, "lens_light": 1})

    def from_plain_light(self, plain, physical):
        """Carry physical vectors (..., P') of `with_plain_light` to this scene, its Sérsic shared out.

        Parameters
        ----------
        plain : `Scene`
        physical : `torch.Tensor`, shape (..., P')

        Returns
        -------
        physical : `torch.Tensor`, shape (..., P)
        """
        flat = physical.reshape(-1, plain.size)
        light = flat[:, plain.lights[0].slice]
        parts = [flat[:, block.slice] for block in plain.blocks if block.role in ("lens", "source")]
        shared = [block.profile for block in self.lights if block.profile.given is None]
        for profile in (block.profile for block in self.lights):
            rank = shared.index(profile) if profile in shared else 0
            parts.append(profile.start(light, rank, max(len(shared), 1)))
        parts += [] if plain["sky"] is None else [flat[:, plain["sky"].slice]]
        return torch.cat(parts, dim=1).reshape(*physical.shape[:-1], self.size)

    def with_groups_shared(self, physical):
        """Share the light of groups of Gaussians out among them once more, as at the start of a fit.

        Parameters
        ----------
        physical : `torch.Tensor`, shape (B, P)

        Returns
        -------
        physical : `torch.Tensor`, shape (B, P), or None
            None if there are no two groups that nobody has described.
        """
        unknown = [block for block in self.lights if block.profile.given is None]
        groups = [block for block in unknown if isinstance(block.profile, GaussiansProfile)]
        if len(groups) < 2:
            return None
        mean = torch.stack([physical[:, block.slice] for block in groups]).mean(0)
        physical = physical.clone()
        for rank, block in enumerate(groups):
            physical[:, block.slice] = block.profile.share(mean, rank, len(groups))
        return physical

    @property
    def size(self):
        """Length of the physical vector."""
        return self.blocks[-1].stop if self.blocks else 0

    def bounds(self, count):
        """Lower and upper ends of the physical vectors of ``count`` problems, each (count, P)."""
        return tuple(end.expand(count, -1).clone() for end in (self.lower, self.upper))

    @property
    def lens_centre_columns(self):
        """Where the centre of the first lens component lies in the physical vector; empty if it has none."""
        columns = [self["lens"].column(axis) for axis in ("x_0", "y_0")] if self.lens is not None else [None]
        return [] if None in columns else columns

    def lens_centre(self, physical):
        """Centre (B, 2) of the lens; the origin if it has none."""
        columns = self.lens_centre_columns
        return physical[:, columns] if columns else physical.new_zeros(len(physical), 2)

    def sky_of(self, physical):
        """The sky level of a physical vector (P,), 0 where none is fitted."""
        return 0.0 if self["sky"] is None else float(physical[self["sky"].start])

    @property
    def lens_moves(self):
        """Whether any parameter of the lens is free."""
        return self.lens is not None and bool(self.free[self["lens"].slice].any())

    def _encode(self, vector):
        return torch.where(self.log, vector.clamp_min(1e-300).log(), vector)

    def to_fit(self, physical):
        """Physical vectors (..., P) to fit vectors (..., F)."""
        return self._encode(physical)[..., self.free]

    def to_physical(self, fit, template):
        """Fit vectors (..., F) to physical ones (..., P), the rest taken from ``template``."""
        values = torch.where(self.log[self.free], fit.exp(), fit)
        physical = template.clone()
        physical[..., self.free] = values.to(template)
        return physical

    def physical_covariance(self, covariance, physical):
        """Covariance (B, F, F) of the fit vector as one (B, P, P) of the physical vector."""
        slope = torch.where(self.log, physical, torch.ones_like(physical))[..., self.free]
        scaled = covariance * slope.unsqueeze(-1) * slope.unsqueeze(-2)
        full = covariance.new_zeros(*physical.shape, physical.shape[-1])
        full[..., self.free_index[:, None], self.free_index[None, :]] = scaled
        return full

    def source_positions(self, x, y, physical):
        """Where rays (R,) or (B, R) land in the source plane, each (B, R)."""
        if self.lens is None:
            return x.expand(len(physical), -1), y.expand(len(physical), -1)
        alpha_x, alpha_y = self.lens.deflection_at(x, y, physical[:, self["lens"].slice].to(x))
        return x - alpha_x, y - alpha_y

    def brightness(self, x, y, physical, *, roles=("source", "lens_light"), positions=None):
        """Surface brightness (B, R) at image-plane rays."""
        total = torch.zeros(len(physical), x.shape[-1], dtype=x.dtype, device=x.device)
        if "source" in roles:
            beta = self.source_positions(x, y, physical) if positions is None else positions
        for block in self.blocks:
            if block.role in roles and block.profile is not None:
                where = beta if block.role == "source" else (x, y)
                total = total + block.profile.brightness(*where, physical[:, block.slice].to(x))
        return total

    def brightness_at(self, physical):
        """The surface brightness of one physical vector (1, P) as a function of rays, which gives (R,).

        It knows where its lights are and how large, a ``KnownLights``.
        """

        def trace(x, y):
            return tuple(axis[0] for axis in self.source_positions(x, y, physical))

        blocks = [block for block in self.blocks if block.profile is not None]
        lights = (
            _sizes(block, physical, trace if block.role == "source" else lambda x, y: (x, y))
            for block in blocks
        )
        return KnownLights(lambda x, y: self.brightness(x, y, physical)[0], tuple(lights))

    def brightness_jacobian(self, x, y, physical, *, positions=None, cusp=0.0):
        """Surface brightness (B, R) and its derivatives (B, F, R) with respect to the fit vector.

        The sky, which does not pass the telescope, is left to the caller. Closer to a centre of light than
        ``cusp`` (arcsec) derivatives with respect to position are zero: there they grow without limit, and
        their integral over a small disc is zero by symmetry, which a few rays cannot reproduce.
        """
        physical = physical.to(x)
        total = 0
        columns = []
        lens_block = self["lens"]
        lens_moves = self.lens_moves
        if lens_moves:
            lens_parameters = physical[:, lens_block.slice]
            alpha_x, alpha_y, d_alpha_x, d_alpha_y = self.lens.deflection_jacobian_at(x, y, lens_parameters)
            beta = (x - alpha_x, y - alpha_y)
        else:
            beta = self.source_positions(x, y, physical) if positions is None else positions
        slope_x = slope_y = 0
        for block in self.blocks:
            if block.profile is None:
                continue
            where = beta if block.role == "source" else (x, y)
            value, d_x, d_y, derivative = self.light_derivatives(block, *where, physical, cusp)
            total = total + value
            if block.role == "source":
                slope_x, slope_y = slope_x + d_x, slope_y + d_y
            columns.append(derivative)
        if lens_moves:
            keep = self.free[lens_block.slice]
            moved = slope_x.unsqueeze(1) * d_alpha_x[:, keep] + slope_y.unsqueeze(1) * d_alpha_y[:, keep]
            columns.insert(0, -moved)
        return total, columns[0] if len(columns) == 1 else torch.cat(columns, dim=1)

    def light_jacobian(self, x, y, physical, *, cusp=0.0):
        """Derivatives (B, F', R) of the lens light alone, with respect to its own part of the fit vector."""
        physical = physical.to(x)
        return torch.cat([self.light_derivatives(block, x, y, physical, cusp)[3] for block in self.lights], 1)

    def light_derivatives(self, block, x, y, physical, cusp=0.0):
        """Brightness of one profile, its slopes along x and y, and its derivatives in fit variables.

        Parameters
        ----------
        block : `Block`
        x, y : `torch.Tensor`, shape (R,) or (B, R)
        physical : `torch.Tensor`, shape (B, P)
        cusp : float

        Returns
        -------
        brightness, d_dx, d_dy : `torch.Tensor`, shape (B, R)
        d_dp : `torch.Tensor`, shape (B, F', R)
        """
        parameters = physical[:, block.slice]
        value, d_x, d_y, derivative = block.profile.jacobian(x, y, parameters, cusp)
        factor = torch.where(self.log[block.slice], parameters, torch.ones_like(parameters))
        derivative = derivative.mul_(factor.unsqueeze(-1))
        free = self.free[block.slice]
        return value, d_x, d_y, derivative if bool(free.all()) else derivative[:, free]
