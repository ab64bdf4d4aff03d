"""Sphinx extension that keeps the book whole without a network: source pages that prose links to, and MathJax from a package.

Role: `` {src}`nagkit.spaces.nb201.Space.decode` `` links to that line in the book's own copy of the source; with `~` in front
it shows only `decode`.
"""

import ast
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from shutil import copyfile

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxRole

logger = logging.getLogger(__name__)


def locate(root: Path, target: str) -> tuple[str, int] | None:
    """Module path (`nagkit/spaces/nb201`) and line of a dotted name, found without importing; None when there is none."""
    parts = target.split(".")
    for cut in range(len(parts), 0, -1):
        module = "/".join(parts[:cut])
        path = root / f"{module}.py"
        if not path.is_file():
            continue
        body, line = ast.parse(path.read_text("utf-8")).body, 1
        for name in parts[cut:]:
            found = next((node for node in body if name in _names(node)), None)
            if found is None:
                return None
            body, line = getattr(found, "body", []), found.lineno
        return module, line
    return None


def _names(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.Assign):
        return [leaf.id for target in node.targets for leaf in ast.walk(target) if isinstance(leaf, ast.Name)]
    if isinstance(node, ast.AnnAssign):
        return [node.target.id] if isinstance(node.target, ast.Name) else []
    return [getattr(node, "name", "")]


class SourceRole(SphinxRole):
    """A dotted name under `nagkit`; one that does not exist is a warning, so the strict build keeps prose and code together."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        target = self.text.removeprefix("~")
        shown = target.rpartition(".")[2] if self.text.startswith("~") else target
        place = locate(Path(self.env.srcdir).parent, target)
        if place is None:
            logger.warning("no source for %r", target, location=self.get_location())
            return [nodes.literal(shown, shown)], []
        uri = self.env.app.builder.get_relative_uri(self.env.docname, f"_source/{place[0]}")
        link = nodes.reference("", "", nodes.literal(shown, shown), refuri=f"{uri}#L-{place[1]}", internal=True)
        return [link], []


def source_pages(app: Sphinx) -> Iterator[tuple[str, dict, str]]:
    """A highlighted page per module, so that links from equations to code work without a network."""
    root = Path(app.srcdir).parent
    for path in sorted((root / "nagkit").rglob("*.py")):
        name = path.relative_to(root)
        code = app.builder.highlighter.highlight_block(
            path.read_text("utf-8"), "python", linenos="inline", lineanchors="L", anchorlinenos=True
        )
        yield f"_source/{name.with_suffix('')}", {"title": str(name), "body": f"<h1>{name}</h1>\n{code}"}, "page.html"


def _mathjax() -> list[Path]:
    """The MathJax script and fonts of the package `sphinx-mathjax-offline`; none when it is not installed."""
    try:
        listed = files("sphinx-mathjax-offline") or []
    except PackageNotFoundError:
        return []
    return [Path(f.locate()) for f in listed if f.name == "tex-chtml.js" or f.suffix == ".woff"]


def _use_local_mathjax(app: Sphinx, config: object) -> None:
    if _mathjax():
        config.mathjax_path = "mathjax/tex-chtml.js"


def _copy_mathjax(app: Sphinx, error: Exception | None) -> None:
    if error is not None or app.builder.format != "html":
        return
    static = Path(app.outdir) / "_static" / "mathjax"
    for path in _mathjax():
        target = static / ("output/chtml/fonts/woff-v2" if path.suffix == ".woff" else ".") / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        copyfile(path, target)


def setup(app: Sphinx) -> dict:
    """Register everything (Sphinx calls this)."""
    app.add_role("src", SourceRole())
    app.connect("config-inited", _use_local_mathjax)
    app.connect("html-collect-pages", source_pages)
    app.connect("build-finished", _copy_mathjax)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
