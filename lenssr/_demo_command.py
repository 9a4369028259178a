"""What ``lenssr demo`` does: resolve the real lens that comes with lenssr, or a simulated one."""

import json
import logging

from lenssr._files import check_outputs, local_path

__all__ = ["add_arguments", "code", "run"]

log = logging.getLogger(__name__)

# The image of the real lens, and settings that find its Einstein radius, 1.28 arcsec, and explain its arcs.
# Behind source="pixelated" the search ends at 0.71, where the source takes light of the galaxy.
BAND = "F475X"
SETTINGS = {"source": "perturbed_sersic", "lens_light": ["mge", "mge"], "mask": "auto"}
# Size and seed of the simulated lens: a long arc and its counter-image behind a PSF of 0.1".
SCALE, SEED = 2, 6


def add_arguments(parser, add):
    """Add the options of the command."""
    add("-o", "--output", metavar="DIR", default="lenssr-demo", help="default: lenssr-demo")
    simulated = "a simulated lens instead of the real one: quicker, and compared with its truth"
    add("--simulated", action="store_true", help=simulated)


def code():
    """The demo on the real lens in Python."""
    settings = ", ".join(f"{name}={json.dumps(value)}" for name, value in SETTINGS.items())
    return f"""\
from lenssr import SuperResolver
from lenssr.datasets import hst_lens

resolver = SuperResolver({settings})
result = resolver(hst_lens()[{json.dumps(BAND)}])
result.plot(path="demo.png")
"""


def run(arguments):
    """Run the demo."""
    folder = local_path(arguments.output, "output")
    folder.mkdir(parents=True, exist_ok=True)
    outputs = [folder / "demo.fits", folder / "demo.png"]
    check_outputs(outputs, overwrite=True)
    result, more = (_simulated if arguments.simulated else _real)()
    result.write(outputs[0], overwrite=True)
    result.plot(path=outputs[1])
    # The Gaussians of the lens light are many, and of little interest here.
    print("\n".join(line for line in result.summary().splitlines() if not line.startswith("  lens_light")))
    print("\n".join(more))
    print(f"written        {', '.join(map(str, outputs))}")


def _real():
    """Resolve the real lens; the result, and how to do the same in Python."""
    from lenssr.datasets import hst_lens
    from lenssr.resolver import SuperResolver

    log.info("super-resolving a lens that HST saw (%s), which takes a minute or two", BAND)
    result = SuperResolver(**SETTINGS)(hst_lens()[BAND])
    return result, ["the same in Python", *(f"  {line}".rstrip() for line in code().splitlines())]


def _simulated():
    """Resolve a simulated lens; the result, and its scores."""
    from lenssr.resolver import SuperResolver
    from lenssr.simulation import LensPopulation

    log.info("simulating a lens")
    scene = LensPopulation(size=1, seed=SEED, lens_light=False, scale=SCALE)[0]
    scene.low.meta["OBJECT"] = "simulated lens"
    log.info("super-resolving it, lens unknown")
    result = SuperResolver(scale=SCALE, source="sersic")(scene.low, psf=scene.psf, noise=scene.noise)
    return result, list(_scores(scene, result))


def _scores(scene, result):
    """Lines that compare a result with the truth and with bicubic interpolation."""
    from lenssr import metrics
    from lenssr.result.text import number_text

    yield "against the truth     PSNR (dB)      SSIM"
    bicubic = metrics.bicubic(scene.low.data, SCALE)
    for name, image in (("lenssr", result.image.data), ("bicubic", bicubic)):
        scores = metrics.scores_t(image, scene.truth.data)
        yield f"  {name:<19}{scores.psnr:>10.1f}{scores.ssim:>10.4f}"
    yield "lens                      truth     found"
    for name in ("theta_E", "e1", "e2", "gamma1", "gamma2"):
        true, found = getattr(scene.lens, name), getattr(result.lens, name)
        yield f"  {name:<19}{true.value:>10.4f}     {number_text(found.value, found.std)}"
