"""Contest programs that read and write in different ways: each prints the sum of the numbers in its second line.

Right ones and wrong ones; which they are, plain Python says (`tests/contract/test_programs.py`).
"""

from __future__ import annotations

INPUTS = ("3\n1 2 3\n", "2\n10 -20\n", "1\n7")
OUTPUTS = ("6\n", "-10\n", "7\n")

_SUM = "print(sum(map(int, {})))"

READING = {
    "input": "n = int(input())\n" + _SUM.format("input().split()"),
    "readline": "import sys\ninput = sys.stdin.readline\nn = int(input())\n" + _SUM.format("input().split()"),
    "buffer": "import sys\ninput = sys.stdin.buffer.readline\nn = int(input())\n" + _SUM.format("input().split()"),
    "read": "import sys\ndata = sys.stdin.read().split()\n" + _SUM.format("data[1:]"),
    "lines": "import sys\nlines = [line for line in sys.stdin]\n" + _SUM.format("lines[1].split()"),
    "readlines": "import sys\nlines = sys.stdin.readlines()\n" + _SUM.format("lines[1].split()"),
    "open-0": "data = open(0).read().split()\n" + _SUM.format("data[1:]"),
    "open-0-bytes": "data = open(0, 'rb').read().split()\n" + _SUM.format("data[1:]"),
    "dev-stdin": "data = open('/dev/stdin').read().split()\n" + _SUM.format("data[1:]"),
    "os-read": "import os\ndata = os.read(0, 10**6).split()\n" + _SUM.format("data[1:]"),
    "fileinput": "import fileinput\ndata = ''.join(fileinput.input()).split()\n" + _SUM.format("data[1:]"),
    "wrapped": "import io, sys\nsys.stdin = io.TextIOWrapper(sys.stdin.buffer)\ninput()\n"
    + _SUM.format("input().split()"),
    "codecs": "import codecs, sys\nsys.stdin = codecs.getreader('utf-8')(sys.stdin.buffer)\n"
    "data = sys.stdin.read().split()\n" + _SUM.format("data[1:]"),
    "in-memory": "import io, os, sys\nsys.stdin = io.BytesIO(os.read(0, os.fstat(0).st_size))\n"
    "input = sys.stdin.readline\ninput()\n" + _SUM.format("input().split()"),
    "string-io": "import io, sys\nsys.stdin = io.StringIO(sys.stdin.read())\ninput()\n"
    + _SUM.format("input().split()"),
    "reconfigured": "import sys\nsys.stdin.reconfigure(encoding='latin-1')\ninput()\n" + _SUM.format("input().split()"),
    "closed": "import sys\ndata = sys.stdin.read().split()\nsys.stdin.close()\n" + _SUM.format("data[1:]"),
    "dunder": "import sys\ndata = sys.__stdin__.read().split()\n" + _SUM.format("data[1:]"),
    "generator": "import sys\nwords = (w for line in sys.stdin for w in line.split())\nnext(words)\n"
    + _SUM.format("words"),
    "past-the-end": "data = []\ntry:\n    while True: data += input().split()\nexcept EOFError: pass\n"
    + _SUM.format("data[1:]"),
    "numpy": "import numpy, sys\ndata = numpy.array(sys.stdin.read().split(), dtype=int)\nprint(data[1:].sum())",
    "iter": "import sys\nlines = iter(sys.stdin.readline, '')\nnext(lines)\n" + _SUM.format("next(lines).split()"),
    "exec": 'exec("input()\\nprint(sum(map(int, input().split())))")',
    "patched": "import builtins, sys\nbuiltins.input = lambda: sys.stdin.readline().strip()\ninput()\n"
    + _SUM.format("input().split()"),
    "threads": "import sys, threading\nsys.setrecursionlimit(10**6)\nthreading.stack_size(1 << 26)\n"
    "def main():\n    input()\n    f = lambda n: n and 1 + f(n - 1)\n    f(9_000)\n"
    "    print(sum(map(int, input().split())))\n"
    "t = threading.Thread(target=main)\nt.start()\nt.join()",
}

_READ = "import atexit, io, os, sys\ns = sum(map(int, sys.stdin.read().split()[1:]))\n"

