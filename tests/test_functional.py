"The forward pass compared with torch.nn.functional, over generated sizes and dtypes, and its errors."
import math

import pytest, torch
import torch.nn.functional as F
from hypothesis import assume, given, strategies as st
from torch.testing import assert_close

from groundup.functional import lin, mse, relu
from libraries import NUMPY, TORCH, each_library
from shapes import FLOATS, SIZES, awkward, shapes, tensors, tolerance

HALVES = [torch.bfloat16, torch.float16]
quiet = pytest.mark.filterwarnings("ignore:Mean of empty slice", "ignore:invalid value encountered", # NumPy warns of the mean of no
                                   "ignore:overflow encountered") # elements, and of large float16 sums


@each_library
@given(data=st.data(), n=SIZES, n_in=SIZES, n_out=SIZES, dtype=st.sampled_from(FLOATS))
def test_lin_equals_torch(lib, data, n, n_in, n_out, dtype):
    x, w, b = (data.draw(tensors(shape, dtype)) for shape in [(n, n_in), (n_in, n_out), (n_out,)])
    assert_close(lib.take(lib.lin(*map(lib.give, (x, w, b)))), F.linear(x, w.t(), b), **tolerance(dtype))


@each_library
@given(data=st.data(), n=SIZES, n_in=SIZES, hidden=SIZES, n_out=SIZES)
def test_two_linear_layers_are_one(lib, data, n, n_in, hidden, n_out):
    x, w1, b1, w2, b2 = (data.draw(tensors(shape)) for shape in [(n, n_in), (n_in, hidden), (hidden,), (hidden, n_out), (n_out,)])
    two = lib.lin(lib.lin(*map(lib.give, (x, w1, b1))), *map(lib.give, (w2, b2)))
    one = lib.lin(*map(lib.give, (x, w1 @ w2, b1 @ w2 + b2)))
    assert_close(lib.take(two), lib.take(one), atol=1e-12, rtol=0)


@each_library
@given(data=st.data(), shape=shapes(), dtype=st.sampled_from([*FLOATS, *HALVES, torch.int64]))
def test_relu_equals_torch(lib, data, shape, dtype):
    assume(lib.has(dtype))
    x = data.draw(tensors(shape, dtype))
    before = x.clone()
    assert_close(lib.take(lib.relu(lib.give(x))), F.relu(x), atol=0, rtol=0)
    assert torch.equal(x, before) # its input is unchanged


@each_library
def test_relu_of_infinities_and_nan(lib):
    odd = lib.take(lib.relu(lib.give(torch.tensor([math.inf, -math.inf, math.nan]))))
    assert odd[0] == math.inf and odd[1] == 0 and odd[2].isnan()


@quiet
@each_library
@given(data=st.data(), n=SIZES, n_out=SIZES, dtype=st.sampled_from(FLOATS))
def test_mse_equals_torch(lib, data, n, n_out, dtype):
    out, targ = data.draw(tensors((n, n_out), dtype)), data.draw(tensors((n, n_out), dtype))
    assert_close(lib.take(lib.mse(lib.give(out), lib.give(targ))), F.mse_loss(out, targ), equal_nan=True, **tolerance(dtype))
    column, row = data.draw(tensors((n, 1), dtype)), data.draw(tensors((n,), dtype))
    for pair in [(column, row), (column, row[:, None]), (column[:, 0], row)]:
        assert_close(lib.take(lib.mse(*map(lib.give, pair))), F.mse_loss(column[:, 0], row), equal_nan=True, **tolerance(dtype))


@quiet
@each_library
@given(out_shape=shapes(), targ_shape=shapes())
def test_mse_rejects_shapes_that_merely_broadcast(lib, out_shape, targ_shape):
    out, targ = torch.zeros(out_shape), torch.zeros(targ_shape)
    if out_shape == targ_shape or out_shape == (*targ_shape, 1):
        assert lib.mse(lib.give(out), lib.give(targ)).shape == ()
        return
    with pytest.raises(ValueError) as raised: lib.mse(lib.give(out), lib.give(targ))
    message = str(raised.value)
    for word in [f"out is {out_shape}", f"targ is {targ_shape}"]: assert word in message
    try: assert f"would broadcast to {tuple(torch.broadcast_shapes(out_shape, targ_shape))}" in message
    except RuntimeError: assert "would broadcast" not in message
    if targ_shape == (*out_shape, 1): assert "targ.squeeze(-1)" in message or out_shape == targ_shape[::-1]


@each_library
def test_mse_of_a_column_and_a_vector(lib):
    targ = torch.randn(200, generator=torch.Generator().manual_seed(0))
    out = targ[:, None] + 0.1
    loss = lib.take(lib.mse(lib.give(out), lib.give(targ)))
    assert_close(loss, torch.tensor(0.01))
    assert (out - targ).pow(2).mean() > 20 * loss
    assert lib.take(lib.mse(lib.give(torch.tensor([1.0, math.nan])), lib.give(torch.zeros(2)))).isnan() # nan stays nan


