"""The API pages hold every public module, and docstrings reach them as they were written."""

import importlib.util
import re
import sys
from pathlib import Path

import pytest
from docutils.core import publish_doctree

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "book" / "api.md", *sorted((ROOT / "book" / "api").glob("*.md"))]
COMMANDS = {"nagkit.cli", "nagkit.cli_output", "nagkit.cli_train"}  # the command line documents itself


@pytest.fixture(scope="module")
def api():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "book" / "_ext")
        spec = importlib.util.spec_from_file_location("api", ROOT / "book" / "_ext" / "api.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        yield module
        sys.modules.pop("offline", None)


def test_every_module_is_on_exactly_one_page(api):
    named = re.findall(r"```\{api\} (\S+)", "".join(page.read_text("utf-8") for page in PAGES))
    documented = [module for name in named for module in api.modules(ROOT, name)]
    public = {".".join(path.relative_to(ROOT).with_suffix("").parts) for path in (ROOT / "nagkit").rglob("[!_]*.py")}
    assert sorted(documented) == sorted(public - COMMANDS)


def test_the_base_of_a_sub_package_comes_first(api):
    base, *others = api.modules(ROOT, "nagkit.spaces")
    assert base == "nagkit.spaces.base" and others == sorted(others) and "nagkit.spaces.nb201" in others
    assert api.modules(ROOT, "nagkit.no_such_thing") == []


def test_what_one_looks_for_first_is_on_the_front_page():
    text = PAGES[0].read_text("utf-8")
    for name in ("sampling.generate", "guide", "exact_prior", "samplers.heun", "SearchSpace", "open_benchmark", "jobs.run"):
        assert f"{name}\n" in text


@pytest.mark.parametrize(
    "prose", ["p(k | x) and |x - e_k|^2", "a*b, *args and x_", "C:\\folder", "plain words", "weights_ of [1]_"]
)
def test_prose_of_a_docstring_is_shown_as_written(api, prose):
    assert publish_doctree(api.marked(prose), settings_overrides={"halt_level": 2}).astext() == prose


@pytest.mark.parametrize("code", ["(B, n_nodes)", "x0*", "<attack>_eps<1/255>", "a | b", "back\\slash"])
def test_code_in_single_backticks_is_shown_as_code(api, code):
    tree = publish_doctree(api.marked(f"see `{code}`s, and x"), settings_overrides={"halt_level": 2})
    assert tree.astext() == f"see {code}s, and x"
    assert [node.astext() for node in tree.findall(lambda node: node.tagname == "literal")] == [code]
