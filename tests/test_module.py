"LinearLayer, Module and MLP compared with torch.nn: shapes, saving, copying, other base classes, and errors."
import copy, io, pickle

import pytest, torch
from hypothesis import given, strategies as st
from torch import nn
from torch.testing import assert_close

from groundup.init import lecun_normal
from groundup.module import MLP, LinearLayer, Module
from shapes import FLOATS, shapes, tensors


def seeded(seed=0): return torch.Generator().manual_seed(seed)


@given(data=st.data(), lead=shapes(2), n_in=st.integers(1, 4), n_out=st.integers(1, 4), dtype=st.sampled_from(FLOATS))
def test_linear_layer_equals_torch(data, lead, n_in, n_out, dtype):
    ours, theirs = LinearLayer(n_in, n_out, generator=seeded(), dtype=dtype), nn.Linear(n_in, n_out, dtype=dtype)
    theirs.load_state_dict(ours.state_dict())
    ours.load_state_dict(theirs.state_dict())
    x = data.draw(tensors((*lead, n_in), dtype))
    assert_close(ours(x), theirs(x), atol=1e-5 if dtype == torch.float32 else 1e-13, rtol=0)
    one, other = (torch.autograd.grad(layer(x).sum(), list(layer.parameters())) for layer in (ours, theirs))
    for a, b in zip(one, other): assert_close(a, b, atol=1e-4 if dtype == torch.float32 else 1e-12, rtol=0)


def test_first_weights():
    he, lecun = LinearLayer(900, 400, generator=seeded()), LinearLayer(900, 400, init=lecun_normal, generator=seeded())
    assert abs(he.weight.std() * (900 / 2)**0.5 - 1) < 0.02 and abs(lecun.weight.std() * 900**0.5 - 1) < 0.02
    assert not he.bias.any() and he.weight.is_contiguous() and he.weight.shape == (400, 900)
    model = MLP(900, 400, 300, generator=seeded())
    assert abs(model.hidden.weight.std() * (900 / 2)**0.5 - 1) < 0.02 and abs(model.output.weight.std() * 400**0.5 - 1) < 0.02


@given(data=st.data(), lead=shapes(3), dtype=st.sampled_from(FLOATS))
def test_mlp_takes_any_leading_axes(data, lead, dtype):
    model, x = MLP(4, 3, 2, generator=seeded(), dtype=dtype), data.draw(tensors((*lead, 4), dtype))
    out = model(x)
    assert out.shape == (*lead, 2) and out.dtype == dtype
    theirs = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)).to(dtype)
    theirs.load_state_dict(dict(zip(theirs.state_dict(), model.state_dict().values())))
    assert_close(out, theirs(x), atol=1e-4 if dtype == torch.float32 else 1e-12, rtol=0)


def test_names_shapes_and_repr():
    layer, model = LinearLayer(10, 2), MLP(5, 4, 3)
    assert {name: tuple(p.shape) for name, p in layer.named_parameters()} == {"weight": (2, 10), "bias": (2,)}
    assert list(model.state_dict()) == ["hidden.weight", "hidden.bias", "output.weight", "output.bias"]
    assert repr(layer) == "LinearLayer(10, 2)" and "(hidden): LinearLayer(5, 4)" in repr(model)


def test_made_on_another_device():
    assert all(p.device.type == "meta" for p in MLP(5, 4, 3, device="meta").parameters())


def test_step_equals_torch():
    by_us, by_torch = (MLP(5, 4, 1, generator=seeded()) for _ in range(2))
    x, targ = torch.randn(20, 5, generator=seeded(1)), torch.randn(20, 1, generator=seeded(2))
    for model in (by_us, by_torch): nn.functional.mse_loss(model(x), targ).backward()
    torch.optim.SGD(by_torch.parameters(), lr=0.02).step()
    with torch.no_grad():
        for p in by_us.parameters(): p -= 0.02 * p.grad
    for one, other in zip(by_us.parameters(), by_torch.parameters()): assert_close(one, other, atol=1e-7, rtol=0)


