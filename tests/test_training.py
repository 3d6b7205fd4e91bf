"The digits, cross-entropy, SGD beside torch's, and `fit`: reproducible, to be stopped and taken up again, and errors."
import _thread, builtins, copy, math, signal, threading, time
from functools import partial

import pytest, torch
import torch.nn.functional as F
from hypothesis import example, given, settings, strategies as st
from torch import nn
from torch.testing import assert_close

from groundup.autograd import my_mse
from groundup.backprop import numerical_grad
from groundup.module import MLP
from groundup.training import SGD, Digits, History, accuracy, _held_back, _status, cross_entropy, fit, load_digits
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
    "Scores, some of them large, and classes."
    n, k, scale = draw(st.integers(least, 6)), draw(st.integers(1, 5)), draw(st.sampled_from([0.1, 1.0, 30.0, 1e4]))
    g = seeded(draw(st.integers(0, 2**16)))
    return torch.randn(n, k, generator=g, dtype=torch.float64) * scale, torch.randint(k, (n,), generator=g)


@given(scored(least=0), st.sampled_from(FLOATS))
def test_cross_entropy_equals_torch(problem, dtype):
    out, targ = problem[0].to(dtype), problem[1]
    leaf, known = out.clone().requires_grad_(), out.clone().requires_grad_()
    ours, theirs = cross_entropy(leaf, targ), F.cross_entropy(known, targ)
    assert_close(ours, theirs, rtol=1e-5 if dtype == torch.float32 else 1e-12, atol=1e-12 if dtype == torch.float64 else 1e-6, equal_nan=True)
    for one, other in zip(torch.autograd.grad(3 * ours, leaf), torch.autograd.grad(3 * theirs, known)):
        assert one.dtype == dtype
        assert_close(one, other, atol=1e-6 if dtype == torch.float32 else 1e-13, rtol=0)


def test_cross_entropy_derivatives():
    out, targ = torch.randn(5, 3, generator=seeded(), dtype=torch.float64, requires_grad=True), torch.tensor([0, 2, 1, 1, 0])
    assert torch.autograd.gradcheck(cross_entropy, (out, targ)) and torch.autograd.gradgradcheck(cross_entropy, (out, targ))
    hand, = torch.autograd.grad(cross_entropy(out, targ), out)
    assert_close(hand, (out.detach().softmax(1) - F.one_hot(targ, 3)) / 5, atol=1e-14, rtol=0)
    assert_close(hand, numerical_grad(lambda z: cross_entropy(z, targ), out.detach()), atol=1e-8, rtol=0)


def test_cross_entropy_of_infinite_scores():
    out = torch.tensor([[0.0, -math.inf], [3e38, -3e38]])
    assert cross_entropy(out, torch.tensor([0, 0])) == 0 and cross_entropy(out[:1], torch.tensor([1])) == math.inf


@given(scored())
def test_accuracy(problem):
    out, targ = problem
    right = sum(max(range(out.shape[1]), key=lambda k: row[k]) == t for row, t in zip(out.tolist(), targ.tolist()))
    assert accuracy(out, targ).item() == pytest.approx(right / len(targ))
    if out.shape[1] > 1: # a row with a broken score is right about nothing
        out[0, targ[0] - 1] = math.nan
        for says in (out.argmax(1), out.nan_to_num(-math.inf).argmax(1)): assert accuracy(out, says).item() == pytest.approx(1 - 1 / len(targ))


out = torch.ones(4, 3)


