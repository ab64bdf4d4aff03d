"""The built book as a reader meets it: links, texts and captions in the files, and every page in a browser without a network.

The tests look at `_build/html`, as `jupyter-book build book/` leaves it, and are skipped where it is absent or older than the
book's pages; those with a browser need Chromium (`NAGKIT_CHROMIUM`, or `chromium` on the path).
"""

import os
import re
import shutil
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import yaml
from bs4 import BeautifulSoup

ROOT = Path(__file__).parents[2]
HTML = ROOT / "_build" / "html"
TOC = re.findall(r"(?:root|file): (\S+)", (ROOT / "book" / "_toc.yml").read_text("utf-8"))
EXHIBITS = [item for item in yaml.safe_load((ROOT / "book" / "exhibits.yaml").read_text("utf-8")) if "results" in item]
RECORDED = [item["results"] for item in EXHIBITS if (ROOT / "book" / "results" / f"{item['results']}.csv").is_file()]
CHROMIUM = os.environ.get("NAGKIT_CHROMIUM") or shutil.which("chromium")
AA = 4.5


def _state() -> str:
    """Why the built book cannot be tested; empty when it can."""
    if not (HTML / "_static" / "card.png").is_file():
        return "the book is not built; run `make book`"
    built = (HTML / "_static" / "card.png").stat().st_mtime  # every build draws it
    sources = [ROOT / "_config.yml", *(ROOT / "book").rglob("*.md"), *(ROOT / "book" / "results").glob("*.csv")]
    stale = max(source.stat().st_mtime for source in sources) > built
    return "the built book is older than its sources; run `make book`" if stale else ""


STATE = _state()
pytestmark = pytest.mark.skipif(bool(STATE), reason=STATE or "built")


@cache
def soup(path: Path) -> BeautifulSoup:
    return BeautifulSoup(path.read_text("utf-8"), "html.parser")


@cache
def anchors(path: Path) -> set[str]:
    return {name for element in soup(path).find_all(True) for name in (element.get("id"), element.get("name")) if name}


def pages() -> list[Path]:
    return list(dict.fromkeys([*(HTML / f"{name}.html" for name in TOC), *sorted((HTML / "results").glob("*.html"))]))


def test_every_internal_link_and_file_exists():
    lost = []
    for page in pages():
        for tag, key in (("a", "href"), ("img", "src"), ("script", "src"), ("link", "href")):
            for element in soup(page).find_all(tag, attrs={key: True}):
                target = urlsplit(element[key])
                if target.scheme or target.netloc:
                    continue
                file = (page.parent / unquote(target.path)).resolve() if target.path else page
                ours = file.suffix == ".html" and "_source" not in file.parts and file.is_relative_to(HTML)
                if not file.is_file() or (ours and target.fragment and unquote(target.fragment) not in anchors(file)):
                    lost.append(f"{page.relative_to(HTML)}: {element[key]}")
    assert not lost


def test_every_link_to_a_line_of_source_exists():
    links = {link for page in pages() for link in re.findall(r'href="[./]*(_source/[^"]+)#(L-\d+)"', page.read_text("utf-8"))}
    assert links
    for path, anchor in links:
        assert f'"{anchor}"' in (HTML / path).read_text("utf-8"), (path, anchor)


def test_every_image_has_a_text_alternative_in_words():
    for page in pages():
        for image in soup(page).select("article img"):
            text = image.get("alt", "").strip()
            assert " " in text and not text.endswith((".png", ".svg")), f"{page.relative_to(HTML)}: {image['src']} {text!r}"


@pytest.mark.parametrize("name", RECORDED)
def test_an_exhibit_page_says_what_its_numbers_are_and_gives_them_away(name):
    page = soup(HTML / "results" / f"{name}.html").article
    stated = [element.get_text() for element in page.select(".exhibit-caption, figure.exhibit-figure figcaption")]
    for text in stated:
        assert "Ours:" not in text or re.search(r"n (= \d|not stated).*, profile paper, oracle \w", text), text
    assert any("Ours:" in text for text in stated) and page.select("img")
    assert "profile" in page.select_one(".provenance").get_text()
    links = " ".join(link["href"] for link in page.select("p.download a"))
    assert f"{name}.csv" in links and f"{name}.ipynb" in links


def test_the_card_and_icon_are_there():
    from PIL import Image

    with Image.open(HTML / "_static" / "card.png") as card:
        assert card.size == (1200, 630)
    for page in pages():
        head = soup(page).head
        tags = {tag["property"]: tag["content"] for tag in head.find_all("meta", property=True)}
        assert tags["og:image"].endswith("_static/card.png") and tags["og:title"] and tags["og:description"], page
        assert head.find("link", rel="icon")["href"].endswith("logo.svg")


