"Broadcasting against torch and NumPy, and the functions built on it."
import re

import numpy as np, pytest, torch
from hypothesis import assume, given, settings, strategies as st
from torch.autograd.profiler import profile
from torch.testing import assert_close

from groundup.broadcasting import broadcast_shape, explain_broadcast, normalize
from libraries import each_library
from shapes import shapes


@given(shapes(5), shapes(5))
@settings(max_examples=500)
def test_shape_equals_torch_and_numpy(a, b):
    try: expected = tuple(torch.broadcast_shapes(a, b))
    except RuntimeError:
        with pytest.raises(ValueError): np.broadcast_shapes(a, b)
        with pytest.raises(ValueError) as raised: broadcast_shape(a, b)
        assert str(a) in str(raised.value) and str(b) in str(raised.value)
        assert explain_broadcast(a, b).shape is None
    else: assert broadcast_shape(a, b) == np.broadcast_shapes(a, b) == expected == explain_broadcast(a, b).shape


@given(shapes(5), shapes(5))
@settings(max_examples=500)
def test_a_hint_is_given_where_one_works(a, b):
    try: broadcast_shape(a, b)
    except ValueError as error: message = str(error)
    else: return
    name, short, long = ("a", a, b) if len(a) < len(b) else ("b", b, a)
    def fits(new):
        try: torch.broadcast_shapes(short + (1,) * new, long)
        except RuntimeError: return False
        return True
    hint = re.search(r"; (.)(\[.*\]) has shape (\(.*\)), which fits$", message)
    assert (hint is not None) == any(map(fits, range(1, len(long) - len(short) + 1)))
    assert repr(explain_broadcast(a, b)).splitlines()[-1] == "they do not fit" + (hint[0] if hint else "")
    if hint:
        extended = eval(f"operand{hint[2]}", {"operand": torch.empty(short)})
        assert hint[1] == name and hint[3] == str(tuple(extended.shape))
        assert broadcast_shape(extended.shape, long) == torch.broadcast_shapes(extended.shape, long)


def test_every_kind_of_shape():
    for a in [(2, 1), [2, 1], torch.Size((2, 1)), np.array([2, 1]).tolist(), (np.int64(2), np.int32(1))]:
        assert broadcast_shape(a, (3,)) == broadcast_shape((3,), a) == explain_broadcast(a, [3]).shape == (2, 3)


@pytest.mark.parametrize("bad", [torch.ones(2, 3), 3, (2, -1), (2.0, 3), (True, 3), "23", b"23", None], ids=repr)
def test_not_a_shape(bad):
    for function in [broadcast_shape, explain_broadcast]:
        with pytest.raises((TypeError, ValueError), match="a_shape is"): function(bad, (3,))
        with pytest.raises((TypeError, ValueError), match="b_shape is"): function((3,), bad)


@given(shapes(4), shapes(4))
def test_explanation_follows_each_axis(a, b):
    explained = explain_broadcast(a, b)
    rows, notes = repr(explained).splitlines()[:4], repr(explained).splitlines()[4:]
    rank = max(len(a), len(b))
    sizes = list(zip(*((1,) * (rank - len(shape)) + shape for shape in (a, b))))
    assert rows[0].split() == ["a", *map(str, a)] and rows[1].split() == ["b", *map(str, b)]
    assert rows[3].split() == ["result", *("x" if x != y and 1 not in (x, y) else str(y if x == 1 else x) for x, y in sizes)]
    assert sum("clash" in note for note in notes) == sum(x != y and 1 not in (x, y) for x, y in sizes)
    assert sum("stretches" in note for note in notes) == sum(x != y and 1 in (x, y) for x, y in sizes)
    assert sum("has none" in note for note in notes) == sum(size != 1 for size in (max(a, b, key=len)[:rank - min(len(a), len(b))]))
    for note in notes: assert f"<li>{note}</li>" in explained._repr_html_()
    assert explained._repr_html_().count("<td>") == 3 * max(rank, 1)


def test_explanation_shows_sizes_and_outcome():
    text, html = repr(explain_broadcast((5, 1, 3), (4, 3))), explain_broadcast((5, 1, 3), (4, 3))._repr_html_()
    for shown in (text, html):
        for size in "5134": assert size in shown
        assert "stretch" in shown
    assert "clash" in repr(explain_broadcast((3,), (4,))).lower() and "clash" in explain_broadcast((3,), (4,))._repr_html_().lower()


@each_library
@given(n=st.integers(0, 4), c=st.integers(1, 4), h=st.integers(0, 4), w=st.integers(0, 4), dtype=st.sampled_from([torch.float32, torch.float64]))
def test_normalize_by_channel(lib, n, c, h, w, dtype):
    images = torch.rand(n, c, h, w, dtype=dtype)
    mean, std = torch.rand(c, dtype=dtype), torch.rand(c, dtype=dtype) + 0.5
    result = lib.take(lib.normalize(*map(lib.give, (images, mean, std))))
    assert result.dtype == dtype and result.shape == images.shape
    for channel in range(c): assert_close(result[:, channel], (images[:, channel] - mean[channel]) / std[channel])


