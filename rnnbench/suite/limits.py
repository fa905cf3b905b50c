"""What numbers in files may be, so that what is made of them fits into 64 bits and into memory: of suites and results alike."""

from typing import Annotated

import msgspec

Size = Annotated[int, msgspec.Meta(ge=1, le=2**24)]
"""Of a network or its input; the upper limit keeps the counts of bytes and operations within 64 bits."""

Layers = Annotated[int, msgspec.Meta(ge=1, le=1024)]
"""Each has parameters with names of their own, which are listed."""

Number = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]
"""Of a round, a place in it, and the like."""

Count = Annotated[int, msgspec.Meta(ge=1, le=2**53)]

Bytes = Annotated[int, msgspec.Meta(ge=-(2**62), le=2**62)]
"""A difference of two sizes of memory."""

Rounds = Annotated[int, msgspec.Meta(ge=1, le=10**6)]
Seed = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Seconds = Annotated[float, msgspec.Meta(gt=0, le=10**9)]
