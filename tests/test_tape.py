"The tape against autograd: every operation over shapes, axes and dtypes, random graphs, and what a tape must not do."
import copy, gc, itertools, pickle, subprocess, sys, threading, weakref

import numpy as np, pytest, torch
from hypothesis import given, settings, strategies as st
from numpy.testing import assert_allclose, assert_array_equal

import groundup.tape as tape
from groundup.backprop import forward_and_backward
from groundup.tape import Tensor, backward, no_grad
from shapes import SIZES, shapes

NUMPY_FLOATS = st.sampled_from([np.float32, np.float64])


def array(seed, shape, dtype=np.float64, away=0.0):
    "An array of small thirds, many of them equal, some 0 and some negative; half of the time not contiguous; `away` from 0 at least."
    rng = np.random.default_rng(seed)
    x = (rng.integers(-5, 6, shape[::-1] if seed % 2 else shape) / 3).astype(dtype)
    x = np.where(x < 0, x - away, x + away).astype(dtype)
    return x.T if seed % 2 else x


def positive(x): return np.asarray(np.abs(x)) # of rank 0, abs gives a number


def close(ours, theirs, dtype):
    "Asserts equality up to rounding, of shape and dtype too."
    theirs = theirs.detach().numpy()
    assert ours.shape == theirs.shape and ours.dtype == theirs.dtype == dtype
    tolerance = {np.float32: 1e-4, np.float64: 1e-12}[dtype]
    assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance * max(1, np.abs(theirs[np.isfinite(theirs)]).max(initial=0)))


def check(ours, theirs, *arrays, seed=0):
    "Asserts that `ours` of Tensors and `theirs` of PyTorch's agree in value and gradients, for every choice of who requires one."
    dtype = arrays[0].dtype.type
    for wanted in itertools.product([True, False], repeat=len(arrays)):
        if not any(wanted): continue
        one = [Tensor(a.copy(), requires_grad=w) for a, w in zip(arrays, wanted)]
        other = [torch.from_numpy(a.copy()).requires_grad_(w) for a, w in zip(arrays, wanted)]
        out, expected = ours(*one), theirs(*other)
        close(out.data, expected, dtype)
        assert out.requires_grad and out.op and type(out.data) is np.ndarray
        g = array(seed, out.shape, dtype)
        out.backward(g)
        expected.backward(torch.from_numpy(g.copy()))
        for t, judge, a in zip(one, other, arrays):
            assert_array_equal(t.data, a)
            if not t.requires_grad: assert t.grad is None
            else: close(t.grad, torch.zeros_like(judge) if judge.grad is None else judge.grad, dtype)


@st.composite
def fitting(draw, max_rank=3):
    "Two shapes that broadcast."
    full = draw(shapes(max_rank))
    stretched = lambda: tuple(draw(st.sampled_from([size, 1])) for size in full[draw(st.integers(0, len(full))):])
    return draw(st.permutations([full, stretched()])) if draw(st.booleans()) else [stretched(), stretched()]


SEEDS = st.integers(0, 2**16)
ARITHMETIC = {"add": lambda a, b: a + b, "sub": lambda a, b: a - b, "mul": lambda a, b: a * b, "div": lambda a, b: a / b}


@given(name=st.sampled_from(list(ARITHMETIC)), pair=fitting(), seed=SEEDS, dtype=NUMPY_FLOATS)
@settings(max_examples=200)
def test_arithmetic(name, pair, seed, dtype):
    a, b = array(seed, pair[0], dtype), array(seed + 1, pair[1], dtype, away=0.5)
    check(ARITHMETIC[name], ARITHMETIC[name], a, b, seed=seed)
    check(getattr(tape, name), ARITHMETIC[name], a, b, seed=seed)


@given(name=st.sampled_from(list(ARITHMETIC)), shape=shapes(), seed=SEEDS, dtype=NUMPY_FLOATS, number=st.sampled_from([2, -1.5, 3.0]))
def test_numbers_and_arrays_on_either_side(name, shape, seed, dtype, number):
    f, a = ARITHMETIC[name], array(seed, shape, dtype, away=0.5)
    check(lambda t: f(t, number), lambda t: f(t, number), a, seed=seed)
    check(lambda t: f(number, t), lambda t: f(number, t), a, seed=seed)
    other = array(seed + 2, shape, dtype, away=0.5)
    check(lambda t: f(t, other), lambda t: f(t, torch.from_numpy(other.copy())), a, seed=seed)
    check(lambda t: f(other, t), lambda t: f(torch.from_numpy(other.copy()), t), a, seed=seed)
    check(lambda t: -t, lambda t: -t, a, seed=seed)


FUNCTIONS = {"exp": 0, "log": None, "relu": 0, "tanh": 0}


@given(name=st.sampled_from(list(FUNCTIONS)), shape=shapes(), seed=SEEDS, dtype=NUMPY_FLOATS)
@settings(max_examples=150)
def test_functions(name, shape, seed, dtype):
    a = array(seed, shape, dtype, away=0.25)
    if name == "log": a = positive(a)
    if name == "relu": a = array(seed, shape, dtype) # 0 among them
    check(lambda t: getattr(t, name)(), lambda t: getattr(t, name)(), a, seed=seed)
    check(getattr(tape, name), getattr(torch, name), a, seed=seed)


