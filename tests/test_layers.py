"Layers as objects, on tensors and on arrays, against autograd: each of them, random stacks in which layers and weights are shared, and their errors."
import copy, pickle

import pytest, torch
import torch.nn.functional as F
from hypothesis import assume, given, settings, strategies as st
from torch.testing import assert_close

from groundup.layers import Lin
from libraries import each_library
from shapes import FLOATS, SIZES, awkward, shapes, tensors


def add(lib):
    class Add(lib.LayerFunction):
        def forward(self, a, b): return a + b
        def bwd(self, out, a, b):
            self.add_gradient(a, out.g)
            self.add_gradient(b, out.g)
    return Add()


@each_library
@given(data=st.data(), n=SIZES, n_in=SIZES, n_out=SIZES, dtype=st.sampled_from(FLOATS))
def test_lin(lib, data, n, n_in, n_out, dtype):
    x, w, b, g = (data.draw(tensors(shape, dtype)).clone() for shape in [(n, n_in), (n_in, n_out), (n_out,), (n, n_out)])
    given = [lib.give(t) for t in (x, w, b)]
    layer = lib.Lin(*given[1:])
    layer(given[0]).g = lib.give(g)
    layer.backward()
    leaves = [t.clone().requires_grad_() for t in (x, w, b)]
    for t, expected in zip(given, torch.autograd.grad(F.linear(leaves[0], leaves[1].t(), leaves[2]), leaves, g)):
        assert lib.take(t.g).dtype == dtype
        assert_close(lib.take(t.g), expected, atol=1e-5 if dtype == torch.float32 else 1e-12, rtol=0)


@each_library
@given(data=st.data(), shape=shapes(), dtype=st.sampled_from([*FLOATS, torch.bfloat16]))
def test_relu(lib, data, shape, dtype):
    assume(lib.has(dtype))
    x, g = data.draw(tensors(shape, dtype)).clone(), data.draw(tensors(shape, dtype))
    layer, inp = lib.Relu(), lib.give(x)
    layer(inp).g = lib.give(g)
    layer.backward()
    leaf = x.detach().clone().requires_grad_()
    assert_close(lib.take(inp.g), torch.autograd.grad(F.relu(leaf), leaf, g)[0], atol=0, rtol=0)


@each_library
@given(data=st.data(), n=st.integers(1, 4), n_out=st.integers(1, 4), scale=st.none() | st.floats(-2, 2))
def test_mse(lib, data, n, n_out, scale):
    out, targ = (data.draw(tensors((n, n_out))).clone() for _ in range(2))
    loss_fn, given, given_targ = lib.Mse(), lib.give(out), lib.give(targ)
    loss = loss_fn(given, given_targ)
    if scale is not None: loss.g = lib.give(torch.tensor(scale, dtype=torch.float64))
    loss_fn.backward()
    leaf = out.detach().clone().requires_grad_()
    assert_close(lib.take(given.g), (1 if scale is None else scale) * torch.autograd.grad(F.mse_loss(leaf, targ), leaf)[0], atol=1e-12, rtol=0)
    assert not hasattr(given_targ, "g")


@st.composite
def stacks(draw):
    "Weights, biases, and for each layer of a stack which weight and which bias it uses, and whether ReLU follows; and whether a pair is one object."
    weights, biases, depth = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(1, 5))
    plan = [(draw(st.integers(0, weights - 1)), draw(st.integers(0, biases - 1)), draw(st.booleans())) for _ in range(depth)]
    return weights, biases, plan, draw(st.booleans()), draw(st.integers(0, 2**16))


