"""Times the package beside PyTorch and prints ratios: `make bench`, or `make bench ARGS=einsum` for one group.

Rivals take turns in one process, each ratio is of the least times, and each line has the ratio that is the target.
"""
import subprocess, sys, time
from pathlib import Path

import torch
import torch.nn.functional as F
from groundup.conv import conv2d
from groundup.einsum import einsum
from groundup.module import MLP
from groundup.timing import best_times, format_time
from groundup.training import SGD, fit, load_digits
from torch.utils.data import DataLoader, TensorDataset

top = Path(__file__).resolve().parent.parent


def einsum_beside_torch():
    "`einsum` beside `torch.einsum`, float32."
    generator = torch.Generator().manual_seed(0)
    for equation, shapes, target in [("ik,kj->ij", [(5, 784), (784, 10)], 0.35), ("ik,kj->ij", [(512, 512), (512, 512)], 1.0),
                                    ("ij,jk,k->i", [(512, 512), (512, 512), (512,)], 0.05),
                                    ("bik,bkj->bij", [(32, 64, 64), (32, 64, 64)], 1.1)]:
        x = [torch.randn(shape, generator=generator) for shape in shapes]
        times = best_times({"ours": lambda: einsum(equation, *x), "theirs": lambda: torch.einsum(equation, *x)}, rounds=5, threads=torch.get_num_threads())
        yield f"{equation} {' '.join('x'.join(map(str, shape)) for shape in shapes)}", times["ours"], times["theirs"], target


