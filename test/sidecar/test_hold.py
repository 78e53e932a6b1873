#!/usr/bin/python3
"""lease hold: whenever somebody else gets the lock, nothing that the command has started is alive.

The command starts processes that ignore SIGTERM, that have sessions and users of their own, that have lost their parents or
are stopped. hold is stopped, killed, cut off from the server, or cannot write. A contender tries to get the lock all the
time through another sidecar, and looks at /proc the moment that it has it.
"""
import concurrent.futures
import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import subprocess
import time
import unittest
import uuid

import grpc

from harness import BINARY, HERE, V1, WORK, Clock, Sidecar, call, start_cluster, until_serving, wait_until
import garbagetruck_v1_pb2 as v1  # made by harness

ROOT = os.geteuid() == 0
DURATION = 2

# All of them outlive a SIGTERM that is sent to the command alone, or to its group alone.
NASTY = r"""
trap '' TERM HUP
sleep 1000 &
(trap - TERM; setsid sh -c 'trap "" TERM; sleep 1000; sleep 1000' &)
(setsid sh -c '(sleep 1000; sleep 1000) & sleep 1000' &)
sh -c 'kill -STOP $$; sleep 1000' &
(while :; do sleep 0.05; done) | cat &
@OTHER_USER@
echo begun
while :; do sleep 0.02; done
""".replace("@OTHER_USER@", "setpriv --reuid=65534 --clear-groups setsid sh -c 'trap \"\" TERM; sleep 1000; sleep 1000' &" if ROOT else "")

cluster = None
contender = None


def setUpModule():
    global cluster, contender
    cluster = start_cluster()
    contender = until_serving(Sidecar(cluster))


def processes():
    for name in os.listdir("/proc"):
        if name.isdigit():
            yield int(name)


def read(pid, name):
    try:
        with open(f"/proc/{pid}/{name}", "rb") as file:
            return file.read()
    except OSError:
        return b""


def state(pid):
    """(state, parent), ("X", 0) when there is none."""
    fields = read(pid, "stat").rpartition(b") ")[2].split()
    return (fields[0].decode(), int(fields[1])) if fields else ("X", 0)


def is_hold(pid):
    try:
        return os.readlink(f"/proc/{pid}/exe") == os.path.realpath(BINARY)
    except OSError:
        return False


def alive(mark):
    """The processes of the command: their environment has the mark, hold's own program, and what it was started by, are none of them."""
    return [(pid, read(pid, "cmdline")) for pid in processes()
            if mark.encode() in read(pid, "environ") and not is_hold(pid) and state(pid)[0] not in "ZX"
            and not read(pid, "cmdline").startswith(b"unshare")]


def guard_of(pid):
    """The helper process of a hold."""
    return wait_until(lambda: next((p for p in processes() if state(p)[1] == pid and read(p, "comm") == b"gt-guard\n"), None), 20)