def test_relu_at_0_and_for_nan():
    x, judge = Tensor([-1.0, -0.0, 0.0, 2.0, np.nan, np.inf], requires_grad=True), torch.tensor([-1.0, -0.0, 0.0, 2.0, np.nan, np.inf], dtype=torch.float64, requires_grad=True)
    g = np.array([np.inf, np.nan, 1.0, 1.0, 1.0, 1.0])
    x.relu().backward(g)
    judge.relu().backward(torch.from_numpy(g))
    assert_array_equal(x.grad, judge.grad.numpy())
    assert x.grad.tolist() == [0, 0, 0, 1, 1, 1]
    assert_array_equal(x.relu().data, judge.relu().detach().numpy())


@given(pair=fitting(), seed=SEEDS, dtype=NUMPY_FLOATS)
@settings(max_examples=150)
def test_power_of_two_tensors(pair, seed, dtype):
    base = positive(array(seed, pair[0], dtype)) # 0 among them, and among the exponents
    exponent = np.asarray(positive(array(seed + 3, pair[1], dtype)).round())
    check(lambda a, b: a**b, lambda a, b: a**b, base, exponent, seed=seed)
    check(tape.power, torch.pow, np.asarray(base + dtype(0.5)), array(seed + 3, pair[1], dtype), seed=seed)


@given(shape=shapes(), seed=SEEDS, dtype=NUMPY_FLOATS, number=st.sampled_from([0, 1, 2, 3, 0.0, 2.0, -1, -2.0, 0.5, 1.5]))
@settings(max_examples=150)
def test_power_with_a_number(shape, seed, dtype, number):
    a = array(seed, shape, dtype, away=0.5)
    if number != int(number): a = positive(a)
    check(lambda t: t**number, lambda t: t**number, a, seed=seed)
    if number >= 1 and number == int(number): check(lambda t: t**number, lambda t: t**number, array(seed, shape, dtype), seed=seed) # 0 among them
    check(lambda t: 2**t, lambda t: 2**t, a, seed=seed)
    check(lambda t: 0.0**t, lambda t: 0.0**t, positive(a), seed=seed)
    exponent = np.full(shape, number, dtype)
    check(lambda t: t**exponent, lambda t: t**torch.from_numpy(exponent.copy()), a, seed=seed)


def test_power_at_its_corners_is_that_of_torch():
    base, exponent = np.array([0.0, 0.0, 0.0, 2.0, -2.0, 0.0]), np.array([0.0, 1.0, 2.0, 0.0, 3.0, -1.0])
    ours, theirs = [Tensor(base, requires_grad=True), Tensor(exponent, requires_grad=True)], [torch.tensor(x, requires_grad=True) for x in (base, exponent)]
    with np.errstate(divide="ignore"): (ours[0] ** ours[1]).backward(np.ones(6))
    (theirs[0] ** theirs[1]).backward(torch.ones(6))
    for t, judge in zip(ours, theirs): assert_array_equal(t.grad, judge.grad.numpy())


def test_power_0_of_0():
    for number in (0, 0.0): check(lambda t: t**number, lambda t: t**number, np.array([0.0, 2.0, -1.0]))
    x = Tensor([0.0], requires_grad=True)
    with np.errstate(all="raise"): (x**0).backward()
    assert x.grad.tolist() == [0.0]


def test_power_is_silent_where_its_derivative_is_known():
    base, exponent = Tensor([0.0, 2.0], requires_grad=True), Tensor([0.0, 3.0], requires_grad=True)
    with np.errstate(all="raise"): (base**exponent).backward(np.ones(2))
    assert base.grad.tolist() == [0.0, 12.0]


@given(data=st.data(), n=SIZES, k=SIZES, m=SIZES, stacks=fitting(2), seed=SEEDS, dtype=NUMPY_FLOATS)
@settings(max_examples=200)
def test_matmul(data, n, k, m, stacks, seed, dtype):
    left = data.draw(st.sampled_from([(k,), (n, k), (*stacks[0], n, k)]))
    right = data.draw(st.sampled_from([(k,), (k, m), (*stacks[1], k, m)]))
    a, b = array(seed, left, dtype), array(seed + 1, right, dtype)
    check(lambda a, b: a @ b, lambda a, b: a @ b, a, b, seed=seed)
    check(lambda t: a @ t, lambda t: torch.from_numpy(a.copy()) @ t, b, seed=seed)
    check(lambda t: tape.matmul(t, b), lambda t: torch.matmul(t, torch.from_numpy(b.copy())), a, seed=seed)


REDUCTIONS = {"sum": torch.sum, "mean": torch.mean, "max": torch.amax}