@each_library
@given(stack=stacks())
@settings(max_examples=150)
def test_stacks_with_sharing_equal_autograd(lib, stack):
    n_weights, n_biases, plan, one_object, seed = stack
    g = torch.Generator().manual_seed(seed)
    def normal(*shape): return torch.randn(*shape, generator=g, dtype=torch.float64)
    x, targ = normal(5, 3), normal(5, 3)
    weights, biases = [normal(3, 3) / 2 for _ in range(n_weights)], [normal(3) for _ in range(n_biases)]
    given_x, given_weights, given_biases = lib.give(x), [lib.give(w) for w in weights], [lib.give(b) for b in biases]
    objects = {(w, b): lib.Lin(given_weights[w], given_biases[b]) for w, b, _ in plan}
    layers = []
    for w, b, has_relu in plan:
        layers.append(objects[w, b] if one_object else lib.Lin(given_weights[w], given_biases[b]))
        if has_relu: layers.append(lib.Relu())
    model, loss_fn = lib.Model(layers), lib.Mse()
    for _ in range(2): # twice: gradients accumulate
        loss_fn(model(given_x), lib.give(targ))
        loss_fn.backward()
        model.backward()

    leaves = [t.clone().requires_grad_() for t in (x, *weights, *biases)]
    h = leaves[0]
    for w, b, has_relu in plan:
        h = h @ leaves[1 + w] + leaves[1 + n_weights + b]
        if has_relu: h = F.relu(h)
    expected = torch.autograd.grad(F.mse_loss(h, targ), leaves, allow_unused=True)
    for t, gradient in zip((given_x, *given_weights, *given_biases), expected):
        if gradient is None: assert not hasattr(t, "g")
        else: assert (lib.take(t.g) - 2 * gradient).norm() <= 1e-12 * max(1, gradient.norm())
    used = {id(given_weights[w]) for w, _, _ in plan} | {id(given_biases[b]) for _, b, _ in plan}
    assert len(model.parameters()) == len(used) and {id(t) for t in model.parameters()} == used
    model.zero_grad()
    assert not any(hasattr(t, "g") for t in model.parameters())


@each_library
def test_a_tensor_on_two_paths(lib):
    x, w, b = (torch.randn(shape, dtype=torch.float64) for shape in [(4, 3), (3, 3), (3,)])
    targ, given = torch.zeros(4, 3, dtype=torch.float64), [lib.give(t) for t in (x, w, b)]
    both, branch, loss_fn = add(lib), lib.Model([lib.Relu(), lib.Lin(*given[1:])]), lib.Mse()
    loss_fn(both(given[0], branch(given[0])), lib.give(targ))
    for step in (loss_fn, both, branch): step.backward()
    leaves = [t.clone().requires_grad_() for t in (x, w, b)]
    expected = torch.autograd.grad(F.mse_loss(leaves[0] + F.relu(leaves[0]) @ leaves[1] + leaves[2], targ), leaves)
    for t, gradient in zip(given, expected): assert_close(lib.take(t.g), gradient, atol=1e-12, rtol=0)
    doubled, once = add(lib), lib.give(torch.ones(2))
    doubled(once, once).g = lib.give(torch.ones(2))
    doubled.backward()
    assert once.g.tolist() == [2.0, 2.0]


def course_net(seed=0):
    g = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=g) / scale for shape, scale in [((200, 100), 1), ((200,), 1), ((100, 50), 7), ((50,), 1), ((50, 1), 7), ((1,), 1)]]


@each_library
def test_equal_to_lesson_6_to_the_last_bit(lib):
    x, targ, *params = map(lib.give, course_net())
    x6, _, *params6 = map(lib.give, course_net())
    expected = lib.forward_and_backward(x6, targ, *params6)
    model, loss_fn = lib.Model([lib.Lin(*params[:2]), lib.Relu(), lib.Lin(*params[2:])]), lib.Mse()
    assert torch.equal(lib.take(loss_fn(model(x), targ)), lib.take(expected))
    loss_fn.backward()
    model.backward()
    for t, other in zip((x, *params), (x6, *params6)): assert torch.equal(lib.take(t.g), lib.take(other.g))


@each_library
def test_nothing_is_recorded_under_no_grad_and_zero_grad_drops_the_records(lib):
    x, targ, *params = map(lib.give, course_net())
    model = lib.Model([lib.Lin(*params[:2]), lib.Relu(), lib.Lin(*params[2:])])
    with torch.no_grad(): assert model(x).shape == (200, 1)
    with pytest.raises(RuntimeError, match="Lin has no call to backpropagate through"): model.backward()
    model(x)
    model.zero_grad()
    assert not any(layer.calls for layer in model.layers)


@each_library
def test_an_error_loses_no_record(lib):
    layer, x = lib.Relu(), lib.give(torch.ones(3))
    out = layer(x)
    with pytest.raises(AttributeError, match=r"the output of Relu, of shape \(3,\), has no gradient .g yet"): layer.backward()
    out.g = lib.give(torch.ones(3))
    layer.backward()
    assert x.g.tolist() == [1.0] * 3
    with pytest.raises(RuntimeError, match="Relu has no call to backpropagate through"): layer.backward()
    layer(x).g = lib.give(torch.ones(1))
    with pytest.raises(ValueError, match=r"n is \(3,\) in the output of Relu but \(1,\) in the output of Relu.g"): layer.backward()
    assert len(layer.calls) == 1 and x.g.tolist() == [1.0] * 3