class HoldTest(unittest.TestCase):
    def setUp(self):
        self.object = self.mark = f"mark-{uuid.uuid4()}"
        self.server = None
        self.children = []
        self.addCleanup(self.sweep)

    def sweep(self, mark=None):
        mark = (mark or self.mark).encode()
        for pid in processes():
            if mark in read(pid, "environ") and (is_hold(pid) or state(pid)[0] not in "ZX"):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def own_server(self):
        """A sidecar that this test may stop."""
        self.server = until_serving(Sidecar(cluster))
        self.addCleanup(self.server.kill)

    def words(self, *command, duration=DURATION, more=()):
        server = self.server or contender
        return [BINARY, "--endpoint", f"http://{server.address}", "lease", "hold", "--object-id", self.object, "--exclusive",
                "--duration", f"{duration}s", *more, "--", *command]

    def environment(self):
        clean = {k: v for k, v in os.environ.items() if not k.startswith("GARBAGETRUCK_")}
        return {**clean, "HOLD_TEST": self.mark}

    def start(self, *command, before=(), **how):
        words = [*before, *self.words(*(command or ("sh", "-c", NASTY)), duration=how.pop("duration", DURATION), more=how.pop("more", ()))]
        how.setdefault("stderr", subprocess.PIPE)
        child = subprocess.Popen(words, env=self.environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                 process_group=0, **how)
        self.children.append(child)
        self.addCleanup(child.wait, 60)
        self.addCleanup(self.sweep, self.mark)
        self.addCleanup(child.stdout.close)
        if child.stderr is not None:
            self.addCleanup(child.stderr.close)
        return child

    def begun(self, child):
        self.assertEqual(child.stdout.readline(), b"begun\n")
        os.set_blocking(child.stdout.fileno(), False)

    def get_lock(self, limit=20, mark=None):
        """As the contender; what of the command was alive then."""
        channel = contender.channel()
        request = v1.CreateRequest(object_id=mark or self.object, service_id="contender", exclusive=True)
        for _ in iter(lambda: Clock(limit), None):
            try:
                call(channel, V1 + "Create", request, v1.Grant)
                return alive(mark or self.mark)
            except grpc.RpcError as error:
                self.assertIn(error.code(), (grpc.StatusCode.ALREADY_EXISTS, grpc.StatusCode.ABORTED), error.details())
            time.sleep(0.01)
        raise AssertionError("the contender did not get the lock")

    def full_pipe(self):
        """The end for writing of one that nobody reads."""
        reader, writer = os.pipe()
        self.addCleanup(os.close, reader)
        self.addCleanup(os.close, writer)
        for size in (65536, 1):
            fcntl.fcntl(writer, fcntl.F_SETFL, os.O_NONBLOCK)
            try:
                while True:
                    os.write(writer, b"x" * size)
            except BlockingIOError:
                pass
        fcntl.fcntl(writer, fcntl.F_SETFL, 0)
        return writer

    def release(self):
        """As an administrator would."""
        cluster.tool("psql", "-qXAtc", f"SELECT gt_release(lease_id) FROM gt_leases WHERE object_id = '{self.object}'")

    def held(self):
        return cluster.tool("psql", "-qXAtc", f"SELECT count(*) FROM gt_leases WHERE object_id = '{self.object}'").strip()

    def assert_exclusive(self):
        self.assertEqual(self.get_lock(), [])


