"""What can go wrong on another machine, named for what the caller does next.

    RemoteError
    |-- HostUnreachable        wait and try again: nothing is known about what happened there
    |   `-- HostRefused        trying again is no use until a person has acted
    |       |-- HostKeyUnknown    show the fingerprint, ask, pin it
    |       |-- HostKeyChanged    another machine answers, or it was set up anew: say both fingerprints, stop
    |       `-- LoginRefused      name another key or user
    |-- CommandTimeout         ask for the state before repeating: the command may still be at work there
    |-- NoSuchFile             take the absence as the answer, or wait for the file to appear
    |-- FileReplaced           start again from offset 0: the file is a different one now
    |-- CopyDamaged            copy again: what arrived is not what was sent
    |-- Cancelled              nothing: whoever asked has withdrawn
    |-- DamagedCopy            use another copy, or make this one again: it is not what its manifest says
    |-- NoSuchCopy             name another place or checkpoint: this one is not there
    |-- CopyRefused            do what the text says first (free disk space, another folder, another tokenizer)
    |-- HubUnreachable         wait and try again: the destination does not answer, or not with sense
    |-- TokenRefused           get another token; nothing else will work
    |-- RunnerFailed           show it to a person: the box answered, but not with what was asked
    |-- OtherAttemptExists     attach to the attempt it names instead of launching
    `-- ProviderError          `status` is the HTTP code or None, `detail` the provider's own words
        |-- CredentialRefused  ask for another key; nothing else will work
        |-- AccessRefused      skip this offer: the account or the key's scope does not reach it
        |-- EdgeRefused        a guard before the provider refused, not the provider: wait, or use another network
        |-- NoCapacity         take the next offer, then wait
        |-- BalanceExhausted   stop and say where to pay
        |-- BadRequest         show the words; the same request fails again, so never repeat it
        |-- NotAllowedNow      read the pod again and decide anew
        |-- NoSuchPod          it is gone, or, in its first minute, not listed yet
        |-- RateLimited        wait `wait_s` seconds
        |-- ProviderDown       read again later; nothing was created or ended by this request
        `-- CreateUnknown      look the name up until it is certain; never send the request again before
"""

from __future__ import annotations


class RemoteError(Exception):
    """Something on another machine, or on the way to it, did not work."""


class HostUnreachable(RemoteError):
    """No answer from the machine; what was asked may or may not have happened."""


class HostRefused(HostUnreachable):
    """The machine answered and there is no way in; only a person can change that."""


class HostKeyUnknown(HostRefused):
    """Nobody has said yet which key this machine shows; `fingerprint` is the one it showed."""

    def __init__(self, text: str, fingerprint: str, line: str) -> None:
        super().__init__(text)
        self.fingerprint = fingerprint
        self.line = line  # "ssh-ed25519 AAAA...", to be pinned when a person agrees


class HostKeyChanged(HostRefused):
    """The machine shows another key than the pinned one: a different machine, or somebody in between."""


class LoginRefused(HostRefused):
    """No key that we have is accepted for that user."""


class CommandTimeout(RemoteError):
    """The command did not end in the time that the caller gave it."""


class NoSuchFile(RemoteError):
    """The path does not exist there."""


class FileReplaced(RemoteError):
    """The file that is being followed was cut or replaced by another one."""


class CopyDamaged(RemoteError):
    """The bytes at the destination have another hash than those at the source."""


class Cancelled(RemoteError):
    """The caller set its stop event while something was waited for."""


class DamagedCopy(RemoteError):
    """A copy of a checkpoint is not what its manifest or its receipt says."""


class NoSuchCopy(RemoteError):
    """There is no copy, repository or revision of that name."""


class CopyRefused(RemoteError):
    """It could be done but would do harm; the text says what and what helps."""


class HubUnreachable(RemoteError):
    """The destination of a backup does not answer, or answers with errors of its own."""


class TokenRefused(RemoteError):
    """The destination knows no such token, or the token may not do this."""


class RunnerFailed(RemoteError):
    """Our own script on the machine ended without a usable reply; the message carries its last words."""


class OtherAttemptExists(RemoteError):
    """The job folder already holds a living or a later attempt, so this one was not started."""

    def __init__(self, text: str, attempt: int) -> None:
        super().__init__(text)
        self.attempt = attempt


class ProviderError(RemoteError):
    """The provider's answer was not what was asked for. The message is a sentence for a person."""

    def __init__(self, text: str, *, status: int | None = None, detail: str = "") -> None:
        super().__init__(text)
        self.status = status
        self.detail = detail


class CredentialRefused(ProviderError):
    """The API key is missing, mistyped or withdrawn."""


class AccessRefused(ProviderError):
    """The key is valid, but this account or this kind of key may not do that."""


class EdgeRefused(ProviderError):
    """A web firewall in front of the provider turned the request away before the provider saw it."""


class NoCapacity(ProviderError):
    """No such machine is free there now."""


class BalanceExhausted(ProviderError):
    """The account's balance or spending limit does not allow this."""


class BadRequest(ProviderError):
    """The provider says that the request itself is wrong."""


class NotAllowedNow(ProviderError):
    """The pod is not in a state in which this can be done."""


class NoSuchPod(ProviderError):
    """The provider knows no pod with this id."""


class RateLimited(ProviderError):
    """Too many requests; the same one may be sent again after `wait_s` seconds."""

    def __init__(self, text: str, wait_s: float, *, status: int | None = 429, detail: str = "") -> None:
        super().__init__(text, status=status, detail=detail)
        self.wait_s = wait_s


class ProviderDown(ProviderError):
    """The provider does not answer, or with an error of its own."""


class CreateUnknown(ProviderError):
    """The reply to a create was lost or an error after the fact: a pod of that name may exist and bill."""
