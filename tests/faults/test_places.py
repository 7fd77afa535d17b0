"""The sandbox in various environments: installations of Python, project folders, homes."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

from sandbox import Sandbox, SandboxUnavailable, folders, isolation
from sandbox.inside import landlock
from tests.support import layouts
from tests.support.layouts import opened

NAMES = {1: "bubblewrap (tier 1)", 2: "namespaces (tier 2)"}
WORK = "import scipy, sys, colorsys\nprint(scipy.__name__, sys.prefix)"

tiers = pytest.mark.parametrize("tier", [1, pytest.param(2, marks=pytest.mark.nightly)])


@tiers
def test_a_package_that_is_installed_and_no_checkout(tier: int, tmp_path: Path) -> None:
    python = layouts.virtual_environment(tmp_path / "venv")
    layouts.install(tmp_path / "venv")
    assert opened(python, tier, WORK, source=None, cwd=tmp_path) == [NAMES[tier], f"scipy {tmp_path}/venv"]


@tiers
@pytest.mark.parametrize("place", ["project", "src/project", "."])
def test_a_project_in_the_folder_of_its_virtual_environment(tier: int, place: str, tmp_path: Path) -> None:
    python = layouts.virtual_environment(tmp_path / "venv")
    project = tmp_path / "venv" / place
    shutil.copytree(layouts.ROOT / "sandbox", project / "sandbox")
    look = f"import os\nprint(os.path.exists({str(project / 'sandbox')!r}), sorted(os.listdir(sys.prefix)))"
    isolation, work, seen = opened(python, tier, WORK, look, source=project)
    assert (isolation, work) == (NAMES[tier], f"scipy {tmp_path}/venv")
    assert seen.startswith("False ['bin', 'include', 'lib'")


@tiers
def test_a_path_to_the_interpreter_that_is_not_plain(tier: int, tmp_path: Path) -> None:
    layouts.virtual_environment(tmp_path / "venv")
    (tmp_path / "work").mkdir()
    isolation, work = opened("../venv/bin/python", tier, WORK, cwd=tmp_path / "work")
    assert (isolation, work) == (NAMES[tier], f"scipy {tmp_path}/venv")


@tiers
def test_an_installation_in_the_home(tier: int, tmp_path: Path) -> None:
    python = layouts.installation(tmp_path / "conda")
    (tmp_path / "letter").write_text("private")
    look = f"import os\nos.listdir({str(tmp_path)!r})"
    lines = opened(python, tier, WORK, look, env={"HOME": str(tmp_path)})
    assert lines == [NAMES[tier], f"scipy {tmp_path}/conda", "['conda']"]


@tiers
@pytest.mark.parametrize("home", ["/", "", "/usr/local", "/nonexistent", None])
def test_a_home_that_is_none(tier: int, home: str | None) -> None:
    assert opened(sys.executable, tier, WORK, env={"HOME": home})[0] == NAMES[tier]


@tiers
@pytest.mark.parametrize("temporary", [".", "lib", "venv/lib"])
def test_a_folder_for_temporary_files_that_kernels_see(tier: int, temporary: str, tmp_path: Path) -> None:
    python = layouts.virtual_environment(tmp_path / "venv")
    (tmp_path / "lib").mkdir()
    name = temporary if temporary == "." else str(tmp_path / temporary)
    assert opened(python, tier, WORK, cwd=tmp_path, env={"TMPDIR": name})[0] == NAMES[tier]


@tiers
@pytest.mark.parametrize("umask", ["077", "027"])
def test_a_host_that_makes_files_for_itself_alone(tier: int, umask: str, tmp_path: Path) -> None:
    python = layouts.virtual_environment(tmp_path / "venv")
    lines = opened(python, tier, WORK, within=["sh", "-c", f'umask {umask}; exec "$@"', "sh"])
    assert lines == [NAMES[tier], f"scipy {tmp_path}/venv"]


@pytest.mark.skipif(os.geteuid() != 0, reason="kernels of an ordinary user are this user already")
@pytest.mark.parametrize("mode", [0o700, 0o750])
def test_a_package_that_only_root_can_read_is_named(mode: int, tmp_path: Path) -> None:
    python = layouts.virtual_environment(tmp_path / "venv")
    package = layouts.site_packages(tmp_path / "venv") / "ours"
    package.mkdir(mode=mode)
    (package / "__init__.py").touch()
    error, message = opened(python, 1)
    assert error == "SandboxUnavailable" and str(package) in message and "chmod" in message


@tiers
def test_libraries_that_the_environment_names(tier: int, tmp_path: Path) -> None:
    library = next(Path("/usr/lib").glob("*/libz.so.1"))
    (tmp_path / "ours").mkdir()
    shutil.copy(library, tmp_path / "ours" / "libours.so.7")
    load = "import ctypes\nctypes.CDLL('libours.so.7').zlibVersion() != 0"
    assert opened(sys.executable, tier, load)[1].endswith("No such file or directory")
    assert opened(sys.executable, tier, load, env={"LD_LIBRARY_PATH": f"{tmp_path}/ours:.:/nonexistent"})[1] == "True"


async def test_another_python_than_the_hosts_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version", "3.0 of another kind")
    with pytest.raises(SandboxUnavailable, match=r"another Python, .*, not 3\.0 of another kind"):
        async with Sandbox(tier=1):
            pass


def test_interrupts_that_the_host_blocks() -> None:
    block = "import os, signal, sys; signal.pthread_sigmask(0, {2, 17}); os.execv(sys.argv[1], sys.argv[1:])"
    cells = ("x = 5\nimport time\ntime.sleep(9)", "x")
    texts = opened(sys.executable, 1, *cells, within=[sys.executable, "-c", block])
    assert texts[1].startswith("TimeoutError") and texts[2] == "5"


@pytest.mark.parametrize("limit", ["-n 200", "-v 3000000", "-d 600000", "-f 20000", "-u 40"])
def test_limits_that_are_lower_than_ours(limit: str) -> None:
    look = "import resource as r\nsorted(r.getrlimit(n)[0] for n in (r.RLIMIT_NOFILE, r.RLIMIT_NPROC))"
    lines = opened(sys.executable, 1, WORK, look, within=["bash", "-c", f'ulimit {limit}; exec "$@"', "sh"])
    assert lines[0] == NAMES[1] and lines[1].startswith("scipy")
    assert lines[2] == {"-n 200": "[64, 200]", "-u 40": "[40, 256]"}.get(limit, "[64, 256]")


@pytest.mark.parametrize("how", ["", "0"])
@pytest.mark.parametrize("limit", ["-v 100000", "-d 50000", "-d 120000", "-f 0", "-n 12"])
def test_limits_with_which_no_kernel_starts_are_named_before_one_is_tried(limit: str, how: str) -> None:
    """With little memory, importing numpy neither succeeds nor fails."""
    error, message = opened(sys.executable, how, within=["bash", "-c", f'ulimit {limit}; exec "$@"', "sh"])
    assert error == "SandboxUnavailable" and f"ulimit {limit} " in message
    assert "zygote" not in message and "\n" not in message


@tiers
def test_memory_that_a_low_limit_leaves_is_used_up_and_freed(tier: int) -> None:
    take, look = "kept = bytearray(700 << 20)", "import resource as r\nr.getrlimit(r.RLIMIT_DATA)[0] >> 10"
    within = ["bash", "-c", 'ulimit -d 600000; exec "$@"', "sh"]
    lines = opened(sys.executable, tier, take, look, "1 + 1", take, "len(bytearray(200 << 20)) >> 20", within=within)
    assert lines[1].endswith("\nMemoryError") and lines[4].endswith("\nMemoryError")
    assert lines[2:4] == [str(600_000 - (32 << 10)), "2"] and lines[5] == "200"  # 32 MiB are kept for reporting it


@pytest.mark.skipif(shutil.which("unshare") is None, reason="no unshare: user namespaces cannot be made already")
@tiers
def test_root_of_a_namespace_with_one_user(tier: int) -> None:
    ids = "import os\n(os.getuid(), len(open('/proc/self/uid_map').readlines()))"
    assert opened(sys.executable, tier, WORK, ids, within=["unshare", "-r"])[::2] == [NAMES[tier], "(1000, 1)"]


@pytest.mark.skipif(shutil.which("unshare") is None, reason="no unshare: user namespaces cannot be made already")
def test_a_masked_proc_is_named_and_what_to_do() -> None:
    mask = ["unshare", "-rm", "sh", "-c", 'mount --bind /dev/null /proc/keys; exec "$@"', "sh"]
    error, message = opened(sys.executable, within=mask)
    assert error == "SandboxUnavailable" and "/proc/keys" in message and "systempaths=unconfined" in message


def test_a_filter_that_refuses_namespaces() -> None:
    """As in a container of Docker's defaults: tier 3 where it can be had, else what to do."""
    lines = opened(sys.executable, "", "6 * 7", within=[sys.executable, "-c", _FILTERED])
    if isolation.hidden_from_others() is None and landlock.abi() >= landlock.LEAST_ABI:
        assert lines == ["Landlock and seccomp (tier 3)", "42"]
    else:
        assert lines[0] == "SandboxUnavailable" and "seccomp=unconfined" in lines[1]


