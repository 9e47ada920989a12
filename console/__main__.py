"""`python -m console`: the same as `llmconsole`."""

from console.door import main

main()
