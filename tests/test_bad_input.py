"""One bad call for each exported name, with the message that it gets. A name that is exported without one fails the last test."""
import importlib, pkgutil, re

import numpy as np, pytest, torch
from torch import nn

import groundup, groundup.numpy as gnp
from groundup import autograd, backprop, broadcasting, checks, conv, einsum, functional, init, layers, matmul, module, plots, shapes, tape, timing, training

t, array = torch.ones, np.ones
LAYER = "x (n, n_in), w (n_in, n_out) and b (n_out,), but x is (2, 3), w is (4, 3) and b is (4,): n_in is 3 in x but 4 in w; "
PRODUCT = "a (n, k) and b (k, m), but a is (2, 3) and b is (4, 3): k is 3 in a but 4 in b"
TURNED = PRODUCT + "; b.t() is (3, 4), which fits"
TRAP = "out (*n) and targ (*n), or out (*n, 1) and targ (*n), but out is (3,) and targ is (3, 1): n is (3,) in out but (3, 1) in targ, which would broadcast to (3, 3); targ.squeeze(-1) is (3,), which fits"
NO_ARRAY = ", not an array, a number or lists of numbers, of floats, integers or booleans"
NO_GRADIENT = "out, of shape (2, 3), has no gradient .g yet: work backwards from the loss, so that whatever uses out comes first"


def iter_of(): yield 1