class Broken(HoldTest):
    """What may become of hold and of its server while the nasty command runs."""

    def broken_by(self, act, **how):
        self.own_server()
        child = self.start(**how)
        self.begun(child)
        self.assertGreater(len(alive(self.mark)), 6)
        act(child)
        self.assert_exclusive()
        return child

    def test_server_stopped(self):
        child = self.broken_by(lambda child: self.server.signal(signal.SIGSTOP))
        self.assertEqual(child.wait(60), 1)
        self.assertIn(b"could not be renewed", child.stderr.read())

    def test_server_gone(self):
        self.assertEqual(self.broken_by(lambda child: self.server.kill()).wait(60), 1)

    def test_hold_killed(self):
        self.broken_by(lambda child: child.kill())

    def test_hold_stopped(self):
        for name in ("STOP", "TSTP", "TTIN", "TTOU"):
            with self.subTest(name):
                self.object = f"{self.mark}-{name}"
                child = self.broken_by(lambda child: child.send_signal(getattr(signal, "SIG" + name)))
                child.send_signal(signal.SIGCONT)
                self.assertEqual(child.wait(60), 1)

    def test_hold_ended_by_other_signals(self):
        child = self.broken_by(lambda child: child.send_signal(signal.SIGXCPU))
        self.assertEqual(child.wait(60), -signal.SIGXCPU)

    def test_guard_killed(self):
        child = self.broken_by(lambda child: os.kill(guard_of(child.pid), signal.SIGKILL))
        self.assertEqual(child.wait(60), 1)

    def test_guard_stopped(self):
        def act(child):
            os.kill(guard_of(child.pid), signal.SIGSTOP)
            self.server.signal(signal.SIGSTOP)
        self.assertEqual(self.broken_by(act).wait(60), 1)

    def test_job_killed_and_stopped(self):
        """A signal to hold's process group reaches no guard."""
        self.broken_by(lambda child: os.killpg(child.pid, signal.SIGKILL))
        self.object = self.mark + "-2"
        child = self.broken_by(lambda child: os.killpg(child.pid, signal.SIGSTOP))
        child.send_signal(signal.SIGCONT)
        self.assertEqual(child.wait(60), 1)

    def storm(self):
        program = os.path.join(WORK, "storm")
        subprocess.run(["gcc", "-O2", "-pthread", "-o", program, os.path.join(HERE, "storm.c")], check=True)
        os.chmod(WORK, 0o755)
        return program

    def test_who_forks_and_ends_all_the_time(self):
        """Gone before anybody has looked at it: what tells of it is the file that it writes."""
        storm = self.storm()
        self.own_server()
        for how in ("s", "g", "sl", "slll", "t", "", "sss"):
            with self.subTest(how):
                self.server.signal(signal.SIGCONT)
                beat = os.path.join(WORK, f"{self.mark}-beat-{how}")
                self.object = f"{self.mark}-{how}"
                child = self.start(storm, beat, how)
                self.begun(child)
                self.assertTrue(wait_until(lambda: os.path.exists(beat) and os.path.getsize(beat) > 20, 20))
                self.server.signal(signal.SIGSTOP)
                self.assert_exclusive()
                written = os.path.getsize(beat)
                time.sleep(0.3)
                self.assertEqual(os.path.getsize(beat), written)

    @unittest.skipUnless(ROOT, "needs a user without other processes")
    def test_who_forks_as_long_as_it_can(self):
        storm = self.storm()
        self.own_server()
        beat = os.path.join(WORK, f"{self.mark}-beat")
        with open(beat, "w"):
            os.chmod(beat, 0o666)
        child = self.start(storm, beat, "bb", duration=6, before=("prlimit", "--nproc=100", "setpriv", "--reuid=64997", "--clear-groups"))
        self.begun(child)
        self.assertTrue(wait_until(lambda: len(alive(self.mark)) > 20 or child.poll() is not None, 20))
        self.server.signal(signal.SIGSTOP)
        self.assert_exclusive()
        written = os.path.getsize(beat)
        self.assertEqual(child.wait(60), 1)
        self.assertEqual(os.path.getsize(beat), written)

    def test_stderr_full(self):
        child = self.broken_by(lambda child: self.server.signal(signal.SIGSTOP), stderr=self.full_pipe(), more=("--kill-after", "1m"))
        self.assertEqual(child.wait(60), 1)

    def test_stderr_closed(self):
        reader, writer = os.pipe()
        os.close(reader)
        self.addCleanup(os.close, writer)
        child = self.broken_by(lambda child: self.server.signal(signal.SIGSTOP), stderr=writer, more=("--kill-after", "1m"))
        self.assertEqual(child.wait(60), 1)
        self.object = self.mark + "-2"
        child = self.broken_by(lambda child: self.server.signal(signal.SIGSTOP), before=("sh", "-c", 'exec "$@" 2>&-', "sh"), stderr=None)
        self.assertEqual(child.wait(60), 1)

    def test_cut_off_while_the_command_leaves_others(self):
        """It has ended; what it has left is ended under the lease, too."""
        self.own_server()
        child = self.start("sh", "-c", NASTY.replace("while :; do sleep 0.02; done", "exit 3"))
        self.begun(child)
        self.server.signal(signal.SIGSTOP)
        self.assert_exclusive()
        self.assertIn(child.wait(60), (1, 3))


