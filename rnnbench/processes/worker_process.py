"""Run code that may crash or hang in a worker process: start it, send requests with a time limit, and end it completely.

Requests and replies are JSON lines on two dedicated pipes; standard output stays free for whatever libraries print.  A
malformed reply ends the worker, as its next replies could not be trusted either.
"""

import contextlib
import inspect
import itertools
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import msgspec

from rnnbench.processes import bootstrap
from rnnbench.processes.deadlines import Deadline, report_compiling
from rnnbench.processes.platforms import require_supported
from rnnbench.processes.scratch import MARK, kill_marked, own_folder

GRACE = 2.0  # seconds between TERM and KILL

STOP_TIMEOUT = 1.0
"""Seconds to wait until a process has stopped; one that waits for a device may not stop."""

MAX_REPLY_BYTES = 1 << 24
"""Largest reply in bytes."""

MAX_LOG_BYTES = 1 << 16
"""Tail of a worker's output that is searched for its last line, in bytes."""

_worker_numbers = itertools.count()


class WorkerFailure(Exception):
    """A failed request; ``reason`` is "error", "crashed" or "timeout".

    "crashed" includes a worker that was ended because of a malformed reply.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class _Reply(msgspec.Struct, forbid_unknown_fields=True):
    """One of: the returned value, the message of an error, or that compiling has begun or finished."""

    answer: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    error: str | None = None
    compiling: bool | None = None


class WorkerProcess:
    """``python -m MODULE BACKEND REQUESTS REPLIES`` in its own process group; MODULE calls ``serve``.

    The process ends with the thread that created it, whatever it is doing.
    """

    answers: ClassVar[Mapping[str, Any]] = {}
    """The type of each request's answer."""

    def __init__(self, module: str, backend: str, environment: Mapping[str, str]) -> None:
        require_supported()
        self.backend = backend
        self._mark = f"{own_folder().name}/{next(_worker_numbers)}"
        self._strays: list[int] = []
        request_end, self._requests = os.pipe()
        self._replies, reply_end = os.pipe()
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  # lives as long as the worker
        bootstrap_arguments = [str(Path(bootstrap.__file__)), str(os.getpid())]
        self._process = subprocess.Popen(
            [sys.executable, "-P", *bootstrap_arguments, module, backend, str(request_end), str(reply_end)],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            env={**environment, MARK: self._mark},
            pass_fds=(request_end, reply_end),
            start_new_session=True,
        )
        os.close(request_end)
        os.close(reply_end)
        os.set_blocking(self._replies, False)
        os.set_blocking(self._requests, False)
        self._pending = b""

    def greeting(self, time_limit: float) -> dict[str, Any]:
        """Wait for the import and return the backend's ``info()``; raises WorkerFailure."""
        return self._answer("info", dict[str, Any], Deadline(self._process.pid, time_limit), " on import")

    def ask(self, call: str, time_limit: float, **arguments: Any) -> Any:
        """Send a request and wait for its answer.

        Raises WorkerFailure; the worker survives only an "error".
        """
        request = msgspec.json.encode({"call": call, "arguments": arguments}) + b"\n"
        self._receive()
        if self._pending:
            raise self._malformed(f"sent {_excerpt(self._pending)} unasked")
        deadline = Deadline(self._process.pid, time_limit)
        self._send(request, deadline)
        return self._answer(call, self.answers.get(call, Any), deadline)

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        """Kill the process and its group at once; a pending ``ask`` in another thread fails with "crashed"."""
        if not self._log.closed:  # after `end` the process ID may belong to another process
            self._signal(signal.SIGKILL)

    def adopt(self, marked: Mapping[str, Sequence[int]]) -> None:
        """Adopt the processes that this worker started outside its group; ``marked`` as ``marked_processes`` returns it."""
        self._strays = [number for number in marked.get(self._mark, ()) if _group(number) not in (self._process.pid, None)]

    def stop(self) -> None:
        """Stop the process, its group and the adopted processes until ``go_on``; returns once all threads have stopped."""
        self._signal_all(signal.SIGSTOP)
        if not hasattr(os, "waitid"):  # macOS before Python 3.13
            return
        deadline = time.monotonic() + STOP_TIMEOUT
        with contextlib.suppress(ChildProcessError):  # the process has ended
            options = os.WSTOPPED | os.WEXITED | os.WNOHANG | os.WNOWAIT
            while os.waitid(os.P_PID, self._process.pid, options) is None and time.monotonic() < deadline:
                time.sleep(1e-5)

    def go_on(self) -> None:
        self._signal_all(signal.SIGCONT)

    def processor_seconds(self) -> float | None:
        """Return the processor seconds of the process and its adopted processes, ended threads included; Linux only."""
        if sys.platform != "linux" or not self.alive:
            return None
        return sum(_processor_seconds(number) for number in (self._process.pid, *self._strays))

    def end(self) -> None:
        """End the process, its group and everything it started, by TERM and then KILL; idempotent."""
        if self._log.closed:
            return
        for number, timeout in ((signal.SIGTERM, GRACE), (signal.SIGKILL, None)):
            self._signal(number)
            self._signal(signal.SIGCONT)  # in case it was stopped
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout)
                break
        self.kill()  # processes of its group that the worker left behind
        kill_marked(self._mark)  # those in other sessions too
        os.close(self._requests)
        os.close(self._replies)
        self._log.close()

    def _signal_all(self, number: int) -> None:
        if self.alive:
            self._signal(number)
        for stray in self._strays:
            with contextlib.suppress(ProcessLookupError):
                os.kill(stray, number)

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def _send(self, request: bytes, deadline: Deadline) -> None:
        unsent = memoryview(request)
        try:
            while unsent:
                self._wait(self._requests, selectors.EVENT_WRITE, deadline)
                unsent = unsent[os.write(self._requests, unsent) :]
        except BrokenPipeError:
            raise self._crashed() from None

    def _answer(self, call: str, kind: Any, deadline: Deadline, when: str = "") -> Any:
        while True:
            line = self._line(deadline, when)
            try:
                reply = msgspec.json.decode(line, type=_Reply)
                if reply.compiling is not None:
                    deadline.set_compiling(reply.compiling)
                    continue
                if reply.error is not None:
                    raise WorkerFailure("error", reply.error)
                if reply.answer is msgspec.UNSET:
                    raise msgspec.ValidationError("neither an answer nor an error")
                return msgspec.json.decode(reply.answer, type=kind)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                raise self._malformed(f"answered {_excerpt(line)} to {call}: {error}") from None

    def _line(self, deadline: Deadline, when: str) -> bytes:
        while b"\n" not in self._pending:
            self._wait(self._replies, selectors.EVENT_READ, deadline, when)
            if not self._receive():
                raise self._crashed(when)
            if len(self._pending) > MAX_REPLY_BYTES:
                raise self._malformed(f"sent {_excerpt(self._pending)} and more than {MAX_REPLY_BYTES >> 20} MiB after it")
        line, _, self._pending = self._pending.partition(b"\n")
        return line

    def _wait(self, pipe: int, event: int, deadline: Deadline, when: str = "") -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(pipe, event)
            while not selector.select(deadline.left):
                if not deadline.left:  # else the process was waiting for a processor
                    self.end()
                    raise WorkerFailure("timeout", f"{deadline}{when}")

    def _receive(self) -> bool:
        """Read what has arrived; return False if the pipe is closed."""
        try:
            received = os.read(self._replies, 1 << 20)
        except BlockingIOError:
            return True
        self._pending += received
        return bool(received)

    def _malformed(self, what: str) -> WorkerFailure:
        self.end()
        return WorkerFailure("crashed", f"the worker was ended: it {what}")

    def _crashed(self, when: str = "") -> WorkerFailure:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(GRACE)
        code = self._process.poll()
        last_line = self._last_line()
        self.end()
        if code is None:
            how = "closed its pipe"
        else:
            how = f"was killed by {_signal_name(-code)}" if code < 0 else f"ended with exit code {code}"
        return WorkerFailure("crashed", f"the worker {how}{when}" + (f": {last_line}" if last_line else ""))

    def _last_line(self) -> str:
        self._log.seek(max(0, self._log.seek(0, os.SEEK_END) - MAX_LOG_BYTES))
        lines = self._log.read().decode("utf-8", "replace").split("\n")
        return next((line.strip()[:300] for line in reversed(lines) if line.strip()), "")


