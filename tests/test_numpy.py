"What only groundup.numpy has: its names, Array, plain arrays, tensors passed by mistake, NumPy's generators and dtypes; and results equal to torch's to 1e-12."
import copy, warnings

import numpy as np, pytest, torch
from hypothesis import given, settings, strategies as st

import groundup.numpy as gnp
from groundup.einsum import plan
from libraries import LESSONS, NUMPY, TORCH, each_library
from shapes import shapes, tensors


def test_every_name_of_lessons_1_to_7_is_there():
    for lesson in LESSONS: assert set(lesson.__all__) <= set(gnp.__all__), lesson.__name__
    assert {"Array", "asarray"} <= set(gnp.__all__) and all(hasattr(gnp, name) for name in gnp.__all__)
    for name in ("neuron", "dense", "product_of_lists", "broadcast_shape", "explain_broadcast", "plan", "Model"):
        assert getattr(gnp, name) is getattr(TORCH, name)


@given(seed=st.integers(0, 2**16), n=st.integers(1, 40), n_in=st.integers(1, 40), nh=st.integers(1, 20), n_out=st.integers(1, 3))
@settings(max_examples=60)
def test_equals_lessons_1_to_7_in_float64(seed, n, n_in, nh, n_out):
    g = torch.Generator().manual_seed(seed)
    net = {name: torch.randn(shape, generator=g, dtype=torch.float64) / shape[0]**0.5 for name, shape in
           dict(x=(n, n_in), targ=(n, n_out), w1=(n_in, nh), b1=(nh,), w2=(nh, n_out), b2=(n_out,)).items()}
    results = []
    for lib in (TORCH, NUMPY):
        given = {name: lib.give(t) for name, t in net.items()}
        loss = lib.forward_and_backward(**given)
        hidden = lib.relu(lib.lin(given["x"], given["w1"], given["b1"]))
        layer, again = lib.Lin(given["w2"], given["b2"]), lib.lin(hidden, given["w2"], given["b2"])
        results.append([lib.take(x) for x in (loss, hidden, layer(hidden), lib.mse(again, given["targ"]), lib.einsum("ik,kj,ij->k", hidden, given["w2"], again),
                                              *(lib.matmul_einsum(a, given["w1"]) for a in [given["x"]]), *(given[name].g for name in ("x", "w1", "b1", "w2", "b2")))])
    for one, other in zip(*results): torch.testing.assert_close(one, other, atol=1e-12, rtol=1e-12)


@given(data=st.data(), shape=shapes())
def test_array_shares_memory_and_hands_on_no_gradient(data, shape):
    plain = data.draw(tensors(shape)).numpy().copy()
    x = gnp.asarray(plain)
    x.g = np.ones_like(plain)
    assert type(x) is gnp.Array and gnp.asarray(x) is x and x.shape == shape and (plain.size == 0 or np.shares_memory(x, plain))
    made = [x + 1, x * x, x[...], x.T, x.copy(), copy.copy(x), copy.deepcopy(x), x.sum(), x.reshape(-1), np.maximum(x, 0), x > 0, gnp.asarray(plain), gnp.relu(x)]
    for y in made: assert type(y) is gnp.Array and not hasattr(y, "g")
    x += 1
    assert hasattr(x, "g")


def test_asarray_takes_lists_numbers_and_tensors():
    tensor = torch.zeros(2)
    x = gnp.asarray(tensor)
    tensor[0] = 5
    assert x.tolist() == [5, 0] and x.dtype == np.float32
    assert gnp.asarray([[1, 2]]).shape == (1, 2) and gnp.asarray(2.5).shape == ()
    gnp.asarray(np.float64(2)).g = 1 # a number of NumPy's takes none


def arrays(*shapes): return [np.ones(shape) for shape in shapes]
def own(*shapes): return [gnp.asarray(x) for x in arrays(*shapes)]
def with_g(x): x.g = np.ones_like(x); return x


x, out, w, b = (3, 4), (3, 2), (4, 2), (2,)


@pytest.mark.parametrize("call, name", [
    (lambda: gnp.mse_grad(np.ones(3), np.ones(3)), "out"), (lambda: gnp.relu_grad(np.ones(3), with_g(*own(3))), "inp"),
    *((lambda n=n: gnp.lin_grad(*[t if i != n else np.array(t) for i, t in enumerate([*own(x), with_g(*own(out)), *own(w, b)])]), name)
      for n, name in {0: "inp", 2: "w", 3: "b"}.items()),
    *((lambda name=name, shape=shape: gnp.forward_and_backward(**dict(zip(("x", "targ", "w1", "b1", "w2", "b2"), own(x, 3, w, b, (2, 1), 1))) | {name: np.ones(shape)}), name)
      for name, shape in dict(x=x, w1=w, b1=b, w2=(2, 1), b2=1).items()),
])
def test_plain_arrays_take_no_gradient(call, name):
    with pytest.raises(AttributeError, match=rf"^{name} is a plain array, of shape \(.*\), and takes no attribute .g; groundup.numpy.asarray"): call()


