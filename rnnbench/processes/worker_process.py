"""A process for what may crash or hang: start it, ask it with a time limit, and end it with everything it started.

Requests and answers are JSON lines through two pipes of their own.  Standard output is not used, so nothing that a library
prints there can be taken for an answer.  What comes through the pipe and is no answer of the kind that was asked for ends
the process: what it would say next could not be trusted either.
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
from rnnbench.processes.patience import Patience, report_compiling
from rnnbench.processes.platforms import require_supported
from rnnbench.processes.scratch import MARK, kill_marked, own_folder

GRACE = 2.0  # seconds between TERM and KILL

STOPPING = 1.0
"""Seconds in which the system stops a process; one that waits for a device may not."""

MAX_REPLY_BYTES = 1 << 24
"""Of one answer."""

MAX_LOG_BYTES = 1 << 16
"""Bytes at the end of what a worker printed, among which its last words are looked for."""

_numbers = itertools.count()


class WorkerFailure(Exception):
    """What became of a request; ``reason`` is "error", "crashed" or "timeout".

    "crashed" is also said of a worker that was ended because it answered with what is no answer.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class _Reply(msgspec.Struct, forbid_unknown_fields=True):
    """One of three: what the call returned, the words of what it raised, or that it compiles now, or has done."""

    answer: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    error: str | None = None
    compiling: bool | None = None


