"""The parts of benchmarks/scale_out.py."""
