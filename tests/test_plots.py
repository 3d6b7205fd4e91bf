"What the plots show, read back from matplotlib."
import json, re, subprocess, sys
from itertools import combinations, permutations, product
import matplotlib
matplotlib.use("agg")
import matplotlib.pyplot as plt
import pytest, torch
from hypothesis import given, settings, strategies as st
from matplotlib.colors import same_color, to_rgb
from groundup import plots
from groundup.broadcasting import broadcast_shape
from groundup.plots import BLUE, COLOURS, plot_broadcast, plot_graph, plot_images, plot_lines, plot_times


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def contrast(colour):
    "Contrast of `colour` with white, from 1 to 21, as WCAG 2 defines it."
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055)**2.4 for c in to_rgb(colour)]
    return 1.05 / (0.05 + sum(part * c for part, c in zip((0.2126, 0.7152, 0.0722), linear)))


def test_colours_stand_out_on_white():
    assert min(contrast(colour) for colour in COLOURS[:4]) > 3 # WCAG 2, graphical objects
    assert min(contrast(plots._dark(colour)) for colour in COLOURS) > 4.5 # and text
    for axes in [plot_lines({str(n): [n] for n in range(9)}), plot_graph([("a", "b")], gradients={"a": "a.g"}), plot_broadcast((3, 1), (2,))]:
        assert same_color(axes.figure.get_facecolor(), "white")
        assert min(contrast(text.get_color()) for text in axes.texts) > 4.5


SHELL = """
import json, sys
from execnb.shell import CaptureShell
shell = CaptureShell()
outputs = [shell.run(cell) for cell in json.load(sys.stdin)]
print(json.dumps([[output["data"] for output in cell if "data" in output] for cell in outputs]))
"""


def test_svg_in_a_notebook():
    figure = "plot_images(torch.eye(3)[None]); plot_lines({'a': [1, 2], 'b': [2, 1]});"
    cells = ["import torch\nfrom groundup.plots import *\nplot_lines({'a': [1, 2]});", "use_svg()", figure, figure]
    ran = subprocess.run([sys.executable, "-c", SHELL], input=json.dumps(cells), capture_output=True, text=True, check=True)
    before, _, first, second = json.loads(ran.stdout)
    assert list(before[0]) == ["text/plain", "image/png"]
    assert [list(data) for data in first] == 2 * [["text/plain", "image/svg+xml"]]
    assert first == second and not re.search(r"<dc:date>", str(first))


def test_svg_elsewhere():
    code = "import matplotlib, sys; from groundup.plots import use_svg; before = dict(matplotlib.rcParams); use_svg(); assert before == dict(matplotlib.rcParams)"
    subprocess.run([sys.executable, "-c", f"{code}; assert 'IPython' not in sys.modules; import IPython; use_svg(); assert before == dict(matplotlib.rcParams)"], check=True)


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("slowest", [3e-7, 1.5e-4, 0.7, 40])
def test_times_are_in_units_that_suit(log, slowest):
    axes = plot_times({"slow": slowest, "fast": slowest / 70}, log=log)
    axes.figure.draw_without_rendering()
    assert axes.get_xscale() == ("log" if log else "linear")
    assert [text.get_text() for text in axes.get_yticklabels()] == ["slow", "fast"] and axes.yaxis_inverted()
    ticks = [text.get_text() for text in axes.get_xticklabels()]
    assert len(ticks) > 2 and all(re.fullmatch(r"[\d,]{1,5}(\.\d+)? (s|ms|µs|ns)", tick) for tick in ticks), ticks
    if not log: assert ticks[0] == "0 s"
    assert {text.get_text() for text in axes.texts} == {plots.format_time(slowest), plots.format_time(slowest / 70)}


SHAPES = [shape for rank in range(3) for shape in product((1, 2, 3), repeat=rank)]
FITTING = [(a, b) for a, b in product(SHAPES, SHAPES) if all(1 in pair or len({*pair}) == 1 for pair in zip(a[::-1], b[::-1]))]


