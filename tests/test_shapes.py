"The checks of groundup.shapes: every message is true, what passes fits, and nothing that is compiled, batched or cast is in their way."
import subprocess, sys
from collections.abc import Sequence

import numpy as np, pytest, torch
from hypothesis import given, settings, strategies as st
from torch import Tensor

import groundup.shapes
from groundup.shapes import alike, check, check_between, check_gradient, check_integers, check_numbers, holds, number, pair, shaped, sizes
from shapes import shapes as any_shape

NAMES = ["n", "k", "*m", "...", "2"]
terms = st.lists(st.sampled_from(NAMES), max_size=3).filter(lambda term: sum(name in ("*m", "...") for name in term) < 2)


def fits(term, shape, known):
    "Every way in which `shape` can be read as `term`, by brute force: what is known then, or None."
    if not term: return known if not shape else None
    name, rest = term[0], term[1:]
    for many in range(len(shape) + 1) if name in ("*m", "...") else [1]:
        if many > len(shape): continue
        here = shape[:many] if name in ("*m", "...") else shape[0]
        if name == "2" and here != 2 or name != "..." and known.get(name, here) != here: continue
        found = fits(rest, shape[many:], known if name in ("...", "2") else {**known, name: here})
        if found is not None: return found
    return None


@given(terms, terms, any_shape(), any_shape())
@settings(max_examples=500)
def test_it_passes_what_fits_and_nothing_else(one, other, a, b):
    known = fits(one, a, {})
    expected = known is not None and fits(other, b, known) is not None
    spec = f"{' '.join(one)}, {' '.join(other)}"
    for make in (torch.zeros, np.zeros):
        for _ in range(2): # the second time from memory
            if expected: check(spec, a=make(a), b=make(b))
            else:
                with pytest.raises(ValueError) as raised: check(spec, a=make(a), b=make(b))
                assert f"a is {a} and b is {b}" in str(raised.value)


@given(any_shape(), any_shape(), any_shape(1))
@settings(max_examples=500)
def test_a_remedy_that_is_offered_works(x, w, b):
    operands = dict(x=torch.zeros(x), w=torch.zeros(w), b=torch.zeros(b))
    try: check("n n_in, n_in n_out, n_out", **operands)
    except ValueError as error:
        if "which fits" not in str(error): return
        change = str(error).split("; ")[-1].split(" is (")[0]
        operands[change[0]] = eval(change, dict(operands))
        check("n n_in, n_in n_out, n_out", **operands)


@shaped("n n_in, n_in n_out, n_out -> n n_out")
def lin(x:Tensor, w:Tensor, b:Tensor) -> Tensor: return x @ w + b


@shaped("n c, n, c", floats=True, classes="targ")
def loss(out:Tensor, targ:Tensor, weight:Tensor|None=None, *, scale:float=1.0): return out, targ, weight, scale


x, w, b = torch.ones(5, 3), torch.ones(3, 4), torch.ones(4)
out, targ = torch.ones(4, 3), torch.zeros(4).long()


def test_arguments_by_position_and_by_name():
    for result in [lin(x, w, b), lin(x, w, b=b), lin(x, b=b, w=w), lin(w=w, x=x, b=b)]: assert torch.equal(result, x @ w + b)
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'b'"): lin(x, w)
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'w'"): lin(x, b=b)
    with pytest.raises(TypeError, match="multiple values for argument 'x'"): lin(x, w, b, x=x)
    with pytest.raises(TypeError, match="unexpected keyword argument 'c'"): lin(x, w, b, c=1)
    with pytest.raises(ValueError, match="n_in is 3 in x but 4 in w"): lin(x, b=b, w=w.t())
    assert loss(out, targ)[2:] == (None, 1.0) and loss(out, targ, None, scale=2)[2:] == (None, 2)
    assert loss(out, targ, weight=torch.ones(3))[2].shape == (3,)
    with pytest.raises(ValueError, match=r"weight \(c,\).*c is 3 in out but 2 in weight"): loss(out, targ, torch.ones(2))
    with pytest.raises(TypeError, match="out is NoneType, not a tensor"): loss(None, targ)
    assert lin.__name__ == "lin" and lin.__wrapped__(x, w, b).shape == (5, 4)


