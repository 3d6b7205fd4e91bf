"The digits, cross-entropy against F.cross_entropy, SGD and Adam against torch.optim, and `fit`: the plain loop, how it continues, and its errors."
import builtins, copy, io, itertools, math, pickle, warnings

import pytest, torch
import torch.nn.functional as F
from hypothesis import given, settings, strategies as st
from torch import nn
from torch.optim import lr_scheduler
from torch.testing import assert_close
from torch.testing._internal.common_optimizers import optim_db

from groundup.autograd import my_mse
from groundup.backprop import numerical_grad
from groundup.functional import mse
from groundup.module import MLP
from groundup.training import SGD, Adam, History, MyCrossEntropy, accuracy, cross_entropy, fit, load_digits
from shapes import FLOATS

DIGITS = load_digits()
EPOCH = 23 # steps, in batches of 64


def seeded(seed=0): return torch.Generator().manual_seed(seed)


def weights(model): return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_digits():
    assert [tuple(t.shape) for t in DIGITS] == [(1437, 64), (1437,), (360, 64), (360,)]
    assert DIGITS.x.min() == 0 and DIGITS.x.max() == 1 and DIGITS.targ.dtype == torch.int64
    counts = torch.stack([DIGITS.targ.bincount(), DIGITS.targ_valid.bincount()]).double()
    assert (counts[1] / counts.sum(0) - 0.2).abs().max() < 0.006
    assert not set(map(tuple, DIGITS.x.tolist())) & set(map(tuple, DIGITS.x_valid.tolist()))
    assert DIGITS.targ[:360].bincount().min() > 20 # rows are in random order: lesson 10 cuts its test set off the beginning
    again, other = load_digits(dtype=torch.float64), load_digits(seed=1)
    assert torch.equal(again.x.float(), DIGITS.x) and again.x_valid.dtype == torch.float64 and not torch.equal(other.targ, DIGITS.targ)
    from sklearn import datasets
    pixels, labels = datasets.load_digits(return_X_y=True) # every image keeps its label
    known = {tuple(image): label for image, label in zip((pixels / 16).tolist(), labels)}
    for x, targ in [DIGITS[:2], DIGITS[2:]]: assert all(known[tuple(image)] == label for image, label in zip(x.tolist(), targ.tolist()))


def test_digits_without_scikit_learn(monkeypatch):
    original = builtins.__import__
    def missing(name, *args, **kwargs):
        if name.startswith("sklearn"): raise ImportError(name)
        return original(name, *args, **kwargs)
    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(ImportError, match="load_digits needs scikit-learn"): load_digits()


@st.composite
def scored(draw, least=1):
    "Logits, some of them large, and classes."
    n, k, scale = draw(st.integers(least, 6)), draw(st.integers(1, 5)), draw(st.sampled_from([0.1, 1.0, 30.0, 1e4]))
    g = seeded(draw(st.integers(0, 2**16)))
    return torch.randn(n, k, generator=g, dtype=torch.float64) * scale, torch.randint(k, (n,), generator=g)


VALUES = dict(weight=lambda k: st.lists(st.sampled_from([0.25, 1.0, 3.0]), min_size=k, max_size=k).map(lambda w: torch.tensor(w, dtype=torch.float64)),
              ignore_index=lambda k: st.sampled_from([-100, 0, k - 1]), label_smoothing=lambda k: st.sampled_from([0.0, 0.1, 1.0]))


def derivatives(loss, out):
    "The value, the gradient and a Hessian-vector product at `out`."
    leaf = out.clone().requires_grad_()
    value = loss(leaf)
    gradient, = torch.autograd.grad(3 * value, leaf, create_graph=True)
    return value.detach(), gradient.detach(), *torch.autograd.grad(gradient.square().sum(), leaf, allow_unused=True)


@pytest.mark.parametrize("names", [names for n in range(4) for names in itertools.combinations(VALUES, n)])
@given(st.data(), scored(least=0), st.sampled_from(FLOATS))
@settings(max_examples=50)
def test_cross_entropy_equals_torch(names, data, problem, dtype):
    out, targ = problem[0].to(dtype), problem[1]
    chosen = {name: data.draw(VALUES[name](out.shape[1])) for name in names}
    if "weight" in chosen: chosen["weight"] = chosen["weight"].to(dtype)
    if "ignore_index" in chosen: targ = torch.where(targ == out.shape[1] - 1, chosen["ignore_index"], targ)
    ours, theirs = (derivatives(lambda z: function(z, targ, **chosen), out) for function in (cross_entropy, F.cross_entropy))
    size = {torch.float32: 1e-5, torch.float64: 1e-13}[dtype]
    for one, other in zip(ours, theirs): assert_close(one, other, atol=size, rtol=size, equal_nan=True)


def test_cross_entropy_derivatives():
    g = seeded()
    out, targ = torch.randn(5, 3, generator=g, dtype=torch.float64, requires_grad=True), torch.tensor([0, 2, 1, 1, 0])
    hand, = torch.autograd.grad(cross_entropy(out, targ), out)
    assert_close(hand, (out.detach().softmax(1) - F.one_hot(targ, 3)) / 5, atol=1e-14, rtol=0)
    assert_close(hand, numerical_grad(lambda z: cross_entropy(z, targ), out.detach()), atol=1e-8, rtol=0)
    weight = torch.rand(3, generator=g, dtype=torch.float64, requires_grad=True) # it gets a gradient as well
    def loss(out, weight): return cross_entropy(out, targ, weight, ignore_index=2, label_smoothing=0.1)
    assert torch.autograd.gradcheck(loss, (out, weight), check_forward_ad=True)
    assert torch.autograd.gradgradcheck(loss, (out, weight), check_fwd_over_rev=True)


