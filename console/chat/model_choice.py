"""Which model is meant: by its name or a part of it, or by nanochat's source, tag and step; else the newest."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from console.errors import ConsoleError, NotFound
from engine.settings.choices import SOURCES

if TYPE_CHECKING:
    from console.chat.pipe import ChatPipe
    from engine.catalog import ModelInfo
    from engine.fit import Place

F = TypeVar("F", bound=Callable[..., Any])


def model_options(function: F) -> F:
    """Adds -m and nanochat's -i, -g and -s to a verb."""
    for option in (
        click.option("--step", "-s", type=int, help="The checkpoint of this step."),
        click.option("--model-tag", "-g", "tag", help="The model of this tag, such as d20."),
        click.option("--source", "-i", type=click.Choice(SOURCES), help="The newest model of this stage."),
        click.option("--model", "-m", "wanted", help="A model from `model list`, or part of its name.  "
                     "[default: the most trained of the newest run]"),
    ):
        function = option(function)
    return function


def choose(wanted: str | None, source: str | None = None, tag: str | None = None,
           step: int | None = None) -> ModelInfo:
    """The one model on this machine that fits. Raises NotFound, or ConsoleError when it cannot be used."""
    from engine.catalog import list_models
    from engine.rundir import base_dir

    known = list_models(base_dir())
    if not known:
        raise NotFound(f"there is no trained model below {base_dir()} yet",
                       "llmconsole run start tiny --wait makes one in a few minutes")
    return pick(known, wanted, source, tag, step)


def models_there(pipe: ChatPipe) -> list[ModelInfo]:
    """The models on the machine at the other end of the pipe. Raises NotFound when it has none."""
    pipe.send(op="models")
    models = models_of(pipe.wait_for("models"))
    if not models:
        raise NotFound("that machine has no model yet", "llmconsole run start RECIPE --target NAME trains one there")
    return models


def models_of(event: Mapping[str, Any]) -> list[ModelInfo]:
    """The models that a worker told of; what is not told as we tell it is left out."""
    from engine.catalog import from_row

    rows = event.get("models")
    found = map(from_row, rows) if isinstance(rows, list) else []
    return [model for model in found if model is not None]


def place_of(event: Mapping[str, Any]) -> Place:
    """Where the worker that told of its models would compute."""
    from engine.fit import NOWHERE, Place

    told = event.get("place")
    if not isinstance(told, Mapping):
        return NOWHERE
    free = told.get("free")
    return Place(str(told.get("kind")), str(told.get("name")), free if isinstance(free, (int, float)) else math.inf)


def pick(known: Sequence[ModelInfo], wanted: str | None, source: str | None, tag: str | None,
         step: int | None) -> ModelInfo:
    """The one of these that fits. Raises NotFound or ConsoleError."""
    from engine.catalog import default_model, find
    from engine.config import ConfigError

    asked = {"source": source, "tag": tag, "step": step}
    fitting = [m for m in known if all(value in (None, getattr(m, name)) for name, value in asked.items())]
    if not fitting:
        words = ", ".join(f"{name} {value}" for name, value in asked.items() if value is not None)
        raise NotFound(f"there is no model of {words}", "llmconsole model list shows all")
    try:
        model = find(fitting, wanted) if wanted else default_model(fitting)
    except ConfigError as error:
        raise NotFound(str(error), "llmconsole model list shows all") from None
    if model is None:
        raise ConsoleError(f"none of the {len(fitting)} models can be used: {fitting[0].problem}",
                           "llmconsole model list shows why")
    if model.problem:
        raise ConsoleError(f"{model.ref} cannot be used: {model.problem}", "llmconsole model list shows the others")
    return model