@pytest.mark.parametrize("function", [cross_entropy, accuracy])
@pytest.mark.parametrize("out, targ, error, words", [
    (out, torch.tensor([0, 1, 2, 3]), ValueError, ["targ has 3 in it", "3 classes have numbers from 0 to 2"]),
    (out, torch.tensor([0, -1, 2, 9]), ValueError, ["targ has -1 in it"]),
    (out, torch.zeros(4, 1).long(), ValueError, ["out is (4, 3) and targ is (4, 1)", "targ.squeeze(-1) fits"]),
    (out, torch.eye(4, 3).long(), ValueError, ["targ.argmax(-1)"]),
    (out, torch.zeros(5).long(), ValueError, ["out is (4, 3) and targ is (5,)"]),
    (out[0], torch.tensor(1), ValueError, ["out is (3,) and targ is ()"]), (out[:, :0], torch.zeros(4).long(), ValueError, ["out is (4, 0)", "a class at least"]),
    (out.long(), torch.zeros(4).long(), TypeError, ["out is torch.int64", "out.float()"]),
    (out, torch.zeros(4), TypeError, ["targ is torch.float32", "targ.long()"]),
    (out, [0, 1, 2, 0], TypeError, ["targ is list"]),
    ([[1.0]], torch.zeros(1).long(), TypeError, ["out is list"]),
])
def test_bad_classes(function, out, targ, error, words):
    with pytest.raises(error) as raised: function(out, targ)
    for word in words: assert word in str(raised.value)


@given(lr=st.floats(1e-4, 1), momentum=st.sampled_from([0.0, 0.5, 0.9, 1.0]), weight_decay=st.sampled_from([0.0, 0.01, 0.5]), seed=st.integers(0, 99),
       missing=st.sets(st.integers(0, 7)))
@settings(max_examples=60)
def test_sgd_is_torch_sgd_bit_for_bit(lr, momentum, weight_decay, seed, missing):
    ours, theirs = ([torch.randn(shape, generator=seeded(seed), requires_grad=True) for shape in [(3, 2), (2,), ()]] for _ in range(2))
    one, other = SGD(ours, lr, momentum=momentum, weight_decay=weight_decay), torch.optim.SGD(theirs, lr, momentum=momentum, weight_decay=weight_decay)
    g = seeded(seed + 1)
    for step in range(8):
        for n, (p, q) in enumerate(zip(ours, theirs)):
            gradient = torch.randn(p.shape, generator=g)
            p.grad, q.grad = (None, None) if n == 1 and step in missing else (gradient.clone(), gradient.clone())
        kept = [p.grad.clone() if p.grad is not None else None for p in ours]
        one.step(), other.step()
        for p, q, gradient in zip(ours, theirs, kept):
            assert torch.equal(p, q)
            assert gradient is None or torch.equal(p.grad, gradient) # the gradient itself is left alone
    one.zero_grad()
    assert all(p.grad is None for p in ours)


def test_sgd_keeps_its_hands_off_gradients():
    p, q = (torch.ones(3, requires_grad=True) for _ in range(2))
    one, other = SGD([p], 0.1, momentum=0.9), torch.optim.SGD([q], 0.1, momentum=0.9)
    p.grad, q.grad = torch.full((3,), 2.0), torch.full((3,), 2.0) # the same tensor in each step
    for _ in range(3):
        one.step(), other.step()
        assert torch.equal(p, q) and torch.equal(p.grad, torch.full((3,), 2.0))


def test_sgd_state_goes_on_where_it_was():
    p, q = (torch.ones(3, requires_grad=True) for _ in range(2))
    one, other = SGD([p], 0.1, momentum=0.9, weight_decay=0.1), SGD([q], 7.0)
    def step(opt, t):
        t.grad = torch.full((3,), 2.0)
        opt.step()
    step(one, p)
    with torch.no_grad(): q.copy_(p)
    other.load_state_dict(one.state_dict())
    assert other.velocity[0] is not one.velocity[0] and (other.lr, other.momentum, other.weight_decay) == (0.1, 0.9, 0.1)
    for _ in range(3):
        step(one, p), step(other, q)
        assert torch.equal(p, q)


