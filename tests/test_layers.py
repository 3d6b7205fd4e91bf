"Layers as objects against autograd: each of them, random stacks in which layers and weights are shared, and their errors."
import copy, pickle

import pytest, torch
import torch.nn.functional as F
from hypothesis import given, settings, strategies as st
from torch.testing import assert_close

from groundup.backprop import forward_and_backward
from groundup.layers import LayerFunction, Lin, Model, Mse, Relu
from shapes import FLOATS, SIZES, shapes, tensors


class Add(LayerFunction):
    def forward(self, a, b): return a + b
    def bwd(self, out, a, b):
        self.add_gradient(a, out.g)
        self.add_gradient(b, out.g)


@given(data=st.data(), n=SIZES, n_in=SIZES, n_out=SIZES, dtype=st.sampled_from(FLOATS))
def test_lin(data, n, n_in, n_out, dtype):
    x, w, b, g = (data.draw(tensors(shape, dtype)).clone() for shape in [(n, n_in), (n_in, n_out), (n_out,), (n, n_out)])
    layer = Lin(w, b)
    layer(x).g = g
    layer.backward()
    leaves = [t.clone().requires_grad_() for t in (x, w, b)]
    for t, expected in zip((x, w, b), torch.autograd.grad(F.linear(leaves[0], leaves[1].t(), leaves[2]), leaves, g)):
        assert t.g.dtype == dtype
        assert_close(t.g, expected, atol=1e-5 if dtype == torch.float32 else 1e-12, rtol=0)


@given(data=st.data(), shape=shapes(), dtype=st.sampled_from([*FLOATS, torch.bfloat16]))
def test_relu(data, shape, dtype):
    x, g = data.draw(tensors(shape, dtype)).clone(), data.draw(tensors(shape, dtype))
    layer = Relu()
    layer(x).g = g
    layer.backward()
    leaf = x.detach().clone().requires_grad_()
    assert_close(x.g, torch.autograd.grad(F.relu(leaf), leaf, g)[0], atol=0, rtol=0)


@given(data=st.data(), n=st.integers(1, 4), n_out=st.integers(1, 4), scale=st.none() | st.floats(-2, 2))
def test_mse(data, n, n_out, scale):
    out, targ = (data.draw(tensors((n, n_out))).clone() for _ in range(2))
    miss = Mse()
    loss = miss(out, targ)
    if scale is not None: loss.g = torch.tensor(scale, dtype=torch.float64)
    miss.backward()
    leaf = out.detach().clone().requires_grad_()
    assert_close(out.g, (1 if scale is None else scale) * torch.autograd.grad(F.mse_loss(leaf, targ), leaf)[0], atol=1e-12, rtol=0)
    assert not hasattr(targ, "g")


@st.composite
def stacks(draw):
    "Weights, biases, and for each layer of a stack which weight and which bias it uses, and whether ReLU follows; and whether a pair is one object."
    weights, biases, depth = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(1, 5))
    plan = [(draw(st.integers(0, weights - 1)), draw(st.integers(0, biases - 1)), draw(st.booleans())) for _ in range(depth)]
    return weights, biases, plan, draw(st.booleans()), draw(st.integers(0, 2**16))


@given(stacks())
@settings(max_examples=150)
def test_stacks_with_sharing_equal_autograd(stack):
    n_weights, n_biases, plan, one_object, seed = stack
    g = torch.Generator().manual_seed(seed)
    def normal(*shape): return torch.randn(*shape, generator=g, dtype=torch.float64)
    x, targ = normal(5, 3), normal(5, 3)
    weights, biases = [normal(3, 3) / 2 for _ in range(n_weights)], [normal(3) for _ in range(n_biases)]
    objects = {(w, b): Lin(weights[w], biases[b]) for w, b, _ in plan}
    layers = []
    for w, b, bend in plan:
        layers.append(objects[w, b] if one_object else Lin(weights[w], biases[b]))
        if bend: layers.append(Relu())
    model, miss = Model(layers), Mse()
    for _ in range(2): # twice: gradients add up
        miss(model(x), targ)
        miss.backward()
        model.backward()

    leaves = [t.clone().requires_grad_() for t in (x, *weights, *biases)]
    h = leaves[0]
    for w, b, bend in plan:
        h = h @ leaves[1 + w] + leaves[1 + n_weights + b]
        if bend: h = F.relu(h)
    expected = torch.autograd.grad(F.mse_loss(h, targ), leaves, allow_unused=True)
    for t, gradient in zip((x, *weights, *biases), expected):
        if gradient is None: assert not hasattr(t, "g")
        else: assert (t.g - 2 * gradient).norm() <= 1e-12 * max(1, gradient.norm())
    used = {id(weights[w]) for w, _, _ in plan} | {id(biases[b]) for _, b, _ in plan}
    assert len(model.parameters()) == len(used) and {id(t) for t in model.parameters()} == used
    model.zero_grad()
    assert not any(hasattr(t, "g") for t in model.parameters())


