"""A page of a survey, and a browser to look at it: for the tests and the benchmark."""

import shutil
import time

import numpy as np
from astropy.table import Table
from PIL import Image

from lenssr.survey.web_page import write_page

FLAGS = ["", "bad_chi2", "bad_chi2,psf_undersampled"]
# Without a screen, and silent: it looks for no updates.
SWITCHES = "headless no-sandbox disable-gpu disable-quic no-first-run disable-background-networking"
SWITCHES += " disable-component-update disable-sync window-size=1400,800"


def open_browser(folder):
    """Chromium under its driver, with what it keeps in a folder; None where one of them is not installed."""
    from selenium import webdriver

    program, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if program is None or driver is None:
        return None
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for switch in SWITCHES.split():
        options.add_argument(f"--{switch}")
    options.add_argument(f"--user-data-dir={folder}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))


def table_of(count):
    """A catalogue of lenses that nobody has solved."""
    rng = np.random.default_rng(1)
    table = Table({"id": [f"lens {k}" for k in range(count)]})
    table["grade"] = np.where(np.arange(count) % 4 == 3, "failed", "secure")
    table["flags"] = [FLAGS[k % 3] for k in range(count)]
    for name in ("ra", "dec", "R_E", "R_E_err", "q", "shear", "magnification", "reduced_chi2"):
        table[name] = rng.uniform(0.5, 2, count)
    table["R_E"][table["grade"] == "failed"] = np.nan
    table["R_E"].unit = "arcsec"
    table["seconds"] = np.arange(count)[::-1].astype(float)
    for name in ("product", "figure", "thumbnail", "stage"):
        table[name] = [f"thumbnails/{k % 10} #%.jpg" if name == "thumbnail" else "" for k in range(count)]
    table["thumbnail"][table["grade"] == "failed"] = ""
    table["failure"] = np.where(table["grade"] == "failed", "<b>too dark</b>", "")
    return table


def write_run(place, count):
    """The folder of a run with its page and a few thumbnails."""
    (place / "thumbnails").mkdir(parents=True)
    for number in range(10):
        Image.new("RGB", (384, 96), (25 * number, 80, 120)).save(place / "thumbnails" / f"{number} #%.jpg")
    write_page(place, table_of(count), "some <catalogue>.ecsv")


def wait(browser, script, seconds=10):
    """Until a script is true in the browser."""
    end = time.monotonic() + seconds
    while not browser.execute_script(script):
        assert time.monotonic() < end, script
        time.sleep(0.02)


def load(browser, place):
    """The seconds until the page and the thumbnails in sight are there."""
    started = time.monotonic()
    browser.get(f"file://{place}/index.html")
    wait(browser, "return document.documentElement.dataset.ready === 'yes'", 60)
    wait(
        browser,
        "return [...document.images].length > 3 && [...document.images].every(one => one.naturalWidth)",
        60,
    )
    return time.monotonic() - started
