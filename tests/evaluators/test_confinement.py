"""What native code in a candidate's process cannot reach: files, processes, keys, daemons.

Each candidate tries, and passes only when it was refused. What older kernels lack is tried in a
process of its own, which takes the cage as such a kernel would close it.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from evaluators import confinement, installation, landlock, seccomp
from evaluators.pipeline import Evaluator
from evaluators.schema import Evaluation, Language, Status
from evaluators.settings import EvaluatorSettings
from tests.evaluators.bench import CPP, GOOD, evaluator, solution

ROOT = Path(__file__).resolve().parents[2]
SECRET = "sk-planted-9876543210"
REFUSED = """
import errno, os, resource, signal, socket, sys
import torch
def refused(call, *args):
    try:
        call(*args)
    except OSError as error:
        return error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.EXDEV)
    return False
def run(x, scale, y):
    torch.mul(x, scale, out=y)
    if os.path.exists('tried'): return
    os.mkdir('tried')
"""

pytestmark = pytest.mark.skipif(landlock.abi() < 1, reason="this kernel has no Landlock")


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Evaluator]:
    settings = EvaluatorSettings(build_deadline_s=30, run_deadline_s=2, latency_s=0.05, samples=4)
    made = evaluator(tmp_path_factory.mktemp("double"), settings)
    yield made
    made.close()


@pytest.fixture
def other() -> Iterator[subprocess.Popen[bytes]]:
    """A process of the same user, with a key in its environment and its arguments."""
    command = [sys.executable, "-c", "import time; time.sleep(600)", SECRET]
    with subprocess.Popen(command, env={"OPENAI_API_KEY": SECRET}) as process:
        yield process
        process.kill()


def run(judge: Evaluator, body: str) -> Evaluation:
    lines = "\n".join(f"    {line}" for line in body.strip().splitlines())
    return judge.evaluate(solution(REFUSED + lines), trusted=True)


def holds(judge: Evaluator, body: str) -> None:
    found = run(judge, body)
    assert found.status is Status.PASSED, found.log


def native(judge: Evaluator, body: str, includes: str = "") -> None:
    """`body` calls `std::abort` when it was not refused."""
    found = judge.evaluate(solution(includes + CPP % body, Language.CPP), trusted=True)
    assert found.status is Status.PASSED, found.log


def standing(judge: Evaluator) -> list[int]:
    """The judge, and what outlives a candidate: the nursery, the anchor and its keeper."""
    end = time.monotonic() + 5
    while len(judge.processes()) != 3 and time.monotonic() < end:
        time.sleep(0.05)
    return [os.getpid(), *judge.processes()]


def planted(folder: Path) -> Path:
    """A store of a run that the candidates know the path of."""
    store = folder / "results" / "run.sqlite"
    store.parent.mkdir()
    store.write_text(SECRET)
    return store


def test_the_facts_say_what_holds(judge: Evaluator) -> None:
    facts = judge.facts()
    assert facts["network"] == "isolated"
    assert facts["files"] == "isolated" or "mount namespace" in facts["files"]


def test_a_store_is_neither_read_nor_changed(judge: Evaluator, tmp_path: Path) -> None:
    store = planted(tmp_path)
    before = store.stat()
    body = f"""
store, folder = {str(store)!r}, {str(store.parent)!r}
assert refused(open, store)
assert refused(open, store, 'r+')
assert refused(open, store, 'w')
assert refused(open, folder + '/new', 'w')
assert refused(os.listdir, folder)
assert refused(os.truncate, store, 0)
assert refused(os.unlink, store)
assert refused(os.rename, store, store + '.moved')
assert refused(os.rename, store, 'mine')
assert refused(os.link, store, 'mine')
assert refused(os.mkdir, folder + '/new')
os.symlink(store, 'link')
assert refused(open, 'link')
assert refused(open, '/proc/self/root' + store)
"""
    holds(judge, body)
    assert store.read_text() == SECRET
    after = store.stat()
    assert (after.st_mtime_ns, after.st_nlink) == (before.st_mtime_ns, before.st_nlink)


def test_modes_and_times_of_files_stay(judge: Evaluator, tmp_path: Path) -> None:
    if judge.files:
        pytest.skip(judge.files)
    store = planted(tmp_path)
    body = f"""