def _group(number: int) -> int | None:
    try:
        return os.getpgid(number)
    except ProcessLookupError:
        return None


def _processor_seconds(number: int) -> float:
    """Read the processor clock of a process, clock_getcpuclockid(3): the scheduler's count, to the nanosecond."""
    try:
        return time.clock_gettime((~number << 3) | 2)
    except OSError:  # the process has ended
        return 0.0


def _excerpt(line: bytes) -> str:
    return repr(line[:60])[1:] + ("..." if len(line) > 60 else "")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"


def serve(load: Callable[[str], Any]) -> None:
    """Run the worker's side: send the ``info()`` of ``load(backend)``, then answer each request.

    The method of the same name answers a request; arguments are converted to the types of its annotations.  An exception is
    answered by {"error": ...}, and the worker goes on.
    """
    name, requests, replies = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    with os.fdopen(requests, "rb") as incoming, os.fdopen(replies, "wb") as outgoing:

        def send(line: bytes) -> None:
            outgoing.write(line + b"\n")
            outgoing.flush()

        try:
            worker = load(name)
            greeting = _encoded(worker.info())
        except Exception as error:  # the parent decides what it means
            send(_encoded_error(error))
            return
        send(greeting)
        reports = False
        for line in incoming:
            reports = reports or report_compiling(lambda compiling: send(msgspec.json.encode({"compiling": compiling})))
            try:
                answer = _encoded(_answer(worker, **json.loads(line)))
            except Exception as error:  # as above
                answer = _encoded_error(error)
            send(answer)


def _answer(worker: Any, call: str, arguments: Mapping[str, Any]) -> Any:
    method = getattr(worker, call)
    kinds = inspect.signature(method).parameters
    return method(**{name: msgspec.convert(value, kinds[name].annotation) for name, value in arguments.items()})


def _encoded(answer: Any) -> bytes:
    return msgspec.json.encode({"answer": answer}, enc_hook=str)


def _encoded_error(error: Exception) -> bytes:
    return msgspec.json.encode({"error": f"{type(error).__name__}: {error}"})