@given(data=st.data(), name=st.sampled_from(list(REDUCTIONS)), shape=shapes(4), seed=SEEDS, dtype=NUMPY_FLOATS, keepdims=st.booleans())
@settings(max_examples=300)
def test_reductions(data, name, shape, seed, dtype, keepdims):
    if name == "max" or name == "mean": shape = tuple(max(1, size) for size in shape) # of nothing there is none
    axes = [None]
    if shape: axes += [data.draw(st.integers(-len(shape), len(shape) - 1)),
                       tuple(axis - data.draw(st.sampled_from([0, len(shape)])) for axis in data.draw(st.sets(st.integers(0, len(shape) - 1), min_size=1)))]
    axis = data.draw(st.sampled_from(axes))
    dim = tuple(range(len(shape))) if axis is None else axis
    a = array(seed, shape, dtype)
    theirs = lambda t: REDUCTIONS[name](t, dim=dim, keepdim=keepdims)
    check(lambda t: getattr(t, name)(axis=axis, keepdims=keepdims), theirs, a, seed=seed)
    check(lambda t: getattr(tape, f"{name}_over")(t, axis, keepdims), theirs, a, seed=seed)


def test_maxima_share():
    x = Tensor([[3.0, 3.0, 1.0], [3.0, 0.0, 2.0]], requires_grad=True)
    x.max().backward()
    assert_allclose(x.grad, np.array([[1, 1, 0], [1, 0, 0]]) / 3)
    with pytest.raises(ValueError, match="zero-size"): Tensor(np.ones((0, 2))).max(0)
    assert Tensor(np.ones((2, 0)), requires_grad=True).sum(1).data.tolist() == [0.0, 0.0]


@given(data=st.data(), shape=shapes(4), seed=SEEDS, dtype=NUMPY_FLOATS)
@settings(max_examples=150)
def test_shapes(data, shape, seed, dtype):
    a = array(seed, shape, dtype)
    new = data.draw(st.sampled_from([(a.size,), (1, a.size, 1), shape[::-1], tuple(size for size in shape if size != 1)]))
    check(lambda t: t.reshape(new), lambda t: t.reshape(new), a, seed=seed)
    check(lambda t: tape.reshape(t, *new) if new else t.reshape(()), lambda t: t.reshape(new), a, seed=seed)
    if a.size: check(lambda t: t.reshape(-1), lambda t: t.reshape(-1), a, seed=seed)
    axes = [axis - data.draw(st.sampled_from([0, len(shape)])) for axis in data.draw(st.permutations(range(len(shape))))]
    check(lambda t: t.transpose(tuple(axes)), lambda t: t.permute(*axes) if axes else t.clone(), a, seed=seed)
    if axes: check(lambda t: tape.transpose(t, *axes), lambda t: t.permute(*axes), a, seed=seed)
    check(lambda t: t.T, lambda t: t.permute(*range(len(shape))[::-1]) if shape else t.clone(), a, seed=seed)
    check(lambda t: t.transpose(), lambda t: t.permute(*range(len(shape))[::-1]) if shape else t.clone(), a, seed=seed)


@st.composite
def indices(draw, shape):
    "An index for `shape`, as NumPy and PyTorch both understand it: numbers, slices, None, ..., whole numbers with repetitions, masks."
    parts, left = [], list(shape)
    lists = draw(st.integers(1, 3))
    for size in shape[:draw(st.integers(0, len(shape)))]:
        kinds = ["slice"] + (["number", "list", "array"] if size else [])
        kind = draw(st.sampled_from(kinds))
        if kind == "slice":
            start, stop = draw(st.none() | st.integers(-size, size)), draw(st.none() | st.integers(-size, size))
            parts.append(slice(start, stop, draw(st.sampled_from([None, 1, 2]))))
        elif kind == "number": parts.append(draw(st.integers(-size, size - 1)))
        else:
            where = draw(st.lists(st.integers(-size, size - 1), min_size=lists, max_size=lists))
            parts.append(where if kind == "list" else np.array(where))
    if draw(st.booleans()): parts.insert(draw(st.integers(0, len(parts))), None)
    if draw(st.booleans()): parts.append(...)
    return tuple(parts)


def for_torch(index):
    return tuple(torch.as_tensor(part) if isinstance(part, (np.ndarray, list)) else part for part in index)


def one_block(index):
    "Are all arrays (and the numbers that count as such) beside each other? Where they are not, NumPy and PyTorch may order axes differently."
    kinds = [isinstance(part, (list, np.ndarray)) for part in index]
    advanced = [any(kinds) and (kind or isinstance(part, int)) for kind, part in zip(kinds, index)]
    return sum(1 for new, old in zip(advanced, [False, *advanced]) if new and not old) <= 1


@given(data=st.data(), shape=shapes(3), seed=SEEDS, dtype=NUMPY_FLOATS)
@settings(max_examples=300)
def test_indices(data, shape, seed, dtype):
    index = data.draw(indices(shape).filter(one_block))
    a = array(seed, shape, dtype)
    check(lambda t: t[index], lambda t: t[for_torch(index)], a, seed=seed)
    if len(index) == 1: check(lambda t: tape.take(t, index[0]), lambda t: t[for_torch(index)], a, seed=seed)
    mask = array(seed + 1, shape[:data.draw(st.integers(0, len(shape)))]) > 0
    if mask.ndim: check(lambda t: t[mask], lambda t: t[torch.from_numpy(mask.copy())], a, seed=seed)