store = {str(store)!r}
assert refused(os.chmod, store, 0)
assert refused(os.utime, store, (1, 1))
assert refused(os.chown, store, 12345, 12345)
"""
    holds(judge, body)


def test_native_code_reads_no_store(judge: Evaluator, tmp_path: Path) -> None:
    store = planted(tmp_path)
    body = f'if (std::fopen("{store}", "r") || syscall(SYS_open, "{store}", 0) >= 0) std::abort();'
    body += ' if (!std::fopen("mine", "w")) std::abort();'
    native(judge, body, "#include <cstdio>\n#include <sys/syscall.h>\n#include <unistd.h>\n")


def test_home_passwords_and_project_are_closed(judge: Evaluator) -> None:
    folders = [Path.home(), *(ROOT / name for name in ("kernels", "seeds", "tests", ".git"))]
    closed = [str(folder) for folder in folders if folder.is_dir()]
    body = f"""
for folder in {closed!r}:
    assert refused(os.listdir, folder), folder
assert refused(open, '/etc/shadow')
assert refused(open, {str(installation.PACKAGE / "cage.py")!r}, 'r+')
assert refused(open, os.__file__, 'r+')
assert refused(open, '/proc/sys/kernel/core_pattern', 'r+')
"""
    holds(judge, body)


def test_folders_of_other_candidates_are_closed(judge: Evaluator) -> None:
    links = [f"/proc/{pid}/cwd" for pid in standing(judge)]
    folders = {p for p in map(os.readlink, links) if "tilevolve-" in p}
    assert folders  # the anchor's
    body = f"""
for folder in {sorted(folders)!r}:
    assert refused(os.listdir, folder)
    assert refused(open, folder + '/kernel.py')
    assert refused(open, folder + '/new', 'w')
assert refused(os.listdir, os.path.dirname(os.getcwd()))
"""
    holds(judge, body)


def test_keys_in_other_processes_are_closed(
    judge: Evaluator, other: subprocess.Popen[bytes]
) -> None:
    pids = [other.pid, *standing(judge)]
    body = f"""
for pid in {pids!r}:
    for name in ('environ', 'cmdline', 'mem', 'maps', 'cwd/x'):
        assert refused(open, f'/proc/{{pid}}/{{name}}'), (pid, name)
assert refused(os.listdir, '/proc')
assert b'planted' not in open('/proc/self/environ', 'rb').read()
"""
    holds(judge, body)


def test_other_processes_are_neither_traced_nor_read(
    judge: Evaluator, other: subprocess.Popen[bytes]
) -> None:
    body = f"""
  char here[8]; iovec mine{{here, 8}}, theirs{{const_cast<float*>(a), 8}};
  if (ptrace(PTRACE_SEIZE, {other.pid}, nullptr, nullptr) == 0) std::abort();
  if (process_vm_readv({other.pid}, &mine, 1, &theirs, 1, 0) >= 0 || errno != EPERM) std::abort();
  const int handle = syscall(SYS_pidfd_open, {other.pid}, 0);
  if (handle >= 0 && syscall(SYS_pidfd_getfd, handle, 0, 0) >= 0) std::abort();
"""
    headers = ("cerrno", "sys/ptrace.h", "sys/syscall.h", "sys/uio.h", "unistd.h")
    native(judge, body, "".join(f"#include <{header}>\n" for header in headers))


def test_nobody_else_gets_a_signal(judge: Evaluator, other: subprocess.Popen[bytes]) -> None:
    pids = [other.pid, *standing(judge)]
    body = f"""
import subprocess
for pid in [os.getppid(), *{pids!r}]:
    assert refused(os.kill, pid, signal.SIGCONT), pid
    assert refused(signal.pidfd_send_signal, os.pidfd_open(pid), signal.SIGCONT), pid
os.kill(os.getpid(), signal.SIGCONT)
"""
    holds(judge, body)


def test_other_processes_keep_their_limits_and_priority(
    judge: Evaluator, other: subprocess.Popen[bytes]
) -> None:
    pids = [other.pid, *standing(judge)]
    body = f"""
for pid in {pids!r}:
    assert refused(resource.prlimit, pid, resource.RLIMIT_CPU, (99999, 99999))
    assert refused(os.setpriority, os.PRIO_PROCESS, pid, 5)
