"""No setting of NumPy's, PyTorch's or JAX's that a caller has made for the process or a block changes a result or fails a call.

Each backend runs a network whose numbers saturate, underflow and overflow, once as it is and once in each setting; all results
are the same to the last bit.
"""

import contextlib
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import rnnbench
from rnnbench import Spec
from rnnbench.errors import BackendUnavailable

T, B, I, H = 3, 4, 3, 5  # noqa: E741  # the field's names


def results(name: str, spec: Spec) -> dict[str, np.ndarray]:
    """Every tensor that a network gives in all its ways to be called, loaded in the setting too."""
    backend = rnnbench.load_backend(name)
    rng = np.random.default_rng(0)
    with np.errstate(all="ignore"):
        x = (rng.standard_normal((T, B, spec.input_size)) * [[[300.0], [1e-3], [1e-30], [3e4]]]).astype(spec.numpy_dtype)
        dy = (rng.standard_normal((T, B, spec.features)) * [[[1.0], [1e-4], [1e-38], [6e4]]]).astype(spec.numpy_dtype)
    net = backend.load(spec, rnnbench.init_params(spec, 0))
    x, dy = backend.asarray(x), backend.asarray(dy)
    found: dict[str, Any] = {}
    found["inference"], final = net.forward(x)
    found |= {f"final {k}": part for k, part in enumerate(final)}
    if getattr(backend, "supports_phase", lambda *_: None)(spec, "step") is None:
        found["y"], _, tape = net.record(x)
        grads = net.backward(tape, dy)
        found |= grads.params | {"dx": grads.x} | {f"dstate {k}": part for k, part in enumerate(grads.state)}
        y, _, grads = rnnbench.tbptt(net, x, dy, 2, 1)
        found |= {"tbptt y": y, "tbptt dx": grads.x} | {f"tbptt {name}": grad for name, grad in grads.params.items()}
    backend.synchronize()
    return {name: np.array(backend.to_numpy(array)) for name, array in found.items()}


@contextlib.contextmanager
def switched(change: Callable[[Any], Any], value: Any, back: Any) -> Iterator[None]:
    change(value)
    try:
        yield
    finally:
        change(back)


def numpy_settings() -> dict[str, Callable[[], Any]]:
    return {
        "errstate raise": lambda: np.errstate(all="raise"),
        "errstate ignore": lambda: np.errstate(all="ignore"),
        "errstate call": lambda: np.errstate(all="call", call=_never),
        "bufsize": lambda: switched(np.setbufsize, 16, 8192),
    }


def _never(kind: str, flag: int) -> None:
    raise AssertionError(f"NumPy called the caller's function: {kind}")


def torch_settings() -> dict[str, Callable[[], Any]]:
    import torch

    def anomaly() -> Any:
        warnings.filterwarnings("ignore", "Anomaly Detection has been enabled", UserWarning)  # torch's word to who turns it on
        return torch.autograd.detect_anomaly()

    found: dict[str, Callable[[], Any]] = {
        "no_grad": torch.no_grad,
        "inference_mode": torch.inference_mode,
        "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
        "detect_anomaly": anomaly,
        "meta device": lambda: torch.device("meta"),
        "default dtype": lambda: switched(torch.set_default_dtype, torch.float64, torch.float32),
        "default device": lambda: switched(torch.set_default_device, "meta", None),
        "matmul precision": lambda: switched(torch.set_float32_matmul_precision, "medium", "highest"),
        "deterministic": lambda: switched(torch.use_deterministic_algorithms, True, False),
        "one thread": lambda: switched(torch.set_num_threads, 1, torch.get_num_threads()),
    }
    for holder, name in ((torch.backends.mkldnn.matmul, "matmul"), (torch.backends.mkldnn.rnn, "rnn")):
        found[f"mkldnn {name} precision"] = lambda holder=holder: switched(
            lambda value: setattr(holder, "fp32_precision", value), "bf16", "none"
        )
    return found


def jax_settings() -> dict[str, Callable[[], Any]]:
    import jax

    return {
        "x64": lambda: jax.enable_x64(True),
        "matmul precision": lambda: jax.default_matmul_precision("bfloat16"),
        "debug nans": lambda: jax.debug_nans(True),
        "debug infs": lambda: jax.debug_infs(True),
        "rank promotion": lambda: jax.numpy_rank_promotion("raise"),
        "dtype promotion": lambda: jax.numpy_dtype_promotion("strict"),
        "transfer guard": lambda: jax.transfer_guard("disallow_explicit"),
        "disable jit": lambda: jax.disable_jit(True),
        "leak checks": lambda: jax.checking_leaks(),
        "default device": lambda: jax.default_device(jax.devices("cpu")[0]),
    }


LIBRARIES: dict[str, Callable[[], dict[str, Callable[[], Any]]]] = {
    "numpy": numpy_settings,
    "torch": torch_settings,
    "jax": jax_settings,
}
BACKENDS = {
    "numpy_ref": ["numpy"],
    "numba_cpu": ["numpy"],
    "torch_nn": ["numpy", "torch"],
    "torch_eager": ["numpy", "torch"],
    "torch_nn_numpy": ["numpy", "torch"],
    "jax_scan": ["numpy", "jax"],
    "onnxruntime": ["numpy"],
}


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize(("name", "library"), [(name, library) for name, of in BACKENDS.items() for library in of])
@pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")  # NumPy's word on what is meant to overflow here
def test_no_setting_of_a_library_changes_a_result_or_fails_a_call(name, library, dtype):
    spec = Spec("lstm", I, H, dtype=dtype)
    if name == "numba_cpu":
        spec = Spec("gru_reset_before", I, H, dtype=dtype)
    try:
        backend = rnnbench.load_backend(name)
    except BackendUnavailable as error:
        pytest.skip(str(error))
    if backend.supports(spec):
        pytest.skip(str(backend.supports(spec)))
    expected = results(name, spec)
    for setting, entered in LIBRARIES[library]().items():
        with entered():
            found = results(name, spec)
        for tensor, value in expected.items():
            np.testing.assert_array_equal(found[tensor], value, err_msg=f"{setting}: {tensor}")