class Ends(HoldTest):
    def test_lease_released_by_somebody(self):
        for stderr in (subprocess.PIPE, self.full_pipe()):
            child = self.start(more=("--kill-after", "100ms"), stderr=stderr)
            self.begun(child)
            self.release()
            self.assertEqual(child.wait(60), 1)
            self.assertEqual(alive(self.mark), [])
            if child.stderr is not None:
                self.assertIn(b"the lease is lost", child.stderr.read())

    def test_what_the_command_leaves(self):
        child = self.start("sh", "-c", NASTY.replace("while :; do sleep 0.02; done", "exit 3"), more=("--kill-after", "100ms"))
        self.assertEqual(child.wait(60), 3)
        self.assertEqual(alive(self.mark), [])
        self.assertIn(b"is stopped", child.stderr.read())
        self.assert_exclusive()

    def test_what_ends_by_itself_is_left_in_peace(self):
        child = self.start("bash", "-c", "exec > >(sleep 0.3; cat); echo begun")
        self.assertEqual(child.wait(60), 0)
        self.assertEqual((child.stdout.read(), child.stderr.read()), (b"begun\n", b""))

    def test_a_signal_ends_all(self):
        child = self.start("sh", "-c", NASTY.replace("trap '' TERM HUP\n", "trap 'exit 5' TERM\n"), more=("--kill-after", "100ms"))
        self.begun(child)
        child.terminate()
        self.assertEqual(child.wait(60), 5)
        self.assertEqual(alive(self.mark), [])

    def test_stopped_for_a_moment(self):
        """A stop signal stops the command too; continued, it goes on under the lease."""
        child = self.start("sh", "-c", "echo begun; exec sleep 1000", duration=30)
        self.begun(child)
        command, = [pid for pid, _ in alive(self.mark)]
        child.send_signal(signal.SIGTSTP)
        self.assertTrue(wait_until(lambda: state(child.pid)[0] == "T" and state(command)[0] == "T", 20))
        child.send_signal(signal.SIGCONT)
        self.assertTrue(wait_until(lambda: state(child.pid)[0] == "S" and state(command)[0] == "S", 20))
        child.terminate()
        self.assertEqual(child.wait(60), 143)

    @unittest.skipUnless(ROOT, "needs another user")
    def test_what_may_not_be_signalled_is_told(self):
        """hold itself is not root here, the command becomes somebody else by a set-user-ID program."""
        program = os.path.join(WORK, "su-sleep")
        source = program + ".c"
        with open(source, "w") as file:
            file.write("#include <stdio.h>\n#include <unistd.h>\n"
                       "int main(void) { if (setuid(0)) return 1; puts(\"begun\"); fflush(stdout); sleep(1000); return 0; }\n")
        subprocess.run(["gcc", "-o", program, source], check=True)
        os.chmod(WORK, 0o755)
        os.chmod(program, 0o4755)
        child = self.start(program, before=("setpriv", "--reuid=65534", "--clear-groups"), more=("--kill-after", "100ms"))
        if child.stdout.readline() != b"begun\n":
            self.skipTest("set-user-ID programs do not work here")
        self.release()
        self.assertEqual(child.wait(60), 1)
        os.set_blocking(child.stderr.fileno(), False)  # its other end is open yet
        self.assertIn(b"runs as another user", child.stderr.read())

    @unittest.skipUnless(ROOT, "needs a user without other processes")
    def test_no_process_for_the_command(self):
        """Neither for the guard, nor, where that one has started, for the command: it is said, and the lock is free at once."""
        for n in (1, 2):
            child = self.start("true", duration=3600, before=("prlimit", f"--nproc={n}", "setpriv", "--reuid=64998", "--clear-groups"))
            self.assertEqual(child.wait(60), 1)
            self.assertIn(b"cannot start a process for true: Resource temporarily unavailable", child.stderr.read())
            self.assertEqual(self.held(), "0")

    def test_no_such_command(self):
        for command, code in (("/no/such", 127), ("/etc", 126)):
            child = self.start(command, duration=3600)
            self.assertEqual(child.wait(60), code)
            self.assertIn(b"cannot run " + command.encode(), child.stderr.read())
            self.assertEqual(self.held(), "0")

    def test_descriptors(self):
        """The command gets those that hold has got, and no others."""
        read_end, write_end = os.pipe()
        child = self.start("sh", "-c", "echo begun; ls /proc/$$/fd", pass_fds=(read_end,))
        os.close(write_end)
        fds = child.communicate(timeout=60)[0].split()[1:]
        os.close(read_end)
        self.assertEqual(sorted(int(fd) for fd in fds), [0, 1, 2, read_end])

    def test_kill_after_is_cut_and_said(self):
        child = self.start("true", more=("--kill-after", "1m"))
        self.assertEqual(child.wait(60), 0)
        self.assertIn(b"--kill-after is cut to 0.66", child.stderr.read())
        self.assertEqual(self.start("true", more=("--kill-after", "600ms")).communicate(timeout=60)[1], b"")
        self.assertEqual(self.start("true").communicate(timeout=60)[1], b"")