os.sched_setaffinity(0, os.sched_getaffinity(0))
os.setpriority(os.PRIO_PROCESS, 0, 1)
"""
    holds(judge, body)


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="there is one core")
def test_who_moves_others_to_one_core_fails_and_they_move_back(judge: Evaluator) -> None:
    pids = standing(judge)
    before = [os.sched_getaffinity(pid) for pid in pids]
    body = f"""
import contextlib
for pid in {pids!r}:
    with contextlib.suppress(PermissionError):  # those with more privileges
        others = {os.sched_getaffinity(0)!r} - os.sched_getaffinity(pid)
        os.sched_setaffinity(pid, others or {{0}})
"""
    found = run(judge, body)
    assert found.status is Status.RUNTIME_ERROR, found.log
    assert "other cores" in found.log
    assert [os.sched_getaffinity(pid) for pid in pids] == before
    holds(judge, "pass")


def test_no_daemon_answers(judge: Evaluator, tmp_path: Path) -> None:
    """Ray's and Docker's sockets are files; a candidate of the same user could talk to them."""
    name = str(tmp_path / "daemon")
    with socket.socket(socket.AF_UNIX) as daemon, socket.create_server(("127.0.0.1", 0)) as web:
        daemon.bind(name)
        daemon.listen()
        body = f"""
def unix():
    socket.socket(socket.AF_UNIX).connect({name!r})
def web(kind=socket.SOCK_STREAM):
    socket.socket(socket.AF_INET, kind).connect(('127.0.0.1', {web.getsockname()[1]}))
for attempt in (unix, web, lambda: web(socket.SOCK_DGRAM)):
    try:
        attempt()
    except OSError:
        continue
    raise AssertionError(attempt)
one, two = socket.socketpair()
one.send(b'x')
assert two.recv(1) == b'x'
"""
        holds(judge, body)


@pytest.mark.skipif(os.getuid() != 0, reason="asks what root may do")
def test_root_is_an_ordinary_user_inside(judge: Evaluator) -> None:
    body = """
status = dict(l.split(':\\t') for l in open('/proc/self/status').read().splitlines() if ':\\t' in l)
for name in ('CapEff', 'CapPrm', 'CapBnd'):
    assert int(status[name], 16) & ~0b1110 == 0, status[name]
assert status['NoNewPrivs'] == '1'
assert refused(os.mknod, 'disk', 0o60600, os.makedev(254, 0))
import ctypes
assert ctypes.CDLL(None).mount(b'none', os.getcwd().encode(), b'tmpfs', 0, None) != 0
"""
    holds(judge, body)


def test_its_own_folder_is_its_home_and_holds_every_cache(judge: Evaluator) -> None:
    body = f"""
import subprocess, tempfile
from pathlib import Path
for name in {confinement.CACHES!r}:
    assert Path(os.environ[name]).is_relative_to(os.getcwd()), name
assert Path.home() == Path.cwd() == Path(tempfile.gettempdir())
os.makedirs('deep/er')
Path('deep/er/file').write_text('x')
os.replace('deep/er/file', 'file')
Path('a.c').write_text('#include <stdio.h>\\nint main(void) {{ puts("made"); return 0; }}')
subprocess.run(['gcc', 'a.c', '-o', 'a'], check=True)
assert subprocess.run(['./a'], capture_output=True).stdout == b'made\\n'
with tempfile.TemporaryDirectory() as folder:
    assert Path(folder).parent == Path.cwd()
open('/dev/null', 'w').write('x')
open('/dev/urandom', 'rb').read(1)
open('/proc/self/maps').read(1)
"""
    holds(judge, body)


def test_what_cuda_does_to_start_is_allowed(judge: Evaluator) -> None:
    """It ends with an error where one of these is refused (strace of cuInit; driver 570 and on)."""
    body = """
import threading
done = threading.Event()
thread = threading.Thread(target=done.wait)
thread.start()
for task in (f'/proc/self/task/{thread.native_id}', f'/proc/{os.getpid()}/task/{os.getpid()}'):
    for flags in (os.O_RDWR, os.O_WRONLY | os.O_CREAT | os.O_TRUNC):
        name = os.open(task + '/comm', flags)
        os.write(name, b'cuda-EvtHandlr')
        os.close(name)
    assert open(task + '/comm').read() == 'cuda-EvtHandlr\\n'
done.set()
os.ftruncate(os.memfd_create('cuda'), 4096)
os.eventfd(0)
for path in ('self/maps', 'self/status', 'devices', 'filesystems', 'sys/vm/mmap_min_addr'):
    open('/proc/' + path, 'rb').read()