x, w, b = torch.ones(200, 100), torch.ones(100, 50), torch.ones(50)


@each_library
@pytest.mark.parametrize("arguments, error, words", [
    ((x, w.t(), b), ValueError, ["(200, 100)", "(50, 100)", "(50,)", "w.t() is (100, 50), which fits"]),
    ((x, w[:99], b), ValueError, ["(99, 50)", "n_in is 100 in x but 99 in w"]),
    ((x, w, b[:1]), ValueError, ["b is (1,)", "n_out is 50 in w but 1 in b"]),
    ((x, w, b[None]), ValueError, ["x (n, n_in), w (n_in, n_out) and b (n_out,)", "b is (1, 50)", "b has rank 2"]),
    ((x[0], w, b), ValueError, ["x has rank 1", "x[None] is (1, 100), which fits"]),
    ((x[None], w, b), ValueError, ["(1, 200, 100)", "x has rank 3"]),
    ((x, w[:, 0], b), ValueError, ["w is (100,)", "w has rank 1"]),
    ((x, w[..., None], b), ValueError, ["w is (100, 50, 1)", "w.squeeze(-1) is (100, 50), which fits"]),
    ((x, w, b[0]), ValueError, ["b is ()", "b has rank 0"]),
    ((x, w.double(), b), TypeError, ["x is torch.float32 but w is torch.float64", "w.to(x.dtype)"]),
    ((x, w, b.to("meta")), TypeError, ["x is on cpu but b is on meta"]),
    ((x, w, [1.0]), TypeError, ["b is list", "torch.tensor(b)"]),
])
def test_lin_bad_input(lib, arguments, error, words):
    arguments, words = list(map(lib.give, arguments)), lib.says(words)
    with pytest.raises(error) as raised: lib.lin(*arguments)
    for word in words: assert word in str(raised.value)
    for fix in ["x[None]", "which fits"]: assert (fix in str(raised.value)) == any(fix in word for word in words)


@each_library
@pytest.mark.parametrize("out, targ, words", [
    (torch.ones(3, dtype=torch.complex64), torch.ones(3, dtype=torch.complex64), ["torch.complex64"]),
    (torch.ones(3), torch.ones(3, dtype=torch.int64), ["targ is torch.int64", "targ.float()"]),
    (torch.ones(3, dtype=torch.int64), torch.ones(3, dtype=torch.int64), ["torch.int64", "out.float()"]),
    (torch.ones(3), torch.ones(3).double(), ["torch.float64"]),
    (torch.ones(3), 3.0, ["targ is float"]),
])
def test_mse_types(lib, out, targ, words):
    out, targ = lib.give(out), lib.give(targ)
    with pytest.raises(TypeError) as raised: lib.mse(out, targ)
    for word in lib.says(words): assert word in str(raised.value)


@quiet
@pytest.mark.parametrize("lib, dtype", [(TORCH, torch.bfloat16), (TORCH, torch.float16), (NUMPY, torch.float16), (NUMPY, torch.float32)])
def test_narrow_floats_stay_narrow(lib, dtype):
    a, v, c, v2, c2, targ = (lib.give(t.to(dtype)) for t in (x, w, b, w[:50, :1], b[:1], torch.zeros(200)))
    out = lib.lin(lib.relu(lib.lin(a, v, c)), v2, c2)
    assert out.dtype == lib.mse(out, targ).dtype == lib.dtype(dtype)


def test_gradients_and_vmap():
    a, v, c, t = (torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in [(4, 3), (3, 2), (2,), (4, 2)])
    assert torch.autograd.gradcheck(lambda a, v, c, t: mse(relu(lin(a, v, c)), t), (a, v, c, t))
    batch = torch.randn(5, 4, 3, dtype=torch.float64)
    assert_close(torch.func.vmap(lambda one: lin(one, v, c))(batch), batch @ v + c)


@given(x=awkward(6), g=awkward(6))
def test_relu_and_its_gradient_equal_torchs_for_any_elements(x, g):
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    assert_close(relu(ours), F.relu(theirs), atol=0, rtol=0, equal_nan=True)
    (our_grad,), (their_grad,) = torch.autograd.grad(relu(ours), ours, g), torch.autograd.grad(F.relu(theirs), theirs, g)
    assert_close(our_grad, their_grad, atol=0, rtol=0, equal_nan=True)


def test_mixed_floats_under_autocast():
    with torch.autocast("cpu"):
        half = torch.nn.Linear(100, 100)(x)
        assert half.dtype == torch.bfloat16
        assert_close(mse(half, torch.zeros(200, 100)), F.mse_loss(half, torch.zeros(200, 100)))
        assert lin(half, w, b).shape == (200, 50)
