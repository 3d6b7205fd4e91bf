"Convolutions and patches beside torch's, over generated sizes and settings, with their derivatives, transforms, memory and errors."
import itertools, warnings
import pytest, torch
import torch.nn.functional as F
from hypothesis import given, settings, strategies as st
from torch import Tensor, nn
from torch.testing import assert_close

import groundup.conv
from groundup.conv import Conv2d, MyConv2d, conv2d, unfold

pair = lambda low, high: st.integers(low, high) | st.tuples(st.integers(low, high), st.integers(low, high))
both = lambda value: (value, value) if isinstance(value, int) else value
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel", "ignore:`torch.jit.script")


def normal(draw, *shape, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(draw(st.integers(0, 2**16))), dtype=torch.float64).to(dtype)


def plain(t): # for F.conv2d: in PyTorch 2.13 it crashes for some images that are one pixel wide, with channels last
    return t.clone(memory_format=torch.contiguous_format)


def laid_out(draw, t):
    "The same numbers, laid out in memory in one of four ways."
    way = draw(st.integers(0, 3))
    if way == 1: return t.transpose(-1, -2).contiguous().transpose(-1, -2)
    if way == 2: return torch.stack([t, t], -1)[..., 0]
    return t.contiguous(memory_format=torch.channels_last) if way == 3 and t.ndim == 4 else t


@st.composite
def convolutions(draw, dtype=torch.float64):
    "Images or one image, kernels, biases or None, and settings, of which some give no output."
    groups, c, o = draw(st.integers(1, 3)), draw(st.sampled_from([1, 2, 5, 7, 8])), draw(st.integers(1, 3))
    n = draw(st.sampled_from([(), (0,), (1,), (2,), (3,)]))
    x = laid_out(draw, normal(draw, *n, groups * c, draw(st.integers(1, 9)), draw(st.integers(1, 9)), dtype=dtype))
    w = laid_out(draw, normal(draw, groups * o, c, draw(st.integers(1, 4)), draw(st.integers(1, 4)), dtype=dtype))
    b = normal(draw, groups * o, dtype=dtype) if draw(st.booleans()) else None
    padding = draw(pair(0, 3) | st.sampled_from(["same", "valid"]))
    stride = draw(st.sampled_from([1, 1, (1, 2)]) if padding == "same" else pair(1, 4)) # "same" takes no other
    return (x, w, b), dict(stride=stride, padding=padding, dilation=draw(pair(1, 3)), groups=groups)


@given(convolutions())
@settings(max_examples=300)
def test_conv2d_and_its_gradients_equal_torch(problem):
    (x, w, b), kind = problem
    ours, theirs = ([layout(t.detach()).requires_grad_() for t in (x, w, b) if t is not None] for layout in (Tensor.detach, plain))
    try: expected = F.conv2d(*theirs, **kind)
    except RuntimeError as error:
        small = "Kernel size can't be greater" in str(error)
        with pytest.raises(ValueError, match="so it does not fit" if small else "padding is 'same' and stride is"): conv2d(*ours, **kind)
        return
    result = conv2d(*ours, **kind)
    assert_close(result, expected, atol=1e-12, rtol=0, check_stride=False)
    g = torch.randn(expected.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for one, other in zip(torch.autograd.grad(result, ours, g), torch.autograd.grad(expected, theirs, g)): assert_close(one, other, atol=1e-11, rtol=0, check_stride=False)


@given(convolutions(torch.float32))
def test_float32_and_inputs_left_alone(problem):
    (x, w, b), kind = problem
    before = [t.clone() for t in (x, w)]
    try: expected = F.conv2d(plain(x), plain(w), b, **kind)
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
        with pytest.raises(ValueError, match="does not fit"): unfold(x, kernel, stride=stride, dilation=dilation)
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
    assert made < 3 * size if channels == 8 else 25 * size < made # with few, the copy is what makes it fast


KINDS = [(8, 1, dict(padding="same")), (8, 2, dict(stride=(2, 1), padding=1, dilation=(1, 2))), (2, 2, dict(stride=2, padding=(2, 0))), (3, 1, dict())]


def operands(c, groups, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in [(2, c * groups, 5, 4), (2 * groups, c, 3, 2), (2 * groups,)]]


@pytest.mark.parametrize("c, groups, kind", KINDS)
def test_derivatives_of_every_order_and_mode(c, groups, kind):
    t, f = [t.requires_grad_() for t in operands(c, groups)], lambda *t: conv2d(*t, groups=groups, **kind)
    assert torch.autograd.gradcheck(f, t, check_forward_ad=True, fast_mode=True)
    assert torch.autograd.gradgradcheck(f, t, fast_mode=True, check_fwd_over_rev=True)
    first = torch.autograd.grad(f(*t).pow(4).sum(), t, create_graph=True) # third derivatives
    second = torch.autograd.grad(sum(g.square().sum() for g in first), t, create_graph=True)
    third = torch.autograd.grad(sum(g.sum() for g in second), t)
    first = torch.autograd.grad(F.conv2d(*t, groups=groups, **kind).pow(4).sum(), t, create_graph=True)
    second = torch.autograd.grad(sum(g.square().sum() for g in first), t, create_graph=True)
    for one, other in zip(third, torch.autograd.grad(sum(g.sum() for g in second), t)): assert_close(one, other, rtol=1e-9, atol=0)


@pytest.mark.parametrize("c, groups, kind", KINDS)
@pytest.mark.filterwarnings("error:There is a performance drop")
def test_transforms_of_torch_func(c, groups, kind):
    t = operands(c, groups)
    ours, theirs = ((lambda *t, f=f: f(*t, groups=groups, **kind)) for f in (conv2d, F.conv2d))
    same = lambda transform: assert_close(transform(ours), transform(theirs), check_stride=False)
    tangents = tuple(operands(c, groups, seed=1))
    same(lambda f: torch.func.jvp(f, tuple(t), tangents))
    for axis in range(3): same(lambda f: torch.func.jacfwd(f, axis)(*t))
    same(lambda f: torch.func.hessian(lambda w: f(t[0], w, t[2]).pow(3).sum())(t[1]))
    same(lambda f: torch.func.jacrev(torch.func.jacfwd(lambda x: f(x, *t[1:]).pow(3).sum()))(t[0]))
    loss = lambda f: lambda *t: f(*t).square().sum()
    for dims in itertools.product([0, 2, None], [0, 3, None], [1, None]): # where the batch is
        if set(dims) == {None}: continue
        batches = [one if dim is None else torch.stack([one, 2 * one, one.flip(0)], dim) for one, dim in zip(t, dims)]
        same(lambda f: torch.func.vmap(f, dims)(*batches))
        same(lambda f: torch.func.vmap(torch.func.grad(loss(f), (0, 1, 2)), dims)(*batches))
    same(lambda f: torch.func.vmap(lambda x: torch.func.vmap(f, (0, None, None))(x, *t[1:]))(torch.stack([t[0], -t[0]])))


@pytest.mark.parametrize("channels, dynamic", [(2, False), (8, False), (8, True)])
def test_compiles_as_one_graph(channels, dynamic):
    torch._dynamo.reset()
    layer = Conv2d(channels, 4, (3, 2), stride=(1, 2), padding=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error") # nothing that is not to be cached, nothing that breaks the graph
        warnings.filterwarnings("ignore", "Guards may run slower on Python 3.13.0")
        compiled = torch.compile(lambda x: layer(x) + conv2d(x, layer.weight, padding=1, stride=(1, 2)), fullgraph=True, backend="aot_eager", dynamic=dynamic)
        compiled(torch.randn(2, channels, 4, 4))
    for n, size in [(2, 5), (3, 7)]:
        x, grads = torch.randn(n, channels, size, size), []
        for call in (compiled, lambda x: layer(x) + conv2d(x, layer.weight, padding=1, stride=(1, 2))):
            layer.zero_grad()
            out = call(x)
            out.square().sum().backward()
            grads.append((out, layer.weight.grad, layer.bias.grad))
        assert_close(*grads, rtol=1e-4, atol=1e-3, check_stride=False)
    with pytest.raises(Exception, match="padding is 'full'"): torch.compile(lambda x: conv2d(x, layer.weight, padding="full"), fullgraph=True, backend="eager")(x)


@pytest.mark.parametrize("channels", [2, 8])
@pytest.mark.parametrize("dtypes", list(itertools.product([torch.float32, torch.bfloat16], repeat=2)) + [(torch.float64, torch.float64)])
def test_autocast(channels, dtypes):
    "As F.conv2d: to bfloat16, unless all is float64; within the rounding of nine sums."
    x, w, b, g = (torch.randn(shape, generator=torch.Generator().manual_seed(0)) for shape in [(2, channels, 6, 6), (3, channels, 3, 3), (3,), (2, 3, 6, 6)])
    x, w, b = x.to(dtypes[0]), w.to(dtypes[1]), b.to(dtypes[1])
    results = []
    for f in (conv2d, F.conv2d):
        t = [one.clone().requires_grad_() for one in (x, w, b)]
        with torch.autocast("cpu", torch.bfloat16): out = f(*t, padding=1)
        results.append((out, *torch.autograd.grad(out, t, g.to(out.dtype))))
    for one, other in zip(*results):
        assert one.dtype == other.dtype and one.shape == other.shape
        assert_close(one.float(), other.float(), rtol=0, atol=0.02 * float(other.detach().abs().max()), check_stride=False)
    with torch.autocast("cpu", torch.bfloat16): assert nn.Sequential(nn.Conv2d(1, 8, 3), Conv2d(8, 2, 3), Conv2d(2, 2, 2))(torch.randn(1, 1, 8, 8)).dtype == torch.bfloat16
    if dtypes[0] != dtypes[1]:
        with pytest.raises(TypeError, match="convert it with w.to"): conv2d(x, w)


@pytest.mark.parametrize("channels", [5, 9])
@pytest.mark.parametrize("asked", [(0,), (1,), (2,), (0, 1), (1, 2), (0, 1, 2)])
def test_only_what_is_asked_for(channels, asked, monkeypatch):
    called = []
    def counted(function): return lambda *args: (called.append(function.__name__), function(*args))[1]
    monkeypatch.setattr(groundup.conv, "_PRODUCTS", tuple(map(counted, groundup.conv._PRODUCTS)))
    t = [torch.randn(shape) for shape in [(2, channels, 6, 6), (3, channels, 3, 3), (3,)]]
    for n in asked: t[n].requires_grad_()
    conv2d(*t).sum().backward()
    assert sorted(called) == ["_input_grad"] * (0 in asked) + ["_output"] + ["_weight_grad"] * (1 in asked)


def test_no_function_where_nothing_is_recorded(monkeypatch):
    x, w = torch.randn(2, 9, 6, 6), torch.randn(3, 9, 3, 3, requires_grad=True)
    recorded = conv2d(x, w)
    def refused(*args): raise AssertionError("applied")
    monkeypatch.setattr(MyConv2d, "apply", refused)
    assert not conv2d(x, w.detach()).requires_grad
    with torch.no_grad(): assert not conv2d(x, w).requires_grad
    recorded.sum().backward() # backwards, too


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
    assert conv2d(x.to("meta"), w.to("meta"), padding=1).shape == (2, 3, 6, 6)


x, w = torch.ones(2, 6, 5, 5), torch.ones(4, 6, 3, 3)


@pytest.mark.parametrize("arguments, settings, error, words", [
    ((x, w), dict(padding=-1), ValueError, ["padding is -1", "from 0"]), ((x, w), dict(padding=(1, -2)), ValueError, ["padding is (1, -2)"]),
    ((x, w), dict(stride=0), ValueError, ["stride is 0", "from 1"]), ((x, w), dict(dilation=0), ValueError, ["dilation is 0"]),
    ((x, w), dict(stride=1.5), ValueError, ["stride is 1.5"]), ((x, w), dict(stride=(1, 1.5)), ValueError, ["stride is (1, 1.5)"]), ((x, w), dict(groups=2.0), ValueError, ["groups is 2.0"]),
    ((x, w), dict(stride=1.0), ValueError, ["stride is 1.0"]), ((x, w), dict(stride=(1.0, 1.0)), ValueError, ["stride is (1.0, 1.0)"]), ((x, w), dict(groups=1.0), ValueError, ["groups is 1.0"]),
    ((x[:, :, :2, :3], w), dict(padding=(0, 2), dilation=(1, 4)), ValueError, ["images of 2 by 3 pixels are 2 by 7 with padding", "spans 3 by 9"]), ((x, w), dict(stride=(1, 2, 3)), ValueError, ["stride is (1, 2, 3)", "or two"]),
    ((x, w), dict(padding="full"), ValueError, ["padding is 'full'", "'same' or 'valid'"]), ((x, w), dict(padding="same", stride=(1, 2)), ValueError, ["padding is 'same' and stride is (1, 2)"]),
    ((x, w), dict(padding=("same", "valid")), ValueError, ["padding is ('same', 'valid')"]), ((x, w), dict(stride="same"), ValueError, ["stride is 'same'"]),
    ((x, w), dict(dilation=3), ValueError, ["images of 5 by 5", "spans 7 by 7", "does not fit"]),
    ((x[:, :, :2], w), {}, ValueError, ["are 2 by 5"]),
    ((x, w), dict(groups=2), ValueError, ["x has 6 channels", "takes 12 (groups is 2)"]), ((x, w), dict(groups=0), ValueError, ["groups is 0"]),
    ((x, w[:, :2]), dict(groups=3), ValueError, ["4 output channels cannot be divided into 3 groups"]), ((x[:, :5], w), {}, ValueError, ["x has 5 channels"]),
    ((x, w, torch.ones(3)), {}, ValueError, ["b is (3,)", "c_out is 4 in w but 3 in b"]), ((x, w, torch.ones(1, 4)), {}, ValueError, ["b is (1, 4)"]), ((x[0], w, torch.ones(3)), {}, ValueError, ["c_out is 4 in w but 3 in b"]),
    ((x[0, 0], w), {}, ValueError, ["x is (5, 5)", "x (n, c, h, w)", "x (c, h, w)"]), ((x[None], w), {}, ValueError, ["x is (1, 2, 6, 5, 5)"]), ((x, w[0]), {}, ValueError, ["w is (6, 3, 3)", "w[None]"]),
    ((x, w[:, :, :0]), {}, ValueError, ["w is (4, 6, 0, 3)", "row and column"]), ((x[:, :0], w[:, :0]), {}, ValueError, ["w is (4, 0, 3, 3)", "at least one kernel, channel"]), ((x, w[:0]), {}, ValueError, ["w is (0, 6, 3, 3)", "at least one kernel"]),
    ((x, w.double()), {}, TypeError, ["torch.float64"]), ((x, w, torch.ones(4).double()), {}, TypeError, ["b is torch.float64"]), ((x, w.to("meta")), {}, TypeError, ["w is on meta"]),
    ((x.long(), w.long()), {}, TypeError, ["x is torch.int64", "x.float()"]), (([1.0], w), {}, TypeError, ["x is list"]), ((x, None), {}, TypeError, ["w is NoneType"]),
])
def test_bad_input(arguments, settings, error, words):
    for first in (dict(), settings): # again, when the settings that fit are in the cache
        try: conv2d(*arguments, **first)
        except (ValueError, TypeError): pass
    with pytest.raises(error) as raised: conv2d(*arguments, **settings)
    for word in words: assert word in str(raised.value)


def test_unfold_takes_tensors():
    with pytest.raises(TypeError, match="x is list"): unfold([[1.0]], 1)


@pytest.mark.parametrize("arguments, settings, words", [
    ((x[0], 3), {}, ["x is (6, 5, 5)", "x[None]"]), ((x, 6), {}, ["does not fit"]), ((x, 0), {}, ["kernel_size is 0"]), ((x, (1, 2, 3)), {}, ["kernel_size is (1, 2, 3)"]),
    ((x, 2), dict(stride=-1), ["stride is -1"]), ((x, 2), dict(dilation=0), ["dilation is 0"]),
])
def test_unfold_bad_input(arguments, settings, words):
    with pytest.raises(ValueError) as raised: unfold(*arguments, **settings)
    for word in words: assert word in str(raised.value)


@given(c=st.integers(1, 3), o=st.integers(1, 3), groups=st.integers(1, 2), kernel=pair(1, 3), stride=pair(1, 2), padding=pair(0, 2) | st.just("valid"), dilation=pair(1, 2), bias=st.booleans())
def test_layer_equals_torch(c, o, groups, kernel, stride, padding, dilation, bias):
    kind = dict(stride=stride, padding=padding, dilation=dilation, groups=groups)
    ours, theirs = Conv2d(groups * c, groups * o, kernel, bias=bias, **kind), nn.Conv2d(groups * c, groups * o, kernel, bias=bias, **kind)
    theirs.load_state_dict(ours.state_dict())
    for x in (torch.randn(2, groups * c, 7, 8), torch.randn(groups * c, 7, 8)): assert_close(ours(x), theirs(x), atol=1e-5, rtol=0, check_stride=False)
    for name, value in kind.items(): assert f"{name}={value!r}" in repr(ours)
    assert ("bias=False" in repr(ours)) != bias


def test_layer_first_weights():
    seeded = lambda: torch.Generator().manual_seed(0)
    one, other = (Conv2d(32, 64, (3, 5), groups=2, generator=seeded(), dtype=torch.float64) for _ in range(2))
    assert torch.equal(one.weight, other.weight) and one.weight.dtype == torch.float64 and (one.bias == 0).all()
    assert torch.equal(one.weight, Conv2d(32, 64, (3, 5), groups=2, generator=seeded(), dtype=torch.float64, bias=False).weight)
    n_in = 16 * 15
    assert abs(one.weight.std() * (n_in / 2)**0.5 - 1) < 7 / (2 * one.weight.numel())**0.5
    assert Conv2d(4, 2, 3, device="meta").weight.device.type == "meta"
    assert Conv2d(3, 4, 4, padding="same", dilation=(1, 2))(torch.randn(2, 3, 5, 7)).shape == (2, 4, 5, 7)
    with pytest.raises(ValueError, match="5 input and 4 output channels cannot be divided into 2 groups"): Conv2d(5, 4, 3, groups=2)
    with pytest.raises(ValueError, match="kernel_size is 0"): Conv2d(5, 4, 0)
    with pytest.raises(ValueError, match="padding is 'same' and stride is"): Conv2d(4, 4, 3, padding="same", stride=2)
    for wrong in [dict(groups=0), dict(groups=3), dict(groups=2.0), dict(stride=0), dict(padding=-1), dict(padding="full"), dict(dilation=0)]:
        with pytest.raises(ValueError): Conv2d(4, 4, 3, **wrong)
    for channels in [(0, 4), (4, 0), (4.0, 4)]:
        with pytest.raises(ValueError, match="must be an integer from 1"): Conv2d(*channels, 3)
    assert one.weight.is_contiguous()


def test_layer_uses_what_it_is_given():
    layer = Conv2d(4, 6, (2, 3), groups=2, init=lambda n_in, n_out, **kind: torch.arange(n_in * n_out, **{"dtype": kind["dtype"]}).view(n_in, n_out), dtype=torch.float64)
    assert torch.equal(layer.weight.detach(), torch.arange(72.0).double().view(12, 6).t().reshape(6, 2, 2, 3))
    assert repr(layer).startswith("Conv2d(4, 6, kernel_size=(2, 3), stride=1") and layer.bias.dtype == torch.float64
    assert [name for name, _ in layer.named_parameters()] == ["weight", "bias"] and Conv2d(4, 2, 3, device="meta").bias.device.type == "meta"
    assert [name for name, _ in Conv2d(4, 6, 2, bias=False).named_parameters()] == ["weight"]
