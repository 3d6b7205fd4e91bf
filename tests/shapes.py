"Strategies that more than one test file draws from: shapes, dtypes and tensors, small but with all the odd cases."
import torch
from hypothesis import strategies as st

SIZES = st.integers(0, 4)
FLOATS = [torch.float32, torch.float64]
DTYPES = st.sampled_from([*FLOATS, torch.int32, torch.int64])


def shapes(max_rank=3, sizes=SIZES):
    "Shapes of rank 0 to `max_rank`, with empty axes and axes of size 1 among them."
    return st.lists(sizes, max_size=max_rank).map(tuple)


@st.composite
def tensors(draw, shape, dtype=torch.float64):
    "A tensor of `shape` with small values, half of the time laid out backwards in memory, so that it is not contiguous."
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    backwards = draw(st.booleans())
    whole = torch.randint(-5, 6, shape[::-1] if backwards else shape, generator=generator)
    x = (whole / 3 if dtype.is_floating_point or dtype.is_complex else whole).to(dtype)
    return x.permute(tuple(reversed(range(x.ndim)))) if backwards else x


def tolerance(dtype):
    "What two float sums of a few small terms may differ by."
    return dict(atol={torch.float32: 1e-5, torch.float64: 1e-13}.get(dtype, 0), rtol=0)


AWKWARD = st.sampled_from([float("-inf"), -1.5, -0.0, 0.0, 2.0, float("inf"), float("nan")])


def awkward(size):
    "A vector of `size` of the numbers that a ReLU and its gradient are most easily wrong about."
    return st.lists(AWKWARD, min_size=size, max_size=size).map(lambda numbers: torch.tensor(numbers, dtype=torch.float64))
