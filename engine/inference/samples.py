"""What a base model writes when it is given the start of a sentence: the quickest way to see that it learns."""

from __future__ import annotations

from engine.context import StageContext
from engine.inference.generate import Engine
from engine.model.gpt import GPT
from engine.tokenizer.bpe import Tokenizer

PROMPTS = (
    "Once upon a time",
    "The capital of France is",
    "The opposite of hot is",
    "A cow says",
    "The day after Monday is",
    "3, 4, 5,",
)
SAMPLE_TOKENS = 24


def print_samples(model: GPT, tokenizer: Tokenizer, context: StageContext, step: int) -> dict[str, str]:
    """Continue each prompt greedily; log and send the texts, and return them by prompt."""
    texts = {prompt: _continue(model, tokenizer, prompt) for prompt in PROMPTS}
    for prompt, text in texts.items():
        context.log(text)
        context.events.emit("sample", {"prompt": prompt, "text": text}, step=step)
    return texts


def _continue(model: GPT, tokenizer: Tokenizer, prompt: str) -> str:
    """`prompt` and what follows it, greedily, up to the end of the document."""
    ids = tokenizer.encode(prompt, prepend=tokenizer.get_bos_token_id())
    [completion] = Engine(model, tokenizer).generate_batch([ids], max_tokens=SAMPLE_TOKENS)
    return prompt + tokenizer.decode(completion.tokens)
