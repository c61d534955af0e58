"""The README's example prints what it says, and its commands are CI's and CONTRIBUTING's."""

import ast
import contextlib
import io
import pathlib
import re

from decoupled_wd.conventions import CONVENTIONS

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def printed(code, names):
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        exec(code, names)
    return output.getvalue()


def test_the_examples_print_what_the_readme_says():
    (first, *others, questions), texts = blocks("python"), blocks("text")
    assert len(first.strip().splitlines()) <= 14
    names = {}
    texts.insert(3, "")  # The forms of decay print nothing.
    for code, expected in zip((first, *others), texts, strict=True):
        assert printed(code, names) == expected
    answers = printed(questions, names)
    assert answers.startswith("rounding")
    assert "a gap remains" in answers


def test_the_conventions_are_as_many_as_the_readme_says():
    roots = [convention.library.partition(".")[0] for convention in CONVENTIONS]
    others = [root for root in roots if root not in ("decoupled_wd", "paper")]
    assert f"{len(others)} rules of {len(set(others))} libraries" in README


def test_the_test_command_is_what_contributing_and_ci_run():
    commands = [line for block in blocks("sh") for line in block.splitlines()]
    (tests,) = (line for line in commands if line.endswith("bin/pytest"))
    assert tests in (ROOT / "CONTRIBUTING.md").read_text()
    ci = (ROOT / ".ci/run").read_text()
    assert "grep -m1 'bin/pytest$' README.md" in ci
    rest = re.findall(r"^(?:PYTHONPATH=\S+ )?\.venv/bin/.*$|^\(python3.*\)", ci, re.MULTILINE)
    assert len(rest) == 7
    for command in rest:
        assert command in (ROOT / "CONTRIBUTING.md").read_text()


def test_the_main_job_is_where_the_readme_says():
    (job,) = re.findall(r"\.venv/bin/python (examples/\S+)", README)
    assert (ROOT / job).exists()


def test_every_example_and_notebook_is_listed_and_an_example_by_its_own_question():
    listed = dict(re.findall(r"^\| \[\w+\]\((\S+)\) \| (.+) \|$", README, re.MULTILINE))
    examples, notebooks = (ROOT / "examples").glob("*.py"), (ROOT / "notebooks").glob("*.ipynb")
    assert set(listed) == {str(path.relative_to(ROOT)) for path in (*examples, *notebooks)}
    for file, question in listed.items():
        if file.endswith(".py"):
            docstring = ast.get_docstring(ast.parse((ROOT / file).read_text()))
            assert docstring.splitlines()[0] == question


def test_links_lead_somewhere():
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
