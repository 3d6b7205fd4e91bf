"""Runs notebooks from a fresh kernel: `run.py [--in-place] [NOTEBOOK ...]`, every lesson and the index by default.

The executed copies go to _build/. With --in-place, a notebook that ran to its end replaces itself, cleaned and stamped
with the digest that a test compares: a committed output is stale when it does not come with the code above it.
"""
import argparse, hashlib, json, re, sys, time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbdev.clean import nbdev_clean
from execnb.nbio import write_nb
from tqdm import tqdm

top = Path(__file__).resolve().parent.parent
SKIPPED = re.compile(r"^#\|\s*eval:\s*false", re.M)
COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class Runner(NotebookClient):
    "Executes a notebook as `nbdev_test` does: cells marked `#| eval: false` are left alone."
    def __init__(self, nb, bar, **kwargs):
        super().__init__(nb, **kwargs)
        self.bar = bar

    async def async_execute_cell(self, cell, cell_index, *args, **kwargs):
        if not (cell.cell_type == "code" and SKIPPED.search(cell.source)):
            cell = await super().async_execute_cell(cell, cell_index, *args, **kwargs)
        self.bar.update()
        return cell


def notebooks() -> list[Path]:
    "The lessons in order, then the index."
    return [*sorted((top/"nbs").glob("*.ipynb")), top/"index.ipynb"]


def digest(nb: dict) -> str:
    "A digest of the code of `nb` and of the outputs that came with it."
    cells = [["".join(cell["source"]), cell["outputs"]] for cell in nb["cells"] if cell["cell_type"] == "code"]
    return hashlib.sha256(json.dumps(cells, sort_keys=True).encode()).hexdigest()


def execute(path: Path, bar: tqdm) -> tuple[nbformat.NotebookNode, str]:
    "The notebook at `path`, run in its own folder, and what became of it: 'ok' or the failing cell with its error."
    nb = nbformat.read(path, as_version=4)
    bar.set_description(path.stem)
    client = Runner(nb, bar, timeout=None, kernel_name="python3", coalesce_streams=True, extra_arguments=["--log-level=ERROR"],
                    resources={"metadata": {"path": str(path.parent)}})
    try: client.execute()
    except CellExecutionError as error:
        failed = next(i for i, cell in enumerate(nb.cells, 1)
                      if any(out.output_type == "error" for out in cell.get("outputs", [])))
        return nb, COLOUR.sub("", f"cell {failed}: {error.ename}: {error.evalue}").splitlines()[0]
    return nb, "ok"


def save_in_place(nb: nbformat.NotebookNode, path: Path):
    "Replaces the notebook at `path` by `nb`, cleaned and stamped."
    nbformat.write(nb, path)
    nbdev_clean(str(path))
    cleaned = json.loads(path.read_text(encoding="utf-8"))
    cleaned["metadata"]["groundup"] = {"digest": digest(cleaned)}
    write_nb(cleaned, path)


def main(paths: list[Path], in_place: bool) -> bool:
    "Runs `paths`, prints the table, and says whether all went well."
    rows = []
    total = sum(len(nbformat.read(path, as_version=4).cells) for path in paths)
    with tqdm(total=total, unit="cell") as bar:
        for path in paths:
            start = time.perf_counter()
            nb, outcome = execute(path, bar)
            rows.append((path.stem, len(nb.cells), time.perf_counter() - start, outcome))
            if not in_place:
                copy = top/"_build"/path.relative_to(top)
                copy.parent.mkdir(parents=True, exist_ok=True)
                nbformat.write(nb, copy)
            elif outcome == "ok": save_in_place(nb, path)
    width = max(len(row[0]) for row in rows)
    print(f"\n{'lesson':{width}}  cells  seconds  outcome")
    for name, cells, seconds, outcome in rows: print(f"{name:{width}}  {cells:5}  {seconds:7.1f}  {outcome}")
    return all(row[3] == "ok" for row in rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--in-place", action="store_true", help="replace each notebook that ran to its end")
    parser.add_argument("notebook", nargs="*", type=Path)
    args = parser.parse_args()
    missing = [str(path) for path in args.notebook if not path.is_file()]
    if missing: parser.error(f"no such notebook: {', '.join(missing)}")
    chosen = [path.resolve() for path in args.notebook] or notebooks()
    sys.exit(not main(chosen, args.in_place))
