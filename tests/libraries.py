"The two libraries that the same properties are tested on: lessons 1 to 7 on tensors, and groundup.numpy on arrays."
from importlib import import_module

import numpy as np, pytest, torch
import groundup.numpy as gnp

LESSONS = [import_module(f"groundup.{name}") for name in ("matmul", "broadcasting", "einsum", "functional", "init", "backprop", "layers")]


class Library:
    def measure(self, x):
        "The statistics of `x`, (seeds, rows, width): those of one layer whose activation is x, whatever comes in."
        seeds, rows, width = x.shape
        stats = self.propagate(self.lecun_normal, lambda _: x, widths=(1, width), rows=rows, seeds=seeds)
        return type(stats)(*(of_layer for of_layer, in stats))


class Torch(Library):
    "Lessons 1 to 7. Tests write tensors and PyTorch's words, so there is nothing to translate."
    name = "torch"
    def __getattr__(self, name):
        for lesson in LESSONS:
            if name in lesson.__all__: return getattr(lesson, name)
        raise AttributeError(name)
    def has(self, dtype): return True
    def dtype(self, dtype): return dtype
    def give(self, x): return x
    def take(self, x): return x
    def says(self, words): return words
    def seeded(self, seed=0): return torch.Generator().manual_seed(seed)
    def normal(self, generator, shape, dtype=torch.float64): return torch.empty(shape, dtype=dtype).normal_(generator=generator)


class Numpy(Library):
    "The same names on arrays: `give` hands them tensors as Arrays that share their memory, with `.g`; `take` gives tensors back."
    name = "numpy"
    WORDS = {".t()": ".T", ".to(": ".astype(", ".float()": ".astype(float)", ".int()": ".astype(int)", "torch.tensor(": "np.array(",
             "torch.": "", "a tensor": "an array", "one tensor": "one array"}
    def __getattr__(self, name): return getattr(gnp, name)
    def has(self, dtype): return dtype != torch.bfloat16
    def dtype(self, dtype): return dtype and torch.zeros((), dtype=dtype).numpy().dtype
    def give(self, x):
        if not isinstance(x, torch.Tensor): return x
        if x.device.type != "cpu": pytest.skip("arrays have no device")
        array = gnp.asarray(x.numpy())
        if hasattr(x, "g"): array.g = self.give(x.g)
        return array
    def take(self, x): return torch.tensor(np.asarray(x))
    def says(self, words):
        for one, other in self.WORDS.items(): words = [word.replace(one, other) for word in words]
        return words
    def seeded(self, seed=0): return np.random.default_rng(seed)
    def normal(self, generator, shape, dtype=torch.float64): return generator.standard_normal(shape).astype(self.dtype(dtype))


TORCH, NUMPY = Torch(), Numpy()
each_library = pytest.mark.parametrize("lib", [TORCH, NUMPY], ids=lambda lib: lib.name)
