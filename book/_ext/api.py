"""Sphinx extension of the API pages: every public name from its docstring, linked to the book's copy of the source.

Directive: `api` with a module (`nagkit.guidance`) or a sub-package (`nagkit.spaces`), one section a module.
"""

import re
from pathlib import Path

from docutils import nodes
from offline import locate
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

_CODE_OR_MARKUP = re.compile(r"`+([^`]+)`+|([\\*|_])")


def modules(root: Path, name: str) -> list[str]:
    """The module `name`, or the public modules of that sub-package: `base` first, the others in alphabetical order."""
    place = root / name.replace(".", "/")
    if place.with_suffix(".py").is_file():
        return [name]
    found = [path.stem for path in place.glob("[!_]*.py")]
    return [f"{name}.{stem}" for stem in sorted(found, key=lambda stem: (stem != "base", stem))]


class Api(SphinxDirective):
    """A section of each module, with what its docstrings say of its public names."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        found = modules(Path(self.env.srcdir).parent, self.arguments[0])
        if not found:
            raise self.error(f"no module or sub-package {self.arguments[0]!r}")
        sections = (f"## {name}\n\n```{{eval-rst}}\n.. automodule:: {name}\n```\n" for name in found)
        return self.parse_text_to_nodes("\n".join(sections), allow_section_headings=True)


def marked(text: str) -> str:
    """A docstring of this package, prose with `code` in single backticks, as reStructuredText that says the same."""
    return _CODE_OR_MARKUP.sub(lambda found: rf"\ ``{found[1].strip()}``\ " if found[1] else rf"\{found[2]}", text)


def _mark(app: Sphinx, what: str, name: str, member: object, options: object, lines: list[str]) -> None:
    lines[:] = marked("\n".join(lines)).split("\n")


def _skip(app: Sphinx, what: str, name: str, member: object, skip: bool, options: object) -> bool | None:
    """Fields of named tuples without a docstring of their own stand in the signature already."""
    return True if (getattr(member, "__doc__", None) or "").startswith("Alias for field number") else None


def _without_arguments(app: Sphinx, what: str, name: str, member: object, *_: object) -> tuple[str, None] | None:
    """A protocol is not called, so its inherited `(*args, **kwargs)` says nothing."""
    return ("", None) if what == "class" and getattr(member, "_is_protocol", False) else None


def _link_to_source(app: Sphinx, doctree: nodes.document) -> None:
    for signature in doctree.findall(addnodes.desc_signature):
        place = locate(Path(app.srcdir).parent, f"{signature['module']}.{signature['fullname']}")
        if place is not None:
            uri = app.builder.get_relative_uri(app.env.docname, f"_source/{place[0]}")
            link = nodes.reference("", "", nodes.inline("", "source"), refuri=f"{uri}#L-{place[1]}", internal=True)
            signature += nodes.inline("", "", nodes.Text(" "), link, classes=["api-source"])


def setup(app: Sphinx) -> dict:
    """Register everything (Sphinx calls this)."""
    import papermill.engines  # noqa: F401  (it loads our engine; asked for the engine first, it would find it half made)

    app.setup_extension("sphinx.ext.autodoc")
    app.setup_extension("sphinx.ext.autosummary")
    app.add_directive("api", Api)
    app.connect("autodoc-process-docstring", _mark)
    app.connect("autodoc-process-signature", _without_arguments)
    app.connect("autodoc-skip-member", _skip)
    app.connect("doctree-read", _link_to_source)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