# A message that ends with dots is another library's, and may go on differently in its next release.
BAD = {
    "matmul.neuron": (lambda: matmul.neuron([1, 2, 3], [4, 5], 0.5), ValueError, "neuron takes inputs (n_in,) and weights (n_in,), but inputs is (3,) and weights is (2,): n_in is 3 in inputs but 2 in weights"),
    "matmul.dense": (lambda: matmul.dense([[1, 2]], [[1], [2]], [1, 2]), ValueError, "dense takes x (n, n_in), w (n_in, n_out) and b (n_out,), but x is (1, 2), w is (2, 1) and b is (2,): n_out is 1 in w but 2 in b"),
    "matmul.matmul_loops": (lambda: matmul.matmul_loops(t(2, 3), t(4, 3)), ValueError, "matmul_loops takes " + TURNED),
    "matmul.matmul_lists": (lambda: matmul.matmul_lists([[1, 2], [3]], [[1], [2]]), ValueError, "a has rows of 1 and 2 elements; all must be equally long"),
    "matmul.matmul_rows": (lambda: matmul.matmul_rows(t(2, 3), t(4, 3)), ValueError, "matmul_rows takes " + TURNED),
    "broadcasting.broadcast_shape": (lambda: broadcasting.broadcast_shape((3, 4), (3,)), ValueError, "(3, 4) and (3,) do not fit: axis -1 is 4 against 3; the sizes must be equal, or one of them 1; b[..., None] has shape (3, 1), which fits"),
    "broadcasting.explain_broadcast": (lambda: broadcasting.explain_broadcast(t(2), (2,)), TypeError, "a_shape is Tensor of shape (2,); pass its .shape"),
    "broadcasting.normalize": (lambda: broadcasting.normalize(t(2, 5, 5, 3), t(3), t(3)), ValueError, "normalize takes images (n, c, h, w), mean (c,) and std (c,), but images is (2, 5, 5, 3), mean is (3,) and std is (3,): c is 5 in images but 3 in mean; images.permute(0, 3, 1, 2) is (2, 3, 5, 5), which fits"),
    "broadcasting.matmul_broadcast": (lambda: broadcasting.matmul_broadcast(t(2, 3), t(4, 3)), ValueError, "matmul_broadcast takes " + TURNED),
    "einsum.einsum": (lambda: einsum.einsum("ij,jk", t(2, 3), t(4, 5)), ValueError, "'ij,jk': 'j' is 3 in the operand of shape (2, 3) and 4 in the one of shape (4, 5); they must be equal, or one of them 1"),
    "einsum.plan": (lambda: einsum.plan(torch, "ij->ii", torch.Size((2, 3))), ValueError, "'ij->ii': 'i' appears twice in the result; an index can appear there only once"),
    "einsum.matmul_einsum": (lambda: einsum.matmul_einsum(t(2, 3), t(4, 3)), ValueError, "matmul_einsum takes " + TURNED),
    "functional.lin": (lambda: functional.lin(t(2, 3), t(4, 3), t(4)), ValueError, "lin takes " + LAYER + "w.t() is (3, 4), which fits"),
    "functional.relu": (lambda: functional.relu([1.0]), TypeError, "x is list, not a tensor; torch.tensor(x) makes one"),
    "functional.mse": (lambda: functional.mse(t(3), t(3, 1)), ValueError, "mse takes " + TRAP),
    "init.lecun_normal": (lambda: init.lecun_normal(0, 3), ValueError, "n_in is 0; it must be an integer from 1"),
    "init.xavier_normal": (lambda: init.xavier_normal(3, 2.5), ValueError, "n_out is 2.5; it must be an integer from 1"),
    "init.kaiming_normal": (lambda: init.kaiming_normal(3, 2, copies=0), ValueError, "copies is 0; it must be an integer from 1"),
    "init.propagate": (lambda: init.propagate(lambda n_in, n_out, **kind: t(n_in, n_out), widths=[3, 2], seeds=4), ValueError, "expected weights (4, 3, 2), but weights is (3, 2): weights has rank 2"),
    "backprop.mse_grad": (lambda: backprop.mse_grad(t(3), t(3, 1)), ValueError, "mse_grad takes " + TRAP),
    "backprop.relu_grad": (lambda: backprop.relu_grad(t(2, 3), t(2, 3)), AttributeError, NO_GRADIENT),
    "backprop.lin_grad": (lambda: backprop.lin_grad(t(2, 4), t(2, 3), t(4, 3), t(3)), AttributeError, NO_GRADIENT),
    "backprop.forward_and_backward": (lambda w=t(3, 3): backprop.forward_and_backward(t(2, 3), t(2, 3), w, t(3), w, t(3)), ValueError, "w1 and w2 are the same object, of shape (3, 3): the gradient of one would overwrite that of the other"),
    "backprop.numerical_grad": (lambda: backprop.numerical_grad(torch.sum, t(2)), TypeError, "x is torch.float32, but float64 is needed; convert it with x.double()"),
    "layers.LayerFunction": (lambda: layers.LayerFunction()(t(2)), NotImplementedError, "LayerFunction needs a forward(self, *args) that computes its output"),
    "layers.Relu": (lambda: layers.Relu().backward(), RuntimeError, "Relu has no call to backpropagate through: call it first, and use backward once for each call"),
    "layers.Lin": (lambda: layers.Lin(t(4, 3), t(4))(t(2, 3)), ValueError, "lin takes " + LAYER + "w.t() is (3, 4), which fits"),
    "layers.Mse": (lambda: layers.Mse()(t(3), t(3, 1)), ValueError, "mse takes " + TRAP),
    "layers.Model": (lambda: layers.Model([layers.Relu(), abs]), TypeError, "layers[1] is <built-in function abs>; a Model is made of LayerFunctions and Models, such as Relu()"),
    "autograd.Applied": (lambda: autograd.Applied(), TypeError, "Applied is applied, not called or made: Applied.apply(...)"),
    "autograd.applied": (lambda: autograd.applied(autograd.MyRelu, [1.0]), TypeError, "x is list, not a tensor; torch.tensor(x) makes one"),
    "autograd.MyRelu": (lambda: autograd.MyRelu(), TypeError, "MyRelu is applied, not called or made: MyRelu.apply(...)"),
    "autograd.my_relu": (lambda: autograd.my_relu(array(2)), TypeError, "x is ndarray, not a tensor; torch.tensor(x) makes one"),
    "autograd.MyLinear": (lambda: autograd.MyLinear(), TypeError, "MyLinear is applied, not called or made: MyLinear.apply(...)"),
    "autograd.my_linear": (lambda: autograd.my_linear(t(2, 3), t(4, 3), t(4)), ValueError, "my_linear takes " + LAYER + "w.t() is (3, 4), which fits"),
    "autograd.MyMse": (lambda: autograd.MyMse(), TypeError, "MyMse is applied, not called or made: MyMse.apply(...)"),
    "autograd.my_mse": (lambda: autograd.my_mse(t(3), t(3, 1)), ValueError, "mse takes " + TRAP),
    "module.LinearLayer": (lambda: module.LinearLayer(3, 2)(t(5, 4)), ValueError, "expected weight (2, 3) and x (..., 3), but weight is (2, 3) and x is (5, 4): x has 4 where 3 is needed"),
    "module.Module": (lambda: module.Module()(1), NotImplementedError, 'Module [Module] is missing the required "forward" function'),
    "module.MLP": (lambda: module.MLP(3, 0, 2), ValueError, "n_out is 0; it must be an integer from 1"),
    "training.load_digits": (lambda: training.load_digits(seed="one"), ValueError, "The 'random_state' parameter..."),
    "training.MyCrossEntropy": (lambda: training.MyCrossEntropy(), TypeError, "MyCrossEntropy is applied, not called or made: MyCrossEntropy.apply(...)"),
    "training.cross_entropy": (lambda: training.cross_entropy(t(4, 3), torch.tensor([0, 1, 2, 3])), ValueError, "targ has 3 in it; 3 classes have numbers from 0 to 2"),
    "training.accuracy": (lambda: training.accuracy(t(4, 3), t(4, 3).long()), ValueError, "accuracy takes out (n, n_classes) and targ (n,), but out is (4, 3) and targ is (4, 3): targ has rank 2; targ.argmax(-1) is (4,), which fits"),
    "training.SGD": (lambda: training.SGD([t(2)], lr=-1), ValueError, "lr is -1; it must be a number from 0"),
    "training.Adam": (lambda: training.Adam([t(2)], betas=(0.9, 1)), ValueError, "beta2 is 1; it must be a number from 0, less than 1"),
    "training.fit": (lambda: training.fit(nn.Linear(3, 2), training.SGD([t(2)]), t(5, 3), t(5), epochs=1), ValueError, "opt has none of the model's parameters; none would learn"),
    "conv.unfold": (lambda: conv.unfold(t(1, 5, 5), 3), ValueError, "unfold takes x (n, c, h, w), but x is (1, 5, 5): x has rank 3; x[None] is (1, 1, 5, 5), which fits"),
    "conv.MyConv2d": (lambda: conv.MyConv2d(), TypeError, "MyConv2d is applied, not called or made: MyConv2d.apply(...)"),
    "conv.conv2d": (lambda: conv.conv2d(t(1, 3, 5, 5), t(8, 4, 3, 3)), ValueError, "x has 3 channels, in (c, h, w) = (3, 5, 5), but w, (8, 4, 3, 3), takes 4 (groups is 1)"),
    "conv.Conv2d": (lambda: conv.Conv2d(3, 8, 3, stride=0), ValueError, "stride is 0; it must be an integer from 1, or two, for rows and columns"),
    "numpy.matmul_loops": (lambda: gnp.matmul_loops(array((2, 3)), array((4, 3))), ValueError, "matmul_loops takes " + PRODUCT + "; b.T is (3, 4), which fits"),
    "numpy.matmul_lists": (lambda: gnp.matmul_lists(array((2, 3)), [[1]]), TypeError, "b is list, not an array; np.array(b) makes one"),
    "numpy.matmul_rows": (lambda: gnp.matmul_rows(array((2, 3)), array((4, 3))), ValueError, "matmul_rows takes " + PRODUCT + "; b.T is (3, 4), which fits"),
    "numpy.matmul_broadcast": (lambda: gnp.matmul_broadcast(array((2, 3)), t(3, 4)), TypeError, "b is Tensor, not an array; b.detach().numpy() makes one"),
    "numpy.normalize": (lambda: gnp.normalize(array((2, 3, 5, 5)), array(3), array(3) * 0), ValueError, "std is [0.0, 0.0, 0.0]; it must be above 0 in every channel"),
    "numpy.einsum": (lambda: gnp.einsum("ij,jk", array((2, 3)), array((3, 4), "f")), TypeError, "operands[0] is float64 but operands[1] is float32; convert it with operands[1].astype(operands[0].dtype)"),
    "numpy.matmul_einsum": (lambda: gnp.matmul_einsum(array((2, 3)), array((4, 3))), ValueError, "matmul_einsum takes " + PRODUCT + "; b.T is (3, 4), which fits"),
    "numpy.lin": (lambda: gnp.lin(array((2, 3)), array((4, 3)), array(4)), ValueError, "lin takes " + LAYER + "w.T is (3, 4), which fits"),
    "numpy.relu": (lambda: gnp.relu(np.ma.ones(2)), TypeError, "x is MaskedArray, not an array; x.filled(0) makes one"),
    "numpy.mse": (lambda: gnp.mse(array(3), array((3, 1))), ValueError, "mse takes " + TRAP),
    "numpy.lecun_normal": (lambda: gnp.lecun_normal(0, 3), ValueError, "n_in is 0; it must be an integer from 1"),
    "numpy.xavier_normal": (lambda: gnp.xavier_normal(3, 2, dtype=int), TypeError, "dtype is int64; weights are floats"),
    "numpy.kaiming_normal": (lambda: gnp.kaiming_normal(3, 2, copies=0), ValueError, "copies is 0; it must be an integer from 1"),
    "numpy.propagate": (lambda: gnp.propagate(gnp.lecun_normal, widths=[3]), ValueError, "len(widths) is 1; it must be an integer from 2"),
    "numpy.asarray": (lambda: gnp.asarray(t(2).requires_grad_()), RuntimeError, "Can't call numpy() on Tensor that requires grad..."),
    "numpy.mse_grad": (lambda: gnp.mse_grad(array(3), array(3)), AttributeError, "out is a plain array, of shape (3,), and takes no attribute .g; groundup.numpy.asarray(out) makes an Array, which does"),
    "numpy.relu_grad": (lambda: gnp.relu_grad(gnp.asarray(array((2, 3))), gnp.asarray(array((2, 3)))), AttributeError, NO_GRADIENT),
    "numpy.lin_grad": (lambda: gnp.lin_grad(*map(gnp.asarray, (array((2, 4)), array((2, 3)), array((4, 3)), array(3)))), AttributeError, NO_GRADIENT),
    "numpy.forward_and_backward": (lambda w=gnp.asarray(array((3, 3))), b=gnp.asarray(array(3)): gnp.forward_and_backward(gnp.asarray(array((2, 3))), array((2, 3)), w, b, w, gnp.asarray(array(3))), ValueError, "w1 and w2 are the same object, of shape (3, 3): the gradient of one would overwrite that of the other"),
    "numpy.numerical_grad": (lambda: gnp.numerical_grad(np.sum, array(2, "f")), TypeError, "x is float32, but float64 is needed; convert it with x.astype(float)"),
    "numpy.LayerFunction": (lambda: gnp.LayerFunction()(array(2)), NotImplementedError, "LayerFunction needs a forward(self, *args) that computes its output"),
    "numpy.Relu": (lambda: gnp.Relu().backward(), RuntimeError, "Relu has no call to backpropagate through: call it first, and use backward once for each call"),
    "numpy.Lin": (lambda: gnp.Lin(array((4, 3)), array(4))(array((2, 3))), ValueError, "lin takes " + LAYER + "w.T is (3, 4), which fits"),
    "numpy.Mse": (lambda: gnp.Mse()(array(3), array((3, 1))), ValueError, "mse takes " + TRAP),
    "tape.Tensor": (lambda: tape.Tensor([1, 2], requires_grad=True), TypeError, "a Tensor of int64 cannot require a gradient, only floats can; convert the data with data.astype(float)"),
    "tape.add": (lambda: tape.add(array(3), array(2)), ValueError, "add of (3,) and (2,): operands..."),
    "tape.sub": (lambda: tape.sub(array(3), "2"), TypeError, "got builtins.str" + NO_ARRAY),
    "tape.neg": (lambda: tape.neg(None), TypeError, "got builtins.NoneType" + NO_ARRAY),
    "tape.mul": (lambda: tape.mul(array((3, 2)), array(3)), ValueError, "multiply of (3, 2) and (3,): operands..."),
    "tape.div": (lambda: tape.div(array(3), array(2)), ValueError, "divide of (3,) and (2,): operands..."),
    "tape.backward": (lambda: tape.backward(tape.Tensor([1.0, 2.0], requires_grad=True)), RuntimeError, "this Tensor is (2,), but backward starts from a single number, such as a loss; sum it, or pass a gradient of the same shape"),
    "tape.exp": (lambda: tape.exp("1"), TypeError, "got builtins.str" + NO_ARRAY),
    "tape.log": (lambda: tape.log(t(2)), TypeError, "got torch.Tensor of torch.float32" + NO_ARRAY + "; its .numpy() is an array"),
    "tape.sqrt": (lambda: tape.sqrt(None), TypeError, "got builtins.NoneType" + NO_ARRAY),
    "tape.tanh": (lambda: tape.tanh({}), TypeError, "got builtins.dict" + NO_ARRAY),
    "tape.absolute": (lambda: tape.absolute("1"), TypeError, "got builtins.str" + NO_ARRAY),
    "tape.relu": (lambda: tape.relu(np.matrix([1.0])), TypeError, "got numpy.matrix of float64" + NO_ARRAY),
    "tape.power": (lambda: tape.power(array(3), array(2)), ValueError, "pow of (3,) and (2,): operands..."),
    "tape.matmul": (lambda: tape.matmul(array((2, 3)), array((2, 3))), ValueError, "matmul of (2, 3) and (2, 3): matmul:..."),
    "tape.sum_over": (lambda: tape.sum_over(array(3), axis=1), IndexError, "axis 1 is out of bounds..."),
    "tape.mean_over": (lambda: tape.mean_over(array(3), axis=1), IndexError, "axis 1 is out of bounds..."),
    "tape.max_over": (lambda: tape.max_over(array(0)), ValueError, "zero-size array to reduction operation maximum..."),
    "tape.min_over": (lambda: tape.min_over(array(0)), ValueError, "zero-size array to reduction operation minimum..."),
    "tape.maximum": (lambda: tape.maximum(array(3), array(2)), ValueError, "maximum of (3,) and (2,): operands..."),
    "tape.minimum": (lambda: tape.minimum(array(3), array(2)), ValueError, "minimum of (3,) and (2,): operands..."),
    "tape.where": (lambda: tape.where(array(3) > 0, array(2), array(3)), ValueError, "operands could not be broadcast together..."),
    "tape.reshape": (lambda: tape.reshape(array(3), 2, 2), ValueError, "cannot reshape array of size 3..."),
    "tape.transpose": (lambda: tape.transpose(array((2, 3)), 0), ValueError, "axes don't match array..."),
    "tape.take": (lambda: tape.take(array(3), 5), IndexError, "index 5 is out of bounds..."),
    "tape.concatenate": (lambda: tape.concatenate([array(3), array((2, 2))]), ValueError, "all the input arrays must have same number of dimensions..."),
    "tape.no_grad": (lambda: tape.no_grad()(iter_of), TypeError, "the code of iter_of runs later, when @no_grad() has ended; write with no_grad(): inside it"),
    "plots.plot_times": (lambda: plots.plot_times({"a": 1.0}, labels={}), ValueError, "no label for ['a']"),
    "plots.plot_broadcast": (lambda: plots.plot_broadcast((2, 3, 4), (4,)), ValueError, "only ranks 0 to 2 without empty axes can be drawn, not (2, 3, 4)"),
    "plots.plot_lines": (lambda: plots.plot_lines({"a": t(3)}, x=[1, 2]), ValueError, "'a' has shape (3,); 2 points need (2,), or (2, runs)"),
    "plots.plot_graph": (lambda: plots.plot_graph([("a", "b"), ("b", "a")]), ValueError, "the graph has a cycle; on it or behind it are ['a', 'b']"),
    "plots.plot_images": (lambda: plots.plot_images(t(5, 5)), ValueError, "images are (5, 5); they must be (n, h, w), and at least one"),
    "timing.format_time": (lambda: timing.format_time("1"), TypeError, "'>=' not supported between..."),
    "timing.best_times": (lambda: timing.best_times([abs]), AttributeError, "'list' object has no attribute..."),
    "shapes.shaped": (lambda: shapes.shaped("n, n", sets="z")(lambda x, y: None), ValueError, "<lambda> has no operand z; it has x and y"),
    "shapes.check": (lambda: shapes.check("*n, *n", tensor=t(3), gradient=t(2)), ValueError, "expected tensor (*n) and gradient (*n), but tensor is (3,) and gradient is (2,): n is (3,) in tensor but (2,) in gradient"),
    "shapes.check_gradient": (lambda: shapes.check_gradient("out", t(2, 3)), AttributeError, NO_GRADIENT),
    "shapes.alike": (lambda: shapes.alike("Tensor", t(2), t(2).double()), TypeError, "operands[0] is torch.float32 but operands[1] is torch.float64; convert it with operands[1].to(operands[0].dtype)"),
    "checks.Exercise": (lambda: checks.check_matmul_ikj(3.0), checks.CheckFailed, "matmul_ikj is a number; pass the function itself, as in check_matmul_ikj(matmul_ikj)"),
    "shapes.check_integers": (lambda: shapes.check_integers(2, rows=1), ValueError, "rows is 1; it must be an integer from 2"),
    "shapes.check_numbers": (lambda: shapes.check_numbers(0, 1, beta=1.0), ValueError, "beta is 1.0; it must be a number from 0, less than 1"),
    "shapes.check_between": (lambda: shapes.check_between(0, 1, step=2), ValueError, "step is 2; it must be between 0 and 1"),
    "shapes.number": (lambda: shapes.number("f(x)", t(2).double()), ValueError, "f(x) is (2,); it must be one number, such as a loss"),
    "shapes.pair": (lambda: shapes.pair(1, stride=(1, 2, 3)), ValueError, "stride is (1, 2, 3); it must be an integer from 1, or two, for rows and columns"),
    "shapes.sizes": (lambda: shapes.sizes(a_shape=(2, -1)), ValueError, "a_shape is (2, -1); sizes cannot be negative"),
}
# What takes no input that could be wrong, or hands all of it on.
WITHOUT = {"training.Digits", "training.History", "numpy.Array", "tape.record", "tape.implements", "matmul.product_of_lists", "shapes.MixedDtypes", "shapes.compiling", "shapes.holds", "shapes.autocast", "plots.use_svg", "checks.CheckFailed", "checks.Untouched", "checks.Outcome", "checks.Graded", "checks.status", "checks.main", "checks.grade"}


@pytest.mark.parametrize("name", BAD)
def test_message(name):
    call, error, message = BAD[name]
    with pytest.raises(error) as raised: call()
    if message.endswith("..."): assert str(raised.value).startswith(message[:-3])
    else: assert type(raised.value) is error and str(raised.value) == message


def test_every_exported_name_has_a_bad_call():
    exported = set()
    for info in pkgutil.iter_modules(groundup.__path__):
        if info.name.startswith("_") or info.ispkg: continue
        loaded = importlib.import_module(f"groundup.{info.name}")
        exported |= {f"{info.name}.{name}" for name in loaded.__all__ if getattr(getattr(loaded, name), "__module__", "") == loaded.__name__}
    assert exported == set(BAD) | WITHOUT and not set(BAD) & WITHOUT
