"""The README's example prints what it says, and its commands are CI's and CONTRIBUTING's."""

import contextlib
import io
import pathlib
import re

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_example_prints_what_the_readme_says():
    (code, questions), (expected,) = blocks("python"), blocks("text")
    assert len(code.strip().splitlines()) <= 14
    printed, names = io.StringIO(), {}
    with contextlib.redirect_stdout(printed):
        exec(code, names)
    assert printed.getvalue() == expected
    with contextlib.redirect_stdout(printed):
        exec(questions, names)
    answers = printed.getvalue().removeprefix(expected)
    assert answers.startswith("rounding")
    assert "a gap remains" in answers


def test_the_test_command_is_what_contributing_and_ci_run():
    commands = [line for block in blocks("sh") for line in block.splitlines()]
    (tests,) = (line for line in commands if line.endswith("bin/pytest"))
    assert tests in (ROOT / "CONTRIBUTING.md").read_text()
    ci = (ROOT / ".ci/run").read_text()
    assert "grep -m1 'bin/pytest$' README.md" in ci
    rest = re.findall(r"^\.venv/bin/.*$", ci, re.MULTILINE)
    assert len(rest) == 5
    for command in rest:
        assert command in (ROOT / "CONTRIBUTING.md").read_text()


def test_the_main_job_is_where_the_readme_says():
    (job,) = re.findall(r"\.venv/bin/python (examples/\S+)", README)
    assert (ROOT / job).exists()


def test_links_lead_somewhere():
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
