"""Third-party backends, each of which misbehaves in its own way: the source of a module by what it does.

Each is the reference but for what it does wrong.  ``WHEN`` says where that is: on "import", in "info", in "supports", or in a
"call", which a listing does not make.
"""

from helpers.wrapped_reference import SOURCE


def module(source: str, methods: str = "pass") -> str:
    return SOURCE.format(methods=f"    {methods}", module=source)


def replies(content: str) -> str:
    """A statement that writes into the pipe of replies, which is the last argument's."""
    return f"import os, sys; os.write(int(sys.argv[3]), {content})"


def when_called(statement: str) -> str:
    return module("", f"def record(self, x, state=None):\n        {statement}\n        return self.net.record(x, state)")


ON_IMPORT = {
    "exits_0": "import os; os._exit(0)",
    "exits_3": "import sys; sys.exit(3)",
    "segfault": "import ctypes; ctypes.string_at(0)",
    "aborts": "import os; os.abort()",
    "kills_itself": "import os; os.kill(os.getpid(), 9)",
    "raises": "raise OSError('no such device')",
    "raises_base": "raise BaseException('neither an error nor an exit')",
    "interrupts": "raise KeyboardInterrupt",
    "syntax": "def load(:",
    "recursion": "def f(): f()\nf()",
    "hangs": "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)",
    "closes_everything": "import os; os.closerange(3, 256)",
    "floods": replies("b'x' * (1 << 25)").replace("os.write(", "[os.write(").replace("<< 25)", "<< 15)")
    + " for _ in range(2000)]",
    "garbage": replies(r"b'\xff\x00garbage\n'"),
    "another_shape": replies("b'[1, 2, 3]\\n'"),
    "answers_itself": replies("b'{\"answer\": 5}\\n'"),
}

IN_INFO = {
    "info_raises": "def info(): raise ValueError('no versions')",
    "info_number": "def info(): return 5",
    "info_endless": "def info():\n    facts = {}\n    facts['self'] = facts\n    return facts",
    "info_huge": "def info(): return {'huge': 'x' * (1 << 25)}",
    "info_exits": "def info():\n    import os\n    os._exit(0)",
    "unavailable_raises": "def unavailable(): raise ValueError('who knows')",
}

IN_SUPPORTS = {
    "supports_number": "def supports(spec): return 5",
    "supports_raises": "def supports(spec): raise ValueError('no idea')",
    "supports_exits": "def supports(spec):\n    import os\n    os._exit(0)",
    "supports_garbage": "def supports(spec):\n    " + replies("b'garbage\\n'"),
}

IN_CALLS = {
    "call_exits": when_called("import os; os._exit(0)"),
    "call_garbage": when_called(replies("b'[]\\n'")),
    "call_half_a_line": when_called(replies("b'{\"answer\": '")),
    "call_unasked": when_called(replies("b'{\"answer\": null}\\n' * 3")),
}

SOURCES = ON_IMPORT | {name: module(source) for name, source in (IN_INFO | IN_SUPPORTS).items()} | IN_CALLS
