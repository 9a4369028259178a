"""The ``lenssr`` command.

It can ``resolve`` an image, fit galaxies (``sersic``), show a ``demo``, ``simulate`` a data set and ``train``
a network. Imports stay inside the commands, so that ``lenssr --help`` does not wait for them.
"""

import argparse
import logging
import sys
from functools import partial
from pathlib import Path

from lenssr._logs import logged, one_line
from lenssr._option import angle, whole_number
from lenssr._versions import package_version
from lenssr.exceptions import InputError
from lenssr.options import PHOTOMETRY, READING, RESOLVER

__all__ = ["main"]

log = logging.getLogger(__name__)

# ---------------------------------------------------------------- arguments


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


def _add_options(parser, options, *, without=()):
    """Add the options that the command line knows."""
    for name, one in options.items():
        if one.flag is not None and name not in without:
            one.add_to(parser, name)


def _given(arguments, options):
    """Values of these options, their defaults where they are not given."""
    values = {name: getattr(arguments, name) for name, one in options.items() if one.flag is not None}
    return {name: options[name].default if value is None else value for name, value in values.items()}


def _add_resolve(commands):
    parser = commands.add_parser("resolve", help="super-resolve one FITS cutout of a lens")
    parser.set_defaults(run=_resolve)
    add = parser.add_argument
    add("input", metavar="IN.fits", help="the cutout")
    add("-o", "--output", metavar="OUT.fits", required=True, help="the file to write")
    _add_options(parser, READING)
    add("--psf", metavar="HDU", help="name of the HDU of its PSF (default: PSF), in F if there is --psf-file")
    psf = parser.add_mutually_exclusive_group()
    psf.add_argument("--psf-file", metavar="F", help="a FITS file of the PSF, at the pixels of the image")
    psf.add_argument("--psf-fwhm", metavar="ANGLE", type=angle, help="a Gaussian PSF, such as 0.1arcsec")
    _add_options(parser, RESOLVER)
    add("--weights", metavar="NAME", help="of --source network: weights by name, or a file (default: chosen)")
    steps = "Gauss-Newton steps that follow what --source network draws (default: 0)"
    add("--refine", metavar="N", type=partial(whole_number, least=0), help=steps)
    add("--plot", metavar="OUT.png", help="draw the result too")
    add("--overwrite", action="store_true", help="replace files that exist")
    _add_common(parser)


def _add_sersic(commands):
    parser = commands.add_parser("sersic", help="fit Sérsic profiles to the galaxies of an image")
    parser.set_defaults(run=_sersic)
    add = parser.add_argument
    add("input", metavar="IN.fits", help="the image, with its errors where it has them")
    add("-o", "--output", metavar="TABLE", required=True, help="the table to write: .ecsv, .fits, ...")
    _add_options(parser, READING, without=["pixel_scale"])
    add("--psf-hdu", metavar="HDU", help="name of the HDU of the PSF (default: PSF, where there is one)")
    add("--mask", metavar="F", help="a FITS file of the image's shape: not 0 hides a pixel")
    positions = "a table with x and y (zero-based pixels) or skycoord (default: galaxies are detected)"
    add("--init", metavar="TABLE", help=positions)
    _add_options(parser, PHOTOMETRY)
    add("--plot", metavar="OUT.png", help="draw data, model and residual")
    add("--overwrite", action="store_true", help="replace files that exist")
    _add_common(parser)


def _add_demo(commands):
    parser = commands.add_parser("demo", help="simulate a lens, super-resolve it, score it")
    parser.set_defaults(run=_demo)
    parser.add_argument("-o", "--output", metavar="DIR", default="lenssr-demo", help="default: lenssr-demo")
    _add_common(parser)


def _add_simulate(commands):
    parser = commands.add_parser("simulate", help="write a data set of simulated lenses")
    parser.set_defaults(run=_simulate)
    add = parser.add_argument
    add("--model", default="I", help="model of DeepLenseSim: I, II or III (default: I)")
    add("--lens", help="sis, sie or sie+shear (default: sie; in models II and III sie+shear)")
    add("--noise", action="store_true", help="noise beyond Poisson's, which models II and III always have")
    add("--substructure", default="none", help="none, cdm or axion (default: none)")
    add("-n", "--number", type=whole_number, default=100, help="how many (default: 100)")
    add("--seed", type=int, default=0, help="which ones (default: 0)")
    add("-o", "--output", metavar="DIR", required=True, help="the folder to write them to")
    _add_common(parser)


