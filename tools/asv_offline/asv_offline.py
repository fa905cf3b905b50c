"""Make the page of ``asv publish`` work offline: python tools/asv_offline/asv_offline.py .asv/html

The page loads libraries from other servers.  This script fetches them with npm, in the versions and with the digests of
package-lock.json, into FOLDER/vendor, and changes the links of the page.  The page also reads its numbers from files, which
browsers refuse to do from disk: serve it with python -m http.server -d FOLDER.
Exit codes: 0 done, 2 usage, 4 npm or the network failed, or asv's page is not as expected.
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
NPM_TIME_LIMIT = 300  # seconds

CDNJS, JSDELIVR = "https://cdnjs.cloudflare.com/ajax/libs", "https://cdn.jsdelivr.net/npm"
FILES = {
    "https://code.jquery.com/jquery-3.3.1.min.js": "jquery/dist/jquery.min.js",
    f"{JSDELIVR}/flot-orderbars@1.0.0/js/jquery.flot.orderBars.js": "flot-orderbars/js/jquery.flot.orderBars.js",
    f"{JSDELIVR}/bootstrap@3.1.1/dist/js/bootstrap.min.js": "bootstrap/dist/js/bootstrap.min.js",
    f"{JSDELIVR}/bootstrap@3.1.1/dist/css/bootstrap.min.css": "bootstrap/dist/css/bootstrap.min.css",
    f"{CDNJS}/blueimp-md5/2.19.0/js/md5.min.js": "blueimp-md5/js/md5.min.js",
    # npm has this version of flot unminified only
    f"{CDNJS}/flot/0.8.3/jquery.flot.min.js": "flot/jquery.flot.js",
    f"{CDNJS}/flot/0.8.3/jquery.flot.time.min.js": "flot/jquery.flot.time.js",
    f"{CDNJS}/flot/0.8.3/jquery.flot.selection.min.js": "flot/jquery.flot.selection.js",
    f"{CDNJS}/flot/0.8.3/jquery.flot.categories.min.js": "flot/jquery.flot.categories.js",
    # npm has only 1.1.3, which according to its changelog only adds to 1.0.1
    f"{CDNJS}/stupidtable/1.0.1/stupidtable.min.js": "stupid-table-plugin/stupidtable.min.js",
}
"""The URLs that the page of asv 0.6 loads, with their package and file on npm."""

TAG = re.compile(r'<(?:script|link)\b[^>]*?\b(?:src|href)="((?:https?:)?//[^"]*)"[^>]*>')
ABOUT_OTHER_SERVERS = re.compile(r'\s+(?:integrity|crossorigin|referrerpolicy)="[^"]*"')


class Failure(Exception):
    """Why the page was left unchanged."""


def make_offline(folder: Path) -> list[str]:
    """Rewrite FOLDER/index.html to load from FOLDER/vendor; return the files put there.  Raises Failure."""
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
    """Copy files of npm packages, with the packages' licences, into a folder; raises Failure."""
    npm = shutil.which("npm")
    if npm is None:
        raise Failure("npm is missing; install it, for example with apt-get install npm")
    with tempfile.TemporaryDirectory() as place:
        for name in ("package.json", "package-lock.json"):
            shutil.copy(HERE / name, place)
        # no package may run scripts
        command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline"]
        try:
            done = subprocess.run(
                command, cwd=place, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=NPM_TIME_LIMIT
            )
        except subprocess.TimeoutExpired as error:
            raise Failure(f"npm ci was not done after {NPM_TIME_LIMIT} s; is there a network?") from error
        if done.returncode:
            errors = [line for line in done.stderr.splitlines() if line.startswith("npm error")]
            raise Failure("npm ci failed; is there a network?\n" + "\n".join(errors or [done.stderr]))
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