@pytest.mark.parametrize("a, b", FITTING, ids=str)
def test_broadcast(a, b):
    full = broadcast_shape(a, b)
    n = max(1, torch.Size(full).numel())
    axes = plot_broadcast(a, b, "*")
    left, right = torch.arange(1, 1 + torch.Size(a).numel()).view(a), 10 * torch.arange(1, 1 + torch.Size(b).numel()).view(b)
    texts = [text.get_text() for text in axes.texts]
    elements = [text for text in texts if re.fullmatch(r"\d+", text)]
    wanted = [left.expand(full), right.expand(full), left * right]
    assert elements == [str(value) for tensor in wanted for value in tensor.flatten().tolist()]
    assert [text for text in texts if not text.isdigit()] == [str(a), "*", str(b), "=", str(full), ""]
    exists = [not same_color(cell.get_facecolor(), "white") for cell in axes.patches]
    for start, tensor in zip((0, n), (left, right)): # a cell exists where no index before it has its place in memory
        seen = set()
        offsets = torch.arange(tensor.numel()).view(tensor.shape).expand(full).flatten().tolist()
        assert exists[start:start + n] == [not (offset in seen or seen.add(offset)) for offset in offsets]
    assert all(exists[2 * n:]) and len(exists) == 3 * n


def test_broadcast_shows_given_tensors():
    axes = plot_broadcast(torch.tensor([[-0.25], [1 / 3], [-0.001]], requires_grad=True), torch.tensor([[2.0]]), "-")
    assert [text.get_text() for text in axes.texts if re.fullmatch(r"-?[\d.]+", text.get_text())] == ["-0.25", "0.33", "0", "2", "2", "2", "-2.25", "-1.67", "-2"]
    with pytest.raises(ValueError, match="operator is '@'; it must be one of"): plot_broadcast((2,), (2,), "@")


def test_lines_and_a_band():
    runs = torch.rand(4, 50, generator=torch.Generator().manual_seed(0))
    x = torch.tensor([1.0, 10.0, 100.0, 1000.0], requires_grad=True)
    axes = plot_lines({"runs": runs, "one": torch.ones(4, dtype=torch.bfloat16, requires_grad=True)}, x=x, xscale="log", title="tried")
    assert axes.get_title() == "tried" and axes.get_xscale() == "log"
    median, one = axes.lines
    assert median.get_xdata().tolist() == x.tolist() and one.get_ydata().tolist() == [1] * 4
    assert median.get_ydata().tolist() == runs.double().quantile(0.5, dim=1).tolist()
    band, = axes.collections
    low, high = runs.double().quantile(torch.tensor([0.05, 0.95], dtype=torch.float64), dim=1)
    for at, l, h in zip(x.tolist(), low.tolist(), high.tolist()):
        heights = [y for place, y in band.get_paths()[0].vertices.tolist() if place == at]
        assert min(heights) == l and max(heights) == h
    assert same_color(band.get_facecolor()[0, :3], COLOURS[0]) and same_color(median.get_color(), COLOURS[0])


def test_every_line_differs():
    axes = plot_lines({str(n): [n, n] for n in range(12)})
    assert len(axes.lines) == 12 == len({(line.get_color(), line.get_linestyle()) for line in axes.lines})
    assert len({line.get_color() for line in axes.lines}) == 7 and len({line.get_linestyle() for line in axes.lines}) == 4
    assert axes.lines[0].get_xdata().tolist() == [1, 2]


def test_axes_and_names():
    mine = plt.subplots()[1]
    assert plot_lines({"one": [1, 2]}, axes=mine, legend=False) is mine and not mine.texts
    assert [text.get_text() for text in plot_lines({"one": [1, 2]}, axes=mine).texts] == ["one"]
    assert mine.get_legend() is None


@given(st.lists(st.floats(-100, 100), max_size=8), st.floats(0, 20))
def test_spread(heights, gap):
    places = plots._spread(heights, gap)
    order = sorted(range(len(heights)), key=lambda i: (heights[i], -i)) # of equals, the first is on top
    apart = [places[j] - places[i] for i, j in zip(order, order[1:])]
    assert all(distance >= gap - 1e-9 for distance in apart)
    assert sum(places) == pytest.approx(sum(heights), abs=1e-6)
    if all(heights[j] - heights[i] >= gap for i, j in zip(order, order[1:])): assert places == pytest.approx(heights, abs=1e-9)


