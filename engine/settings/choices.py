"""Choices that several stages offer: where to compute, in which precision, which stage's model."""

DEVICES = ("auto", "cpu", "cuda", "mps")
DTYPES = ("auto", "float32", "bfloat16", "float16")
SOURCES = ("base", "mid", "sft", "rl")