@pytest.mark.parametrize("act, error, words", [
    (lambda: SGD([], 0.1), ValueError, "there are no parameters"), (lambda: SGD(torch.ones(2), 0.1), TypeError, "params is one tensor"),
    (lambda: SGD([1.0], 0.1), TypeError, "is float, not a tensor"), (lambda: SGD([torch.ones(2)], 0.1), ValueError, "gets no gradient"),
    (lambda: SGD([2 * torch.ones(2, requires_grad=True)], 0.1), ValueError, "must be a leaf"),
    *((lambda kw=kw: SGD([torch.ones(2, requires_grad=True)], **kw), ValueError, "must be a number from 0")
      for kw in [dict(lr="0.1"), dict(lr=-1.0), dict(lr=math.nan), dict(lr=math.inf), dict(lr=0.1, momentum=-0.1), dict(lr=0.1, weight_decay=-1)]),
    (lambda: SGD([torch.ones(2, requires_grad=True)], 0.1).load_state_dict({}), ValueError, "state has"),
    (lambda: SGD([torch.ones(2, requires_grad=True)], 0.1).load_state_dict(dict(lr=1, momentum=0, weight_decay=0, velocity=[torch.ones(3)])), ValueError, r"a velocity of \(3,\)"),
    (lambda: SGD([torch.ones(2, requires_grad=True)] * 2, 0.1), ValueError, "twice"),
])
def test_sgd_bad_input(act, error, words):
    with pytest.raises(error, match=words): act()


def start(seed=0, optimiser=SGD, n_out=10, **settings):
    model = MLP(64, 16, n_out, generator=seeded(seed))
    return model, optimiser(model.parameters(), **{"lr": 0.1, "momentum": 0.9, **settings})


def test_fit_is_the_plain_loop():
    model, opt = start()
    history = fit(model, opt, DIGITS.x, DIGITS.targ, epochs=2, batch_size=100, generator=seeded(5), valid=DIGITS[2:], progress=False)
    plain, plain_opt = start(optimiser=torch.optim.SGD)
    g, losses, shares = seeded(5), [], []
    for epoch in range(2):
        for batch in torch.randperm(1437, generator=g).split(100):
            scores = plain(DIGITS.x[batch])
            loss = F.cross_entropy(scores, DIGITS.targ[batch])
            losses.append(loss.item()), shares.append((scores.argmax(1) == DIGITS.targ[batch]).float().mean().item())
            plain_opt.zero_grad()
            loss.backward()
            plain_opt.step()
        with torch.no_grad(): scores = plain(DIGITS.x_valid)
        assert history.valid_loss[epoch] == pytest.approx(F.cross_entropy(scores, DIGITS.targ_valid).item(), abs=1e-4)
        assert history.valid_metric[epoch] == pytest.approx((scores.argmax(1) == DIGITS.targ_valid).float().mean().item(), abs=3e-3)
    assert_close(weights(model), weights(plain), atol=1e-4, rtol=0)
    assert history.loss == pytest.approx(losses, abs=1e-4) and history.metric == pytest.approx(shares, abs=0.011)
    assert history.epochs == 2 and history.left is None


@pytest.mark.parametrize("optimiser", [SGD, torch.optim.SGD])
def test_same_seeds_same_weights_and_others_not(optimiser):
    def run(seed):
        model, opt = start(optimiser=optimiser)
        fit(model, opt, DIGITS.x, DIGITS.targ, epochs=2, generator=seeded(seed), progress=False)
        return weights(model)
    assert torch.equal(run(1), run(1)) and not torch.equal(run(1), run(2))


class Stop:
    "A loss during which somebody presses the stop button in the given calls."
    def __init__(self, *calls): self.calls, self.n = set(calls), 0
    def __call__(self, out, targ):
        self.n += 1
        if self.n in self.calls: raise KeyboardInterrupt
        return cross_entropy(out, targ)


@example(first=EPOCH + 1, second=2 * EPOCH + 2, valid=True) # both while the rest is looked at
@given(first=st.integers(1, 3 * EPOCH + 1), second=st.integers(1, 3 * EPOCH + 2), valid=st.booleans())
@settings(max_examples=12)
def test_interrupts_change_nothing_in_the_end(first, second, valid):
    def run(loss):
        model, opt = start()
        history, g, calls = History(), seeded(3), 0
        while history.epochs < 3 and calls < 4:
            calls += 1
            assert fit(model, opt, DIGITS.x, DIGITS.targ, epochs=3, valid=DIGITS[2:] if valid else None, loss=loss, generator=g, history=history, progress=False) is history
            assert model.training
        return weights(model), history, calls
    straight, known, _ = run(cross_entropy)
    broken, history, calls = run(Stop(first, second))
    assert calls == 1 + len({first, second}) or second > 3 * EPOCH # a stop that comes after the end is none
    assert torch.equal(straight, broken) and history.loss == known.loss and history.metric == known.metric
    assert history.valid_loss == known.valid_loss and history.epochs == 3


