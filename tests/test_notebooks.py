"""Notebooks are stories of source only: short, parametrised, without outputs. nbval runs them; this looks at the files."""

import ast
import json

import nbformat
import pytest

from nagkit import paths

NOTEBOOKS = sorted((paths.root() / "notebooks").glob("*.ipynb"))
each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def read(path):
    return nbformat.read(path, as_version=4)


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_there_are_notebooks():
    assert {"table2", "figure_samplers"} <= {path.stem for path in NOTEBOOKS}


@each
def test_a_notebook_is_valid_and_needs_only_the_plain_kernel(path):
    nbformat.validate(json.loads(path.read_text(encoding="utf-8")))
    assert read(path).metadata.kernelspec.name == "python3"


@each
def test_a_notebook_is_short_and_starts_with_its_title(path):
    cells = read(path).cells
    assert len(cells) <= 16
    assert cells[0].cell_type == "markdown" and cells[0].source.startswith("# ")


@each
def test_a_notebook_carries_no_outputs(path):
    for cell in code(read(path)):
        assert cell.outputs == [] and cell.execution_count is None


@each
def test_a_notebook_has_one_parameters_cell_of_constants_with_quick_as_default(path):
    tagged = [cell for cell in code(read(path)) if "parameters" in cell.metadata.get("tags", [])]
    assert len(tagged) == 1
    statements = ast.parse(tagged[0].source).body
    assert all(isinstance(line, ast.Assign) and isinstance(line.value, ast.Constant) for line in statements)
    values = {line.targets[0].id: line.value.value for line in statements}
    assert (values["profile"], values["seed"]) == ("quick", 0)


@each
def test_no_algorithm_lives_in_a_notebook(path):
    tree = ast.parse("\n".join(cell.source for cell in code(read(path))))
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.While)]


@each
def test_a_notebook_saves_its_exhibit_and_ends_with_its_provenance(path):
    cells = code(read(path))
    assert any(".save(" in cell.source for cell in cells)
    assert cells[-1].source.rstrip().endswith((".provenance()", ")"))
    if "nagkit.study" in "".join(cell.source for cell in cells):  # it declares its exhibit: golden numbers and files come last
        assert len(read(path).cells) <= 15
        assert "results.compare_golden()" in cells[-1].source and cells[-1].source.splitlines()[-1].startswith("results.save(")