def test_a_tensor_on_two_ways():
    x, w, b = (torch.randn(shape, dtype=torch.float64) for shape in [(4, 3), (3, 3), (3,)])
    add, branch, miss, targ = Add(), Model([Relu(), Lin(w, b)]), Mse(), torch.zeros(4, 3, dtype=torch.float64)
    miss(add(x, branch(x)), targ)
    for step in (miss, add, branch): step.backward()
    leaves = [t.clone().requires_grad_() for t in (x, w, b)]
    expected = torch.autograd.grad(F.mse_loss(leaves[0] + F.relu(leaves[0]) @ leaves[1] + leaves[2], targ), leaves)
    for t, gradient in zip((x, w, b), expected): assert_close(t.g, gradient, atol=1e-12, rtol=0)
    doubled, once = Add(), torch.ones(2)
    doubled(once, once).g = torch.ones(2)
    doubled.backward()
    assert once.g.tolist() == [2.0, 2.0]


def course_net(seed=0):
    g = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=g) / scale for shape, scale in [((200, 100), 1), ((200,), 1), ((100, 50), 7), ((50,), 1), ((50, 1), 7), ((1,), 1)]]


def test_equal_to_lesson_6_to_the_last_bit():
    x, targ, *params = course_net()
    x6, _, *params6 = course_net()
    expected = forward_and_backward(x6, targ, *params6)
    model, miss = Model([Lin(*params[:2]), Relu(), Lin(*params[2:])]), Mse()
    assert torch.equal(miss(model(x), targ), expected)
    miss.backward()
    model.backward()
    for t, other in zip((x, *params), (x6, *params6)): assert torch.equal(t.g, other.g)


def test_nothing_is_remembered_under_no_grad_and_zero_grad_forgets():
    x, targ, *params = course_net()
    model = Model([Lin(*params[:2]), Relu(), Lin(*params[2:])])
    with torch.no_grad(): assert model(x).shape == (200, 1)
    with pytest.raises(RuntimeError, match="Lin has no call to go back through"): model.backward()
    model(x)
    model.zero_grad()
    assert not any(layer._calls for layer in model.layers)


def test_an_error_loses_nothing():
    layer, x = Relu(), torch.ones(3)
    out = layer(x)
    with pytest.raises(AttributeError, match=r"of shape \(3,\), has none: first call backward"): layer.backward()
    out.g = torch.ones(3)
    layer.backward()
    assert x.g.tolist() == [1.0] * 3
    with pytest.raises(RuntimeError, match="Relu has no call to go back through"): layer.backward()


class Empty(LayerFunction): pass
class NoBwd(LayerFunction):
    def forward(self, x): return x.sum()
class WrongShape(LayerFunction):
    def forward(self, x): return x.sum()
    def bwd(self, out, x): self.add_gradient(x, out.g)
class Whole(LayerFunction):
    def forward(self, x): return x.sum().float()
    def bwd(self, out, x): self.add_gradient(x, out.g.expand_as(x))


def call_and_back(layer, x):
    layer(x)
    layer.backward()


@pytest.mark.parametrize("act, error, words", [
    (lambda: Empty()(torch.ones(2)), NotImplementedError, ["Empty needs a forward(self, *args)"]),
    (lambda: call_and_back(NoBwd(), torch.ones(2)), NotImplementedError, ["NoBwd needs a bwd(self, out, *args)"]),
    (lambda: call_and_back(WrongShape(), torch.ones(2)), ValueError, ["a gradient of ()", "a tensor of (2,)"]),
    (lambda: call_and_back(Whole(), torch.arange(2)), TypeError, ["torch.int64", "gradients need floats"]),
    (lambda: Relu().backward(), RuntimeError, ["Relu has no call to go back through", "call it first"]),
    (lambda: Lin(torch.ones(3, 2), torch.ones(2))(torch.ones(4, 5)), ValueError, ["(4, 5)", "(3, 2)"]),
    (lambda: Mse()(torch.ones(3), torch.ones(3, 1)), ValueError, ["would broadcast to (3, 3)"]),
    (lambda: Model([Relu(), F.relu]), TypeError, ["layers[1] is <function relu", "LayerFunctions"]),
])
def test_bad_input(act, error, words):
    with pytest.raises(error) as raised: act()
    for word in words: assert word in str(raised.value)


def test_copies_and_pickles():
    layer = Lin(torch.ones(2, 1), torch.zeros(1))
    layer(torch.ones(3, 2))
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(other.w, layer.w) and other.w is not layer.w and len(other._calls) == 1 and other._calls is not layer._calls
