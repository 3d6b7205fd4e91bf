"""Times the package beside PyTorch and prints ratios: `make bench`, or `make bench ARGS=einsum` for one group.

Rivals take turns in one process, each ratio is of the least times, and a line says what ratio is to be reached.
"""
import subprocess, sys, time
from pathlib import Path

import torch
from groundup.einsum import einsum
from groundup.timing import best_times, format_time

top = Path(__file__).resolve().parent.parent


def einsum_beside_torch():
    "`einsum` beside `torch.einsum`, float32."
    generator = torch.Generator().manual_seed(0)
    for equation, shapes, reach in [("ik,kj->ij", [(5, 784), (784, 10)], 0.4), ("ik,kj->ij", [(512, 512), (512, 512)], 1.05),
                                    ("ij,jk,k->i", [(512, 512), (512, 512), (512,)], 0.1),
                                    ("bik,bkj->bij", [(32, 64, 64), (32, 64, 64)], 1.1)]:
        x = [torch.randn(shape, generator=generator) for shape in shapes]
        times = best_times({"ours": lambda: einsum(equation, *x), "theirs": lambda: torch.einsum(equation, *x)}, rounds=5, threads=torch.get_num_threads())
        yield f"{equation} {' '.join('x'.join(map(str, shape)) for shape in shapes)}", times["ours"], times["theirs"], reach


def imports():
    "`import groundup.<module>` in a fresh Python that has torch (and for plots matplotlib) already; the reach is 50 ms."
    for path in sorted((top/"groundup").glob("[a-z]*.py")):
        code = ("import time, torch; start = time.perf_counter(); "
                f"import groundup.{path.stem}; print(time.perf_counter() - start)")
        if path.stem == "plots": code = "import matplotlib.pyplot; " + code # its own work, not matplotlib's
        runs = [float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout) for _ in range(3)]
        yield f"import groundup.{path.stem}", min(runs), 0.050, 1


def lessons():
    "`nbdev_test` on the lessons and the index, 2 workers; the reach is 90 s."
    nbdev_test, start = str(Path(sys.executable).with_name("nbdev_test")), time.perf_counter()
    subprocess.run([nbdev_test, "--n_workers", "2"], check=True, cwd=top, capture_output=True)
    subprocess.run([nbdev_test, "--path", "index.ipynb"], check=True, cwd=top, capture_output=True)
    yield "nbdev_test, all lessons and the index", time.perf_counter() - start, 90, 1


GROUPS = {"einsum": einsum_beside_torch, "imports": imports, "lessons": lessons}

if __name__ == "__main__":
    chosen = sys.argv[1:] or list(GROUPS)
    if unknown := set(chosen) - set(GROUPS): sys.exit(f"no group {sorted(unknown)}; there are {', '.join(GROUPS)}")
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    print(f"{'work':44} {'ours':>9} {'beside':>9} {'ratio':>6} {'reach':>6}")
    for name in chosen:
        for work, ours, beside, reach in GROUPS[name]():
            print(f"{work:44} {format_time(ours):>9} {format_time(beside):>9} {ours / beside:6.2f} {reach:6} "
                  f"{'' if ours / beside <= reach else 'MISSED'}")
