"Gradients by hand, on tensors and on arrays, against autograd and finite differences, over generated sizes and dtypes, and their errors."
import numpy as np, pytest, torch
import torch.nn.functional as F
from hypothesis import assume, given, settings, strategies as st
from torch.testing import assert_close

from groundup.backprop import forward_and_backward, lin_grad, mse_grad, numerical_grad, relu_grad
from groundup.functional import lin, mse, relu
from libraries import TORCH, each_library
from shapes import FLOATS, SIZES, awkward, shapes, tensors

PARAMETERS = ("x", "w1", "b1", "w2", "b2")
HALVES = [torch.bfloat16, torch.float16]


@st.composite
def nets(draw, dtype=torch.float64, least=1):
    "The arguments of `forward_and_backward`: batch sizes from `least`, small widths, biases that are not 0."
    n, n_in, nh, n_out = draw(st.integers(least, 5)), *(draw(st.integers(1, 4)) for _ in range(3))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    def normal(*shape): return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)
    flat = n_out == 1 and draw(st.booleans())
    return {"x": normal(n, n_in), "targ": normal(n) if flat else normal(n, n_out), "w1": normal(n_in, nh), "b1": normal(nh),
            "w2": normal(nh, n_out), "b2": normal(n_out)}


def loss_of(net):
    return mse(lin(F.relu(lin(net["x"], net["w1"], net["b1"])), net["w2"], net["b2"]), net["targ"])


def by_autograd(net):
    leaves = {name: t.clone().requires_grad_(name in PARAMETERS) for name, t in net.items()}
    loss_of(leaves).backward()
    return {name: leaves[name].grad for name in PARAMETERS}


def by_hand(lib, net):
    "The loss and the gradients of `forward_and_backward`, as tensors."
    given = {name: lib.give(t) for name, t in net.items()}
    loss = lib.take(lib.forward_and_backward(**given))
    return loss, {name: lib.take(given[name].g) for name in PARAMETERS}


@each_library
@given(net=nets())
@settings(max_examples=200)
def test_equals_autograd_in_float64(lib, net):
    loss, gradients = by_hand(lib, net)
    assert_close(loss, loss_of(net), atol=1e-12, rtol=1e-12)
    for name, expected in by_autograd(net).items():
        assert gradients[name].shape == net[name].shape and gradients[name].dtype == torch.float64
        assert (gradients[name] - expected).norm() <= 1e-12 * max(1, expected.norm())


@each_library
@given(net=nets(dtype=torch.float32))
def test_equals_autograd_in_float32(lib, net):
    assume((lin(net["x"].double(), net["w1"].double(), net["b1"].double()).abs() > 1e-5).all()) # rounding must not cross the kink
    gradients = by_hand(lib, net)[1]
    largest = max(1, *(gradient.abs().max().item() for gradient in by_autograd(net).values()))
    for name, expected in by_autograd(net).items(): assert_close(gradients[name], expected, atol=1e-5 * largest, rtol=0)


@each_library
def test_the_course_net_over_200_seeds(lib):
    for seed in range(200):
        g = torch.Generator().manual_seed(seed)
        net = {name: scale * torch.randn(shape, generator=g) for name, shape, scale in [("x", (200, 100), 1), ("targ", (200,), 1), ("w1", (100, 50), 0.14),
               ("b1", (50,), 0.1), ("w2", (50, 1), 0.14), ("b2", (1,), 0.1)]}
        gradients = by_hand(lib, net)[1]
        for name, expected in by_autograd(net).items(): assert_close(gradients[name], expected, atol=1e-5, rtol=0)


@pytest.mark.filterwarnings("ignore:Mean of empty slice", "ignore:invalid value encountered") # of a batch without rows, in NumPy
@each_library
@given(net=nets(least=0))
def test_a_second_call_does_not_depend_on_the_first(lib, net):
    before, given = {name: t.clone() for name, t in net.items()}, {name: lib.give(t) for name, t in net.items()}
    lib.forward_and_backward(**given)
    first = {name: lib.take(given[name].g).clone() for name in PARAMETERS}
    lib.forward_and_backward(**given)
    for name in PARAMETERS:
        assert torch.equal(lib.take(given[name].g), first[name]) and torch.equal(net[name], before[name])
    assert not hasattr(given["targ"], "g")


@pytest.mark.filterwarnings("ignore:Mean of empty slice", "ignore:invalid value encountered")
@each_library
def test_no_examples_give_no_gradient(lib):
    net = {"x": torch.zeros(0, 3), "targ": torch.zeros(0), "w1": torch.ones(3, 2), "b1": torch.ones(2), "w2": torch.ones(2, 1), "b2": torch.ones(1)}
    loss, gradients = by_hand(lib, net)
    assert loss.isnan()
    assert gradients["x"].shape == (0, 3) and all((gradients[name] == 0).all() for name in ("w1", "b1", "w2", "b2"))