def test_seed_decides():
    one, other, third = (MLP(5, 4, 3, generator=seeded(seed)).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(one[name], other[name]) for name in one) and not torch.equal(one["hidden.weight"], third["hidden.weight"])


@pytest.mark.parametrize("make", [lambda: LinearLayer(3, 2, generator=seeded()), lambda: MLP(4, 3, 2, generator=seeded())], ids=["layer", "mlp"])
def test_saved_copied_and_moved(make):
    module = make()
    n_in = next(module.parameters()).shape[1]
    x, file = torch.randn(5, n_in), io.BytesIO()
    torch.save(module.state_dict(), file)
    file.seek(0)
    loaded = make()
    with torch.no_grad():
        for p in loaded.parameters(): p.zero_()
    loaded.load_state_dict(torch.load(file, weights_only=True))
    for other in (loaded, copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(other(x), module(x))
        assert all(a is not b for a, b in zip(other.parameters(), module.parameters()))
    assert_close(copy.deepcopy(module).double()(x.double()).float(), module(x), atol=1e-5, rtol=0)
    assert all(p.device.type == "meta" for p in module.to("meta").parameters())


def test_mlp_equals_sequential_and_trains_like_it():
    ours, theirs = MLP(10, 8, 1, generator=seeded()), nn.Sequential(nn.Linear(10, 8), nn.ReLU(), nn.Linear(8, 1))
    theirs.load_state_dict(dict(zip(theirs.state_dict(), ours.state_dict().values())))
    x, targ = torch.randn(50, 10, generator=seeded(1)), torch.randn(50, 1, generator=seeded(2))
    optimizers = [torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9) for model in (ours, theirs)]
    for _ in range(20):
        for model, optimizer in zip((ours, theirs), optimizers):
            nn.functional.mse_loss(model(x), targ).backward()
            optimizer.step()
            optimizer.zero_grad()
    for one, other in zip(ours.parameters(), theirs.parameters()): assert_close(one, other, atol=1e-4, rtol=0)


class NoSuper(Module):
    def __init__(self, n):
        self.w, self.inner = nn.Parameter(torch.ones(n)), nn.Linear(n, 1)
        self.register_buffer("seen", torch.zeros(1))
        self.plain = [nn.Linear(1, 1)]
    @property
    def n(self): return len(self.w)
    def forward(self, x): return self.inner(x * self.w)


class WithSuper(NoSuper):
    def __init__(self, n):
        super().__init__(n)
        self.late = nn.Parameter(torch.ones(1))


class Habit(Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.ones(2))
        super().__init__()


class Counting:
    def __init__(self): self.count = 7


class Both(Counting, Module):
    def __init__(self):
        Counting.__init__(self)
        self.inside = nn.ModuleList([NoSuper(2), Habit()])


class Layer(nn.Linear, Module): pass


def test_module_finds_everything():
    module = NoSuper(3)
    assert isinstance(module, nn.Module) and set(module.state_dict()) == {"w", "seen", "inner.weight", "inner.bias"}
    assert module.n == 3 and module(torch.ones(2, 3)).shape == (2, 1)
    assert set(WithSuper(3).state_dict()) == set(module.state_dict()) | {"late"}
    assert len(list(Habit().parameters())) == 1
    both = Both()
    assert both.count == 7 and set(both.state_dict()) == {"inside.0.w", "inside.0.seen", "inside.0.inner.weight", "inside.0.inner.bias", "inside.1.w"}
    assert Layer(3, 4)(torch.ones(2, 3)).shape == (2, 4) and len(list(Layer(3, 4).parameters())) == 2
    assert both.eval().inside[0].training is False


