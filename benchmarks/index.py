"""How fast a folder of many files is indexed, and what it costs in memory.

    python benchmarks/index.py --files 1000000

Makes that many links to one small PNG, in folders of 1,000, in a temporary folder, and prints files per second and
resident memory for the first opening (scan, sort, write the index) and the second (from the cache). Each opening runs
in a process of its own.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image

OPEN = """
import json, resource, sys, time
from headwater.data import index
from headwater.data.opening import ENDINGS, open
def resident():
    with __builtins__.open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 2**20
open("wine")
before, start = resident(), time.perf_counter()
found = index.folder(sys.argv[1], ENDINGS)
indexed = time.perf_counter() - start
after = resident()
source = open(sys.argv[1])
source.read(len(source) - 1)
opened = time.perf_counter() - start - indexed
start = time.perf_counter()
source.fingerprint
print(json.dumps({
    "files": len(found.table), "index_s": indexed, "resident_mb": after - before,
    "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - before,
    "open_s": opened, "fingerprint_s": time.perf_counter() - start,
}))
"""


def make(root: Path, files: int) -> None:
    """`files` links to one picture, and folders that look as if nothing had changed for a while."""
    root.mkdir()
    Image.new("L", (4, 4)).save(root / "0.png")
    for at in range(0, files - 1, 1000):
        part = root / f"{at // 1000:04}"
        part.mkdir()
        source = part / "000.png"
        (root / "0.png").rename(source) if at == 0 else source.write_bytes((root / "0000/000.png").read_bytes())
        for k in range(1, min(1000, files - at)):
            os.link(source, part / f"{k:03}.png")
        os.utime(part, (1e9, 1e9))
    os.utime(root, (1e9, 1e9))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--dir", default=None, help="where the temporary folder is made")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.dir) as scratch:
        start = time.perf_counter()
        make(Path(scratch) / "files", args.files)
        print(f"made {args.files:,} files in {time.perf_counter() - start:.1f} s", flush=True)
        env = os.environ | {"HEADWATER_CACHE": f"{scratch}/cache"}
        for what in ("scanned", "from the cache"):
            out = subprocess.run(
                [sys.executable, "-c", OPEN, f"{scratch}/files"], env=env, capture_output=True, text=True, check=True
            )
            f = json.loads(out.stdout)
            print(
                f"{what}: {f['files']:,} files in {f['index_s']:.2f} s ({f['files'] / f['index_s']:,.0f} files/s); "
                f"{f['resident_mb']:.0f} MB more resident, {f['peak_mb']:.0f} MB at the peak; labels and first items "
                f"{f['open_s']:.2f} s; fingerprint {f['fingerprint_s']:.2f} s",
                flush=True,
            )


if __name__ == "__main__":
    main()