os.listdir('/sys/devices/system/node')
try:
    socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET).connect('/tmp/nvidia-mps/control')
except FileNotFoundError:  # no multi-process service: CUDA goes on without it
    pass
"""
    holds(judge, body)


def test_what_it_prints_is_not_read_through_a_link(judge: Evaluator, tmp_path: Path) -> None:
    """The judge may read what a candidate may not, and shows what it finds to models."""
    store = planted(tmp_path)
    for trick in (f"os.symlink({str(store)!r}, name)", "os.mkfifo(name)", "os.mkdir(name)"):
        name = confinement.OUTPUT
        found = run(judge, f"name = {name!r}\nos.unlink(name)\n{trick}\nraise ValueError('seen')")
        assert found.status is Status.RUNTIME_ERROR
        assert "seen" in found.log
        assert SECRET not in found.log


@pytest.mark.parametrize("victim", ["keeper", "nursery"])
def test_what_watches_it_may_die_and_nothing_stays(judge: Evaluator, victim: str) -> None:
    """A candidate can no longer kill them; the system, short of memory, still can."""
    before = standing(judge)
    seconds = 8_000_000 + 10 * os.getpid() + (victim == "keeper")
    body = f"os.system('setsid sleep {seconds} &')\nimport time\ntime.sleep(60)"
    with ThreadPoolExecutor(1) as thread:
        found = thread.submit(run, judge, body)
        kills = 0
        while not found.done():
            strays = [pid for pid in judge.processes() if _sleeps(pid, seconds)]
            if strays:
                # A candidate that was lost with its nursery gets a second chance.
                nursery = judge.processes()[0]
                keepers = {p for p in judge.processes() if _parent(p) == nursery} - {*before}
                os.kill(nursery if victim == "nursery" else min(keepers), signal.SIGKILL)
                kills += 1
                while any(_sleeps(pid, seconds) for pid in strays):
                    time.sleep(0.02)
            time.sleep(0.02)
    assert found.result().status is Status.RUNTIME_ERROR
    assert kills == (2 if victim == "nursery" else 1)


def _sleeps(pid: int, seconds: int) -> bool:
    try:
        return f"sleep\0{seconds}".encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return -1


def test_an_ordinary_candidate_passes_after_all(judge: Evaluator) -> None:
    assert judge.evaluate(solution(GOOD)).status is Status.PASSED


CAGED = """
import ctypes, errno, json, os, resource, subprocess, sys
from pathlib import Path
from evaluators import cage, confinement, landlock
landlock.abi = lambda: int(sys.argv[1])
folder, store, other = Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
os.setsid()
confinement.leave_network()
shut = cage.shut(folder)
def error(call, *args):
    try:
        call(*args)
    except OSError as failure:
        return errno.errorcode[failure.errno]
    return ''
def trace():
    if ctypes.CDLL(None, use_errno=True).ptrace(16, other, 0, 0) < 0:
        raise OSError(ctypes.get_errno(), '')
