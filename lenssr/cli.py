# PYTHON_ARGCOMPLETE_OK
"""The ``lenssr`` command.

It can ``resolve`` an image, or the lenses of a catalogue (``survey``), say what it reads in a file
(``inspect``), fit galaxies (``sersic``), show a ``demo``, ``simulate`` a data set and ``train`` a network.
Imports stay inside the commands, so that ``lenssr --help`` does not wait for them.
"""

import argparse
import contextlib
import logging
import os
import shlex
import stat
import sys
import warnings
from collections.abc import Sequence
from functools import partial

from lenssr import _demo_command, _survey_command
from lenssr._files import (
    atomic,
    check_outputs,
    is_pattern,
    local_file,
    local_path,
    package_version,
    read_text,
    split_band,
    stem_of,
)
from lenssr._limits import limited
from lenssr._option import angle, memory_text, whole_number
from lenssr._stop import Terminated, stoppable
from lenssr.exceptions import InputError, short_line
from lenssr.options import FAMILIES, PHOTOMETRY, READING, RESOLVER

__all__ = ["main"]

log = logging.getLogger(__name__)

# What a command says that was stopped, and its exit code.
STOPS = {KeyboardInterrupt: ("interrupted", 130), Terminated: ("terminated", 143)}
# Exit code of --strict where a result is not ok.
NOT_OK = 3
# What a command writes if it is not told, {} for the name of its (first) input.
OUTPUTS = {"resolve": "{}_sr.fits", "sersic": "{}_sersic.ecsv", "survey": "survey-{}", "train": "train-{}"}
# Arguments that name a file which is read, whatever else they may be.
READ_FILES = ("psf_file", "lens", "mask_file", "init", "error", "weight", "exposure")

# ---------------------------------------------------------------- arguments


class _Parser(argparse.ArgumentParser):
    """A parser whose messages quote no more than a line of what it was given."""

    def error(self, message):
        super().error(short_line(message))


def _parser():
    about = "Super-resolution of strong gravitational lenses with the physics of lensing."
    parser = _Parser(prog="lenssr", description=about)
    parser.add_argument("--version", action="store_true", help="print the version and stop")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    for name, run, add_arguments, help in (
        (
            "resolve",
            _resolve,
            _resolve_arguments,
            "super-resolve FITS cutouts of a lens, one or several bands",
        ),
        ("survey", _survey, _survey_arguments, "super-resolve the lenses of a catalogue or folder"),
        ("inspect", _inspect, _inspect_arguments, "say what is read in a FITS file, and what is assumed"),
        ("sersic", _sersic, _sersic_arguments, "fit Sérsic profiles to the galaxies of an image"),
        ("demo", _demo, _demo_command.add_arguments, "super-resolve a real lens that comes with lenssr"),
        ("simulate", _simulate, _simulate_arguments, "write a data set of simulated lenses"),
        ("train", _train, _train_arguments, "train a network by a recipe (needs lenssr[train])"),
    ):
        command = commands.add_parser(name, help=help)
        command.set_defaults(run=run)
        add_arguments(command, command.add_argument)
        loud = command.add_mutually_exclusive_group()
        loud.add_argument("--quiet", action="store_true", help="show warnings and errors only")
        loud.add_argument("--verbose", action="store_true", help="show every stage in detail")
        memory = "refuse what needs more memory, such as 2GB (default: 70 %% of the machine's or cgroup's)"
        command.add_argument("--max-memory", metavar="SIZE", type=memory_text, help=memory)
        command.add_argument("--log-file", metavar="FILE", help="append all messages to a file, dated")
        command.add_argument("--debug", action="store_true", help="show the whole traceback of an error")
    return parser


def _add_options(parser, options, *, without=()):
    """Add the options that the command line knows."""
    for name, one in options.items():
        if one.flag is not None and name not in without:
            one.add_to(parser, name)


def _given(arguments, options):
    """Values of these options, their defaults where they are not given."""
    values = {name: getattr(arguments, name) for name, one in options.items() if one.flag is not None}
    return {name: options[name].given(value) for name, value in values.items()}


