"Initialization and what it does to outputs and gradients, over many seeds, against torch.nn.init and theory."
import math
from functools import partial

import numpy as np, pytest, torch
from hypothesis import given, strategies as st
from torch.testing import assert_close

from groundup.functional import relu
from groundup.init import kaiming_normal, lecun_normal, propagate, xavier_normal
from libraries import TORCH, each_library

RULES = {"lecun_normal": lambda n_in, n_out: n_in**-0.5, "xavier_normal": lambda n_in, n_out: (2 / (n_in + n_out))**0.5,
         "kaiming_normal": lambda n_in, n_out: (2 / n_in)**0.5}
each_rule = pytest.mark.parametrize("rule", RULES)


def seeded(seed=0): return torch.Generator().manual_seed(seed)


def of_std(lib, std):
    def init(n_in, n_out, *, copies, generator, dtype, device=None):
        w = std * lib.normal(generator, (copies, n_in, n_out)) # in float64
        return w.to(dtype or torch.get_default_dtype()) if lib is TORCH else w.astype(dtype or w.dtype)
    return init


@each_library
@each_rule
@pytest.mark.parametrize("n_in, n_out", [(100, 100), (900, 400), (50, 800), (1000, 20)])
def test_std_and_mean(lib, rule, n_in, n_out):
    w = lib.take(getattr(lib, rule)(n_in, n_out, generator=lib.seeded(), dtype=lib.dtype(torch.float64)))
    expected, n = RULES[rule](n_in, n_out), n_in * n_out
    assert abs(w.std() / expected - 1) < 7 / (2 * n)**0.5 and abs(w.mean()) < 7 * expected / n**0.5 # 7 standard deviations
    assert abs((w / w.std()).pow(4).mean() - 3) < 7 * (24 / n)**0.5 # the kurtosis of normal numbers; that of uniform ones is 1.8


@each_rule
def test_std_equals_torch(rule):
    theirs = torch.empty(400, 900) # 900 inputs, 400 neurons
    fill = {"lecun_normal": partial(torch.nn.init.kaiming_normal_, nonlinearity="linear"), "xavier_normal": torch.nn.init.xavier_normal_,
            "kaiming_normal": partial(torch.nn.init.kaiming_normal_, nonlinearity="relu")}[rule]
    fill(theirs, generator=seeded(1))
    assert abs(getattr(TORCH, rule)(900, 400, generator=seeded(2)).std() / theirs.std() - 1) < 0.02


@each_library
@each_rule
@given(n_in=st.integers(1, 5), n_out=st.integers(1, 5), copies=st.none() | st.integers(1, 3), dtype=st.sampled_from([torch.float16, torch.float32, torch.float64, None]))
def test_shape_dtype_and_seed(lib, rule, n_in, n_out, copies, dtype):
    one, other, third = (lib.take(getattr(lib, rule)(n_in, n_out, copies=copies, generator=lib.seeded(seed), dtype=lib.dtype(dtype))) for seed in (0, 0, 1))
    assert one.shape == ((n_in, n_out) if copies is None else (copies, n_in, n_out))
    assert one.dtype == (dtype or (torch.get_default_dtype() if lib is TORCH else torch.float64))
    assert torch.equal(one, other) and not torch.equal(one, third)
    if copies == 3: assert not torch.equal(one[0], one[1]) and not torch.equal(one[1], one[2])


@each_rule
def test_the_global_generator_is_the_default(rule):
    rule = getattr(TORCH, rule)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        one = rule(3, 2)
        torch.manual_seed(3)
        assert torch.equal(one, rule(3, 2))
    assert rule(3, 2, device="meta").device.type == "meta"


@each_library
@each_rule
@pytest.mark.parametrize("sizes, word", [((0, 3), "n_in is 0"), ((3, -1), "n_out is -1"), ((2.5, 3), "n_in is 2.5"), ((3, None), "n_out is None")])
def test_bad_sizes(lib, rule, sizes, word):
    rule = getattr(lib, rule)
    with pytest.raises(ValueError, match=word): rule(*sizes)
    with pytest.raises(ValueError, match="copies is 0"): rule(2, 3, copies=0)