def test_indices_that_are_tensors():
    x = Tensor(np.arange(6.0).reshape(3, 2), requires_grad=True)
    x[Tensor([0, 2, 0]), Tensor([1, 1, 1])].sum().backward()
    assert x.grad.tolist() == [[0, 2], [0, 0], [0, 1]]
    assert x[Tensor(x.data > 2)].data.tolist() == [3, 4, 5]
    mask, rows = np.array([True, False, True]), np.array([1, 1])
    x.zero_grad()
    x[mask, rows].sum().backward() # a mask counts as the places where it is true
    assert x.grad.tolist() == [[0, 1], [0, 0], [0, 1]]
    cube = Tensor(np.zeros((2, 2, 2)), requires_grad=True)
    cube[np.array([True, True]), [0, 0], [1, 1]].sum().backward()
    assert cube.grad.sum() == 2
    cube.zero_grad()
    cube[np.array([True, False]), [0, 0, 0]].sum().backward() # the one row, three times
    assert cube.grad[0, 0].tolist() == [3, 3]


STEPS = {
    "add": lambda a, b: a + b, "sub": lambda a, b: a - b, "mul": lambda a, b: a * b, "div": lambda a, b: a / (b * b + 1),
    "matmul": lambda a, b: a @ b / 3, "twice": lambda a, b: a + a, "square": lambda a, b: a**2 / 4, "tanh": lambda a, b: a.tanh(), "relu": lambda a, b: a.relu() - b,
    "T": lambda a, b: a.T, "rows": lambda a, b: a[[0, 2, 2]] + b, "softmax": lambda a, b: (a.tanh().exp() / a.tanh().exp().sum(1).reshape(3, 1)),
    "mean": lambda a, b: a - b.mean(0), "column": lambda a, b: a * b[:, :1], "log": lambda a, b: (a * a + 1).log(),
}


@given(plan=st.lists(st.tuples(st.sampled_from(list(STEPS)), st.integers(0, 99), st.integers(0, 99)), max_size=15), wanted=st.lists(st.booleans(), min_size=3, max_size=3),
       ends=st.lists(st.integers(0, 99), min_size=1, max_size=3), seed=SEEDS)
@settings(max_examples=300)
def test_random_graphs(plan, wanted, ends, seed):
    rng = np.random.default_rng(seed)
    arrays = [rng.normal(size=(3, 3)) for _ in wanted]
    def loss_of(leaves):
        made = list(leaves)
        for name, a, b in plan: made.append(STEPS[name](made[a % len(made)], made[b % len(made)]).reshape(3, 3))
        return sum((made[-1 - end % len(made)].tanh() for end in ends), made[-1]).sum()
    ours, theirs = [Tensor(a, requires_grad=w) for a, w in zip(arrays, wanted)], [torch.tensor(a, requires_grad=w) for a, w in zip(arrays, wanted)]
    loss, judge = loss_of(ours), loss_of(theirs)
    assert_allclose(loss.item(), judge.item(), rtol=1e-12, atol=1e-12)
    assert loss.requires_grad == judge.requires_grad
    if not judge.requires_grad: return
    for n in (1, 2): # and a second time
        loss.backward()
        judge.backward(retain_graph=True)
        for t, other in zip(ours, theirs):
            if other.grad is None: assert t.grad is None
            else: assert np.linalg.norm(t.grad - other.grad.numpy()) <= 1e-11 * max(1, np.linalg.norm(other.grad.numpy()))


def test_each_is_visited_once():
    start = t = Tensor(1.0, requires_grad=True)
    visits = []
    for _ in range(60): t = tape._result(t.data * 2, "double", (t, lambda g: visits.append(1) or g), (t, lambda g: g))
    t.backward()
    assert start.grad == 2.0**60 and len(visits) == 60


@pytest.mark.parametrize("threaded", [False, True])
def test_a_chain_of_100_000(threaded):
    def run():
        x = Tensor([1.0, 2.0], requires_grad=True)
        total = x
        for _ in range(100_000): total = total + x
        first = weakref.ref(total._inputs[0][0])
        total.backward(np.ones(2))
        grads.append(x.grad.tolist())
        del total
        freed.append(first() is None)
    grads, freed = [], []
    if threaded: # with a smaller stack
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
    else: run()
    assert grads == [[100_001.0] * 2] and freed == [True]


def test_leaves_keep_their_own():
    a, b, g = Tensor(np.ones((2, 2)), requires_grad=True), Tensor(np.ones((2, 2)), requires_grad=True), np.ones((2, 2))
    (a + b).backward(g)
    a.grad += 1
    assert b.grad.tolist() == g.tolist() == [[1, 1], [1, 1]]
    direct = Tensor(np.ones((2, 2)), requires_grad=True)
    direct.backward(g)
    direct.grad += 1
    assert g.sum() == 4
    mine = np.ones((2, 2))
    a.grad = mine
    a.sum().backward()
    assert mine.sum() == 4 and a.grad.sum() == 8
    for function in (lambda t: t.sum(), lambda t: t.mean(0).sum(), lambda t: t.T.sum(), lambda t: t.reshape(4).sum(), lambda t: t[0].sum(), lambda t: (t * b.data).sum()):
        a.zero_grad()
        function(a).backward()
        a.grad += 1 # can be written to, and shares no memory with anything
        assert np.unique(a.grad).size <= 2 and b.data.sum() == 4 and a.data.sum() == 4
        assert a.grad.flags.c_contiguous and a.grad.base is None
    a.zero_grad()
    (a * b.data).sum().backward()
    assert not np.shares_memory(a.grad, b.data)