class Waiting(HoldTest):
    def test_not_got(self):
        holder = self.start("sh", "-c", "echo begun; sleep 1000", duration=30)
        self.begun(holder)
        for more in ((), ("--wait", "700ms")):
            second = self.start("echo", "ran", more=more)
            out, err = second.communicate(timeout=60)
            self.assertEqual((second.returncode, out), (75, b""))
            self.assertIn(b"ALREADY_EXISTS", err)

    def test_got(self):
        holder = self.start("sh", "-c", "echo begun; sleep 1000", duration=30)
        self.begun(holder)
        second = self.start("echo", "ran", more=("--wait", "1m"))
        time.sleep(0.5)
        holder.terminate()
        self.assertEqual(second.communicate(timeout=60)[0], b"ran\n")
        self.assertEqual(second.returncode, 0)

    def test_ended_while_it_waits(self):
        holder = self.start("sh", "-c", "echo begun; sleep 1000", duration=30)
        self.begun(holder)
        second = self.start("echo", "ran", more=("--wait", "1m"))
        self.assertTrue(wait_until(lambda: b"SigBlk:\t0000000000014007" in read(second.pid, "status"), 20))
        second.terminate()
        self.assertEqual(second.communicate(timeout=60)[0], b"")
        self.assertEqual(second.returncode, 143)

    def test_ended_while_the_lease_is_taken(self):
        """The request has been sent: its lease is released."""
        blocker = cluster.connect(user="app", autocommit=False)
        self.addCleanup(blocker.close)
        cursor = blocker.cursor()
        cursor.execute("SELECT gt_lease_create(%s, 'custom')", (self.object,))  # the object's row is locked
        child = self.start("echo", "ran")
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND usename = 'app'"
        self.assertTrue(wait_until(lambda: cluster.tool("psql", "-qXAtc", waiting).strip() != "0", 30))
        child.terminate()
        wait_until(lambda: int(re.search(rb"ShdPnd:\t(\w+)", read(child.pid, "status")).group(1), 16) & 1 << 14 == 0, 20)
        blocker.rollback()
        self.assertEqual(child.wait(60), 143)
        self.assert_exclusive()


