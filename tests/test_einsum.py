"`einsum` of tensors and of arrays against `torch.einsum` over generated equations, shapes, dtypes and layouts, and its errors."
import pytest, torch
from hypothesis import assume, given, settings, strategies as st
from torch.testing import assert_close

from groundup.einsum import _indices, _order, _sizes, einsum, plan
from libraries import each_library
from shapes import tensors

LETTERS = "abcAB"


@st.composite
def problems(draw, max_operands=4, sizes=st.integers(0, 3), fits=True):
    "An equation and the shapes of its operands, with repeats, '...', size 1, spaces and implicit results."
    size = {letter: draw(sizes) for letter in LETTERS}
    dots = draw(st.lists(st.integers(1, 3), max_size=2))
    terms, shapes = [], []
    for _ in range(draw(st.integers(1, max_operands))):
        term = draw(st.lists(st.sampled_from(LETTERS), max_size=3))
        ones = draw(st.sets(st.sampled_from(LETTERS), max_size=1))
        shape = [1 if letter in ones else size[letter] for letter in term]
        if draw(st.booleans()):
            at, skip = draw(st.integers(0, len(term))), draw(st.integers(0, len(dots)))
            term.insert(at, "...")
            shape[at:at] = dots[skip:]
        terms.append(draw(st.sampled_from(["", " "])).join(term)), shapes.append(tuple(shape))
    equation = ",".join(terms)
    if draw(st.booleans()):
        used = sorted(set(equation) & set(LETTERS))
        output = draw(st.permutations(used))[:draw(st.integers(0, len(used)))]
        if draw(st.booleans()): output.insert(draw(st.integers(0, len(output))), "...")
        equation += "->" + "".join(output)
    return equation, shapes


@each_library
@given(data=st.data(), problem=problems(), dtype=st.sampled_from([torch.float32, torch.float64, torch.int64, torch.complex128]))
@settings(max_examples=400)
def test_equals_torch(lib, data, problem, dtype):
    equation, shapes = problem
    operands = [data.draw(tensors(shape, dtype)) for shape in shapes]
    try: expected = torch.einsum(equation, *operands)
    except RuntimeError: # what torch refuses, we refuse
        with pytest.raises(ValueError): lib.einsum(equation, *map(lib.give, operands))
        return
    scale = max([1.0, *(x.abs().max().item() ** len(operands) for x in operands if x.numel())])
    terms = max([1, *(x.numel() for x in operands)]) ** 2
    assert_close(lib.take(lib.einsum(equation, *map(lib.give, operands))), expected, rtol=0,
                 atol={torch.float32: 1e-6, torch.int64: 0}.get(dtype, 1e-14) * scale * terms)


@each_library
@given(data=st.data(), problem=problems(max_operands=2, sizes=st.integers(1, 3)), dtype=st.sampled_from([torch.int8, torch.int32]))
def test_narrow_integers_keep_torch_dtype(lib, data, problem, dtype):
    equation, shapes = problem
    operands = [data.draw(tensors(shape, dtype)).clamp(-1, 1) for shape in shapes]
    try: expected = torch.einsum(equation, *operands)
    except RuntimeError: assume(False) # torch mixes its own int64 sums with narrow operands and gives up; we go on
    result = lib.take(lib.einsum(equation, *map(lib.give, operands)))
    assert result.dtype == expected.dtype and torch.equal(result, expected)


@each_library
@pytest.mark.parametrize("equation, shape", [("ij->", (1, 1)), ("ii", (1, 1)), ("ij->i", (2, 1)), ("ij->i", (2, 3))])
def test_a_sum_is_a_sum_at_size_1(lib, equation, shape):
    "The dtype of a result does not hang on sizes."
    x = torch.ones(shape, dtype=torch.int8)
    result = lib.take(lib.einsum(equation, lib.give(x)))
    assert result.dtype == torch.int64 and torch.equal(result, torch.einsum(equation, x))


@each_library
def test_narrow_integers_where_torch_gives_up(lib):
    x = torch.arange(6, dtype=torch.int32).reshape(2, 3)
    with pytest.raises(RuntimeError, match="scalar type"): torch.einsum("ij,jk->k", x, x.t())
    result = lib.take(lib.einsum("ij,jk->k", lib.give(x), lib.give(x.t())))
    assert result.dtype == torch.int64 and torch.equal(result, torch.einsum("ij,jk->k", x.long(), x.t().long()))