@pytest.mark.parametrize("call, error, message", [
    (lambda: loss(out, targ.float()), TypeError, "targ is torch.float32, but classes are int64; convert it with targ.long()"),
    (lambda: loss(out.long(), targ), TypeError, "out is torch.int64, but floats are needed; convert it with out.float()"),
    (lambda: loss(out, torch.zeros(4, 3).long()), ValueError, "targ.argmax(-1) is (4,), which fits"),
    (lambda: loss(out, targ[:, None]), ValueError, "targ.squeeze(-1) is (4,), which fits"),
    (lambda: loss(out, targ.to("meta")), TypeError, "out is on cpu but targ is on meta; move it with targ.to(out.device)"),
    (lambda: loss(out, targ, torch.ones(3).double()), TypeError, "out is torch.float32 but weight is torch.float64; convert it with weight.to(out.dtype)"),
    (lambda: lin(x.numpy(), w, b), TypeError, "x is ndarray, not a tensor; torch.tensor(x) makes one"),
    (lambda: lin(x, w.tolist(), b), TypeError, "w is list, not a tensor; torch.tensor(w) makes one"),
    (lambda: lin(x.int(), w, b), TypeError, "x is torch.int32 but w is torch.float32"),
    (lambda: check("*n, *n", out=torch.ones(3), targ=torch.ones(3, 1)), ValueError, "which would broadcast to (3, 3); targ.squeeze(-1) is (3,), which fits"),
    (lambda: check("... 3", x=torch.ones(2, 4)), ValueError, "expected x (..., 3), but x is (2, 4): x has 4 where 3 is needed"),
    (lambda: check("n c h w, c", images=torch.ones(2, 5, 5, 3), mean=torch.ones(3)), ValueError, "images.permute(0, 3, 1, 2) is (2, 3, 5, 5), which fits"),
    (lambda: check("n", x=[1.0]), TypeError, "x is list, not a tensor"),
    (lambda: check("n", double=True, x=np.ones(2, "f")), TypeError, "x is float32, but float64 is needed; convert it with x.astype(float)"),
    (lambda: check("n, n", x=np.ones(2), y=np.ones(2, "f")), TypeError, "x is float64 but y is float32; convert it with y.astype(x.dtype)"),
    (lambda: check("n, n", x=np.ones(2), y=torch.ones(2)), TypeError, "y is Tensor, not an array; y.detach().numpy() makes one"),
    (lambda: check("n k", x=np.ones(2)), ValueError, "x[None] is (1, 2), which fits"),
    (lambda: check("n", sets="x", x=np.ones(2)), AttributeError, "x is a plain array, of shape (2,), and takes no attribute .g"),
    (lambda: alike("Tensor", x, [1.0]), TypeError, "operands[1] is list, not a tensor"),
    (lambda: alike("Tensor", x, w.double()), TypeError, "operands[0] is torch.float32 but operands[1] is torch.float64"),
    (lambda: check_gradient("out", torch.ones(2)), AttributeError, "out, of shape (2,), has no gradient .g yet"),
    (lambda: check_integers(1, n=1.5), ValueError, "n is 1.5; it must be an integer from 1"),
    (lambda: check_between(0, 1, step=float("nan")), ValueError, "step is nan; it must be between 0 and 1"),
    (lambda: check_numbers(0, 1, momentum=1), ValueError, "momentum is 1; it must be a number from 0, less than 1"),
    (lambda: check_numbers(0, lr=float("nan")), ValueError, "lr is nan; it must be a number from 0"),
    (lambda: check_numbers(0, lr="0.1"), ValueError, "lr is '0.1'; it must be a number from 0"),
    (lambda: pair(0, padding=(1, -1)), ValueError, "padding is (1, -1); it must be an integer from 0, or two, for rows and columns"),
    (lambda: number("f(x)", torch.ones(2).double()), ValueError, "f(x) is (2,); it must be one number"),
    (lambda: number("f(x)", np.float32(1)), TypeError, "f(x) is float32; it must be float64"),
    (lambda: sizes(a_shape=torch.ones(2)), TypeError, "a_shape is Tensor of shape (2,); pass its .shape"),
    (lambda: sizes(a_shape=(2, True)), TypeError, "a_shape is (2, True); a shape is a tuple of integers"),
    (lambda: sizes(a_shape=[2, -1]), ValueError, "a_shape is (2, -1); sizes cannot be negative"),
])
def test_messages(call, error, message):
    with pytest.raises(error) as raised: call()
    assert type(raised.value) is error and message in str(raised.value)


