"Convolutions and patches beside torch's, over generated sizes and settings, with their gradients, memory and errors."
import pytest, torch
import torch.nn.functional as F
from hypothesis import given, settings, strategies as st
from torch import nn
from torch.testing import assert_close

import groundup.conv
from groundup.conv import Conv2d, conv2d, unfold

pair = lambda low, high: st.integers(low, high) | st.tuples(st.integers(low, high), st.integers(low, high))
both = lambda value: (value, value) if isinstance(value, int) else value


def normal(draw, *shape, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(draw(st.integers(0, 2**16))), dtype=torch.float64).to(dtype)


@st.composite
def convolutions(draw, dtype=torch.float64):
    "Images, kernels, biases or None, and settings, of which some give no output."
    groups, c, o = draw(st.integers(1, 3)), draw(st.sampled_from([1, 2, 5, 7, 8])), draw(st.integers(1, 3))
    x = normal(draw, draw(st.integers(0, 3)), groups * c, draw(st.integers(1, 9)), draw(st.integers(1, 9)), dtype=dtype)
    w = normal(draw, groups * o, c, draw(st.integers(1, 4)), draw(st.integers(1, 4)), dtype=dtype)
    if draw(st.booleans()): x = x.transpose(2, 3).contiguous().transpose(2, 3) # the same numbers, laid out otherwise
    b = normal(draw, groups * o, dtype=dtype) if draw(st.booleans()) else None
    return (x, w, b), dict(stride=draw(pair(1, 4)), padding=draw(pair(0, 3)), dilation=draw(pair(1, 3)), groups=groups)