@each_library
@pytest.mark.parametrize("activation", [None, "relu", "tanh"])
@pytest.mark.parametrize("widths, rows, seeds", [([7, 5, 3], 6, 4), ([2, 9], 5, 1), ([4, 4, 4, 4], 3, 2)])
def test_propagate_equals_one_net_at_a_time(lib, activation, widths, rows, seeds):
    ours = {None: None, "relu": lib.relu, "tanh": torch.tanh if lib is TORCH else np.tanh}[activation]
    stats = lib.propagate(lib.kaiming_normal, ours, widths=widths, rows=rows, seeds=seeds, generator=lib.seeded(), dtype=lib.dtype(torch.float64))
    g, activation = lib.seeded(), {None: None, "relu": relu, "tanh": torch.tanh}[activation]
    x = lib.take(lib.normal(g, (seeds, rows, widths[0])))
    for layer, (n_in, n_out) in enumerate(zip(widths, widths[1:])):
        x = x @ lib.take(lib.kaiming_normal(n_in, n_out, copies=seeds, generator=g, dtype=lib.dtype(torch.float64)))
        if activation: x = activation(x)
        for net in range(seeds):
            one = x[net]
            pairs = [torch.cosine_similarity(one[i], one[i + 1], dim=0).abs() for i in range(0, rows - 1, 2) if one[i].any() and one[i + 1].any()]
            expected = dict(mean=one.mean(), std=one.std(correction=0), rms=one.square().mean().sqrt(), dead=(one == 0).all(0).double().mean(),
                            cosine=torch.stack(pairs).mean() if pairs else torch.tensor(math.nan).double())
            for name, value in expected.items(): assert_close(lib.take(getattr(stats, name)[layer, net]), value, atol=1e-7, rtol=1e-9, equal_nan=True)


@each_library
def test_propagate_takes_biases_and_refuses_nonsense(lib):
    def biased(n_in, n_out, *, copies, **kind): return lib.give(torch.zeros(copies, n_in, n_out)), lib.give(torch.full((copies, 1, n_out), 3.0))
    assert (lib.propagate(biased, widths=[2, 3], rows=2, seeds=2).mean == 3).all()
    for arguments, word in [(dict(widths=[3]), r"len\(widths\) is 1"), (dict(rows=1), "rows is 1"), (dict(seeds=0), "seeds is 0")]:
        with pytest.raises(ValueError, match=word): lib.propagate(lib.lecun_normal, **arguments)
    with pytest.raises(ValueError, match=r"weights \(4, 3, 2\), but weights is \(3, 2\)"): lib.propagate(lambda n_in, n_out, **kind: lib.give(torch.ones(n_in, n_out)), widths=[3, 2], seeds=4)


@each_library
def test_measure_by_hand(lib):
    def measured(*x): return {name: value.item() for name, value in lib.measure(lib.give(torch.tensor([x], dtype=torch.float32)))._asdict().items()}
    assert measured([-1, 0], [0, 0])["dead"] == 0.5 # a unit below 0 is not dead
    large = measured([3e38, 3e38], [3e38, 3e38]) # neither its square nor its sum is a float32
    assert (large["mean"], large["rms"], large["cosine"]) == pytest.approx((3e38, 3e38, 1))
    small = measured([1e-30], [1e-30])
    assert small["dead"] == 0 and small["cosine"] == pytest.approx(1)
    assert math.isnan(measured([0, 0], [0, 0])["cosine"]) # zeros have no direction
    for value in (0.1, 0.7, 1 / 3, 3.3): assert measured(*[[value] * 7] * 5)["std"] < 1e-7 # and not nan, where rounding takes its square below 0


def test_propagate_on_a_device():
    assert propagate(kaiming_normal, relu, widths=[3, 2], rows=2, seeds=2, device="meta").rms.device.type == "meta"


# What holds for every seed, at the bounds of 7 standard deviations or more.
def of_many(lib, init, activation=None, rows=20, seeds=40, dtype=None, **kind):
    "The statistics as tensors. Overflow is meant here, so NumPy need not warn of it."
    with np.errstate(all="ignore"): stats = lib.propagate(init, activation, rows=rows, seeds=seeds, generator=lib.seeded(7), dtype=lib.dtype(dtype), **kind)
    return type(stats)(*map(lib.take, stats))


def between(low, x, high): return ((low < x) & (x < high)).all()