def conv_beside_torch():
    "`conv2d` beside `F.conv2d`, float32, padding k // 2."
    generator = torch.Generator().manual_seed(0)
    for shape, c_out, k, target in [((64, 8, 14, 14), 16, 3, 1.8), ((64, 16, 28, 28), 32, 3, 1.8), ((16, 64, 32, 32), 64, 3, 1.8), ((64, 1, 28, 28), 8, 5, 1.8)]:
        x, w = torch.randn(shape, generator=generator), torch.randn(c_out, shape[1], k, k, generator=generator)
        times = best_times({"ours": lambda: conv2d(x, w, padding=k // 2), "theirs": lambda: F.conv2d(x, w, padding=k // 2)}, rounds=5, threads=torch.get_num_threads())
        yield f"conv2d {'x'.join(map(str, shape))} to {c_out}, k {k}", times["ours"], times["theirs"], target


def training_beside_torch():
    "An epoch of the digits, batches of 64: `fit` and `SGD`, beside `torch.optim.SGD` and a `DataLoader` with `F.cross_entropy`."
    x, targ, _, _ = load_digits()
    ours, theirs = MLP(64, 64, 10), MLP(64, 64, 10)
    opt, torch_opt = SGD(ours.parameters(), lr=0.1, momentum=0.9), torch.optim.SGD(theirs.parameters(), lr=0.1, momentum=0.9)
    loader = DataLoader(TensorDataset(x, targ), batch_size=64, shuffle=True)

    def epoch():
        for images, labels in loader:
            torch_opt.zero_grad()
            F.cross_entropy(theirs(images), labels).backward()
            torch_opt.step()

    times = best_times({"ours": lambda: fit(ours, opt, x, targ, epochs=1, progress=False), "theirs": epoch}, seconds=1, rounds=5, threads=torch.get_num_threads())
    yield "an epoch of digits, MLP(64, 64, 10)", times["ours"], times["theirs"], 1


def tape_beside_peers():
    "The tape beside HIPS autograd and micrograd: one forward and backward of the net (200,100)-50-1, float64."
    import autograd, autograd.numpy as anp, numpy as np # here, because only this group needs them
    from groundup.tape import Tensor
    from micrograd.engine import Value
    rng = np.random.default_rng(0)
    x, targ, *weights = [rng.normal(size=shape) / scale for shape, scale in [((200, 100), 1), ((200,), 1), ((100, 50), 7), ((50,), 1), ((50, 1), 7), ((1,), 1)]]
    params = [Tensor(weight, requires_grad=True) for weight in weights]

    def ours():
        w1, b1, w2, b2 = params
        ((((x @ w1 + b1).relu() @ w2 + b2).reshape(-1) - targ) ** 2).mean().backward()
        for p in params: p.zero_grad()

    def hips_loss(params):
        w1, b1, w2, b2 = params
        return anp.mean((anp.reshape(anp.maximum(x @ w1 + b1, 0) @ w2 + b2, -1) - targ) ** 2)

    def micrograd(rows):
        w1, b1, w2, b2 = ([Value(number) for number in weight.ravel()] for weight in weights)
        for row, goal in zip(x[:rows], targ): # each with a loss of its own: the sum of 200 would be too deep for its recursion
            hidden = [sum((w1[50 * k + j] * row[k] for k in range(100)), b1[j]).relu() for j in range(50)]
            ((sum((w * h for w, h in zip(w2, hidden)), b2[0]) - goal) ** 2).backward()

    hips = autograd.value_and_grad(hips_loss)
    times = best_times({"ours": ours, "hips": lambda: hips(weights)}, rounds=5)
    yield "tape: net, beside HIPS autograd", times["ours"], times["hips"], 1.0
    rows = 20
    start = time.perf_counter()
    micrograd(rows)
    yield f"tape: net, beside micrograd ({rows} rows, x {200 // rows})", times["ours"], (time.perf_counter() - start) * 200 / rows, 0.001


def checks():
    "What `shaped` adds to a call; the target is 2 µs."
    from torch import Tensor
    from groundup.shapes import shaped
    def bare(x, w, b): pass
    @shaped("n n_in, n_in n_out, n_out -> n n_out")
    def layer(x:Tensor, w:Tensor, b:Tensor): pass
    @shaped("*n, *n | *n 1, *n", floats=True)
    def loss(out:Tensor, targ:Tensor): pass
    x, w, b, targ = torch.ones(200, 100), torch.ones(100, 50), torch.ones(50), torch.ones(200, 100)
    times = best_times({"bare": lambda: bare(x, w, b), "lin": lambda: layer(x, w, b), "mse": lambda: loss(x, targ)}, rounds=5)
    for name in ("lin", "mse"): yield f"a check of shapes, {name}", times[name] - times["bare"], 2e-6, 1


def imports():
    "`import groundup.<module>` in a fresh Python that has torch (and for plots matplotlib) already; the target is 10 ms."
    for path in sorted((top/"groundup").glob("[a-z]*.py")):
        code = ("import time, torch; start = time.perf_counter(); "
                f"import groundup.{path.stem}; print(time.perf_counter() - start)")
        if path.stem == "plots": code = "import matplotlib.pyplot; " + code # its own work, not matplotlib's
        runs = [float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout) for _ in range(3)]
        yield f"import groundup.{path.stem}", min(runs), 0.010, 1


def lessons():
    "`nbdev_test` on the lessons and the index, 2 workers; the target is 60 s."
    nbdev_test, start = str(Path(sys.executable).with_name("nbdev_test")), time.perf_counter()
    subprocess.run([nbdev_test, "--n_workers", "2"], check=True, cwd=top, capture_output=True)
    subprocess.run([nbdev_test, "--path", "index.ipynb"], check=True, cwd=top, capture_output=True)
    yield "nbdev_test, all lessons and the index", time.perf_counter() - start, 60, 1


GROUPS = {"einsum": einsum_beside_torch, "conv": conv_beside_torch, "training": training_beside_torch, "tape": tape_beside_peers, "checks": checks, "imports": imports, "lessons": lessons}

if __name__ == "__main__":
    chosen = sys.argv[1:] or list(GROUPS)
    if unknown := set(chosen) - set(GROUPS): sys.exit(f"no group {sorted(unknown)}; there are {', '.join(GROUPS)}")
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    print(f"{'work':44} {'ours':>9} {'beside':>9} {'ratio':>8} {'target':>6}")
    for name in chosen:
        for work, ours, beside, target in GROUPS[name]():
            print(f"{work:44} {format_time(ours):>9} {format_time(beside):>9} {ours / beside:8.3g} {target:6} "
                  f"{'' if ours / beside <= target else 'MISSED'}")