CHOSEN = [{}, dict(ignore_index=-100), dict(weight=torch.tensor([1.0, 2.0, 0.5]), ignore_index=1, label_smoothing=0.1)]


@pytest.mark.parametrize("chosen", CHOSEN)
def test_cross_entropy_through_transforms(chosen):
    out, targ = torch.randn(7, 5, 3, generator=seeded()), torch.randint(3, (7, 5), generator=seeded(1))
    def of(function): return lambda z, t: function(z, t, **chosen)
    for transform in (torch.func.grad, torch.func.hessian, torch.func.jacfwd):
        assert_close(transform(of(cross_entropy))(out[0], targ[0]), transform(of(F.cross_entropy))(out[0], targ[0]))
    for dims in ((0, 0), (0, None), (None, 0)):
        batches = [t if dim == 0 else t[0] for t, dim in zip((out, targ), dims)]
        one_by_one = [torch.func.grad(of(F.cross_entropy))(out[n * (dims[0] == 0)], targ[n * (dims[1] == 0)]) for n in range(7)] # F's goes through vmap not with all
        assert_close(torch.vmap(torch.func.grad(of(cross_entropy)), in_dims=dims)(*batches), torch.stack(one_by_one))
    tangents = [torch.func.jvp(lambda z: function(z, targ[0], **chosen), (out[0],), (out[1],)) for function in (cross_entropy, F.cross_entropy)]
    assert_close(*tangents)


@pytest.mark.parametrize("chosen", CHOSEN)
def test_cross_entropy_compiles_as_one_graph(chosen):
    torch._dynamo.reset()
    compiled = torch.compile(lambda z, t: cross_entropy(z, t, **chosen), fullgraph=True, backend="aot_eager")
    out, targ = torch.randn(5, 3, generator=seeded()), torch.tensor([0, 2, 1, 1, 0])
    one, other = out.clone().requires_grad_(), out.clone().requires_grad_()
    assert_close(compiled(one, targ), F.cross_entropy(other, targ, **chosen))
    for function, leaf in [(compiled, one), (lambda z, t: F.cross_entropy(z, t, **chosen), other)]: function(leaf, targ).backward()
    assert_close(one.grad, other.grad)


def test_cross_entropy_of_infinite_logits_and_no_rows():
    out = torch.tensor([[0.0, -math.inf], [3e38, -3e38]])
    for chosen in ({}, dict(ignore_index=-100)):
        assert cross_entropy(out, torch.tensor([0, 0]), **chosen) == 0 and cross_entropy(out[:1], torch.tensor([1]), **chosen) == math.inf
    assert torch.func.jvp(lambda z: cross_entropy(z, torch.tensor([0, 0])), (out,), (torch.ones(2, 2),))[1] == 0
    for sure in ([[17.0, 0.0, 0.0]], [[3.0]]): # 0, and not -0
        assert math.copysign(1, cross_entropy(torch.tensor(sure), torch.tensor([0]))) == 1
    ignored = torch.ones(2, 3, requires_grad=True)
    loss = cross_entropy(ignored, torch.tensor([1, 1]), ignore_index=1)
    loss.backward()
    assert loss.isnan() and (ignored.grad == 0).all() # as F.cross_entropy's
    assert cross_entropy(torch.ones(0, 3), torch.tensor([]).long()).isnan()


def test_cross_entropy_in_half_precision_and_under_autocast():
    out, targ = torch.zeros(70_000, 3).half(), torch.zeros(70_000).long() # more rows than float16 can count
    for chosen in ({}, dict(weight=torch.ones(3).half())): assert_close(cross_entropy(out, targ, **chosen), torch.tensor(math.log(3)).half())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = nn.functional.linear(torch.ones(4, 3), torch.eye(3))
        assert out.dtype == torch.bfloat16
        assert_close(cross_entropy(out, torch.tensor([0, 1, 2, 0]), torch.ones(3)), torch.tensor(math.log(3)))


def test_my_cross_entropy_is_applied():
    assert "MyCrossEntropy" in type(cross_entropy(torch.eye(3, requires_grad=True), torch.tensor([0, 1, 1])).grad_fn).__name__
    assert_close(MyCrossEntropy.apply(torch.eye(3), torch.tensor([0, 1, 1])), F.cross_entropy(torch.eye(3), torch.tensor([0, 1, 1])))
    with pytest.raises(TypeError, match="MyCrossEntropy is applied"): MyCrossEntropy()


@given(scored())
def test_accuracy(problem):
    out, targ = problem
    right = sum(max(range(out.shape[1]), key=lambda k: row[k]) == t for row, t in zip(out.tolist(), targ.tolist()))
    assert accuracy(out, targ).item() == pytest.approx(right / len(targ))
    if out.shape[1] > 1: # a row with a nan logit is always wrong
        out[0, targ[0] - 1] = math.nan
        for predicted in (out.argmax(1), out.nan_to_num(-math.inf).argmax(1)): assert accuracy(out, predicted).item() == pytest.approx(1 - 1 / len(targ))


out = torch.ones(4, 3)


