"""What the kernel is told about a process that is about to run a model's code: everything is forbidden but computing.

Three walls, one behind the other. seccomp lets some forty system calls through, none of which can open a file, make a
socket or a process, or reach another process; all others fail with EPERM. Landlock, where the kernel has it, forbids
files, TCP and signals again. Limits bound memory, time and descriptors; root becomes a user that owns nothing.

Standard library only: this runs in the supervisor's bare interpreter.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import resource
import signal
import struct
from dataclasses import dataclass

MEMORY_BYTES = 256 << 20
STACK_BYTES = 8 << 20
DESCRIPTORS = 16
_NOBODIES = (60_777, 65_534)  # an id that nobody has, else nobody

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 4, 22, 38
_SECCOMP_MODE_FILTER = 2
_ALLOW, _KILL, _EPERM = 0x7FFF0000, 0x80000000, 0x00050000 | 1
_LANDLOCK_CREATE, _LANDLOCK_RESTRICT = 444, 446
_LANDLOCK_VERSION = 1
_X32_BIT = 0x40000000

# Calls that compute, keep time, manage own memory, and read or write what is already open.
_SYSCALLS = {
    "x86_64": (0xC000003E, (
        0, 1, 3, 5, 7, 8, 9, 10, 11, 12, 13, 14, 15,  # read write close fstat poll lseek mmap .. rt_sigreturn
        23, 24, 25, 28, 35, 39, 60, 63,  # select sched_yield mremap madvise nanosleep getpid exit uname
        96, 97, 98, 100, 102, 104, 107, 108, 110, 131,  # gettimeofday getrlimit getrusage times get*id sigaltstack
        186, 201, 202, 204, 219, 228, 229, 230, 231,  # gettid time futex sched_getaffinity restart clock_* exit_group
        270, 271, 273, 318, 334)),  # pselect6 ppoll set_robust_list getrandom rseq
    "aarch64": (0xC00000B7, (
        57, 62, 63, 64, 72, 73, 80, 93, 94, 98, 99, 101, 113, 114, 115, 123, 124, 128, 132, 134, 135, 139, 153, 160,
        163, 165, 169, 172, 173, 174, 175, 176, 177, 178, 214, 215, 216, 222, 226, 233, 278, 293)),
}


class CannotConfine(OSError):
    """The kernel refused one of the walls; the message names it."""


@dataclass(frozen=True)
class Walls:
    """What was found at start: the filter to install, a Landlock ruleset's descriptor (-1: none), its ABI."""

    program: bytes
    landlock_fd: int
    landlock_abi: int

    def describe(self) -> str:
        landlock = f"Landlock ABI {self.landlock_abi}" if self.landlock_fd >= 0 else "no Landlock"
        user = "a user of its own" if os.geteuid() == 0 else "the same user"
        return f"seccomp allow-list, {landlock}, {user}, {MEMORY_BYTES >> 20} MB"


_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def build_walls() -> Walls:
    """Prepare once what every program's process then puts on. Raises CannotConfine on a machine without seccomp."""
    machine = platform.machine()
    if platform.system() != "Linux" or machine not in _SYSCALLS:
        raise CannotConfine(f"no system call filter for {platform.system()} on {machine}")
    arch, allowed = _SYSCALLS[machine]
    fd, abi = _landlock_ruleset()
    return Walls(filter_program(arch, allowed, x32=machine == "x86_64"), fd, abi)


def filter_program(arch: int, allowed: tuple[int, ...], *, x32: bool) -> bytes:
    """The BPF program: another architecture kills, a listed call passes, anything else fails with EPERM."""
    load, equal, at_least, give = 0x20, 0x15, 0x35, 0x06
    head = [(load, 0, 0, 4), (equal, 1, 0, arch), (give, 0, 0, _KILL), (load, 0, 0, 0)]
    if x32:
        head += [(at_least, 0, 1, _X32_BIT), (give, 0, 0, _KILL)]
    body = [(equal, len(allowed) - i, 0, number) for i, number in enumerate(allowed)]
    return b"".join(struct.pack("HBBI", *line) for line in [*head, *body, (give, 0, 0, _EPERM), (give, 0, 0, _ALLOW)])


def _landlock_ruleset() -> tuple[int, int]:
    """(descriptor, ABI) of a ruleset that handles every right this kernel knows and allows none; (-1, 0) without."""
    abi = int(_libc.syscall(_LANDLOCK_CREATE, None, ctypes.c_size_t(0), _LANDLOCK_VERSION))
    if abi < 1:
        return -1, 0
    rights = 13 + (abi >= 2) + (abi >= 3) + (abi >= 5)  # + refer, truncate, ioctl on devices
    attr = struct.pack("QQQ", (1 << rights) - 1, 0b11 if abi >= 4 else 0, 0b11 if abi >= 6 else 0)
    size = 24 if abi >= 6 else 16 if abi >= 4 else 8
    fd = int(_libc.syscall(_LANDLOCK_CREATE, attr, ctypes.c_size_t(size), 0))
    return (fd, abi) if fd >= 0 else (-1, 0)


def tie_to(parent: int) -> None:
    """Die when the parent does."""
    _checked("parent-death signal", _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL))
    if os.getppid() != parent:
        os._exit(1)


def limit(seconds: float) -> None:
    """Bounds on this process: memory, processor time, no file may grow, few descriptors, no core dump."""
    cpu = int(seconds) + 2
    for name, value in ((resource.RLIMIT_AS, MEMORY_BYTES), (resource.RLIMIT_STACK, STACK_BYTES),
                        (resource.RLIMIT_CPU, cpu), (resource.RLIMIT_FSIZE, 0), (resource.RLIMIT_CORE, 0),
                        (resource.RLIMIT_NOFILE, DESCRIPTORS)):
        resource.setrlimit(name, (value, value))


def drop_user() -> None:
    """Root becomes a user that owns nothing; everybody else stays who they are."""
    if os.geteuid() != 0:
        return
    for nobody in _NOBODIES:
        with contextlib.suppress(OSError):  # an id that this container does not map; the next one, or stay confined
            os.setgroups([])
            os.setresgid(nobody, nobody, nobody)
            os.setresuid(nobody, nobody, nobody)
            return


def wall_in(walls: Walls) -> None:
    """Put the walls on, for good. Raises CannotConfine; then nothing may be run."""
    _checked("no_new_privs", _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    _checked("dumpable", _libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0))
    if walls.landlock_fd >= 0:
        _checked("Landlock", _libc.syscall(_LANDLOCK_RESTRICT, walls.landlock_fd, 0))
        os.close(walls.landlock_fd)
    code = ctypes.create_string_buffer(walls.program, len(walls.program))
    count = len(walls.program) // 8
    # struct sock_fprog: unsigned short length, then a pointer
    prog = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", count, ctypes.addressof(code)), 16)
    _checked("seccomp", _libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(prog), 0, 0))


def _checked(what: str, result: int) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise CannotConfine(number, f"{what}: {os.strerror(number)}")