class TerminalTest(HoldTest):
    def spawn(self, words):
        fd, terminal = pty.openpty()  # not pty.fork(): grpcio may have fork() wait until it is idle, which is never
        name = os.ttyname(terminal)
        pid = os.posix_spawnp(words[0], words, self.environment(), setsid=True, file_actions=(
            (os.POSIX_SPAWN_OPEN, 0, name, os.O_RDWR, 0), (os.POSIX_SPAWN_DUP2, 0, 1), (os.POSIX_SPAWN_DUP2, 0, 2)))
        os.close(terminal)
        self.addCleanup(os.close, fd)
        self.addCleanup(lambda: os.waitpid(pid, 0) if state(pid)[1] == os.getpid() else None)
        self.addCleanup(lambda: os.kill(pid, signal.SIGKILL) if state(pid)[1] == os.getpid() else None)
        self.screen = ""
        return pid, fd

    def wait_for(self, fd, pattern, limit=30):
        def look():
            while select.select([fd], [], [], 0)[0]:
                try:
                    data = os.read(fd, 4096).decode(errors="replace")
                except OSError:
                    break
                self.screen += data
            return re.search(pattern, self.screen)
        found = wait_until(look, limit)
        self.assertTrue(found, f"no {pattern} in {self.screen!r}")
        self.screen = self.screen[found.end():]

    def exit_code(self, pid):
        done = wait_until(lambda: os.waitpid(pid, os.WNOHANG) if state(pid)[0] == "Z" else None, 60)
        self.assertTrue(done, "it still runs")
        return os.waitstatus_to_exitcode(done[1])

    def shell(self):
        pid, fd = self.spawn(["bash", "--norc", "--noprofile", "-i"])
        os.write(fd, b"stty -echo; PS1='ready> '; bind 'set enable-bracketed-paste off'; echo st''arted\n")
        self.wait_for(fd, "started")
        self.wait_for(fd, "ready> ")
        return pid, fd

    def run_in(self, fd, *command, **how):
        words = " ".join("'" + word.replace("'", "'\\''") + "'" for word in self.words(*command, **how))
        os.write(fd, (words + "\n").encode())


class Terminal(TerminalTest):
    """hold in a terminal, alone and under an interactive shell."""

    def test_pipeline_of_a_lost_lease(self):
        pid, fd = self.spawn(self.words("sh", "-c", "echo begun; (while :; do sleep 1; done) | cat"))
        self.wait_for(fd, "begun")
        self.release()
        self.assertEqual(self.exit_code(pid), 1)
        self.assertEqual(alive(self.mark), [])

    def test_keys(self):
        for key, code in ((b"\x03", 130), (b"\x1c", 131), (b"\x04", 0)):
            self.object = f"{self.mark}-{code}"
            pid, fd = self.spawn(self.words("sh", "-c", "echo begun; exec cat"))
            self.wait_for(fd, "begun")
            os.write(fd, b"hello\n")
            self.wait_for(fd, "hello\r\nhello\r\n")
            os.write(fd, key)
            self.assertEqual(self.exit_code(pid), code)

    def test_output_is_held(self):
        """Ctrl-S: nobody who writes to the terminal gets on."""
        self.own_server()
        pid, fd = self.spawn(self.words("sh", "-c", "trap '' TERM; echo begun; while :; do echo more; sleep 0.05; done", more=("--kill-after", "1m")))
        self.wait_for(fd, "begun")
        os.write(fd, b"\x13")
        self.server.signal(signal.SIGSTOP)
        self.assert_exclusive()
        os.write(fd, b"\x11")
        self.assertEqual(self.exit_code(pid), 1)

    def test_stopped_and_continued(self):
        pid, fd = self.shell()
        self.run_in(fd, "sh", "-c", "echo begun; exec cat", duration=30)
        self.wait_for(fd, "begun")
        for _ in range(2):
            os.write(fd, b"\x1a")
            self.wait_for(fd, "Stopped")
            self.wait_for(fd, "ready> ")
            os.write(fd, b"fg\n")
            self.wait_for(fd, "lease")
            os.write(fd, b"hello\n")
            self.wait_for(fd, "hello\r\n")
        os.write(fd, b"\x1a")
        self.wait_for(fd, "ready> ")
        os.write(fd, b"bg\n")
        self.wait_for(fd, "Stopped|ready> ")  # it reads from the terminal
        os.write(fd, b"fg\n")
        self.wait_for(fd, "lease")
        os.write(fd, b"\x03")
        self.wait_for(fd, "ready> ")
        os.write(fd, b"echo code=$?\n")
        self.wait_for(fd, "code=130")

    def test_pipeline_reads_the_terminal(self):
        """hold does not take it away from who else is in its job; its command gets it when it reads from it."""
        pid, fd = self.shell()
        words = " ".join("'" + word + "'" for word in self.words("sh", "-c", "echo begun; sleep 1; read x; echo mine $x; sleep 0.1", duration=30))
        os.write(fd, (words + " | { read x; echo $x; read x < /dev/tty; echo yours $x; cat; }\n").encode())
        self.wait_for(fd, "begun\r\n")
        os.write(fd, b"one\n")
        self.wait_for(fd, "yours one")
        os.write(fd, b"two\n")
        self.wait_for(fd, "mine two")
        self.wait_for(fd, "ready> ")

    def test_stopped_for_too_long(self):
        pid, fd = self.shell()
        self.run_in(fd, "sh", "-c", "trap '' TERM; echo begun; (while :; do sleep 0.05; done) | cat; exec cat")
        self.wait_for(fd, "begun")
        os.write(fd, b"\x1a")
        self.wait_for(fd, "Stopped")
        self.assert_held_command_is_gone()
        os.write(fd, b"fg\n")
        self.wait_for(fd, "could not be renewed")

    def assert_held_command_is_gone(self):
        """The shell has the mark, too."""
        left = [p for p in self.get_lock() if b"bash" not in p[1]]
        self.assertEqual(left, [])

    def test_hangup(self):
        """The terminal goes away; who lives on does so under the lease."""
        self.own_server()
        pid, fd = self.spawn(self.words("sh", "-c", NASTY))
        self.wait_for(fd, "begun")
        with os.fdopen(os.dup(fd)):
            os.dup2(os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC), fd)
        time.sleep(0.5)
        self.server.signal(signal.SIGSTOP)
        self.assert_exclusive()
        self.exit_code(pid)

    def test_background(self):
        pid, fd = self.shell()
        os.write(fd, b"set -m; stty tostop\n")
        words = " ".join("'" + word.replace("'", "'\\''") + "'" for word in self.words("sh", "-c", NASTY))
        os.write(fd, (words.replace("\n", "\n") + " & jobs\n").encode())
        self.assertTrue(wait_until(lambda: len(alive(self.mark)) > 6, 30))
        os.write(fd, b"kill -TSTP %1\n")
        self.assert_held_command_is_gone()

    def test_script_is_interrupted_with_its_command(self):
        """Ctrl-C is for the whole job: the script around hold does not go on."""
        script = " ".join("'" + word + "'" for word in self.words("sleep", "1000")) + "; echo went on"
        pid, fd = self.spawn(["sh", "-c", f"echo begun; {script}"])
        self.wait_for(fd, "begun")
        self.assertTrue(wait_until(lambda: [p for p in alive(self.mark) if p[1].startswith(b"sleep")], 30))
        os.write(fd, b"\x03")
        self.exit_code(pid)
        self.assertNotIn("went on", self.screen)