def _resolve_arguments(parser, add):
    several = "the cutout; of several bands or exposures one each, by FILTER, or NAME=IN.fits"
    add("input", metavar="IN.fits", nargs="+", help=several)
    add("-o", "--output", metavar="OUT.fits", help="the file to write (default: NAME_sr.fits, of IN.fits)")
    _add_options(parser, READING)
    _psf_arguments(parser, add)
    add("--mask-file", metavar="F", help="a FITS file that hides pixels, by --mask-bits")
    expected = "the Einstein radius that is expected, such as 1.2arcsec (default: all are tried)"
    add("--theta-E", dest="theta_E", metavar="ANGLE", type=angle, help=expected)
    _resolver_arguments(parser, add)
    add("--plot", metavar="OUT.png", help="draw the result too")
    add("--overwrite", action="store_true", help="replace files that exist")
    add("--strict", action="store_true", help=f"end with the exit code {NOT_OK} if the result is not ok")


def _survey_arguments(parser, add):
    _survey_command.add_arguments(parser, add)
    _add_options(parser, READING, without=("centre",))
    _psf_arguments(parser, add)
    _resolver_arguments(parser, add)


def _resolver_arguments(parser, add):
    _add_options(parser, RESOLVER)
    add("--weights", metavar="NAME", help="of --source network: weights by name, or a file (default: chosen)")
    steps = "Gauss-Newton steps after the prediction of --source network (default: 0)"
    add("--refine", metavar="N", type=partial(whole_number, least=0), help=steps)


def _psf_arguments(parser, add):
    add("--psf", metavar="HDU", help="name of the HDU of its PSF (default: PSF), in F if there is --psf-file")
    psf = parser.add_mutually_exclusive_group()
    psf.add_argument(
        "--psf-file", metavar="F", help="a FITS file of the PSF (an image, PSFEx, STDPSF, STPSF)"
    )
    psf.add_argument("--psf-fwhm", metavar="ANGLE", type=angle, help="a Gaussian PSF, such as 0.1arcsec")


def _inspect_arguments(parser, add):
    add("input", metavar="IN.fits", help="the file")
    _add_options(parser, READING)
    _psf_arguments(parser, add)
    add("--mask-file", metavar="F", help="a FITS file that hides pixels, by --mask-bits")


def _sersic_arguments(parser, add):
    add("input", metavar="IN.fits", help="the image, with its errors where it has them")
    table = "the table to write: .ecsv, .fits, ... (default: NAME_sersic.ecsv, of IN.fits)"
    add("-o", "--output", metavar="TABLE", help=table)
    _add_options(parser, READING)
    add("--psf-hdu", metavar="HDU", help="name of the HDU of the PSF (default: PSF, where there is one)")
    add("--mask", metavar="F", help="a FITS file of the image's shape: not 0 hides a pixel")
    positions = "a table with x and y (zero-based pixels) or skycoord (default: galaxies are detected)"
    add("--init", metavar="TABLE", help=positions)
    _add_options(parser, PHOTOMETRY)
    add("--plot", metavar="OUT.png", help="draw data, model and residual")
    add("--overwrite", action="store_true", help="replace files that exist")


def _simulate_arguments(parser, add):
    add("--model", default="I", help="model of DeepLenseSim: I, II or III (default: I)")
    add("--lens", help="sis, sie or sie+shear (default: sie; in models II and III sie+shear)")
    add("--noise", action="store_true", help="noise beyond Poisson's, which models II and III always have")
    add("--substructure", default="none", help="none, cdm or axion (default: none)")
    add("-n", "--number", dest="size", type=whole_number, default=100, help="how many (default: 100)")
    add("--seed", type=int, default=0, help="which ones (default: 0)")
    add("-o", "--output", metavar="DIR", default="lenssr-lenses", help="default: lenssr-lenses")


def _train_arguments(parser, add):
    add("recipe", metavar="RECIPE.yaml", help="a recipe, or the name of one that comes with lenssr")
    add("-o", "--output", metavar="DIR", help="the folder to write to (default: train-NAME)")
    change = {"action": "append", "default": [], "metavar": "KEY=VALUE"}
    add("--set", **change, help="replace a value of the recipe, such as optimisation.steps=100")
    add("--resume", action="store_true", help="go on from the last checkpoint in the folder")


# ---------------------------------------------------------------- commands


def _outputs(arguments):
    """Files to write, checked before any work."""
    from lenssr.result.plot import check_figure

    if arguments.plot is not None:
        check_figure(arguments.plot)
    return _files_to_write(arguments)


