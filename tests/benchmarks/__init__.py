"""Benchmarks: each module prints `figure: value unit` lines; none of them is part of the test suite."""
