"""Seeded engines that damage good inputs, one a kind, and say which changes may not pass in silence.

Each yields `Mutant`s: the content of a file (or arguments of a command), and whether the change is betrayed,
by a sum, by a size that a header announces, or by a plane that is there by its name. A betrayed change must
not pass.
"""

import bz2
import copy
import gzip
import io
import json
import lzma
from dataclasses import dataclass
from typing import Any

import yaml
from astropy.io import fits

CARD, BLOCK = 80, 2880
# Values that have hung, filled the memory, or raised something else.
HOSTILE = [
    "-64",
    "-1",
    "0",
    "1000000000",
    "99999999999999999999",
    "1E999",
    "NaN",
    "T",
    "'x'",
    "5",
    "",
    "'10**99999999 Jy'",
]
HOSTILE += [
    "'" + "A" * 60 + "'",
    "3.5",
    "-32",
    "2",
    "'IMAGE'",
    "'BINTABLE'",
    "'''",
    "'mag'",
    "1e300",
    "(1, 2)",
]
SIZES = ("SIMPLE", "XTENSION", "BITPIX", "NAXIS", "PCOUNT", "GCOUNT", "TFIELDS", "TFORM", "END")
WORDS = [
    "",
    "~",
    "yes",
    "1:30",
    "012",
    "1e999",
    "-1",
    "0",
    "1" * 400,
    "a" * 30_000,
    "&a [1]",
    "*a",
    "[[[[[[]]]]]]",
    "{}",
]
WORDS += [
    "10**99999999 Jy",
    "nan",
    ".inf",
    "!!python/object:os.system x",
    "true",
    "{a: 1, a: 2}",
    "1.2 arcsec",
    "2 kpc",
]


@dataclass(frozen=True)
class Mutant:
    """One damaged input: how it was damaged, what it is, and whether the damage is betrayed."""

    how: str
    content: Any
    betrayed: bool = False
    suffix: str = ""


# ---------------------------------------------------------------- FITS


def _cards(content):
    """Places of all cards of the headers of a good file, by HDU."""
    with fits.open(io.BytesIO(content)) as hdus:
        infos = [hdu.fileinfo() for hdu in hdus]
    return [at for one in infos for at in range(one["hdrLoc"], one["datLoc"], CARD)]


def _flip(content, place, bit):
    changed = bytearray(content)
    changed[place] ^= 1 << bit
    return bytes(changed)