def _files_to_write(arguments):
    return [path for path in (arguments.output, arguments.plot) if path is not None]


def _inputs(arguments):
    """Files that a command reads."""
    names = ("input", "psf", "mask", "weights", "start", "recipe", *READ_FILES)
    given = [getattr(arguments, name, None) for name in names]
    several = [path for one in given if isinstance(one, list) for path in one]
    return [path for path in given if isinstance(path, str)] + [split_band(path)[1] for path in several]


def _check_files(arguments):
    """Refuse files that are not there, and outputs that cannot be written, before libraries are loaded."""
    command = arguments.command
    if command == "resolve":
        for path in (split_band(one)[1] for one in arguments.input):
            if local_path(path).is_dir():
                raise InputError(f"{path} is a folder: lenssr survey {shlex.quote(path)} resolves its files")
            local_file(path)
    elif command in ("inspect", "sersic"):
        local_file(arguments.input)
    elif command == "survey" and not is_pattern(arguments.input):
        if not local_path(arguments.input, "input").is_dir():
            local_file(arguments.input)
    for name in READ_FILES if command in ("resolve", "survey", "sersic", "inspect") else ():
        given = getattr(arguments, name, None)
        if given is not None and not (name == "lens" and given in FAMILIES):
            local_file(given)
    if command in ("resolve", "sersic"):
        check_outputs(_files_to_write(arguments), arguments.overwrite, _inputs(arguments))


def _image(arguments, hdus):
    """The image to resolve: one file, or a dict of bands."""
    from lenssr.imaging.groups_of_images import group_of_files

    if len(arguments.input) == 1 and split_band(arguments.input[0])[0] is None:
        return arguments.input[0]
    if arguments.mask_file is not None:
        raise InputError("--mask-file hides pixels of one image: put masks of several into their files")
    return group_of_files(arguments.input, hdus)


def _hdus(**named):
    return {name: hdu for name, hdu in named.items() if hdu is not None} or None


def _read_lens(path):
    """Read a lens from YAML: the form of `lenssr.mass.from_dict`."""
    from lenssr._yaml import MOST_BYTES, read_yaml
    from lenssr.mass import from_dict

    return from_dict(read_yaml(read_text(path, MOST_BYTES, "--lens"), str(path)))


def _read_psf(arguments):
    """Build the PSF that the options name; None leaves it to the file."""
    from lenssr.imaging import PSF

    if arguments.psf_file is not None and arguments.psf is not None:
        asked = {"oversampling": arguments.psf_oversampling, "includes_pixel": arguments.psf_includes_pixel}
        return PSF.from_fits(arguments.psf_file, hdu=arguments.psf, **asked)
    if arguments.psf_file is not None:
        return arguments.psf_file
    if arguments.psf is not None and arguments.psf_fwhm is not None:
        raise InputError("--psf and --psf-fwhm both name a PSF: give one")
    return None if arguments.psf_fwhm is None else PSF.from_fwhm(arguments.psf_fwhm)


def _reading(arguments, psf):
    """Keywords of `Observation.from_any` that the options name; ``psf`` is an HDU of the image's file."""
    named = _hdus(sci=arguments.sci, err=arguments.err, psf=psf)
    given = {name: getattr(arguments, name) for name in READING if name not in ("sci", "err")}
    return {name: value for name, value in given.items() if value is not None} | {"hdus": named}


def _reading_with_psf(arguments):
    """Keywords of `Observation.from_any` with the PSF, which may have a file of its own."""
    own = arguments.psf_file is not None
    reading = _reading(arguments, None if own else arguments.psf) | {"psf": _read_psf(arguments)}
    if own and arguments.psf is not None:  # it was read with them
        for name in ("psf_oversampling", "psf_includes_pixel"):
            reading.pop(name, None)
    return reading


def _source(arguments):
    """Value of ``source=`` for `SuperResolver`: a name, or a network with its options."""
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


def _resolver(arguments):
    from lenssr.resolver import SuperResolver

    given = _given(arguments, RESOLVER) | {"source": _source(arguments)}
    if arguments.lens is not None and arguments.lens not in FAMILIES:
        given["lens"] = _read_lens(arguments.lens)
    if arguments.mask is None and getattr(arguments, "mask_file", None) is not None:
        given["mask"] = None  # the file says what to hide
    return SuperResolver(**given)


