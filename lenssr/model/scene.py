"""A lens, its light, a source and the sky as one function of one parameter vector."""

import copy
from dataclasses import dataclass

import torch

from lenssr.exceptions import InputError
from lenssr.imaging.quadrature import CompactLights, KnownLights
from lenssr.light.gaussians import GaussiansProfile
from lenssr.light.profile import LightProfile
from lenssr.light.sersic import SersicProfile
from lenssr.mass import DoubleSourcePlane

# Largest source, as a share of half the field: a larger one mimics the halo of the lens.
SOURCE_SHARE = 0.3
# Options of a scene without a role.
NOTHING = {"lens": None, "source": (), "lens_light": (), "sky": False}

# Bounds of shapes that the user has not bounded: no lens galaxy has been seen beyond.
SHAPE_BOUNDS = {"e1": 0.5, "e2": 0.5, "gamma1": 0.3, "gamma2": 0.3}
INSIDE = 1e-6
# Name of the logarithmic slope of a lens that has one.
SLOPE = "gamma"


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
    names = block.profile.names
    shape = [vector[:, names.index(name)] for name in ("e1", "e2") if name in names]
    modulus = torch.stack([*shape, torch.zeros_like(radius)]).norm(dim=0)
    root = ((1 - modulus) / (1 + modulus)).sqrt()
    return CompactLights(x_0, y_0, radius * root, radius / root, trace)


def _plane(positions, block):
    """What concerns the plane of one source, of a list of x and y for each plane."""
    return positions[2 * block.rank : 2 * block.rank + 2]


def _priors_of(lens, block):
    """Mean and standard deviation of the prior of the scaling of two source planes, by its column."""
    if not isinstance(lens, DoubleSourcePlane) or not 0 < lens.source_planes.beta_error < torch.inf:
        return {}
    return {block.stop - 1: (lens.source_planes.beta, lens.source_planes.beta_error)}


@dataclass(frozen=True)
class Block:
    """The place ``start:stop`` of one component in the parameter vector, and its light profile if it shines.

    ``role`` is "lens", "source", "lens_light" or "sky"; the second of two sources has the ``rank`` 1.
    """

    role: str
    names: tuple[str, ...]
    start: int
    stop: int
    profile: LightProfile | None = None
    rank: int = 0

    @property
    def label(self) -> str:
        """The component as users see it."""
        return "second_source" if self.role == "source" and self.rank else self.role

    @property
    def slice(self) -> slice:
        """Columns of the block in the physical vector."""
        return slice(self.start, self.stop)

    def columns(self, stem: str) -> list[int]:
        """Columns in the physical vector of parameters named ``stem``, or ``stem_0``, ``stem_1``, ..."""
        named = (name == stem or name.removeprefix(f"{stem}_").isdigit() for name in self.names)
        return [column for column, is_it in enumerate(named, start=self.start) if is_it]

    def column(self, name: str) -> int | None:
        """Position in the physical vector of the first of these parameters, or None; see `columns`."""
        return next(iter(self.columns(name)), None)