@pytest.mark.parametrize("call", [lambda: gnp.relu_grad(*own(3), np.ones(3)), lambda: gnp.lin_grad(*own(x), *arrays(out), *own(w, b))])
def test_plain_outputs_have_no_gradient(call):
    with pytest.raises(AttributeError, match=r"^out, of shape \(.*\), has no gradient .g yet"): call()


def test_nothing_is_set_where_something_takes_no_gradient():
    given = own(x, out, w)
    with pytest.raises(AttributeError): gnp.lin_grad(given[0], with_g(given[1]), given[2], np.ones(b))
    assert not hasattr(given[0], "g") and not hasattr(given[2], "g")


def test_layers_of_plain_arrays_predict_and_say_what_they_need():
    layer = gnp.Lin(*arrays(w, b))
    result = layer(np.ones(x))
    assert type(result) is gnp.Array and (result == 5).all()
    result.g = np.ones(out)
    with pytest.raises(AttributeError, match="tensor is a plain array"): layer.backward()
    loss = gnp.Mse()(*arrays(3, 3)) # a number in NumPy, which takes no .g
    assert type(loss) is gnp.Array and loss.shape == ()


@pytest.mark.parametrize("call", [
    lambda t: gnp.relu(t), lambda t: gnp.lin(np.ones((2, 2)), t, np.ones(2)), lambda t: gnp.mse(t, np.ones((2, 2))), lambda t: gnp.matmul_rows(np.ones((2, 2)), t),
    lambda t: gnp.matmul_lists(t, np.ones((2, 2))), lambda t: gnp.einsum("ij->i", t), lambda t: gnp.numerical_grad(np.sum, t), lambda t: gnp.mse_grad(t, t),
    lambda t: gnp.normalize(t, np.ones(2), np.ones(2)), lambda t: gnp.Relu()(t),
])
def test_tensors_are_told_how_to_become_arrays(call):
    with pytest.raises(TypeError, match=r"Tensor, not an array; .*\.detach\(\)\.numpy\(\) makes one"): call(torch.ones(2, 2, dtype=torch.float64))


OPERANDS = dict(matmul_loops=(x, w), matmul_lists=(x, w), matmul_rows=(x, w), matmul_broadcast=(x, w), matmul_einsum=(x, w), lin=(x, w, b),
                relu=(x,), mse=(x, x), mse_grad=(x, x))


@pytest.mark.parametrize("name, at", [(name, at) for name, operands in OPERANDS.items() for at in range(len(operands))])
@pytest.mark.parametrize("odd, words", [(lambda shape: np.ma.masked_equal(np.ones(shape), 1), "MaskedArray, not an array; .*filled"),
                                        (lambda shape: np.ones(shape).view(np.matrix), "matrix, not an array; np.asarray")], ids=["masked", "matrix"])
def test_arrays_in_name_only_are_refused(name, at, odd, words):
    operands = own(*OPERANDS[name])
    operands[at] = odd(OPERANDS[name][at])
    with pytest.raises(TypeError, match=words): getattr(gnp, name)(*operands)


@pytest.mark.parametrize("odd", [np.ma.masked_equal(np.eye(2), 1), np.eye(2).view(np.matrix)], ids=["masked", "matrix"])
def test_einsum_and_differences_refuse_them_too(odd):
    for operands in [(odd,), (np.eye(2), odd)]:
        with pytest.raises(TypeError, match="not an array"): gnp.einsum(",".join(["ij"] * len(operands)) + "->ij", *operands)
    with pytest.raises(TypeError, match="not an array"): gnp.numerical_grad(np.sum, odd)


@pytest.mark.parametrize("rule", [gnp.lecun_normal, gnp.xavier_normal, gnp.kaiming_normal])
def test_draws_are_of_float64_and_differ_without_a_generator(rule):
    assert rule(2, 3).dtype == np.float64 and not np.array_equal(rule(2, 3), rule(2, 3))
    wide, narrow = (rule(20, 30, generator=np.random.default_rng(3), dtype=dtype) for dtype in (np.float64, np.float16))
    assert np.array_equal(wide.astype(np.float16), narrow) # the same numbers, rounded