def _resolve(arguments):
    from lenssr._advice import advice
    from lenssr.result.fits import check_name

    outputs = _outputs(arguments)
    check_name(arguments.output)
    resolver = _resolver(arguments)
    log.info("resolving %s", " ".join(arguments.input))
    reading = _reading_with_psf(arguments)
    image = _image(arguments, reading["hdus"])
    if arguments.mask_file is None:
        result = resolver(image, theta_E=arguments.theta_E, **reading)
    else:
        seen = _observe(image, reading, arguments.mask_file, resolver)
        result = resolver(seen, theta_E=arguments.theta_E)
    result.write(arguments.output, overwrite=arguments.overwrite)
    if arguments.plot is not None:
        result.plot(path=arguments.plot)
    print(result.summary())
    for line in advice(resolver.settings, resolver.mask or arguments.mask_file, result):
        print(f"advice         {line}")
    print(f"written        {', '.join(outputs)}")
    return NOT_OK if arguments.strict and not result.ok else 0


def _survey(arguments):
    arguments.centre = None  # of each lens
    _survey_command.run(arguments, _resolver(arguments), _reading_with_psf(arguments))


def _observe(path, reading, mask, resolver=None):
    """Read an image with a file that hides pixels, before other objects are hidden."""
    from lenssr.imaging import Observation
    from lenssr.imaging.cutting import MOST_PIXELS

    return Observation.from_any(
        path,
        mask=mask,
        most_pixels=None if resolver is None else MOST_PIXELS,
        middle=resolver is not None,
        **reading,
    )


def _inspect(arguments):
    from lenssr.imaging.inspection import describe_reading

    reading = _reading_with_psf(arguments)
    print("\n".join(describe_reading(arguments.input, mask=arguments.mask_file, **reading)))


def _sersic(arguments):
    from lenssr.photometry import SersicPhotometry
    from lenssr.photometry.flags import NOTICES
    from lenssr.photometry.positions import read_positions
    from lenssr.photometry.table import FITS_ENDINGS, write_fits

    outputs = _outputs(arguments)
    positions = None if arguments.init is None else read_positions(arguments.init)
    phot = SersicPhotometry(**_given(arguments, PHOTOMETRY))
    log.info("fitting %s", arguments.input)
    reading = _reading(arguments, arguments.psf_hdu)
    table = phot(arguments.input, mask=arguments.mask, init_params=positions, **reading)
    is_fits = arguments.output.lower().endswith(FITS_ENDINGS)
    with atomic(arguments.output, arguments.overwrite) as temporary:
        try:
            write_fits(table, temporary) if is_fits else table.write(temporary)
        except Exception as error:
            raise InputError(f"{arguments.output} cannot be written: {_one_line(error)}") from error
    if arguments.plot is not None:
        phot.plot(arguments.plot)
    good = sum(flags & ~int(NOTICES) == 0 for flags in table["flags"])
    print(f"galaxies       {len(table)}, {good} without a warning")
    print(f"written        {', '.join(outputs)}")


def _demo(arguments):
    _demo_command.run(arguments)


def _simulate(arguments):
    from lenssr.simulation import DeepLense, write_dataset

    options = {name: getattr(arguments, name) for name in ("lens", "size", "seed", "substructure")}
    dataset = DeepLense(arguments.model, noise=arguments.noise or None, **options)
    write_dataset(dataset, arguments.output, progress=not arguments.quiet)
    print(f"written        {len(dataset)} lenses in {arguments.output}")


def _train(arguments):
    from lenssr.training import Recipe, train
    from lenssr.training.recipe import read_changes

    recipe = Recipe.load(arguments.recipe, read_changes(arguments.set))
    shown = sys.stdout.isatty() and not arguments.quiet
    trained = train(recipe, arguments.output, resume=arguments.resume, progress=shown)
    if trained.is_first:  # of several processes only one prints
        print(trained.summary())


# ---------------------------------------------------------------- messages


class _Line(logging.Formatter):
    """``lenssr: message`` in one line; before it, if asked for, the traceback of an error."""

    kinds = {logging.WARNING: "warning: ", logging.ERROR: "error: "}

    def __init__(self, tracebacks):
        super().__init__()
        self.tracebacks = tracebacks

    def format(self, record):
        line = f"lenssr: {self.kinds.get(record.levelno, '')}{_one_line(record.getMessage())}"
        if self.tracebacks and record.exc_info:
            line = f"{self.formatException(record.exc_info)}\n{line}"
        return line