def _add_train(commands):
    parser = commands.add_parser("train", help="train a network by a recipe (needs lenssr[train])")
    parser.set_defaults(run=_train)
    add = parser.add_argument
    add("recipe", metavar="RECIPE.yaml", help="a recipe, or the name of one that comes with lenssr")
    add("-o", "--output", metavar="DIR", help="the folder to write to (default: train-NAME)")
    change = {"action": "append", "default": [], "metavar": "KEY=VALUE"}
    add("--set", **change, help="put a value in place of the recipe's, such as optimisation.steps=100")
    add("--resume", action="store_true", help="go on from the last checkpoint in the folder")
    _add_common(parser)


def _add_common(parser):
    """Add what every command takes."""
    loud = parser.add_mutually_exclusive_group()
    loud.add_argument("--quiet", action="store_true", help="say nothing of stages: warnings and errors only")
    loud.add_argument("--verbose", action="store_true", help="say everything of stages")
    parser.add_argument("--log-file", metavar="FILE", help="append everything that is said to a file, dated")
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
    source = _given(arguments, RESOLVER)["source"]
    asked = {name: getattr(arguments, name) for name in ("weights", "refine")}
    asked = {name: value for name, value in asked.items() if value is not None}
    if not asked:
        return source
    if source != "network":
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
    given = _given(arguments, RESOLVER) | {"source": _source(arguments), "lens": lens}
    resolver = SuperResolver(**given)
    log.info("resolving %s", arguments.input)
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
    phot = SersicPhotometry(**_given(arguments, PHOTOMETRY))
    log.info("fitting %s", arguments.input)
    named = {"sci": arguments.sci, "err": arguments.err, "psf": arguments.psf_hdu}
    hdus = {name: hdu for name, hdu in named.items() if hdu is not None}
    table = phot(arguments.input, mask=mask, init_params=positions, unit=arguments.unit, hdus=hdus or None)
    with atomic(arguments.output, arguments.overwrite) as temporary:
        try:
            table.write(temporary)
        except (OSError, ValueError, TypeError) as error:
            raise InputError(f"{arguments.output} cannot be written: {one_line(error)}") from error
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
        raise InputError(f"{path} is no table that astropy reads ({one_line(error)}): give one") from error


# ---------------------------------------------------------------- demo and simulate


def _demo(arguments):
    folder = Path(arguments.output)
    folder.mkdir(parents=True, exist_ok=True)
    log.info("simulating a lens")
    from lenssr import _demo

    scene = _demo.simulate()
    log.info("super-resolving it, lens unknown")
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
    write_dataset(dataset, arguments.output, progress=not arguments.quiet)
    print(f"written        {len(dataset)} lenses in {arguments.output}")


def _train(arguments):
    from lenssr.training.loop import run

    options = {"resume": arguments.resume, "progress": sys.stdout.isatty() and not arguments.quiet}
    trained = run(arguments.recipe, arguments.output, arguments.set, **options)
    if trained.is_first:  # of several processes only one speaks
        print(trained.summary())


# ---------------------------------------------------------------- running


def _level(arguments):
    """What is said: stages by default, warnings only, or all."""
    return logging.WARNING if arguments.quiet else logging.DEBUG if arguments.verbose else logging.INFO


def _run(arguments):
    """Run a command and return its exit code."""
    try:
        with logged(_level(arguments), arguments.log_file, tracebacks=arguments.debug):
            return _run_logged(arguments)
    except InputError as error:  # there is no log
        print(f"lenssr: error: {error}", file=sys.stderr)
        return 1


def _run_logged(arguments):
    try:
        arguments.run(arguments)
    except KeyboardInterrupt:
        log.critical("interrupted")
        return 130
    except Exception as error:
        # Whatever it is, a user of a command wants its reason, not our stack.
        name = "" if isinstance(error, (InputError, OSError)) else f"{type(error).__name__}: "
        log.error("%s%s", name, one_line(error), exc_info=True)
        return 1
    return 0


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
        print(f"lenssr {package_version()}")
        return 0
    if arguments.command is None:
        parser.print_help()
        return 2
    return _run(arguments)
