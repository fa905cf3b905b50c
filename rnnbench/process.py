"""A process for what may crash or hang: start it, ask it with a time limit, and end it with everything it started.

Requests and answers are JSON lines through two pipes.  Standard output is not used, so nothing that a library prints there
can be taken for an answer.
"""

import contextlib
import inspect
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from rnnbench.patience import Patience, report_compiling
from rnnbench.system import require_supported

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NPROC",  # XLA's
)

GRACE = 2.0  # seconds between TERM and KILL


class WorkerFailure(Exception):
    """What became of a request; ``reason`` is "error", "crashed" or "timeout"."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class WorkerProcess:
    """``python -m MODULE BACKEND REQUESTS REPLIES`` in a process group of its own; the module's main is ``serve``."""

    def __init__(self, module: str, backend: str, environment: Mapping[str, str]) -> None:
        require_supported()
        self.backend = backend
        request_end, self._requests = os.pipe()
        self._replies, reply_end = os.pipe()
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  # lives as long as the worker
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", module, backend, str(request_end), str(reply_end)],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            env=dict(environment),
            pass_fds=(request_end, reply_end),
            start_new_session=True,
        )
        os.close(request_end)
        os.close(reply_end)
        os.set_blocking(self._replies, False)
        self._pending = b""

    def greeting(self, time_limit: float) -> dict[str, Any]:
        """The backend's ``info()``, once it is imported; raises WorkerFailure."""
        return self._answer(time_limit)

    def ask(self, call: str, time_limit: float, **arguments: Any) -> Any:
        """Send one request and wait for its answer; raises WorkerFailure, after which only an "error" can be asked again."""
        request = msgspec.json.encode({"call": call, "arguments": arguments}) + b"\n"
        try:
            os.write(self._requests, request)
        except BrokenPipeError:
            raise self._crashed() from None
        return self._answer(time_limit)

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        """Kill the process and its group at once; a thread that waits for its answer is told that it crashed."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def end(self) -> None:
        """End the process and its group: TERM, then KILL.  May be called again."""
        if self._log.closed:
            return
        for number, patience in ((signal.SIGTERM, GRACE), (signal.SIGKILL, None)):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(patience)
                break
        self.kill()  # whatever the worker started and left behind
        os.close(self._requests)
        os.close(self._replies)
        self._log.close()

    def _answer(self, time_limit: float) -> Any:
        patience = Patience(self._process.pid, time_limit)
        answer = json.loads(self._line(patience))
        while "compiling" in answer:
            patience.compiles(answer["compiling"])
            answer = json.loads(self._line(patience))
        if "error" in answer:
            raise WorkerFailure("error", answer["error"])
        return answer["answer"]

    def _line(self, patience: Patience) -> bytes:
        with selectors.DefaultSelector() as selector:
            selector.register(self._replies, selectors.EVENT_READ)
            while b"\n" not in self._pending:
                if not selector.select(patience.left):
                    if patience.left:  # it was kept from a processor meanwhile
                        continue
                    self.end()
                    raise WorkerFailure("timeout", str(patience))
                received = os.read(self._replies, 1 << 20)
                if not received:
                    raise self._crashed()
                self._pending += received
        line, _, self._pending = self._pending.partition(b"\n")
        return line

    def _crashed(self) -> WorkerFailure:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(GRACE)
        code = self._process.poll()
        said = self._last_words()
        self.end()
        if code is None:
            how = "closed its pipe"
        else:
            how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        return WorkerFailure("crashed", f"the worker {how}" + (f": {said}" if said else ""))

    def _last_words(self) -> str:
        self._log.seek(0)
        lines = self._log.read().decode("utf-8", "replace").split("\n")
        return next((line.strip()[:300] for line in reversed(lines) if line.strip()), "")


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