os.mkdir('deep')
Path('deep/file').write_text('x')
found = {
    'read': error(open, store),
    'truncate': error(os.truncate, store, 0),
    'kill': error(os.kill, other, 18),
    'kill own': error(os.kill, os.getpid(), 18),
    'kill group': error(os.kill, 0, 18),
    'trace': error(trace),
    'limit': error(resource.prlimit, other, resource.RLIMIT_CPU, (99999, 99999)),
    'move': error(os.replace, 'deep/file', 'file'),
    'moved': os.path.exists('file') and not os.path.exists('deep/file'),
    'move folder': error(os.replace, 'deep', 'shallow'),
    'shell': subprocess.run(['sh', '-c', 'echo $HOME']).returncode,
}
print(json.dumps([found, shut.files, shut.network]))
"""


@pytest.mark.parametrize("version", [0, 1, 2, 3, 5, 6])
def test_older_kernels_hold_what_they_can_and_say_the_rest(
    version: int, tmp_path: Path, other: subprocess.Popen[bytes]
) -> None:
    if landlock.abi() < version:
        pytest.skip("the kernel is older")
    store = planted(tmp_path)
    folder = tmp_path / "own"
    folder.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", CAGED, str(version), str(folder), str(store), str(other.pid)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found, files, network = json.loads(done.stdout.splitlines()[-1])
    refused = {k for k, v in found.items() if v in ("EACCES", "EPERM", "EROFS")}
    assert refused == {"truncate", "kill", "trace", "limit"} | ({"read"} if version else set())
    assert found["moved"] is True
    assert ("Landlock" in files) == (version == 0)
    assert network == ""
    assert store.read_text() == SECRET


@pytest.mark.parametrize("machine", seccomp.MACHINES)
@pytest.mark.parametrize(
    ("call", "arguments", "passes"),
    [
        ("kill", (500, 9), True),
        ("kill", (-500, 9), True),
        ("kill", (0, 9), True),
        ("kill", (-1, 9), False),
        ("kill", (501, 9), False),
        ("kill", (501, 0), True),
        ("tgkill", (500, 77, 6), True),
        ("tgkill", (501, 77, 6), False),
        ("socket", (socket.AF_UNIX, 1), True),
        ("socket", (socket.AF_INET, 1), False),
        ("connect", (3, 0), False),
        ("setpriority", (os.PRIO_PROCESS, 0), True),
        ("setpriority", (os.PRIO_PROCESS, 500), True),
        ("setpriority", (os.PRIO_PROCESS, 1), False),
        ("setpriority", (os.PRIO_USER, 0), False),
        ("fcntl", (3, 8, 1), False),
        ("fcntl", (3, 15, 1), False),
        ("fcntl", (3, 9, 1), True),
        ("ioctl", (3, 0x8902), False),
        ("ioctl", (3, 0x4601), True),
        ("prlimit64", (0, 7), True),
        ("prlimit64", (2, 7), False),
    ],
)
def test_the_filter_decides_by_arguments(
    machine: str, call: str, arguments: tuple[int, ...], passes: bool
) -> None:
    known = seccomp.MACHINES[machine]
    code = seccomp.program(seccomp.rules(500, 4), known)
    assert _allows(code, known.architecture, known.numbers[call], arguments) is passes
    assert _allows(code, known.architecture, 0, arguments)
    assert not _allows(code, 0x40000003, known.numbers[call], arguments)
    assert not _allows(code, known.architecture, 0x40000000, arguments)


def _allows(code: list[bytes], machine: int, number: int, arguments: tuple[int, ...]) -> bool:
    """What the kernel would decide: runs the filter's few kinds of instructions."""
    data = struct.pack("iIQ6Q", number, machine, 0, *_words(arguments))
    at, held = 0, 0
    while True:
        kind, then, otherwise, value = struct.unpack("HBBI", code[at])
        at += 1
        if kind == 0x20:
            held = struct.unpack_from("I", data, value)[0]
        elif kind == 0x06:
            return bool(value == 0x7FFF0000)
        else:
            fits = held == value if kind == 0x15 else held >= value
            at += then if fits else otherwise


def _words(arguments: tuple[int, ...]) -> list[int]:
    return [(a & (1 << 64) - 1) for a in (*arguments, 0, 0, 0, 0, 0, 0)][:6]


def test_links_out_of_the_installation_open_nothing(tmp_path: Path) -> None:
    """A folder that holds a hidden one is opened around it, without links that lead there."""
    hidden = tmp_path / "hidden"
    for folder in (hidden, tmp_path / "open"):
        folder.mkdir()
    (tmp_path / "link").symlink_to(hidden)
    assert installation._around(tmp_path, frozenset({hidden})) == [tmp_path / "open"]
    assert installation._around(hidden, frozenset({hidden})) == []
    assert installation._around(tmp_path / "open", frozenset({hidden})) == [tmp_path / "open"]


def test_the_installation_has_no_hidden_folder(tmp_path: Path) -> None:
    found = installation.readable(tmp_path)
    closed = [Path.home(), Path.cwd(), tmp_path, ROOT, Path("/"), Path("/etc"), Path("/home")]
    for path in (p.resolve() for p in closed):
        assert path not in found
        assert not set(path.parents) & set(found)
    assert installation.PACKAGE in found
    assert any(Path(sys.prefix).resolve().is_relative_to(p) for p in found)


def test_signals_are_named(judge: Evaluator) -> None:
    found = run(judge, "os.kill(os.getpid(), signal.SIGABRT)")
    assert found.status is Status.RUNTIME_ERROR
    assert signal.SIGABRT.name in found.log
