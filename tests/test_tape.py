"The tape against autograd: every operation over shapes, axes and dtypes, random graphs, and what a tape must not do."
import copy, gc, itertools, pickle, subprocess, sys, threading, weakref

import numpy as np, pytest, torch, torch.nn.functional as F
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
        for t, reference, a in zip(one, other, arrays):
            assert_array_equal(t.data, a)
            if not t.requires_grad: assert t.grad is None
            else: close(t.grad, torch.zeros_like(reference) if reference.grad is None else reference.grad, dtype)


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


FUNCTIONS = ["exp", "log", "sqrt", "relu", "tanh", "abs"]


@given(name=st.sampled_from(FUNCTIONS), shape=shapes(), seed=SEEDS, dtype=NUMPY_FLOATS)
@settings(max_examples=150)
def test_functions(name, shape, seed, dtype):
    a = array(seed, shape, dtype, away=0.25)
    if name in ("log", "sqrt"): a = positive(a)
    if name in ("relu", "abs"): a = array(seed, shape, dtype) # 0 among them
    check(lambda t: getattr(t, name)(), lambda t: getattr(t, name)(), a, seed=seed)
    check(tape.absolute if name == "abs" else getattr(tape, name), getattr(torch, name), a, seed=seed)


ODD = [-np.inf, -1.0, -0.0, 0.0, 2.0, np.inf, np.nan]


@pytest.mark.parametrize("ours, theirs", [(tape.relu, F.relu), (tape.absolute, torch.abs), (tape.sqrt, torch.sqrt), (tape.exp, torch.exp), (tape.log, torch.log), (tape.tanh, torch.tanh),
                                          (lambda t: tape.relu(t).sqrt(), lambda t: F.relu(t).sqrt()), (lambda t: tape.relu(t).log(), lambda t: F.relu(t).log())])
def test_functions_at_their_corners_for_every_gradient(ours, theirs):
    points, gradients = (np.array(odd) for odd in zip(*itertools.product(ODD[:-1] if ours is tape.absolute else ODD, ODD))) # torch's gradient of |nan| is 0
    x, reference = Tensor(points, requires_grad=True), torch.tensor(points, requires_grad=True)
    with np.errstate(all="ignore"):
        out, expected = ours(x), theirs(reference)
        out.backward(gradients)
    expected.backward(torch.from_numpy(gradients))
    assert_allclose(out.data, expected.detach().numpy(), rtol=1e-14)
    assert_allclose(x.grad, reference.grad.numpy(), rtol=1e-14)
    if ours is tape.relu: assert_array_equal(x.grad, np.where(~(points <= 0), gradients, 0))


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
    for t, reference in zip(ours, theirs): assert_array_equal(t.grad, reference.grad.numpy())


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


REDUCTIONS = {"sum": torch.sum, "mean": torch.mean, "max": torch.amax, "min": torch.amin}


@given(data=st.data(), name=st.sampled_from(list(REDUCTIONS)), shape=shapes(4), seed=SEEDS, dtype=NUMPY_FLOATS, keepdims=st.booleans())
@settings(max_examples=300)
def test_reductions(data, name, shape, seed, dtype, keepdims):
    if name != "sum": shape = tuple(max(1, size) for size in shape) # of nothing there is none
    axes = [None]
    if shape: axes += [data.draw(st.integers(-len(shape), len(shape) - 1)),
                       tuple(axis - data.draw(st.sampled_from([0, len(shape)])) for axis in data.draw(st.sets(st.integers(0, len(shape) - 1), min_size=1)))]
    axis = data.draw(st.sampled_from(axes))
    dim = tuple(range(len(shape))) if axis is None else axis
    a = array(seed, shape, dtype)
    theirs = lambda t: REDUCTIONS[name](t, dim=dim, keepdim=keepdims)
    check(lambda t: getattr(t, name)(axis=axis, keepdims=keepdims), theirs, a, seed=seed)
    check(lambda t: getattr(tape, f"{name}_over")(t, axis, keepdims), theirs, a, seed=seed)


def test_extremes_share():
    x = Tensor([[3.0, 3.0, 1.0], [3.0, 0.0, 2.0]], requires_grad=True)
    x.max().backward()
    assert_allclose(x.grad, np.array([[1, 1, 0], [1, 0, 0]]) / 3)
    low = Tensor(np.uint8([[0, 5], [0, 7]])) # which has no negative numbers
    assert low.min().item() == 0 and low.min(axis=0).data.tolist() == [0, 5] and low.min().dtype == np.uint8
    with pytest.raises(ValueError, match="zero-size"): Tensor(np.ones((0, 2))).min(0)
    with pytest.raises(ValueError, match="zero-size"): Tensor(np.ones((0, 2))).max(0)
    assert Tensor(np.ones((2, 0)), requires_grad=True).sum(1).data.tolist() == [0.0, 0.0]