@pytest.mark.parametrize("seconds", [0.002 * n for n in range(1, 25, 3)])
def test_real_interrupts_at_any_time(seconds):
    straight, opt = start()
    known = fit(straight, opt, DIGITS.x, DIGITS.targ, epochs=3, valid=DIGITS[2:], generator=seeded(3), progress=False)
    (model, opt), history, g = start(), History(), seeded(3)
    for _ in range(4):
        timer = threading.Timer(seconds, _thread.interrupt_main)
        try:
            timer.start()
            fit(model, opt, DIGITS.x, DIGITS.targ, epochs=3, valid=DIGITS[2:], generator=g, history=history, progress=False)
            timer.join() # when it is over, the interrupt is ours
            time.sleep(0.001) # and comes here at the latest
        except KeyboardInterrupt: pass
    fit(model, opt, DIGITS.x, DIGITS.targ, epochs=3, valid=DIGITS[2:], generator=g, history=history, progress=False)
    assert torch.equal(weights(model), weights(straight)) and history == known


def test_an_interrupt_waits_for_the_step():
    done, mine, before = [], [], signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        with _held_back() as let_through:
            let_through()
            signal.raise_signal(signal.SIGINT)
            done.append("rest")
            let_through()
            done.append("never")
    assert done == ["rest"] and signal.getsignal(signal.SIGINT) is before
    with pytest.raises(KeyboardInterrupt):
        with _held_back():
            signal.raise_signal(signal.SIGINT)
            done.append("once")
            signal.raise_signal(signal.SIGINT) # twice goes through at once
            done.append("never")
    assert done == ["rest", "once"]
    signal.signal(signal.SIGINT, lambda *args: mine.append(args)) # somebody's own handler gets it, late
    try:
        with _held_back() as let_through:
            signal.raise_signal(signal.SIGINT), done.append(len(mine))
            let_through(), let_through()
    finally: signal.signal(signal.SIGINT, before)
    assert done[-1] == 0 and len(mine) == 1 and mine[0][0] == signal.SIGINT
    with pytest.raises(ZeroDivisionError):
        with _held_back(): 1 / 0
    assert signal.getsignal(signal.SIGINT) is before


def test_other_threads_train_as_well():
    result = []
    def run():
        model, opt = start()
        result.append(fit(model, opt, DIGITS.x, DIGITS.targ, epochs=1, progress=False).epochs)
    thread = threading.Thread(target=run)
    thread.start(), thread.join()
    assert result == [1]


def test_progress(capsys):
    model, opt = start()
    fit(model, opt, DIGITS.x, DIGITS.targ, epochs=2, valid=DIGITS[2:], generator=seeded())
    shown = capsys.readouterr().err
    assert "46/46" in shown and "loss" in shown and "accuracy" in shown and "on the rest" in shown
    fit(model, opt, DIGITS.x, DIGITS.targ, epochs=1, generator=seeded(), progress=False)
    assert capsys.readouterr().err == ""
    fit(model, opt, DIGITS.x, DIGITS.targ, epochs=3, loss=Stop(30), generator=seeded())
    captured = capsys.readouterr()
    assert "interrupted in epoch 2, after 29 steps" in captured.out and "29/69" in captured.err
    history = fit(model, opt, DIGITS.x, DIGITS.targ, epochs=2, loss=Stop(EPOCH + 1), valid=DIGITS[2:], generator=seeded(), progress=False)
    assert history.left is not None and len(history.left) == 0 # all examples seen, and the rest not looked at
    capsys.readouterr()
    fit(model, opt, DIGITS.x, DIGITS.targ, epochs=2, valid=DIGITS[2:], generator=seeded(), history=history)
    assert "23/23" in capsys.readouterr().err


