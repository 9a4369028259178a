"""The ``lenssr`` command.

It can ``resolve`` an image, fit galaxies (``sersic``), show a ``demo``, ``simulate`` a data set and ``train``
a network. Imports stay inside the commands, so that ``lenssr --help`` does not wait for them.
"""

import argparse
import sys
import traceback
import warnings
from pathlib import Path

from lenssr.exceptions import InputError

__all__ = ["main"]

# Named here as well as where they live, so that --help need not import torch.
SOURCES = ("sersic", "pixelated", "perturbed_sersic", "auto", "network", "interpolation")
PRIORS = ("auto", "gradient", "curvature", "curvature+laplacian3", "laplacian3", "matern32")


# ---------------------------------------------------------------- arguments


def _angle(text):
    """Read ``0.1arcsec``; a bare number is refused, since nobody knows what it means."""
    import astropy.units as u

    try:
        angle = u.Quantity(text)
    except (TypeError, ValueError) as error:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not an angle: write, for example, 0.1arcsec"
        ) from error
    if angle.unit.is_equivalent(u.dimensionless_unscaled):
        raise argparse.ArgumentTypeError(f"{text!r} has no unit: write {text}arcsec if it is in arcsec")
    if not angle.isscalar or not angle.unit.is_equivalent(u.arcsec) or not 0 < angle.value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive angle: write, for example, 0.1arcsec")
    return angle


