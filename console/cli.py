"""The `llmconsole` command."""


def main() -> None:
    raise SystemExit("llmconsole: not built yet")