def _one_line(value):
    """Text without line breaks."""
    return " ".join(str(value).split())


@contextlib.contextmanager
def _logged(arguments):
    """Send records and warnings to standard error, and all of them, with tracebacks, to the log file."""
    logger = logging.getLogger("lenssr")
    level, others = logger.level, list(logger.handlers)
    stream = logging.StreamHandler(sys.stderr)
    quiet, verbose = arguments.quiet, arguments.verbose
    stream.setLevel(logging.WARNING if quiet else logging.DEBUG if verbose else logging.INFO)
    stream.setFormatter(_Line(arguments.debug))
    logger.addHandler(stream)
    logger.setLevel(logging.DEBUG)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_, **__: logger.warning("%s", _one_line(message))
            yield logger
    finally:
        logger.setLevel(level)
        for handler in [one for one in logger.handlers if one not in others]:
            logger.removeHandler(handler)
            handler.close()


def _log_file(path, arguments):
    taken = [*_inputs(arguments), *(getattr(arguments, name, None) for name in ("output", "plot"))]
    if any(one is not None and os.path.realpath(one) == os.path.realpath(path) for one in taken):
        raise InputError(f"--log-file {path} is an input or another output of this run: give another")
    if os.path.exists(path) and stat.S_ISFIFO(os.stat(path).st_mode):
        raise InputError(f"--log-file {path} is a FIFO: give a file")
    try:
        handler = logging.FileHandler(path, encoding="utf-8")
    except OSError as error:
        raise InputError(f"--log-file {path} cannot be written ({error.strerror}): give another") from error
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    return handler


# ---------------------------------------------------------------- running


def _run(arguments):
    """Run a command and return its exit code."""
    with _logged(arguments) as logger:
        try:
            _name_output(arguments)
            if arguments.log_file is not None:
                logger.addHandler(_log_file(arguments.log_file, arguments))
            _check_files(arguments)
            with limited(memory=arguments.max_memory):
                return arguments.run(arguments) or 0
        except tuple(STOPS) as stop:
            word, code = STOPS[type(stop)]
            log.critical(word)
            return code
        except Exception as error:
            # A user of a command wants the reason of any error, not our stack.
            name = "" if isinstance(error, (InputError, OSError)) else f"{type(error).__name__}: "
            log.error("%s%s", name, short_line(_one_line(error)), exc_info=True)
            return 1


def _name_output(arguments):
    """Give the output the name that it has by default."""
    if arguments.command in OUTPUTS and arguments.output is None:
        first = arguments.recipe if arguments.command == "train" else arguments.input
        first = split_band(first[0])[1] if isinstance(first, list) else first
        arguments.output = OUTPUTS[arguments.command].format(stem_of(first))


def _complete(parser):
    """Answer a shell that completes the command (extra ``completion``); it starts us with this variable."""
    if "_ARGCOMPLETE" in os.environ:
        with contextlib.suppress(ImportError):
            import argcomplete

            argcomplete.autocomplete(parser)


def _main(argv):
    parser = _parser()
    _complete(parser)
    arguments = parser.parse_args(argv)
    if arguments.version:
        print(f"lenssr {package_version()}")
        return 0
    if arguments.command is None:
        parser.print_help()
        return 2
    return _run(arguments)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the ``lenssr`` command; ``argv`` are its arguments, by default those of the process.

    Returns the exit code: 0 if all went well, 1 if the command failed, 3 if the result is not ok and
    ``--strict`` was given, 130 if it was interrupted (SIGINT), 143 if it was terminated (SIGTERM). Invalid
    arguments end the process with 2, as argparse does.

    >>> from lenssr.cli import main
    >>> main(["resolve", "missing.fits", "-o", "no-such-folder/out.fits"])
    1
    """
    try:
        with stoppable():
            code = _main(argv)
    except tuple(STOPS) as stop:  # before or after a command runs
        word, code = STOPS[type(stop)]
        print(f"lenssr: {word}", file=sys.stderr)
    if argv is None and code in (130, 143):
        # Libraries take seconds to end, and there is nothing that they could still save.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code