def can_unshare(*flags):
    return ROOT and subprocess.run(["unshare", "--pid", "--fork", *flags, "true"], capture_output=True).returncode == 0


@unittest.skipUnless(can_unshare(), "needs a PID namespace of its own")
class ProcessOne(HoldTest):
    def hold_in(self, *flags, command=NASTY, **how):
        child = self.start("sh", "-c", command, before=("unshare", "--pid", "--fork", *flags), **how)
        self.begun(child)
        return child

    def test_exclusive(self):
        """With a /proc of its own, and with the one of the namespace around it, which has other numbers."""
        for flags in ((), ("--mount-proc",)):
            with self.subTest(flags):
                if not can_unshare(*flags):
                    self.skipTest("nothing can be mounted in a chroot")
                self.object = f"{self.mark}-{len(flags)}"
                self.own_server()
                child = self.hold_in(*flags)
                self.server.signal(signal.SIGSTOP)
                self.assert_exclusive()
                self.assertEqual(child.wait(60), 1)

    def test_reaps(self):
        child = self.hold_in(command="for i in 1 2 3 4 5 6 7 8; do (sleep 0.1 &); done; echo begun; sleep 1000")
        self.assertTrue(wait_until(lambda: len(alive(self.mark)) == 2, 30))  # sh and its sleep
        holder = next(p for p in processes() if is_hold(p) and state(p)[1] == child.pid)
        outsiders = subprocess.run(["nsenter", "--pid", "--target", str(holder), "sh", "-c", "(sleep 0.2 &) ; (sleep 0.2 &)"])
        self.assertEqual(outsiders.returncode, 0)
        time.sleep(0.3)
        parents = {holder, guard_of(holder)}
        self.assertTrue(wait_until(lambda: not [p for p in processes() if state(p)[0] == "Z" and state(p)[1] in parents], 30))
        os.kill(holder, signal.SIGTERM)
        self.assertEqual(child.wait(60), 143)


