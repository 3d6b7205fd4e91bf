"Our Functions: first and second derivatives over shapes, torch.func, what is saved, and their errors."
import pytest, torch
import torch.nn.functional as F
from hypothesis import given, settings, strategies as st
from torch.autograd import gradcheck, gradgradcheck
from torch.testing import assert_close

from groundup.autograd import MyLinear, MyMse, MyRelu, my_linear, my_mse, my_relu
from groundup.backprop import forward_and_backward
from shapes import FLOATS, awkward, shapes, tensors

SIZES = st.integers(1, 3)


def leaf(data, *shape): return data.draw(tensors(shape)).detach().clone().requires_grad_()


@given(data=st.data(), n=st.integers(0, 3), n_in=SIZES, n_out=SIZES)
@settings(max_examples=25)
def test_linear(data, n, n_in, n_out):
    inputs = leaf(data, n, n_in), leaf(data, n_in, n_out), leaf(data, n_out)
    assert gradcheck(my_linear, inputs, check_forward_ad=True) and gradgradcheck(my_linear, inputs)


@given(data=st.data(), shape=shapes(2))
@settings(max_examples=25)
def test_relu_away_from_0(data, shape):
    x = leaf(data, *shape).detach()
    x = torch.where(x >= 0, x + 0.1, x - 0.1).requires_grad_()
    assert gradcheck(my_relu, x, check_forward_ad=True) and gradgradcheck(my_relu, x)


@given(data=st.data(), shape=shapes(), dtype=st.sampled_from([*FLOATS, torch.float16, torch.bfloat16]))
def test_relu_and_its_gradient_equal_torch_even_at_0(data, shape, dtype):
    x = data.draw(tensors(shape, dtype)).detach()
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    g = torch.ones(shape, dtype=dtype)
    assert torch.equal(my_relu(ours), F.relu(theirs))
    one, other = torch.autograd.grad(my_relu(ours), ours, g)[0], torch.autograd.grad(F.relu(theirs), theirs, g)[0]
    assert one.dtype == dtype and torch.equal(one, other)


@given(data=st.data(), n=SIZES, n_out=SIZES, flat=st.booleans())
@settings(max_examples=25)
def test_mse(data, n, n_out, flat):
    out, targ = leaf(data, n, 1 if flat else n_out), leaf(data, n) if flat else leaf(data, n, n_out)
    assert gradcheck(my_mse, (out, targ), check_forward_ad=True) and gradgradcheck(my_mse, (out, targ))
    assert_close(my_mse(out, targ), F.mse_loss(out, targ.reshape(out.shape)))


def net(seed=0, dtype=torch.float64):
    g = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=g, dtype=dtype) for shape in [(6, 4), (6,), (4, 3), (3,), (3, 1), (1,)]]


def loss_of(x, targ, w1, b1, w2, b2): return my_mse(my_linear(my_relu(my_linear(x, w1, b1)), w2, b2), targ)


def test_a_net_equals_the_one_by_hand():
    tensors = net()
    forward_and_backward(*tensors)
    gradients = torch.func.grad(loss_of, argnums=(0, 2, 3, 4, 5))(*(t.clone() for t in tensors))
    for t, gradient in zip([tensors[0], *tensors[2:]], gradients): assert_close(t.g, gradient, atol=1e-13, rtol=0)


def test_vmap_of_grad_equals_a_loop_over_the_examples():
    x, targ, *params = net()
    one = lambda x, targ, *params: loss_of(x[None], targ[None], *params)
    each = torch.func.vmap(torch.func.grad(one, argnums=(2, 3, 4, 5)), in_dims=(0, 0, None, None, None, None))(x, targ, *params)
    for i in range(len(x)):
        alone = torch.autograd.grad(one(x[i], targ[i], *(leaves := [p.clone().requires_grad_() for p in params])), leaves)
        for batch, gradient in zip(each, alone): assert_close(batch[i], gradient, atol=1e-12, rtol=0)
    batch = torch.randn(5, 6, 4, dtype=torch.float64)
    assert_close(torch.func.vmap(lambda x: my_relu(my_linear(x, *params[:2])))(batch), F.relu(batch @ params[0] + params[1]))


def test_jacrev():
    x, targ, w1, b1, *_ = net()
    ours = torch.func.jacrev(lambda w: my_relu(my_linear(x, w, b1)))(w1)
    assert_close(ours, torch.func.jacrev(lambda w: F.relu(x @ w + b1))(w1), atol=1e-12, rtol=0)


def saved(function, *inputs):
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.data_ptr()) or t, lambda t: t): out = function(*inputs)
    return kept, out


def test_what_is_saved():
    x, w, b = (torch.randn(shape, requires_grad=True) for shape in [(4, 3), (3, 2), (2,)])
    kept, out = saved(my_relu, x)
    assert kept == [out.data_ptr()] # the output, which the next layer saves, too
    kept, out = saved(my_linear, x, w, b)
    assert kept == [x.data_ptr(), w.data_ptr()]


def test_the_network_keeps_no_more_memory_than_torch():
    x, targ, *weights = [t.requires_grad_(i > 1) for i, t in enumerate(net())]
    def theirs(x, targ, w1, b1, w2, b2): return F.mse_loss((F.relu(x @ w1 + b1) @ w2 + b2)[:, 0], targ)
    new = []
    for function in (loss_of, theirs):
        kept, out = saved(function, x, targ, *weights)
        new.append(len(set(kept) - {t.data_ptr() for t in (x, targ, *weights)}))
    assert new == [2, 2] # besides inputs and weights: the output of ReLU and that of the network


