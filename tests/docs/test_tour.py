"""The notebook docs/get_started/tour.ipynb: its code runs, and its stored outputs and its text are true.

To run it again and store the outputs: `make golden`.
"""

import ast
import base64
import contextlib
import io
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = ROOT / "docs" / "get_started" / "tour.ipynb"
SITE = "https://dd-bench.github.io/dd_bench/docs/"
Outputs = list[dict[str, Any]]


def read() -> dict[str, Any]:
    return json.loads(NOTEBOOK.read_text())


def code_cells() -> list[dict[str, Any]]:
    return [cell for cell in read()["cells"] if cell["cell_type"] == "code"]


def execute(source: str, names: dict[str, Any], count: int) -> Outputs:
    """Execute a cell and return its outputs: what it prints, the value of its last expression, and figures."""
    import matplotlib.pyplot as plt

    body = ast.parse(source).body
    last = ast.Expression(body.pop().value) if isinstance(body[-1], ast.Expr) else None
    printed, value = io.StringIO(), None
    with contextlib.redirect_stdout(printed):
        exec(compile(ast.Module(body, []), f"cell {count}", "exec"), names)
        if last is not None:
            value = eval(compile(last, f"cell {count}", "eval"), names)
    outputs: Outputs = []
    if printed.getvalue():
        outputs.append({"name": "stdout", "output_type": "stream", "text": lines(printed.getvalue())})
    if value is not None:
        data = {"text/plain": lines(repr(value))}
        if hasattr(value, "_repr_png_"):
            data = {"image/png": base64.b64encode(value._repr_png_()).decode() + "\n", **data}
        outputs.append(
            {"data": data, "execution_count": count, "metadata": {}, "output_type": "execute_result"}
        )
    for number in plt.get_fignums():
        picture, figure = io.BytesIO(), plt.figure(number)
        figure.savefig(picture, dpi=100, bbox_inches="tight", metadata={"Software": None})
        data = {"image/png": base64.b64encode(picture.getvalue()).decode() + "\n"}
        data["text/plain"] = [f"<Figure size {figure.bbox.width:.0f}x{figure.bbox.height:.0f}>"]
        outputs.append({"data": data, "metadata": {}, "output_type": "display_data"})
    plt.close("all")
    return outputs


def lines(text: str) -> list[str]:
    return text.splitlines(keepends=True)


def text_of(outputs: Outputs) -> str:
    """The text of outputs, without the names of figures."""
    parts = [o.get("text") or o["data"]["text/plain"] for o in outputs]
    return "".join(line for part in parts for line in part if not line.startswith("<Figure"))


@pytest.fixture(scope="module")
def executed(tmp_path_factory) -> tuple[dict[str, Any], list[Outputs]]:
    """The names that the notebook defines, and the outputs of its code cells, from one run in an empty folder."""
    import matplotlib

    names: dict[str, Any] = {"__name__": "__main__"}
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(io.StringIO()) as errors:
        patch.chdir(tmp_path_factory.mktemp("tour"))
        patch.setattr(sys, "argv", ["a_notebook"])
        with matplotlib.rc_context():
            matplotlib.use("Agg")
            outputs = [execute("".join(c["source"]), names, i) for i, c in enumerate(code_cells(), 1)]
    assert not errors.getvalue()
    if os.environ.get("DD_BENCH_GOLDEN"):
        notebook = read()
        cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
        for count, (cell, new) in enumerate(zip(cells, outputs, strict=True), 1):
            cell |= {"execution_count": count, "outputs": new}
        NOTEBOOK.write_text(json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n")
    return names, outputs


@pytest.mark.slow  # CI runs it on its own
def test_stored_outputs_are_those_of_the_code(executed):
    """Cells with `numbers` in their metadata print results, which differ a little between machines."""
    for cell, new in zip(code_cells(), executed[1], strict=True):
        kinds = [
            [(o["output_type"], sorted(o.get("data", {}))) for o in outputs]
            for outputs in (cell["outputs"], new)
        ]
        assert kinds[0] == kinds[1]
        stored, now = text_of(cell["outputs"]), text_of(new)
        if cell["metadata"]:
            stored, now = (re.sub(r"\d+\.\d+|\b[0-9a-f]{16}\b", "#", text) for text in (stored, now))
        assert stored == now, "".join(cell["source"])


@pytest.mark.slow  # CI runs it on its own
def test_text_agrees_with_the_results(executed):
    names, text = (
        executed[0],
        "".join("".join(c["source"]) for c in read()["cells"] if c["cell_type"] == "markdown"),
    )
    records, syn = names["records"], names["syn"]
    interval = {name: (r.summary().ci_low, r.summary().ci_high) for name, r in records.items()}
    assert "the interval of DM is above the other two" in text
    assert interval["dm"][0] > max(interval["random"][1], interval["kmeans"][1])
    assert "better than random images" in text
    assert records["kmeans"].summary().mean > records["random"].summary().mean
    train, test = len(names["real"].train), len(names["real"].test)
    assert f"{train:,} training images" in text and f"{test} test images" in text
    assert "five fresh networks" in text and {len(r.scores) for r in records.values()} == {5}
    assert "ten images" in text and len(syn.labels) == 10
    assert records["dm"].scores == names["record"].scores, "the run found the finished set"


def test_stored_notebook_is_clean():
    text, notebook = NOTEBOOK.read_text(), read()
    assert len(text) < 200_000
    assert notebook["metadata"]["kernelspec"] == {
        "display_name": "Python 3",
        "language": "python",
        "name": "python3",
    }
    assert [cell["execution_count"] for cell in code_cells()] == [*range(1, len(code_cells()) + 1)]
    printed = "".join(text_of(cell["outputs"]) for cell in code_cells())
    assert not re.search(r"/home|/root|/tmp|/Users|\\Users|Warning|Traceback", printed)
    assert all(
        o.get("name") != "stderr" and o["output_type"] != "error" for c in code_cells() for o in c["outputs"]
    )


def test_it_is_in_the_navigation_and_its_links_lead_to_pages():
    assert "get_started/tour.ipynb\n" in (ROOT / "mkdocs.yml").read_text()
    links = re.findall(r"\]\(([^)]+)\)", NOTEBOOK.read_text())
    assert len(links) > 4 and all(link.startswith(SITE) for link in links)
    pages = [link.removeprefix(SITE).partition("#")[0].rstrip("/") for link in links]
    missing = [
        p for p in pages if not any((ROOT / "docs" / f"{p}{end}.md").is_file() for end in ("", "/index"))
    ]
    assert not missing


@pytest.mark.slow
def test_it_runs_in_a_kernel(tmp_path):
    """Classes of `__main__`, progress bars and figures are different there."""
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    for cell in notebook.cells:
        cell.pop("outputs", None)
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": tmp_path}}).execute()
    outputs = [[dict(o) for o in c.outputs] for c in notebook.cells if c.cell_type == "code"]
    for cell, new in zip(code_cells(), outputs, strict=True):
        bars = [o["text"] for o in new if o.get("name") == "stderr"]
        assert all(re.match(r"\s*([\w ]+: +\d+%\||$)", text) for text in bars), bars
        kinds = [
            {o["output_type"] for o in found if o.get("name") != "stderr"} for found in (cell["outputs"], new)
        ]
        assert kinds[0] == kinds[1], new
