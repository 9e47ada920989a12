"""The page in a real browser: a conversation, stop, edit, regenerate, commands, and nothing from or to elsewhere."""

from __future__ import annotations

from typing import Any

LOG = "document.querySelector('#log').innerText"


def ask(page: Any, text: str) -> None:
    page.eval("document.querySelector('#prompt').focus()")
    page.write(text)


def done(page: Any) -> None:
    page.until("busy === null && turns.length > 0")


def test_a_conversation(server: Any, page: Any) -> None:
    page.open(server.url)
    assert "sft/d1@1" in page.eval("document.querySelector('#hello').innerText")
    ask(page, "hello")
    done(page)
    assert "Hi you,<b>" in page.eval(LOG) and "tok/s" in page.eval(LOG)
    page.eval("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    assert page.eval("/took\\s+[\\d.]+ m?s/.test(document.querySelector('#reply').innerText)")  # the server's figures
    assert page.eval("document.querySelectorAll('#log b').length") == 0  # what a model writes is text
    page.eval("[...document.querySelectorAll('.model .acts button')].find(b => b.innerText === 'regenerate').click()")
    done(page)
    assert page.eval("turns.length") == 2
    page.until("document.activeElement.id === 'prompt'")
    page.press("ArrowUp")
    page.until("document.activeElement.closest('.edit') !== null")
    page.write(" again")
    done(page)
    assert page.eval("turns[0].text") == "hello again" and page.eval("turns.length") == 2
    page.call("Page.reload")
    page.until("document.readyState === 'complete' && turns.length === 2 && !!document.querySelector('#log .you')")
    foreign = [e for e in page.events if e.get("method") == "Network.requestWillBeSent"
               and not e["params"]["request"]["url"].startswith((server.url, "about:", "data:"))]
    assert not foreign
    broken = [e for e in page.events if e.get("method") in ("Runtime.exceptionThrown", "Log.entryAdded")]
    assert not broken, broken


def test_stop_and_another_model(server: Any, page: Any) -> None:
    page.open(server.url)
    ask(page, "/model d1@2")
    ask(page, "/max 4096")
    ask(page, "go on for ever")
    page.until("busy !== null && turns[turns.length - 1].parts.length > 0")
    page.until("/[\\d.,]+ tok\\/s/.test(document.querySelector('#reply').innerText)")  # while it is being written
    assert page.eval("busy !== null && document.querySelector('#spark path').getAttribute('d').startsWith('M')")
    page.press("Escape")
    done(page)
    assert "stopped" in page.eval(LOG) and "~~~" in page.eval(LOG)
    assert page.eval("/[\\d.,]+ tok\\/s/.test(document.querySelector('#reply').innerText)")
    page.until("fetch('/v1/models').then(r => r.json()).then(m => m.data.every(d => !d.writing))")


def test_commands_say_what_they_did(server: Any, page: Any) -> None:
    page.open(server.url)
    for command, said in (("/temp 0.3", "temperature: 0.3"), ("/topk 7", "top_k: 7"), ("/temp 9", "from 0 to 2"),
                          ("/seed 5", "seed: 5"), ("/nope", "there is no /nope"), ("/help", "/retry")):
        ask(page, command)
        page.until(f"{LOG}.includes({said!r})")
    assert page.eval("settings.temperature") == 0.3 and page.eval("settings.seed") == 5
    ask(page, "/new")
    page.until("turns.length === 0 && !document.querySelector('#hello').hidden")


def test_markdown_is_built_from_nodes(server: Any, page: Any) -> None:
    page.open(server.url)
    source = "# Head\n\nsome **bold** and `code`\n\n- one\n- two\n\n```py\n<img src=x onerror=alert(1)>\n```\nend"
    found = page.eval("(() => { const d = document.createElement('div'); d.append(...rich(" + repr(source) + "));"
                      " return [d.querySelectorAll('h3,strong,li,pre,p').length, d.querySelectorAll('img').length,"
                      " d.querySelector('pre').textContent]; })()")
    assert found == [7, 0, "<img src=x onerror=alert(1)>"]


def test_a_token_is_asked_for(start: Any, model_base: Any, page: Any) -> None:
    server = start(model_base, "--model=sft/d1@1", token="se cret".replace(" ", "-"))
    page.call("Page.navigate", url=server.url)
    page.until("document.querySelector('#ask') && document.querySelector('#ask').open")
    page.eval("document.querySelector('#token').focus()")
    page.write("se-cret")
    page.until("!!document.querySelector('#model option')")


def test_a_phone_sees_everything(server: Any, page: Any) -> None:
    page.size(390, 844, mobile=True)
    page.open(server.url)
    ask(page, "hello")
    done(page)
    assert page.eval("document.documentElement.scrollWidth <= 390 && document.querySelector('#send')"
                     ".getBoundingClientRect().right <= 390 && document.querySelector('main').clientWidth === 390")


def test_the_panel_makes_room_and_the_night_is_followed(server: Any, page: Any) -> None:
    page.open(server.url)
    assert page.eval("!document.querySelector('#side').hidden")
    page.size(600, 800)
    page.until("document.querySelector('#side').hidden")
    page.eval("document.querySelector('#panel').click()")
    assert page.eval("!document.querySelector('#side').hidden")
    page.eval("document.querySelector('#hello').click()")
    assert page.eval("document.querySelector('#side').hidden")
    page.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
    page.until("document.documentElement.dataset.theme === 'dark'")
    page.eval("document.querySelector('#theme').click()")
    assert page.eval("document.documentElement.dataset.theme") == "light"
    page.call("Page.reload")
    page.until("document.readyState === 'complete' && document.documentElement.dataset.theme === 'light'")


def test_a_server_that_dies_is_told_in_the_turn(start: Any, model_base: Any, page: Any) -> None:
    server = start(model_base, "--model=sft/d1@2")
    page.open(server.url)
    ask(page, "/max 4096")
    ask(page, "go on for ever")
    page.until("busy !== null && turns[turns.length - 1].parts.length > 0")
    server.process.kill()
    done(page)
    assert "regenerate asks again" in page.eval(LOG) and "~~~" in page.eval(LOG)
