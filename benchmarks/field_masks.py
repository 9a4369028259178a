"""What each threshold of `auto_mask` does, on simulated fields whose objects are known.

A lens galaxy with two arcs, or with two or four images, among stars and galaxies farther out. Prints the
pixels that are masked with every threshold as it is, and 30 % below and above.
"""

import common  # first of lenssr: it sets one thread
import numpy as np

from lenssr.imaging import Observation, detection
from lenssr.reconstruction import decisions
from lenssr.reconstruction.field_mask import auto_mask

SIDE, FIELDS, FACTOR = 120, 40, 1.3
MIDDLE = (SIDE - 1) / 2
Y, X = np.indices((SIDE, SIDE), dtype=float)
OURS = "ARC_STRETCH", "ARC_LENGTH_FWHM", "ARC_RADIUS_FWHM", "ARC_SIGNAL", "CORE_FWHM", "BEYOND_ARCS"
OURS += "IMAGE_REACH", "BRIGHT_IMAGE", "INNER_FIELD", "ACROSS_COSINE", "COUNTER_IMAGE_RADIUS"
OURS += "COUNTER_IMAGE_SIGNAL", "OBJECT_PEAK"
THRESHOLDS = [(decisions, name) for name in OURS]
THRESHOLDS += [(detection, name) for name in ("PROFILE_TRUST", "LEAST_PEAK", "CONTRAST")]


def star(x, y, peak):
    return peak * np.exp(-((X - x) ** 2 + (Y - y) ** 2) / (2 * 1.2**2))


def galaxy(x, y, peak, scale, q, angle):
    dx, dy = X - x, Y - y
    along, across = dx * np.cos(angle) + dy * np.sin(angle), dy * np.cos(angle) - dx * np.sin(angle)
    return peak * np.exp(-np.hypot(along, across / q) / scale)


def arc(radius, middle, half, peak, width):
    r, phi = np.hypot(X - MIDDLE, Y - MIDDLE), np.degrees(np.arctan2(Y - MIDDLE, X - MIDDLE))
    turn = np.abs((phi - middle + 180) % 360 - 180)
    return peak * np.exp(-0.5 * ((r - radius) / width) ** 2) * np.clip((half - turn) / 8 + 0.5, 0, 1)


def images(rng, radius, kind):
    """Light of the lensed source: two arcs, or a number of images."""
    turn = rng.uniform(0, 360)
    if kind == "arcs":
        width = rng.uniform(1.3, 2, 2)
        first = arc(1.15 * radius, turn, rng.uniform(20, 50), rng.uniform(5, 12), width[0])
        return first + arc(0.85 * radius, turn + 180, rng.uniform(8, 20), rng.uniform(4, 8), width[1])
    angles = np.radians(turn + np.arange(kind) * 360 / kind + rng.uniform(-10, 10, kind))
    away = radius * rng.uniform(0.85, 1.15, kind)
    places = zip(MIDDLE + away * np.cos(angles), MIDDLE + away * np.sin(angles), strict=True)
    return sum(star(x, y, rng.uniform(20, 80)) for x, y in places)


def field(seed, kind):
    """An observation, and the light of images and of other objects."""
    rng = np.random.default_rng(seed)
    lens = galaxy(MIDDLE, MIDDLE, rng.uniform(50, 150), *rng.uniform([4, 0.6, 0], [7, 0.95, np.pi]))
    radius = rng.uniform(16, 24)
    lensed, others = images(rng, radius, kind), np.zeros((SIDE, SIDE))
    for number in range(rng.integers(2, 7)):
        away, angle, peak = (
            rng.uniform(1.8 * radius, 70),
            rng.uniform(0, 2 * np.pi),
            10 ** rng.uniform(1, 2.2),
        )
        x, y = MIDDLE + away * np.cos(angle), MIDDLE + away * np.sin(angle)
        shape = rng.uniform([1.5, 0.5, 0], [4, 1, np.pi])
        others += galaxy(x, y, peak / 2, *shape) if number % 2 else star(x, y, peak)
    data = lens + lensed + others + rng.normal(size=lens.shape)
    return Observation.from_any(data, pixel_scale=0.05, noise=1.0, unit="electron/s"), lensed, others


def shares(fields):
    """Percent of the pixels of images, of other objects, and of neither, that are masked."""
    masked = []
    for observation, lensed, others in fields:
        mask = auto_mask(observation)
        where = lensed > 1, (others > 1) & (lensed < 0.5), (others < 0.1) & (lensed < 0.1)
        masked.append([mask[pixels].mean() if pixels.any() else np.nan for pixels in where])
    return " / ".join(f"{100 * share:.1f}" for share in np.nanmean(masked, axis=0))


def main():
    kinds = {"arcs": "arcs", "two images": 2, "four images": 4}
    fields = {name: [field(seed, kind) for seed in range(FIELDS)] for name, kind in kinds.items()}
    title = "Pixels masked, percent: of lensed images / of other objects / of neither"
    common.header(title, fields=FIELDS)
    rows = [["as they are", "", *(shares(one) for one in fields.values())]]
    for module, name in THRESHOLDS:
        value = getattr(module, name)
        for factor in (1 / FACTOR, FACTOR):
            setattr(module, name, factor * value)
            rows.append([name, f"{factor * value:.3g}", *(shares(one) for one in fields.values())])
        setattr(module, name, value)
    common.table(["threshold", "value", *fields], rows)


if __name__ == "__main__":
    main()
