"The matrix products of lessons 1 to 3, on tensors and on arrays, against torch's, over generated sizes, dtypes and layouts."
import pytest, torch
from hypothesis import given, settings, strategies as st
from torch.testing import assert_close

from groundup.matmul import dense, neuron
from libraries import TORCH, each_library
from shapes import DTYPES, FLOATS, SIZES, tensors, tolerance

MATMULS = ["matmul_loops", "matmul_lists", "matmul_rows", "matmul_broadcast", "matmul_einsum"]
each_matmul = pytest.mark.parametrize("matmul", MATMULS)


@each_library
@each_matmul
@given(data=st.data(), n=SIZES, k=SIZES, m=SIZES, dtype=DTYPES)
@settings(max_examples=60)
def test_equals_torch(lib, matmul, data, n, k, m, dtype):
    a, b = data.draw(tensors((n, k), dtype)), data.draw(tensors((k, m), dtype))
    product = getattr(lib, matmul)(lib.give(a), lib.give(b))
    assert_close(lib.take(product), a @ b, **tolerance(dtype))


@each_library
@each_matmul
def test_operands_are_left_alone(lib, matmul):
    a, b = torch.rand(2, 3), torch.rand(3, 4)
    before = a.clone(), b.clone()
    getattr(lib, matmul)(lib.give(a), lib.give(b)) # which share the memory of a and b
    assert torch.equal(a, before[0]) and torch.equal(b, before[1])


@pytest.mark.parametrize("matmul", [name for name in MATMULS if name != "matmul_lists"])
def test_gradients(matmul):
    a, b = (torch.rand(shape, dtype=torch.float64, requires_grad=True) for shape in [(2, 3), (3, 4)])
    assert torch.autograd.gradcheck(getattr(TORCH, matmul), (a, b))


@each_library
@each_matmul
@pytest.mark.parametrize("a, b, error, words", [
    (torch.ones(2, 3), torch.ones(4, 5), ValueError, ["a is (2, 3)", "b is (4, 5)", "k is 3 in a but 4 in b"]),
    (torch.ones(2, 3), torch.ones(4, 3), ValueError, ["(2, 3)", "(4, 3)", "b.t() is (3, 4), which fits"]),
    (torch.ones(3), torch.ones(3, 4), ValueError, ["a (n, k) and b (k, m)", "a is (3,)", "a has rank 1"]),
    (torch.ones(2, 2, 3), torch.ones(3, 4), ValueError, ["(2, 2, 3)", "(3, 4)"]),
    (torch.ones(2, 3), torch.ones(3, 4).double(), TypeError, ["a is torch.float32 but b is torch.float64", "b.to(a.dtype)"]),
    (torch.ones(2, 3), torch.ones(3, 4, device="meta"), TypeError, ["a is on cpu but b is on meta"]),
    (torch.ones(2, 3), [[1.0]], TypeError, ["b is list, not a tensor"]),
], ids=["sizes", "transposed", "vector", "rank 3", "dtypes", "devices", "list"])
def test_bad_input(lib, matmul, a, b, error, words):
    a, b = lib.give(a), lib.give(b)
    with pytest.raises(error) as raised: getattr(lib, matmul)(a, b)
    for word in lib.says(words): assert word in str(raised.value)


def test_784_terms_stay_within_the_rounding_bound():
    "An order of summation may use all of 784 * 2^-24 of the absolute terms, and none more; one sum per seed, 200 seeds."
    for seed in range(200):
        generator = torch.Generator().manual_seed(seed)
        a, b = torch.rand(5, 784, generator=generator), torch.randn(784, 10, generator=generator)
        c = torch.zeros(5, 10)
        for k in range(784): c += a[:, k, None] * b[k] # the order in which three loops add
        bound = 1.01 * 784 * 2**-24 * (a.double().abs() @ b.double().abs())
        assert ((c.double() - a.double() @ b.double()).abs() <= bound).all()


@given(data=st.data(), n=SIZES, k=SIZES, m=SIZES, dtype=st.sampled_from(FLOATS))
@settings(max_examples=60)
def test_dense_equals_torch(data, n, k, m, dtype):
    x, w, b = (data.draw(tensors(shape, dtype)) for shape in [(n, k), (k, m), (m,)])
    result = torch.tensor(dense(x.tolist(), w.tolist(), b.tolist()), dtype=dtype).reshape(n, m)
    assert_close(result, x @ w + b, **tolerance(dtype))


@given(st.lists(st.integers(-9, 9)), st.lists(st.integers(-9, 9)), st.integers(-9, 9))
def test_neuron(inputs, weights, bias):
    if len(inputs) == len(weights):
        assert neuron(inputs, weights, bias) == sum(inputs[i] * weights[i] for i in range(len(inputs))) + bias
    else:
        with pytest.raises(ValueError, match=f"n_in is {len(inputs)} in inputs but {len(weights)} in weights"): neuron(inputs, weights, bias)


@each_library
@pytest.mark.parametrize("a, b, words", [
    ([[1, 2]], [[1, 2]], ["(1, 2)"]), ([[1, 2], [3]], [[1], [2]], ["a has rows of 1 and 2 elements"]), ([[1, 2]], [[1, 2, 3]] * 3, ["k is 2 in a but 3 in b"]),
])
def test_lists_that_do_not_fit(lib, a, b, words):
    with pytest.raises(ValueError) as raised: lib.matmul_lists(a, b)
    for word in words: assert word in str(raised.value)