def test_only_leaves_get_gradients_and_only_those_who_ask():
    calls = []
    x, w = Tensor(np.ones((4, 3))), Tensor(np.ones((3, 2)), requires_grad=True)
    hidden = x @ w
    assert [inp for inp, _ in hidden._inputs] == [w]
    hidden.sum().backward()
    assert hidden.grad is None and x.grad is None and w.grad.shape == (3, 2)
    made = tape._result(np.ones(2), "spy", (x, lambda g: calls.append("x")), (w, lambda g: np.ones((3, 2))))
    made.sum().backward()
    assert not calls and w.grad.tolist() == [[5, 5]] * 3
    nothing = (x * 2).sum()
    assert not nothing.requires_grad and nothing.op == "" and nothing._inputs == ()


def test_a_requires_grad_that_changes():
    w = Tensor([1.0, 2.0], requires_grad=True)
    loss = (w.detach() * w).sum()
    loss.backward()
    assert w.grad.tolist() == [1, 2]
    with no_grad(): leaf = w * 2
    leaf.requires_grad = True # made by no recorded operation
    (leaf * leaf).sum().backward()
    assert leaf.grad.tolist() == [4, 8] and w.grad.tolist() == [1, 2]
    leaf.requires_grad = False
    assert not (leaf * 2).requires_grad


@given(pair=st.sampled_from([(np.float32, np.float64), (np.float64, np.float32), (np.float16, np.float32), (np.float32, np.int64)]), name=st.sampled_from([*ARITHMETIC, "matmul"]))
def test_mixed_dtypes(pair, name):
    f = ARITHMETIC.get(name, lambda a, b: a @ b)
    a, b = Tensor(np.full((2, 2), 2, pair[0]), requires_grad=True), Tensor(np.full((2, 2), 4, pair[1]), requires_grad=np.dtype(pair[1]).kind == "f")
    out = f(a, b)
    assert out.dtype == np.result_type(*pair)
    middle = a * 2 # whose own gradient comes from a wider result
    f(middle, b).sum().backward()
    assert a.grad.dtype == pair[0] and (b.grad is None or b.grad.dtype == pair[1])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_dtypes_stay(dtype):
    x = Tensor(np.array([[0.5, 1.0], [2.0, 3.0]], dtype), requires_grad=True)
    for function in (lambda t: t + 1, lambda t: 2.5 - t, lambda t: t * 2, lambda t: 1 / t, lambda t: t**2, lambda t: t**0.5, lambda t: -t, lambda t: t @ t, Tensor.exp, Tensor.log, Tensor.relu,
                     Tensor.tanh, Tensor.sum, Tensor.mean, Tensor.max, lambda t: t.T, lambda t: t[[0, 0]], lambda t: t[0, 1], lambda t: t.mean() * 2, lambda t: t.max(0)):
        x.zero_grad()
        out = function(x)
        assert out.dtype == dtype and type(out.data) is np.ndarray
        out.backward(np.ones(out.shape))
        assert x.grad.dtype == dtype and type(x.grad) is np.ndarray and x.grad.shape == (2, 2)
        out.backward(np.ones(out.shape))
        assert x.grad.dtype == dtype and type(x.grad) is np.ndarray


def test_rank_0_is_an_array_too():
    x = Tensor(3.0, requires_grad=True)
    for _ in range(2): (x * x).backward()
    assert type(x.grad) is np.ndarray and x.grad.shape == () and x.grad == 12
    x.data = x.data - 1
    x.data -= 1
    x.grad += 1
    assert type(x.data) is np.ndarray and x.item() == 1 and x.grad == 13


def test_gradients_to_start_from():
    x = Tensor([1.0, 2.0], requires_grad=True)
    for gradient in (np.array([1.0, 3.0]), Tensor([1.0, 3.0]), [1, 3], np.array([1, 3])):
        x.zero_grad()
        (x * 2).backward(gradient)
        assert x.grad.tolist() == [2, 6] and x.grad.dtype == np.float64
    x.zero_grad()
    (x.sum() * 2).backward(5)
    assert x.grad.tolist() == [10, 10]
    x.zero_grad()
    leaf = Tensor(np.float32([1, 2]), requires_grad=True)
    leaf.backward(np.array([1, 3]))
    assert leaf.grad.tolist() == [1, 3] and leaf.grad.dtype == np.float32
    backward(x[:1].reshape(1, 1)) # one number, of whatever rank
    assert x.grad.tolist() == [1, 0]


def test_memory_goes_with_the_loss():
    gc.collect()
    gc.disable()
    try:
        w, x = Tensor(np.ones((3, 3)), requires_grad=True), Tensor(np.ones((2, 3)))
        steps = [lambda t: t @ w, Tensor.relu, Tensor.exp, Tensor.tanh, lambda t: t / 100 + 1, Tensor.log, lambda t: t**2, lambda t: t**t, lambda t: 1 - t, lambda t: -t * t,
                 lambda t: t - t.max(1, keepdims=True), lambda t: t[[0, 1, 1]], lambda t: t.T.reshape(3, 3), lambda t: t + t.mean(0) + t.sum()]
        made, watched = x, []
        for step in steps:
            made = step(made)
            watched.append(weakref.ref(made))
        loss = made.sum()
        loss.backward()
        del made
        assert all(watch() is not None for watch in watched)
        del loss
        assert not any(watch() is not None for watch in watched)
        with no_grad(): kept = x @ w
        watch = weakref.ref(w)
        del w, steps, step
        assert watch() is None and kept.shape == (2, 3)
        bad = Tensor(np.ones(3), requires_grad=True) * 2
        watch = weakref.ref(bad)
        with pytest.raises(RuntimeError): bad.backward()
        del bad
        assert watch() is None
        assert not [thing for thing in gc.get_objects() if type(thing) is Tensor and thing.op]
    finally: gc.enable()


