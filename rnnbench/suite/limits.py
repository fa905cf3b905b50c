"""Limits of numbers in suite and result files, so that derived values fit into 64 bits and into memory."""

from typing import Annotated

import msgspec

Size = Annotated[int, msgspec.Meta(ge=1, le=2**24)]
"""Size of a network or its input; the limit keeps counts of bytes and operations within 64 bits."""

Layers = Annotated[int, msgspec.Meta(ge=1, le=1024)]
"""Number of layers; the limit bounds the list of parameter names."""

Number = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]
"""Index, such as that of a round or of a position in it."""

Count = Annotated[int, msgspec.Meta(ge=1, le=2**53)]

Bytes = Annotated[int, msgspec.Meta(ge=-(2**62), le=2**62)]
"""Difference of two memory sizes, in bytes."""

Rounds = Annotated[int, msgspec.Meta(ge=1, le=10**6)]
Seed = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Seconds = Annotated[float, msgspec.Meta(gt=0, le=10**9)]