@given(convolutions())
@settings(max_examples=150)
def test_conv2d_and_its_gradients_equal_torch(problem):
    (x, w, b), kind = problem
    ours, theirs = ([t.clone().requires_grad_() for t in (x, w, b) if t is not None] for _ in range(2))
    try: expected = F.conv2d(*theirs, **kind)
    except RuntimeError as error:
        assert "Kernel size can't be greater" in str(error)
        with pytest.raises(ValueError, match="and fits nowhere"): conv2d(*ours, **kind)
        return
    result = conv2d(*ours, **kind)
    assert_close(result, expected, atol=1e-12, rtol=0, check_stride=False)
    g = torch.randn(expected.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for one, other in zip(torch.autograd.grad(result, ours, g), torch.autograd.grad(expected, theirs, g)): assert_close(one, other, atol=1e-11, rtol=0)


@given(convolutions(torch.float32))
def test_float32_and_inputs_left_alone(problem):
    (x, w, b), kind = problem
    before = [t.clone() for t in (x, w)]
    try: expected = F.conv2d(x, w, b, **kind)
    except RuntimeError: return
    assert_close(conv2d(x, w, b, **kind), expected, atol=2e-5, rtol=0, check_stride=False)
    assert torch.equal(x, before[0]) and torch.equal(w, before[1])


@given(st.data(), pair(1, 3), pair(1, 3), pair(1, 3))
def test_unfold_equals_torch_and_is_a_view(data, kernel, stride, dilation):
    x = normal(data.draw, *(data.draw(st.integers(low, high)) for low, high in [(1, 3), (1, 3), (1, 9), (1, 9)]))
    if data.draw(st.booleans()): x = x.transpose(2, 3)
    x = x[:, :, data.draw(st.integers(0, 1)) if x.shape[2] > 1 else 0:] # not from the beginning of its memory
    room = [size - d * (k - 1) - 1 for size, k, d in zip(x.shape[2:], both(kernel), both(dilation))]
    if min(room) < 0:
        with pytest.raises(ValueError, match="fits nowhere"): unfold(x, kernel, stride=stride, dilation=dilation)
        return
    patches = unfold(x, kernel, stride=stride, dilation=dilation)
    assert patches.untyped_storage().data_ptr() == x.untyped_storage().data_ptr() and patches.data_ptr() == x.data_ptr()
    assert torch.equal(patches.flatten(1, 3).flatten(2), F.unfold(x, kernel, stride=stride, dilation=dilation))
    leaf, known = x.clone().requires_grad_(), x.clone().requires_grad_()
    g = torch.randn(patches.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    one, = torch.autograd.grad(unfold(leaf, kernel, stride=stride, dilation=dilation), leaf, g)
    other, = torch.autograd.grad(F.unfold(known, kernel, stride=stride, dilation=dilation), known, g.flatten(1, 3).flatten(2))
    assert_close(one, other, atol=1e-12, rtol=0)


@pytest.mark.parametrize("channels", [2, 8])
def test_no_copy_of_patches_is_made(channels):
    "With many channels, all that is made is a few times the images; patches would be 25 times as much."
    x, w = torch.randn(4, channels, 40, 40), torch.randn(channels, channels, 5, 5)
    with torch.profiler.profile(profile_memory=True, activities=[torch.profiler.ProfilerActivity.CPU]) as profile: conv2d(x, w, padding=2)
    made = sum(max(0, event.self_cpu_memory_usage) for event in profile.key_averages())
    size = x.numel() * 4
    assert made < 4 * size if channels == 8 else 25 * size < made # with few, the copy is what makes it fast


def test_gradcheck_and_what_it_cannot():
    for groups in (1, 2):
        t = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in [(1, 8, 4, 3), (2, 8 // groups, 3, 2), (2,)]]
        assert torch.autograd.gradcheck(lambda *t: conv2d(*t, stride=(2, 1), padding=1, groups=groups), t)
    g, = torch.autograd.grad(conv2d(*t, groups=2).square().sum(), t[0], create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"): g.sum().backward()
    with pytest.raises(RuntimeError, match="vmap"): torch.func.vmap(lambda one: conv2d(one[None], t[1], groups=2))(t[0])
    x, w = t[0].detach(), t[1].detach() # torch.func takes tensors that do not require a gradient
    ours, theirs = (torch.func.grad(lambda w: conv(x, w, groups=2).square().sum())(w) for conv in (conv2d, F.conv2d))
    assert_close(ours, theirs, atol=1e-10, rtol=0)


@pytest.mark.parametrize("channels", [5, 9])
@pytest.mark.parametrize("asked", [(0,), (1,), (2,), (0, 1), (1, 2), (0, 1, 2)])
def test_only_what_is_asked_for(channels, asked, monkeypatch):
    called = []
    for name in ("_input_grad", "_weight_grad", "_spread"):
        def counted(*args, name=name, original=getattr(groundup.conv, name)):
            called.append(name)
            return original(*args)
        monkeypatch.setattr(groundup.conv, name, counted)
    t = [torch.randn(shape) for shape in [(2, channels, 6, 6), (3, channels, 3, 3), (3,)]]
    for n in asked: t[n].requires_grad_()
    conv2d(*t).sum().backward()
    assert sorted(called) == ["_input_grad"] * (0 in asked) + ["_spread"] * (asked != (2,)) + ["_weight_grad"] * (1 in asked)
    assert not conv2d(*(one.detach() for one in t)).requires_grad


@pytest.mark.parametrize("channels, groups, way", [(7, 1, "_flattened"), (8, 1, "_shifted"), (7, 2, "_flattened"), (8, 2, "_shifted"), (1, 8, "_flattened")])
def test_which_way(channels, groups, way, monkeypatch):
    called = []
    for name in ("_flattened", "_shifted"):
        monkeypatch.setattr(groundup.conv, name, lambda *args, name=name, original=getattr(groundup.conv, name): (called.append(name), original(*args))[1])
    conv2d(torch.ones(1, channels * groups, 3, 3), torch.ones(groups, channels, 2, 2), groups=groups)
    assert called == [way]


def test_other_dtypes_and_devices():
    x, w = torch.randn(2, 9, 6, 6), torch.randn(3, 9, 3, 3)
    half = conv2d(x.bfloat16(), w.bfloat16())
    assert half.dtype == torch.bfloat16
    assert_close(half.float(), F.conv2d(x, w), atol=0.3, rtol=0.1, check_stride=False)


x, w = torch.ones(2, 6, 5, 5), torch.ones(4, 6, 3, 3)


@pytest.mark.parametrize("arguments, settings, error, words", [
    ((x, w), dict(padding=-1), ValueError, ["padding is -1", "from 0"]), ((x, w), dict(padding=(1, -2)), ValueError, ["padding is (1, -2)"]),
    ((x, w), dict(stride=0), ValueError, ["stride is 0", "from 1"]), ((x, w), dict(dilation=0), ValueError, ["dilation is 0"]),
    ((x, w), dict(stride=1.5), ValueError, ["stride is 1.5"]), ((x, w), dict(stride=(1, 1.5)), ValueError, ["stride is (1, 1.5)"]), ((x, w), dict(groups=2.0), ValueError, ["groups is 2.0"]),
    ((x[:, :, :2, :3], w), dict(padding=(0, 2), dilation=(1, 4)), ValueError, ["images of 2 by 3 with padding (0, 2) are 2 by 7", "reaches over 3 by 9"]), ((x, w), dict(stride=(1, 2, 3)), ValueError, ["stride is (1, 2, 3)", "or two of them"]),
    ((x, w), dict(padding="same"), ValueError, ["padding is 'same'"]),
    ((x, w), dict(dilation=3), ValueError, ["images of 5 by 5", "reaches over 7 by 7", "fits nowhere"]),
    ((x[:, :, :2], w), {}, ValueError, ["are 2 by 5"]),
    ((x, w), dict(groups=2), ValueError, ["2 groups of 6 channels are 12, and x has 6"]), ((x, w), dict(groups=0), ValueError, ["groups is 0"]),
    ((x, w[:, :2]), dict(groups=3), ValueError, ["4 channels of the result", "3 groups"]),
    ((x, w, torch.ones(3)), {}, ValueError, ["b is (3,)", "each of the 4 channels"]), ((x, w, torch.ones(1, 4)), {}, ValueError, ["b is (1, 4)"]),
    ((x[0], w), {}, ValueError, ["x is (6, 5, 5)", "x[None] adds n"]), ((x, w[0]), {}, ValueError, ["w is (6, 3, 3)", "they must be"]),
    ((x, w[:, :, :0]), {}, ValueError, ["the kernel is (0, 3)"]), ((x[:, :0], w[:, :0]), {}, ValueError, ["x is (2, 0, 5, 5)", "a channel at least"]),
    ((x, w.double()), {}, TypeError, ["torch.float64"]), ((x, w, torch.ones(4).double()), {}, TypeError, ["b is torch.float64"]),
    ((x.long(), w.long()), {}, TypeError, ["x is torch.int64", "x.float()"]), (([1.0], w), {}, TypeError, ["x is list"]),
])
def test_bad_input(arguments, settings, error, words):
    with pytest.raises(error) as raised: conv2d(*arguments, **settings)
    for word in words: assert word in str(raised.value)


def test_unfold_takes_tensors():
    with pytest.raises(TypeError, match="x is list"): unfold([[1.0]], 1)


@pytest.mark.parametrize("arguments, settings, words", [
    ((x[0], 3), {}, ["x is (6, 5, 5)", "x[None]"]), ((x, 6), {}, ["fits nowhere"]), ((x, 0), {}, ["kernel_size is 0"]), ((x, (1, 2, 3)), {}, ["kernel_size is (1, 2, 3)"]),
    ((x, 2), dict(stride=-1), ["stride is -1"]), ((x, 2), dict(dilation=0), ["dilation is 0"]),
])
def test_unfold_bad_input(arguments, settings, words):
    with pytest.raises(ValueError) as raised: unfold(*arguments, **settings)
    for word in words: assert word in str(raised.value)


@given(c=st.integers(1, 3), o=st.integers(1, 3), groups=st.integers(1, 2), kernel=pair(1, 3), stride=pair(1, 2), padding=pair(0, 2), dilation=pair(1, 2))
def test_layer_equals_torch(c, o, groups, kernel, stride, padding, dilation):
    kind = dict(stride=stride, padding=padding, dilation=dilation, groups=groups)
    ours, theirs = Conv2d(groups * c, groups * o, kernel, **kind), nn.Conv2d(groups * c, groups * o, kernel, **kind)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, groups * c, 7, 8)
    assert_close(ours(x), theirs(x), atol=1e-5, rtol=0, check_stride=False)
    for name, value in kind.items(): assert f"{name}={value}" in repr(ours)


def test_layer_first_weights():
    seeded = lambda: torch.Generator().manual_seed(0)
    one, other = (Conv2d(32, 64, (3, 5), groups=2, generator=seeded(), dtype=torch.float64) for _ in range(2))
    assert torch.equal(one.weight, other.weight) and one.weight.dtype == torch.float64 and (one.bias == 0).all()
    n_in = 16 * 15
    assert abs(one.weight.std() * (n_in / 2)**0.5 - 1) < 7 / (2 * one.weight.numel())**0.5
    assert Conv2d(4, 2, 3, device="meta").weight.device.type == "meta"
    with pytest.raises(ValueError, match="5 channels of the input and 4 of the result cannot be shared among 2 groups"): Conv2d(5, 4, 3, groups=2)
    with pytest.raises(ValueError, match="kernel_size is 0"): Conv2d(5, 4, 0)
    for wrong in [dict(groups=0), dict(groups=3), dict(stride=0), dict(padding=-1), dict(dilation=0)]:
        with pytest.raises(ValueError): Conv2d(4, 4, 3, **wrong)
    assert one.weight.is_contiguous()


def test_layer_uses_what_it_is_given():
    layer = Conv2d(4, 6, (2, 3), groups=2, init=lambda n_in, n_out, **kind: torch.arange(n_in * n_out, **{"dtype": kind["dtype"]}).view(n_in, n_out), dtype=torch.float64)
    assert torch.equal(layer.weight.detach(), torch.arange(72.0).double().view(12, 6).t().reshape(6, 2, 2, 3))
    assert repr(layer).startswith("Conv2d(4, 6, kernel_size=(2, 3), stride=1") and layer.bias.dtype == torch.float64
    assert [name for name, _ in layer.named_parameters()] == ["weight", "bias"] and Conv2d(4, 2, 3, device="meta").bias.device.type == "meta"