@pytest.mark.parametrize("optimiser", [SGD, torch.optim.SGD])
def test_a_loss_that_is_not_finite_loses_nothing(optimiser):
    model, opt = start(optimiser=optimiser, n_out=1, lr=0.01)
    kind = dict(loss=my_mse, metric=None, generator=seeded(), progress=False)
    history = fit(model, opt, DIGITS.x, DIGITS.targ.float(), epochs=2, **kind)
    before, state = weights(model), copy.deepcopy(opt.state_dict())
    if optimiser is SGD: opt.lr = 100.0
    else: opt.param_groups[0]["lr"] = 100.0
    known = copy.deepcopy(history)
    with pytest.raises(FloatingPointError, match=r"the loss is \S+ in step \d+, of epoch 3, after \S+; all is put back to before step 47") as raised:
        fit(model, opt, DIGITS.x, DIGITS.targ.float(), epochs=9, history=history, **kind)
    assert torch.equal(weights(model), before)
    assert history.loss == known.loss and history.epochs == 2 and history.left is None
    if optimiser is SGD: assert torch.equal(opt.velocity[0], state["velocity"][0])
    else: assert torch.equal(opt.state_dict()["state"][0]["momentum_buffer"], state["state"][0]["momentum_buffer"])
    if optimiser is SGD: opt.lr = 0.01
    else: opt.param_groups[0]["lr"] = 0.01
    fit(model, opt, DIGITS.x, DIGITS.targ.float(), epochs=3, history=history, **kind) # and it goes on
    assert history.epochs == 3 and math.isfinite(history.loss[-1])


def test_a_resumed_epoch_that_breaks_is_put_back_to_where_it_was_resumed():
    model, opt = start()
    history, g = History(), seeded()
    fit(model, opt, DIGITS.x, DIGITS.targ, epochs=2, loss=Stop(11), generator=g, history=history, progress=False)
    before, left = weights(model), history.left.tolist()
    calls = iter(range(100))
    def breaks(out, targ): return cross_entropy(out, targ) * (math.nan if next(calls) == 5 else 1)
    with pytest.raises(FloatingPointError, match="the loss is nan in step 16, of epoch 1, .* put back to before step 11"):
        fit(model, opt, DIGITS.x, DIGITS.targ, epochs=2, loss=breaks, generator=g, history=history, progress=False)
    assert torch.equal(weights(model), before) and history.left.tolist() == left and len(history.loss) == len(history.metric) == 10


def test_a_loss_that_is_not_finite_goes_back_to_its_own_epoch_without_a_step():
    (model, opt), (known, known_opt), calls, steps = start(), start(), iter(range(100)), []
    def breaks(out, targ): return cross_entropy(out, targ) * (math.inf if next(calls) == 30 else 1)
    step = opt.step
    opt.step = lambda: (steps.append(0), step())
    with pytest.raises(FloatingPointError, match="in step 31, of epoch 2"):
        fit(model, opt, DIGITS.x, DIGITS.targ, epochs=3, loss=breaks, generator=seeded(1), progress=False)
    fit(known, known_opt, DIGITS.x, DIGITS.targ, epochs=1, generator=seeded(1), progress=False)
    assert len(steps) == 30 and torch.equal(weights(model), weights(known)) and torch.equal(opt.velocity[0], known_opt.velocity[0])


def test_old_gradients_do_not_count():
    def run(old):
        model, opt = start()
        for p in model.parameters(): p.grad = torch.full_like(p, old)
        fit(model, opt, DIGITS.x, DIGITS.targ, epochs=1, generator=seeded(), progress=False)
        return weights(model)
    assert torch.equal(run(0.0), run(1e3))


def test_status():
    history = History(loss=[9.0] * 5 + [1.0] * 10 + [3.0] * 10, metric=[0.0] * 5 + [0.5] * 20, valid_metric=[0.1, 0.7], epochs=2)
    assert _status(history, accuracy) == "epoch 3, loss 2.000, accuracy 0.500, on the rest 0.700"
    assert _status(History(loss=[1.0]), accuracy) == "epoch 1, loss 1.000"