@pytest.mark.parametrize("seed", range(6))
def test_names_stand_at_the_ends_and_apart(seed):
    generator = torch.Generator().manual_seed(seed)
    ends = torch.rand(6, generator=generator) * torch.tensor([1, 0.02, 0.3])[seed % 3]
    lines = {f"line {n}": torch.linspace(1, end, 20).clamp_min(1e-9) for n, end in enumerate(ends.tolist())}
    figure, pair = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
    for axes, scale in zip(pair, ("linear", "log")): plot_lines(lines, axes=axes, yscale=scale)
    figure.draw_without_rendering()
    for axes in pair:
        boxes = [text.get_window_extent() for text in axes.texts]
        assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))
        assert all(figure.bbox.padded(1).contains(*corner) for box in boxes for corner in (box.min, box.max))
        heights = [axes.transData.transform(line.get_xydata()[-1])[1] for line in axes.lines]
        assert [text.get_text() for text in axes.texts] == list(lines)
        middle = [(box.y0 + box.y1) / 2 for box in boxes]
        assert all(middle[i] > middle[j] for i, j in permutations(range(6), 2) if heights[i] > heights[j] + 2) # pixels
        right = [axes.transData.transform(line.get_xydata()[-1])[0] for line in axes.lines]
        assert all(0 < box.x0 - x < 10 for box, x in zip(boxes, right))


def test_a_line_that_leaves_is_named_where_it_was_last_seen():
    nan = float("nan")
    lines = {"up": [1, 10, 1e3, 1e9, 1e9], "gone": [1, 0.5, nan, nan, nan], "zero": [1, 0.1, 0.0, 0.0, 0.0], "never": [1e9] * 5, "level": [2.0] * 5}
    axes = plot_lines(lines, yscale="log", ylim=(1e-2, 1e4))
    assert {text.get_text(): text.xy[0] for text in axes.texts} == {"up": 3, "gone": 2, "zero": 2, "level": 5}


@pytest.mark.parametrize("lines, words", [({"a": [1, 2], "b": [1, 2, 3]}, "'a' has shape .2,.; 3 points"), ({"a": torch.ones(2, 3, 4)}, "'a' has shape .2, 3, 4.")])
def test_bad_lines(lines, words):
    with pytest.raises(ValueError, match=words): plot_lines(lines)


def test_columns():
    by_two_paths = [("a", "b"), ("b", "d"), ("a", "c"), ("c", "e"), ("e", "d")]
    assert list(plots._columns(by_two_paths).items()) == [("a", 0), ("b", 1), ("d", 3), ("c", 1), ("e", 2)] # b as soon as it can be


EDGES = [("x", "lin"), ("w", "lin"), ("b", "lin"), ("lin", "out"), ("out", "mse"), ("targ", "mse"), ("mse", "loss")]


def boxes_of(axes): return {text.get_text(): text for text in axes.texts if text.get_bbox_patch()}


def test_graph():
    axes = plot_graph(EDGES, operations=["lin", "mse"], labels={"x": "X"}, gradients={"w": "w.g", "out": "out.g", "loss": "1"})
    boxes = boxes_of(axes)
    assert set(boxes) == {"X", "w", "b", "lin", "out", "targ", "mse", "loss"}
    assert {name for name, box in boxes.items() if not same_color(box.get_bbox_patch().get_facecolor(), "white")} == {"lin", "mse"}
    x = {name: box.get_position()[0] for name, box in boxes.items()}
    y = {name: box.get_position()[1] for name, box in boxes.items()}
    assert x["X"] == x["w"] == x["b"] < x["lin"] < x["out"] == x["targ"] < x["mse"] < x["loss"]
    assert y["X"] == y["lin"] == y["out"] == y["mse"] == y["loss"] > y["w"] == y["targ"] > y["b"] # the first named stands on top
    notes = {text.get_text(): text.get_position() for text in axes.texts if text.get_text() in ("w.g", "out.g", "1")}
    assert {note: name for note, place in notes.items() for name in boxes if place[0] == x[name] and 0 < y[name] - place[1] < 0.3} == {"w.g": "w", "out.g": "out", "1": "loss"}
    there = [arrow.get_label() for arrow in axes.patches if same_color(arrow.get_edgecolor(), BLUE)]
    back = [arrow.get_label() for arrow in axes.patches if not same_color(arrow.get_edgecolor(), BLUE)]
    assert there == [f"{start} to {end}" for start, end in EDGES]
    assert back == ["lin to w", "out to lin", "mse to out", "loss to mse"]