@pytest.mark.parametrize("module", [NoSuper(3), WithSuper(2), Habit(), Both()], ids=lambda module: type(module).__name__)
def test_module_is_saved_and_loaded(module):
    file, loaded = io.BytesIO(), copy.deepcopy(module)
    torch.save(module.state_dict(), file)
    file.seek(0)
    for t in loaded.state_dict().values(): t.fill_(7)
    loaded.load_state_dict(torch.load(file, weights_only=True))
    for name, t in module.state_dict().items(): assert torch.equal(loaded.state_dict()[name], t)


def test_buffers_and_shared_parameters():
    module = NoSuper(3)
    module.seen += 2
    assert module.seen.item() == 2 and module.double().seen.dtype == torch.float64
    module.again = module.w
    assert [name for name, _ in module.named_parameters()] == ["w", "inner.weight", "inner.bias"]
    module.again = module.w = None
    assert [name for name, _ in module.named_parameters()] == ["inner.weight", "inner.bias"]


def assign(base, steps):
    "The names of the parameters that are found after the assignments in `steps`."
    module, child, shared = base(), base(), [nn.Parameter(torch.ones(1)) for _ in range(3)]
    child.w = shared[2]
    for name, at in steps:
        options = [child, None] if name == "c" else [*shared, None]
        setattr(module, name, options[at % len(options)])
    return [name for name, _ in module.named_parameters()]


@given(steps=st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 3)), max_size=12))
def test_module_finds_what_torch_finds(steps):
    assert assign(Module, steps) == assign(nn.Module, steps)


@pytest.mark.parametrize("module", [NoSuper(3), WithSuper(2), Habit(), Both()], ids=lambda module: type(module).__name__)
def test_module_is_copied_and_pickled(module):
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert type(other) is type(module) and other.state_dict().keys() == module.state_dict().keys()
        for name, t in module.state_dict().items(): assert torch.equal(other.state_dict()[name], t) and other.state_dict()[name].data_ptr() != t.data_ptr()


@pytest.mark.parametrize("act, error, words", [
    (lambda: LinearLayer(3, 2)(torch.ones(4, 5)), ValueError, ["x is (4, 5)", "x (..., 3)"]),
    (lambda: LinearLayer(3, 2)(torch.tensor(1.0)), ValueError, ["x is ()"]),
    (lambda: LinearLayer(3, 2)(torch.ones(4, 3).double()), TypeError, ["weight is torch.float32 but x is torch.float64", "x.to(weight.dtype)"]),
    (lambda: LinearLayer(3, 2)(torch.ones(4, 3).numpy()), TypeError, ["x is ndarray", "torch.tensor(x)"]),
    (lambda: LinearLayer(0, 2), ValueError, ["n_in is 0"]),
    (lambda: MLP(3, 0, 2), ValueError, ["n_out is 0"]),
    (lambda: MLP(3, 2, 1)(torch.ones(4, 2)), ValueError, ["x is (4, 2)", "(..., 3)"]),
    (lambda: Module(3), TypeError, ["positional argument"]),
    (lambda: NoSuper(3, 4), TypeError, ["takes 2 positional arguments"]),
    (lambda: Habit()(1), NotImplementedError, ["forward"]),
    (lambda: MLP(3, 2, 1).load_state_dict({}), RuntimeError, ["Missing key"]),
])
def test_bad_input(act, error, words):
    with pytest.raises(error) as raised: act()
    for word in words: assert word in str(raised.value)


def test_layers_after_others_under_autocast():
    stack = nn.Sequential(nn.Linear(4, 4), LinearLayer(4, 4), nn.ReLU(), LinearLayer(4, 2))
    with torch.autocast("cpu"): stack(torch.ones(3, 4)).float().sum().backward()
    assert all(p.grad.dtype == torch.float32 for p in stack.parameters())


def test_compiled_in_one_graph():
    model, x = MLP(3, 4, 2), torch.ones(5, 3)
    assert torch.equal(torch.compile(model, fullgraph=True, backend="eager")(x), model(x))