def _positive(text, least=1):
    try:
        number = int(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from error
    if number < least:
        raise argparse.ArgumentTypeError(f"{text} is below {least}: give {least} or more")
    return number


def _not_negative(text):
    return _positive(text, 0)


def _psf(text):
    """Read a width with a unit, or else the name of a file."""
    import astropy.units as u

    try:
        width = u.Quantity(text)
    except (TypeError, ValueError):
        return text
    return width if width.unit == u.pix else _angle(text)


def _psf_out(text):
    return text if text == "pixel" else _angle(text)


def _names(text):
    """Read ``sersic``, or ``sersic,mge`` as a list."""
    names = [name.strip() for name in text.split(",")]
    return names if len(names) > 1 else names[0]


def _parser():
    parser = argparse.ArgumentParser(
        prog="lenssr",
        description="Super-resolution of strong gravitational lenses with the physics of lensing.",
    )
    parser.add_argument("--version", action="store_true", help="print the version and stop")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    _add_resolve(commands)
    _add_sersic(commands)
    _add_demo(commands)
    _add_simulate(commands)
    _add_train(commands)
    return parser


def _add_resolve(commands):
    parser = commands.add_parser("resolve", help="super-resolve one FITS cutout of a lens")
    parser.set_defaults(run=_resolve)
    add = parser.add_argument
    add("input", metavar="IN.fits", help="the cutout")
    add("-o", "--output", metavar="OUT.fits", required=True, help="the file to write")
    add("--sci", metavar="HDU", help="name of the HDU of the image (default: SCI, IMAGE, or the first image)")
    add("--err", metavar="HDU", help="name of the HDU of its errors, 1 sigma (default: ERR or RMS)")
    add("--psf", metavar="HDU", help="name of the HDU of its PSF (default: PSF), in F if there is --psf-file")
    psf = parser.add_mutually_exclusive_group()
    psf.add_argument("--psf-file", metavar="F", help="a FITS file of the PSF, at the pixels of the image")
    psf.add_argument("--psf-fwhm", metavar="ANGLE", type=_angle, help="a Gaussian PSF, such as 0.1arcsec")
    add("--unit", help="unit of the pixels, such as electron/s, where BUNIT does not say")
    add("--pixel-scale", metavar="ANGLE", type=_angle, help="such as 0.05arcsec, where there is no WCS")
    add("--scale", metavar="N", type=_positive, default=2, help="how many times finer (default: 2)")
    source = {"choices": SOURCES, "default": "sersic", "metavar": "SOURCE"}
    add("--source", **source, help=f"{', '.join(SOURCES)} (default: sersic)")
    add("--weights", metavar="NAME", help="of --source network: weights by name, or a file (default: chosen)")
    steps = "Gauss-Newton steps that follow what --source network draws (default: 0)"
    add("--refine", metavar="N", type=_not_negative, help=steps)
    prior = {"choices": PRIORS, "default": "auto", "metavar": "PRIOR"}
    add("--prior", **prior, help=f"of a source on a grid: {', '.join(PRIORS)} (default: auto)")
    add("--psf-out", metavar="ANGLE", type=_psf_out, help="FWHM of a Gaussian PSF of the output, or pixel")
    add("--lens", metavar="lens.yaml", help="a lens that is known (default: SIE + shear, fitted)")
    add("--fit-lens", action="store_true", help="refine the lens given by --lens")
    begin = "where the fit of an unknown lens begins: search, network, or a file of weights (default: search)"
    add("--start", default="search", help=begin)
    light = "light of the lens galaxy, fitted too: sersic, mge, or several with commas (default: none)"
    add("--lens-light", metavar="MODEL", type=_names, help=light)
    add("--mask", choices=["auto"], help="auto: hide other objects in the field")
    add("--plot", metavar="OUT.png", help="draw the result too")
    add("--device", default="auto", help="cpu, cuda or auto (default: auto)")
    add("--overwrite", action="store_true", help="replace files that exist")
    _add_debug(parser)


def _add_sersic(commands):
    parser = commands.add_parser("sersic", help="fit Sérsic profiles to the galaxies of an image")
    parser.set_defaults(run=_sersic)
    add = parser.add_argument
    add("input", metavar="IN.fits", help="the image, with its errors where it has them")
    add("-o", "--output", metavar="TABLE", required=True, help="the table to write: .ecsv, .fits, ...")
    add("--psf", metavar="PSF", type=_psf, help="a FITS file, or a FWHM such as 0.1arcsec or 2.5pix")
    add("--sci", metavar="HDU", help="name of the HDU of the image (default: SCI, IMAGE, or the first image)")
    add("--err", metavar="HDU", help="name of the HDU of its errors, 1 sigma (default: ERR or RMS)")
    add("--psf-hdu", metavar="HDU", help="name of the HDU of the PSF (default: PSF, where there is one)")
    add("--mask", metavar="F", help="a FITS file of the image's shape: not 0 hides a pixel")
    positions = "a table with x and y (zero-based pixels) or skycoord (default: galaxies are detected)"
    add("--init", metavar="TABLE", help=positions)
    side = "side of the stamps (default: 51 pixels, more for those whose light reaches others)"
    add("--fit-shape", metavar="N", type=_positive, help=side)
    add("--components", type=int, choices=(1, 2), default=1, help="2: a bulge and a disc (default: 1)")
    add("--unit", help="unit of the pixels, such as electron/s, where BUNIT does not say")
    add("--plot", metavar="OUT.png", help="draw data, model and residual")
    add("--device", default="auto", help="cpu, cuda or auto (default: auto)")
    add("--overwrite", action="store_true", help="replace files that exist")
    _add_debug(parser)


def _add_demo(commands):
    parser = commands.add_parser("demo", help="simulate a lens, super-resolve it, score it")
    parser.set_defaults(run=_demo)
    parser.add_argument("-o", "--output", metavar="DIR", default="lenssr-demo", help="default: lenssr-demo")
    _add_debug(parser)


def _add_simulate(commands):
    parser = commands.add_parser("simulate", help="write a data set of simulated lenses")
    parser.set_defaults(run=_simulate)
    add = parser.add_argument
    add("--model", default="I", help="model of DeepLenseSim: I, II or III (default: I)")
    add("--lens", help="sis, sie or sie+shear (default: sie; in models II and III sie+shear)")
    add("--noise", action="store_true", help="noise beyond Poisson's, which models II and III always have")
    add("--substructure", default="none", help="none, cdm or axion (default: none)")
    add("-n", "--number", type=_positive, default=100, help="how many (default: 100)")
    add("--seed", type=int, default=0, help="which ones (default: 0)")
    add("-o", "--output", metavar="DIR", required=True, help="the folder to write them to")
    _add_debug(parser)


def _add_train(commands):
    parser = commands.add_parser("train", help="train a network by a recipe (needs lenssr[train])")
    parser.set_defaults(run=_train)
    add = parser.add_argument
    add("recipe", metavar="RECIPE.yaml", help="a recipe, or the name of one that comes with lenssr")
    add("-o", "--output", metavar="DIR", help="the folder to write to (default: train-NAME)")
    change = {"action": "append", "default": [], "metavar": "KEY=VALUE"}
    add("--set", **change, help="put a value in place of the recipe's, such as optimisation.steps=100")
    add("--resume", action="store_true", help="go on from the last checkpoint in the folder")
    _add_debug(parser)


def _add_debug(parser):
    parser.add_argument("--debug", action="store_true", help="show the whole traceback of an error")


# ---------------------------------------------------------------- resolve


def _read_lens(path):
    """Read a lens from YAML: the form of `lenssr.mass.from_dict`."""
    import yaml

    from lenssr.mass import from_dict

    try:
        with open(path, encoding="utf-8") as file:
            return from_dict(yaml.safe_load(file))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        problem = " ".join(str(error).split())
        raise InputError(f"{path} is not YAML ({problem}): see the page on the command line") from error


def _read_psf(arguments):
    """Build the PSF that the options name; None leaves it to the file."""
    from lenssr.imaging import PSF

    if arguments.psf_file is not None:
        return PSF.from_fits(arguments.psf_file, hdu=arguments.psf)
    if arguments.psf is not None and arguments.psf_fwhm is not None:
        raise InputError("--psf and --psf-fwhm both name a PSF: give one")
    return None if arguments.psf_fwhm is None else PSF.from_fwhm(arguments.psf_fwhm)


def _source(arguments):
    """What `SuperResolver` calls its source: a name, or a network with what is asked of it."""
    asked = {name: getattr(arguments, name) for name in ("weights", "refine")}
    asked = {name: value for name, value in asked.items() if value is not None}
    if not asked:
        return arguments.source
    if arguments.source != "network":
        given = " and ".join(f"--{name}" for name in asked)
        raise InputError(f"{given}: only a network has it, give --source network too")
    from lenssr.networks.network_source import NetworkSource

    return NetworkSource(**asked)


def _resolve(arguments):
    from lenssr.files import check_output
    from lenssr.resolver import SuperResolver
    from lenssr.result.plot import check_figure

    outputs = [path for path in (arguments.output, arguments.plot) if path is not None]
    for path in outputs:
        check_output(path, arguments.overwrite)
    if arguments.plot is not None:
        check_figure(arguments.plot)
    named = {"sci": arguments.sci, "err": arguments.err}
    if arguments.psf_file is None:
        named["psf"] = arguments.psf
    hdus = {name: hdu for name, hdu in named.items() if hdu is not None}
    lens = None if arguments.lens is None else _read_lens(arguments.lens)
    resolver = SuperResolver(
        scale=arguments.scale,
        source=_source(arguments),
        lens=lens,
        start=arguments.start,
        fit_lens=arguments.fit_lens or None,
        lens_light=arguments.lens_light,
        prior=arguments.prior,
        psf_out=arguments.psf_out,
        mask=arguments.mask,
        device=arguments.device,
    )
    _say(f"resolving {arguments.input}")
    result = resolver(
        arguments.input,
        psf=_read_psf(arguments),
        pixel_scale=arguments.pixel_scale,
        unit=arguments.unit,
        hdus=hdus or None,
    )
    result.write(arguments.output, overwrite=arguments.overwrite)
    if arguments.plot is not None:
        result.plot(path=arguments.plot)
    print(result.summary())
    print(f"written        {', '.join(outputs)}")


# ---------------------------------------------------------------- sersic


def _sersic(arguments):
    from lenssr.files import atomic, check_output
    from lenssr.imaging.reading import find_image, open_fits
    from lenssr.photometry import SersicPhotometry
    from lenssr.photometry.flags import NOTICES
    from lenssr.result.plot import check_figure

    outputs = [path for path in (arguments.output, arguments.plot) if path is not None]
    for path in outputs:
        check_output(path, arguments.overwrite)
    if arguments.plot is not None:
        check_figure(arguments.plot)
    mask = None
    if arguments.mask is not None:
        with open_fits(arguments.mask) as hdus:
            mask = find_image(hdus, ("MASK", "DQ")).data != 0
    positions = None if arguments.init is None else _read_table(arguments.init)
    phot = SersicPhotometry(
        psf=arguments.psf,
        fit_shape=arguments.fit_shape or "auto",
        n_components=arguments.components,
        device=arguments.device,
    )
    _say(f"fitting {arguments.input}")
    named = {"sci": arguments.sci, "err": arguments.err, "psf": arguments.psf_hdu}
    hdus = {name: hdu for name, hdu in named.items() if hdu is not None}
    table = phot(arguments.input, mask=mask, init_params=positions, unit=arguments.unit, hdus=hdus or None)
    with atomic(arguments.output, arguments.overwrite) as temporary:
        try:
            table.write(temporary)
        except (OSError, ValueError, TypeError) as error:
            raise InputError(f"{arguments.output} cannot be written: {_one_line(error)}") from error
    if arguments.plot is not None:
        phot.plot(arguments.plot)
    good = sum(flags & ~int(NOTICES) == 0 for flags in table["flags"])
    print(f"galaxies       {len(table)}, {good} without a warning")
    print(f"written        {', '.join(outputs)}")


def _read_table(path):
    from astropy.table import QTable

    try:
        return QTable.read(path)
    except Exception as error:
        raise InputError(f"{path} is no table that astropy reads ({_one_line(error)}): give one") from error


# ---------------------------------------------------------------- demo and simulate


def _demo(arguments):
    folder = Path(arguments.output)
    folder.mkdir(parents=True, exist_ok=True)
    _say("simulating a lens")
    from lenssr import _demo

    scene = _demo.simulate()
    _say("super-resolving it, lens unknown")
    result = _demo.resolve(scene)
    result.write(folder / "demo.fits", overwrite=True)
    result.plot(path=folder / "demo.png")
    print(result.summary())
    print("\n".join(_demo.table(scene, result)))
    print(f"written        {folder / 'demo.fits'}, {folder / 'demo.png'}")


def _simulate(arguments):
    from lenssr.simulation import DeepLense, write_dataset

    dataset = DeepLense(
        arguments.model,
        lens=arguments.lens,
        noise=arguments.noise or None,
        size=arguments.number,
        seed=arguments.seed,
        substructure=arguments.substructure,
    )
    write_dataset(dataset, arguments.output, progress=True)
    print(f"written        {len(dataset)} lenses in {arguments.output}")


def _train(arguments):
    from lenssr.training.command import run

    run(arguments.recipe, arguments.output, arguments.set, arguments.resume)


# ---------------------------------------------------------------- running


def _say(message):
    print(f"lenssr: {message}", file=sys.stderr, flush=True)


def _one_line(value):
    return " ".join(str(value).split())


def _show_warning(message, category, filename, lineno, file=None, line=None):
    _say(f"warning: {_one_line(message)}")


def _version():
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("lenssr")
    except PackageNotFoundError:
        return "unknown"


def _run(arguments):
    """Run a command, its warnings one line each."""
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        arguments.run(arguments)


def main(argv=None):
    """Run the ``lenssr`` command.

    Parameters
    ----------
    argv : list of str, optional
        The arguments, by default those of the process.

    Returns
    -------
    code : int
        0 if all went well, 1 if the command failed, 130 if it was interrupted. Arguments that cannot be
        understood end the process with 2, as argparse does.

    Examples
    --------
    >>> from lenssr.cli import main
    >>> main(["resolve", "missing.fits", "-o", "no-such-folder/out.fits"])
    1
    """
    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.version:
        print(f"lenssr {_version()}")
        return 0
    if arguments.command is None:
        parser.print_help()
        return 2
    try:
        _run(arguments)
    except KeyboardInterrupt:
        _say("interrupted")
        return 130
    except Exception as error:
        # whatever it is, a user of a command wants its reason, not our stack
        if arguments.debug:
            traceback.print_exc()
        name = "" if isinstance(error, (InputError, OSError)) else f"{type(error).__name__}: "
        _say(f"error: {name}{_one_line(error)}")
        return 1
    return 0