def wrong(lib, name):
    "A layer with a mistake in it."
    class Empty(lib.LayerFunction): pass
    class NoBwd(lib.LayerFunction):
        def forward(self, x): return x.sum()
    class WrongShape(NoBwd):
        def bwd(self, out, x): self.add_gradient(x, out.g)
    class Whole(lib.LayerFunction):
        def forward(self, x): return x.sum() / 1 # a float
        def bwd(self, out, x): self.add_gradient(x, out.g + 0 * x)
    return locals()[name]()


def call_and_back(layer, x):
    layer(x)
    layer.backward()


@each_library
@pytest.mark.parametrize("act, error, words", [
    (lambda lib: wrong(lib, "Empty")(torch.ones(2)), NotImplementedError, ["Empty needs a forward(self, *args)"]),
    (lambda lib: call_and_back(wrong(lib, "NoBwd"), lib.give(torch.ones(2))), NotImplementedError, ["NoBwd needs a bwd(self, out, *args)"]),
    (lambda lib: call_and_back(wrong(lib, "WrongShape"), lib.give(torch.ones(2))), ValueError, ["tensor is (2,) and gradient is ()"]),
    (lambda lib: call_and_back(wrong(lib, "Whole"), lib.give(torch.arange(2))), TypeError, ["torch.int64, but floats are needed"]),
    (lambda lib: lib.Relu().backward(), RuntimeError, ["Relu has no call to backpropagate through", "call it first"]),
    (lambda lib: lib.Lin(*map(lib.give, (torch.ones(3, 2), torch.ones(2))))(lib.give(torch.ones(4, 5))), ValueError, ["(4, 5)", "(3, 2)"]),
    (lambda lib: lib.Mse()(*map(lib.give, (torch.ones(3), torch.ones(3, 1)))), ValueError, ["would broadcast to (3, 3)"]),
    (lambda lib: lib.Model([lib.Relu(), F.relu]), TypeError, ["layers[1] is <function relu", "LayerFunctions"]),
])
def test_bad_input(lib, act, error, words):
    with pytest.raises(error) as raised: act(lib)
    for word in lib.says(words): assert word in str(raised.value)


def test_copies_and_pickles():
    layer = Lin(torch.ones(2, 1), torch.zeros(1))
    layer(torch.ones(3, 2))
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(other.w, layer.w) and other.w is not layer.w and len(other.calls) == 1 and other.calls is not layer.calls


@each_library
def test_a_forward_that_returns_its_input(lib):
    class Same(lib.LayerFunction):
        def forward(self, x): return x
        def bwd(self, out, x): self.add_gradient(x, out.g)
    same, x = Same(), lib.give(torch.ones(3))
    out = same(x)
    out.g = lib.give(torch.tensor([1.0, 2.0, 3.0]))
    same.backward()
    assert x.g.tolist() == [1.0, 2.0, 3.0] == out.g.tolist()


@each_library
@pytest.mark.parametrize("seed", range(3))
def test_model_zero_grad_reaches_neither_the_input_nor_the_loss(lib, seed):
    x, targ, *params = map(lib.give, course_net(seed))
    model, loss_fn = lib.Model([lib.Lin(*params[:2]), lib.Relu(), lib.Lin(*params[2:])]), lib.Mse()
    norms = []
    for _ in range(20):
        loss_fn(model(x), targ)
        loss_fn.backward()
        model.backward()
        for t in params: t -= 0.02 * t.g
        model.zero_grad()
        norms.append(lib.take(x.g).norm().item())
    assert norms[-1] > 3 * norms[0] and not any(hasattr(t, "g") for t in params)
    loss_fn(model(x), targ)
    model.zero_grad()
    assert [len(layer.calls) for layer in (*model.layers, loss_fn)] == [0, 0, 0, 1]
    loss_fn.zero_grad()
    assert not loss_fn.calls


@each_library
def test_two_inputs_do_not_share_a_gradient(lib):
    a, b, both = lib.give(torch.ones(2)), lib.give(torch.ones(2)), add(lib)
    both(a, b).g = lib.give(torch.ones(2))
    both.backward()
    a.g += 1
    assert b.g.tolist() == [1.0, 1.0]


@each_library
@given(x=awkward(6), g=awkward(6))
def test_relu_equals_torch_for_any_input_and_gradient(lib, x, g):
    layer, inp = lib.Relu(), lib.give(x)
    layer(inp).g = lib.give(g)
    layer.backward()
    leaf = x.clone().requires_grad_()
    expected = torch.autograd.grad(F.relu(leaf), leaf, g)[0]
    assert_close(lib.take(inp.g), expected, atol=0, rtol=0, equal_nan=True)
