"""lisabench measures attention operators: how latency, memory and FLOPs grow, on GPUs and CPUs."""

__version__ = "0.1.0"