def test_no_grad_nests_and_ends():
    w = Tensor([1.0], requires_grad=True)
    tracked = lambda: (w * 2).requires_grad
    with no_grad():
        assert not tracked()
        with no_grad(): assert not tracked()
        assert not tracked()
        with pytest.raises(KeyError):
            with no_grad(): raise KeyError
        assert not tracked()
    assert tracked()
    switch = no_grad()
    with switch:
        with switch: assert not tracked()
        assert not tracked()
    assert tracked()

    @no_grad()
    def down(n): return [tracked()] + (down(n - 1) if n else [])
    assert down(3) == [False] * 4 and tracked() and down.__name__ == "down"
    @no_grad()
    def fails(): raise KeyError
    with pytest.raises(KeyError): fails()
    assert tracked()
    loss = (w * w).sum()
    with no_grad(): loss.backward() # going back needs no recording
    assert w.grad.tolist() == [2]


def test_no_grad_is_of_one_thread():
    w, seen, inside, done = Tensor([1.0], requires_grad=True), {}, threading.Event(), threading.Event()
    def predict():
        with no_grad():
            inside.set()
            done.wait(10)
            seen["predicts"] = (w * 2).requires_grad
    thread = threading.Thread(target=predict)
    thread.start()
    inside.wait(10)
    seen["trains"] = (w * 2).requires_grad
    done.set()
    thread.join()
    with no_grad():
        other = threading.Thread(target=lambda: seen.update(begun_within=(w * 2).requires_grad))
        other.start()
        other.join()
    assert seen == {"predicts": False, "trains": True, "begun_within": True}


def test_after_an_error_nothing_has_changed():
    a, b = Tensor([1.0, 0.0], requires_grad=True), Tensor([1.0, 2.0], requires_grad=True)
    (a + b).sum().backward()
    old = a.grad, b.grad
    def broken(g): raise FloatingPointError
    bad = (b * 3 + a).sum() + tape._result(np.ones(()), "broken", (a, broken), (b, lambda g: g * np.ones(2)))
    for act, error in [(lambda: bad.backward(), FloatingPointError), (lambda: (a * b).backward(), RuntimeError), (lambda: (a * b).backward(np.ones(3)), ValueError),
                       (lambda: (a * b).backward(torch.ones(2)), TypeError), (lambda: (a * b).backward("1"), TypeError)]:
        with pytest.raises(error): act()
        assert a.grad is old[0] and b.grad is old[1] and a.grad.tolist() == b.grad.tolist() == [1, 1]
    huge = Tensor(np.float32([1]), requires_grad=True)
    huge.grad = np.float32([3e38])
    for first, second in itertools.permutations([b.sum, (huge * np.float32(3e38)).sum]): # whichever is made, and so written, first
        with np.errstate(over="raise"), pytest.raises(FloatingPointError): (first() + second()).backward() # old and new are too large together
        assert b.grad is old[1] and huge.grad == np.float32(3e38)


def test_data_that_changes():
    w, v = Tensor([2.0], requires_grad=True), Tensor([5.0], requires_grad=True)
    out = w * v
    v.data = v.data + 1 # another array: the tape keeps its own
    out.backward()
    assert w.grad.tolist() == [5] and out.item() == 10
    w.zero_grad()
    out = w * v
    v.data += 1 # the same array: nobody notices
    out.backward()
    assert w.grad.tolist() == [7]
    kept = w
    w += 1
    assert kept.item() == 2 and w.item() == 3 and w.op == "add" # a new Tensor, not a change in place


def test_an_array_is_shared():
    a = np.ones(2)
    t = Tensor(a)
    assert t.data is a and t.numpy() is a and t.detach().data is a
    assert Tensor([1, 2]).dtype.kind == "i" and Tensor(1.5).dtype == np.float64 and Tensor(True).dtype == bool and Tensor(np.float32(1)).dtype == np.float32


def test_the_net_of_lesson_6():
    g = torch.Generator().manual_seed(0)
    x, targ, w1, b1, w2, b2 = tensors = [torch.randn(shape, generator=g, dtype=torch.float64) / scale
                                         for shape, scale in [((200, 100), 1), ((200,), 1), ((100, 50), 7), ((50,), 1), ((50, 1), 7), ((1,), 1)]]
    expected = forward_and_backward(*tensors)
    ours = [Tensor(t.numpy(), requires_grad=n != 1) for n, t in enumerate(tensors)]
    loss = ((((ours[0] @ ours[2] + ours[3]).relu() @ ours[4] + ours[5]).reshape(-1) - ours[1]) ** 2).mean()
    loss.backward()
    assert abs(loss.item() - expected.item()) < 1e-12 and ours[1].grad is None
    for t, hand in zip(ours, tensors):
        if t.requires_grad: assert_allclose(t.grad, hand.g.numpy(), rtol=0, atol=1e-12)