@each_library
@given(data=st.data(), n=SIZES, n_in=SIZES, n_out=SIZES, dtype=st.sampled_from(FLOATS))
def test_lin_grad(lib, data, n, n_in, n_out, dtype):
    x, w, b, g = (data.draw(tensors(shape, dtype)).detach() for shape in [(n, n_in), (n_in, n_out), (n_out,), (n, n_out)])
    given = [lib.give(t) for t in (x, w, b)]
    out = lib.lin(*given)
    out.g = lib.give(g)
    lib.lin_grad(given[0], out, *given[1:])
    leaves = [t.clone().requires_grad_() for t in (x, w, b)]
    for t, expected in zip(given, torch.autograd.grad(lin(*leaves), leaves, g)): assert_close(lib.take(t.g), expected, atol=1e-5 if dtype == torch.float32 else 1e-12, rtol=0)


@each_library
@given(data=st.data(), shape=shapes(), dtype=st.sampled_from([*FLOATS, *HALVES]))
def test_relu_grad_is_that_of_torch_even_at_0(lib, data, shape, dtype):
    assume(lib.has(dtype))
    x, g = data.draw(tensors(shape, dtype)), data.draw(tensors(shape, dtype))
    inp = lib.give(x)
    out = lib.relu(inp)
    out.g = lib.give(g.clone())
    for _ in range(2): lib.relu_grad(inp, out) # the second time writes over
    assert torch.equal(lib.take(out.g), g)
    leaf = x.clone().requires_grad_()
    expected, = torch.autograd.grad(F.relu(leaf), leaf, g)
    assert lib.take(inp.g).dtype == dtype
    assert_close(lib.take(inp.g), expected, atol=0, rtol=0)


@each_library
@given(data=st.data(), n=st.integers(1, 4), n_out=st.integers(1, 4), dtype=st.sampled_from([*FLOATS, *HALVES]))
def test_mse_grad_divides_by_elements(lib, data, n, n_out, dtype):
    assume(lib.has(dtype))
    out, targ = data.draw(tensors((n, n_out), dtype)), data.draw(tensors((n, n_out), dtype))
    given = lib.give(out)
    lib.mse_grad(given, lib.give(targ))
    leaf = out.clone().requires_grad_()
    expected, = torch.autograd.grad(F.mse_loss(leaf, targ), leaf)
    assert lib.take(given.g).dtype == dtype
    assert_close(lib.take(given.g), expected, **({"atol": 1e-6, "rtol": 0} if dtype in FLOATS else {}))


@each_library
def test_relu_grad_looks_at_the_input(lib):
    inp, out = lib.give(torch.tensor([-1.0, 1.0])), lib.give(with_g(torch.tensor([1.0, 0.0])))
    lib.relu_grad(inp, out)
    assert inp.g.tolist() == [0, 1]


@each_library
def test_mse_grad_of_a_column_and_a_vector(lib):
    out, targ = lib.give(torch.tensor([[1.0], [2.0]])), lib.give(torch.tensor([0.0, 4.0]))
    for _ in range(2): # the second time writes over, and adds nothing
        lib.mse_grad(out, targ)
        assert out.g.tolist() == [[1.0], [-2.0]]


def test_hand_made_gradients_can_be_differentiated():
    "`.g` is made of ordinary operations, so autograd can go through it: a second derivative."
    x, w, b = (torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in [(3, 2), (2, 2), (2,)])
    def gradient(x, w, b):
        out = lin(x, w, b)
        mse_grad(out, torch.zeros(3, 2, dtype=torch.float64))
        lin_grad(x, out, w, b)
        return x.g, w.g, b.g
    assert torch.autograd.gradcheck(gradient, (x, w, b))


x, out, w, b = torch.ones(3, 4), torch.ones(3, 2), torch.ones(4, 2), torch.ones(2)


def with_g(t, g=None):
    t = t.clone()
    t.g = torch.ones_like(t) if g is None else g
    return t