@pytest.mark.parametrize("function", [cross_entropy, accuracy])
@pytest.mark.parametrize("out, targ, error, words", [
    (out, torch.tensor([0, 1, 2, 3]), ValueError, ["targ has 3 in it", "3 classes have numbers from 0 to 2"]),
    (out, torch.tensor([0, -1, 2, 9]), ValueError, ["targ has -1 in it"]),
    (out, torch.tensor([0, -100, 2, 1]), ValueError, ["targ has -100 in it"]), # nothing is ignored unless asked for
    (out, torch.zeros(4, 1).long(), ValueError, ["out is (4, 3) and targ is (4, 1)", "targ.squeeze(-1)"]),
    (out, torch.eye(4, 3).long(), ValueError, ["targ.argmax(-1)"]),
    (out, torch.zeros(5).long(), ValueError, ["out is (4, 3) and targ is (5,)"]),
    (out[0], torch.tensor(1), ValueError, ["out is (3,) and targ is ()"]),
    (out[:, :0], torch.zeros(4).long(), ValueError, ["no classes"]), (out[:0, :0], torch.zeros(0).long(), ValueError, ["no classes"]),
    (out.long(), torch.zeros(4).long(), TypeError, ["out is torch.int64", "out.float()"]),
    (out, torch.zeros(4), TypeError, ["targ is torch.float32", "targ.long()"]),
    (out, [0, 1, 2, 0], TypeError, ["targ is list"]),
    ([[1.0]], torch.zeros(1).long(), TypeError, ["out is list"]),
])
def test_bad_classes(function, out, targ, error, words):
    with pytest.raises(error) as raised: function(out, targ)
    for word in words: assert word in str(raised.value)


@pytest.mark.parametrize("chosen, error, words", [
    (dict(weight=torch.ones(4)), ValueError, "n_classes is 3 in out but 4 in weight"), (dict(weight=torch.ones(3, 1)), ValueError, "weight"),
    (dict(weight=torch.ones(3).double()), TypeError, "weight is torch.float64"), (dict(weight=[1.0] * 3), TypeError, "weight is list"),
    (dict(label_smoothing=1.5), ValueError, "label_smoothing is 1.5"), (dict(label_smoothing=-0.1), ValueError, "label_smoothing is -0.1"),
    (dict(ignore_index=-1), ValueError, "targ has 5 in it"),
])
def test_bad_options(chosen, error, words):
    with pytest.raises(error, match=words): cross_entropy(out, torch.tensor([0, 1, 2, 5 if "ignore_index" in chosen else 0]), **chosen)


# ---- optimisers

THEIRS = {SGD: torch.optim.SGD, Adam: torch.optim.Adam}
PYTORCHS = {ours: next(info for info in optim_db if info.optim_cls is theirs) for ours, theirs in THEIRS.items()}
CASES = [(ours, case.kwargs) for ours, info in PYTORCHS.items() for case in info.optim_inputs_func(device="cpu")
         if not case.kwargs.keys() & {"foreach", "fused", "capturable", "differentiable"}]


def twins(ours, arguments, seed=0, shapes=((3, 2), (2,), ()), dtype=torch.float32):
    "The same parameters twice, with our optimiser and with PyTorch's."
    parts = [[torch.randn(shape, generator=seeded(seed)).to(dtype).requires_grad_() for shape in shapes] for _ in range(2)]
    return parts, [cls(params, **copy.deepcopy(arguments)) for cls, params in zip([ours, THEIRS[ours]], parts)]


def same_steps(parts, opts, steps, seed=1, missing=()):
    "Gives both the same gradients and takes steps; parameters stay equal to the last bit, gradients are left alone."
    g = seeded(seed)
    for step in range(steps):
        for n, (p, q) in enumerate(zip(*parts)):
            gradient = torch.randn(p.shape, generator=g).to(p.dtype)
            p.grad, q.grad = (None, None) if n == 1 and step in missing else (gradient.clone(), gradient)
        for opt in opts: opt.step()
        for p, q in zip(*parts):
            assert torch.equal(p, q)
            assert p.grad is None or torch.equal(p.grad, q.grad)


def test_pytorch_has_cases_for_both():
    assert {cls: sum(ours is cls for ours, _ in CASES) for cls in THEIRS} == {SGD: 9, Adam: 5}


@pytest.mark.parametrize("ours, arguments", CASES)
def test_pytorchs_own_cases(ours, arguments): same_steps(*twins(ours, arguments), steps=30)


@pytest.mark.parametrize("ours", THEIRS)
def test_pytorchs_own_cases_with_schedulers(ours):
    for makers in PYTORCHS[ours].scheduler_inputs:
        parts, opts = twins(ours, dict(lr=0.1))
        schedulers = [[make(opt) for make in makers] for opt in opts]
        for step in range(12):
            same_steps(parts, opts, steps=1, seed=step)
            for each in schedulers:
                for one in each: one.step(*[1.0] * isinstance(one, lr_scheduler.ReduceLROnPlateau))
        assert opts[0].param_groups[0]["lr"] == opts[1].param_groups[0]["lr"]


@pytest.mark.parametrize("ours", THEIRS)
def test_pytorchs_own_errors(ours):
    for case in PYTORCHS[ours].optim_error_inputs_func(device="cpu", dtype=torch.float32):
        params, arguments = case.optimizer_error_input.params, case.optimizer_error_input.kwargs
        if "foreach" in arguments: continue
        if issubclass(case.error_type, Warning):
            with pytest.warns(case.error_type, match=case.error_regex): ours(params, **arguments)
        else:
            with pytest.raises(case.error_type): ours([torch.ones(1, requires_grad=True)] if params is None else params, **arguments)


NUMBERS = st.sampled_from([0.0, 1e-3, 0.1, 0.5, 0.9, 1.0])
SETTINGS = {SGD: st.fixed_dictionaries(dict(lr=st.floats(1e-4, 1), momentum=NUMBERS, dampening=NUMBERS, weight_decay=NUMBERS, maximize=st.booleans())),
            Adam: st.fixed_dictionaries(dict(lr=st.floats(1e-4, 1), betas=st.tuples(*[st.sampled_from([0.0, 0.5, 0.9, 0.999])] * 2), eps=st.sampled_from([1e-8, 0.1]),
                                             weight_decay=NUMBERS, amsgrad=st.booleans(), maximize=st.booleans()))}