CHOICES = {"maximum": torch.maximum, "minimum": torch.minimum, "where": lambda a, b: torch.where(a > b, a, b)}


@given(name=st.sampled_from(list(CHOICES)), pair=fitting(), seed=SEEDS, dtype=NUMPY_FLOATS)
@settings(max_examples=150)
def test_choices(name, pair, seed, dtype):
    a, b = array(seed, pair[0], dtype), array(seed + 1, pair[1], dtype) # many are equal
    ours = (lambda a, b: tape.where(a > b, a, b)) if name == "where" else getattr(tape, name)
    check(ours, CHOICES[name], a, b, seed=seed)
    check(lambda t: ours(t, b), lambda t: CHOICES[name](t, torch.from_numpy(b.copy())), a, seed=seed)


@pytest.mark.parametrize("name", ["maximum", "minimum"])
def test_choices_at_their_corners(name):
    a, b, g = (np.array(odd) for odd in zip(*itertools.product(ODD, ODD, ODD)))
    ours, theirs = [Tensor(x, requires_grad=True) for x in (a, b)], [torch.tensor(x, requires_grad=True) for x in (a, b)]
    getattr(tape, name)(*ours).backward(g)
    CHOICES[name](*theirs).backward(torch.from_numpy(g))
    for t, reference in zip(ours, theirs): assert_array_equal(t.grad, reference.grad.numpy())


@given(data=st.data(), shape=shapes(3, st.integers(0, 3)).filter(len), seed=SEEDS, dtype=NUMPY_FLOATS)
@settings(max_examples=100)
def test_concatenate(data, shape, seed, dtype):
    axis = data.draw(st.integers(0, len(shape) - 1))
    sizes = data.draw(st.lists(st.integers(0, 3), min_size=1, max_size=3))
    parts = [array(seed + n, (*shape[:axis], size, *shape[axis + 1:]), dtype) for n, size in enumerate(sizes)]
    axis -= data.draw(st.sampled_from([0, len(shape)]))
    check(lambda *ts: tape.concatenate(ts, axis), lambda *ts: torch.cat(ts, axis), *parts, seed=seed)
    check(lambda t: tape.concatenate([parts[0], t, t], axis=axis), lambda t: torch.cat([torch.from_numpy(parts[0].copy()), t, t], axis), parts[-1], seed=seed)


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
    "An index for `shape`, as NumPy and PyTorch both understand it: numbers, slices, None, ..., integers with repetitions, masks."
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
    "sqrt": lambda a, b: (a * a + 1).sqrt(), "abs": lambda a, b: abs(a) - b, "-abs": lambda a, b: -a.abs(), "root": lambda a, b: (b * b + 1) ** (a.tanh()),
    "largest": lambda a, b: a - either(a, "max")(a, 1).reshape(3, 1), "smallest": lambda a, b: b * either(a, "min")(a, 0),
    "maximum": lambda a, b: either(a, "maximum")(a, b), "minimum": lambda a, b: either(a, "minimum")(a, b.T), "where": lambda a, b: either(a, "where")(a > b, a, 2 * b),
    "concatenate": lambda a, b: either(a, "concatenate")([a[1:], b[1:, :] * 2])[:3], "vector": lambda a, b: a @ b[0], "sum": lambda a, b: a.sum() + b.sum(1),
}
OF_TORCH = {"max": torch.amax, "min": torch.amin, "maximum": torch.maximum, "minimum": torch.minimum, "where": torch.where, "concatenate": torch.cat}


def either(t, name):
    "The function of NumPy for our Tensors, that of PyTorch for PyTorch's."
    return getattr(np, name) if isinstance(t, Tensor) else OF_TORCH[name]


@given(plan=st.lists(st.tuples(st.sampled_from(list(STEPS)), st.integers(0, 99), st.integers(0, 99)), max_size=15), wanted=st.lists(st.booleans(), min_size=3, max_size=3),
       ends=st.lists(st.integers(0, 99), min_size=1, max_size=3), seed=SEEDS)
