"""Chat evaluation: ask the questions that were kept back, with the calculator at hand, and mark every answer.

Where the dataset stage left no questions, or benchmark tasks are named, those are asked instead
(`engine.stages.chat_benchmarks`). How a question is marked stands in the questions file; a model gets no second try.
Kinds below the mark that we aim for are named, with what the model answered instead.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.config import ConfigError, nearest
from engine.context import StageContext, StageError
from engine.data.conversations import FOLDER, ConversationError, check, json_lines
from engine.dist import joined
from engine.inference.chat import load_chat
from engine.inference.generate import Engine
from engine.inference.stream import AnswerStream, Piece
from engine.settings.evaluation import ChatEval
from engine.stages import chat_benchmarks
from engine.tasks.table import CHATCORE
from engine.tokenizer.bpe import Tokenizer
from engine.tokenizer.chat_format import render_for_completion
from engine.train.checkpoint import resolve
from engine.world.kinds import BY_NAME
from engine.world.marking import RULES, mark

AIM = 0.95
EXAMPLES = 2  # wrong answers shown per kind


@dataclass(frozen=True)
class Question:
    """One line of the questions file: a conversation that ends with a user's turn, and how to mark what follows."""

    kind: str
    messages: list[dict[str, Any]]
    accept: dict[str, Any]
    answer: str


@dataclass(frozen=True)
class Answer:
    """What the model said, what its calculator calls returned, and whether that was right."""

    question: Question
    text: str
    tools: tuple[str, ...]
    right: bool


def run(config: ChatEval, context: StageContext) -> None:
    """Ask conversations/questions.jsonl or the benchmarks; the scores go to log, events and report."""
    benchmarks = chat_benchmarks.named(config.task_name)
    questions = context.base_dir / FOLDER / "questions.jsonl"
    if benchmarks is None and config.task_name == "all" and not questions.exists():
        benchmarks = list(CHATCORE)
    if benchmarks is not None:
        return chat_benchmarks.run(config, context, benchmarks)
    if not questions.exists():
        raise ConfigError(f"--task-name={config.task_name}: no benchmark task{nearest(config.task_name, CHATCORE)}")
    return _ask_questions(config, context)