CONTRAST = """() => {
  const parse = text => (text.match(/[\\d.]+/g) || [0, 0, 0, 0]).map(Number);
  const mix = (top, below) => [0, 1, 2].map(i => (top[3] ?? 1) * top[i] + (1 - (top[3] ?? 1)) * below[i]);
  const ground = node => {
    if (!node) return [255, 255, 255];
    const own = parse(getComputedStyle(node).backgroundColor);
    return own.length > 3 ? mix(own, ground(node.parentElement)) : own;
  };
  const light = c => { const [r, g, b] = c.map(v => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
                       return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const found = new Map();
  const walker = document.createTreeWalker(document.querySelector('article.bd-article'), NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || node.closest('svg, script, style, mjx-assistive-mml')) continue;
    if (!node.getClientRects().length) continue;
    const below = ground(node), text = mix(parse(getComputedStyle(node).color), below);
    const [a, b] = [light(text), light(below)].sort((x, y) => y - x), ratio = (a + 0.05) / (b + 0.05);
    if (ratio < LEAST) found.set(`${node.tagName}.${node.className} in ${node.parentElement.tagName}`,
                                 `${ratio.toFixed(2)} ${walker.currentNode.data.trim().slice(0, 30)}`);
  }
  return [...found].map(pair => pair.join(': '));
}""".replace("LEAST", str(AA))
SIZES = """() => [...document.querySelectorAll('article img, article .cells svg')]
  .filter(node => node.checkVisibility())
  .filter(node => { const {width, height} = node.getBoundingClientRect();
                    return Math.min(width, height) < 20 || (node.tagName === 'IMG' && !node.naturalWidth); })
  .map(node => node.src || node.outerHTML.slice(0, 80))"""


@pytest.fixture(scope="module")
def context():
    """A browser context that all pages share, and with it the files they have in common."""
    if not CHROMIUM:
        pytest.skip("no browser: install chromium, or name one in NAGKIT_CHROMIUM")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--allow-file-access-from-files"])
        yield chromium.new_context(viewport={"width": 1280, "height": 900}, color_scheme="light")
        chromium.close()


@pytest.fixture
def visit(context):
    """Opens pages with the network cut; a request for more than files, a missing file or a console error fails the test."""
    page, faults = context.new_page(), []

    def only_files(route):
        if urlsplit(route.request.url).scheme in ("file", "data", "blob"):
            return route.continue_()
        faults.append(f"asks the network for {route.request.url}")
        return route.abort()

    page.route("**/*", only_files)
    page.on("console", lambda message: faults.append(f"console: {message.text}") if message.type == "error" else None)
    page.on("pageerror", lambda error: faults.append(f"error: {error}"))
    page.on("requestfailed", lambda request: faults.append(f"failed: {request.url}"))

    def open_page(name: str, query: str = ""):
        page.goto(f"{(HTML / name).as_uri()}.html{query}", wait_until="load")
        return page

    yield open_page
    page.close()
    assert not faults


NAMES = [path.relative_to(HTML).with_suffix("").as_posix() for path in pages()] if not STATE else TOC


@pytest.mark.parametrize("name", NAMES)
def test_a_page_is_whole_on_a_desk_and_a_phone_and_legible_in_both_themes(visit, name):
    page = visit(name)
    page.evaluate("() => document.querySelectorAll('article img').forEach(image => image.loading = 'eager')")
    page.wait_for_function("() => [...document.querySelectorAll('article img')].every(image => image.complete)")
    assert page.evaluate(SIZES) == []
    for theme in ("light", "dark"):
        page.evaluate("theme => document.documentElement.dataset.theme = theme", theme)
        page.evaluate("() => document.getAnimations().forEach(animation => animation.finish())")
        assert page.evaluate(CONTRAST) == [], theme
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 390


def test_formulas_are_set_without_a_network(visit):
    page = visit("diffusion")
    page.wait_for_selector("mjx-container", timeout=20_000)
    assert page.locator("mjx-container").count() > 10 and page.locator("mjx-merror").count() == 0
    page.wait_for_function("() => [...document.fonts].some(font => /MJX/.test(font.family) && font.status === 'loaded')")


def test_search_finds_a_page(visit):
    page = visit("search", "?q=guidance+strength")
    page.wait_for_selector("ul.search li a", timeout=20_000)
    assert any("guidance_strength" in (link.get_attribute("href") or "") for link in page.locator("ul.search li a").all())


def test_the_theme_switch_changes_the_ground(visit):
    page = visit("index")
    button = page.locator("button.theme-switch-button:visible").first
    ground = "() => getComputedStyle(document.body).backgroundColor"
    seen = {page.evaluate("() => document.documentElement.dataset.theme"): page.evaluate(ground)}
    for _ in range(3):
        button.click()
        page.wait_for_timeout(400)
        seen[page.evaluate("() => document.documentElement.dataset.theme")] = page.evaluate(ground)
    assert seen["light"] != seen["dark"]