@settings(max_examples=300)
def test_random_graphs(plan, wanted, ends, seed):
    rng = np.random.default_rng(seed)
    arrays = [rng.normal(size=(3, 3)) for _ in wanted]
    def loss_of(leaves):
        made = list(leaves)
        for name, a, b in plan:
            new = STEPS[name](made[a % len(made)], made[b % len(made)])
            made.append(new if new.ndim == 2 else new * made[b % len(made)])
        return sum((made[-1 - end % len(made)].tanh() for end in ends), made[-1]).sum()
    ours, theirs = [Tensor(a, requires_grad=w) for a, w in zip(arrays, wanted)], [torch.tensor(a, requires_grad=w) for a, w in zip(arrays, wanted)]
    loss, reference = loss_of(ours), loss_of(theirs)
    for t in ours: t.data[:] = np.nan # the tape has what it needs
    assert_allclose(loss.item(), reference.item(), rtol=1e-12, atol=1e-12)
    assert loss.requires_grad == reference.requires_grad
    if not reference.requires_grad: return
    for n in (1, 2): # and a second time
        loss.backward()
        reference.backward(retain_graph=True)
        for t, other in zip(ours, theirs):
            if other.grad is None: assert t.grad is None
            else: assert np.linalg.norm(t.grad - other.grad.numpy()) <= 1e-11 * max(1, np.linalg.norm(other.grad.numpy()))


def test_each_is_visited_once():
    start = t = Tensor(1.0, requires_grad=True)
    visits = []
    for _ in range(60): t = tape.record("double", t.data * 2, (t, lambda g: visits.append(1) or g), (t, lambda g: g))
    t.backward()
    assert start.grad == 2.0**60 and len(visits) == 60


def test_a_chain_of_100_000():
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
    thread = threading.Thread(target=run) # which has a smaller stack
    thread.start()
    thread.join()
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
    assert [inp for inp, _, _ in hidden._inputs] == [w]
    hidden.sum().backward()
    assert hidden.grad is None and x.grad is None and w.grad.shape == (3, 2)
    made = tape.record("spy", np.ones(2), (x, lambda g: calls.append("x")), (w, lambda g: np.ones((3, 2))))
    made.sum().backward()
    assert not calls and w.grad.tolist() == [[5, 5]] * 3
    nothing = (x * 2).sum()
    assert not nothing.requires_grad and nothing.op == "" and nothing._inputs == []


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
    bad = (b * 3 + a).sum() + tape.record("broken", np.ones(()), (a, broken), (b, lambda g: g * np.ones(2)))
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
    v.data += 1 # the same array: the tape has a copy
    out.backward()
    assert w.grad.tolist() == [6] and v.item() == 7
    kept = w
    w += 1
    assert kept.item() == 2 and w.item() == 3 and w.op == "add" # a new Tensor, not a change in place


def test_a_buffer_that_is_used_again():
    w, buffer = Tensor([1.0], requires_grad=True), np.ones(1)
    loss = (w * buffer).sum()
    buffer[:] = 10
    (loss + (w * buffer).sum()).backward()
    assert w.grad.tolist() == [11]


BINARY = {"add": (tape.add, torch.add), "sub": (tape.sub, torch.sub), "mul": (tape.mul, torch.mul), "div": (tape.div, torch.div), "power": (tape.power, torch.pow), "matmul": (tape.matmul, torch.matmul),
          "vector": (lambda a, b: a[0] @ b, lambda a, b: a[0] @ b), "maximum": (tape.maximum, torch.maximum), "minimum": (tape.minimum, torch.minimum),
          "where": (lambda a, b: tape.where(a > b, a * a, b), lambda a, b: torch.where(a > b, a * a, b)), "concatenate": (lambda a, b: tape.concatenate([a, b]), lambda a, b: torch.cat([a, b])),
          "columns": (lambda a, b: a[:, [0, 1]] * b, lambda a, b: a[:, [0, 1]] * b)}
UNARY = {"exp": torch.exp, "log": torch.log, "sqrt": torch.sqrt, "tanh": torch.tanh, "relu": F.relu, "absolute": torch.abs, "sum_over": torch.sum, "mean_over": torch.mean, "max_over": torch.amax,
         "min_over": torch.amin, "neg": torch.neg}
VIEWS = {"reshape": lambda t: t.reshape(4), "transpose": lambda t: t.T, "row": lambda t: t[0], "slice": lambda t: t[:, ::-1] if hasattr(t, "__array_function__") else t.flip(1), "whole": lambda t: t[...]}


OPERATIONS = BINARY | {name: (lambda a, b, f=getattr(tape, name): f(a) + b, lambda a, b, f=f: f(a) + b) for name, f in UNARY.items()} | {
    name: (lambda a, b, f=f: f(a) * f(b) * f(a),) * 2 for name, f in VIEWS.items()}
KINDS = ["leaf", "array", "constant", "detached", "unrecorded"]


def operand(values, kind):
    "A Tensor or an array with these values that anybody can change, and what PyTorch has for it."
    if kind == "leaf": return Tensor(values.copy(), requires_grad=True), torch.tensor(values, requires_grad=True)
    made = Tensor(values, requires_grad=True) * 1
    with no_grad(): unrecorded = made * 1
    return {"array": values.copy(), "constant": Tensor(values.copy()), "detached": made.detach(), "unrecorded": unrecorded}[kind], torch.from_numpy(values.copy())


