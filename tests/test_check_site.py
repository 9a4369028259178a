"""The script that walks the built docs finds what is wrong with them; .ci/run runs it on the real ones."""

import importlib.util
import shutil
from pathlib import Path

import pytest

pytest.importorskip("selenium")

spec = importlib.util.spec_from_file_location(
    "check_site", Path(__file__).parents[1] / "docs" / "check_site.py"
)
check_site = importlib.util.module_from_spec(spec)
spec.loader.exec_module(check_site)

pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # of selenium's pipes to the driver
    # One browser at a time: each takes some hundred MB.
    pytest.mark.xdist_group("browser"),
]

WORDS = "<p>A lens bends the light of what lies far behind it, and makes arcs.</p>"
DOT = "data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAA="
CUT = '<pre style="overflow-x: auto; width: 300px">' + 60 * "wide " + "</pre>"
WIDE = (
    '<div style="overflow-x: auto"><table><tr>'
    + "".join(f"<td>{k:020d}</td>" for k in range(7))
    + "</table></div>"
)


def page(body):
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width">'
    return f"<!doctype html><html><head>{head}</head><body><article>{body}</article></body></html>"


@pytest.fixture
def site(tmp_path):
    """Make a site of a first page, a gallery that is whole, and pages that are given."""

    def make(**pages):
        links = "".join(f'<a href="{name}.html">{name}</a> ' for name in pages)
        gallery, stems = tmp_path / "gallery", [f"plot_{k}" for k in range(check_site.EXAMPLES)]
        gallery.mkdir()
        thumbs = "".join(
            f'<a href="{stem}.html"><img alt="sphx_glr_{stem}_thumb" src="{DOT}"></a>' for stem in stems
        )
        (gallery / "index.html").write_text(page(WORDS + thumbs), encoding="utf-8")
        for stem in stems:
            (gallery / f"{stem}.ipynb").write_text("{}")
            (gallery / f"{stem}.html").write_text(page(f'{WORDS}<a href="{stem}.ipynb">notebook</a>'))
        case = '<testcase classname="{}" file="x" line="1" name="y" time="20.5"></testcase>'
        (gallery / "times.xml").write_text("".join(map(case.format, stems)))
        bodies = {"index": WORDS + links + '<a href="gallery/index.html">gallery</a>', **pages}
        for name, body in bodies.items():
            path = tmp_path / f"{name}.html"
            path.parent.mkdir(exist_ok=True)
            path.write_text(page(body), encoding="utf-8")
        return tmp_path

    return make


def by_files(folder):
    """What is found without a browser."""
    walked = check_site.Site(folder)
    return [*walked.broken_links(), *walked.faults_of_reference(), *walked.faults_of_gallery()]


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ('<a href="gone.html">x</a>', "the link gone.html leads nowhere"),
        ('<a href="index.html#gone">x</a>', "the link index.html#gone names an anchor that is not there"),
        ("<p>default: &lt;dataclasses._MISSING_TYPE object&gt;</p>", "_MISSING_TYPE is not for readers"),
        ('<table class="autosummary"><tr><td>SIE</td><td> </td></tr></table>', "SIE has no summary"),
    ],
)
def test_faults_of_files_are_found(site, body, fault):
    assert ("page.html", fault) in by_files(site(page=WORDS + body))


def test_repeated_headings_of_the_reference_are_found(site):
    body = "<h2>Notes</h2><h2>Notes</h2>"
    folder = site(**{"api/page": WORDS + body})
    assert ("api/page.html", "the heading 'Notes' stands 2 times") in by_files(folder)


def test_a_page_that_nothing_leads_to_is_found(site):
    folder = site()
    (folder / "lost.html").write_text(page(WORDS))
    assert by_files(folder) == [("lost.html", "no page leads here")]


@pytest.mark.parametrize(
    ("old", "fault"),
    [("plot_3.ipynb", "has no notebook"), ("sphx_glr_plot_3_thumb", "has no thumbnail")],
)
def test_faults_of_the_gallery_are_found(site, old, fault):
    folder = site()
    for name in ("index", "plot_3"):
        path = folder / "gallery" / f"{name}.html"
        path.write_text(path.read_text().replace(old, "other"))
    assert ("gallery/plot_3.html", fault) in by_files(folder)


def test_slow_examples_are_found(site):
    folder = site()
    times = folder / "gallery" / "times.xml"
    times.write_text(times.read_text().replace("20.5", "30.5"))
    assert by_files(folder) == [("gallery/index.html", "took 366 seconds, 300 are allowed")]


def test_examples_that_did_not_run_are_found(site):
    folder = site()
    times = folder / "gallery" / "times.xml"
    times.write_text(times.read_text().replace("plot_3", "plot_30"))
    assert by_files(folder) == [("gallery/plot_3.html", "did not run: build the site anew")]


def test_a_missing_example_is_found(site):
    folder = site()
    (folder / "gallery" / "plot_3.html").unlink()
    assert ("gallery/index.html", "has 11 examples, 12 are asked for") in by_files(folder)


needs_browser = pytest.mark.skipif(
    shutil.which("chromium") is None or shutil.which("chromedriver") is None,
    reason="chromium or its driver is not installed: .ci/run installs them",
)


@pytest.mark.slow
@needs_browser
def test_the_browser_finds_what_is_wrong(site):
    """A page for each fault, and what is no fault; one browser looks at all of them."""
    bad = {
        "picture": (WORDS + '<img src="gone.png">', "picture"),
        "block": (WORDS + CUT, "cut at the side"),
        "page": (WORDS + '<p style="width: 2000px">wide</p>', "the page, 2"),
        "script": (WORDS + '<script src="https://example.org/a.js"></script>', "comes from elsewhere"),
        "empty": ("<p></p>", "is empty"),
        "long": ("word " * 2501, "has 2501 words"),
    }
    good = {
        "table": WORDS + WIDE,
        "math": WORDS + "<math><mi>x</mi></math>",
        "dot": f'{WORDS}<img src="{DOT}">',
    }
    folder = site(**{name: body for name, (body, _) in bad.items()}, **good)
    found = list(check_site.problems(folder))
    for name, (_, fault) in bad.items():
        assert any(where == f"{name}.html" and fault in what for where, what in found), (name, found)
    assert {where for where, _ in found} == {f"{name}.html" for name in bad}
