"Lines, bands and graphs as they are drawn, read back from matplotlib."
import matplotlib
matplotlib.use("agg")
import matplotlib.pyplot as plt
import pytest, torch
from matplotlib.colors import same_color
from groundup.plots import BLUE, COLOURS, _columns, plot_graph, plot_lines


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


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


def test_axes_and_legend():
    mine = plt.subplots()[1]
    assert plot_lines({"one": [1, 2]}, axes=mine, legend=False) is mine and mine.get_legend() is None
    assert plot_lines({"one": [1, 2]}, axes=mine).get_legend() is not None


@pytest.mark.parametrize("lines, words", [({"a": [1, 2], "b": [1, 2, 3]}, "'a' has shape .2,.; 3 points"), ({"a": torch.ones(2, 3, 4)}, "'a' has shape .2, 3, 4.")])
def test_bad_lines(lines, words):
    with pytest.raises(ValueError, match=words): plot_lines(lines)


def test_columns():
    by_two_ways = [("a", "b"), ("b", "d"), ("a", "c"), ("c", "e"), ("e", "d")]
    assert list(_columns(by_two_ways).items()) == [("a", 0), ("b", 1), ("d", 3), ("c", 1), ("e", 2)] # b as soon as it can be


EDGES = [("x", "lin"), ("w", "lin"), ("b", "lin"), ("lin", "out"), ("out", "mse"), ("targ", "mse"), ("mse", "loss")]


def test_graph():
    axes = plot_graph(EDGES, operations=["lin", "mse"], labels={"x": "X"}, gradients={"w": "w.g", "out": "out.g", "loss": "1"})
    arrows = [text for text in axes.texts if getattr(text, "arrow_patch", None)]
    boxes = {text.get_text(): text for text in axes.texts if text.get_bbox_patch()}
    assert set(boxes) == {"X", "w", "b", "lin", "out", "targ", "mse", "loss"}
    assert {name for name, box in boxes.items() if not same_color(box.get_bbox_patch().get_facecolor(), "white")} == {"lin", "mse"}
    places = {text.get_position(): name for name, text in boxes.items()}
    assert len(places) == 8 and places[0, 0] == "X" and places[0, -1] == "w" and places[0, -2] == "b" and places[1, 0] == "lin" # the first named stands on top
    notes = {note.xy: note.get_text() for note in axes.texts if note.get_text() in ("w.g", "out.g", "1")}
    assert {places[place]: text for place, text in notes.items()} == {"w": "w.g", "out": "out.g", "loss": "1"}
    drawn = [(places[arrow.get_position()], places[arrow.xy], same_color(arrow.arrow_patch.get_edgecolor(), BLUE)) for arrow in arrows]
    there = [(start.replace("x", "X"), end) for start, end in EDGES]
    assert sorted((start, end) for start, end, blue in drawn if blue) == sorted(there)
    assert sorted((start, end) for start, end, blue in drawn if not blue) == [("lin", "w"), ("loss", "mse"), ("mse", "out"), ("out", "lin")]
    for (start, end, _), arrow in zip(drawn, arrows): # each arrow ends at the boxes that it joins
        assert arrow.arrow_patch.patchA is boxes[start].get_bbox_patch() and arrow.arrow_patch.patchB is boxes[end].get_bbox_patch()


def test_a_gradient_does_not_reach_what_is_not_asked_for():
    axes = plot_graph([("x", "f"), ("f", "y"), ("y", "g"), ("g", "z")], operations=["f", "g"], gradients={"y": "y.g"})
    back = [arrow for arrow in axes.texts if getattr(arrow, "arrow_patch", None) and not same_color(arrow.arrow_patch.get_edgecolor(), BLUE)]
    assert len(back) == 2 # g to y, y to f, and neither z to g nor f to x
    axes = plot_graph([("a", "b")], gradients={"b": "1"})
    assert sum(hasattr(text, "arrow_patch") and text.arrow_patch is not None for text in axes.texts) == 1