def crossed(axes):
    "The arrows that touch a box or a note which they do not join, or miss one that they do."
    axes.figure.draw_without_rendering()
    texts = {name: [text.get_bbox_patch().get_window_extent()] for name, text in boxes_of(axes).items()}
    for name, text in boxes_of(axes).items():
        texts[name] += [note.get_window_extent() for note in axes.texts if note.get_text() and note is not text
                        and note.get_position()[0] == text.get_position()[0] and 0 < text.get_position()[1] - note.get_position()[1] < 0.25]
    for arrow in axes.patches:
        joined = arrow.get_label().split(" to ")
        path = axes.transData.transform_path(arrow.get_path())
        for name, extents in texts.items():
            if name in joined: wrong = not path.intersects_bbox(extents[0].padded(2), filled=False)
            else: wrong = any(path.intersects_bbox(extent, filled=False) for extent in extents)
            if wrong: yield arrow.get_label(), name


GRAPHS = {
    "net": EDGES,
    "a weight used twice": [("x", "lin 1"), ("w", "lin 1"), ("lin 1", "relu"), ("relu", "lin 2"), ("w", "lin 2"), ("lin 2", "mse"), ("targ", "mse"), ("mse", "loss")],
    "residual connections": [("x", "f"), ("f", "+ 1"), ("x", "+ 1"), ("+ 1", "g"), ("g", "h"), ("h", "+ 2"), ("+ 1", "+ 2"), ("x", "+ 2")],
    "one node, many uses": [("x", "a"), ("a", "b"), ("b", "c"), ("c", "d"), *[("x", node) for node in "bcd"]],
}


@pytest.mark.parametrize("edges", GRAPHS.values(), ids=GRAPHS)
def test_arrows_cross_no_box(edges):
    names = {node for edge in edges for node in edge}
    assert not list(crossed(plot_graph(edges, gradients=dict.fromkeys(names, "a gradient"))))


@settings(max_examples=20, deadline=None)
@given(st.sets(st.tuples(st.integers(0, 7), st.integers(0, 7)).filter(lambda pair: pair[0] < pair[1]), min_size=1, max_size=14), st.data())
def test_arrows_cross_no_box_in_any_graph(pairs, data):
    names = data.draw(st.lists(st.sampled_from(["a", "mse", "a longer name", "two\nlines"]), min_size=8, max_size=8))
    edges = [tuple(f"{names[n]} {n}" for n in pair) for pair in pairs]
    assert not list(crossed(plot_graph(edges, gradients={node: "its gradient" for edge in edges[::2] for node in edge})))
    plt.close("all")


def test_a_gradient_does_not_reach_what_is_not_asked_for():
    axes = plot_graph([("x", "f"), ("f", "y"), ("y", "g"), ("g", "z")], operations=["f", "g"], gradients={"y": "y.g"})
    back = [arrow.get_label() for arrow in axes.patches if not same_color(arrow.get_edgecolor(), BLUE)]
    assert back == ["y to f", "g to y"] # and neither z to g nor f to x
    assert len(plot_graph([("a", "b")], gradients={"b": "1"}).patches) == 1


@pytest.mark.parametrize("signed", [False, True])
def test_images(signed):
    images = torch.rand(5, 3, 4, generator=torch.Generator().manual_seed(0)) - 0.6 * signed
    figure = plot_images(images, list("abcde"), columns=3, signed=signed)
    shown = [axes for axes in figure.axes if axes.images]
    assert [axes.get_title() for axes in shown] == list("abcde") and len(figure.axes) == 6
    for image, axes in zip(images, shown):
        assert torch.equal(torch.as_tensor(axes.images[0].get_array().data), image)
        top = images.abs().max().item() if signed else 1
        assert axes.images[0].get_clim() == (-top if signed else 0, top)
        for value, colour in [(-top, plots.ORANGE if signed else "white"), (0, "white"), (top, BLUE if signed else "black")]:
            seen = axes.images[0].cmap(axes.images[0].norm(value))
            assert max(abs(s - c) for s, c in zip(seen, to_rgb(colour))) < 0.01
