"""Sphinx extension for a book on the web: social card, page descriptions, captions in executed notebooks, launch buttons.

Two environment variables say where things are, since the project has no fixed address: `NAGKIT_REPOSITORY` (the repository;
adds its button and, on executed notebooks, Binder's) and `NAGKIT_BOOK` (the built book; completes the address of the card).
"""

import os
from html import escape
from pathlib import Path
from textwrap import shorten

import numpy as np
import pandas as pd
from docutils import nodes
from matplotlib.figure import Figure
from sphinx.application import Sphinx

from nagkit.study import book, claims, judge

CARD = "_static/card.png"
COLOURS = {"ground": "#ffffff", "text": "#1f2328", "edge": "#2f81c7", "end": "#d9670f", "noise": "#7d8590"}


def draw_card(path: Path, title: str, subtitle: str) -> None:
    """A PNG of 1200 × 630 pixels: noise that becomes a cell, with the title below."""
    figure = Figure(figsize=(12, 6.3), dpi=100, facecolor=COLOURS["ground"])
    ax = figure.add_axes((0, 0, 1, 1), xlim=(0, 12), ylim=(0, 6.3))
    ax.set_axis_off()
    for i, (u, v) in enumerate(np.random.default_rng(0).random((80, 2))):  # thinner towards the cell
        x, y = 0.4 + 6.2 * u**1.4, 2.7 + 3.2 * v
        ax.plot(x, y, "o", ms=4 + i % 5, color=COLOURS["noise"], alpha=0.75 - 0.09 * x, mew=0)
    points = [(7.2, 4.3), (8.9, 5.5), (8.9, 3.1), (10.6, 4.3)]
    for a, b in ((0, 1), (0, 2), (1, 2), (1, 3), (2, 3)):
        ax.plot(*zip(points[a], points[b], strict=True), color=COLOURS["edge"], lw=6, solid_capstyle="round")
    for i, point in enumerate(points):
        ax.plot(*point, "o", ms=38, color=COLOURS["end" if i in (0, 3) else "edge"], mew=0)
    ax.text(0.7, 1.75, title, fontsize=46, weight="bold", color=COLOURS["text"], va="center")
    ax.text(0.72, 0.85, subtitle, fontsize=21, color=COLOURS["text"], va="center")
    figure.savefig(path, metadata={"Software": None})


def describe(doctree: nodes.document | None) -> str:
    """The first paragraph of a page, in at most 200 characters; empty when there is none."""
    paragraph = None if doctree is None else next(iter(doctree.findall(nodes.paragraph)), None)
    return "" if paragraph is None else shorten(paragraph.astext(), 200, placeholder=" …")


def add_metadata(app: Sphinx, page: str, template: str, context: dict, doctree: nodes.document | None) -> None:
    """Open Graph and description tags in the head of every page."""
    base = app.config.html_baseurl.rstrip("/")
    depth = context["pathto"](CARD, resource=True)
    tags = {
        "og:title": context.get("title") or app.config.html_title,
        "og:type": "article",
        "og:site_name": app.config.html_title,
        "og:image": f"{base}/{CARD}" if base else depth,
        "og:image:width": "1200",
        "og:image:height": "630",
        "og:image:alt": f"Noise that becomes a cell, and the title: {app.config.html_title}",
        "og:description": describe(doctree) or app.config.html_title,
    }
    if base:
        tags["og:url"] = f"{base}/{page}.html"
    made = [f'<meta property="{name}" content="{escape(_plain(value))}">' for name, value in tags.items()]
    made.append(f'<meta name="description" content="{escape(tags["og:description"])}">')
    made.append('<meta name="twitter:card" content="summary_large_image">')
    context["metatags"] = "\n".join([context.get("metatags", ""), *made])


def drop_thebe(app: Sphinx, page: str, template: str, context: dict, doctree: nodes.document | None) -> None:
    """Take out the scripts of live code cells, which two extensions add twice and which need a network."""
    scripts = context["script_files"]
    scripts[:] = [s for s in scripts if "thebe" not in f"{s.filename} {s.attributes.get('body')}".lower()]


def _plain(text: str) -> str:
    return nodes.unescape(text.replace("<em>", "").replace("</em>", ""))


def finish_notebook(app: Sphinx, doctree: nodes.document) -> None:
    """Bring an executed notebook up to date with today's judge and code, and say of its figures what they rest on.

    Its verdict box is judged anew, or put under the title where the notebook shows none, and its provenance box says when
    another version of the code computed the numbers. A figure gets a caption with n, profile and oracle, and a text alternative
    unless the cell gave one. The cell that papermill adds for its parameters goes.
    """
    folder, _, name = app.env.docname.partition("/")
    if folder != "results":
        return
    path = Path(app.srcdir) / folder / name
    record, results = book.read_provenance(path.with_suffix(".provenance.json")), book.read_results(path.with_suffix(".csv"))
    for cell in [one for one in doctree.findall(nodes.container) if "tag_injected-parameters" in one["classes"]]:
        cell.parent.remove(cell)
    boxed = False
    for raw in list(doctree.findall(nodes.raw)):
        if "<caption>Provenance</caption>" in raw.astext():
            raw.replace_self([book.downloads(app.env, name), book.provenance_box(record, name)])
        elif 'class="verdict-box"' in raw.astext() and results is not None:
            boxed = True
            raw.replace_self(verdict_box(name, results))
    if results is None:
        return
    title = next(iter(doctree.findall(nodes.title)))
    if not boxed and any(entry.get("results") == name and "claim" in entry for entry in claims.entries()):
        title.parent.insert(1, verdict_box(name, results))
    known = book.facts(results.query("origin == 'ours'"), (record or {}).get("profile", "unknown"))
    for position, image in enumerate(list(doctree.findall(nodes.image)), start=1):
        image["alt"] = image.get("alt") or f"Figure {position} of “{title.astext()}”; the text beside it says what it shows"
        output = image
        while output.get("nb_element") != "mime_bundle":
            output = output.parent
        caption = nodes.paragraph("", f"Figure {position}. Ours: {known}.", classes=["exhibit-caption"])
        output.parent.insert(output.parent.index(output) + 1, caption)


def verdict_box(name: str, results: pd.DataFrame) -> nodes.raw:
    return nodes.raw("", judge.box(name, results)._repr_html_(), format="html")


def use_addresses(app: Sphinx, config: object) -> None:
    """Buttons and the base address from the environment."""
    config.html_baseurl = os.environ.get("NAGKIT_BOOK", config.html_baseurl)
    if address := os.environ.get("NAGKIT_REPOSITORY"):
        config.html_theme_options |= {
            "repository_url": address,
            "repository_branch": "main",
            "path_to_docs": "book",
            "use_repository_button": True,
            "launch_buttons": {"binderhub_url": "https://mybinder.org", "notebook_interface": "jupyterlab"},
        }


def write_card(app: Sphinx, error: Exception | None) -> None:
    if error is None and app.builder.format == "html":
        subtitle = "Guided generation of neural architectures, set beside the paper"
        draw_card(Path(app.outdir) / CARD, app.config.html_title, subtitle)


def setup(app: Sphinx) -> dict:
    """Register everything (Sphinx calls this)."""
    app.connect("config-inited", use_addresses)
    app.connect("doctree-read", finish_notebook, priority=400)  # before Sphinx collects images and downloads
    app.connect("html-page-context", add_metadata)
    app.connect("html-page-context", drop_thebe, priority=900)
    app.connect("build-finished", write_card)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
