"""Make the page that ``asv publish`` wrote work without a network: python tools/asv_offline/asv_offline.py .asv/html

The page loads its libraries from others' servers.  Here npm fetches the packages that hold them, in the versions and with
the digests of package-lock.json beside this file; their files go into FOLDER/vendor, and the page's links to there.  The
page reads its numbers as files too, which browsers refuse from disk: serve it with python -m http.server -d FOLDER.
Exit codes: 0 done, 2 usage, 4 npm, the network or asv's page is not what this needs.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from rnnbench.errors import StoreError
from rnnbench.results.disk import save

HERE = Path(__file__).parent
VENDOR = "vendor"
TIME_LIMIT = 300  # seconds, for npm

CDNJS, JSDELIVR = "https://cdnjs.cloudflare.com/ajax/libs", "https://cdn.jsdelivr.net/npm"
FILES = {
    "https://code.jquery.com/jquery-3.3.1.min.js": "jquery/dist/jquery.min.js",
    f"{JSDELIVR}/flot-orderbars@1.0.0/js/jquery.flot.orderBars.js": "flot-orderbars/js/jquery.flot.orderBars.js",
    f"{JSDELIVR}/bootstrap@3.1.1/dist/js/bootstrap.min.js": "bootstrap/dist/js/bootstrap.min.js",
    f"{JSDELIVR}/bootstrap@3.1.1/dist/css/bootstrap.min.css": "bootstrap/dist/css/bootstrap.min.css",
    f"{CDNJS}/blueimp-md5/2.19.0/js/md5.min.js": "blueimp-md5/js/md5.min.js",
    # npm has the same version of flot, but not minified
    f"{CDNJS}/flot/0.8.3/jquery.flot.min.js": "flot/jquery.flot.js",
    f"{CDNJS}/flot/0.8.3/jquery.flot.time.min.js": "flot/jquery.flot.time.js",
    f"{CDNJS}/flot/0.8.3/jquery.flot.selection.min.js": "flot/jquery.flot.selection.js",
    f"{CDNJS}/flot/0.8.3/jquery.flot.categories.min.js": "flot/jquery.flot.categories.js",
    # npm has 1.1.3 alone, which by its list of changes only adds to 1.0.1
    f"{CDNJS}/stupidtable/1.0.1/stupidtable.min.js": "stupid-table-plugin/stupidtable.min.js",
}
"""What the page of asv 0.6 loads, and which file of which package it is."""

TAG = re.compile(r'<(?:script|link)\b[^>]*?\b(?:src|href)="((?:https?:)?//[^"]*)"[^>]*>')
ABOUT_OTHER_SERVERS = re.compile(r'\s+(?:integrity|crossorigin|referrerpolicy)="[^"]*"')


class Failure(Exception):
    """Why the page was left as it is."""


def make_offline(folder: Path) -> list[str]:
    """Rewrite FOLDER/index.html to load from FOLDER/vendor, and give the files that are there now; raises Failure."""
    index = folder / "index.html"
    try:
        page = index.read_text("utf-8")
    except OSError as error:
        raise Failure(f"cannot read {index}: {error.strerror}; expected the page that asv publish writes") from error
    urls = TAG.findall(page)
    unknown = [url for url in urls if url not in FILES]
    if unknown:
        raise Failure(
            f"the page loads {', '.join(unknown)}; known are the files of asv 0.6 alone (FILES in {Path(__file__).name})"
        )
    files = [FILES[url] for url in urls]
    if files:
        _fetch(files, folder / VENDOR)
        save(index, [TAG.sub(_local, page).encode()])
    return files


def _local(tag: re.Match[str]) -> str:
    return ABOUT_OTHER_SERVERS.sub("", tag[0].replace(tag[1], f"{VENDOR}/{FILES[tag[1]]}"))


def _fetch(files: list[str], target: Path) -> None:
    """Copy files of the packages, and the packages' licences, into a folder; raises Failure."""
    npm = shutil.which("npm")
    if npm is None:
        raise Failure("npm is missing; install it, for example with apt-get install npm")
    with tempfile.TemporaryDirectory() as place:
        for name in ("package.json", "package-lock.json"):
            shutil.copy(HERE / name, place)
        # packages have no business to run anything here
        command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline"]
        try:
            done = subprocess.run(
                command, cwd=place, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TIME_LIMIT
            )
        except subprocess.TimeoutExpired as error:
            raise Failure(f"npm ci was not done after {TIME_LIMIT} s; is there a network?") from error
        if done.returncode:
            said = [line for line in done.stderr.splitlines() if line.startswith("npm error")]
            raise Failure("npm ci failed; is there a network?\n" + "\n".join(said or [done.stderr]))
        packages = Path(place) / "node_modules"
        for file in files:
            package = packages / file.partition("/")[0]
            for source in (packages / file, *package.glob("LICENSE*")):
                copy = target / source.relative_to(packages)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, copy)


def main() -> int:
    parser = argparse.ArgumentParser(description="Make the page that asv publish wrote work without a network.")
    parser.add_argument("folder", type=Path, help="where asv publish wrote it: .asv/html")
    folder = parser.parse_args().folder
    try:
        files = make_offline(folder)
    except (Failure, StoreError) as failure:
        print(f"asv_offline: {failure}", file=sys.stderr)
        return 4
    done = f"{len(files)} files put into {folder / VENDOR}" if files else "loads nothing from outside, and is left as it is"
    print(f"{folder / 'index.html'}: {done}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
