"""Writes docs/methods/*.md: one page per method from its docstring, paper, configuration and measured numbers.

python docs/generate.py            writes
python docs/generate.py --check    exits with 1 if what is on disk is not what would be written
"""

import inspect
import json
import sys
from pathlib import Path
from typing import Any

from headwater.api import catalogue
from headwater.api.override import flat
from headwater.api.reproduce import of, recorded
from headwater.api.usage import usage

ROOT = Path(__file__).parents[1]
PAGES = ROOT / "docs" / "methods"


def page(name: str, measured: dict[str, Any]) -> str:
    module = catalogue.load(name)
    short, paper = catalogue.short(name), module.PAPER
    idea, _, rest = inspect.cleandoc(module.__doc__ or "").partition("\n")
    parts = [f"# {short}", idea]
    if rest.strip():
        parts.append("```text\n" + inspect.cleandoc(rest) + "\n```")
    parts.append(f"*{paper.title}* ({paper.year}), [arXiv {paper.arxiv}](https://arxiv.org/abs/{paper.arxiv}).")
    parts.append(
        f"**Differs from the paper:** {paper.differs}" if paper.differs else "No known departure from the paper."
    )
    parts.append("```text\n" + "\n".join(usage(name)) + "\n```")
    if hasattr(module, "Config"):
        kind = "method" if catalogue.method_class(module) else "adapter"
        parts.append(
            "## Configuration\nAs published; `headwater show " + short + " --data DATA` tells what your data would get."
        )
        parts.append("```text\n" + "\n".join(flat({kind: module.Config()})) + "\n```")
    if short in measured:
        m = measured[short]
        parts.append(
            "## Measured\nOn scikit-learn's digits with the defaults ([the whole table](../digits.md)): linear probe "
            f"{100 * m['ours_10']:.1f} % at 10 labels per class and {100 * m['ours_all']:.1f} % with all, its untrained "
            f"encoder {100 * m['untrained_10']:.1f} % and {100 * m['untrained_all']:.1f} %, raw pixels {100 * m['raw_10']:.1f} % "
            f"and {100 * m['raw_all']:.1f} % ({m['seeds']} seeds, {m['steps']} steps)."
        )
    if catalogue.claim(name) is not None:
        parts.append(claimed(name))
    source = Path(inspect.getsourcefile(module) or "").relative_to(ROOT)
    parts.append(f"Source: [`{source}`](../../{source})")
    return "\n\n".join(parts) + "\n"


def claimed(name: str) -> str:
    """What the paper claims, what is claimed here, and the numbers on record with the mechanism and without."""
    slug, claim = of(name)
    lines = [f"## Claim\n**The paper:** {claim.paper}", f"**Here:** {claim.claim}"]
    found = recorded(slug)
    if found is None:
        return "\n\n".join([*lines, f"Not measured yet: `headwater reproduce {slug}`."])
    gone = found["ablation"]
    head = "| | ours | baseline | better by | holds |\n|---|---|---|---|---|"
    rows = [
        f"| {what} | {f['ours']:.4g} | {f['baseline']:.4g} | {f['margin']:.3g} ± {f['spread']:.2g} "
        f"| {'yes' if holds else 'no'} |"
        for what, f, holds in (
            ("as published", found, found["holds"]),
            (f"without {gone['without']}", gone, not gone["fails"]),
        )
    ]
    told = (
        f"Data: {claim.data}. Metric: {claim.metric} ({claim.direction} is better). Baseline: {claim.baseline}. "
        f"{len(found['seeds'])} seeds, {found['seconds']:.0f} s; each seed must be better by at least {claim.least:g}. "
        f"`headwater reproduce {slug}` measures it again."
    )
    return "\n\n".join([*lines, "\n".join([head, *rows]), told])


def pages() -> dict[Path, str]:
    results = ROOT / "benchmarks" / "results" / "digits.json"
    measured = {m["method"]: m for m in json.loads(results.read_text())["summary"]} if results.is_file() else {}
    return {PAGES / f"{catalogue.short(name)}.md": page(name, measured) for name in catalogue.names()}


def main() -> None:
    wanted = pages()
    if "--check" in sys.argv:
        stale = [str(p.relative_to(ROOT)) for p, text in wanted.items() if not p.is_file() or p.read_text() != text]
        if stale:
            sys.exit(f"These pages are not what `make docs` would write: {', '.join(stale)}")
        return
    PAGES.mkdir(exist_ok=True)
    for path, text in wanted.items():
        path.write_text(text)


if __name__ == "__main__":
    main()
