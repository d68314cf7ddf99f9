"""Measures the claims of the systems, with and without their mechanism, and records them.

    python benchmarks/claims.py [--only rotnet,clip] [--missing] [--seeds 0,1,2] [--threads 2]

Writes benchmarks/claims/NAME.json for each. Exits with 1 where a claim does not hold, or holds without its mechanism.
"""

import argparse
import json
import platform
import sys
from pathlib import Path

import torch

from headwater.api import catalogue
from headwater.api.reproduce import of, reproduce

OUT = Path(__file__).parent / "claims"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="some systems, with commas between them")
    parser.add_argument("--missing", action="store_true", help="those that are not on record")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    seeds = [int(s) for s in given.seeds.split(",")]
    wanted = given.only.split(",") if given.only else [catalogue.short(n) for n in catalogue.claims()]
    OUT.mkdir(exist_ok=True)
    failed = []
    for name in wanted:
        slug, _ = of(name)
        if given.missing and (OUT / f"{slug}.json").is_file():
            continue
        found = reproduce(name, seeds)
        gone = reproduce(name, seeds, ablate=True)
        keys = ("without", "ours", "baseline", "margin", "spread", "runs", "seconds")
        machine = {"threads": given.threads, "torch": torch.__version__, "processor": platform.machine()}
        ablation = {**{k: gone[k] for k in keys}, "fails": not gone["holds"]}
        record = {**found, "ablation": ablation, "machine": machine}
        del record["without"]
        (OUT / f"{slug}.json").write_text(json.dumps(record, indent=1) + "\n")
        good = found["holds"] and not gone["holds"]
        failed += [] if good else [slug]
        print(
            f"{slug}: {found['ours']:.4g} against {found['baseline']:.4g}, margin {found['margin']:.3g} "
            f"(without: {gone['margin']:.3g}), {'holds' if found['holds'] else 'does not hold'}, "
            f"{found['seconds'] + gone['seconds']:.0f} s",
            flush=True,
        )
    if failed:
        sys.exit(f"Not as claimed: {', '.join(failed)}.")


if __name__ == "__main__":
    main()
