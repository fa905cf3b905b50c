"""The reference as a backend in a file of its own, its network wrapped, so that a test can plant a bug in it."""

import textwrap
from pathlib import Path

SOURCE = """
import numpy as np

from rnnbench.networks.contract import Gradients
from rnnbench.impls import numpy_ref
from rnnbench.impls.numpy_ref import asarray, info, supports, synchronize, to_numpy


class Wrapped:
    def __init__(self, net):
        self.net = net

    def __getattr__(self, name):
        return getattr(self.net, name)


class Network(Wrapped):
{methods}


def load(spec, params, *, threads=None):
    return Network(numpy_ref.load(spec, params, threads=threads))


{module}
"""


def backend_file(path: Path, methods: str = "pass", module: str = "") -> str:
    """Write a backend to ``path`` and give its name: ``methods`` replace the network's, ``module`` what the module offers.

    ``methods`` reach what they replace by ``self.net``.
    """
    body = textwrap.indent(textwrap.dedent(methods).strip(), "    ")
    path.write_text(SOURCE.format(methods=body, module=textwrap.dedent(module)))
    return str(path)