def test_changes_in_place_raise():
    x = torch.ones(2, 2, requires_grad=True)
    w = torch.ones(2, 1, requires_grad=True)
    out = my_linear(x, w, torch.zeros(1))
    with torch.no_grad(): w.add_(1)
    with pytest.raises(RuntimeError, match="inplace"): out.sum().backward()
    out = my_relu(x)
    out.sum().backward()
    with pytest.raises(RuntimeError, match="second time"): out.sum().backward()


def test_gradients_that_nobody_needs_are_not_computed():
    x, w, b = torch.ones(4, 3), torch.ones(3, 2, requires_grad=True), torch.ones(2)
    class Context: saved_tensors, needs_input_grad = (x, w), (False, True, False)
    gx, gw, gb = MyLinear.backward(Context, torch.ones(4, 2))
    assert gx is None and gb is None and gw.shape == (3, 2)
    Context.needs_input_grad = (True, False, True)
    gx, gw, gb = MyLinear.backward(Context, torch.ones(4, 2))
    assert gx.shape == (4, 3) and gw is None and gb.shape == (2,)


@pytest.mark.parametrize("act, error, words", [
    *((lambda function=function: function(), TypeError, [f"{function.__name__} is applied, not called", f"{function.__name__}.apply"]) for function in (MyRelu, MyLinear, MyMse)),
    (lambda: my_linear(torch.ones(4, 3), torch.ones(2, 3), torch.ones(2)), ValueError, ["(4, 3)", "(2, 3)", "w.t() is (3, 2), which fits"]),
    (lambda: my_linear(torch.ones(4, 3), torch.ones(3, 2).double(), torch.ones(2)), TypeError, ["torch.float64"]),
    (lambda: my_mse(torch.ones(3), torch.ones(3, 1)), ValueError, ["would broadcast to (3, 3)"]),
    (lambda: MyMse.apply(torch.ones(3), torch.ones(3, 1)), ValueError, ["targ.squeeze(-1) is (3,), which fits"]),
    (lambda: my_mse(torch.arange(3), torch.arange(3)), TypeError, ["torch.int64"]),
    (lambda: my_relu([1.0]), TypeError, ["x is list"]),
    (lambda: MyRelu.apply([1.0]), TypeError, ["x is list, not a tensor"]),
])
def test_bad_input(act, error, words):
    with pytest.raises(error) as raised: act()
    for word in words: assert word in str(raised.value)


@given(x=awkward(6), g=awkward(6))
def test_relu_equals_torch_in_both_modes_for_any_input_and_gradient(x, g):
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    for one, other in zip(torch.autograd.grad(my_relu(ours), ours, g), torch.autograd.grad(F.relu(theirs), theirs, g)):
        assert_close(one, other, atol=0, rtol=0, equal_nan=True)
    for one, other in zip(torch.func.jvp(my_relu, (x,), (g,)), torch.func.jvp(F.relu, (x,), (g,))): assert_close(one, other, atol=0, rtol=0, equal_nan=True)


def test_forward_mode_equals_torch():
    x, targ, *weights = net()
    def theirs(x, targ, w1, b1, w2, b2): return F.mse_loss((F.relu(x @ w1 + b1) @ w2 + b2)[:, 0], targ)
    inputs, directions = (x, targ, *weights), tuple(torch.randn_like(t) for t in (x, targ, *weights))
    for one, other in zip(torch.func.jvp(loss_of, inputs, directions), torch.func.jvp(theirs, inputs, directions)): assert_close(one, other, atol=1e-12, rtol=1e-12)
    for n in range(6):
        for transform in (torch.func.jacfwd, torch.func.hessian):
            assert_close(transform(loss_of, n)(*inputs), transform(theirs, n)(*inputs), atol=1e-10, rtol=1e-10)
    with torch.autograd.forward_ad.dual_level(): # a change of one input; those of the others are not defined
        dual = loss_of(torch.autograd.forward_ad.make_dual(x, directions[0]), targ, *weights)
        change = torch.autograd.forward_ad.unpack_dual(dual).tangent
    assert_close(change, torch.func.jvp(lambda x: theirs(x, targ, *weights), (x,), directions[:1])[1], atol=1e-12, rtol=1e-12)


def test_compiled_in_one_graph():
    given = [t.requires_grad_() for t in net()]
    compiled = torch.compile(loss_of, fullgraph=True, backend="aot_eager")
    for one, other in zip(torch.autograd.grad(compiled(*given), given), torch.autograd.grad(loss_of(*given), given)): assert_close(one, other, atol=1e-12, rtol=0)


def test_mixed_floats_under_autocast():
    x, targ, w1, b1, *_ = net(dtype=torch.float32)
    w1.requires_grad_(), b1.requires_grad_()
    with torch.autocast("cpu"):
        half = torch.nn.functional.linear(x, torch.eye(4))
        assert half.dtype == torch.bfloat16
        loss = my_mse(my_linear(half, w1, b1), x[:, :3])
    loss.backward()
    assert (w1.grad.dtype, b1.grad.dtype) == (torch.float32, torch.float32)
    leaf = w1.detach().clone().requires_grad_()
    F.mse_loss(half.float() @ leaf + b1, x[:, :3]).backward()
    assert_close(w1.grad, leaf.grad, atol=0.1, rtol=0.02) # bfloat16 has three digits
    with pytest.raises(TypeError, match="x is torch.bfloat16 but w is torch.float32"): my_linear(half, w1, b1)
