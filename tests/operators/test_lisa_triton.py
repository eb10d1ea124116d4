"""LiSA's Triton kernels in Triton's interpreter, which runs them on a CPU, and on a GPU where there is one; float64 FFTs say what is right."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from lisabench.contract import Grid, Workload
from lisabench.operators import _lisa_mixed, _lisa_triton
from lisabench.operators._lisa_mixed import mixed_cost, mixed_spectra
from lisabench.operators._lisa_triton import painted, seen, why_not
from lisabench.operators.lisa import LiSA, lisa_attention

KERNELS = "lisabench.operators._lisa_triton_kernels"
LIMITS = {"ieee": 1e-6, "tf32": 1e-3, "bf16": 1e-2}
LONG_SUMS = 3e-6  # float32 where up to 256 products are added one after another
INSTALLED = importlib.util.find_spec("triton") is not None
needs_triton = pytest.mark.skipif(not INSTALLED, reason="needs Triton")
needs_gpu = pytest.mark.skipif(not INSTALLED or not torch.cuda.is_available(), reason="needs a CUDA device and Triton")


@pytest.fixture
def interpreted(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The kernels, as Triton takes them when they are imported; Triton itself is not to be interpreted, torch's compilers in this process use it."""
    import triton  # noqa: F401

    monkeypatch.setenv("TRITON_INTERPRET", "1")
    sys.modules.pop(KERNELS, None)
    yield
    sys.modules.pop(KERNELS, None)


@pytest.fixture
def products_in() -> Iterator[Callable[[str], None]]:
    """Sets the precision of torch's float32 products, and puts it back."""
    before = torch.backends.cuda.matmul.fp32_precision

    def to(precision: str) -> None:
        torch.backends.cuda.matmul.fp32_precision = precision

    yield to
    to(before)


def tensors(
    grid: tuple[int, int], boundary: str = "zero", *, batch: int = 2, heads: int = 2, patterns: int = 3, d_k: int = 5, d_v: int = 7
) -> list[Tensor]:
    """Query, key, value as a module makes them, (B, N, h, d) transposed, and two tables, over sqrt(N) that float16 hold y; float64."""
    generator = torch.Generator().manual_seed(0)
    shape = grid if boundary == "periodic" else (2 * grid[0] - 1, 2 * grid[1] - 1)
    tokens = [(batch, grid[0] * grid[1], heads, d) for d in (d_k, d_k, d_v)]
    made = [torch.randn(size, generator=generator, dtype=torch.float64) for size in (*tokens, *[(heads, patterns, *shape)] * 2)]
    return [t.transpose(1, 2) for t in made[:3]] + [table / tokens[0][1] ** 0.5 for table in made[3:]]


def by_triton(given: list[Tensor], grid: tuple[int, int], boundary: str = "zero", precision: str | None = None) -> Tensor:
    query, key, value, *tables = given
    kernel, context = (mixed_spectra(table.float(), Grid(*grid), boundary) for table in tables)
    return painted(seen(query, key, kernel, Grid(*grid), boundary, precision), value, context, Grid(*grid), boundary, precision)


def error(given: list[Tensor], grid: tuple[int, int], boundary: str, precision: str | None) -> float:
    """Relative, in the 2-norm, against FFTs in float64."""
    exact = lisa_attention(*(t.double() for t in given), grid=grid, boundary=boundary, engine="fft")
    found = by_triton(given, grid, boundary, precision)
    assert found.dtype == given[2].dtype
    return float((found.double() - exact).norm() / exact.norm())


