"""Legitimate uses that the seccomp filter must not break."""

from __future__ import annotations

import pytest

from sandbox import Sandbox
from tests.support.calling import CALL, Attack

pytestmark = pytest.mark.asyncio(loop_scope="module")

TIERS = (1, 2, 3)


WORK = {
    "copies": """
import pathlib, shutil, tempfile, zipfile, tarfile
os.makedirs("tree/deep"); open("tree/deep/x", "w").write("x")
shutil.copy("tree/deep/x", "a"); shutil.copy2("tree/deep/x", "b"); shutil.copytree("tree", "other")
shutil.copystat("a", "b"); shutil.move("b", "c"); pathlib.Path("c").touch(); os.chmod("c", 0o644)
with zipfile.ZipFile("z.zip", "w") as z: z.write("a")
with zipfile.ZipFile("z.zip") as z: z.extractall("z")
with tarfile.open("t.tgz", "w:gz") as t: t.add("tree")
with tarfile.open("t.tgz") as t: t.extractall("t", filter="data")
with tempfile.TemporaryDirectory() as d, tempfile.NamedTemporaryFile(dir=d) as f: f.write(b"x")
shutil.rmtree("tree")
sorted(os.listdir())
""",
    "libraries": """
import numpy as np, sqlite3, threading, asyncio, decimal, queue, concurrent.futures
np.save("x.npy", np.arange(9)); np.load("x.npy", mmap_mode="r+")[0] = 5
with sqlite3.connect("x.db") as db: db.execute("pragma journal_mode=wal"); db.execute("create table t (a)")
with sqlite3.connect("x.db") as db: db.execute("insert into t values (1)")
with concurrent.futures.ThreadPoolExecutor(4) as pool: assert list(pool.map(abs, [-1, 2])) == [1, 2]
await asyncio.to_thread(abs, -1)
with open("x.db") as f: fcntl.flock(f, fcntl.LOCK_EX)
os.nice(1); os.sched_setaffinity(0, os.sched_getaffinity(0)); os.getpriority(os.PRIO_PROCESS, 0)
resource.setrlimit(resource.RLIMIT_STACK, (512 << 20,) * 2); resource.prlimit(0, resource.RLIMIT_NOFILE)
signal.setitimer(signal.ITIMER_REAL, 60); signal.alarm(0)
os.isatty(0), os.path.exists("x.npy")
""",
    "processes and sockets": """
import http.server, multiprocessing, subprocess, sys, threading, urllib.request, asyncio
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
threading.Thread(target=server.serve_forever, daemon=True).start()
open("page", "wb").write(bytes(3 << 20))
assert len(urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/page").read()) == 3 << 20
subprocess.run(["sh", "-c", "cp -a page copy && chmod +x copy && touch -d 2020-01-01 copy && test -x copy"], check=True)
with multiprocessing.get_context("fork").Pool(2) as pool: assert pool.map(abs, [-1]) == [1]
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s = socket.socket(); s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
process = await asyncio.create_subprocess_exec("true"); await process.wait()
async def answer(reader, writer):
    writer.writelines([await reader.readexactly(2 << 20), bytes(1 << 20)]); await writer.drain(); writer.close()
server = await asyncio.start_server(answer, "127.0.0.1", 0)
reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
writer.write(bytes(2 << 20)); assert len(await reader.read()) == 3 << 20
with multiprocessing.Manager() as manager: assert manager.list([1])[0] == 1
import pty; os.close(pty.openpty()[0])
open("/dev/stdout", "w").write(""); subprocess.run("head -c 9 /dev/zero > /dev/null", shell=True).returncode
""",
}


@pytest.mark.parametrize("name", list(WORK))
async def test_ordinary_work(attack: Attack, box: Sandbox, name: str) -> None:
    if box.tier == 3 and name == "processes and sockets":
        return  # there are none
    expected = {
        "copies": "['a', 'c', 'd', 'f', 'other', 't', 't.tgz', 'z', 'z.zip']",
        "libraries": "(False, True)",
        "processes and sockets": "0",
    }
    result = await attack(f"{CALL}{WORK[name]}", 10)
    assert result.text.splitlines()[-1] == expected[name]