def test_metrics_of_all_kinds():
    model, opt = start()
    for metric in (partial(accuracy), lambda out, targ: 0.5, None):
        history = fit(model, opt, DIGITS.x, DIGITS.targ, epochs=1, metric=metric, valid=DIGITS[2:])
        assert len(history.metric) == (EPOCH if metric else 0) and len(history.valid_metric) == (1 if metric else 0)
    before = weights(model)
    with pytest.raises(ValueError): fit(model, opt, DIGITS.x, DIGITS.targ, epochs=1, metric=lambda out, targ: int("no number"), progress=False)
    assert torch.equal(weights(model), before) # what fails, fails before the step


def test_training_and_evaluating():
    class Noisy(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.modes = nn.Sequential(nn.Dropout(0.5), nn.Linear(64, 10)), []
        def forward(self, x):
            self.modes.append((len(x), self.training, torch.is_grad_enabled()))
            return self.net(x)
    model = Noisy().eval()
    fit(model, SGD(model.parameters(), 0.1), DIGITS.x, DIGITS.targ, epochs=2, batch_size=1000, valid=DIGITS[2:], progress=False)
    assert model.modes == 2 * [(1000, True, True), (437, True, True), (360, False, False)]
    assert not model.training # as it came


def test_epochs_are_counted_in_all():
    model, opt = start()
    history = fit(model, opt, DIGITS.x, DIGITS.targ, epochs=2, progress=False)
    before = weights(model)
    fit(model, opt, DIGITS.x, DIGITS.targ, epochs=2, history=history, progress=False)
    assert torch.equal(weights(model), before) and len(history.loss) == 2 * EPOCH


model, opt = start()
x, targ = DIGITS[:2]


@pytest.mark.parametrize("arguments, settings, error, words", [
    ((model, opt, x, targ[:5]), {}, ValueError, ["x is (1437, 64) and its targets are (5,)"]),
    ((model, opt, x[:0], targ[:0]), {}, ValueError, ["one at least"]), ((model, opt, x, targ[0]), {}, ValueError, ["its targets are ()"]),
    ((model, opt, x[0, 0], targ[0]), {}, ValueError, ["x is ()"]),
    ((model, opt, x, targ), dict(valid=(x, targ[:5])), ValueError, ["x_valid is (1437, 64)"]),
    ((model, opt, x, targ), dict(valid=(x,)), ValueError, ["valid is tuple", "a pair"]), ((model, opt, x, targ), dict(valid=x), ValueError, ["valid is Tensor", "a pair"]),
    ((model, opt, x, targ), dict(epochs=0), ValueError, ["epochs is 0"]),
    ((model, opt, x, targ), dict(epochs=1.5), ValueError, ["epochs is 1.5"]),
    ((model, opt, x, targ), dict(batch_size=0), ValueError, ["batch_size is 0"]),
    ((model, opt, x.tolist(), targ), {}, TypeError, ["x is list"]),
    ((model, opt, x, targ.tolist()), {}, TypeError, ["targets of x is list"]),
    ((abs, opt, x, targ), {}, TypeError, ["model is builtin_function_or_method"]),
    ((model, opt, x, targ + 1), {}, ValueError, ["targ has 10 in it"]),
    ((model, None, x, targ), {}, TypeError, ["opt is NoneType"]),
    ((model, start(1)[1], x, targ), {}, ValueError, ["opt has none of the model's parameters"]),
    ((model, start(1, torch.optim.SGD)[1], x, targ), {}, ValueError, ["opt has none of the model's parameters"]),
    ((model, opt, x, targ), dict(history=History(left=torch.arange(9), examples=9)), ValueError, ["unfinished epoch of 9 examples, and x has 1437"]),
])
def test_fit_bad_input(arguments, settings, error, words):
    before = weights(model)
    with pytest.raises(error) as raised: fit(*arguments, **{"epochs": 1, "progress": False, **settings})
    for word in words: assert word in str(raised.value)
    assert model.training and torch.equal(weights(model), before)


def test_five_seeds_learn():
    for seed in range(5):
        model = MLP(64, 64, 10, generator=seeded(seed))
        history = fit(model, SGD(model.parameters(), 0.1, momentum=0.9), *DIGITS[:2], epochs=20, valid=DIGITS[2:], generator=seeded(seed), progress=False)
        assert history.valid_metric[-1] > 0.93