@needs_triton
@pytest.mark.usefixtures("interpreted")
class TestInterpreted:
    @pytest.mark.parametrize("boundary", ["zero", "periodic"])
    @pytest.mark.parametrize("grid", [(1, 1), (1, 11), (6, 1), (4, 9), (13, 5), (14, 14)], ids=lambda grid: f"{grid[0]}x{grid[1]}")
    def test_every_grid_to_rounding(self, grid: tuple[int, int], boundary: str) -> None:
        given = [t.float() for t in tensors(grid, boundary)]
        assert error(given, grid, boundary, "ieee") < LIMITS["ieee"]

    @pytest.mark.parametrize("precision", ["ieee", "tf32", "bf16"])
    @pytest.mark.parametrize(
        ("grid", "sizes"),
        [
            ((16, 16), {"batch": 1, "heads": 1, "patterns": 4, "d_k": 16, "d_v": 64}),
            ((5, 18), {"batch": 2, "heads": 1, "patterns": 1, "d_k": 48, "d_v": 5}),
            ((19, 3), {"batch": 1, "heads": 2, "patterns": 2, "d_k": 150, "d_v": 130}),  # more channels than a tile is wide
        ],
        ids=["16x16", "5x18", "19x3"],
    )
    def test_every_precision_and_width(self, grid: tuple[int, int], sizes: dict[str, int], precision: str) -> None:
        """Operands are rounded as for tensor cores: in the interpreter products of what is rounded are exact to float32."""
        given = [t.float() for t in tensors(grid, **sizes)]
        found = error(given, grid, "zero", precision)
        assert found < LIMITS[precision]
        assert found > {"ieee": 0, "tf32": 1e-4, "bf16": 1e-3}[precision], "nothing was rounded"

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_half_precision_has_bfloat16_operands(self, dtype: torch.dtype) -> None:
        given = [t.to(dtype) for t in tensors((6, 7))]
        assert error(given, (6, 7), "zero", None) < LIMITS["bf16"]

    def test_float32_follows_torchs_setting(self, products_in: Callable[[str], None]) -> None:
        given = [t.float() for t in tensors((4, 5))]
        exact, rounded = (by_triton(given, (4, 5), precision=precision) for precision in ("ieee", "tf32"))
        assert not torch.equal(exact, rounded)
        for setting, expected in (("ieee", exact), ("tf32", rounded)):
            products_in(setting)
            assert torch.equal(by_triton(given, (4, 5)), expected)

    def test_samples_in_parts_are_as_all_at_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        given = [t.float() for t in tensors((5, 6), batch=3)]
        whole = by_triton(given, (5, 6))
        monkeypatch.setitem(_lisa_mixed.SPECTRA_BYTES, "gpu", 2 * 2 * 3 * 30 * 2 * 7 * 4)
        assert _lisa_mixed.samples_at_a_time(Grid(5, 6), 3, 2 * 7, 4, "gpu") == 2
        assert torch.allclose(by_triton(given, (5, 6)), whole, rtol=1e-5, atol=1e-5)

    @pytest.mark.parametrize("precision", ["ieee", "tf32", "bf16"])
    def test_what_is_no_number_stays_in_its_channel_and_is_not_lost(self, precision: str) -> None:
        """The NaN whose bits are all ones, which GPUs make: rounding its bits would overflow."""
        given = [t.float() for t in tensors((4, 5))]
        given[2] = given[2].contiguous()
        given[2].view(torch.int32)[1, 0, 7, 2] = 2**31 - 1
        found = by_triton(given, (4, 5), precision=precision)
        assert found[1, 0, :, 2].isnan().all()
        found[1, 0, :, 2] = 0
        assert found.isfinite().all()

    def test_the_operations_keep_torchs_rules(self) -> None:
        query, key, value, kernel, context = (t.float() for t in tensors((3, 4)))
        ops, rest = torch.ops.lisabench, (3, 4, "zero", "ieee")
        weights = seen(query, key, mixed_spectra(kernel, Grid(3, 4), "zero"), Grid(3, 4), "zero", "ieee")
        torch.library.opcheck(ops.lisa_seen.default, (query, key, mixed_spectra(kernel, Grid(3, 4), "zero"), *rest))
        torch.library.opcheck(ops.lisa_painted.default, (weights, value, mixed_spectra(context, Grid(3, 4), "zero"), *rest))

    def test_compiled_they_stay_whole(self) -> None:
        given = [t.float() for t in tensors((4, 6))]
        graphs: list[list[str]] = []

        def recorded(graph: torch.fx.GraphModule, _: list[Tensor]) -> torch.fx.GraphModule:
            graphs.append([str(node.target) for node in graph.graph.nodes if "lisa_" in str(node.target)])
            return graph

        compiled = torch.compile(by_triton, backend=recorded, fullgraph=True)
        assert torch.equal(compiled(given, (4, 6)), by_triton(given, (4, 6)))
        assert [[name.split(".")[1] for name in names] for names in graphs] == [["lisa_seen", "lisa_painted"]]
        torch.compiler.reset()

        def where_they_run(given: list[Tensor]) -> Tensor:
            assert why_not(given[0].device, given[0].dtype) is None
            return by_triton(given, (4, 6)).relu()

        compiled = torch.compile(where_they_run, backend="aot_eager", fullgraph=True)
        assert torch.equal(compiled(given), where_they_run(given))
        torch.compiler.reset()

    @pytest.mark.parametrize("boundary", ["zero", "periodic"])
    def test_torchs_counter_finds_the_analytic_flops(self, boundary: str) -> None:
        assert why_not(torch.device("cpu"), torch.float32) is None
        given = [t.float() for t in tensors((4, 9), boundary, patterns=4)]
        kernel, context = (mixed_spectra(table, Grid(4, 9), boundary) for table in given[3:])
        with FlopCounterMode(display=False) as counter:
            painted(seen(given[0], given[1], kernel, Grid(4, 9), boundary), given[2], context, Grid(4, 9), boundary)
        workload = Workload(grid=Grid(4, 9), dim=14, heads=2, batch=2)
        assert counter.get_total_flops() == mixed_cost(workload, 4, 5, boundary, 0.0).mix_flops

    def test_as_an_engine_with_its_gradients(self) -> None:
        given, found = [t.float() for t in tensors((4, 5))], []
        for engine in ("triton", "fft"):
            leaves = [t.requires_grad_() for t in given]
            y = lisa_attention(*leaves, grid=(4, 5), engine=engine)
            grads = torch.autograd.grad(y.square().sum(), leaves, create_graph=True)
            again = torch.autograd.grad(grads[0].square().sum(), leaves)
            found.append([y, *grads, *again])
        for first, second in zip(*found, strict=True):
            assert (first - second).norm() < 1e-5 * second.norm()

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_a_module_gives_them_half_precision(self, dtype: torch.dtype) -> None:
        torch.manual_seed(0)
        module, by_fft = LiSA(16, 2, (4, 5), engine="triton").eval(), LiSA(16, 2, (4, 5), engine="fft").double()
        by_fft.load_state_dict(module.state_dict())
        with torch.no_grad():
            tokens = [t.to(dtype) for t in module.prepare(torch.randn(2, 20, 16))]
            exact = by_fft.mix(*(t.double() for t in tokens))
            for _ in range(2):  # the second time with what is kept
                found = module.mix(*tokens)
                assert found.dtype == dtype
                assert 1e-4 < (found.double() - exact).norm() / exact.norm() < LIMITS["bf16"]

    def test_what_they_cannot_take_is_refused(self) -> None:
        given = tensors((3, 4))
        with pytest.raises(ValueError, match=r"got torch\.float64; valid: torch\.float32"):
            by_triton(given, (3, 4))
        with pytest.raises(ValueError, match="precision got 'fp8'; valid: ieee, tf32, bf16"):
            by_triton([t.float() for t in given], (3, 4), precision="fp8")


