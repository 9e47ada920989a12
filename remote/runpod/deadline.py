"""A rented pod that ends itself: the start command that arms a deadline before anything in the pod can hang.

The provider has no timer that works, so this loop is what stops the money when laptop, console and link are dead. It
counts against an absolute moment, so a restart of the container gains nothing; its clock is corrected by the
provider's; it asks for the end again and again until the pod is no more. Only a file that the console writes moves
the moment. Pure text is made here; nothing is run and no key is known: the pod has one of its own in its environment.
"""

from __future__ import annotations

import math
import shlex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from remote.host import Host

API = "https://api.runpod.io/v2"
EXTENSION = ".llmconsole/deadline"  # below HOME: the new moment, in seconds since 1970, as text
ARMED = "llmconsole: this pod ends itself at"  # the log line that proves it

_SCRIPT = r"""
umask 077
api={api} deadline={deadline} every={every} skew=0 asked=0
folder="${{HOME:-/root}}/.llmconsole"
config() {{ printf 'header = "Authorization: Bearer %s"\n' "$RUNPOD_API_KEY"; }}
provider_time() {{
  seen=$(curl -sI --max-time 20 "$api/openapi.json" | tr -d '\r' | sed -n 's/^[Dd]ate: //p')
  seen=$(date -d "${{seen:-none}}" +%s 2>/dev/null) && skew=$((seen - $(date +%s)))
  case $skew in -[0-4]|[0-4]) skew=0 ;; esac
  asked=$(date +%s)
}}
now() {{ echo $(($(date +%s) + skew)); }}
read_extension() {{
  later=$(head -c 11 "$folder/deadline" 2>/dev/null)
  case $later in ''|*[!0-9]*) return ;; esac
  if [ "$later" -ne "$deadline" ]; then deadline=$later; echo "{armed} $deadline, as the console says"; fi
}}
end_me() {{
  echo "llmconsole: the deadline has passed, asking for the end of pod $RUNPOD_POD_ID"
  config | curl -sf --max-time 30 -K - -H 'Content-Type: application/json' -A llmconsole-pod -X POST \
    -d '{{"action":"terminate"}}' "$api/pods/$RUNPOD_POD_ID/action" && return
  python3 -c 'import os, sys, urllib.request as u
words = {{"Authorization": "Bearer " + os.environ["RUNPOD_API_KEY"], "Content-Type": "application/json",
         "User-Agent": "llmconsole-pod"}}
u.urlopen(u.Request(sys.argv[1], sys.argv[2].encode(), words), timeout=30)' \
    "$api/pods/$RUNPOD_POD_ID/action" '{{"action":"terminate"}}' 2>/dev/null && return
  runpodctl remove pod "$RUNPOD_POD_ID" 2>/dev/null
}}
watch() {{
  trap '' HUP TERM INT
  while :; do
    if [ "$asked" -eq 0 ] || [ $(($(date +%s) - asked)) -gt 600 ] || [ $(($(date +%s) - asked)) -lt 0 ]; then
      provider_time; fi
    read_extension
    if [ "$(now)" -ge "$deadline" ]; then end_me; fi
    sleep "$every"
  done
}}
watch &
echo "{armed} $deadline"
if [ -x "${{POD_START_PROGRAM:-/start.sh}}" ]; then exec "${{POD_START_PROGRAM:-/start.sh}}"; fi
echo 'llmconsole: the image has no start program; the pod only waits for its deadline'
while :; do sleep 3600; done
"""


def start_command(deadline: float, *, api: str = API, every_s: float = 60.0) -> tuple[str, ...]:
    """The words that a pod is started with: arm the deadline (wall time in seconds), then do what its image does.

    POD_START_PROGRAM in the pod's environment names another start program than the image's usual /start.sh.
    """
    if not 0 < deadline < 1e11:
        raise ValueError(f"{deadline!r} is no moment in seconds since 1970")
    return ("/bin/sh", "-c", _SCRIPT.format(api=shlex.quote(api), deadline=math.ceil(deadline), every=f"{every_s:g}",
                                            armed=ARMED).strip())


def set_deadline(host: Host, deadline: float) -> None:
    """Move the moment at which the pod ends itself; it is noticed within a minute. Raises RemoteError, OSError."""
    script = (f'cd "$HOME" && mkdir -p .llmconsole && cat > {EXTENSION}.new && sync && '
              f"mv {EXTENSION}.new {EXTENSION} && cat {EXTENSION}")
    done = host.run(["/bin/sh", "-c", script], stdin=str(int(deadline)).encode())
    if done.out.strip() != str(int(deadline)).encode():
        raise OSError(f"the deadline of {host.name} was not moved: {done.err.decode(errors='replace').strip()}")