def _ask_questions(config: ChatEval, context: StageContext) -> None:
    """Every question of conversations/questions.jsonl, marked by its own rule."""
    questions = choose(read_questions(context.base_dir / FOLDER / "questions.jsonl"), config)
    folder, step = resolve(context.base_dir, config.source, config.model_tag, config.step)
    chat = load_chat(folder, step, context.base_dir / "tokenizer", config.device_type, config.dtype)
    context.log(f"asking {len(questions):,} questions of {folder} step {step}")
    start = time.monotonic()
    with joined(chat.model.device) as world:
        mine = ask(questions[world.rank :: world.size], chat.engine, chat.tokenizer, config, context)
        shares = world.gather(mine)
    answers = [shares[i % len(shares)][i // len(shares)] for i in range(len(questions))]
    seconds = time.monotonic() - start
    scores = score(answers)
    _tell(scores, answers, seconds, context)
    context.events.evaluation(step, **{f"chat/{kind}": value for kind, value in scores.items()})
    context.report(f"Chat evaluation {config.source.upper()}", _facts(scores, answers, seconds, step))


def read_questions(path: Path) -> list[Question]:
    """The questions of a file. Raises ConversationError naming the line that is none."""
    found = []
    for number, row in json_lines(path):
        if not isinstance(row, dict) or not {"kind", "messages", "accept", "answer"} <= row.keys():
            raise ConversationError(path, number, "a question is an object with kind, messages, accept and answer")
        reply = {"role": "assistant", "content": row["answer"]}
        problem = check([*row["messages"], reply]) if isinstance(row["messages"], list) else "messages is not a list"
        if not problem and (not isinstance(row["accept"], dict) or row["accept"].get("rule") not in RULES):
            problem = f"accept has no rule of {', '.join(RULES)}"
        if problem:
            raise ConversationError(path, number, problem)
        found.append(Question(str(row["kind"]), row["messages"], row["accept"], row["answer"]))
    if not found:
        raise StageError(f"{path} holds no questions", "run the dataset stage", "data")
    return found


def choose(questions: Sequence[Question], config: ChatEval) -> list[Question]:
    """The questions of the kinds that `task_name` names, at most `max_problems`. Raises ConfigError."""
    kinds = list(dict.fromkeys(q.kind for q in questions))
    wanted = kinds if config.task_name == "all" else config.task_name.split("|")
    for kind in wanted:
        if kind not in kinds:
            near = nearest(kind, [*kinds, *CHATCORE])
            raise ConfigError(f"--task-name: there are no questions of kind {kind!r}{near}")
    return [q for q in questions if q.kind in wanted][: config.max_problems]


def ask(questions: Sequence[Question], engine: Engine, tokenizer: Tokenizer, config: ChatEval,
        context: StageContext) -> list[Answer]:
    """Answer every question; those whose prompts are equally long are answered side by side."""
    prompts = [render_for_completion(tokenizer, q.messages) for q in questions]
    start = time.monotonic()

    def tell(done: int) -> None:
        rest = (time.monotonic() - start) / done * (len(questions) - done)
        context.progress(done, len(questions), "questions", eta_s=rest)

    completions = engine.generate_batch(
        prompts, max_tokens=config.max_new_tokens, temperature=config.temperature, top_k=config.top_k,
        batch_size=config.batch_size, should_stop=lambda: context.stop_requested, on_done=tell)
    context.checkpoint_stop()
    return [_marked(q, pieces_of(c.tokens, tokenizer)) for q, c in zip(questions, completions, strict=True)]


def pieces_of(tokens: Sequence[int], tokenizer: Tokenizer) -> list[Piece]:
    """The words, tool inputs and tool outputs of a finished answer."""
    stream = AnswerStream(tokenizer)
    return [piece for token in tokens for piece in stream.push(token)] + stream.close()


def _marked(question: Question, pieces: Sequence[Piece]) -> Answer:
    text = "".join(piece.text for piece in pieces if piece.kind == "text").strip()
    tools = tuple(piece.text for piece in pieces if piece.kind == "output")
    return Answer(question, text, tools, mark(question.accept, text, tools))


def score(answers: Sequence[Answer]) -> dict[str, float]:
    """Share of right answers per kind, and over all questions as "all", which comes first."""
    by_kind: dict[str, list[bool]] = {}
    for answer in answers:
        by_kind.setdefault(answer.question.kind, []).append(answer.right)
    total = sum(a.right for a in answers) / len(answers)
    return {"all": total, **{kind: sum(marks) / len(marks) for kind, marks in by_kind.items()}}


def _tell(scores: dict[str, float], answers: Sequence[Answer], seconds: float, context: StageContext) -> None:
    """One line per kind, and below it the first wrong answers of that kind."""
    for kind, value in scores.items():
        of_kind = [a for a in answers if kind in ("all", a.question.kind)]
        right = sum(a.right for a in of_kind)
        context.log(f"{kind:<14} {value:7.1%}  {right}/{len(of_kind)}  {_title(kind)}")
        for wrong in [a for a in of_kind if not a.right][: EXAMPLES if kind != "all" else 0]:
            context.log(f"    asked     {wrong.question.messages[-1]['content']!r}\n    answered  {wrong.text!r}"
                        f"\n    expected  {wrong.question.answer!r}")
    context.log(f"{len(answers)} questions in {seconds:.1f} s")
    if weak := _weak(scores):
        context.log(f"below {AIM:.0%}: {', '.join(weak)}")


def _title(kind: str) -> str:
    return BY_NAME[kind].title if kind in BY_NAME else ""


def _weak(scores: dict[str, float]) -> list[str]:
    return [kind for kind, value in scores.items() if value < AIM and kind != "all"]


def _facts(scores: dict[str, float], answers: Sequence[Answer], seconds: float, step: int) -> dict[str, Any]:
    wrong = [a for a in answers if not a.right]
    return {
        "Step": step, "Questions": len(answers), "Right answers": len(answers) - len(wrong), "Score": scores["all"],
        "Seconds": round(seconds, 1), f"Kinds below {AIM:.0%}": ", ".join(_weak(scores)) or "none",
        "Scores": {kind: value for kind, value in scores.items() if kind != "all"},
        "Wrong answers": [{"kind": a.question.kind, "asked": a.question.messages[-1]["content"], "answered": a.text,
                           "expected": a.question.answer} for a in wrong[:20]],
    }
