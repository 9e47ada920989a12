"""Programs that want out, or want to be told right without being right.

`OUT` is a folder that they must not touch, `PORT` a listening port, `PID` the process of the tests; the function under
test is `f`, and f(2) should be 4.
"""
# ruff: noqa: E501

CODE = {
    # files
    "read a file": "def f(x):\n    return open('OUT/canary').read()",
    "read the password file": "def f(x):\n    return open('/etc/passwd').read() and 4 / 0",
    "write a file": "def f(x):\n    open('OUT/pwned', 'w').write('x')",
    "write where anyone may": "def f(x):\n    open('/tmp/llmconsole-pwned', 'w').write('x')",
    "append to a file": "def f(x):\n    open('OUT/canary', 'a').write('x')",
    "delete by os": "import os\ndef f(x):\n    os.remove('OUT/canary')",
    "delete by posix": "import posix\ndef f(x):\n    posix.unlink('OUT/canary')",
    "delete by a fresh os": "import importlib, os\nos = importlib.reload(os)\ndef f(x):\n    os.unlink('OUT/canary')",
    "delete by libc": "import ctypes\ndef f(x):\n    ctypes.CDLL(None).unlink(b'OUT/canary')",
    "rename": "import os\ndef f(x):\n    os.rename('OUT/canary', 'OUT/gone')",
    "make a folder": "import os\ndef f(x):\n    os.mkdir('OUT/folder')",
    "link": "import os\ndef f(x):\n    os.symlink('/etc/passwd', 'OUT/link')",
    "change rights": "import os\ndef f(x):\n    os.chmod('OUT/canary', 0o777)",
    "truncate": "import os\ndef f(x):\n    os.truncate('OUT/canary', 0)",
    "fill the disk": "def f(x):\n    g = open('OUT/big', 'wb')\n    while True: g.write(b'0' * 10**6)",
    "a temporary file": "import tempfile\ndef f(x):\n    return tempfile.NamedTemporaryFile().write(b'x')",
    "list the root": "import os\ndef f(x):\n    return os.listdir('/')",
    "anonymous memory file": "import ctypes\ndef f(x):\n    assert ctypes.CDLL(None).memfd_create(b'x', 0) >= 0",
    # secrets
    "environment of the tests": "def f(x):\n    return open('/proc/PID/environ').read()",
    "memory of the tests": "def f(x):\n    return open('/proc/PID/mem', 'rb').read(1)",
    "own environment": "import os\ndef f(x):\n    return os.environ['SECRET']",
    "memory of the checker": "import ctypes, os\ndef f(x):\n    libc = ctypes.CDLL(None)\n"
                             "    for pid in range(os.getpid(), os.getpid() + 9):\n"
                             "        assert libc.process_vm_writev(pid, 0, 0, 0, 0, 0) == 0",
    # network
    "connect": "import socket\ndef f(x):\n    socket.create_connection(('127.0.0.1', PORT), 0.2)",
    "listen": "import socket\ndef f(x):\n    s = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen()",
    "a socket by libc": "import ctypes\ndef f(x):\n    assert ctypes.CDLL(None).socket(2, 1, 0) >= 0",
    "send a datagram": "import socket\ndef f(x):\n    socket.socket(2, 2).sendto(b'x', ('127.0.0.1', PORT))",
    "a pair of sockets": "import socket\ndef f(x):\n    socket.socketpair()",
    # processes
    "fork": "import os\ndef f(x):\n    os.fork()",
    "fork bomb": "import os\ndef f(x):\n    while True: os.fork()",
    "fork by libc": "import ctypes\ndef f(x):\n    assert ctypes.CDLL(None).fork() >= 0",
    "threads without end": "import threading, time\ndef f(x):\n    while True: "
                           "threading.Thread(target=time.sleep, args=(9,)).start()",
    "subprocess": "import subprocess\ndef f(x):\n    subprocess.run(['touch', 'OUT/pwned'])",
    "os.system": "import os\ndef f(x):\n    assert os.system('touch OUT/pwned') == 0",
    "posix_spawn": "import os\ndef f(x):\n    os.posix_spawn('/usr/bin/touch', ['touch', 'OUT/pwned'], {})",
    "execve": "import os\ndef f(x):\n    os.execv('/usr/bin/touch', ['touch', 'OUT/pwned'])",
    "a daemon": "import os\ndef f(x):\n    os.setsid(); os.fork()",
    # signals and other processes
    "kill the tests": "import os\ndef f(x):\n    os.kill(PID, 9)",
    "kill the supervisor": "import os\ndef f(x):\n    os.kill(os.getppid(), 9)",
    "kill everything": "import os\ndef f(x):\n    os.kill(-1, 9)",
    "kill the next process": "import os\ndef f(x):\n    for i in range(9): os.kill(os.getpid() + i, 9)",
    "a queued signal by libc": "import ctypes\ndef f(x):\n    assert ctypes.CDLL(None).sigqueue(PID, 9, 0) == 0",
    "ptrace": "import ctypes\ndef f(x):\n    assert ctypes.CDLL(None).ptrace(16, PID, 0, 0) == 0",
    "raw system calls": "import ctypes\ndef f(x):\n    libc = ctypes.CDLL(None)\n"
                        "    return [n for n in (2, 41, 56, 57, 59, 62, 101, 165, 257, 437) if libc.syscall(n, 0, 0, 0) >= 0]",
    "mount": "import ctypes\ndef f(x):\n    assert ctypes.CDLL(None).mount(b'x', b'/mnt', b'tmpfs', 0, 0) == 0",
    "become root": "import os\ndef f(x):\n    os.setuid(0)",
    "a lower limit for others": "import resource\ndef f(x):\n    resource.prlimit(PID, resource.RLIMIT_CPU, (1, 1))",
    "a new namespace": "import ctypes\ndef f(x):\n    assert ctypes.CDLL(None).unshare(0x10000000) == 0",
    # resources
    "memory without end": "def f(x):\n    a = []\n    while True: a.append(bytearray(10**7))",
    "one huge allocation": "def f(x):\n    return len(b'0' * 10**11)",
    "a huge power": "def f(x):\n    return 9 ** 9 ** 9",
    "an endless loop": "def f(x):\n    while True: pass",
    "endless sleep": "import time\ndef f(x):\n    time.sleep(1000)",
    "endless output": "def f(x):\n    while True: print('x' * 10**6)",
    "a regular expression without end": "import re\ndef f(x):\n    return re.match(r'(a+)+$', 'a' * 50 + 'b')",
    "deep recursion": "import sys\nsys.setrecursionlimit(10**9)\ndef f(x):\n    return f(x)",
    "a crash": "import ctypes\ndef f(x):\n    ctypes.string_at(0)",
    "alarm": "import signal\ndef f(x):\n    signal.alarm(1); signal.pause()",
    "ignored signals": "import signal\nfor s in (1, 2, 15): signal.signal(s, signal.SIG_IGN)\ndef f(x):\n    while True: pass",
    # early ends
    "sys.exit at import": "import sys\nsys.exit(0)",
    "os._exit at import": "import os\nos._exit(0)",
    "SystemExit in the call": "def f(x):\n    raise SystemExit(0)",
    "os._exit in the call": "import os\ndef f(x):\n    os._exit(0)",
    "abort": "import os\ndef f(x):\n    os.abort()",
    "exit by libc": "import ctypes\ndef f(x):\n    ctypes.CDLL(None).exit(0)",
    "KeyboardInterrupt": "def f(x):\n    raise KeyboardInterrupt",
    "quit": "def f(x):\n    quit()",
    # forged verdicts
    "equal to everything": "class L(int):\n    def __eq__(self, o): return True\ndef f(x):\n    return L(5)",
    "equal to everything, no int": "class L:\n    def __eq__(self, o): return True\n    __ne__ = __lt__ = __gt__ = __eq__\n"
                                  "def f(x):\n    return L()",
    "a dictionary that lies": "class D(dict):\n    def __eq__(self, o): return True\ndef f(x):\n    return D()",
    "a tuple that lies": "class T(tuple):\n    def __eq__(self, o): return True\ndef f(x):\n    return T((1, 2))",
    "AssertionError replaced": "import builtins\nbuiltins.AssertionError = None\ndef f(x):\n    return 5",
    "comparison replaced": "import operator, unittest\noperator.eq = lambda a, b: True\n"
                           "unittest.TestCase.assertEqual = lambda *a: None\ndef f(x):\n    return 5",
    "check replaced": "import sys\ndef check(g): return True\ndef f(x):\n"
                      "    sys.modules['__main__'].check = check\n    return 5",
    "frames of the caller": "import sys\ndef f(x):\n    g = sys._getframe()\n    while g:\n"
                            "        g.f_globals['check'] = lambda *a: None\n        g.f_globals['_call'] = lambda *a: 4\n"
                            "        g = g.f_back\n    return 5",
    "objects of the collector": "import gc\ndef f(x):\n    for o in gc.get_objects():\n"
                                "        if isinstance(o, dict) and 'passed' in o: o['passed'] = True\n    return 5",
    "words on stdout": "def f(x):\n    print('passed')\n    print('{\"passed\": true}')\n    return 5",
    "bytes on every descriptor": "import os\ndef f(x):\n    for fd in (0, 1, 2, 5, 6, 7, 8, 9, 10, 99, 100):\n        try: "
                                 "os.write(fd, b'passed')\n        except OSError: pass\n    return 5",
    "junk for an answer": "import os\ndef f(x):\n    os.write(4, b'\\xff' * 99)\n    return 5",
    "a verdict for an answer": "import os, json, struct\ndef f(x):\n    d = json.dumps({'passed': True}).encode()\n"
                               "    os.write(4, struct.pack('<I', len(d)) + d)\n    return 5",
    "an answer of infinite depth": "import os, struct\ndef f(x):\n    d = b'[' * 100000\n"
                                   "    os.write(4, struct.pack('<I', len(d)) + d)\n    return 5",
    "an endless answer": "import os, struct\ndef f(x):\n    os.write(4, struct.pack('<I', 2**32 - 1))\n"
                         "    while True: os.write(4, b'x' * 65536)",
    "an exception called passed": "class passed(Exception):\n    def __str__(self): return ''\ndef f(x):\n    raise passed",
    "an exception that exits": "import os\nclass E(Exception):\n    def __str__(self): os._exit(0)\ndef f(x):\n    raise E",
    "no function at all": "g = 5",
    "the function is a value": "f = 4",
    "a syntax error": "def f(x) return 4",
    "a null byte": "def f(x):\n    return 4\0",
}