class Scene:
    """Which components make an image, where their parameters lie, and which of them are free.

    The physical vector holds the lens parameters, then those of the source and of each profile on the lens,
    as their `~lenssr.light.LightProfile` orders them, then the sky. A fit works on the free ones, with the
    logarithm of what must stay positive. ``scene["lens"]``, ``scene["source"]`` and ``scene["sky"]`` are the
    `Block` of that role, None without one, ``scene.sources`` those of the sources, two behind a
    `~lenssr.mass.DoubleSourcePlane`, ``scene.lights`` those of the lens light; ``blocks`` are all in order.
    Of shape (P,) are the bounds ``lower`` and ``upper``, ``log`` (fitted as logarithms) and ``free``.

    The ``lens`` gives names, bounds and the deflection, not its values; its parameters that are not ``fixed``
    are free if ``lens_free``. ``source`` and ``lens_light`` are profiles, or numbers of Sérsics, whose
    centres stay within ``extent`` arcsec. While the lens of two sources is fitted, its sphere stays at the
    first. ``sky`` adds a constant to every pixel. ``theta_E`` is what is expected of an unknown lens, in
    arcsec, None if nothing is; ``follows_light`` whether it has priors around the light of its galaxy.
    ``priors`` are those that come with the lens: mean and standard deviation by column.
    """

    def __init__(
        self,
        *,
        lens,
        lens_free,
        lens_light,
        sky,
        extent,
        source=1,
        theta_E=None,
        follows_light=True,
        device="cpu",
    ):
        self.lens, self.extent, self.theta_E, self.follows_light = lens, extent, theta_E, follows_light
        light = {"source": _profiles(source), "lens_light": _profiles(lens_light)}
        most = 2 if isinstance(lens, DoubleSourcePlane) else 1
        if len(light["source"]) > most:
            raise InputError(f"a scene of {len(light['source'])} sources: give {most}, or none")
        self._options = {"lens": lens, "lens_free": lens_free, "sky": sky, "extent": extent, "device": device}
        self._options |= light | {"theta_E": theta_E, "follows_light": follows_light}
        self.blocks = []
        columns = []
        if lens is not None:
            self._add("lens", lens.param_names)
            columns += [(*_bounds_of(one), False, lens_free and not one.fixed) for one in lens.parameters]
        for role, profile in [(role, one) for role, profiles in light.items() for one in profiles]:
            self._add(role, profile.names, profile)
            ends = profile.bounds(extent, SOURCE_SHARE if role == "source" else 1.0)
            columns += zip(*ends, profile.log, profile.free, strict=True)
        if sky:
            self._add("sky", ("sky",))
            columns.append((-torch.inf, torch.inf, False, True))
        lower, upper, log, free = zip(*columns, strict=True) if columns else ((), (), (), ())
        self.lights = tuple(block for block in self.blocks if block.role == "lens_light")
        self.sources = tuple(block for block in self.blocks if block.role == "source")
        self._single = {block.label: block for block in self.blocks if block.role != "lens_light"}
        self.lower = torch.tensor(lower, dtype=torch.float64, device=device)
        self.upper = torch.tensor(upper, dtype=torch.float64, device=device)
        self.log = torch.tensor(log, dtype=torch.bool, device=device)
        self.bright = torch.zeros_like(self.log)
        for block in self.lights:
            for name in block.profile.bright:
                self.bright[block.start + block.names.index(name)] = True
        self.priors = _priors_of(lens, self["lens"])
        # Columns of the place of the sphere of two source planes, and of the first source, where it stays.
        self.tied = ([], [])
        if len(self.sources) == 2 and lens_free:
            first, stop = self.sources[0], self["lens"].stop
            self.tied = [stop - 3, stop - 2], [first.start + k for k in first.profile.centre]
        free = torch.tensor(free, dtype=torch.bool, device=device)
        free[self.tied[0]] = False
        self._set_free(free)

    def _add(self, role, names, profile=None):
        rank = sum(block.role == role for block in self.blocks)
        self.blocks.append(Block(role, tuple(names), self.size, self.size + len(names), profile, rank))

    def _set_free(self, free):
        self.free, self.free_index = free, torch.nonzero(free).squeeze(1)

    def __getitem__(self, role):
        """Return the block of the lens, the source or the sky; None if the scene has none."""
        if role not in ("lens", "source", "sky"):
            raise KeyError(
                f"{role!r} is not one block: ask for 'lens', 'source' or 'sky', or use scene.lights"
            )
        return self._single.get(role)

    @property
    def radius(self):
        """Column of the Einstein radius (of the first component that has one); None without one."""
        return None if self.lens is None else self["lens"].column("theta_E")

    def keep(self, *roles):
        """Mask (P,) of the physical vector that leaves out the components with these roles."""
        unknown = set(roles) - set(NOTHING)
        if unknown:
            raise KeyError(f"{sorted(unknown)} are not roles of a scene: give some of {', '.join(NOTHING)}")
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
        for name in ("lower", "upper", "log", "bright", "free", "free_index"):
            setattr(twin, name, getattr(self, name).to(device))
        return twin

    def with_lens_held(self):
        """The scene with its lens as it is given."""
        held = copy.copy(self)
        held.tied = ([], [])
        held._set_free(self.free & self.keep("lens"))
        return held

    def with_slope_free(self):
        """The scene with the logarithmic slope of its lens free."""
        lens = copy.deepcopy(self.lens)
        for parameter in lens.parameters:
            if parameter.name == SLOPE:
                parameter.fixed = False
        return Scene(**{**self._options, "lens": lens})

    def with_plain_light(self):
        """The scene with one Sérsic for all light of the lens, or itself if that is what it has."""
        if not self.lights or (len(self.lights) == 1 and self.lights[0].profile.plain):
            return self
        plain = Scene(**{**self._options, "lens_light": 1})
        free = plain.free.clone()
        if self.lens is not None:
            free[plain["lens"].slice] = self.free[self["lens"].slice]
        plain._set_free(free)
        return plain

    def from_plain_light(self, plain, physical):
        """Physical vectors (..., P) from those (..., P') of `with_plain_light`, its Sérsic shared out."""
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
        """Physical vectors (B, P) with the light of groups of Gaussians shared out among them once more.

        None if the user has described all groups, or all but one.
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
        """Columns of the centre of the first lens component; empty if it has none."""
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

    def to_fit(self, physical):
        """Physical vectors (..., P) to fit vectors (..., F)."""
        return torch.where(self.log, physical.clamp_min(1e-300).log(), physical)[..., self.free]

    def to_physical(self, fit, template):
        """Fit vectors (..., F) to physical ones (..., P), the rest taken from ``template``."""
        values = torch.where(self.log[self.free], fit.exp(), fit)
        physical = template.clone()
        physical[..., self.free] = values.to(template)
        return self.with_ties(physical)

    def with_ties(self, physical):
        """Physical vectors (..., P) with the sphere of two source planes at the first source."""
        mine, theirs = self.tied
        if mine:
            physical = physical.clone()
            physical[..., mine] = physical[..., theirs]
        return physical

    def physical_covariance(self, covariance, physical):
        """Covariance (B, F, F) of the fit vector as one (B, P, P) of the physical vector."""
        slope = torch.where(self.log, physical, 1.0)[..., self.free]
        scaled = covariance * slope.unsqueeze(-1) * slope.unsqueeze(-2)
        full = covariance.new_zeros(*physical.shape, physical.shape[-1])
        full[..., self.free_index[:, None], self.free_index[None, :]] = scaled
        mine, theirs = self.tied
        if mine:
            full[..., mine, :] = full[..., theirs, :]
            full[..., mine] = full[..., theirs]
        return full

    def source_positions(self, x, y, physical):
        """Where rays (R,) or (B, R) land in the plane of the source, x and y, each (B, R).

        Those in the plane of a second source follow.
        """
        if self.lens is None:
            return x.expand(len(physical), -1), y.expand(len(physical), -1)
        vector = self.with_ties(physical)[:, self["lens"].slice].to(x)
        if len(self.sources) == 2:
            first, second = self.lens.rays_at(x, y, vector)
            return *first, *second
        alpha_x, alpha_y = self.lens.deflection_at(x, y, vector)
        return x - alpha_x, y - alpha_y

    def behind(self, source):
        """The scene of the lens and one of two sources, a `Block`, and its columns (P',) in this one."""
        lens, block = self["lens"], source
        mine, _ = self.tied
        free = self.free.clone()
        free[mine] = True
        profile = block.profile
        one = {"lens": self.lens.of_source(block.rank + 1), "source": profile, "lens_light": (), "sky": False}
        scene = Scene(**{**self._options, **one})
        columns = [*range(lens.start, lens.stop), *range(block.start, block.stop)]
        scene._set_free(free[columns])
        return scene, columns

    def brightness(self, x, y, physical, *, roles=("source", "lens_light"), positions=None):
        """Surface brightness (B, R) at image-plane rays."""
        total = torch.zeros(len(physical), x.shape[-1], dtype=x.dtype, device=x.device)
        if "source" in roles:
            beta = self.source_positions(x, y, physical) if positions is None else positions
        for block in self.blocks:
            if block.role in roles and block.profile is not None:
                where = _plane(beta, block) if block.role == "source" else (x, y)
                total = total + block.profile.brightness(*where, physical[:, block.slice].to(x))
        return total

    def brightness_at(self, physical):
        """Surface brightness (R,) of one physical vector (1, P) as a function of rays: a ``KnownLights``."""

        def trace(block):
            if block.role != "source":
                return lambda x, y: (x, y)
            return lambda x, y: tuple(
                axis[0] for axis in _plane(self.source_positions(x, y, physical), block)
            )

        lights = tuple(
            _sizes(block, physical, trace(block)) for block in self.blocks if block.profile is not None
        )
        return KnownLights(lambda x, y: self.brightness(x, y, physical)[0], lights)

    def brightness_jacobian(self, x, y, physical, *, positions=None, cusp=0.0):
        """Surface brightness (B, R) and its derivatives (B, F, R) with respect to the fit vector.

        The sky, which does not pass the telescope, is left to the caller. Closer to a centre of light than
        ``cusp`` (arcsec) derivatives with respect to position are zero: there they grow without limit, and
        their integral over a small disc is zero by symmetry, which a few rays cannot reproduce.
        """
        physical = self.with_ties(physical).to(x)
        columns, moves = [], self.lens_moves
        if moves:
            beta, bends = self._traced(x, y, physical, cusp)
        else:
            beta = self.source_positions(x, y, physical) if positions is None else positions
        total, bent = 0, []
        for block in (block for block in self.blocks if block.profile is not None):
            behind = block.role == "source"
            where = _plane(beta, block) if behind else (x, y)
            value, *slopes, derivative = self.light_derivatives(block, *where, physical, cusp)
            total = total + value
            if behind and moves:
                (d_x, d_y), (bend_x, bend_y) = slopes, _plane(bends, block)
                bent.append(d_x.unsqueeze(1) * bend_x + d_y.unsqueeze(1) * bend_y)
            columns.append(derivative)
        if moves:
            columns.insert(0, -self._untied(sum(bent[1:], bent[0]), columns))
        return total, columns[0] if len(columns) == 1 else torch.cat(columns, dim=1)

    def _traced(self, x, y, physical, cusp):
        """Positions as of `source_positions`, and how they fall (B, L', R) as a parameter of the lens grows.

        The parameters are those that are free, then those that are tied.
        """
        lens = self["lens"]
        vector = physical[:, lens.slice]
        moving = self.free[lens.slice].nonzero().flatten().tolist() + [k - lens.start for k in self.tied[0]]
        if len(self.sources) == 2:
            places, slopes = self.lens.rays_jacobian_at(x, y, vector, cusp)
            (first, second), (d_first, d_second) = places, slopes
            return (*first, *second), tuple(-d[:, moving] for d in (*d_first, *d_second))
        alpha_x, alpha_y, *d_alpha = self.lens.deflection_jacobian_at(x, y, vector)
        every = len(moving) == lens.stop - lens.start
        return (x - alpha_x, y - alpha_y), [d if every else d[:, moving] for d in d_alpha]

    def _untied(self, bent, columns):
        """Columns (B, L, R) of the free parameters of a lens; those of its tie are added to the source's."""
        if not self.tied[0]:
            return bent
        free = self.free_index.tolist()
        lens = sum(k < self["lens"].stop for k in free)
        for extra, column in enumerate(self.tied[1]):
            if column in free:
                columns[0][:, free.index(column) - lens] -= bent[:, lens + extra]
        return bent[:, :lens]

    def light_jacobian(self, x, y, physical, *, cusp=0.0):
        """Derivatives (B, F', R) of the lens light alone, with respect to its own part of the fit vector."""
        physical = physical.to(x)
        return torch.cat([self.light_derivatives(block, x, y, physical, cusp)[3] for block in self.lights], 1)

    def light_derivatives(self, block, x, y, physical, cusp=0.0):
        """Brightness, d/dx and d/dy (B, R) of one profile, and derivatives (B, F', R) in fit variables."""
        parameters = physical[:, block.slice]
        value, d_x, d_y, derivative = block.profile.jacobian(x, y, parameters, cusp)
        derivative = derivative.mul_(torch.where(self.log[block.slice], parameters, 1.0).unsqueeze(-1))
        free = self.free[block.slice]
        return value, d_x, d_y, derivative if bool(free.all()) else derivative[:, free]