@given(st.data(), problems(sizes=st.integers(1, 3)))
@settings(max_examples=100)
def test_gradients_equal_torch(data, problem):
    equation, shapes = problem
    operands = [data.draw(tensors(shape)).detach().requires_grad_() for shape in shapes]
    try: expected = torch.einsum(equation, *operands)
    except RuntimeError: assume(False)
    ours = torch.autograd.grad(einsum(equation, *operands).sin().sum(), operands)
    for one, other in zip(ours, torch.autograd.grad(expected.sin().sum(), operands)): assert_close(one, other, atol=1e-9, rtol=1e-9)


@each_library
@pytest.mark.parametrize("equation, word", [
    ("i?,jk", "'?' at position 1"), ("ij,jk->i1", "'1' at position 8"), ("i.j", "'.' at position 1"), ("i..j", "'.' at position 1"),
    ("...i...", "'...' at position 4"), ("ij->i->j", "'->' at position 5"), ("ij- >i", "'-' at position 2"), ("ij>i", "'>' at position 2"),
    ("ij->i,", "','"), ("é", "'é' at position 0"), ("ij\n->i", "'\\n' at position 2"), (". . .", "'.' at position 0"),
])
def test_unreadable_equations(lib, equation, word):
    with pytest.raises(ValueError) as raised: lib.einsum(equation, lib.give(torch.ones(2, 3)), lib.give(torch.ones(3, 4)))
    assert word in str(raised.value) and repr(equation) in str(raised.value)
    with pytest.raises(RuntimeError): torch.einsum(equation, torch.ones(2, 3), torch.ones(3, 4))


a, b = torch.ones(2, 3), torch.ones(4, 5)


@each_library
@pytest.mark.parametrize("equation, operands, error, words", [
    ("ij,jk", (a, b), ValueError, ["'j'", "(2, 3)", "(4, 5)", "must be equal, or one of them 1"]),
    ("...i,...i", (torch.ones(2, 3), torch.ones(4, 3)), ValueError, ["axis -1 of '...'", "(2, 3)", "(4, 3)"]),
    ("ii", (a,), ValueError, ["'i'", "2 and 3", "(2, 3)"]),
    ("ii", (torch.ones(1, 3),), ValueError, ["(1, 3)"]),
    ("i", (a,), ValueError, ["'i' is for an operand of rank 1", "(2, 3)"]),
    ("ijk", (a,), ValueError, ["'ijk' is for an operand of rank 3", "(2, 3)"]),
    ("ij...k", (a,), ValueError, ["'ij...k' is for an operand of rank 3 or more", "(2, 3)"]),
    ("ij,jk", (a,), ValueError, ["takes 2 operands, but got 1", "(2, 3)"]),
    ("ij->iz", (a,), ValueError, ["'z'", "no operand"]),
    ("ij->ii", (a,), ValueError, ["'i' appears twice"]),
    ("ij->......", (a,), ValueError, ["'...' at position 7"]),
    ("ij,jk", (a, torch.ones(3, 4).double()), TypeError, ["operands[0] is torch.float32 but operands[1] is torch.float64"]),
    ("i,j->ij", (a[0], a[0].double()), TypeError, ["torch.float64"]),
    ("ij,jk", (a, torch.ones(3, 4, device="meta")), TypeError, ["operands[0] is on cpu but operands[1] is on meta"]),
    ("ij,j", (a, [1, 2, 3]), TypeError, ["list"]),
    ("ij", (), TypeError, ["at least one tensor"]),
    (a, ("ij",), TypeError, ["the equation first"]),
    *((equation, (a > 0, a > 0), TypeError, ["torch.bool", "x.int()"]) for equation in ("ij,ij->", "ij,kj->ik", "ij,ij->i", "ij,ij->j")),
])
def test_bad_input(lib, equation, operands, error, words):
    equation, operands = lib.give(equation), list(map(lib.give, operands))
    with pytest.raises(error) as raised: lib.einsum(equation, *operands)
    for word in lib.says(words): assert word in str(raised.value)


@each_library
def test_bools_where_nothing_is_summed(lib):
    mask = lib.give(a > 0)
    assert torch.equal(lib.take(lib.einsum("ij,ij->ij", mask, mask)), a > 0)


@each_library
def test_transposes_and_diagonals_are_views(lib):
    square = torch.rand(3, 3)
    given = lib.give(square)
    views = {equation: lib.einsum(equation, given) for equation in ("ij->ji", "ii->i", "ij->ij")}
    square += 1 # in place
    for equation, view in views.items(): assert torch.equal(lib.take(view), torch.einsum(equation, square))


def test_dtypes_of_the_field():
    x, y = torch.randn(4, 5), torch.randn(5, 6)
    for dtype in (torch.float16, torch.bfloat16, torch.complex64):
        assert_close(einsum("ij,jk", x.to(dtype), y.to(dtype)), torch.einsum("ij,jk", x.to(dtype), y.to(dtype)))


