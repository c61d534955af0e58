"""Execute the notebooks and write them as .ipynb beside their text.

    python notebooks/build.py [NAME ...]

A notebook is written and reviewed as NAME.py, in jupytext's percent format. What all of them share
is put in here: the badge over the title, and after it the cell that installs on Colab and shows the
devices. The copies with outputs, NAME.ipynb, are what GitHub shows and Colab opens.
"""

import base64
import io
import os
import pathlib
import re
import resource
import sys
import tomllib
from collections.abc import Iterator

import jupytext
import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode
from PIL import Image

FOLDER = pathlib.Path(__file__).resolve().parent
PROJECT = tomllib.loads((FOLDER.parent / "pyproject.toml").read_text())["project"]
REPOSITORY = PROJECT["urls"]["Repository"]
BADGE = "[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({address})"
COLAB = "https://colab.research.google.com/github/{name}/blob/main/notebooks/{file}"

# A newer JAX than Colab's falls back to the CPU unless what drives the accelerator comes with it.
SETUP = f"""\
import importlib.util
import os
import shutil
import sys

if "google.colab" in sys.modules:
    tpu, gpu = importlib.util.find_spec("libtpu"), shutil.which("nvidia-smi")
    driver = "jax[tpu]" if tpu else "jax[cuda12]" if gpu else "jax"
    !pip install -q "$driver" "decoupled_wd[examples] @ git+{REPOSITORY}"

# Every core of a CPU as a device, so that sweeps use them as they use the cores of a TPU.
os.environ.setdefault("XLA_FLAGS", f"--xla_force_host_platform_device_count={{os.cpu_count()}}")
import jax

%config InlineBackend.figure_format = "retina"
jax.devices()"""

SECONDS, KILOBYTES, COLOURS = 90, 150, 64
PROGRESS = re.compile(r"\s*|.*\d+%\|.*")  # as tqdm draws it


def texts() -> list[pathlib.Path]:
    """Every notebook's text."""
    return sorted(set(FOLDER.glob("*.py")) - {pathlib.Path(__file__).resolve()})


def paired(text: pathlib.Path) -> NotebookNode:
    """The notebook of a text, with the shared cells and without outputs."""
    notebook = jupytext.read(text, fmt="py:percent")
    repository = REPOSITORY.removeprefix("https://github.com/")
    address = COLAB.format(name=repository, file=text.with_suffix(".ipynb").name)
    title = notebook.cells[0]
    title.source = f"{BADGE.format(address=address)}\n\n{title.source}"
    notebook.cells.insert(1, nbformat.v4.new_code_cell(SETUP))
    for index, cell in enumerate(notebook.cells):
        cell.id, cell.metadata = f"cell-{index}", {}
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook.metadata = NotebookNode(kernelspec=kernel)
    return notebook


def execute(notebook: NotebookNode, folder: pathlib.Path, **environment: str) -> float:
    """Fill in the outputs from a fresh kernel working in `folder`; return the CPU seconds it took.

    An error in a cell is raised, and so is what the kernel says on stderr, progress bars aside.
    """
    before = _seconds_of_children()
    client = NotebookClient(notebook, timeout=600, record_timing=False, coalesce_streams=True)
    # It warns that others on the machine may listen.
    client.extra_arguments = ["--log-level=ERROR"]
    client.execute(cwd=str(folder), env={**os.environ, **environment})
    notebook.metadata.language_info = {"name": "python"}  # without the version it ran on
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = list(without_noise(cell.outputs))
    return _seconds_of_children() - before


def _seconds_of_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def without_noise(outputs: list[NotebookNode]) -> Iterator[NotebookNode]:
    """The outputs less progress bars, with pictures in a palette: a third of the bytes."""
    for output in outputs:
        if output.get("name") == "stderr":
            said = [
                line for line in re.split(r"[\r\n]", output.text) if not PROGRESS.fullmatch(line)
            ]
            if said:
                raise RuntimeError("A cell says on stderr:\n" + "\n".join(said))
            continue
        if "image/png" in output.get("data", {}):
            picture = Image.open(io.BytesIO(base64.b64decode(output.data["image/png"])))
            small = io.BytesIO()
            picture.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(
                small, "png", optimize=True
            )
            output.data["image/png"] = base64.b64encode(small.getvalue()).decode()
        yield output


def write(text: pathlib.Path) -> str:
    """Build one notebook, unless it fails or is too slow or too large; say what it took."""
    notebook = paired(text)
    # The clock would tell of what else the machine does.
    seconds = execute(notebook, FOLDER)
    written = nbformat.writes(notebook) + "\n"
    kilobytes = len(written.encode()) / 1000
    report = f"{text.stem:42} {seconds:4.0f} s of CPU {kilobytes:4.0f} kB"
    if seconds > SECONDS or kilobytes > KILOBYTES:
        raise RuntimeError(f"Over {SECONDS} s or {KILOBYTES} kB: {report}")
    text.with_suffix(".ipynb").write_text(written)
    return report


def main() -> None:
    """Build those named, or all."""
    named = {text.stem: text for text in texts()}
    for name in sys.argv[1:] or named:
        print(write(named[pathlib.Path(name).stem]), flush=True)


if __name__ == "__main__":
    main()