class WorkerProcess:
    """``python -m MODULE BACKEND REQUESTS REPLIES`` in a process group of its own; the module's main is ``serve``.

    It ends when the thread that made it does, whatever it is doing.
    """

    answers: ClassVar[Mapping[str, Any]] = {}
    """The type of the answer to each call."""

    def __init__(self, module: str, backend: str, environment: Mapping[str, str]) -> None:
        require_supported()
        self.backend = backend
        self._mark = f"{own_folder().name}/{next(_numbers)}"
        self._strays: list[int] = []
        request_end, self._requests = os.pipe()
        self._replies, reply_end = os.pipe()
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  # lives as long as the worker
        starter = [str(Path(bootstrap.__file__)), str(os.getpid())]
        self._process = subprocess.Popen(
            [sys.executable, "-P", *starter, module, backend, str(request_end), str(reply_end)],
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
        """The backend's ``info()``, once it is imported; raises WorkerFailure."""
        return self._answer("info", dict[str, Any], Patience(self._process.pid, time_limit), " on import")

    def ask(self, call: str, time_limit: float, **arguments: Any) -> Any:
        """Send one request and wait for its answer; raises WorkerFailure, after which only an "error" can be asked again."""
        request = msgspec.json.encode({"call": call, "arguments": arguments}) + b"\n"
        self._receive()
        if self._pending:
            raise self._garbled(f"sent {_shown(self._pending)} unasked")
        patience = Patience(self._process.pid, time_limit)
        self._send(request, patience)
        return self._answer(call, self.answers.get(call, Any), patience)

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        """Kill the process and its group at once; a thread that waits for its answer is told that it crashed."""
        if not self._log.closed:  # else it has ended, and its number may be another's
            self._signal(signal.SIGKILL)

    def adopt(self, marked: Mapping[str, Sequence[int]]) -> None:
        """Take in those of some processes, by their marks, that this one has started and that are not of its group."""
        self._strays = [number for number in marked.get(self._mark, ()) if _group(number) not in (self._process.pid, None)]

    def stop(self) -> None:
        """Have the process, its group and its adopted strays run no more until ``go_on``; all its threads have stopped then."""
        self._signal_all(signal.SIGSTOP)
        if not hasattr(os, "waitid"):  # macOS before Python 3.13
            return
        deadline = time.monotonic() + STOPPING
        with contextlib.suppress(ChildProcessError):  # it has ended
            how = os.WSTOPPED | os.WEXITED | os.WNOHANG | os.WNOWAIT
            while os.waitid(os.P_PID, self._process.pid, how) is None and time.monotonic() < deadline:
                time.sleep(1e-5)

    def go_on(self) -> None:
        self._signal_all(signal.SIGCONT)

    def processor_seconds(self) -> float | None:
        """What the process and its strays have used, with all their threads, those that have ended too; Linux alone."""
        if sys.platform != "linux" or not self.alive:
            return None
        return sum(_processor_seconds(number) for number in (self._process.pid, *self._strays))

    def end(self) -> None:
        """End the process, its group and whatever else it started: TERM, then KILL.  May be called again."""
        if self._log.closed:
            return
        for number, patience in ((signal.SIGTERM, GRACE), (signal.SIGKILL, None)):
            self._signal(number)
            self._signal(signal.SIGCONT)  # where it was stopped
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(patience)
                break
        self.kill()  # whatever the worker started and left behind
        kill_marked(self._mark)  # also in a session of its own
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

    def _send(self, request: bytes, patience: Patience) -> None:
        left = memoryview(request)
        try:
            while left:
                self._wait(self._requests, selectors.EVENT_WRITE, patience)
                left = left[os.write(self._requests, left) :]
        except BrokenPipeError:
            raise self._crashed() from None

    def _answer(self, call: str, kind: Any, patience: Patience, when: str = "") -> Any:
        while True:
            line = self._line(patience, when)
            try:
                reply = msgspec.json.decode(line, type=_Reply)
                if reply.compiling is not None:
                    patience.compiles(reply.compiling)
                    continue
                if reply.error is not None:
                    raise WorkerFailure("error", reply.error)
                if reply.answer is msgspec.UNSET:
                    raise msgspec.ValidationError("neither an answer nor an error")
                return msgspec.json.decode(reply.answer, type=kind)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                raise self._garbled(f"answered {_shown(line)} to {call}: {error}") from None

    def _line(self, patience: Patience, when: str) -> bytes:
        while b"\n" not in self._pending:
            self._wait(self._replies, selectors.EVENT_READ, patience, when)
            if not self._receive():
                raise self._crashed(when)
            if len(self._pending) > MAX_REPLY_BYTES:
                raise self._garbled(f"sent {_shown(self._pending)} and more than {MAX_REPLY_BYTES >> 20} MiB after it")
        line, _, self._pending = self._pending.partition(b"\n")
        return line

    def _wait(self, pipe: int, event: int, patience: Patience, when: str = "") -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(pipe, event)
            while not selector.select(patience.left):
                if not patience.left:  # else it was kept from a processor meanwhile
                    self.end()
                    raise WorkerFailure("timeout", f"{patience}{when}")

    def _receive(self) -> bool:
        """Take in what has been sent; False where the pipe was closed."""
        try:
            received = os.read(self._replies, 1 << 20)
        except BlockingIOError:
            return True
        self._pending += received
        return bool(received)

    def _garbled(self, what: str) -> WorkerFailure:
        self.end()
        return WorkerFailure("crashed", f"the worker was ended: it {what}")

    def _crashed(self, when: str = "") -> WorkerFailure:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(GRACE)
        code = self._process.poll()
        said = self._last_words()
        self.end()
        if code is None:
            how = "closed its pipe"
        else:
            how = f"was killed by {_signal_name(-code)}" if code < 0 else f"ended with exit code {code}"
        return WorkerFailure("crashed", f"the worker {how}{when}" + (f": {said}" if said else ""))

    def _last_words(self) -> str:
        self._log.seek(max(0, self._log.seek(0, os.SEEK_END) - MAX_LOG_BYTES))
        lines = self._log.read().decode("utf-8", "replace").split("\n")
        return next((line.strip()[:300] for line in reversed(lines) if line.strip()), "")


def _group(number: int) -> int | None:
    try:
        return os.getpgid(number)
    except ProcessLookupError:
        return None


def _processor_seconds(number: int) -> float:
    """By the processor clock of a process, clock_getcpuclockid(3): the scheduler's own count, to the nanosecond."""
    try:
        return time.clock_gettime((~number << 3) | 2)
    except OSError:  # it has ended
        return 0.0


def _shown(line: bytes) -> str:
    return repr(line[:60])[1:] + ("..." if len(line) > 60 else "")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time one
        return f"signal {number}"


def serve(load: Callable[[str], Any]) -> None:
    """The worker's side: greet with ``info()`` of what ``load`` makes of the backend's name, then answer each request.

    A request is answered by the method of its name, its arguments made what their annotations say.  An exception is an
    answer too: {"error": ...}; the next request finds the process as it was.
    """
    name, requests, replies = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    with os.fdopen(requests, "rb") as incoming, os.fdopen(replies, "wb") as outgoing:

        def send(line: bytes) -> None:
            outgoing.write(line + b"\n")
            outgoing.flush()

        try:
            worker = load(name)
            greeting = _encoded(worker.info())
        except Exception as error:  # the other side decides what it means
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