@pytest.mark.parametrize("name", OPERATIONS)
def test_operands_that_are_changed_in_place(name):
    "Backward sees each as it was."
    ours, theirs = OPERATIONS[name]
    for first, second in {*itertools.product(["leaf"], KINDS), *itertools.product(KINDS, ["leaf"])}:
        (a, ta), (b, tb) = operand(np.array([[1.5, 2.0], [3.0, 0.5]]), first), operand(np.array([[0.5, 3.0], [3.0, 1.5]]), second)
        out, expected = ours(a, b), theirs(ta, tb)
        before = out.data.copy()
        for changed in (a, b): (changed.data if isinstance(changed, Tensor) else changed)[:] = np.nan
        assert_array_equal(out.data, before)
        out.backward(np.ones(out.shape))
        expected.backward(torch.ones(expected.shape))
        for t, reference in ((a, ta), (b, tb)):
            if reference.requires_grad: close(t.grad, reference.grad, np.float64)


def test_conditions_and_indices_that_are_changed_in_place():
    t = Tensor([1.0, 2.0, 3.0], requires_grad=True)
    condition = np.array([True, False, True])
    out = tape.where(condition, t, 2 * t)
    condition[:] = False
    out.sum().backward()
    assert t.grad.tolist() == [1, 2, 1]
    for index, change in [([0, 1], lambda index: index.__setitem__(0, 2)), (np.array([0, 1]), lambda index: index.fill(2)), (np.array([True, True, False]), lambda index: index.fill(False)),
                          (torch.tensor([0, 1]), lambda index: index.fill_(2)), (Tensor([0, 1]), lambda index: index.data.fill(2)), (([0, 1],), lambda index: index[0].append(2)),
                          ([True, True, False], lambda index: index.__setitem__(0, False)), ([[0], [1]], lambda index: index[0].__setitem__(0, 2))]:
        t.zero_grad()
        out = t[index].sum()
        change(index)
        out.backward()
        assert t.grad.tolist() == [1, 1, 0]


def test_what_is_recorded_is_read_only():
    x = Tensor(np.ones((2, 2)), requires_grad=True)
    hidden = x * 2
    for t in (hidden, hidden.T, hidden[0], hidden.reshape(4), x.T, x[0], hidden.sum(), hidden.max(0)):
        with pytest.raises(ValueError, match="read-only"): t.data[...] = 0
        with pytest.raises(ValueError, match="read-only"): t.numpy().fill(0)
    x.data[:] = 5 # a leaf's are not
    with no_grad(): unrecorded = x * 2
    for t in (unrecorded, Tensor(np.ones(2)) * 2, hidden.detach()):
        t.data[:] = 7
        t.data -= 1
    assert (hidden.data == 2).all()
    assert np.shares_memory(hidden.T.data, hidden.data) and not np.shares_memory(x.T.data, x.data) # only what can change is copied
    buffer = np.ones((2, 2))
    (x * buffer).sum().backward()
    assert buffer.flags.writeable and x.data.flags.writeable and x.grad.flags.writeable
    with no_grad(): assert np.shares_memory(x.T.data, x.data)


def test_nothing_is_copied_that_backward_does_not_need():
    x, w, b = np.ones((4, 3)), Tensor(np.ones((3, 2)), requires_grad=True), Tensor(np.ones(2), requires_grad=True)
    hidden = (x @ w + b).relu()
    out = hidden @ Tensor(np.ones((2, 1)))
    saved = [(made.op, inp.op, [np.shape(value) for value in values]) for made in tape._tape(out) for inp, _, values in made._inputs]
    assert saved == [("matmul", "relu", [(2, 1)]), ("relu", "add", []), ("add", "matmul", []), ("add", "", []), ("matmul", "", [(4, 3)])]
    square = hidden * hidden
    assert all(values[0] is hidden.data for _, _, values in square._inputs) # a result's are not copied


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
    assert f"{Tensor(2.5):.3f} {Tensor(7):>3} {Tensor([[1e6]]):.0e}" == "2.500   7 1e+06" and f"{t}" == str(t) == repr(t)
    assert [row.data.tolist() for row in t] == [[1, 2]] and (list(t)[0].sum() * 2).requires_grad
    for op, made in {"neg": -t, "sub": 1 - t, "div": t / 2, "power": t**2, "matmul": t @ t.T, "exp": t.exp(), "log": t.log(), "sqrt": t.sqrt(), "abs": abs(t), "relu": t.relu(), "tanh": t.tanh(), "sum": t.sum(), "mean": t.mean(),
                     "max": t.max(), "min": t.min(), "maximum": tape.maximum(t, 0), "minimum": tape.minimum(0, t), "where": tape.where(True, t, 0), "concatenate": tape.concatenate([t]), "reshape": t.reshape(2), "transpose": t.T, "take": t[0]}.items(): assert made.op == op