@each_library
@pytest.mark.parametrize("name, arguments, error, words", [
    ("lin_grad", (x, out.clone(), w, b), AttributeError, ["out, of shape (3, 2), has no gradient .g yet", "work backwards from the loss"]),
    ("relu_grad", (x, x.clone()), AttributeError, ["out, of shape (3, 4), has no gradient"]),
    ("lin_grad", (x, with_g(out, torch.ones(2)), w, b), ValueError, ["out is (3, 2)", "out.g is (2,)"]),
    ("lin_grad", (x, with_g(out), w.t(), b), ValueError, ["(3, 4)", "(2, 4)", "w.t() is (4, 2), which fits"]),
    ("lin_grad", (x, with_g(out), w, b[:1]), ValueError, ["b is (1,)", "n_out is 2 in out but 1 in b"]),
    ("lin_grad", (x, with_g(out[:1]), w, b), ValueError, ["out is (1, 2)", "n is 3 in inp but 1 in out"]),
    ("lin_grad", (x, with_g(out, torch.ones(2, 3)), w, b), ValueError, ["out is (3, 2)", "out.g is (2, 3)"]),
    ("lin_grad", (x, with_g(out[:, :1]), w, b), ValueError, ["out is (3, 1)", "n_out is 1 in out but 2 in w"]),
    ("relu_grad", (x, with_g(out)), ValueError, ["inp is (3, 4)", "out is (3, 2)"]),
    ("mse_grad", (torch.ones(3), torch.ones(3, 1)), ValueError, ["(3,)", "(3, 1)", "would broadcast to (3, 3)"]),
    ("mse_grad", (torch.arange(3), torch.arange(3)), TypeError, ["out is torch.int64, but floats are needed", "out.float()"]),
    ("relu_grad", (torch.arange(3), with_g(torch.arange(3))), TypeError, ["inp is torch.int64, but floats are needed"]),
    ("lin_grad", (x.long(), with_g(out.long()), w.long(), b.long()), TypeError, ["floats are needed"]),
    ("lin_grad", (x, with_g(out), w.double(), b), TypeError, ["torch.float64", "w.to(inp.dtype)"]),
    ("lin_grad", (x, [1.0], w, b), TypeError, ["out is list, not a tensor"]),
    ("forward_and_backward", (x, torch.ones(3, 1), w, b, torch.ones(3, 1), b[:1]), ValueError, ["nh is 2 in w1 but 3 in w2"]),
    ("forward_and_backward", (x.long(), torch.arange(3), w.long(), b.long(), w[:2, :1].long(), b[:1].long()), TypeError, ["float"]),
])
def test_bad_input(lib, name, arguments, error, words):
    arguments = list(map(lib.give, arguments))
    with pytest.raises(error) as raised: getattr(lib, name)(*arguments)
    for word in lib.says(words): assert word in str(raised.value)


@each_library
@given(net=nets())
@settings(max_examples=30)
def test_numerical_grad_of_a_net(lib, net):
    l1 = lin(net["x"], net["w1"], net["b1"])
    assume((l1.abs() > 1e-2).all()) # differences would step across a kink
    largest = max(1, *(gradient.abs().max().item() for gradient in by_autograd(net).values()))
    for name, expected in by_autograd(net).items():
        numerical = lib.numerical_grad(lambda t: lib.give(loss_of(net | {name: lib.take(t)})), lib.give(net[name]))
        assert_close(lib.take(numerical), expected, atol=1e-7 * largest, rtol=0)


@each_library
@given(data=st.data(), shape=shapes())
def test_numerical_grad_of_any_shape_leaves_x_alone(lib, data, shape):
    x = data.draw(tensors(shape))
    before = x.clone()
    def f(t): return (t.sin() * t).sum() if lib is TORCH else (np.sin(t) * t).sum()
    gradient = lib.take(lib.numerical_grad(f, lib.give(x)))
    assert torch.equal(x, before) and gradient.shape == x.shape
    assert_close(gradient, x.cos() * x + x.sin(), atol=1e-8, rtol=0)


@pytest.mark.parametrize("call, error, word", [
    (lambda: numerical_grad(torch.sum, torch.ones(2)), TypeError, "x is torch.float32"),
    (lambda: numerical_grad(sum, [1.0]), TypeError, "x is list"),
    (lambda: numerical_grad(lambda t: t, torch.ones(2).double()), ValueError, r"f\(x\) is \(2,\)"),
    (lambda: numerical_grad(torch.sum, torch.ones(2).double(), step=0), ValueError, "step is 0"),
    (lambda: numerical_grad(torch.sum, torch.ones(2).double(), step=-1e-5), ValueError, "step is -1e-05"),
    (lambda: numerical_grad(torch.sum, torch.ones(2).double(), step=float("nan")), ValueError, "step is nan"),
])
def test_numerical_grad_bad_input(call, error, word):
    with pytest.raises(error, match=word): call()


