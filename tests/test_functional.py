"The forward pass against torch.nn.functional, over generated sizes and dtypes, and its errors."
import math

import pytest, torch
import torch.nn.functional as F
from hypothesis import given, strategies as st
from torch.testing import assert_close

from groundup.functional import lin, mse, relu
from shapes import FLOATS, SIZES, shapes, tensors, tolerance

HALVES = [torch.bfloat16, torch.float16]


@given(data=st.data(), n=SIZES, n_in=SIZES, n_out=SIZES, dtype=st.sampled_from(FLOATS))
def test_lin_equals_torch(data, n, n_in, n_out, dtype):
    x, w, b = (data.draw(tensors(shape, dtype)) for shape in [(n, n_in), (n_in, n_out), (n_out,)])
    assert_close(lin(x, w, b), F.linear(x, w.t(), b), **tolerance(dtype))


@given(data=st.data(), shape=shapes(), dtype=st.sampled_from([*FLOATS, *HALVES, torch.int64]))
def test_relu_equals_torch(data, shape, dtype):
    x = data.draw(tensors(shape, dtype))
    before = x.clone()
    assert_close(relu(x), F.relu(x), atol=0, rtol=0)
    assert torch.equal(x, before) # and leaves its input alone


def test_relu_of_what_is_no_ordinary_number():
    odd = relu(torch.tensor([math.inf, -math.inf, math.nan]))
    assert odd[0] == math.inf and odd[1] == 0 and odd[2].isnan()


@given(data=st.data(), n=SIZES, n_out=SIZES, dtype=st.sampled_from(FLOATS))
def test_mse_equals_torch(data, n, n_out, dtype):
    out, targ = data.draw(tensors((n, n_out), dtype)), data.draw(tensors((n, n_out), dtype))
    assert_close(mse(out, targ), F.mse_loss(out, targ), equal_nan=True, **tolerance(dtype))
    column, row = data.draw(tensors((n, 1), dtype)), data.draw(tensors((n,), dtype))
    for pair in [(column, row), (column, row[:, None]), (column[:, 0], row)]:
        assert_close(mse(*pair), F.mse_loss(column[:, 0], row), equal_nan=True, **tolerance(dtype))


@given(shapes(), shapes())
def test_mse_takes_no_shapes_that_only_broadcast(out_shape, targ_shape):
    out, targ = torch.zeros(out_shape), torch.zeros(targ_shape)
    if out_shape == targ_shape or out_shape == (*targ_shape, 1):
        assert mse(out, targ).shape == ()
        return
    with pytest.raises(ValueError) as raised: mse(out, targ)
    try: expected = f"would broadcast to {tuple(torch.broadcast_shapes(out_shape, targ_shape))}"
    except RuntimeError: expected = "do not fit"
    for word in [f"out is {out_shape}", f"targ is {targ_shape}", expected]: assert word in str(raised.value)
    assert ("reshape" in str(raised.value)) == (out.squeeze().shape == targ.squeeze().shape)


def test_the_loss_of_the_trap_is_the_right_one():
    targ = torch.randn(200, generator=torch.Generator().manual_seed(0))
    out = targ[:, None] + 0.1
    assert_close(mse(out, targ), torch.tensor(0.01))
    assert (out - targ).pow(2).mean() > 20 * mse(out, targ)
    assert mse(torch.tensor([1.0, math.nan]), torch.zeros(2)).isnan() # a broken number stays broken


x, w, b = torch.ones(200, 100), torch.ones(100, 50), torch.ones(50)


@pytest.mark.parametrize("arguments, error, words", [
    ((x, w.t(), b), ValueError, ["(200, 100)", "(50, 100)", "(50,)", "w.t() is (100, 50), which fits"]),
    ((x, w[:99], b), ValueError, ["(99, 50)", "one row for each of the 100 columns of x"]),
    ((x, w, b[:1]), ValueError, ["b is (1,)", "each of the 50 columns of w"]),
    ((x, w, b[None]), ValueError, ["(1, 50)", "(n, n_in), (n_in, n_out) and (n_out,)"]),
    ((x[0], w, b), ValueError, ["(100,)", "x[None]"]),
    ((x[None], w, b), ValueError, ["(1, 200, 100)", "a layer needs"]),
    ((x, w[:, 0], b), ValueError, ["w is (100,)", "a layer needs"]),
    ((x, w[..., None], b), ValueError, ["w is (100, 50, 1)", "a layer needs"]),
    ((x, w, b[0]), ValueError, ["b is ()", "a layer needs"]),
    ((x, w.double(), b), TypeError, ["x is torch.float32", "w is torch.float64", "w.to(x)"]),
    ((x, w, b.to("meta")), TypeError, ["cpu", "b is torch.float32 on meta"]),
    ((x, w, [1.0]), TypeError, ["b is list", "torch.tensor(b)"]),
])
def test_lin_bad_input(arguments, error, words):
    with pytest.raises(error) as raised: lin(*arguments)
    for word in words: assert word in str(raised.value)
    for cure in ["x[None]", "which fits"]: assert (cure in str(raised.value)) == any(cure in word for word in words)


@pytest.mark.parametrize("out, targ, words", [
    (torch.ones(3, dtype=torch.complex64), torch.ones(3, dtype=torch.complex64), ["torch.complex64"]),
    (torch.ones(3), torch.ones(3, dtype=torch.int64), ["targ is torch.int64", "targ.to(out)"]),
    (torch.ones(3, dtype=torch.int64), torch.ones(3, dtype=torch.int64), ["torch.int64", "out.float()"]),
    (torch.ones(3), torch.ones(3).double(), ["torch.float64"]),
    (torch.ones(3), 3.0, ["targ is float"]),
])
def test_mse_types(out, targ, words):
    with pytest.raises(TypeError) as raised: mse(out, targ)
    for word in words: assert word in str(raised.value)


@pytest.mark.parametrize("dtype", HALVES)
def test_half_precision_stays_half(dtype):
    out = lin(relu(lin(x.to(dtype), w.to(dtype), b.to(dtype))), w[:50, :1].to(dtype), b[:1].to(dtype))
    assert out.dtype == mse(out, torch.zeros(200, dtype=dtype)).dtype == dtype


def test_gradients_and_vmap():
    a, v, c, t = (torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in [(4, 3), (3, 2), (2,), (4, 2)])
    assert torch.autograd.gradcheck(lambda a, v, c, t: mse(relu(lin(a, v, c)), t), (a, v, c, t))
    batch = torch.randn(5, 4, 3, dtype=torch.float64)
    assert_close(torch.func.vmap(lambda one: lin(one, v, c))(batch), batch @ v + c)
