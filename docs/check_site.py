"""Walk the built site in a browser, and say what is wrong with it.

    python docs/check_site.py HTML

HTML is the folder that sphinx-build made. Every page is opened at 1400 and at 400 pixels, without a network:

- links within the site lead somewhere, anchors included, and every page is reached from the first one;
- pictures are there, and nothing (script, style, font, picture) comes from elsewhere;
- no page is empty or of more words than people read at once;
- nothing is cut at the side: neither the page nor a block of it is wider than what shows it; tables and
  formulas that can be moved in their frame may be, on the narrow screen;
- the reference has a summary for every name, no heading twice, no internals and no memory addresses;
- formulas are shown; the gallery has its examples, each with a thumbnail and a notebook, and the first page
  leads to it.

It ends with 1 where anything was found, and prints it, a line for each.
"""

import argparse
import re
import shutil
import sys
import tempfile
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

from selenium import webdriver

__all__ = ["Site", "problems"]

WIDTHS = (1400, 400)
# Words of prose of a page, less tables, code and what is folded; docstrings make up those of the reference.
MOST_WORDS, LEAST_WORDS = 2500, 8
EXAMPLES = 12
# Seconds that the examples may take together.
MOST_SECONDS = 300
# Pages that Sphinx makes, and copies of the source.
MADE = ("genindex", "search", "py-modindex", "_modules/")
SWITCHES = (
    "headless=new no-sandbox disable-gpu disable-dev-shm-usage hide-scrollbars allow-file-access-from-files"
)
INTERNAL = re.compile(r"_MISSING_TYPE|<factory>|object at 0x[0-9a-f]+")
LOOK = Path(__file__).with_suffix(".js").read_text(encoding="utf-8")
# Pictures that load as they come into view, and what is folded, are looked at, too.
UNFOLD = """
document.querySelectorAll("details").forEach((node) => { node.open = true; });
document.querySelectorAll("img[loading=lazy]").forEach((node) => { node.loading = "eager"; });
return Promise.all([...document.images].map((image) => image.decode().catch(() => null)));
"""