class Everywhere(TerminalTest):
    """The nasty command wherever hold may run, all of them at once, and all that may become of it there."""

    def place(self, name):
        nasty = ("sh", "-c", NASTY)
        if name == "terminal":
            self.spawn(self.words(*nasty, duration=6))
        elif name == "background":
            words = " ".join("'" + word.replace("'", "'\\''") + "'" for word in self.words(*nasty, duration=6))
            os.write(self.shell()[1], (words + " &\n").encode())
        elif name == "setsid":
            self.start(duration=6, before=("setsid",))
        elif name == "another user":
            self.start(duration=6, before=("setpriv", "--reuid=65534", "--clear-groups"))
        elif name == "command of another user":
            self.start("setpriv", "--reuid=65534", "--clear-groups", *nasty, duration=6)
        elif name == "process 1":
            self.start(duration=6, before=("unshare", "--pid", "--fork"))
        elif name == "stderr full":
            self.start(duration=6, stderr=self.full_pipe())
        elif name == "stderr closed":
            self.start(duration=6, before=("sh", "-c", 'exec "$@" 2>&-', "sh"), stderr=None)
        elif name == "under another hold":
            self.start(*[word if word != self.object else f"inner {word}" for word in self.words(*nasty, duration=60)], duration=6)
        else:
            self.start(duration=6)

    def holder(self, mark):
        for pid in processes():
            if mark.encode() in read(pid, "environ") and is_hold(pid) and read(pid, "comm") != b"gt-guard\n" and not is_hold(state(pid)[1]):
                return pid

    def said(self, mark):
        child = next((child for child in self.children if mark in child.args), None)
        if child is None or child.stderr is None:
            return self.screen
        os.set_blocking(child.stderr.fileno(), False)
        return f"{child.poll()} {child.stderr.read()}"

    def contend(self, held):
        name, mark = held
        left = [process for process in self.get_lock(60, mark) if b"bash" not in process[1]]
        return f"{name}: {left}" if left else None

    def everywhere(self, act):
        self.own_server()
        places = ["plain", "terminal", "background", "setsid", "stderr full", "stderr closed", "under another hold"]
        if ROOT:
            places += ["another user", "command of another user"]
        if can_unshare():
            places.append("process 1")
        held = []
        for name in places:
            self.object = self.mark = f"mark-{uuid.uuid4()}"
            self.place(name)
            self.addCleanup(self.sweep, self.mark)
            held.append((name, self.mark))
        for name, mark in held:
            self.assertTrue(wait_until(lambda mark=mark: len(alive(mark)) > 6, 20), f"{name}: {alive(mark)} {self.said(mark)}")
        for name, mark in held:
            act(self.holder(mark))
        with concurrent.futures.ThreadPoolExecutor(len(held)) as pool:
            self.assertEqual([problem for problem in pool.map(self.contend, held) if problem], [])

    def test_server_stopped(self):
        self.everywhere(lambda holder: self.server.signal(signal.SIGSTOP))

    def test_hold_killed(self):
        self.everywhere(lambda holder: os.kill(holder, signal.SIGKILL))

    def test_hold_stopped(self):
        self.everywhere(lambda holder: os.kill(holder, signal.SIGSTOP))

    def test_guard_killed(self):
        self.everywhere(lambda holder: os.kill(guard_of(holder), signal.SIGKILL))


if __name__ == "__main__":
    unittest.main()