def test_operands_are_rounded_to_the_nearest() -> None:
    x = torch.randn(10_000, generator=torch.Generator().manual_seed(0)) * 1e3
    mantissa, exponent = torch.frexp(x.double())
    assert torch.equal(_lisa_triton._rounded(x, "tf32").double(), torch.ldexp((mantissa * 2**11).round(), exponent - 11))
    special = torch.tensor([0.0, -0.0, float("inf"), -float("inf")])
    assert torch.equal(_lisa_triton._rounded(special, "tf32"), special)
    assert _lisa_triton._rounded(torch.tensor([2**31 - 1], dtype=torch.int32).view(torch.float32), "tf32").isnan().all()


class TestWhyNot:
    def test_float64(self) -> None:
        assert "float64" in str(why_not(torch.device("cpu"), torch.float64))

    def test_no_gpu(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("TRITON_INTERPRET", raising=False)
        assert "NVIDIA GPU" in str(why_not(torch.device("cpu"), torch.float32))

    def test_too_old_a_gpu(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """What torch says of a GPU is put in its mouth: no such GPU is at hand."""
        monkeypatch.delenv("TRITON_INTERPRET", raising=False)
        monkeypatch.setattr(torch.version, "hip", None)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 5))
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Tesla T4")
        assert why_not(torch.device("cuda"), torch.float32) == "Triton kernels need compute capability 8.0; Tesla T4 has 7.5"

    @needs_triton
    @pytest.mark.usefixtures("interpreted")
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
    def test_none_where_they_run(self, dtype: torch.dtype) -> None:
        assert why_not(torch.device("cpu"), dtype) is None

    def test_no_triton_in_a_process_that_has_none(self) -> None:
        """And without one, or with one that is not needed yet, the module is imported."""
        code = (
            "import os, sys\n"
            "import torch\n"
            "from lisabench.operators import _lisa_triton\n"
            "assert 'triton' not in sys.modules, 'imported before it is needed'\n"
            "os.environ['TRITON_INTERPRET'] = '1'\n"
            "sys.modules['triton'] = None\n"
            "print(_lisa_triton.why_not(torch.device('cpu'), torch.float32))\n"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout == "Triton is not installed: pip install 'lisabench[triton]'\n"


@pytest.mark.gpu
@needs_gpu
class TestOnAGPU:
    @pytest.fixture(autouse=True)
    def _as_compiled(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("TRITON_INTERPRET", raising=False)
        sys.modules.pop(KERNELS, None)
        assert why_not(torch.device("cuda"), torch.float32) is None

    @pytest.mark.parametrize("boundary", ["zero", "periodic"])
    @pytest.mark.parametrize(
        ("dtype", "precision"),
        [(torch.float32, "ieee"), (torch.float32, "tf32"), (torch.float32, "bf16"), (torch.bfloat16, None), (torch.float16, None)],
        ids=["ieee", "tf32", "bf16", "bfloat16", "float16"],
    )
    @pytest.mark.parametrize(
        ("grid", "sizes"),
        [
            ((1, 1), {"d_k": 1, "d_v": 1}),
            ((13, 37), {"d_k": 5, "d_v": 48}),
            ((56, 56), {"d_k": 64, "d_v": 64, "patterns": 4}),
            ((128, 96), {"d_k": 16, "d_v": 150, "patterns": 1}),
        ],
        ids=["1x1", "13x37", "56x56", "128x96"],
    )
    def test_errors_stay_within_what_precision_allows(
        self, grid: tuple[int, int], sizes: dict[str, int], dtype: torch.dtype, precision: str | None, boundary: str
    ) -> None:
        given = [t.to("cuda", dtype) for t in tensors(grid, boundary, **sizes)]
        assert error(given, grid, boundary, precision) < (LONG_SUMS if precision == "ieee" else LIMITS[precision or "bf16"])

    def test_compiled_by_torch(self) -> None:
        given = [t.to("cuda", torch.bfloat16) for t in tensors((14, 20))]
        compiled = torch.compile(by_triton, fullgraph=True)
        exact = by_triton(given, (14, 20)).float()
        assert (compiled(given, (14, 20)).float() - exact).norm() < LIMITS["bf16"] * exact.norm()
        torch.compiler.reset()

    def test_captured_in_a_graph(self) -> None:
        query, key, _, table, _ = (t.to("cuda", torch.bfloat16) for t in tensors((14, 20)))
        spectra = mixed_spectra(table.float(), Grid(14, 20), "zero")
        expected = seen(query, key, spectra, Grid(14, 20), "zero")
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            found = seen(query, key, spectra, Grid(14, 20), "zero")
        graph.replay()
        assert torch.equal(found, expected)
