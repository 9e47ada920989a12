"""A run of unmodified nanochat, read from its console log: the same kinds of events as our own runs write.

Fed with bytes in any pieces, of any era since the first; torn lines wait, carriage returns count as line ends, lines
that mean nothing are passed over, and nothing in a log can raise. Nothing is read from disk here and nothing is
written; whose run it is and where its checkpoints lie is the caller's knowledge, and how stages follow one another
that of `engine.nanochat_state`.

The losses that nanochat prints are smoothed already. A sample's prompt is not marked in the log, so `prompt` is one
of its seven fixed prompts or empty.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from engine.nanochat_lines import CONFIG, FORMS, Line, count, field_name, fields, json_object, number, tagged, unwrap
from engine.nanochat_state import SOURCES, TITLES, Found, LogState

__all__ = ["SOURCES", "TITLES", "Found", "NanochatLog"]

PROMPTS = ("The capital of France is", "The chemical symbol of gold is",
           "If yesterday was Friday, then tomorrow will be", "The opposite of hot is",
           "The planets of the solar system are:", "My favorite color is",
           "If 5*x + 3 = 13, then x is")
_TRAINING = {stage for _, stage in SOURCES.values()}
_LONGEST_LINE = 1 << 20
_LONGEST_SAMPLE = 4000


class NanochatLog(LogState):
    """Reads one console log. `stage` is what it begins with where that is known, such as from its file's name."""

    def __init__(self, stage: str | None = None) -> None:
        super().__init__()
        self._torn = b""
        self._tokens_per_step = 0
        self._sample: list[str] = []
        self._json: list[str] = []
        self._files: list[str] = []
        self._fault: list[str] | None = None
        self._rl_losses: list[float] = []
        self._shards = 0
        self._first = stage

    def feed(self, data: bytes) -> list[Found]:
        """What the complete lines in this piece and what was torn before it say."""
        *lines, self._torn = re.split(rb"[\r\n]", self._torn + data)
        self._torn = self._torn[:_LONGEST_LINE]
        found: list[Found] = []
        for line in lines:
            if line:
                found += self._line(line[:_LONGEST_LINE].decode("utf-8", "replace"))
        return found

    def close(self) -> list[Found]:
        """What a last line without an end and whatever was still being collected say."""
        found = self.feed(b"\n") if self._torn else []
        return [*found, *self._flush(), *self._undecided]

    # Lines.

    def _line(self, raw: str) -> list[Found]:
        line = unwrap(raw)
        if line.rank != 0:
            return []
        self._t = line.t
        if self._json:
            return self._more_json(line.text)
        for pattern, read in _READERS:
            match = pattern.match(line.text)
            if match:
                return [*self._flush(read), *read(self, match)]
        return self._other(line)

    def _other(self, line: Line) -> list[Found]:
        """A line without a form of its own: one of many `name: value`, a tag line, more of a sample or of a fault."""
        if self._fault is not None:
            return self._more_fault(line.text)
        tag = tagged(line.text)
        if tag is not None:
            return [*self._flush(), *self._tagged(*tag)]
        if self._sample:
            if len(self._sample) < _LONGEST_SAMPLE // 10:
                self._sample.append(line.text)
            return []
        name, colon, value = line.text.partition(": ")
        if " : " in line.text and not name.startswith("Tokens"):
            name, colon, value = line.text.partition(" : ")  # a table of parameter counts
        known = CONFIG.get(name.strip())
        if not colon or not known:
            return []
        begun = self._begin("base_train", anew=True) if known == "vocab_size" else []
        first = value.split()[0].rstrip(",") if value.split() else ""
        amount = number(first)
        self._config[known] = (first.removeprefix("torch.") if amount is None
                               else int(amount) if amount.is_integer() and abs(amount) < 1e18 else amount)
        if known == "tokens_per_step":
            self._tokens_per_step = count(first) or 0
        return begun

    def _flush(self, by: object = None) -> list[Found]:
        """Hand over what was collected over several lines, unless the line at hand goes on with it."""
        found: list[Found] = []
        if self._sample:
            text = "\n".join(self._sample).rstrip()[:_LONGEST_SAMPLE]
            prompt = next((prompt for prompt in PROMPTS if text.startswith(prompt)), "")
            found.append(self._event("sample", {"prompt": prompt, "text": text[len(prompt):]},
                                     None if self.step is None else self.step + 1))  # it comes before its step's line
            self._sample = []
        if self._files and by is not NanochatLog._saved:
            found += self._checkpoint()
        if self._fault is not None:
            found += self._more_fault("error: the log goes on after an unfinished traceback")
        return found

    # What each form of line means.

    def _trained(self, match: re.Match[str]) -> list[Found]:
        """A training step of base, mid, or SFT since it packs."""
        step, total = count(match["step"]) or 0, count(match["total"] or "")
        values = fields(match["rest"])
        found = self._begin(self._training_stage(total, match["rest"]))
        self.step = step
        eta = values.pop("eta_s", None)
        if self._tokens_per_step and self.stage == "base_train":
            values["tokens"] = (step + 1) * self._tokens_per_step
        found += [*self._settle(), self._event("metric", dict(values), step)]
        percent = number(match["percent"] or "")
        if percent is not None and int(percent) != self._percent:
            self._percent = int(percent)
            done, whole, unit = (step + 1, total, "steps") if total else (percent, 100, "percent")
            found.append(self._event("stage", {"state": "progress", "done": done, "total": whole, "unit": unit,
                                               "eta_s": eta}, step))
        return found

    def _training_stage(self, total: int | None, rest: str) -> str:
        if total is not None:
            return "base_train"
        if self._first in ("mid_train", "chat_sft"):
            return str(self._first)
        if self.stage in ("mid_train", "chat_sft") and not self._ended:
            return str(self.stage)
        return "chat_sft" if "bf16_mfu" in rest or "epoch:" in rest else "mid_train"

    def _evaluated(self, match: re.Match[str]) -> list[Found]:
        """`Step N | name: value ...`: results at a step of whatever trains."""
        step, values = count(match["step"]), fields(match["rest"])
        if not values:
            return []
        if any(name.startswith("pass@") for name in values):
            return [*self._begin("chat_rl"), self._event("eval", dict(values), step)]
        if "val_loss" in values:
            return [*self._begin("chat_sft"), self._event("eval", dict(values), step)]
        row = self._event("eval", dict(values), step)
        if self.stage not in _TRAINING or self._ended:
            self._undecided.append(row)  # the first evaluation comes before the first step that tells the stage
            return []
        return [row]

    def _tuned(self, match: re.Match[str]) -> list[Found]:
        """A step of the first SFT: `Step i/n | Training loss: ...| lrm: ...| num_tokens: ...`."""
        step, total = count(match["step"]) or 0, count(match["total"]) or 0
        found = self._begin("chat_sft")
        self.step = step
        found += [*self._settle(), self._event("metric", dict(fields(match["rest"])), step)]
        return [*found, *self._advance(step + 1, total, "steps", step)]

    def _reinforced(self, match: re.Match[str]) -> list[Found]:
        step, total, values = count(match["step"]) or 0, count(match["total"]) or 0, fields(match["rest"])
        found = self._begin("chat_rl")
        if "Example_step" in match["rest"].replace(" ", "_") or "Pass" in match["rest"].split("|")[1:2]:
            if "loss" in values:
                self._rl_losses.append(values["loss"])
            return found
        self.step = step
        losses, self._rl_losses = self._rl_losses, []
        if losses:
            values["loss"] = sum(losses) / len(losses)
        found += [*self._settle(), self._event("metric", dict(values), step)]
        return [*found, *self._advance(step + 1, total, "steps", step)]

    def _core_task(self, match: re.Match[str]) -> list[Found]:
        found = self._begin("base_eval") if self.stage != "base_train" or self._ended else []
        values = fields(match["rest"])
        if "centered" not in values:
            return found
        return [*found, self._event("eval", {f"core/{match['task']}": values["centered"]}, self.step)]

    def _base_result(self, match: re.Match[str]) -> list[Found]:
        amount = number(match["value"])
        if amount is None:
            return []
        name = {"CORE metric": "core_metric"}.get(match["name"], match["name"].replace(" ", "_"))
        begun = [] if name == "core_metric" and self.stage == "base_train" and not self._ended else \
            self._begin("base_eval")
        return [*begun, self._event("eval", {name: amount}, self.step)]

    def _chat_result(self, match: re.Match[str]) -> list[Found]:
        amount = number(match["value"])
        if amount is None:
            return []
        within = self.stage == "chat_sft" and not self._ended and match["how"] != " accuracy"
        begun = [] if within else self._begin("chat_eval")
        return [*begun, self._event("eval", {f"chat/{match['task']}": amount / 100}, self.step if within else None)]

    def _chatcore(self, match: re.Match[str]) -> list[Found]:
        amount = number(match["value"])
        return [*self._begin("chat_eval"),
                *([self._event("eval", {"chatcore_metric": amount})] if amount is not None else [])]

    def _asked(self, match: re.Match[str]) -> list[Found]:
        """`Rank 0 | 12/34 (35.29%)`: problems of a chat evaluation."""
        found = self._begin("chat_eval")
        return [*found, *self._advance(count(match["done"]) or 0, count(match["total"]) or 0, "problems")]

    def _downloaded(self, match: re.Match[str]) -> list[Found]:
        found = self._begin("dataset") if self.stage in (None, "dataset") else []
        if match["done"]:
            data = {"state": "progress", "done": count(match["done"]), "total": count(match["total"]),
                    "unit": "shards", "eta_s": None}
            return [*found, Found("stage", "dataset", None, data, self._t)]
        self._shards += 1
        data = {"state": "progress", "done": self._shards, "total": None, "unit": "shards", "eta_s": None}
        return [*found, Found("stage", "dataset", None, data, self._t)]

    def _merged(self, match: re.Match[str]) -> list[Found]:
        found = self._begin("tok_train")
        return [*found, *self._advance(count(match["done"]) or 0, count(match["total"]) or 0, "merges")]

    def _tokenizer_done(self, match: re.Match[str]) -> list[Found]:
        found = self._begin("tok_train")
        seconds = number(match["value"])
        return [*found, *([self._event("eval", {"tokenizer_train_time": seconds})] if seconds is not None else [])]

    def _batch(self, match: re.Match[str]) -> list[Found]:
        self._tokens_per_step = count(match["tokens"]) or 0
        self._config.update(tokens_per_step=self._tokens_per_step, grad_accum_steps=count(match["times"]))
        return []

    def _horizon(self, match: re.Match[str]) -> list[Found]:
        self._config["total_steps"] = count(match[1])
        return []

    def _setting(self, match: re.Match[str]) -> list[Found]:
        value = match["value"].strip()
        amount = number(value)
        self._config[match["name"]] = value if amount is None else int(amount) if amount.is_integer() else amount
        return []

    def _gpu(self, match: re.Match[str]) -> list[Found]:
        self._config.update(device_name=match["name"].strip(), peak_flops=number(match["peak"]))
        return []

    def _inherited(self, match: re.Match[str]) -> list[Found]:
        return self._begin("chat_sft", anew=True)

    def _model(self, match: re.Match[str]) -> list[Found]:
        self._json = ["{"] if match["brace"] else [""]
        return []

    def _more_json(self, text: str) -> list[Found]:
        """The model's configuration, printed over several lines."""
        self._json.append(text)
        if text.startswith("}") or len(self._json) > 60:
            found, self._json = json_object("\n".join(self._json)), []
            self._config.update({key: value for key, value in (found or {}).items()
                                 if isinstance(value, (int, float, str))})
        return []

    def _said(self, match: re.Match[str]) -> list[Found]:
        self._sample = [match["text"]]
        return []

    def _saved(self, match: re.Match[str]) -> list[Found]:
        """One of the files of a checkpoint; the optimizer's comes last."""
        found: list[Found] = []
        path = match["path"].strip()
        if self._files and _step_of(self._files[0]) != _step_of(path):
            found += self._checkpoint()
        self._files.append(path)
        return [*found, *(self._checkpoint() if match["what"] == "optimizer state" else [])]

    def _checkpoint(self) -> list[Found]:
        files, self._files = self._files, []
        folder, _, _ = files[0].rpartition("/")
        kind, stage = next((SOURCES[name] for name in SOURCES if f"/{name}/" in f"{folder}/"), ("", self.stage))
        found = self._begin(stage) if stage and (self.stage is None or (stage != self.stage and self._ended)) else []
        data = {"source": kind, "tag": folder.rpartition("/")[2], "dir": folder,
                "files": [path.rpartition("/")[2] for path in files]}
        return [*found, self._event("checkpoint", data, _step_of(files[0]))]

    def _over(self, match: re.Match[str]) -> list[Found]:
        """The last words of a training: the first of them ends the stage."""
        amount = number(match["value"])
        name = {"Peak memory usage": "peak_memory_gb", "Total training time": "train_time",
                "Minimum validation bpb": "min_val_bpb"}[match["name"]]
        found: list[Found] = [] if amount is None else [self._event("eval", {name: amount}, self.step)]
        return [*found, *(self._finish() if name == "min_val_bpb" else [])]

    def _broke(self, match: re.Match[str]) -> list[Found]:
        self._fault = []
        return []

    def _more_fault(self, text: str) -> list[Found]:
        """A traceback ends with the first line that is not indented: what went wrong, in Python's words."""
        assert self._fault is not None
        if not text or text.startswith((" ", "\t", "|", "+")):
            return []
        self._fault = None
        return [self._event("alert", {"level": "error", "code": "traceback", "text": text[:600],
                                      "next": "look at the log around this line"})]

    def _tagged(self, tag: str, values: dict[str, Any]) -> list[Found]:
        """The `tag key=value` lines of nanochat's unmerged experiment branch."""
        if tag in ("argv", "config", "params"):
            self._config.update({field_name(key): value for key, value in values.items()})
            return []
        if tag == "summary":
            numbers = {key: value for key, value in values.items() if isinstance(value, (int, float))}
            return [self._event("eval", numbers, self.step), *self._finish()]
        if tag in ("eval", "core", "chatcore", "bench"):
            step = values.pop("step", self.step)
            kept = {field_name(key): value for key, value in values.items() if isinstance(value, (int, float))}
            return [self._event("eval", kept, step if isinstance(step, int) else self.step)] if kept else []
        return []


def _step_of(path: str) -> int | None:
    found = re.search(r"_(\d{1,9})(?:_rank\d+)?\.\w+$", path)
    return int(found[1]) if found else None


_Reader = Callable[[NanochatLog, "re.Match[str]"], "list[Found]"]
_READERS: tuple[tuple[re.Pattern[str], _Reader], ...] = tuple(
    (re.compile(pattern), getattr(NanochatLog, f"_{meaning}")) for pattern, meaning in FORMS)
