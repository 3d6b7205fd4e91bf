"Broadcasting against torch and NumPy, and the functions built on it."
import numpy as np, pytest, torch
from hypothesis import given, settings, strategies as st
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


def test_a_hint_that_is_given_works():
    with pytest.raises(ValueError, match="None"): broadcast_shape((3, 4), (3,))
    assert broadcast_shape((3, 4), (3, 1)) == (3, 4)


@pytest.mark.parametrize("bad", [torch.ones(2, 3), 3, (2, -1), (2.0, 3), "23", None], ids=repr)
def test_no_shape(bad):
    with pytest.raises((TypeError, ValueError)): broadcast_shape(bad, (3,))
    with pytest.raises((TypeError, ValueError)): broadcast_shape((3,), bad)
    with pytest.raises((TypeError, ValueError)): explain_broadcast(bad, (3,))


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
