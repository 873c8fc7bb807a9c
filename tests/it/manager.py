"""A service manager, as far as its service can tell: sd_notify(3), sd_listen_fds(3), systemd.service(5).

usage: manager.py DIRECTORY PROGRAM [ARGUMENT...]

Prints a line per event: `started PID`, `ended PID CODE`, and what the service says as `PID KEY=VALUE`. Reads commands,
a line each: `restart` (SIGTERM, wait, start), `crash` (SIGKILL, start), `signal NAME`, `listen ADDRESS` (a socket of its
own, as a .socket unit has; before `start`), `start`, `stop`, `stored` (prints what is kept).
"""
import ctypes
import fcntl
import os
import select
import signal
import socket
import struct
import sys

directory, command = sys.argv[1], sys.argv[2:]
libc = ctypes.CDLL(None)
libc.prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER: a successor is no child of ours
path = os.path.join(directory, "notify")
notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
notify.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
notify.bind(path)
stored, own, main, ours = [], [], None, set()
# Unbuffered: what waits in a buffer is nothing that `select` would tell of.
stdin = os.fdopen(0, "rb", buffering=0)


def say(*words):
    print(*words, flush=True)


def start():
    global main
    fds = own + stored
    pid = os.fork()
    if pid == 0:
        libc.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        high = [fcntl.fcntl(fd, fcntl.F_DUPFD, 500) for _, fd in fds]
        for n, fd in enumerate(high):
            os.dup2(fd, 3 + n, inheritable=True)
        os.closerange(3 + len(high), 1000)
        env = dict(os.environ, NOTIFY_SOCKET=path, FDSTORE="64", WATCHDOG_USEC="1000000")
        env.update(WATCHDOG_PID=str(os.getpid()))
        if high:
            names = ":".join(name for name, _ in fds)
            env.update(LISTEN_FDS=str(len(high)), LISTEN_PID=str(os.getpid()), LISTEN_FDNAMES=names)
        out = os.open(os.path.join(directory, "pilotfish.log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        null = os.open("/dev/null", os.O_RDONLY)
        os.dup2(null, 0), os.dup2(out, 1), os.dup2(out, 2)
        os.execve(command[0], command, env)
    main = pid
    ours.add(pid)
    say("started", pid)


def same(a, b):
    return os.fstat(a).st_ino == os.fstat(b).st_ino


def hear():
    """One datagram, and what systemd makes of it."""
    global main
    text, control, _, _ = notify.recvmsg(65536, socket.CMSG_SPACE(64 * 4) + socket.CMSG_SPACE(12))
    fds, pid = [], 0
    for level, kind, data in control:
        if kind == socket.SCM_RIGHTS:
            fds += struct.unpack("%di" % (len(data) // 4), data)
        elif kind == socket.SCM_CREDENTIALS:
            pid = struct.unpack("3i", data)[0]
    lines = text.decode().split("\n")
    fields = dict(line.split("=", 1) for line in lines if "=" in line)
    if pid != main:
        return say(pid, "ignored", *fields)  # NotifyAccess=main
    for key, value in fields.items():
        say(pid, "%s=%s" % (key, value))
    name = fields.get("FDNAME", "stored")
    if "FDSTORE" in fields:
        for fd in fds:
            if any(same(fd, known) for _, known in stored):
                os.close(fd)
            else:
                stored.append((name, fd))
    if "FDSTOREREMOVE" in fields:
        for known in [known for known in stored if known[0] == name]:
            stored.remove(known)
            os.close(known[1])
    if "MAINPID" in fields:
        main = int(fields["MAINPID"])
        ours.add(main)


def end(sig):
    pid = main
    os.kill(pid, sig)
    while pid in ours:
        turn(0.005)


def listen(address):
    if address.startswith("unix:"):
        one = socket.socket(socket.AF_UNIX)
        one.bind(address[5:])
    else:
        host, port = address.rsplit(":", 1)
        one = socket.socket()
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.bind((host, int(port)))
    one.listen(128)
    own.append(("activation", one.detach()))


def obey(words):
    if words[0] == "restart":
        end(signal.SIGTERM)
        start()
    elif words[0] == "crash":
        end(signal.SIGKILL)
        start()
    elif words[0] == "stop":
        end(signal.SIGTERM)
    elif words[0] == "signal":
        os.kill(main, getattr(signal, "SIG" + words[1]))
    elif words[0] == "listen":
        listen(words[1])
    elif words[0] == "stored":
        say("stored", *sorted(name for name, _ in stored))
    else:
        start()


def turn(wait, also=()):
    ready, _, _ = select.select([notify, *also], [], [], wait)
    if notify in ready:
        hear()
    elif ours:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                ours.clear()
                break
            if pid == 0:
                break
            ours.discard(pid)
            say("ended", pid, os.waitstatus_to_exitcode(status))
    return ready


while True:
    if stdin in turn(0.02, [stdin]):
        line = stdin.readline().decode()
        if not line:
            break
        obey(line.split())
