"""The publishing extension: addresses come from the environment, and figures of executed notebooks say what they show."""

import base64
import json
from io import BytesIO
from pathlib import Path

import nbformat
import pytest
from bs4 import BeautifulSoup
from PIL import Image
from sphinx.application import Sphinx
from sphinx.util.docutils import docutils_namespace

from nagkit import paths

CSV = """exhibit,row,column,metric,value,lo,hi,n,unit,origin,oracle,source
demo,Guided,cifar10,accuracy,94.1,93.9,94.3,20,%,ours,table,
demo,Guided,cifar10,accuracy,94.4,,,,%,paper,,Restated by someone (2025)
"""


EXHIBITS = """
- exhibit: Table 9
  shows: pools
  oracle: table
  results: demo
  claim: Guided cells are good.
  limit: our budget
  why: three seeds
  checks:
    - {part: level, rule: above, metric: accuracy, row: Guided, column: cifar10, than: 94, delta: 0.5, because: a third}
"""


def notebook() -> nbformat.NotebookNode:
    """Two figures, as matplotlib leaves them in a notebook, parameters as papermill does, and a provenance box of that day."""
    png = BytesIO()
    Image.new("RGB", (30, 20)).save(png, "png")
    data = {"image/png": base64.b64encode(png.getvalue()).decode(), "text/plain": "<Figure size 30x20>"}
    figure = nbformat.v4.new_output("display_data", data)
    box = nbformat.v4.new_output("display_data", {"text/html": "<table><caption>Provenance</caption></table>"})
    cells = [nbformat.v4.new_markdown_cell("# Demo"), nbformat.v4.new_code_cell("show()", outputs=[figure, figure])]
    cells += [nbformat.v4.new_code_cell("seed = 7", metadata={"tags": ["injected-parameters"]})]
    cells += [nbformat.v4.new_code_cell("save()", outputs=[box])]
    return nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}})


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """A book of one page and one executed notebook that was told where it lies."""
    root = tmp_path_factory.mktemp("publish")
    results = root / "book" / "results"
    results.mkdir(parents=True)
    text = "# Title\n\nWhat it is about.\n\n```{toctree}\nresults/demo\n```\n"
    (root / "book" / "index.md").write_text(text, encoding="utf-8")
    (results / "demo.csv").write_text(CSV, encoding="utf-8")
    (root / "book" / "exhibits.yaml").write_text(EXHIBITS, encoding="utf-8")
    (results / "demo.provenance.json").write_text(json.dumps({"profile": "paper"}), encoding="utf-8")
    nbformat.write(notebook(), results / "demo.ipynb")
    config = {"extensions": ["myst_nb", "publish"], "html_theme": "sphinx_book_theme", "nb_execution_mode": "off"}
    config |= {"project": "demo", "html_title": "demo", "html_theme_options": {"use_repository_button": False}}
    with pytest.MonkeyPatch.context() as patch, docutils_namespace():
        patch.syspath_prepend(Path(__file__).parents[2] / "book" / "_ext")
        patch.setattr(paths, "root", lambda: root)
        patch.setenv("NAGKIT_REPOSITORY", "https://github.com/example/nagkit")
        patch.setenv("NAGKIT_BOOK", "https://example.org/book/")
        Sphinx(str(root / "book"), None, str(root / "out"), str(root / "trees"), "html", config, status=None).build()
    return root / "out"


def page(path: Path) -> BeautifulSoup:
    return BeautifulSoup(path.read_text("utf-8"), "html.parser")


def test_every_figure_of_an_executed_notebook_has_a_caption_and_a_text_alternative(built):
    article = page(built / "results" / "demo.html").article
    captions = [caption.get_text() for caption in article.select(".exhibit-caption")]
    known = "Ours: n = 20, profile paper, oracle table."
    assert captions == [f"Figure {i}. {known}" for i in (1, 2)]
    assert [image["alt"][:9] for image in article.select("img")] == ["Figure 1 ", "Figure 2 "]


def test_an_executed_notebook_begins_with_todays_verdict_and_ends_with_todays_word_on_its_provenance(built):
    article = page(built / "results" / "demo.html").article
    verdict = article.select_one(".verdict-box")
    assert "inconclusive Table 9. Guided cells are good. Our budget: three seeds." in verdict.get_text()
    assert verdict.find_previous_sibling().name == "h1"
    assert "recorded before code digests were kept" in article.select_one(".provenance").get_text()
    assert article.select_one("p.download a")["href"].endswith("demo.csv")
    assert "seed = 7" not in article.get_text() and "save()" in article.get_text()


def test_a_book_that_knows_its_repository_links_to_it_and_its_notebooks_to_binder(built):
    links = {link["href"] for link in page(built / "results" / "demo.html").find_all("a", href=True)}
    assert "https://github.com/example/nagkit" in links
    (binder,) = (link for link in links if "mybinder.org" in link)
    assert "/main?" in binder and binder.endswith("book/results/demo.ipynb")


def test_a_book_that_knows_its_address_completes_that_of_the_card(built):
    tags = {tag["property"]: tag["content"] for tag in page(built / "index.html").head.find_all("meta", property=True)}
    assert tags["og:image"] == "https://example.org/book/_static/card.png"
    assert tags["og:url"] == "https://example.org/book/index.html"
    assert tags["og:description"] == "What it is about."
    assert (built / "_static" / "card.png").is_file()