# Refuses unshare and mount, and clone with a flag of a namespace; see linux/seccomp.h and linux/filter.h.
_FILTERED = """
import ctypes, os, platform, struct, sys
numbers = {"x86_64": (272, 165, 56, 435), "aarch64": (97, 40, 220, 435)}[platform.machine()]
load, equal, bits, end = 0x20, 0x15, 0x45, 0x06
refused, missing, allowed = 0x50000 | 1, 0x50000 | 38, 0x7FFF0000
program = [
    (load, 0, 0, 0), (equal, 5, 0, numbers[0]), (equal, 4, 0, numbers[1]), (equal, 4, 0, numbers[3]),
    (equal, 0, 4, numbers[2]), (load, 0, 0, 16), (bits, 0, 2, 0x7E020000),
    (end, 0, 0, refused), (end, 0, 0, missing), (end, 0, 0, allowed),
]
data = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in program))
class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("steps", ctypes.c_void_p)]
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, ctypes.byref(Program(len(program), ctypes.addressof(data)))) == 0
os.execv(sys.argv[1], sys.argv[1:])
"""


@pytest.mark.skipif(isolation.hidden_from_others() is None, reason="all users can read this Python already")
def test_without_isolation_a_python_of_roots_alone_works() -> None:
    cell = (
        "import os, subprocess, scipy\nprint(os.getuid() > 0, subprocess.call([sys.executable, '-c', 'import scipy']))"
    )
    assert opened(sys.executable, 0, f"import sys\n{cell}") == ["none", "True 0"]
    refused = "import os\nos.open('/etc/shadow', os.O_WRONLY)"
    assert "PermissionError" in opened(sys.executable, 0, refused)[1]


async def test_no_folder_for_temporary_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "_PARENTS", ("/nonexistent",))
    monkeypatch.setattr(folders, "_temporary", lambda: None)
    with pytest.raises(SandboxUnavailable, match="TMPDIR"):
        async with Sandbox():
            pass