def fits_mutants(content, rng, count, *, sums):
    """Damage a good FITS file; ``sums`` says whether it has CHECKSUM in every HDU."""
    cards = _cards(content)
    packers = {".gz": lambda raw: gzip.compress(raw, 1, mtime=0), ".bz2": bz2.compress, ".xz": lzma.compress}
    packed = {suffix: pack(content) for suffix, pack in packers.items()}
    for _ in range(count):
        kind = rng.integers(9)
        if kind == 0:
            cut = int(rng.integers(1, len(content)))
            # What ends with an HDU is whole, unless the file says more.
            yield Mutant(f"cut at {cut}", content[:cut], cut % BLOCK != 0)
        elif kind == 1:
            suffix = list(packed)[rng.integers(3)]
            whole = packed[suffix]
            yield Mutant(f"cut {suffix}", whole[: int(rng.integers(8, len(whole) - 8))], True, suffix)
        elif kind == 2:
            suffix = list(packed)[rng.integers(3)]
            whole = packed[suffix]
            place = int(rng.integers(20, len(whole) - 20))
            yield Mutant(f"bit in {suffix}", _flip(whole, place, rng.integers(8)), True, suffix)
        elif kind in (3, 4):
            place = int(rng.integers(len(content)))
            yield Mutant(f"bit at {place}", _flip(content, place, int(rng.integers(8))), sums)
        elif kind == 5:
            place = cards[rng.integers(len(cards))]
            name = content[place : place + 8].decode("latin-1").strip()
            value = HOSTILE[rng.integers(len(HOSTILE))]
            card = f"{name:8}= {value:>20}".ljust(CARD)[:CARD].encode()
            changed = content[:place] + card + content[place + CARD :]
            yield Mutant(f"{name} = {value[:30]}", changed, changed != content and sums)
        elif kind == 6:
            place = cards[rng.integers(len(cards))]
            yield Mutant("blank card", content[:place] + b" " * CARD + content[place + CARD :], sums)
        elif kind == 7:
            place = int(rng.integers(len(content) // BLOCK)) * BLOCK
            yield Mutant(f"block {place} lost", content[:place] + content[place + BLOCK :], True)
        else:
            place = int(rng.integers(len(content) // BLOCK)) * BLOCK
            noise = rng.bytes(BLOCK)
            yield Mutant(f"block at {place} more", content[:place] + noise + content[place:], True)


def header_mutants(content, rng, count):
    """Put hostile values into the cards of a header, several at a time."""
    cards = _cards(content)
    for _ in range(count):
        changed, names = content, []
        for _ in range(rng.integers(1, 4)):
            place = cards[rng.integers(len(cards))]
            name = content[place : place + 8].decode("latin-1").strip()
            value = HOSTILE[rng.integers(len(HOSTILE))]
            names.append(name)
            changed = (
                changed[:place]
                + f"{name:8}= {value:>20}".ljust(CARD)[:CARD].encode()
                + changed[place + CARD :]
            )
        yield Mutant(" ".join(names), changed)


# ---------------------------------------------------------------- YAML


def _places(value, path=()):
    """Paths of everything in plain data."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in items:
        yield from _places(one, (*path, key))


def yaml_mutants(plain, rng, count, *, suffix=".yaml"):
    """Damage plain data, as YAML: hostile words, keys twice, lines lost, bytes changed, nesting, aliases."""
    text = yaml.safe_dump(plain, sort_keys=False)
    places = [path for path in _places(plain) if path]
    for _ in range(count):
        kind = rng.integers(6)
        if kind in (0, 1):
            path = places[rng.integers(len(places))]
            changed = copy.deepcopy(plain)
            inner = changed
            for key in path[:-1]:
                inner = inner[key]
            inner[path[-1]] = "@@"
            word = WORDS[rng.integers(len(WORDS))]
            yield Mutant(
                f"{path} = {word[:20]}", yaml.safe_dump(changed).replace("'@@'", word), False, suffix
            )
        elif kind == 2:
            lines = text.splitlines(keepends=True)
            at = int(rng.integers(len(lines)))
            twice = bool(rng.integers(2))
            yield Mutant(
                "line twice or lost", "".join(lines[:at] + lines[at : at + 1] * 2 * twice + lines[at + 1 :])
            )
        elif kind == 3:
            raw = text.encode()
            yield Mutant("bit", _flip(raw, int(rng.integers(len(raw))), int(rng.integers(8))))
        elif kind == 4:
            depth = int(rng.integers(1, 20_000))
            yield Mutant(f"nested {depth}", "[" * depth + "]" * depth)
        else:
            bomb = "- &x0 [x,x,x]\n" + "".join(
                f"- &x{k} [{','.join([f'*x{k - 1}'] * 9)}]\n" for k in range(1, 9)
            )
            yield Mutant("aliases", bomb + text)


# ---------------------------------------------------------------- weights


def weight_mutants(content, rng, count, seal):
    """Damage a safetensors file: bits, cuts, and settings and cards that say something else, sealed again.

    ``seal(told)`` makes the content of a file with another description.
    """
    size = int.from_bytes(content[:8], "little")
    told = json.loads(json.loads(content[8 : 8 + size])["__metadata__"]["lenssr"])
    paths = [path for path in _places(told) if path and path[0] != "checksum"]
    wild = [10**9, -1, 0, 1.5, "x", None, [], {}, [10**6] * 3, True, "a" * 5000, float("inf")]
    for _ in range(count):
        kind = rng.integers(3)
        if kind == 0:
            yield Mutant("bit", _flip(content, int(rng.integers(len(content))), int(rng.integers(8))), True)
        elif kind == 1:
            yield Mutant("cut", content[: int(rng.integers(len(content)))], True)
        else:
            path = paths[rng.integers(len(paths))]
            changed = copy.deepcopy(told)
            inner = changed
            for key in path[:-1]:
                inner = inner[key]
            inner[path[-1]] = wild[rng.integers(len(wild))]
            yield Mutant(f"{path} = {str(inner[path[-1]])[:20]}", seal(changed))


# ---------------------------------------------------------------- tables and commands


def table_mutants(rng, count):
    """Tables of positions with hostile columns, as text."""
    cells = ["1", "20.5", "-3", "nan", "inf", "1e300", "", "x", "1e999", '"a b"', "1:30", "--", "(1, 2)"]
    names = [
        "x",
        "y",
        "r_eff",
        "n",
        "ellip",
        "theta",
        "flux",
        "id",
        "group_id",
        "x_init",
        "skycoord",
        "amplitude",
    ]
    units = ["", "pix", "10**99999999 m", "furlong", "arcsec", "deg"]
    for _ in range(count):
        chosen = ["x", "y", *rng.choice(names, int(rng.integers(0, 5)))]
        if rng.integers(6) == 0:
            chosen = chosen[1:]
        rows = [[cells[rng.integers(len(cells))] for _ in chosen] for _ in range(rng.integers(0, 6))]
        if rng.integers(2):
            lines = [",".join(chosen), *(",".join(row) for row in rows)]
            suffix = ".csv"
        else:
            kinds = ["float64", "int64", "string", "object", "bool", "float16"]
            said = ((name, units[rng.integers(len(units))], kinds[rng.integers(6)]) for name in chosen)
            about = (f"# - {{name: {name}, unit: {unit}, datatype: {kind}}}" for name, unit, kind in said)
            lines = ["# %ECSV 1.0", "# ---", "# datatype:", *about, "# schema: astropy-2.0", " ".join(chosen)]
            lines += [" ".join(cell or '""' for cell in row) for row in rows]
            suffix = ".ecsv"
        text = "\n".join(lines)
        if rng.integers(4) == 0 and text:
            raw = text.encode()
            yield Mutant("bit", _flip(raw, int(rng.integers(len(raw))), int(rng.integers(8))), False, suffix)
        else:
            yield Mutant("cells", text, False, suffix)


def command_mutants(rng, count, files):
    """Arguments of the command with hostile values; ``files`` are paths that exist."""
    values = [
        *files,
        "missing",
        "",
        "-1",
        "0",
        "1e999",
        "9" * 500,
        "http://localhost/x.fits",
        "10**99999999arcsec",
    ]
    values += [
        "0.1",
        "0.1arcsec",
        "/dev/zero",
        ".",
        "x" * 3000,
        "nan",
        "auto",
        "magic",
        "2GB",
        "5kg",
        "\x1b[31m",
    ]
    flags = [
        "--scale",
        "--source",
        "--lens",
        "--psf-file",
        "--psf-fwhm",
        "--psf",
        "--lens-light",
        "--prior",
        "--sci",
    ]
    flags += [
        "--err",
        "--unit",
        "--pixel-scale",
        "--psf-out",
        "--device",
        "--mask",
        "--weights",
        "--refine",
        "--start",
    ]
    flags += ["--max-memory", "--plot", "--log-file"]
    for _ in range(count):
        chosen = [str(one) for one in rng.choice(flags, int(rng.integers(1, 4)), replace=False)]
        more = [part for flag in chosen for part in (flag, values[rng.integers(len(values))])]
        first = values[rng.integers(len(values))] if rng.integers(4) == 0 else files[0]
        yield Mutant(" ".join(more)[:60], ["resolve", first, *more])
