"""Runs notebooks from a fresh kernel: `run.py [--in-place] [NOTEBOOK ...]`, every lesson and the index by default.

The executed copies go to _build/. With --in-place, a notebook that ran to its end replaces itself, cleaned and stamped
with the digest that a test compares: a committed output is stale when it does not come with the code above it. Those
whose digest still holds are only cleaned, unless they are named.
"""
import argparse, asyncio, json, re, signal, sys, time
from contextlib import suppress
from pathlib import Path

if __name__ == "__main__": # before the imports that take a second, so that a stop is told plainly there, too
    sys.excepthook = lambda kind, *error: sys.__excepthook__(kind, *error) if kind is not KeyboardInterrupt else \
        print("stopped: the notebooks that are listed as ok are done, all others are as they were", file=sys.stderr)

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from nbdev.clean import clean_nb
from execnb.nbio import nb2str
from tqdm import tqdm
from digest import digest, package_code
from project import cfg, notebooks, replace, top, write

SKIPPED = re.compile(r"^#\|\s*eval:\s*false", re.M)
COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class Runner(NotebookClient):
    "Executes a notebook as `nbdev_test` does: cells marked `#| eval: false` are left alone."
    def __init__(self, nb, bar, **kwargs):
        super().__init__(nb, **kwargs)
        self.bar, self.stopped = bar, False

    async def async_start_new_kernel(self, **kwargs):
        # On a signal nbclient ends the kernel, and then fails wherever it misses it; this remembers why.
        def stop(task=asyncio.current_task()):
            self.stopped, self.shutdown_kernel = True, "immediate"
            task.cancel()
        with suppress(RuntimeError): # Windows has no such handlers, but raises KeyboardInterrupt
            for number in [signal.SIGINT, signal.SIGTERM]: asyncio.get_running_loop().add_signal_handler(number, stop)
        await super().async_start_new_kernel(**kwargs)

    async def async_execute_cell(self, cell, cell_index, *args, **kwargs):
        if not (cell.cell_type == "code" and SKIPPED.search(cell.source)):
            cell = await super().async_execute_cell(cell, cell_index, *args, **kwargs)
        self.bar.update()
        return cell


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
    except (asyncio.CancelledError, DeadKernelError):
        if client.stopped: raise KeyboardInterrupt from None
        return nb, "its kernel died"
    return nb, "ok"


def cleaned(nb: dict) -> dict:
    "`nb`, without what changes from run to run and from editor to editor."
    clean_nb(nb, allowed_metadata_keys=cfg["allowed_metadata_keys"].split(), allowed_cell_metadata_keys=cfg["allowed_cell_metadata_keys"].split())
    return nb


def refresh(path: Path, bar: tqdm, named: bool) -> str:
    "Runs the notebook at `path` and lets the result replace it, if it is `named` or its digest does not hold; says what became of it."
    found = path.read_bytes()
    nb = cleaned(json.loads(found))
    code = package_code(nb)
    outcome = "up to date"
    if named or nb["metadata"].get("groundup", {}).get("digest") != digest(nb, code):
        executed, outcome = execute(path, bar)
        if outcome != "ok": return outcome
        nb = cleaned(json.loads(nbformat.writes(executed)))
        nb["metadata"]["groundup"] = {"digest": digest(nb, code)}
    return outcome if replace(path, found, nb2str(nb).encode()) else "left as it is, for it was edited meanwhile: refresh it again"


def run(path: Path, bar: tqdm) -> str:
    "Runs the notebook at `path`, leaves the result in _build/ and says what became of it."
    nb, outcome = execute(path, bar)
    write(top/"_build"/path.relative_to(top), nbformat.writes(nb).encode())
    return outcome


def main(named: list[Path], in_place: bool) -> bool:
    "Runs the notebooks that are `named`, or all, prints the table, and says whether all went well."
    paths = named or notebooks()
    cells = {path: len(nbformat.read(path, as_version=4).cells) for path in paths}
    rows = []
    try:
        with tqdm(total=sum(cells.values()), unit="cell") as bar:
            for path in paths:
                start, before = time.perf_counter(), bar.n
                outcome = refresh(path, bar, bool(named)) if in_place else run(path, bar)
                bar.update(before + cells[path] - bar.n)
                rows.append((path.stem, cells[path], time.perf_counter() - start, outcome))
    finally:
        width = max(len(path.stem) for path in paths)
        print(f"\n{'lesson':{width}}  cells  seconds  outcome")
        for name, number, seconds, outcome in rows: print(f"{name:{width}}  {number:5}  {seconds:7.1f}  {outcome}")
    return all(row[3] in ["ok", "up to date"] for row in rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--in-place", action="store_true", help="replace each notebook that ran to its end")
    parser.add_argument("notebook", nargs="*", type=Path)
    args = parser.parse_args()
    missing = [str(path) for path in args.notebook if not path.is_file()]
    if missing: parser.error(f"no such notebook: {', '.join(missing)}")
    sys.exit(not main([path.resolve() for path in args.notebook], args.in_place))