def test_copies_and_pickles_of_leaves():
    t = Tensor([1.0, 2.0], requires_grad=True)
    t.grad = np.ones(2)
    for other in (copy.deepcopy(t), pickle.loads(pickle.dumps(t))):
        assert other.requires_grad and other.data.tolist() == [1, 2] and other.grad.tolist() == [1, 1]
        assert other.data is not t.data and other.grad is not t.grad
        (other * 3 * other).sum().backward()
        assert other.grad.tolist() == [7, 13] and t.grad.tolist() == [1, 1]
    for make in (copy.deepcopy, copy.copy, pickle.dumps):
        with pytest.raises(TypeError, match=r"a result of mul.*t.detach\(\) can"): make(t * 2)


def ones(*shape, **kwargs): return Tensor(np.ones(shape), **kwargs)
def set_attribute(name, value): setattr(ones(2, requires_grad=True), name, value)
def set_item(t): t[0] = 1.0
def add_to_array(): array = np.ones(2); array += ones(2)


@pytest.mark.parametrize("act, error, words", [
    *((lambda f=f: f(ones(2, 3), ones(4)), ValueError, [f"{name} of (2, 3) and (4,)", "could not be broadcast", "sizes must be equal, or one of them 1"]) for name, f in {
        "add": lambda a, b: a + b, "subtract": lambda a, b: a - b, "multiply": lambda a, b: a * b, "divide": lambda a, b: a / b, "pow": lambda a, b: a**b,
        "maximum": np.maximum, "minimum": np.minimum, "less": lambda a, b: a < b, "equal": lambda a, b: a == b}.items()),
    (lambda: ones(3) in ones(2), ValueError, ["equal of (2,) and (3,)"]),
    (lambda: tape.where(np.ones(2) > 0, ones(3), 0.0), ValueError, ["(2,) (3,)"]),
    (lambda: tape.where(None, ones(3), 0.0), TypeError, ["NoneType"]),
    (lambda: tape.concatenate([ones(2), ones(2, 2)]), ValueError, ["1 dimension(s)", "2 dimension(s)"]),
    (lambda: tape.concatenate([ones(2, 3), ones(2, 2)]), ValueError, ["size 3", "size 2"]),
    (lambda: tape.concatenate([]), ValueError, ["need at least one array"]),
    (lambda: tape.concatenate([ones(2)], 1), ValueError, ["axis 1 is out of bounds"]),
    (lambda: tape.concatenate([ones(2), torch.ones(2)]), TypeError, ["torch.Tensor"]),
    *((lambda other=other: ones(2) == other, TypeError, [name]) for other, name in [(None, "NoneType"), ("a", "str"), (torch.ones(2), "torch.Tensor"), (1j, "complex")]),
    (lambda: torch.ones(2) == ones(2), TypeError, ["torch.Tensor"]),
    (lambda: None in ones(2), TypeError, ["NoneType"]),
    (lambda: np.ones(3) + ones(2), ValueError, ["add of (3,) and (2,)"]),
    (lambda: Tensor([2, 3]) ** -1, ValueError, ["pow of (2,) and (): Integers to negative integer powers"]),
    (lambda: tape.power(-2.0, 0.5), TypeError, ["complex"]),
    (lambda: ones(2, 3) @ ones(2, 3), ValueError, ["matmul of (2, 3) and (2, 3)", "size 2 is different from 3"]),
    (lambda: ones(2, 2) @ 3, ValueError, ["matmul of (2, 2) and ()"]),
    (lambda: ones(4, 2, 3) @ ones(5, 3, 2), ValueError, ["matmul of (4, 2, 3) and (5, 3, 2)", "broadcast"]),
    *((lambda f=f, t=t: f(t), ValueError, ["array of size 1"]) for f in (bool, float, int, Tensor.item, lambda t: f"{t:.2f}") for t in (ones(2), ones(0), ones(2, 3))),
    (lambda: len(Tensor(1.0)), TypeError, ["len() of unsized object"]),
    (lambda: list(Tensor(1.0)), TypeError, ["unsized object"]),
    (lambda: Tensor([1, 2], requires_grad=True), TypeError, ["int64", "astype(float)"]),
    (lambda: Tensor([True], requires_grad=True), TypeError, ["bool"]),
    (lambda: Tensor(torch.ones(2)), TypeError, ["torch.Tensor", ".numpy()"]),
    (lambda: Tensor(ones(2)), TypeError, ["groundup.tape.Tensor", ".numpy()"]),
    (lambda: Tensor([ones(2), ones(2)]), TypeError, ["t.data"]),
    (lambda: Tensor(np.array([None])), TypeError, ["object"]),
    (lambda: Tensor(np.array([1j])), TypeError, ["complex128"]),
    (lambda: Tensor(1j), TypeError, ["complex"]),
    (lambda: Tensor("1"), TypeError, ["str"]),
    (lambda: Tensor(["a"]), TypeError, ["list"]),
    (lambda: Tensor(np.ones((1, 1)).view(np.matrix)), TypeError, ["numpy.matrix"]),
    (lambda: Tensor(np.ma.masked_less([1.0, -1.0], 0)), TypeError, ["MaskedArray"]),
    (lambda: ones(1) * np.ones((1, 1)).view(np.matrix), TypeError, ["numpy.matrix"]),
    (lambda: Tensor(None), TypeError, ["NoneType"]),
    *((lambda f=f: f(ones(2), torch.ones(2)), TypeError, ["torch.Tensor"]) for f in [*ARITHMETIC.values(), tape.matmul, tape.power]),
    *((lambda f=f: f(ones(2), None), TypeError, ["NoneType"]) for f in [*ARITHMETIC.values(), tape.matmul, tape.power]),
    *((lambda f=f: f(torch.ones(2)), TypeError, ["torch.Tensor"]) for f in [tape.exp, tape.log, tape.sqrt, tape.absolute, tape.neg, tape.relu, tape.tanh, tape.min_over, tape.sum_over, tape.mean_over, tape.max_over, tape.reshape, tape.transpose]),
    (lambda: ones(2) * np.array([1j, 1]), TypeError, ["complex128"]),
    (lambda: ones(2) * np.array([None, 1]), TypeError, ["object"]),
    (lambda: np.asarray(ones(2)), TypeError, ["t.data is its array"]),
    (add_to_array, TypeError, ["unexpected keyword argument 'out'"]),
    *((f, TypeError, [f"no operation for NumPy's {name};", f"{name} of t.data"]) for name, f in {"sin": lambda: np.sin(ones(2)), "dot": lambda: np.dot(ones(2), ones(2)), "norm": lambda: np.linalg.norm(ones(2)),
        "reduce": lambda: np.add.reduce(ones(2)), "outer": lambda: np.multiply.outer(ones(2), ones(2)), "argmax": lambda: np.argmax(ones(2)), "array_equal": lambda: np.array_equal(ones(2), np.ones(2)),
        "allclose": lambda: np.allclose(ones(2), 1.0), "floor_divide": lambda: np.ones(2) // ones(2)}.items()),
    *((f, TypeError, ["unexpected keyword argument", name]) for name, f in {"dtype": lambda: np.sum(ones(2), dtype=np.float32), "out": lambda: np.exp(ones(2), out=np.ones(2)), "initial": lambda: np.max(ones(2), initial=5.0),
        "where": lambda: np.add(ones(2), 1, where=np.array([True, False])), "order": lambda: np.reshape(ones(2), (2, 1), order="F")}.items()),
    (lambda: np.sum(ones(2), 0, np.float32), TypeError, ["type"]), # third is a dtype there
    (lambda: np.max(ones(2), 0, np.ones(1)), TypeError, ["integer"]), # and here the array to write to
    (lambda: set_item(ones(2)), TypeError, ["does not support item assignment"]),
    (lambda: set_attribute("data", np.ones(3)), ValueError, ["data is (3,)", "(2,)"]),
    (lambda: set_attribute("data", np.ones(2, "float32")), TypeError, ["float32", "float64"]),
    (lambda: set_attribute("data", [1.0, 2.0]), TypeError, ["list"]),
    (lambda: set_attribute("data", np.ma.ones(2)), TypeError, ["MaskedArray"]),
    (lambda: setattr(ones(2, requires_grad=True) * 2, "data", np.ones(2)), RuntimeError, ["data of a result", "mul", "detach()"]),
    (lambda: set_attribute("grad", np.ones((2, 1))), ValueError, ["grad is (2, 1)", "(2,)"]),
    (lambda: set_attribute("grad", torch.ones(2)), TypeError, ["grad is Tensor, not an array"]),
    (lambda: set_attribute("grad", np.ones(2, int)), TypeError, ["int64"]),
    (lambda: set_attribute("colour", 1), AttributeError, ["colour"]),
    (lambda: setattr(ones(2, requires_grad=True) * 2, "requires_grad", False), RuntimeError, ["requires_grad of a result", "mul", "detach()"]),
    (lambda: setattr(Tensor([1]), "requires_grad", True), TypeError, ["int64"]),
    (lambda: ones(2).backward(np.ones(2)), RuntimeError, ["requires no gradient"]),
    (lambda: ones(2, requires_grad=True).backward(), RuntimeError, ["this Tensor is (2,)", "pass a gradient"]),
    (lambda: ones(0, requires_grad=True).backward(), RuntimeError, ["this Tensor is (0,)"]),
    (lambda: ones(2, requires_grad=True).backward(np.ones((2, 1))), ValueError, ["gradient is (2, 1)", "tensor is (2,)"]),
    (lambda: ones(1, requires_grad=True).backward(2.0), ValueError, ["gradient is ()", "tensor is (1,)"]),
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
        with pytest.raises(TypeError, match=f"the code of {function.__name__} runs later"): no_grad()(function)


def test_the_tape_needs_no_torch():
    code = "import sys, groundup.tape; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "False"


def test_means_of_more_elements_than_a_float16_counts():
    t, reference = Tensor(np.ones(70_000, "float16"), requires_grad=True), torch.ones(70_000, dtype=torch.float16, requires_grad=True)
    t.mean().backward(np.float16(64.0))
    reference.mean().backward(torch.tensor(64.0, dtype=torch.float16))
    np.testing.assert_allclose(t.grad, reference.grad.numpy(), rtol=0.01)
    empty = Tensor(np.ones((0, 3)), requires_grad=True)
    with np.errstate(all="raise"): empty.mean(axis=1).backward(np.ones(0))
    assert empty.grad.shape == (0, 3)


def test_who_no_longer_wants_a_gradient_gets_none():
    a, b = Tensor([1.0], requires_grad=True), Tensor([2.0], requires_grad=True)
    out = (a * b).sum()
    a.requires_grad = False
    out.backward()
    assert a.grad is None and b.grad.tolist() == [1.0]


def test_operations_take_plain_numbers_and_arrays():
    for made, expected in [(tape.sum_over(2.0), 2.0), (tape.mean_over([1.0, 3.0]), 2.0), (tape.max_over(np.arange(3)), 2), (tape.reshape(2.0, 1), [2.0]),
                           (tape.transpose([[1.0], [2.0]]), [[1.0, 2.0]]), (tape.take([1.0, 2.0], 1), 2.0), (tape.exp(0), 1.0), (tape.relu(-2.0), 0.0)]:
        assert isinstance(made, Tensor) and not made.requires_grad and made.data.tolist() == expected


COMPARISONS = [np.equal, np.not_equal, np.less, np.less_equal, np.greater, np.greater_equal]


@given(compare=st.sampled_from(COMPARISONS), pair=fitting(), seed=SEEDS, dtype=st.sampled_from([np.float32, np.float64, np.int64]))
@settings(max_examples=100)
def test_comparisons_are_numpys(compare, pair, seed, dtype):
    a, b = (array(seed + n, shape, np.float64).round().astype(dtype) for n, shape in enumerate(pair))
    symbol = {"equal": "==", "not_equal": "!=", "less": "<", "less_equal": "<=", "greater": ">", "greater_equal": ">="}[compare.__name__]
    for left, right in [(Tensor(a), Tensor(b)), (Tensor(a), b), (a, Tensor(b))]:
        for made in (eval(f"left {symbol} right"), compare(left, right)):
            assert type(made) in (np.ndarray, np.bool_) and made.dtype == bool
            assert_array_equal(made, compare(a, b), strict=True)
    for number in (1, 1.0, np.float64(1), True):
        assert_array_equal(eval(f"Tensor(a) {symbol} number"), compare(a, number))
        assert_array_equal(eval(f"number {symbol} Tensor(a)"), compare(number, a))


def test_comparisons_decide_and_nan_equals_nothing():
    t = Tensor([1.0, 2.0], requires_grad=True)
    assert_array_equal([1.0, 3.0] == t, [True, False])
    assert 1.0 in t and 3.0 not in t and (t == [1.0, 2.0]).all() and (t == t).all() and Tensor(2.0) == 2 and not Tensor(2.0) < 2
    assert (Tensor(np.nan) != Tensor(np.nan)) and max(t).item() == 2 and sorted([Tensor(3.0), Tensor(1.0)])[0].item() == 1
    assert_array_equal(t[t > 1].data, [2])
    assert {t: 1, Tensor([1.0, 2.0]): 2}[t] == 1 and len({t, t, Tensor([1.0, 2.0])}) == 2 and hash(t) == hash(t)


NUMPYS = { # each function of NumPy that takes a Tensor: what it is called with, and what PyTorch calls it
    np.add: (2, torch.add), np.subtract: (2, torch.sub), np.multiply: (2, torch.mul), np.divide: (2, torch.div), np.power: (2, torch.pow), np.matmul: (2, torch.matmul), np.negative: (1, torch.neg),
    np.exp: (1, torch.exp), np.log: (1, torch.log), np.sqrt: (1, torch.sqrt), np.tanh: (1, torch.tanh), np.absolute: (1, torch.abs), np.maximum: (2, torch.maximum), np.minimum: (2, torch.minimum),
    np.sum: (1, torch.sum), np.mean: (1, torch.mean), np.max: (1, torch.amax), np.amax: (1, torch.amax), np.min: (1, torch.amin), np.amin: (1, torch.amin),
    np.reshape: (1, lambda t: t.reshape(4), (4,)), np.transpose: (1, torch.t), np.where: (2, lambda a, b: torch.where(a > b, a, b)), np.concatenate: (2, lambda a, b: torch.cat([a, b])),
}


def test_every_function_of_numpy():
    plain = {np.shape, np.ndim, np.size, *COMPARISONS} # which record nothing
    assert NUMPYS.keys() | plain == tape._operations.keys()
    t = Tensor(np.ones((2, 3)), requires_grad=True)
    assert (np.shape(t), np.ndim(t), np.size(t)) == ((2, 3), 2, 6)
    for function, (operands, theirs, *more) in NUMPYS.items():
        ours = {np.where: lambda a, b: np.where(a > b, a, b), np.concatenate: lambda a, b: np.concatenate([a, b])}.get(function, lambda *ts: function(*ts, *more))
        check(ours, theirs, *[np.array([[0.5, 2.0], [2.0, 3.0]]), np.array([[0.5, 3.0], [1.0, 2.0]])][:operands])
    for function in (np.sum, np.mean, np.max, np.min):
        for keywords in ({"axis": 0}, {"axis": (0, 1), "keepdims": True}, {"keepdims": False}): assert_array_equal(function(t, **keywords).data, function(t.data, **keywords))
    check(lambda t: np.transpose(t, (1, 2, 0)), lambda t: t.permute(1, 2, 0), array(4, (2, 3, 4)))
    assert np.transpose(t, axes=(1, 0)).shape == np.transpose(t, axes=None).shape == np.reshape(t, shape=(3, 2)).shape == (3, 2)
    assert np.maximum(t, 0).requires_grad and np.concatenate([t, np.ones((1, 3))]).shape == (3, 3) and np.where(t.data > 0, t, 0).op == "where"


def test_the_rule_is_named_only_where_it_was_broken():
    for act in (lambda: Tensor([2, 3]) ** -1, lambda: Tensor(np.ones(2)) @ np.ones(3)):
        with pytest.raises(ValueError) as raised: act()
        assert "counted from the right" not in str(raised.value)


def test_an_operation_of_ones_own():
    try:
        @tape.implements(np.sin)
        def sine(t): return tape.record("sine", np.sin(t.data), (t, lambda g, x: g * np.cos(x), t))
        check(sine, torch.sin, array(3, (2, 3)))
        check(np.sin, torch.sin, array(3, (2, 3)))
    finally: del tape._operations[np.sin]
    t = Tensor([1.0], requires_grad=True)
    same = tape.record("same", t.data[:], (t, lambda g: g)) # a view
    t.data[:] = 5
    assert same.item() == 1


def checkpoint(segment, t):
    "`segment(t)`, of which only `t` is kept: its VJP runs a forward and a backward pass of its own, as in lesson 13."
    with no_grad(): out = segment(t).data
    def again(g, saved):
        start = Tensor(saved, requires_grad=True)
        segment(start).backward(g)
        return start.grad
    return tape.record("checkpoint", out, (t, again, t))


@given(layers=st.integers(1, 4), n=st.integers(1, 4), seed=SEEDS)
def test_a_vjp_may_run_a_backward_pass_of_its_own(layers, n, seed):
    rng = np.random.default_rng(seed)
    x, *weights = [Tensor(rng.normal(size=(n, n)), requires_grad=True) for _ in range(layers + 1)]
    tail = Tensor(rng.normal(size=(n, n)), requires_grad=True)
    gradients = []
    for step in (lambda f, t: f(t), checkpoint):
        t = x
        for w in weights: t = step(lambda t, w=w: (t @ w).tanh() * w, t) # a weight that is used twice
        ((t @ tail) * weights[0]).sum().backward() # and once more outside
        gradients.append([leaf.grad for leaf in (x, tail, *weights)])
        for leaf in (x, tail, *weights): leaf.zero_grad()
    for one, other in zip(*gradients): assert_allclose(one, other, rtol=1e-12, atol=1e-12)