class Page(HTMLParser):
    """Anchors and links of a page, its headings and the rows of its tables of names."""

    def __init__(self, path):
        super().__init__(convert_charrefs=True)
        self.ids, self.links, self.headings, self.rows = set(), [], [], []
        self.text = path.read_text(encoding="utf-8")
        self._heading, self._row, self._tables = None, None, []
        self.feed(self.text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.ids |= {attrs[key] for key in ("id", "name") if attrs.get(key)}
        if tag == "a" and attrs.get("href"):
            self.links.append(attrs["href"])
        if re.fullmatch("h[1-6]", tag):
            self._heading = ""
        if tag == "table":
            self._tables.append("autosummary" in (attrs.get("class") or ""))
        if tag == "tr" and self._tables and self._tables[-1]:
            self._row = []
        if tag == "td" and self._row is not None:
            self._row.append("")

    def handle_endtag(self, tag):
        if re.fullmatch("h[1-6]", tag) and self._heading is not None:
            self.headings.append(self._heading.strip().rstrip("#\N{PILCROW SIGN}").strip())
            self._heading = None
        if tag == "table" and self._tables:
            self._tables.pop()
        if tag == "tr" and self._row is not None:
            self.rows.append([cell.strip() for cell in self._row])
            self._row = None

    def handle_data(self, data):
        if self._heading is not None:
            self._heading += data
        if self._row:
            self._row[-1] += data


class Site:
    """All pages of a built site, by their path relative to its folder."""

    def __init__(self, folder):
        self.folder = Path(folder).resolve()
        found = sorted(self.folder.rglob("*.html"))
        self.pages = {
            path.relative_to(self.folder).as_posix(): Page(path)
            for path in found
            if "_static" not in path.relative_to(self.folder).parts
        }

    def target(self, page, link):
        """Path and anchor of a link within the site, or None where it leads out of it."""
        parts = urlsplit(link)
        if parts.scheme or parts.netloc:
            return None
        path, anchor = urldefrag(link)
        path = (self.folder / page).parent / unquote(path.partition("?")[0]) if path else self.folder / page
        return path.resolve(), unquote(anchor)

    def broken_links(self):
        """Links that lead nowhere, and pages that nothing leads to."""
        reached = {"index.html"}
        for page, read in self.pages.items():
            for link in dict.fromkeys(read.links):
                found = self.target(page, link)
                if found is None:
                    continue
                path, anchor = found
                if not path.is_file() or not path.is_relative_to(self.folder):
                    yield page, f"the link {link} leads nowhere"
                    continue
                name = path.relative_to(self.folder).as_posix()
                if name != page:
                    reached.add(name)
                if anchor and name in self.pages and anchor not in self.pages[name].ids:
                    yield page, f"the link {link} names an anchor that is not there"
        for page in self.pages.keys() - reached:
            if not page.startswith(MADE):
                yield page, "no page leads here"

    def faults_of_reference(self):
        """Names without a summary, headings that stand twice, and what is not for readers."""
        for page, read in self.pages.items():
            if page.startswith("_modules/"):
                continue
            for cells in read.rows:
                if len(cells) > 1 and not cells[-1]:
                    yield page, f"{cells[0]} has no summary"
            for heading, times in Counter(read.headings).items():
                if times > 1 and page.startswith(("api/", "reference/")):
                    yield page, f"the heading {heading!r} stands {times} times"
            for word in sorted(set(INTERNAL.findall(read.text.replace("&lt;", "<").replace("&gt;", ">")))):
                yield page, f"{word} is not for readers"

    def faults_of_gallery(self):
        """Examples that are too few, slow, or without thumbnail or notebook; no way to them."""
        examples = [page for page in self.pages if re.fullmatch(r"gallery/plot_\w+\.html", page)]
        if len(examples) < EXAMPLES:
            yield "gallery/index.html", f"has {len(examples)} examples, {EXAMPLES} are asked for"
        if "gallery/index.html" not in self.pages["index.html"].links:
            yield "index.html", "does not lead to the gallery"
        times = self.folder / "gallery" / "times.xml"
        told = times.read_text(encoding="utf-8") if times.is_file() else ""
        ran = re.findall(r'<testcase classname="(\w+)".*? time="([\d.e-]+)"', told)
        seconds = sum(float(one) for _, one in ran)
        if seconds > MOST_SECONDS:
            yield "gallery/index.html", f"took {seconds:.0f} seconds, {MOST_SECONDS} are allowed"
        for page in {Path(page).stem for page in examples} - {name for name, _ in ran}:
            yield f"gallery/{page}.html", "did not run: build the site anew"
        index = self.pages.get("gallery/index.html")
        for page in examples:
            name = Path(page).stem
            if index is None or f"sphx_glr_{name}_thumb" not in index.text:
                yield page, "has no thumbnail"
            if not any(link.endswith(f"{name}.ipynb") for link in self.pages[page].links):
                yield page, "has no notebook"


def browser(folder):
    """Chromium without a window, a network or a profile of anybody."""
    program, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if program is None or driver is None:
        sys.exit("chromium and chromedriver are needed: install the packages chromium and chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for switch in (*SWITCHES.split(), f"user-data-dir={folder}", "host-resolver-rules=MAP * ~NOTFOUND"):
        options.add_argument(f"--{switch}")
    return webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))


def size_to(driver, width):
    """Give the window a width in pixels."""
    size = {"width": width, "height": 2000, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def look(site, widths=WIDTHS):
    """What the browser finds on every page, at every width: pairs of page and words."""
    pages = [page for page in site.pages if not page.startswith(MADE)]
    with tempfile.TemporaryDirectory() as profile:
        driver = browser(profile)
        try:
            for page in pages:
                size_to(driver, widths[0])
                driver.get((site.folder / page).as_uri())
                driver.execute_script(UNFOLD)
                for width in widths:
                    size_to(driver, width)
                    for what in faults_of(width, driver.execute_script(LOOK)):
                        yield page, what
        finally:
            driver.quit()


def faults_of(width, seen):
    """What is wrong with a page by what the browser says of it."""
    yield from (f"{width}: the picture {picture} is not there" for picture in seen["broken"])
    yield from (f"{width}: {what} is cut at the side" for what in seen["cut"])
    if seen["flat"]:
        yield f"{width}: {seen['flat']} formulas are not shown"
    if width != WIDTHS[0]:
        return
    yield from (f"{source} comes from elsewhere" for source in seen["elsewhere"])
    if seen["whole"] < LEAST_WORDS * 5:
        yield "is empty"
    if seen["words"] > MOST_WORDS:
        yield f"has {seen['words']} words, {MOST_WORDS} are readable"


def problems(folder):
    """All that is wrong with a site: pairs of page and words, in the order in which they are found."""
    site = Site(folder)
    if "index.html" not in site.pages:
        yield "index.html", "is not there: build the site first"
        return
    yield from site.broken_links()
    yield from site.faults_of_reference()
    yield from site.faults_of_gallery()
    yield from look(site)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", metavar="HTML", help="the folder that sphinx-build made")
    folder = parser.parse_args().folder
    found = list(dict.fromkeys(problems(folder)))
    for page, what in found:
        print(f"{page}: {what}")
    print(f"{len(Site(folder).pages)} pages, {len(found)} problems")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