def test_float64_hides_what_float32_shows():
    def of_std(std):
        def init(n_in, n_out, *, copies, generator, dtype): return (std * generator.standard_normal((copies, n_in, n_out))).astype(dtype or np.float64)
        return init
    few = dict(rows=20, seeds=20, generator=np.random.default_rng(0))
    large, small = gnp.propagate(of_std(1.0), **few).std[-1], gnp.propagate(of_std(0.01), **few).std[-1]
    assert ((1e49 < large) & (large < 1e51) & (1e-51 < small) & (small < 1e-49)).all()
    with np.errstate(all="ignore"): assert np.isnan(gnp.propagate(of_std(1.0), dtype=np.float32, **few).rms[-1]).all()
    assert (gnp.propagate(of_std(0.01), dtype=np.float32, **few).rms[-1] == 0).all()


def test_measuring_is_quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        stats = NUMPY.measure(np.array([[[np.inf, 1], [0, 0]], [[0, 0], [0, 0]]]))
    assert np.isnan(stats.cosine[1]) and stats.dead.tolist() == [0, 1]


@pytest.mark.parametrize("f, error, words", [(lambda t: t.astype(np.float32).sum(), TypeError, r"f\(x\) is float32"), (lambda t: t, ValueError, r"f\(x\) is \(2,\)")])
def test_numerical_grad_bad_functions(f, error, words):
    with pytest.raises(error, match=words): gnp.numerical_grad(f, np.ones(2))


def test_numerical_grad_bad_input_and_moved_copies():
    with pytest.raises(TypeError, match="x is float32"): gnp.numerical_grad(np.sum, np.ones(2, dtype=np.float32))
    with pytest.raises(TypeError, match="x is list, not an array"): gnp.numerical_grad(sum, [1.0])
    for step in (0, -1e-5, float("nan"), 1e-17, float("inf")):
        with pytest.raises(ValueError, match="step is"): gnp.numerical_grad(np.sum, np.ones(2), step=step)
    x = np.array([[3.0, 5.0]]).T
    def in_place(t):
        t *= 2
        return (t * x).sum()
    assert np.abs(gnp.numerical_grad(in_place, x) - 2 * x).max() < 1e-7 and x.tolist() == [[3.0], [5.0]]
    assert gnp.numerical_grad(lambda t: t, np.array(0.1)) == 1 and gnp.numerical_grad(float, np.array(0.1)) == 1
    assert gnp.numerical_grad(lambda t: t.sum(keepdims=True), np.ones((1, 1))).shape == (1, 1)


def test_einsum_gives_arrays_and_makes_its_plan_once():
    square = np.arange(9.0).reshape(3, 3)
    assert isinstance(gnp.einsum("ii->", square), np.ndarray) and type(gnp.einsum("ii->", gnp.asarray(square))) is gnp.Array
    plan.cache_clear()
    for _ in range(3): gnp.einsum("ik,kj->ij", square, square)
    assert plan.cache_info().misses == 1 and plan.cache_info().hits == 2


def test_half_precision_with_more_elements_than_it_counts():
    out, targ = (gnp.asarray(np.full(70_000, value, "float16")) for value in (1000.0, 0.0))
    gnp.mse_grad(out, targ)
    np.testing.assert_allclose(out.g.astype(float), 2000 / 70_000, rtol=0.01)
    fresh, loss_fn = gnp.asarray(np.array(out)), gnp.Mse()
    with np.errstate(over="ignore"): loss_fn(fresh, targ)
    loss_fn.backward()
    assert np.array_equal(fresh.g, out.g)


def test_weights_are_floats():
    with pytest.raises(TypeError, match="dtype is int64; weights are floats"): gnp.lecun_normal(2, 3, dtype=np.int64)


def test_einsum_of_a_number_says_how_to_make_an_array_of_it():
    with pytest.raises(TypeError, match=r"np.array\(operands\[0\]\) makes one"): gnp.einsum(",i->i", np.float64(2), np.ones(3))
    with pytest.raises(TypeError, match=r"operands\[1\].astype\(operands\[0\].dtype\)"): gnp.einsum("i,i->", np.ones(3), np.ones(3, "float32"))