@pytest.mark.parametrize("ours", THEIRS)
@given(data=st.data(), seed=st.integers(0, 99), missing=st.sets(st.integers(0, 7)), dtype=st.sampled_from([*FLOATS, torch.bfloat16]))
def test_optimisers_are_pytorchs_bit_for_bit(ours, data, seed, missing, dtype):
    arguments = data.draw(SETTINGS[ours])
    if ours is SGD and arguments["momentum"] and not arguments["dampening"]: arguments["nesterov"] = data.draw(st.booleans())
    same_steps(*twins(ours, arguments, seed, dtype=dtype), steps=8, seed=seed, missing=missing)


@pytest.mark.parametrize("ours", THEIRS)
def test_a_gradient_that_is_kept_from_step_to_step(ours):
    parts, opts = twins(ours, {SGD: dict(momentum=0.9), Adam: {}}[ours] | dict(lr=torch.tensor([0.1]).double())) # a tensor of one element will do
    for p, q in zip(*parts): p.grad, q.grad = torch.full_like(p, 2.0), torch.full_like(q, 2.0)
    for _ in range(3):
        for opt in opts: opt.step()
        for p, q in zip(*parts): assert torch.equal(p, q) and (p.grad == 2.0).all()


@pytest.mark.parametrize("ours", THEIRS)
def test_positional_arguments_mean_the_same(ours):
    values = {SGD: (0.1, 0.9, 0.1, 0.01), Adam: (0.1, (0.8, 0.9), 1e-3, 0.01, True)}[ours]
    one, other = (cls([torch.ones(2, requires_grad=True)], *values).param_groups[0] for cls in (ours, THEIRS[ours]))
    assert {name: one[name] for name in one if name != "params"} == {name: other[name] for name in one if name != "params"}


@pytest.mark.parametrize("ours", THEIRS)
def test_groups_closures_frozen_parameters_and_repr(ours):
    parts = [[torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True), torch.ones(2)] for _ in range(2)]
    opts = [cls([dict(params=p[:1], lr=0.5, name="head"), dict(params=p[1:])], lr=0.1) for cls, p in zip([ours, THEIRS[ours]], parts)]
    for (p, q, frozen), opt in zip(parts, opts):
        def closure():
            opt.zero_grad()
            loss = (p * q * q * frozen).sum()
            loss.backward()
            return loss
        for _ in range(3): value = opt.step(closure)
        assert value.requires_grad and frozen.grad is None and (frozen == 1).all()
    for p, q in zip(*parts): assert torch.equal(p, q)
    assert not torch.equal(parts[0][0], parts[0][1]) and "head" in repr(opts[0]) and repr(opts[0]).startswith(ours.__name__)
    opts[0].zero_grad(set_to_none=False)
    assert (parts[0][0].grad == 0).all()
    opts[0].zero_grad()
    assert parts[0][0].grad is None


@pytest.mark.parametrize("ours", THEIRS)
def test_grad_scaler(ours):
    parts, opts = twins(ours, dict(lr=0.1))
    scalers = [torch.amp.GradScaler("cpu", init_scale=1024.0) for _ in opts]
    for step in range(4):
        for params, opt, scaler in zip(parts, opts, scalers):
            opt.zero_grad()
            loss = sum(p.square().sum() for p in params) * (math.inf if step == 2 else 1.0)
            scaler.scale(loss).backward()
            before = [p.detach().clone() for p in params]
            scaler.step(opt), scaler.update()
            assert all(map(torch.equal, before, params)) == (step == 2) # a step with infinities is left out
    for p, q in zip(*parts): assert torch.equal(p, q)
    assert scalers[0].get_scale() == scalers[1].get_scale() == 512


def arguments_of(ours): return {SGD: dict(lr=0.1, momentum=0.9, weight_decay=0.1), Adam: dict(lr=0.1, amsgrad=True, weight_decay=0.1)}[ours]


@pytest.mark.parametrize("ours", THEIRS)
def test_state_dicts_go_to_pytorch_and_back(ours):
    (ps, qs), (one, other) = twins(ours, arguments_of(ours))
    same_steps((ps, qs), (one, other), steps=3)
    for cls, source, params in [(ours, other, qs), (THEIRS[ours], one, ps), (ours, one, ps)]:
        params, source = copy.deepcopy((params, source))
        others = copy.deepcopy(params)
        loaded = cls(others, lr=7.0)
        loaded.load_state_dict(source.state_dict() if cls is ours else copy.deepcopy(source.state_dict()))
        same_steps((params, others), (source, loaded), steps=3, seed=5)
    file = io.BytesIO()
    torch.save(one.state_dict(), file), file.seek(0)
    for _ in range(2): one.load_state_dict(torch.load(file)), file.seek(0) # PyTorch adds to its defaults when it loads
    same_steps((ps, qs), (one, other), steps=2, seed=6)
    assert type(pickle.loads(pickle.dumps(one))) is ours


@pytest.mark.parametrize("ours", THEIRS)
def test_what_is_loaded_is_a_copy(ours):
    state = stepped(ours, **arguments_of(ours))
    before, p = copy.deepcopy(state), leaf(2)
    opt, p.grad = ours([p]), torch.ones(2)
    opt.load_state_dict(state)
    for _ in range(2): opt.step()
    for name, value in before["state"][0].items(): assert_close(state["state"][0][name], value, atol=0, rtol=0)