def test_second_derivatives_and_vmap():
    x, y = (torch.randn(3, 3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradgradcheck(lambda x, y: einsum("ij,jk,ki->i", x, y, x), (x, y))
    batch = torch.randn(5, 3, 4)
    assert_close(torch.func.vmap(lambda m: einsum("ij,kj->ik", m, m))(batch), batch @ batch.transpose(1, 2))


def path_cost(order, operands, output, sizes):
    "What it costs to multiply `operands` in `order`, counted independently of the code under test."
    indices, total = {(n,): set(o) for n, o in enumerate(operands)}, 0
    for one, other in order:
        joined = indices.pop(one) | indices.pop(other)
        total += torch.tensor([sizes[i] for i in joined], dtype=torch.float64).prod().item()
        indices[tuple(sorted(one + other))] = joined & set(output).union(*indices.values())
    return total


def every_order(groups):
    "All orders in which to multiply `groups`, pair by pair."
    if len(groups) == 1: yield []
    for i, one in enumerate(groups):
        for other in groups[i + 1:]:
            rest = [g for g in groups if g not in (one, other)] + [tuple(sorted(one + other))]
            for order in every_order(rest): yield [(one, other), *order]


@given(problems(max_operands=5, sizes=st.integers(2, 9)))
@settings(max_examples=50)
def test_no_order_is_cheaper(problem):
    equation, shapes = problem[0], [torch.Size(shape) for shape in problem[1]]
    try: plan(torch, equation, *shapes)
    except ValueError: assume(False)
    operands, output = _indices(equation, shapes)
    sizes = _sizes(operands, shapes)
    everything = {i for indices in operands for i in indices}
    alone = {i for i in everything - set(output) if sum(i in indices for indices in operands) == 1}
    operands = [[i for i in dict.fromkeys(indices) if i not in alone] for indices in operands]
    ours = path_cost(_order(operands, output, sizes), operands, output, sizes)
    assert ours == min(path_cost(order, operands, output, sizes) for order in every_order([(n,) for n in range(len(operands))]))


@given(st.lists(st.lists(st.sampled_from(LETTERS), max_size=3, unique=True), min_size=9, max_size=12))
@settings(max_examples=50)
def test_beyond_eight_operands_the_order_multiplies_all(operands):
    order = _order(operands, [], {letter: 2 + n for n, letter in enumerate(LETTERS)})
    assert len(order) == len(operands) - 1 and sorted(sum(order[-1], ())) == [*range(len(operands))]


@each_library
def test_many_operands(lib):
    operands = [lib.give(torch.full((2,), 2.0)) for _ in range(30)]
    assert lib.einsum(",".join("i" * 30) + "->", *operands) == 2.0**31


@pytest.mark.parametrize("equation, shapes, operation", [("ik,kj->ij", [(2, 3), (3, 4)], "mm"), ("ik,k", [(2, 3), (3,)], "matmul"), ("i,i", [(3,), (3,)], "matmul"),
                                                          ("bik,bkj->bij", [(2, 3, 4), (2, 4, 5)], "bmm"), ("ij,ij->ij", [(2, 3), (2, 3)], "mul")])
def test_a_plan_adds_nothing_to_an_operation_that_fits(equation, shapes, operation):
    assert plan(torch, equation, *map(torch.Size, shapes)) is getattr(torch, operation)


def test_the_plan_is_made_once():
    plan.cache_clear()
    for _ in range(3): einsum("ik,kj->ij", a, a.t())
    assert plan.cache_info().misses == 1 and plan.cache_info().hits == 2


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("equation, shapes", [("ik,kj->ij", [(2, 3), (3, 4)]), ("bi,ij,bj->b", [(2, 3), (3, 4), (2, 4)]), ("ii->i", [(3, 3)]), ("...i,i", [(2, 3, 4), (4,)]), ("ij->ji", [(2, 3)])])
def test_compiled_in_one_graph(equation, shapes, dynamic):
    torch.compiler.reset() # a function is compiled again a few times only
    operands = [torch.randn(shape, generator=torch.Generator().manual_seed(0)) for shape in shapes]
    compiled = torch.compile(lambda *operands: einsum(equation, *operands), fullgraph=True, backend="eager", dynamic=dynamic)
    assert_close(compiled(*operands), torch.einsum(equation, *operands))


def test_mixed_floats_under_autocast():
    half = a.bfloat16()
    with torch.autocast("cpu"): assert_close(einsum("ij,kj->ik", half, torch.ones(4, 3)).float(), torch.full((2, 4), 3.0))
    with pytest.raises(TypeError, match="torch.bfloat16"): einsum("ij,kj->ik", half, torch.ones(4, 3))