@pytest.mark.parametrize("dtype, wide", [("int8", "int64"), ("bool", "int64"), ("uint8", "uint64"), ("uint64", "uint64"), ("float16", "float16")])
def test_sums_of_one_operand_are_as_wide_as_np_sum(dtype, wide):
    ones = np.ones((2, 3), dtype)
    for equation, operands, expected in [("ij->i", [ones], [3, 3]), ("ij->", [ones], 6), ("ij,jk->k", [ones, ones.T], [6, 6]),
                                         ("ij,jk,km->m", [ones, ones.T, ones], [12] * 3)]:
        result = gnp.einsum(equation, *operands)
        assert result.dtype == wide and result.tolist() == expected


def test_narrow_integers_beside_a_sum_do_not_overflow():
    large = np.full(2, 100, "int8") # cheapest is to multiply the last two first, whose product is no int8
    assert gnp.einsum("i,j,j->", large, large, large) == 200 * 20_000


def test_bools_beside_a_sum():
    mask = np.array([True, True])
    assert gnp.einsum("i,j->j", mask, mask).tolist() == [2, 2]
    assert gnp.einsum("i,j->", mask, mask) == 4
    for equation in ("i,j,j->", "j,j,i->"):
        with pytest.raises(TypeError, match="sums of products of bools"): gnp.einsum(equation, mask, mask, mask)


@each_library
@pytest.mark.parametrize("a, b, product", [([], [], []), ([], [[1, 2]], []), ([[], []], [], [[], []]), ([[1], [2]], [[]], [[], []])])
def test_matmul_of_empty_lists(lib, a, b, product):
    assert lib.matmul_lists(a, b) == product


@each_library
@pytest.mark.parametrize("a, b, words", [([[1]], [], "k is 1 in a but 0 in b"), ([[]], [[1]], "k is 0 in a but 1 in b"), ([[1], []], [[1]], "a has rows of 0 and 1")])
def test_matmul_of_empty_lists_that_do_not_fit(lib, a, b, words):
    with pytest.raises(ValueError, match=words): lib.matmul_lists(a, b)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int8, np.int64])
@pytest.mark.parametrize("name", ["matmul_loops", "matmul_lists", "matmul_rows", "matmul_broadcast", "matmul_einsum"])
def test_products_keep_the_dtype(name, dtype):
    result = getattr(gnp, name)(np.ones((2, 3), dtype), np.ones((3, 4), dtype))
    assert result.dtype == dtype and (result == 3).all()


@pytest.mark.parametrize("std", [[1, 0], [-1, 1], [np.nan, 1]])
def test_normalize_needs_a_std_above_0(std):
    with pytest.raises(ValueError, match=r"std is \[.*\]; it must be above 0"): gnp.normalize(np.ones((1, 2, 3, 3)), np.zeros(2), np.array(std, float))


def test_only_a_loss_begins_with_a_gradient_of_1():
    for shape in [(1,), (1, 1), (3,)]:
        relu, inp = gnp.Relu(), gnp.asarray(np.ones(shape))
        relu(inp)
        with pytest.raises(AttributeError, match="the output of Relu, of shape .*, has no gradient"): relu.backward()
        assert not hasattr(inp, "g")
    relu, inp = gnp.Relu(), gnp.asarray(np.float32(2))
    relu(inp)
    relu.backward()
    assert type(inp.g) is gnp.Array and inp.g == 1 and inp.g.dtype == np.float32


def test_layers_one_after_the_other_at_rank_0():
    model, inp = gnp.Model([gnp.Relu(), gnp.Relu()]), gnp.asarray(np.float32(2))
    model(inp)
    model.backward()
    assert inp.g == 1 and inp.g.dtype == np.float32


@pytest.mark.parametrize("shape", [(0, 1), (0,), (3, 0)])
@pytest.mark.filterwarnings("ignore:Mean of empty slice", "ignore:invalid value encountered")
def test_gradient_of_the_loss_of_nothing(shape):
    out, loss_fn = gnp.asarray(np.ones(shape)), gnp.Mse()
    gnp.mse_grad(out, np.ones(shape))
    assert out.g.shape == shape
    fresh = gnp.asarray(np.ones(shape))
    loss_fn(fresh, np.ones(shape))
    loss_fn.backward()
    assert fresh.g.shape == shape


def test_a_std_that_rounding_takes_below_0_is_0():
    values = np.linspace(0.1, 3, 100)
    x = np.broadcast_to(values[:, None, None], (100, 5, 7))
    std = NUMPY.measure(x).std
    assert (std < 1e-7).all() # and not nan


def test_relu_grad_at_rank_0():
    inp = gnp.asarray(np.float32(3))
    out = gnp.relu(inp)
    out.g = np.array(2, np.float32)
    gnp.relu_grad(inp, out)
    assert inp.g == 2 and inp.g.dtype == np.float32 and inp.g.shape == ()