def leaf(*shape, dtype=torch.float32): return torch.ones(shape, dtype=dtype, requires_grad=True)


def stepped(cls=SGD, **arguments):
    "The state of an optimiser of one parameter, of shape (2,), that has taken a step."
    p = leaf(2)
    opt, p.grad = cls([p], **arguments), torch.ones_like(p)
    opt.step()
    return opt.state_dict()


@pytest.mark.parametrize("act, error, words", [
    (lambda: SGD([]), ValueError, "empty parameter list"), (lambda: SGD(torch.ones(2)), TypeError, "iterable of Tensors"),
    (lambda: SGD([1.0]), TypeError, "can only optimize Tensors"), (lambda: SGD([2 * leaf(2)]), ValueError, "non-leaf"),
    *((lambda chosen=chosen: SGD([leaf(2)], **chosen), ValueError, rf"{next(iter(chosen))} is .*; it must be a number from 0")
      for chosen in [dict(lr="0.1"), dict(lr=-1.0), dict(lr=math.nan), dict(lr=math.inf), dict(lr=torch.ones(2)), dict(lr=None),
                     dict(momentum=-0.1), dict(momentum=torch.ones(1)), dict(weight_decay=-1), dict(dampening=-1)]),
    (lambda: SGD([leaf(2)], nesterov=True), ValueError, "nesterov needs a momentum"),
    (lambda: SGD([leaf(2)], momentum=0.9, dampening=0.1, nesterov=True), ValueError, "a dampening of 0"),
    (lambda: SGD([dict(params=[leaf(2)], lr=-5)]), ValueError, "lr is -5"), (lambda: Adam([dict(params=[leaf(2)], betas=(2, 0))]), ValueError, "beta1 is 2"),
    (lambda: SGD([leaf(2)]).add_param_group(dict(params=[leaf(2)], lr=-5)), ValueError, "lr is -5"),
    (lambda: Adam([leaf(2)], lr=-1.0), ValueError, "lr is -1.0"), (lambda: Adam([leaf(2)], eps=-1.0), ValueError, "eps is -1.0"),
    (lambda: Adam([leaf(2)], weight_decay=-1.0), ValueError, "weight_decay is -1.0"),
    (lambda: Adam([leaf(2)], betas=(0.9, 1.0)), ValueError, "beta2 is 1.0; it must be a number from 0, less than 1"),
    (lambda: Adam([leaf(2)], betas=(-0.1, 0.9)), ValueError, "beta1 is -0.1"), (lambda: Adam([leaf(2)], betas=(0.9,)), ValueError, "unpack"),
    (lambda: SGD([leaf(2)]).load_state_dict(stepped() | dict(param_groups=[])), ValueError, "number of parameter groups"),
    (lambda: SGD([leaf(2), leaf(2)]).load_state_dict(stepped()), ValueError, "match the size"),
    (lambda: SGD([leaf(3)]).load_state_dict(stepped(momentum=0.9)), ValueError, r"momentum_buffer of \(2,\) for a parameter of \(3,\)"),
    (lambda: SGD([leaf(2)]).load_state_dict(stepped(Adam)), ValueError, "another optimiser: no .*momentum"),
    (lambda: Adam([leaf(2)]).load_state_dict(stepped(SGD)), ValueError, "another optimiser: no .*betas"),
    (lambda: SGD([leaf(2)]).load_state_dict(dict(state={}, param_groups=[stepped()["param_groups"][0] | dict(lr=-5)])), ValueError, "lr is -5"),
])
def test_optimisers_bad_input(act, error, words):
    with pytest.raises(error, match=words): act()


def test_a_state_that_is_refused_changes_nothing():
    opt = SGD([leaf(3)], lr=0.3)
    with pytest.raises(ValueError): opt.load_state_dict(stepped(momentum=0.9))
    with pytest.raises(ValueError): opt.add_param_group(dict(params=[leaf(2)], lr=-5))
    assert len(opt.param_groups) == 1 and opt.param_groups[0]["lr"] == 0.3 and not opt.state


def test_a_loaded_velocity_takes_the_dtype_of_its_parameter():
    state = stepped(momentum=0.9)
    state["state"][0]["momentum_buffer"] = state["state"][0]["momentum_buffer"].double()
    opt = SGD([leaf(2)])
    opt.load_state_dict(state)
    assert opt.state_dict()["state"][0]["momentum_buffer"].dtype == torch.float32


def test_adam_refuses_complex_parameters_and_sgd_takes_sparse_gradients():
    p = leaf(2, dtype=torch.complex64)
    opt, p.grad = Adam([p]), torch.ones_like(p)
    with pytest.raises(TypeError, match="Adam takes real parameters, not torch.complex64"): opt.step()
    tables = [nn.Embedding(5, 3, sparse=True) for _ in range(2)]
    tables[1].load_state_dict(tables[0].state_dict())
    for table, cls in zip(tables, (SGD, torch.optim.SGD)):
        opt = cls(table.parameters(), lr=0.1, momentum=0.9)
        for _ in range(3):
            opt.zero_grad()
            table(torch.tensor([1, 1, 4])).square().sum().backward()
            opt.step()
    assert torch.equal(tables[0].weight, tables[1].weight)


# ---- fit

def start(seed=0, optimiser=SGD, n_out=10, **settings):
    model = MLP(64, 16, n_out, generator=seeded(seed))
    return model, optimiser(model.parameters(), **{"lr": 0.1, "momentum": 0.9, **settings})