@each_library
def test_one_layer(lib):
    stats = of_many(lib, of_std(lib, 1.0), None, widths=[100, 50], rows=200)
    assert between(-1, stats.mean, 1) and between(8.5, stats.std, 11.5)
    stats = of_many(lib, lib.xavier_normal, None, widths=[100, 100], rows=200)
    assert between(0.85, stats.std, 1.15)


@each_library
def test_one_layer_and_relu(lib):
    stats = of_many(lib, lib.lecun_normal, lib.relu, widths=[100, 50], rows=200)
    assert between(-0.06, stats.mean - (2 * math.pi)**-0.5, 0.06) and between(-0.08, stats.std - (0.5 - 1 / (2 * math.pi))**0.5, 0.08)
    stats = of_many(lib, lib.kaiming_normal, lib.relu, widths=[100, 50], rows=200)
    assert between(-0.09, stats.mean - math.pi**-0.5, 0.09) and between(-0.11, stats.std - (1 - 1 / math.pi)**0.5, 0.11)
    assert between(0.73, stats.rms.square(), 1.27)


@each_library
@pytest.mark.parametrize("std, dtype, low, high", [(0.01, torch.float64, 1e-51, 1e-49), (1.0, torch.float64, 1e49, 1e51), (0.1, torch.float32, 0.1, 10)])
def test_fifty_layers_keep_a_power_of_the_factor(lib, std, dtype, low, high):
    assert between(low, of_many(lib, of_std(lib, std), seeds=5, dtype=dtype).std[-1], high)


@each_library
def test_fifty_layers_leave_the_range_of_float32(lib):
    few = dict(rows=2, seeds=3, dtype=torch.float32)
    assert of_many(lib, of_std(lib, 1.0), **few).rms[-1].isnan().all()
    assert (of_many(lib, of_std(lib, 0.01), **few).rms[-1] == 0).all()


@each_library
def test_fifty_layers_with_relu(lib):
    lecun, he = (of_many(lib, rule, lib.relu, seeds=9, dtype=torch.float64) for rule in (lib.lecun_normal, lib.kaiming_normal))
    assert between(1e-11, lecun.rms[-1], 1e-5) and between(3e-3, he.rms[-1], 100)
    assert_close(he.rms[-1] / lecun.rms[-1], torch.full((9,), 2.0**25, dtype=torch.float64), rtol=1e-9, atol=0)
    assert_close(he.cosine, lecun.cosine, atol=1e-9, rtol=0) # a scale turns no angle
    assert 0.3 < he.dead[-1].median() < 0.6 and he.cosine[-1].median() > 0.9


@each_library
def test_a_factor_comes_through_fifty_times(lib):
    base, other = (of_many(lib, of_std(lib, std), widths=[10] * 51, seeds=5, rows=2, dtype=torch.float64).std[-1] for std in (0.3, 0.27))
    assert_close(other / base, torch.full((5,), 0.9**50, dtype=torch.float64), rtol=1e-9, atol=0)


@each_library
def test_spread_of_log_rms(lib):
    stats = of_many(lib, lib.kaiming_normal, lib.relu, widths=[20] * 31, rows=2, seeds=400)
    for depth in (10, 30): assert abs(stats.rms[depth - 1].log().std() / (0.5 * (5 * depth / 20)**0.5) - 1) < 0.35


def test_glorot_is_lecun_where_the_fans_are_equal():
    assert torch.equal(xavier_normal(7, 7, generator=seeded()), lecun_normal(7, 7, generator=seeded()))