def test_reading_a_tensor():
    t = Tensor([[1.0, 2.0]], requires_grad=True)
    assert repr(t) == "Tensor([[1., 2.]], requires_grad=True)" and repr(t * 2) == "Tensor([[2., 4.]], op=mul)" and repr(Tensor(np.float32([1]))) == "Tensor([1.], dtype=float32)"
    assert (t.shape, t.ndim, t.size, len(t), t.dtype) == ((1, 2), 2, 2, 1, np.float64) and t.op == "" and (t + 1).op == "add"
    assert float(Tensor([[2.5]])) == 2.5 and int(Tensor(2.5)) == 2 and Tensor(7).item() == 7 and bool(Tensor([0.5])) and not Tensor(0.0)
    assert [row.data.tolist() for row in t] == [[1, 2]] and (list(t)[0].sum() * 2).requires_grad
    for op, made in {"neg": -t, "sub": 1 - t, "div": t / 2, "power": t**2, "matmul": t @ t.T, "exp": t.exp(), "log": t.log(), "relu": t.relu(), "tanh": t.tanh(), "sum": t.sum(), "mean": t.mean(),
                     "max": t.max(), "reshape": t.reshape(2), "transpose": t.T, "take": t[0]}.items(): assert made.op == op


def test_copies_and_pickles_of_leaves():
    t = Tensor([1.0, 2.0], requires_grad=True)
    t.grad = np.ones(2)
    for other in (copy.deepcopy(t), pickle.loads(pickle.dumps(t))):
        assert other.requires_grad and other.data.tolist() == [1, 2] and other.grad.tolist() == [1, 1]
        assert other.data is not t.data and other.grad is not t.grad
        (other * 3 * other).sum().backward()
        assert other.grad.tolist() == [7, 13] and t.grad.tolist() == [1, 1]
    for make in (copy.deepcopy, copy.copy, pickle.dumps):
        with pytest.raises(TypeError, match=r"made by mul.*t.detach\(\) can"): make(t * 2)


def ones(*shape, **kwargs): return Tensor(np.ones(shape), **kwargs)
def set_attribute(name, value): setattr(ones(2, requires_grad=True), name, value)
def set_item(t): t[0] = 1.0
def add_to_array(): array = np.ones(2); array += ones(2)