def test_fit_is_the_plain_loop():
    model, opt = start()
    history = fit(model, opt, DIGITS.x, DIGITS.targ, epochs=2, batch_size=100, generator=seeded(5), valid=DIGITS[2:], metric=accuracy, progress=False)
    plain, plain_opt = start(optimiser=torch.optim.SGD)
    g, losses, shares = seeded(5), [], []
    for epoch in range(2):
        for batch in torch.randperm(1437, generator=g).split(100):
            logits = plain(DIGITS.x[batch])
            loss = F.cross_entropy(logits, DIGITS.targ[batch])
            losses.append(loss.item()), shares.append((logits.argmax(1) == DIGITS.targ[batch]).float().mean().item())
            plain_opt.zero_grad()
            loss.backward()
            plain_opt.step()
        with torch.no_grad(): logits = plain(DIGITS.x_valid)
        assert history.valid_loss[epoch] == pytest.approx(F.cross_entropy(logits, DIGITS.targ_valid).item(), abs=1e-4)
        assert history.valid_metric[epoch] == pytest.approx((logits.argmax(1) == DIGITS.targ_valid).float().mean().item(), abs=3e-3)
    assert_close(weights(model), weights(plain), atol=1e-4, rtol=0)
    assert history.loss == pytest.approx(losses, abs=1e-4) and history.metric == pytest.approx(shares, abs=0.011)
    assert history.epochs == 2


@pytest.mark.parametrize("optimiser", [SGD, torch.optim.SGD])
def test_same_seeds_same_weights_and_others_not(optimiser):
    def run(seed):
        model, opt = start(optimiser=optimiser)
        fit(model, opt, DIGITS.x, DIGITS.targ, epochs=2, generator=seeded(seed), progress=False)
        return weights(model)
    assert torch.equal(run(1), run(1)) and not torch.equal(run(1), run(2))


def test_optimisers_of_all_kinds():
    for optimiser in (Adam, torch.optim.Adam, torch.optim.Adagrad):
        model = MLP(64, 16, 10, generator=seeded())
        history = fit(model, optimiser(model.parameters(), lr=0.01), DIGITS.x, DIGITS.targ, epochs=2, generator=seeded(), progress=False)
        assert sum(history.loss[-5:]) < 0.8 * sum(history.loss[:5])


@given(epochs=st.lists(st.integers(1, 3), min_size=1, max_size=3))
@settings(max_examples=8)
def test_continuing_is_as_if_nothing_had_happened(epochs):
    straight, opt = start()
    known = fit(straight, opt, DIGITS.x, DIGITS.targ, epochs=max(epochs), valid=DIGITS[2:], generator=seeded(3), progress=False)
    (model, opt), history, g = start(), History(), seeded(3)
    for last in epochs:
        before = history.epochs
        assert fit(model, opt, DIGITS.x, DIGITS.targ, epochs=last, valid=DIGITS[2:], generator=g, history=history, progress=False) is history
        assert history.epochs == max(before, last)
    assert torch.equal(weights(model), weights(straight)) and history == known


def test_a_schedule_from_epoch_to_epoch():
    model, opt = start()
    schedule, history = lr_scheduler.ExponentialLR(opt, 0.5), History()
    for epoch in range(1, 4):
        fit(model, opt, DIGITS.x, DIGITS.targ, epochs=epoch, history=history, progress=False)
        schedule.step()
    assert opt.param_groups[0]["lr"] == pytest.approx(0.1 / 8) and len(history.loss) == 3 * EPOCH


class Stop:
    "A loss during which the user presses the stop button in the given call."
    def __init__(self, call): self.call, self.n = call, 0
    def __call__(self, out, targ):
        self.n += 1
        if self.n == self.call: raise KeyboardInterrupt
        return cross_entropy(out, targ)