good = torch.rand(8, 3, 5, 3), torch.zeros(3), torch.ones(3)


@each_library
@pytest.mark.parametrize("change, error, word", [
    ({0: good[0][0]}, ValueError, "(3, 5, 3)"), ({1: torch.zeros(4)}, ValueError, "(4,)"), ({2: torch.ones(3, 1)}, ValueError, "(3, 1)"),
    ({0: (good[0] * 255).byte()}, TypeError, "uint8"), ({2: torch.zeros(3)}, ValueError, "std"), ({2: -torch.ones(3)}, ValueError, "std"),
    ({1: torch.zeros(3).double()}, TypeError, "float64"), ({1: torch.zeros(3, device="meta")}, TypeError, "meta"), ({1: [0.0] * 3}, TypeError, "list"),
])
def test_normalize_bad_input(lib, change, error, word):
    arguments = [lib.give(change.get(n, x)) for n, x in enumerate(good)]
    with pytest.raises(error) as raised: lib.normalize(*arguments)
    assert word in str(raised.value)


def test_normalize_leaves_images_alone_and_differentiates():
    images = torch.rand(2, 3, 4, 3, dtype=torch.float64, requires_grad=True)
    before, std = images.detach().clone(), torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)
    normalize(images, torch.zeros(3, dtype=torch.float64), std).sum().backward()
    assert torch.equal(images.detach(), before)
    assert_close(images.grad, (1 / std)[:, None, None].expand_as(images))


def test_normalize_compiled_and_batched():
    images, mean, std = good
    assert_close(torch.compile(normalize, fullgraph=True, backend="eager")(images, mean, std), normalize(images, mean, std))
    assert_close(torch.vmap(normalize, (0, None, None))(images[None], mean, std)[0], normalize(images, mean, std))
    with pytest.raises(ValueError, match="above 0"): normalize(images, mean, std * float("nan"))


# What the lesson says of PyTorch, for any shapes and numbers


def operations(function):
    with profile(use_kineto=False) as recorded: function()
    return [event.name.removeprefix("aten::") for event in recorded.function_events]


def bytes_allocated(function):
    function()
    with profile(use_kineto=False, profile_memory=True) as recorded: function()
    return sum(max(event.self_cpu_memory_usage, 0) for event in recorded.key_averages())


@given(shapes(3), shapes(3))
@settings(max_examples=50)
def test_an_addition_is_one_operation(a, b):
    try: broadcast_shape(a, b)
    except ValueError: assume(False)
    x, y = torch.rand(a), torch.rand(b)
    assert operations(lambda: x + y) == ["add"]


def test_other_operations_expand():
    x, y = torch.rand(3), torch.rand(3, 3)
    assert "expand" in operations(lambda: torch.addmm(x, y, y))
    assert "expand_as" in operations(lambda: y + x.expand_as(y))


@given(st.integers(2, 40), st.integers(2, 40))
@settings(max_examples=30)
def test_memory_of_broadcasting(n, m):
    x, row = torch.rand(n, m), torch.rand(m)
    assert bytes_allocated(lambda: row.expand_as(x)) == 0
    assert bytes_allocated(lambda: x > 0) == n * m
    for function in [lambda: x + row, lambda: row.expand_as(x).clone(), lambda: torch.zeros_like(x)]: assert bytes_allocated(function) == 4 * n * m
    assert row.expand_as(x).stride() == (0, 1) and x[:, :1].expand_as(x).stride() == (m, 0) and x.t().stride() == (1, m)
    assert not x.t().is_contiguous() and not row.expand_as(x).is_contiguous()
    with pytest.raises(RuntimeError, match="view size"): x.t().view(-1)
    with pytest.raises(RuntimeError, match="single memory location"): row.expand_as(x).add_(1)


@given(st.integers(0, 2**16), st.integers(2, 6))
def test_means_of_rows(seed, n):
    x = torch.randn(n, n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    close = dict(atol=1e-13, rtol=0)
    assert_close((x - x.mean(dim=1)).mean(dim=1), x.mean(dim=1) - x.mean(), **close)
    for means in [x.mean(dim=1)[:, None], x.mean(dim=1, keepdim=True)]: assert_close((x - means).mean(dim=1), x.new_zeros(n), **close)


@given(st.integers(0, 2**16))
def test_images_as_wide_as_they_have_channels(seed):
    generator = torch.Generator().manual_seed(seed)
    narrow = torch.rand(8, 3, 5, 3, generator=generator)
    mean = narrow.mean(dim=(0, 2, 3))
    assert (narrow - mean[:, None, None]).mean(dim=(0, 2, 3)).abs().max() < 1e-6
    assert_close((narrow - mean).mean(dim=(0, 2, 3)), mean - mean.mean(), atol=1e-6, rtol=0)
