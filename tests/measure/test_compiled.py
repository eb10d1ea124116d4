"""What torch.compile is told to have made of a function, with the real compiler."""

from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor

from lisabench.measure.compiled import Compiled
from lisabench.measure.memory import trace_call

X = torch.randn(4, 8)


def whole(x: Tensor) -> Tensor:
    return torch.fft.irfft(torch.fft.rfft(x) * 2, n=x.shape[-1]).exp()


def broken(x: Tensor) -> Tensor:
    y = x.exp()
    torch._dynamo.graph_break()
    return y + 1


def run(compiled: Compiled, x: Tensor = X) -> Tensor:
    with torch.no_grad():
        result: Tensor = compiled.function(x)
    compiled.stop_counting()
    return result


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Torchinductor does not support code generation for complex operators:UserWarning")
def test_one_graph_without_breaks_whose_ffts_fall_back() -> None:
    torch._dynamo.reset()
    compiled = Compiled(whole)
    torch.testing.assert_close(run(compiled), whole(X))
    assert (compiled.graphs, compiled.breaks) == (1, {})
    with torch.no_grad():
        proof = compiled.proof(trace_call(lambda: compiled.function(X)).ran)
    assert {"_fft_r2c", "_fft_c2r"} <= set(proof.fallbacks)
    assert "exp" not in proof.fallbacks
    assert set(json.loads(json.dumps(proof.record()))) == {"graphs", "breaks", "fallbacks", "products"}


@pytest.mark.slow
def test_a_graph_break_is_told_with_the_first_line_of_its_reason() -> None:
    torch._dynamo.reset()
    compiled = Compiled(broken)
    torch.testing.assert_close(run(compiled), X.exp() + 1)
    proof = compiled.proof(())
    assert proof.graphs == 2
    assert len(proof.breaks) == 1
    assert "graph_break" in proof.breaks[0]
    assert "\n" not in proof.breaks[0]
    compiled.count_anew()
    run(compiled)  # nothing is compiled a second time
    assert (compiled.graphs, compiled.breaks) == (0, {})


def test_library_calls_of_a_compiled_call_are_told_apart() -> None:
    ran = {"aten::_fft_r2c", "aten::mul", "aten::bmm", "aten::convolution", "aten::empty_strided", "aten::as_strided", "aten::resolve_conj"}
    proof = Compiled(whole).proof(ran)
    assert proof.fallbacks == ["_fft_r2c", "mul"]
    assert proof.products == ["bmm", "convolution"]