def test_numerical_grad_moves_a_copy_by_the_step():
    x = torch.tensor([3.0, 5.0], dtype=torch.float64)
    assert_close(numerical_grad(lambda t: (t * x).sum(), x), x, atol=1e-8, rtol=0) # an f that knows x sees it unmoved
    zero = torch.zeros((), dtype=torch.float64)
    for step, arguments in [(0.1, dict(step=0.1)), (6e-6, {})]: # the curvature error of t**3 at 0 is the step's square
        assert_close(numerical_grad(lambda t: t**3, zero, **arguments).item(), step**2, rtol=1e-9, atol=0)
    assert numerical_grad(lambda t: t, zero + 0.1) == 1 # exactly: divided by the distance really moved
    assert numerical_grad(lambda t: float(not torch.is_grad_enabled()) * t, zero + 0.1) == 1 # without autograd


def test_numerical_grad_takes_plain_numbers_and_large_ones():
    assert_close(numerical_grad(lambda t: 3 * t.tolist()[0], torch.ones(1).double()), torch.full((1,), 3.0).double())
    large = torch.tensor([1e8, -1e8]).double()
    assert_close(numerical_grad(lambda t: t.pow(2).sum(), large), 2 * large, rtol=1e-8, atol=0)
    tiny = torch.tensor([1e-10]).double()
    assert_close(numerical_grad(lambda t: t.exp().sum(), tiny), tiny.exp(), rtol=1e-8, atol=0)
    assert_close(numerical_grad(lambda t: t.sum()[None], tiny), tiny.exp()) # one number, of whatever rank
    x = torch.ones(2, dtype=torch.float64, requires_grad=True)
    assert not numerical_grad(lambda t: float(t.numpy().sum()), x).requires_grad


def test_no_graph_stays_on_parameters():
    net = {"x": torch.ones(3, 2), "targ": torch.ones(3), "w1": torch.ones(2, 2, requires_grad=True), "b1": torch.ones(2),
           "w2": torch.ones(2, 1, requires_grad=True), "b2": torch.ones(1)}
    assert not forward_and_backward(**net).requires_grad
    assert not any(net[name].g.requires_grad for name in PARAMETERS)


@each_library
@pytest.mark.parametrize("g, error, words", [(None, AttributeError, "has no gradient"), ([1.0], TypeError, "out.g is list"),
                                             (torch.ones(3, 2).double(), TypeError, "out.g is torch.float64")])
def test_bad_gradients(lib, g, error, words):
    given = out.clone()
    given.g = g
    inp, given, v, c, same = map(lib.give, (x, given, w, b, out))
    words, = lib.says([words])
    for call in (lambda: lib.lin_grad(inp, given, v, c), lambda: lib.relu_grad(same, given)):
        with pytest.raises(error, match=words): call()


@pytest.mark.parametrize("f, error, words", [(lambda t: t.float().sum(), TypeError, r"f\(x\) is torch.float32"), (lambda t: t, ValueError, r"f\(x\) is \(2,\)")])
def test_numerical_grad_of_functions_that_do_not_fit(f, error, words):
    with pytest.raises(error, match=words): numerical_grad(f, torch.ones(2).double())


def test_numerical_grad_of_a_function_that_works_in_place():
    x = torch.ones(2).double()
    assert_close(numerical_grad(lambda t: t.mul_(2).sum(), x), torch.full((2,), 2.0).double(), atol=1e-8, rtol=0)
    for step in (1e-17, float("inf")):
        with pytest.raises(ValueError, match="step is"): numerical_grad(torch.sum, x, step=step)


@each_library
@given(x=awkward(6), g=awkward(6))
def test_relu_grad_is_that_of_torch_whatever_comes_back(lib, x, g):
    inp, out = lib.give(x), lib.give(F.relu(x))
    out.g = lib.give(g)
    lib.relu_grad(inp, out)
    leaf = x.clone().requires_grad_()
    assert_close(lib.take(inp.g), torch.autograd.grad(F.relu(leaf), leaf, g)[0], atol=0, rtol=0, equal_nan=True)


@each_library
def test_one_tensor_in_two_places_is_refused(lib):
    x, targ, w, b = map(lib.give, (torch.ones(4, 3), torch.ones(4, 3), torch.ones(3, 3), torch.ones(3)))
    with pytest.raises(ValueError, match=r"w1 and w2 are the same object, of shape \(3, 3\)"): lib.forward_and_backward(x, targ, w, b, w, lib.give(torch.ones(3)))
    with pytest.raises(ValueError, match="b1 and b2 are the same object"): lib.forward_and_backward(x, targ, w, b, lib.give(torch.ones(3, 3)), b)
    assert not any(hasattr(t, "g") for t in (x, w, b))