@pytest.mark.parametrize("act, error, words", [
    *((lambda f=f: f(ones(2, 3), ones(4)), ValueError, [f"{name} of (2, 3) and (4,)", "do not broadcast"]) for name, f in {**ARITHMETIC, "power": lambda a, b: a**b}.items()),
    (lambda: np.ones(3) + ones(2), ValueError, ["add of (3,) and (2,)"]),
    (lambda: Tensor([2, 3]) ** -1, ValueError, ["Integers to negative integer powers"]),
    (lambda: ones(2, 3) @ ones(2, 3), ValueError, ["matmul of (2, 3) and (2, 3)", "two k must be equal"]),
    (lambda: ones(2, 2) @ 3, ValueError, ["matmul of (2, 2) and ()"]),
    (lambda: ones(4, 2, 3) @ ones(5, 3, 2), ValueError, ["matmul of (4, 2, 3) and (5, 3, 2)", "broadcast"]),
    (lambda: bool(ones(2)), ValueError, ["(2,)", "t.data.all()"]),
    (lambda: ones(0) or 1, ValueError, ["(0,)"]),
    (lambda: float(ones(2, 3)), ValueError, ["(2, 3)", "exactly one"]),
    (lambda: ones(3).item(), ValueError, ["(3,)", "exactly one"]),
    (lambda: len(Tensor(1.0)), TypeError, ["rank 0"]),
    (lambda: list(Tensor(1.0)), TypeError, ["rank 0", "item()"]),
    (lambda: Tensor([1, 2], requires_grad=True), TypeError, ["int64", "astype(float)"]),
    (lambda: Tensor([True], requires_grad=True), TypeError, ["bool"]),
    (lambda: Tensor(torch.ones(2)), TypeError, ["torch.Tensor", ".numpy()"]),
    (lambda: Tensor(ones(2)), TypeError, ["groundup.tape.Tensor", ".numpy()"]),
    (lambda: Tensor([ones(2), ones(2)]), TypeError, ["t.data"]),
    (lambda: Tensor(np.array([None])), TypeError, ["object"]),
    (lambda: Tensor(np.array([1j])), TypeError, ["complex128"]),
    (lambda: Tensor(1j), TypeError, ["complex"]),
    (lambda: Tensor("1"), TypeError, ["str"]),
    (lambda: Tensor(["a"]), TypeError, ["<U1"]),
    (lambda: Tensor(None), TypeError, ["NoneType"]),
    *((lambda f=f: f(ones(2), torch.ones(2)), TypeError, ["torch.Tensor"]) for f in [*ARITHMETIC.values(), tape.matmul, tape.power]),
    *((lambda f=f: f(ones(2), None), TypeError, ["NoneType"]) for f in [*ARITHMETIC.values(), tape.matmul, tape.power]),
    *((lambda f=f: f(torch.ones(2)), TypeError, ["torch.Tensor"]) for f in [tape.exp, tape.log, tape.relu, tape.tanh, tape.sum_over, tape.mean_over, tape.max_over, tape.reshape, tape.transpose]),
    (lambda: ones(2) * np.array([1j, 1]), TypeError, ["complex128"]),
    (lambda: ones(2) * np.array([None, 1]), TypeError, ["object"]),
    (lambda: np.asarray(ones(2)), TypeError, ["t.data is its array"]),
    (lambda: np.exp(ones(2)), TypeError, ["ufunc"]),
    (add_to_array, TypeError, ["ufunc"]),
    (lambda: set_item(ones(2)), TypeError, ["cannot be set", "tape"]),
    (lambda: set_attribute("data", np.ones(3)), ValueError, ["data is (3,)", "(2,)"]),
    (lambda: set_attribute("data", np.ones(2, "float32")), TypeError, ["float32", "float64"]),
    (lambda: set_attribute("data", [1.0, 2.0]), TypeError, ["list"]),
    (lambda: set_attribute("grad", np.ones((2, 1))), ValueError, ["grad is (2, 1)", "(2,)"]),
    (lambda: set_attribute("grad", torch.ones(2)), TypeError, ["grad must be an array"]),
    (lambda: set_attribute("grad", np.ones(2, int)), TypeError, ["int64"]),
    (lambda: set_attribute("colour", 1), AttributeError, ["colour"]),
    (lambda: setattr(ones(2, requires_grad=True) * 2, "requires_grad", False), RuntimeError, ["made by mul", "detach()"]),
    (lambda: setattr(Tensor([1]), "requires_grad", True), TypeError, ["int64"]),
    (lambda: ones(2).backward(np.ones(2)), RuntimeError, ["requires no gradient"]),
    (lambda: ones(2, requires_grad=True).backward(), RuntimeError, ["this Tensor is (2,)", "pass a gradient of that shape"]),
    (lambda: ones(0, requires_grad=True).backward(), RuntimeError, ["this Tensor is (0,)"]),
    (lambda: ones(2, requires_grad=True).backward(np.ones((2, 1))), ValueError, ["the gradient is (2, 1)", "(2,)"]),
    (lambda: ones(1, requires_grad=True).backward(2.0), ValueError, ["the gradient is ()", "(1,)"]),
    (lambda: ones(2).sum(1), ValueError, ["axis 1 is out of bounds"]),
    (lambda: ones(2, 2).sum((0, 0)), ValueError, ["duplicate"]),
    (lambda: ones(2, 3).reshape(4), ValueError, ["size 6", "(4,)"]),
    (lambda: ones(2, 3).transpose(0, 0), ValueError, ["repeated axis"]),
    (lambda: ones(2)[5], IndexError, ["5", "size 2"]),
])
def test_bad_input(act, error, words):
    with pytest.raises(error) as raised: act()
    for word in words: assert word in str(raised.value)


def test_no_grad_refuses_what_runs_later():
    def numbers(): yield 1
    async def later(): pass
    async def numbers_later(): yield 1
    for function in (numbers, later, numbers_later):
        with pytest.raises(TypeError, match=f"the code of {function.__name__} runs after the call"): no_grad()(function)


def test_the_tape_needs_no_torch():
    code = "import sys, groundup.tape; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "False"


def test_means_of_more_elements_than_a_float16_counts():
    t, judge = Tensor(np.ones(70_000, "float16"), requires_grad=True), torch.ones(70_000, dtype=torch.float16, requires_grad=True)
    t.mean().backward(np.float16(64.0))
    judge.mean().backward(torch.tensor(64.0, dtype=torch.float16))
    np.testing.assert_allclose(t.grad, judge.grad.numpy(), rtol=0.01)
    empty = Tensor(np.ones((0, 3)), requires_grad=True)
    with np.errstate(all="raise"): empty.mean(axis=1).backward(np.ones(0))
    assert empty.grad.shape == (0, 3)


def test_who_no_longer_wants_a_gradient_gets_none():
    a, b = Tensor([1.0], requires_grad=True), Tensor([2.0], requires_grad=True)
    out = (a * b).sum()
    a.requires_grad = False
    out.backward()
    assert a.grad is None and b.grad.tolist() == [1.0]


@pytest.mark.parametrize("index, other", [(np.array([0, 1]), 2), (np.array([True, True, False]), np.array([False, False, True]))])
def test_an_index_that_is_changed_afterwards(index, other):
    t = Tensor([1.0, 2.0, 3.0], requires_grad=True)
    out = t[index].sum()
    index[:] = other
    out.backward()
    assert t.grad.tolist() == [1.0, 1.0, 0.0]


def test_operations_take_plain_numbers_and_arrays():
    for made, expected in [(tape.sum_over(2.0), 2.0), (tape.mean_over([1.0, 3.0]), 2.0), (tape.max_over(np.arange(3)), 2), (tape.reshape(2.0, 1), [2.0]),
                           (tape.transpose([[1.0], [2.0]]), [[1.0, 2.0]]), (tape.take([1.0, 2.0], 1), 2.0), (tape.exp(0), 1.0), (tape.relu(-2.0), 0.0)]:
        assert isinstance(made, Tensor) and not made.requires_grad and made.data.tolist() == expected