# Gradients
@pytest.mark.parametrize("activation", [None, relu, torch.tanh])
@pytest.mark.parametrize("widths, rows, seeds", [([7, 5, 3], 6, 4), ([2, 9], 5, 1), ([4, 4, 4, 4], 3, 2)])
def test_gradients_equal_the_chain_rule(activation, widths, rows, seeds):
    kind = dict(dtype=torch.float64)
    forward, backward = propagate(kaiming_normal, activation, widths=widths, rows=rows, seeds=seeds, gradients=True, generator=seeded(), **kind)
    assert_close(forward, propagate(kaiming_normal, activation, widths=widths, rows=rows, seeds=seeds, generator=seeded(), **kind), equal_nan=True)
    g, passed = seeded(), []
    x = torch.empty(seeds, rows, widths[0], **kind).normal_(generator=g)
    for n_in, n_out in zip(widths, widths[1:]):
        w = kaiming_normal(n_in, n_out, copies=seeds, generator=g, **kind)
        before = x @ w
        x = activation(before) if activation else before
        passed.append((w, {None: torch.ones_like(x), relu: (before > 0).double(), torch.tanh: 1 - x**2}[activation]))
    grad = torch.empty_like(x).normal_(generator=g)
    for layer, (w, slope) in reversed([*enumerate(passed)]):
        grad = (grad * slope) @ w.mT
        assert_close(backward.rms[layer], grad.square().mean((1, 2)).sqrt(), atol=1e-12, rtol=1e-9)
        assert_close(backward.mean[layer], grad.mean((1, 2)), atol=1e-12, rtol=1e-9)
        assert_close(backward.dead[layer], (grad == 0).all(1).double().mean(-1), atol=0, rtol=0)
    assert all(of.shape == (len(widths) - 1, seeds) and of.dtype == torch.float64 and not of.requires_grad for of in (*forward, *backward))


def test_gradients_do_not_see_biases():
    def biased(n_in, n_out, **kind): return lecun_normal(n_in, n_out, **kind), torch.full((kind["copies"], 1, n_out), 5.0)
    few = dict(widths=[6, 5, 4], rows=3, seeds=2, gradients=True)
    (_, with_biases), (_, without) = (propagate(init, generator=seeded(), **few) for init in (biased, lecun_normal))
    assert_close(with_biases.rms, without.rms)


def test_gradients_on_a_device():
    assert propagate(kaiming_normal, relu, widths=[3, 2], rows=2, seeds=2, device="meta", gradients=True)[1].rms.device.type == "meta"


@pytest.mark.parametrize("rule, activation, forward, backward", [
    (kaiming_normal, relu, (3e-3, 100), (3e-3, 100)),
    (of_std(TORCH, 5 / 30), torch.tanh, (0.6, 0.72), (10, 800)), # the gain 5/3: level outputs, exploding gradients
    (of_std(TORCH, 0.1), torch.tanh, (0.02, 0.3), (0.02, 0.6))])
def test_fifty_layers_forward_and_back(rule, activation, forward, backward):
    outputs, grads = propagate(rule, activation, rows=6, seeds=5, gradients=True, generator=seeded(3))
    assert between(forward[0], outputs.rms[-1], forward[1]) and between(backward[0], grads.rms[0], backward[1])


@pytest.mark.parametrize("widths, lecun, glorot", [([100, 50] * 25 + [100], (1, 1), ((8 / 9)**12.5,) * 2), ([400, 200, 100, 50, 25], (1, 0.25), ((4 / 3)**2, (2 / 3)**2))])
def test_lecun_against_glorot(widths, lecun, glorot):
    ends = [(outputs.rms[-1], grads.rms[0]) for outputs, grads in (propagate(rule, widths=widths, rows=10, seeds=5, gradients=True, generator=seeded(4), dtype=torch.float64)
                                                                   for rule in (lecun_normal, xavier_normal))]
    for of_lecun, of_glorot, one, other in zip(*ends, lecun, glorot):
        assert_close(of_glorot / of_lecun, torch.full((5,), other / one, dtype=torch.float64), rtol=1e-9, atol=0) # the same draws, scaled
        assert 0.4 < of_lecun.median() / one < 2.5


@each_library
def test_biases_of_another_shape_are_refused(lib):
    def flat(n_in, n_out, *, copies, **kind): return lib.give(torch.zeros(copies, n_in, n_out)), lib.give(torch.arange(copies * n_out).reshape(copies, n_out).float())
    with pytest.raises(ValueError, match=r"expected biases \(4, 1, 3\), but biases is \(4, 3\)"): lib.propagate(flat, widths=[2, 3], rows=4, seeds=4)


@each_library
def test_broken_rows_are_not_left_out(lib):
    rows = torch.tensor([[[1.0, 0], [1, 1], [math.nan, 1], [1, 1]], [[1.0, 0], [1, 1], [0, 0], [1, 1]]])
    cosine = lib.take(lib.measure(lib.give(rows)).cosine)
    assert cosine[0].isnan() and cosine[1].item() == pytest.approx(0.5**0.5) # nan shows; a row of zeros has no direction, and is left out
