"""A conversation with a model that the tiny recipe trained, through the openai client and through a browser.

Runs where LLMCONSOLE_TEST_BASE names the base directory of such a run (NANOCHAT_BASE_DIR of a finished `tiny`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

TALK = (("What is 12 + 7?", "19"), ("What is the opposite of hot?", "cold"), ("What is 31 + 44?", "75"))

pytestmark = pytest.mark.skipif("LLMCONSOLE_TEST_BASE" not in os.environ,
                                reason="LLMCONSOLE_TEST_BASE names no base directory with a finished tiny run")


@pytest.fixture
def trained(start: Callable[..., Any]) -> Iterator[Any]:
    yield start(Path(os.environ["LLMCONSOLE_TEST_BASE"]))


def test_the_openai_client_holds_a_conversation(trained: Any) -> None:
    client = openai.OpenAI(base_url=f"{trained.url}/v1", api_key="none")
    model, messages = client.models.list().data[0].id, []
    for question, answer in TALK:
        messages.append({"role": "user", "content": question})
        done = client.chat.completions.create(model=model, messages=messages, temperature=0)  # type: ignore[arg-type]
        said = done.choices[0].message.content or ""
        assert answer in said, said
        messages.append({"role": "assistant", "content": said})


def test_a_browser_holds_a_conversation(trained: Any, page: Any) -> None:
    page.open(trained.url)
    page.eval("set('temperature', 0)")
    for count, (question, answer) in enumerate(TALK, 1):
        page.eval("document.querySelector('#prompt').focus()")
        page.write(question)
        page.until(f"busy === null && turns.length === {2 * count}")
        assert answer in page.eval("turns[turns.length - 1].parts.map(p => p.text).join('')")
    assert "calculator" in page.text()
