"""One bad call for each exported name, with the message that it gets. A name that is exported without one fails the last test."""
import importlib, pkgutil, re

import numpy as np, pytest, torch
from torch import nn

import groundup, groundup.numpy as gnp
from groundup import autograd, backprop, broadcasting, conv, einsum, functional, init, layers, matmul, module, plots, shapes, tape, timing, training

t, array = torch.ones, np.ones
LAYER = "x (n, n_in), w (n_in, n_out) and b (n_out,), but x is (2, 3), w is (4, 3) and b is (4,): n_in is 3 in x but 4 in w; "
PRODUCT = "a (n, k) and b (k, m), but a is (2, 3) and b is (4, 3): k is 3 in a but 4 in b"
TURNED = PRODUCT + "; b.t() is (3, 4), which fits"
TRAP = "out (*n) and targ (*n), or out (*n, 1) and targ (*n), but out is (3,) and targ is (3, 1): n is (3,) in out but (3, 1) in targ, which would broadcast to (3, 3); targ.squeeze(-1) is (3,), which fits"
NO_GRADIENT = "out, of shape (2, 3), has no gradient .g yet: first compute that of what was computed from it; gradients go from the loss backwards"


def with_gradient(x):
    x.g = x * 0 + 1
    return x


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
    "einsum.plan": (lambda: einsum.plan(torch, "ij->ii", torch.Size((2, 3))), ValueError, "'ij->ii': 'i' stands twice in the result; once is the most"),
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
    "layers.Relu": (lambda: layers.Relu().backward(), RuntimeError, "Relu has no call to go back through: call it first, and go back through each call once"),
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
    "module.LinearLayer": (lambda: module.LinearLayer(3, 2)(t(5, 4)), ValueError, "expected weight (2, 3) and x (..., 3), but weight is (2, 3) and x is (5, 4): 3 is 3 in the form but 4 in x"),
    "module.Module": (lambda: module.Module()(1), NotImplementedError, 'Module [Module] is missing the required "forward" function'),
    "module.MLP": (lambda: module.MLP(3, 0, 2), ValueError, "n_out is 0; it must be an integer from 1"),
    "shapes.shaped": (lambda: shapes.shaped("n, n", sets="z")(lambda x, y: None), ValueError, "<lambda> has no operand z; it has x and y"),
    "shapes.check": (lambda: shapes.check("*n, *n", tensor=t(3), gradient=t(2)), ValueError, "expected tensor (*n) and gradient (*n), but tensor is (3,) and gradient is (2,): n is (3,) in tensor but (2,) in gradient"),
    "shapes.check_gradient": (lambda: shapes.check_gradient("out", t(2, 3)), AttributeError, NO_GRADIENT),
    "shapes.alike": (lambda: shapes.alike("Tensor", t(2), t(2).double()), TypeError, "operands[0] is torch.float32 but operands[1] is torch.float64; convert it with operands[1].to(operands[0].dtype)"),
    "shapes.check_integers": (lambda: shapes.check_integers(2, rows=1), ValueError, "rows is 1; it must be an integer from 2"),
    "shapes.check_between": (lambda: shapes.check_between(0, 1, step=2), ValueError, "step is 2; it must be between 0 and 1"),
    "shapes.number": (lambda: shapes.number("f(x)", t(2).double()), ValueError, "f(x) is (2,); it must be one number, such as a loss"),
    "shapes.pair": (lambda: shapes.pair(1, stride=(1, 2, 3)), ValueError, "stride is (1, 2, 3); it must be an integer from 1, or two, for rows and columns"),
    "shapes.sizes": (lambda: shapes.sizes(a_shape=(2, -1)), ValueError, "a_shape is (2, -1); sizes cannot be negative"),
}
# What takes no input that could be wrong, or hands all of it on.
WITHOUT = {"matmul.product_of_lists", "shapes.MixedDtypes", "shapes.compiling", "shapes.holds", "shapes.autocast"}


@pytest.mark.parametrize("name", BAD)
def test_message(name):
    call, error, message = BAD[name]
    with pytest.raises(error) as raised: call()
    assert type(raised.value) is error and str(raised.value) == message


def test_every_exported_name_has_a_bad_call():
    exported = set()
    for info in pkgutil.iter_modules(groundup.__path__):
        if info.name.startswith("_"): continue
        loaded = importlib.import_module(f"groundup.{info.name}")
        exported |= {f"{info.name}.{name}" for name in loaded.__all__ if callable(getattr(loaded, name))}
    assert exported == set(BAD) | WITHOUT and not set(BAD) & WITHOUT
