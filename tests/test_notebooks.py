"""Every notebook runs from its text, and its copy with outputs is of that text, small and clean."""

import pathlib
import re
import tomllib

import nbformat
import pytest

import decoupled_wd as dwd
from tests.helpers import load_script

FOLDER = pathlib.Path(__file__).parents[1] / "notebooks"
build = load_script(FOLDER / "build.py")
each = pytest.mark.parametrize("text", build.texts(), ids=lambda text: text.stem)


def written(text):
    return nbformat.read(text.with_suffix(".ipynb"), as_version=4)


def test_every_notebook_has_a_text_and_every_text_a_notebook():
    texts = {path.stem for path in FOLDER.glob("*.py")} - {"build"}
    assert {text.stem for text in build.texts()} == texts
    assert {path.stem for path in FOLDER.glob("*.ipynb")} == texts
    assert len(texts) >= 3


@each
def test_the_copy_is_of_the_text_cell_by_cell(text):
    cells, expected = written(text).cells, build.paired(text).cells
    assert [(cell.cell_type, cell.source) for cell in cells] == [
        (cell.cell_type, cell.source) for cell in expected
    ]


@each
def test_a_notebook_opens_in_colab_and_installs_there_from_the_project_s_repository(text):
    project = tomllib.loads((FOLDER.parent / "pyproject.toml").read_text())["project"]
    repository = project["urls"]["Repository"]
    title, setup, *rest = written(text).cells
    badge, heading = title.source.split("\n\n")[:2]
    (address,) = re.findall(r"\]\(([^()]+)\)$", badge)
    on_github = repository.replace("https://github.com", "https://colab.research.google.com/github")
    assert address == f"{on_github}/blob/main/notebooks/{text.stem}.ipynb"
    assert heading.startswith("# ")
    assert setup.source == build.SETUP
    assert f'git+{repository}"' in setup.source
    assert "Device" in setup.outputs[0].data["text/plain"]
    assert not any("colab" in cell.source for cell in rest)


@each
def test_links_to_other_notebooks_lead_there(text):
    for cell in build.paired(text).cells:
        for target in re.findall(r"\]\(([^():]+)\)", cell.source):
            assert (FOLDER / target).exists(), target


@each
def test_the_outputs_are_in_order_small_and_without_errors(text):
    notebook = written(text)
    nbformat.validate(notebook)
    assert text.with_suffix(".ipynb").stat().st_size <= 150_000
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    for output in (output for cell in code for output in cell.outputs):
        assert output.output_type != "error"
        assert output.get("name") != "stderr"


def kinds_of_outputs(notebook):
    """By cell, which streams it prints to and what it shows."""
    return [
        [output.get("name") or sorted(output.data) for output in cell.get("outputs", [])]
        for cell in notebook.cells
    ]


@each
def test_a_notebook_runs_from_its_text_on_eight_devices_and_its_copy_has_all_outputs(
    text, tmp_path
):
    notebook = build.paired(text)
    package = pathlib.Path(dwd.__file__).parents[1]  # this one, wherever another is installed
    seconds = build.execute(notebook, tmp_path, PYTHONPATH=str(package))
    assert seconds <= 90
    setup = notebook.cells[1]
    assert setup.outputs[0].data["text/plain"].count("Device") == 8
    assert kinds_of_outputs(written(text)) == kinds_of_outputs(notebook)


def stderr(text):
    return nbformat.v4.new_output("stream", name="stderr", text=text)


def test_a_warning_stops_a_build_and_a_progress_bar_is_left_out():
    bar = stderr("steps:   0%|     | 0/3 [00:00<?]\rsteps: 100%|#####| 3/3 [00:00<00:00, 9it/s]\n")
    answer = nbformat.v4.new_output("stream", name="stdout", text="4\n")
    assert list(build.without_noise([bar, answer])) == [answer]
    with pytest.raises(RuntimeError, match=r"(?s)on stderr:.*UserWarning: worry"):
        list(build.without_noise([bar, stderr("cell.py:1: UserWarning: worry\n  warn()\n")]))