@given(call=st.integers(1, 3 * EPOCH + 3))
@settings(max_examples=12)
def test_an_interrupt_is_raised_and_leaves_what_was_learned(call):
    (model, opt), history, g = start(), History(), seeded(3)
    common = dict(epochs=3, valid=DIGITS[2:], generator=g, history=history, progress=False)
    with pytest.raises(KeyboardInterrupt): fit(model, opt, DIGITS.x, DIGITS.targ, loss=Stop(call), **common)
    steps = call - 1 - (call - 1) // (EPOCH + 1) # each epoch ends with a call for the validation set
    assert len(history.loss) == steps and history.epochs == len(history.valid_loss) == (call - 1) // (EPOCH + 1)
    plain, plain_opt = start() # the same steps without fit
    order = seeded(3)
    batches = [batch for _ in range(3) for batch in torch.randperm(1437, generator=order).split(64)]
    for batch in batches[:steps]:
        plain_opt.zero_grad()
        cross_entropy(plain(DIGITS.x[batch]), DIGITS.targ[batch]).backward()
        plain_opt.step()
    assert torch.equal(weights(model), weights(plain)) and all(m.training for m in model.modules())
    fit(model, opt, DIGITS.x, DIGITS.targ, **common)
    assert history.epochs == 3 == len(history.valid_loss) and len(history.loss) == steps + EPOCH * (3 - (call - 1) // (EPOCH + 1))


def test_an_interrupt_ends_a_loop_around_fit():
    model, opt = start()
    with pytest.raises(KeyboardInterrupt):
        for _ in range(3): fit(model, opt, DIGITS.x, DIGITS.targ, epochs=1, loss=Stop(1), progress=False)


def test_history_compares_prints_and_is_saved():
    model, opt = start()
    history = fit(model, opt, DIGITS.x, DIGITS.targ, epochs=1, valid=DIGITS[2:], metric=accuracy, generator=seeded(), progress=False)
    file = io.BytesIO()
    torch.save({"model": model.state_dict(), "history": history}, file), file.seek(0)
    loaded = torch.load(file, weights_only=True)["history"]
    assert loaded == history and loaded is not history and loaded != History() and History(**vars(history)) == history
    loaded.loss.append(0.5)
    assert loaded != history
    assert str(History()) == "epochs 0" and str(History(loss=[9.0, 2.0], valid_metric=[0.75], epochs=3)) == "epochs 3, loss 2.000, valid_metric 0.750"


def test_progress(capsys):
    model, opt = start()
    history = fit(model, opt, DIGITS.x, DIGITS.targ, epochs=2, valid=DIGITS[2:], metric=accuracy, generator=seeded())
    shown = capsys.readouterr().err
    assert "2874/2874" in shown and f"{history}]" in shown and "valid_metric" in str(history)
    fit(model, opt, DIGITS.x, DIGITS.targ, epochs=1, generator=seeded(), progress=False)
    assert capsys.readouterr().err == ""
    with pytest.raises(KeyboardInterrupt): fit(model, opt, DIGITS.x, DIGITS.targ, epochs=3, loss=Stop(30), history=(stopped := History()))
    assert "1821/4311" in capsys.readouterr().err # an epoch and six batches
    fit(model, opt, DIGITS.x, DIGITS.targ, epochs=2, history=stopped)
    assert "1437/1437" in capsys.readouterr().err
    fit(model, opt, DIGITS.x, DIGITS.targ, epochs=1, history=stopped) # nothing is left to do


def breaks_at(call, value):
    "A loss that is multiplied by `value` in one call."
    calls = iter(range(1, 10_000))
    def loss(out, targ): return cross_entropy(out, targ) * (value if next(calls) == call else 1)
    return loss


class NanGradient(torch.autograd.Function):
    "A number as it is, with a gradient of nan."
    @staticmethod
    def forward(ctx, x): return x.clone()
    @staticmethod
    def backward(ctx, g): return g * math.nan


@pytest.mark.parametrize("optimiser", [SGD, torch.optim.SGD])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_ends_it_before_the_step(optimiser, value):
    (model, opt), (known, known_opt), history = start(optimiser=optimiser), start(optimiser=optimiser), History()
    with pytest.raises(FloatingPointError, match=f"^loss is not finite at step {EPOCH + 8}$"):
        fit(model, opt, DIGITS.x, DIGITS.targ, epochs=3, loss=breaks_at(EPOCH + 8, value), history=history, generator=seeded(1), progress=False)
    with pytest.raises(KeyboardInterrupt): fit(known, known_opt, DIGITS.x, DIGITS.targ, epochs=3, loss=Stop(EPOCH + 8), generator=seeded(1), progress=False)
    assert torch.equal(weights(model), weights(known)) and history.epochs == 1
    assert len(history.loss) == EPOCH + 8 and not math.isfinite(history.loss[-1]) and all(map(math.isfinite, history.loss[:-1]))


@pytest.mark.parametrize("sparse", [False, True])
def test_the_gradient_of_the_last_step_counts_as_well(sparse):
    model, targ = nn.Embedding(4, 10, sparse=sparse), torch.tensor([0, 1, 2, 3])
    model.unused = nn.Parameter(torch.ones(1)) # gets no gradient
    before, calls = weights(model), iter(range(1, 99))
    def loss(out, targ): return NanGradient.apply(cross_entropy(out, targ)) if next(calls) == 6 else cross_entropy(out, targ)
    with pytest.raises(FloatingPointError, match="^gradient is not finite at step 6$"):
        fit(model, SGD(model.parameters(), 0.1), torch.arange(4), targ, epochs=3, batch_size=2, loss=loss, progress=False)
    assert weights(model).isfinite().all() and not torch.equal(weights(model), before)


def test_large_gradients_are_finite():
    "Gradients whose sum or norm overflows are no reason to stop."
    model, x = nn.Linear(100, 1, bias=False).half(), torch.full((1, 100), 1000.0).half()
    history = fit(model, SGD(model.parameters(), 1e-6), x, torch.zeros(1), epochs=1, loss=lambda out, targ: out.sum(), progress=False)
    assert len(history.loss) == 1


def test_a_validation_loss_that_is_not_finite_ends_it():
    (model, opt), history = start(), History()
    with pytest.raises(FloatingPointError, match=f"^valid_loss is not finite at step {2 * EPOCH}$"):
        fit(model, opt, DIGITS.x, DIGITS.targ, epochs=3, valid=DIGITS[2:], loss=breaks_at(2 * EPOCH + 2, math.nan), history=history, progress=False)
    assert history.epochs == 1 and math.isnan(history.valid_loss[-1]) and model.training and weights(model).isfinite().all()


def test_old_gradients_do_not_count():
    def run(old):
        model, opt = start()
        for p in model.parameters(): p.grad = torch.full_like(p, old)
        fit(model, opt, DIGITS.x, DIGITS.targ, epochs=1, generator=seeded(), progress=False)
        return weights(model)
    assert torch.equal(run(0.0), run(1e3))


def test_losses_and_metrics_of_all_kinds():
    model, opt = start()
    for metric in (accuracy, lambda out, targ: 1 / (not out.requires_grad), None):
        history = fit(model, opt, DIGITS.x, DIGITS.targ, epochs=1, metric=metric, valid=DIGITS[2:], progress=False)
        assert len(history.metric) == (EPOCH if metric else 0) and len(history.valid_metric) == (1 if metric else 0)
    before = weights(model)
    with pytest.raises(ValueError): fit(model, opt, DIGITS.x, DIGITS.targ, epochs=1, metric=lambda out, targ: int("no number"), progress=False)
    assert torch.equal(weights(model), before) # what fails, fails before the step
    for loss in (mse, my_mse, F.mse_loss):
        model, opt = start(n_out=1, lr=0.001)
        history = fit(model, opt, DIGITS.x, DIGITS.targ.float()[:, None], epochs=2, loss=loss, generator=seeded(), progress=False)
        assert history.loss[-1] < history.loss[0]


class Noisy(nn.Module):
    def __init__(self):
        super().__init__()
        self.net, self.seen = nn.Sequential(nn.BatchNorm1d(64), nn.Dropout(0.5), nn.Linear(64, 10)), []
    def forward(self, x):
        self.seen.append((len(x), [m.training for m in self.modules()], torch.is_grad_enabled()))
        return self.net(x)


def test_modes_are_the_users_and_evaluation_is_for_the_validation_set():
    model = Noisy()
    model.net[0].eval() # frozen
    before, modes = copy.deepcopy(model.net[0].state_dict()), [m.training for m in model.modules()]
    fit(model, SGD(model.net[2].parameters(), 0.1), DIGITS.x, DIGITS.targ, epochs=2, batch_size=1000, valid=DIGITS[2:], progress=False)
    assert model.seen == 2 * [(1000, modes, True), (437, modes, True), (360, [False] * 5, False)]
    assert [m.training for m in model.modules()] == modes and not model.net[0].training
    for name, value in model.net[0].state_dict().items(): assert torch.equal(value, before[name])
    model.net[0].train()
    with pytest.raises(ZeroDivisionError): # in the validation, too, each gets its own mode back
        fit(model, SGD(model.parameters(), 0.1), DIGITS.x, DIGITS.targ, epochs=1, valid=DIGITS[2:], progress=False,
            loss=lambda out, targ: cross_entropy(out, targ) if len(out) != 360 else 1 / 0)
    assert all(m.training for m in model.modules())


def test_a_model_in_evaluation_mode_stays_in_it_with_a_warning():
    model = Noisy().eval()
    with pytest.warns(UserWarning, match="model is in evaluation mode"):
        fit(model, SGD(model.parameters(), 0.1), DIGITS.x, DIGITS.targ, epochs=1, progress=False)
    assert not any(training for _, modes, _ in model.seen for training in modes)
    model.net[1].train() # a part in training mode is the user's choice
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(model, SGD(model.parameters(), 0.1), DIGITS.x, DIGITS.targ, epochs=1, progress=False)


model, opt = start()
x, targ = DIGITS[:2]


@pytest.mark.parametrize("arguments, settings, error, words", [
    ((model, opt, x, targ[:5]), {}, ValueError, ["x is (1437, 64) and targ is (5,)", "n is 1437 in x but 5 in targ"]),
    ((model, opt, x[:0], targ[:0]), {}, ValueError, ["len(x) is 0"]), ((model, opt, x, targ[0]), {}, ValueError, ["targ has rank 0"]),
    ((model, opt, x[0, 0], targ[0]), {}, ValueError, ["x has rank 0"]),
    ((model, opt, x, targ), dict(valid=(x, targ[:5])), ValueError, ["n is 1437 in x_valid but 5 in targ_valid"]),
    ((model, opt, x, targ), dict(valid=(x[:0], targ[:0])), ValueError, ["len(x_valid) is 0"]),
    ((model, opt, x, targ), dict(valid=(x,)), ValueError, ["valid is tuple", "a pair"]), ((model, opt, x, targ), dict(valid=x), ValueError, ["valid is Tensor", "a pair"]),
    ((model, opt, x, targ), dict(epochs=0), ValueError, ["epochs is 0"]),
    ((model, opt, x, targ), dict(epochs=1.5), ValueError, ["epochs is 1.5"]),
    ((model, opt, x, targ), dict(batch_size=0), ValueError, ["batch_size is 0"]),
    ((model, opt, x.tolist(), targ), {}, TypeError, ["x is list"]),
    ((model, opt, x, targ.tolist()), {}, TypeError, ["targ is list"]),
    ((model, opt, x, targ), dict(valid=(x, targ.tolist())), TypeError, ["targ_valid is list"]),
    ((abs, opt, x, targ), {}, TypeError, ["model is builtin_function_or_method"]),
    ((model, opt, x, targ + 1), {}, ValueError, ["targ has 10 in it"]),
    ((model, None, x, targ), {}, TypeError, ["opt is NoneType"]),
    ((model, lr_scheduler.StepLR(opt, 1), x, targ), {}, TypeError, ["opt is StepLR; fit takes an optimiser"]),
    ((model, start(1)[1], x, targ), {}, ValueError, ["opt has none of the model's parameters"]),
    ((model, start(1, torch.optim.SGD)[1], x, targ), {}, ValueError, ["opt has none of the model's parameters"]),
])
def test_fit_bad_input(arguments, settings, error, words):
    before = weights(model)
    with pytest.raises(error) as raised: fit(*arguments, **{"epochs": 1, "progress": False, **settings})
    for word in words: assert word in str(raised.value)
    assert model.training and torch.equal(weights(model), before)


def test_five_seeds_learn():
    for seed in range(5):
        model = MLP(64, 64, 10, generator=seeded(seed))
        history = fit(model, SGD(model.parameters(), 0.1, momentum=0.9), *DIGITS[:2], epochs=20, valid=DIGITS[2:], metric=accuracy, generator=seeded(seed), progress=False)
        assert history.valid_metric[-1] > 0.93
