"""Choices that several stages offer: where to compute, in which precision, by what, which stage's model."""

DEVICES = ("auto", "cpu", "cuda", "mps")
DTYPES = ("auto", "float32", "bfloat16", "float16")
STORED = (*DTYPES, "int8")  # precisions in which a model that only talks may keep its weights
BACKENDS = ("auto", "native", "torch")
SOURCES = ("base", "mid", "sft", "rl")
