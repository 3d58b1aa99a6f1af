"""The site that `make docs` builds: no warning, nothing from elsewhere, readable where people read."""

import functools
import http.server
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

pytest.importorskip("material", reason="the extra `docs` is not installed")

ROOT = Path(__file__).parents[3]
# What a browser fetches by itself; a link that somebody may click is none of these.
FETCHED = re.compile(
    r"""<(?:script|img|iframe)[^>]*\ssrc="?([^" >]+)|<link[^>]*\shref="?([^" >]+)"""
)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    made = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", made],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return made


def test_a_page_fetches_nothing_from_elsewhere(site):
    pages = sorted(site.glob("*.html"))
    assert len(pages) > 12
    for page in pages:
        fetched = {a or b for a, b in FETCHED.findall(page.read_text(encoding="utf-8"))}
        assert fetched, page
        assert not [url for url in fetched if re.match(r"(https?:)?//", url)], page


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def address(site):
    handler = functools.partial(Quiet, directory=site)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 390])
def test_every_page_in_a_browser(browser, address, site, width, scheme):
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    said, elsewhere = [], []
    page.on("console", lambda m: said.append(m.text) if m.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on(
        "request",
        lambda r: None if r.url.startswith((address, "data:")) else elsewhere.append(r.url),
    )
    for file in sorted(set(site.glob("*.html")) - {site / "404.html"}):
        page.goto(f"{address}/{file.name}")
        wide = page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert wide <= 0, f"{file.name} is {wide} px too wide"
        body = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, re.findall(r"\d+", body)[:3])) > 384) == (scheme == "light")
        broken = page.evaluate("[...document.images].filter(i => !i.naturalWidth).map(i => i.src)")
        assert not broken
    page.close()
    assert (said, elsewhere) == ([], [])


@pytest.mark.slow
def test_the_search_finds_a_page(browser, address):
    page = browser.new_page(viewport={"width": 1440, "height": 900})
    page.goto(f"{address}/index.html")
    page.locator("input[name=query]").fill("MSER-5")
    page.locator('.md-search-result__item a[href*="numbers.html"]').first.wait_for()
    page.close()
