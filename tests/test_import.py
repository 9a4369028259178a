"""What `import lenssr` does, seen from a fresh interpreter."""

import ast
import graphlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import lenssr


def run_python(code):
    """Run code in a fresh interpreter and return what it prints."""
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    ).stdout.strip()


@pytest.fixture(scope="module")
def imported():
    """The names of all modules that `import lenssr` brings in."""
    return set(run_python("import sys, lenssr; print('\\n'.join(sys.modules))").splitlines())


@pytest.mark.parametrize(
    "module",
    [
        "matplotlib",
        "photutils",
        "lightning",
        "pytorch_lightning",
        "dask",
        "lenstronomy",
        "skimage",
        "astroscrappy",
    ],
)
def test_import_brings_in_no_heavy_package(imported, module):
    assert "lenssr" in imported
    assert module not in imported


def test_import_prints_and_warns_nothing():
    assert run_python("import warnings; warnings.simplefilter('error'); import lenssr") == ""


def test_import_leaves_global_settings_alone():
    code = (
        "import logging, torch; before = torch.get_default_dtype(), len(logging.root.handlers)\n"
        "import lenssr; print(before == (torch.get_default_dtype(), len(logging.root.handlers)))"
    )
    assert run_python(code) == "True"


def test_nothing_is_heard_of_the_logger_until_a_program_asks():
    code = (
        "import logging, sys, lenssr; sys.stderr = sys.stdout; logger = logging.getLogger('lenssr')\n"
        "print([type(one).__name__ for one in logger.handlers], logger.level)\n"
        "logging.getLogger('lenssr.room').warning('said')"
    )
    assert run_python(code) == "['NullHandler'] 0"


def test_version_is_one():
    assert lenssr.__version__[0].isdigit()


def test_public_names_exist():
    assert [name for name in lenssr.__all__ if not hasattr(lenssr, name)] == []


def test_rooms_are_imported_when_they_are_first_used():
    code = (
        "import sys, lenssr\n"
        "print('lenssr.training' in sys.modules, lenssr.training.__name__, 'lenssr.training' in sys.modules)"
    )
    assert run_python(code) == "False lenssr.training True"


def test_dir_lists_names_and_rooms():
    listed = dir(lenssr)
    folder = Path(lenssr.__file__).parent
    rooms = {path.stem for path in folder.glob("[a-z]*.py")} | {
        path.parent.name for path in folder.glob("*/__init__.py")
    }
    assert {name for name in rooms if not name.startswith("_")} - {"cli", "lenssr"} <= set(listed)
    assert set(lenssr.__all__) <= set(listed)
    assert [name for name in listed if not hasattr(lenssr, name)] == []


def test_type_checkers_see_the_public_names():
    tree = ast.parse(Path(lenssr.__file__).read_text(encoding="utf-8"))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level == 0]
    seen = {name.asname: node.module for node in imports for name in node.names if "lenssr" in node.module}
    assert seen == lenssr._HOME_OF


CONTRIBUTING = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")
# The order of the rooms, as people read it.
ROOMS = re.findall(r"`(\w+)`", re.search(r"in this order:(.*?)\.", CONTRIBUTING, re.DOTALL)[1])


PACKAGE = Path(lenssr.__file__).parent
FILES = {path.relative_to(PACKAGE).with_suffix("").parts: path for path in PACKAGE.rglob("*.py")}


class WithoutTypes(ast.NodeTransformer):
    """Leave out what only type checkers import."""

    def visit_If(self, node):
        self.generic_visit(node)
        return node.orelse if ast.unparse(node.test).endswith("TYPE_CHECKING") else node


def imported_files(path, *, types=True):
    """Files of lenssr, as in FILES, that the source of one imports, at the top or further down."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree if types else WithoutTypes().visit(tree)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "lenssr":
            module = tuple(node.module.split(".")[1:])
            for name in node.names:
                places = (*module, name.name), module
                places = [*places, *((*place, "__init__") for place in places)]
                yield next(place for place in places if place in FILES)


def test_no_file_name_stands_twice():
    """Save what each room may have: its names, a base, and figures."""
    names = [parts[-1] for parts in FILES if parts[-1] not in ("__init__", "base", "plot")]
    assert sorted(names) == sorted(set(names))


def test_every_room_has_its_place():
    assert {parts[0] for parts in FILES} - {"__init__"} == set(ROOMS)


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_import_only_from_rooms_before_them(room):
    paths = [path for parts, path in FILES.items() if parts[0] == room]
    found = {parts[0] for path in paths for parts in imported_files(path)}
    assert found.isdisjoint(ROOMS[ROOMS.index(room) + 1 :])


def test_no_file_imports_itself_in_a_circle():
    files = {parts: path for parts, path in FILES.items() if parts[-1] != "__init__"}
    graph = {parts: set(imported_files(path, types=False)) & set(files) for parts, path in files.items()}
    graphlib.TopologicalSorter(graph).prepare()