def test_arrays_whose_arithmetic_is_another_are_refused():
    for array, fix in [(np.matrix([[1.0]]), "np.asarray(x)"), (np.ma.ones(2), "x.filled(0)")]:
        with pytest.raises(TypeError) as raised: check("*n, *n", y=np.ones(1), x=array)
        assert fix in str(raised.value)


@given(st.lists(st.just(0) | st.lists(st.just(0), max_size=3), max_size=3))
@settings(max_examples=300)
def test_nested_lists_have_the_shape_that_numpy_sees(x):
    @shaped("n k")
    def take(x:Sequence[Sequence[float]]): return True
    try: array = np.array(x, dtype=float)
    except ValueError: array = None # rows of several lengths
    if array is not None and array.ndim == 2: assert take(x)
    elif x: # an empty list may have rows of any length
        with pytest.raises((TypeError, ValueError)): take(x)


def test_compiled_batched_and_cast():
    compiled = torch.compile(lin, fullgraph=True, backend="eager", dynamic=True)
    for n in (5, 7): assert torch.equal(compiled(torch.ones(n, 3), w, b), torch.ones(n, 3) @ w + b)
    assert torch.equal(torch.compile(lambda x: lin(x, b=b, w=w), fullgraph=True, backend="eager")(x), x @ w + b)
    with pytest.raises(Exception, match="lin takes other shapes"): compiled(x, w.t(), b)
    inner = torch.compile(lambda x: check("n 3", x=x) or x + 1, fullgraph=True, backend="eager")
    assert torch.equal(inner(x), x + 1)
    assert torch.vmap(lin, (0, None, None))(torch.ones(2, 5, 3), w, b).shape == (2, 5, 4)
    assert torch.func.jacrev(lin, 2)(x, w, b).shape == (5, 4, 4)


def test_autocast_lets_mixed_floats_meet_and_only_there():
    half = x.bfloat16().requires_grad_()
    with torch.autocast("cpu"):
        result = lin(half, w, b)
        result.sum().backward()
        check("*n, *n", a=half, b=x)
    assert torch.allclose(half.grad.float(), w.sum(1).expand(5, 3)) and half.grad.dtype == torch.bfloat16
    with torch.autocast("cpu"):
        _, classes, weight, _ = loss(out.bfloat16(), targ, torch.ones(3))
        assert (classes.dtype, weight.dtype) == (torch.int64, torch.float32) # classes stay classes
    for _ in range(2): # what passed under autocast is not remembered
        with pytest.raises(TypeError, match="x is torch.bfloat16 but w is torch.float32"): lin(half, w, b)
        with pytest.raises(TypeError): check("*n, *n", a=half, b=x)
    with torch.autocast("cpu"), pytest.raises(TypeError, match="torch.int64"): lin(x.long(), w, b)
    with torch.autocast("cpu"), pytest.raises(TypeError, match="x is torch.bfloat16"): lin(*[t.to("meta") for t in (half, w, b)])


def test_values_are_known_but_for_compiling_and_vmap():
    assert holds(torch.tensor(True)) and not holds(torch.tensor(False)) and not holds(np.bool_(False))
    torch.vmap(lambda t: t if holds(t > 0) else 1 / 0)(-torch.ones(3))
    assert torch.compile(lambda t: t + 1 if holds((t > 0).all()) else t, fullgraph=True, backend="eager")(-x).eq(0).all()
    with pytest.raises(RuntimeError): holds(torch.ones(2, device="meta").all())


def test_it_runs_without_torch_and_numpy():
    code = f"""
import importlib.util, sys
from collections.abc import Sequence
sys.modules["torch"] = sys.modules["numpy"] = None # an import of either fails
spec = importlib.util.spec_from_file_location("shapes", {groundup.shapes.__file__!r})
shapes = importlib.util.module_from_spec(spec)
spec.loader.exec_module(shapes)
@shapes.shaped("n, n")
def dot(x:Sequence[float], w:Sequence[float]): return sum(i * j for i, j in zip(x, w))
assert dot([1, 2], [3, 4]) == 11
try: dot([1], [1, 2])
except ValueError as error: assert "n is 1 in x but 2 in w" in str(error)
else: raise SystemExit("nothing was raised")
"""
    subprocess.run([sys.executable, "-c", code], check=True)