WRITING = {
    "print": "print(s)",
    "write": "sys.stdout.write(f'{s}\\n')",
    "buffer": "sys.stdout.buffer.write(b'%d\\n' % s)",
    "os-write": "os.write(1, b'%d\\n' % s)",
    "print-flush": "print(s, flush=True)",
    "writelines": "sys.stdout.writelines([str(s), '\\n'])",
    "wrapped": "sys.stdout = io.TextIOWrapper(sys.stdout.buffer, encoding='utf-8')\nprint(s)",
    "wrapped-unflushed": "out = io.TextIOWrapper(io.BufferedWriter(io.FileIO(1, 'w', closefd=False)))\n"
    "print(s, file=out)",
    "reconfigured": "sys.stdout.reconfigure(line_buffering=True, encoding='utf-8')\nprint(s)",
    "string-io": "out = io.StringIO()\nsys.stdout = out\nprint(s)\nsys.__stdout__.write(out.getvalue())",
    "redirected": "import contextlib\nout = io.StringIO()\nwith contextlib.redirect_stdout(out): print(s)\n"
    "print(out.getvalue())",
    "dunder": "print(s, file=sys.__stdout__)",
    "open-1": "open(1, 'w').write(str(s))",
    "open-1-kept": "out = open(1, 'w', closefd=False)\nprint(s, file=out)",
    "dev-stdout": "open('/dev/stdout', 'a').write(str(s))",
    "closed": "print(s)\nsys.stdout.close()",
    "closed-descriptor": "print(s, flush=True)\nos.close(1)",
    "atexit": "atexit.register(print, s)",
    "atexit-buffer": "out = []\natexit.register(lambda: sys.stdout.write(''.join(out)))\nout.append(str(s))",
    "exit-0": "print(s)\nsys.exit(0)",
    "exit": "print(s)\nexit()",
    "quit": "print(s)\nquit()",
    "raised": "print(s)\nraise SystemExit",
    "os-exit-flushed": "print(s)\nsys.stdout.flush()\nos._exit(0)",
    "stderr": "print('debug', file=sys.stderr)\nprint(s)",
    "much-stderr": "for n in range(20_000): print('debug' * 9, file=sys.stderr)\nprint(s)",
    "thread": "import threading\nthreading.Thread(target=print, args=(s,)).start()",
    "timer": "import threading\nthreading.Timer(0.01, print, [s]).start()",
    "subprocess": "import subprocess\nsubprocess.run(['echo', str(s)])",
    "system": "os.system(f'echo {s}')",
    "fork": "if os.fork() == 0:\n    print(s)\nelse:\n    os.wait()",
    "pool": "import multiprocessing as m\nif __name__ == '__main__':\n    with m.get_context('fork').Pool(2) as p:\n"
    "        print(sum(p.map(int, [s, 0])))",
    "logging": "import logging\nlogging.basicConfig(stream=sys.stdout, format='%(message)s')\nlogging.warning(s)",
    "fast": "class Out(io.IOBase):\n    newlines = 0\n    def __init__(self, file):\n        self._fd = file.fileno()\n"
    "        self.buffer = io.BytesIO()\n        self.writable = 'x' in file.mode or 'r' not in file.mode\n"
    "        self.write = self.buffer.write if self.writable else None\n    def flush(self):\n"
    "        if self.writable:\n            os.write(self._fd, self.buffer.getvalue())\n"
    "            self.buffer.truncate(0), self.buffer.seek(0)\n"
    "class Wrapper(io.IOBase):\n    def __init__(self, file):\n        self.buffer = Out(file)\n"
    "        self.flush = self.buffer.flush\n        self.writable = self.buffer.writable\n"
    "        self.write = lambda s: self.buffer.write(s.encode('ascii'))\n"
    "sys.stdout = Wrapper(sys.stdout)\nprint(s)",
    "carriage-return": "sys.stdout.write(f'{s}\\r\\n')",
    "spaces": "print(f'{s}   ')\nprint()",
    "solution": "class Solution:\n    def run(self): return s\nprint(Solution().run())",
    "main": "def main(): print(s)\nif __name__ == '__main__': main()",
    "deleted": "print(s)\ndel sys.stdout",
    "environment": "os.environ.clear()\nprint(s)",
    "generator": "def f():\n    try: yield s\n    finally: print(s)\ng = f()\nnext(g)\ng.close()",
    "del-at-the-end": "class A:\n    def __del__(self): print(s)\na = A()",
    "del-cycle": "class A:\n    def __del__(self): print(s)\na = A()\na.itself = a",
    "generator-at-the-end": "def f():\n    try: yield s\n    finally: print(s)\ng = f()\nnext(g)",
    "exit-at-the-end": "atexit.register(os._exit, 0)\nprint(s)",
    "exit-of-a-thread": "import threading\nprint(s)\n"
    "threading.Thread(target=lambda: (threading.main_thread().join(), os._exit(0))).start()",
    "exit-of-its-class": "class Done(SystemExit): code = 0\nprint(s)\nraise Done('done')",
    "exit-256": "print(s)\nsys.exit(256)",
    "all-closed": "os.closerange(3, 256)\nprint(s)",
    "all-closed-and-opened": "os.closerange(3, 256)\nout = [open(os.dup(1), 'w') for _ in range(30)]\nprint(s)",
    "no-bounds": "import resource\nresource.setrlimit(resource.RLIMIT_STACK, (resource.RLIM_INFINITY,) * 2)\nprint(s)",
    "child-fails": "if (child := os.fork()) == 0: raise ValueError\nos.waitpid(child, 0)\nprint(s)",
    "child-exits": "if (child := os.fork()) == 0: sys.exit(3)\nprint(s + os.waitpid(child, 0)[1] - 768)",
    "del": "class A:\n    def __del__(self, print=print, s=s): print(s)\na = A()\ndel a",
    "signal": "import signal\nsignal.alarm(100)\nprint(s)",
    "limits": "import resource\nresource.setrlimit(resource.RLIMIT_STACK, (1 << 23, 1 << 23))\nprint(s)",
    "caught": "try: 1 / 0\nexcept ZeroDivisionError: print(s)",
    "decimal": "from decimal import Decimal\nprint(Decimal(s))",
    "changed-folder": "os.chdir('/')\nprint(s)",
    # wrong ones
    "no-flush": "class Out:\n    write = sys.stdout.write\nsys.stdout = Out()\nprint(s)",
    "flush-fails": "class Out:\n    write = sys.stdout.write\n    def flush(self): 1 / 0\nsys.stdout = Out()\nprint(s)",
    "flush-fails-at-the-end": "print(s, flush=True)\nprint('more')\nos.close(1)",
    "flush-of-stderr-fails": "print(s, flush=True)\nsys.stderr.write('more')\nos.close(2)",
    "detached": "out = sys.stdout.detach()\nout.write(b'%d' % s)",
    "child-ends-well": "if (child := os.fork()):\n    print(s)\n    os.waitpid(child, 0)\n    1 / 0",
    "child-ends-well-first": "if os.fork():\n    print(s, flush=True)\n    os.wait()\n    os.abort()",
    "exit-beyond-all": "print(s)\nsys.exit(2**64)",
    "exit-1-of-its-class": "class E(SystemExit): code = 1\nprint(s)\nraise E",
    "exit-1-of-a-number": "class I(int):\n    def __and__(self, other): return 0\nprint(s)\nsys.exit(I(1))",
    "another": "print(s + 1)",
    "nothing": "pass",
    "twice": "print(s)\nprint(s)",
    "unflushed": "print(s)\nos._exit(0)",
    "fails-after": "print(s)\n1 / 0",
    "exit-1": "print(s)\nsys.exit(1)",
    "exit-words": "print(s)\nsys.exit('done')",
    "os-exit-1": "print(s, flush=True)\nos._exit(1)",
    "killed": "print(s, flush=True)\nos.kill(os.getpid(), 9)",
    "aborted": "print(s, flush=True)\nos.abort()",
    "crashed": "import ctypes\nprint(s, flush=True)\nctypes.string_at(0)",
    "blinded": "print(s)\nos.environ.clear()\nraise ValueError",
    "written-over": "print(f'1\\r{s}')",
    "colours": "print(f'\\x1b[31m{s}\\x1b[0m')",
    "to-stderr": "print(s, file=sys.stderr)",
    "closed-before": "sys.stdout.close()\nprint(s)",
    "nowhere": "os.dup2(os.open('/dev/null', os.O_WRONLY), 1)\nprint(s)",
    "recursion": "f = lambda: f()\nf()",
    "syntax": "print(s",
    "assertion": "print(s)\nassert s is None",
    "interrupt": "print(s)\nraise KeyboardInterrupt",
    "base": "print(s)\nraise BaseException",
    "generator-exit": "print(s)\nraise GeneratorExit",
    "missing": "import no_such_module\nprint(s)",
    "file-of-an-earlier-test": "n = len(os.listdir('.'))\nopen('seen', 'w').close()\nprint(s + n)",
    "threads-of-an-earlier-test": "import threading, time\n"
    "threading.Thread(target=lambda: (time.sleep(0.05), print('late')), daemon=True).start()\nprint(s)",
    "names-of-an-earlier-test": "import builtins\nbuiltins.seen = getattr(builtins, 'seen', 0) + 1\n"
    "print(s + builtins.seen - 1)",
    "modules-of-an-earlier-test": "import string\nstring.seen = getattr(string, 'seen', 0) + 1\n"
    "print(s + string.seen - 1)",
}

SURROUNDINGS = {
    "file": "import os\nassert os.path.basename(__file__).endswith('.py')\ninput()\n" + _SUM.format("input().split()"),
    "argv": "import sys\nassert sys.argv[0] == __file__ and len(sys.argv) == 1\ninput()\n"
    + _SUM.format("input().split()"),
    "builtins": "__builtins__.input()\n__builtins__.print(sum(map(int, input().split())))",
    "mark": "\ufeffinput()\n" + _SUM.format("input().split()"),
    "no-shell": "assert not {'get_ipython', '__IPYTHON__'} & set(globals())\ninput()\n"
    + _SUM.format("input().split()"),
    "source": "import inspect\ndef f(): return 1\nassert 'return 1' in inspect.getsource(f)\ninput()\n"
    + _SUM.format("input().split()"),
}
"""What a program finds around it."""

PROGRAMS = {f"read-{name}": code for name, code in READING.items()} | {
    f"write-{name}": f"{_READ}{code}" for name, code in WRITING.items()
}
PROGRAMS |= {f"around-{name}": code for name, code in SURROUNDINGS.items()}
