"""Backends grouped by device: only backends on the same device are compared, ranked and drawn together."""

import re

from rnnbench.errors import ArgumentError
from rnnbench.networks.contract import CPU
from rnnbench.reports.frames import Frames
from rnnbench.reports.text import Answer, clipped, listed


def by_device(data: Frames) -> dict[str, Frames]:
    """Frames of each device by its name; with a single device they also keep the backends that could not run."""
    names = list(dict.fromkeys(data.devices.values())) or [CPU]
    return {name: of_device(data, name) for name in names} if len(names) > 1 else {names[0]: data}


def of_device(data: Frames, device: str) -> Frames:
    """Frames with the backends of one device, compared with its baseline; raises ArgumentError for an unknown device."""
    names = [name for name, where in data.devices.items() if where == device]
    if not names:
        found = ", ".join(dict.fromkeys(data.devices.values())) or "none"
        raise ArgumentError(f"device is {device!r}; expected one of {found}")
    return data.where("backend", names)._replace(
        backends=names,
        devices=dict.fromkeys(names, device),
        baseline=data.baselines.get(device),
        baselines={device: data.baselines[device]} if device in data.baselines else {},
        samples={key: samples for key, samples in data.samples.items() if key[1] in names},
        roofs=data.roofs if device == CPU else None,
    )


def refuse_several(data: Frames) -> None:
    """Raise ArgumentError for frames that hold several devices."""
    names = list(dict.fromkeys(data.devices.values()))
    if len(names) > 1:
        raise ArgumentError(
            f"this run has backends on {listed(names)}, which are not drawn together; expected the frames of one device: "
            f"of_device(data, {names[0]!r})"
        )


def device_text(device: str) -> str:
    """The device in a sentence."""
    return "the CPU" if device == CPU else clipped(device)


def slug(device: str) -> str:
    """The device as part of a file name."""
    return re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-")[:40] or "device"


def on_device(answer: Answer, device: str, backends: list[str]) -> Answer:
    """The answer, prefixed with its device."""
    first = answer.text.split(maxsplit=1)[0]
    text = answer.text if first in backends else answer.text[:1].lower() + answer.text[1:]
    return Answer(f"On {device_text(device)}: {text}", answer.details, answer.topic)
