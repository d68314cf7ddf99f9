"""What the commands print for people."""

import inspect
from dataclasses import asdict
from typing import Any

from headwater.api import catalogue
from headwater.api.override import flat
from headwater.api.usage import usage
from headwater.core.errors import RequestError, unknown

ORDER = (
    "reconstruct", "agree", "distill", "align", "pretext", "supervise", "adapt", "assess", "continual", "curate", "study"
)  # fmt: skip
CLAIM_KEYS = ("slug", "claim", "metric", "direction", "ours", "baseline", "margin", "seeds", "holds", "seconds")


def budgets(text: str) -> list[int | str]:
    """'1,5,all' -> [1, 5, 'all']."""
    found: list[int | str] = []
    for part in text.split(","):
        word = part.strip()
        if word != "all" and not (word.isdigit() and int(word) > 0):
            raise RequestError(
                f"--labels-per-class {text!r}: expected whole numbers and 'all', such as 1,5,10,all; got {word!r}."
            )
        found.append(word if word == "all" else int(word))
    return found


def numbers(text: str, option: str) -> list[int]:
    """'0,1,2' -> [0, 1, 2]."""
    found = [part.strip() for part in text.split(",")]
    if not all(part.isdigit() for part in found):
        raise RequestError(f"{option} {text!r}: expected whole numbers with commas between them, such as 2,1,1.")
    return [int(part) for part in found]


def run_summary(run: Any) -> dict[str, Any]:
    outcome = run.outcome
    return {
        "run": str(run.path),
        "done": outcome.done,
        "step": outcome.step,
        "seconds": outcome.seconds,
        "health": outcome.verdict.words,
        "report": str(run.path / "report.html") if outcome.done else None,
    }


def print_run(result: dict[str, Any]) -> None:
    if not result["done"]:
        print(f"Stopped at step {result['step']:,} and saved. Go on with the same command and --resume.")
        return
    print(f"{result['step']:,} steps in {result['seconds']:.0f} s. Health: {result['health']}.")
    print(f"Encoder: {result['run']}/encoder    Page: {result['report']}")


def print_matrix(result: dict[str, Any]) -> None:
    """A cross where a method learns from a modality; what learns from pairs is shown for the modality with another."""
    rows = result["rows"]
    columns = [c for c in rows[0] if c not in ("method", "folder")]
    wide = max(len(r["method"]) for r in rows)
    print(" " * wide + "  " + "  ".join(columns))
    for row in rows:
        cells = "  ".join(("x" if row[c] else "-").center(len(c)) for c in columns)
        print(f"{row['method']:<{wide}}  {cells}".rstrip())


def print_evaluation(result: dict[str, Any]) -> None:
    from headwater.report.table import evaluation_lines

    print("\n".join(evaluation_lines(result)))
    print(f"\n{result['verdict']['words']}")


def print_adaptation(result: dict[str, Any]) -> None:
    print(f"{result['data']}: trained on {result['n_pool']:,}, tested on {result['n_test']:,}")
    wide = max(len(r["what"]) for r in result["rows"])
    for row in result["rows"]:
        print(
            f"  {row['what']:<{wide}}  {100 * row['accuracy']:5.1f} %   "
            f"{row['trained_parameters']:>9,} trained parameters   {row['memory_bytes'] / 2**20:7.1f} MB   {row['seconds']:.1f} s"
        )
    sizes = result["encoder_parameters"]
    if sizes["before"] != sizes["after"]:
        print(f"The encoder had {sizes['before']:,} weights and has {sizes['after']:,}.")
    out = result["out"]
    print(f"New weights alone: {out}/adapter ({result['adapter_bytes'] / 1e3:,.1f} kB)")
    print(f"Encoder: {out}/encoder    Page: {out}/report.html")


def catalogue_lines(folder: str) -> list[dict[str, Any]]:
    """Name, folder, year and idea of each method."""
    if folder and folder not in ORDER:
        raise unknown("folder of the catalogue", folder, ORDER)
    found = []
    for name in catalogue.names():
        if folder and catalogue.folder(name) != folder:
            continue
        module = catalogue.load(name)
        idea = (module.__doc__ or "").splitlines()[0]
        paper = module.PAPER
        found.append(
            {"name": catalogue.short(name), "folder": catalogue.folder(name), "year": paper.year, "idea": idea}
        )
    return sorted(found, key=lambda m: (ORDER.index(m["folder"]), m["year"]))


def print_catalogue(found: list[dict[str, Any]]) -> None:
    wide = max(len(m["name"]) for m in found)
    last = ""
    for method in found:
        if method["folder"] != last:
            last = method["folder"]
            print(f"\n{last}")
        print(f"  {method['name']:<{wide}}  {method['year']}  {method['idea']}")


def planned(folder: str) -> list[dict[str, Any]]:
    """The published systems that do not run yet."""
    if folder and folder not in ORDER:
        raise unknown("folder of the catalogue", folder, ORDER)
    waiting = [s for s in catalogue.systems() if not s.runs and folder in ("", s.folder)]
    waiting.sort(key=lambda s: (ORDER.index(s.folder), s.year))
    return [asdict(s) for s in waiting]


def print_planned(found: list[dict[str, Any]]) -> None:
    print(f"{len(found)} published systems are planned and do not run yet.")
    wide = max((len(s["slug"]) for s in found), default=0)
    last = ""
    for system in found:
        if system["folder"] != last:
            last = system["folder"]
            print(f"\n{last} (planned)")
        print(f"  {system['slug']:<{wide}}  {system['year']}  {system['title']}")


def method(name: str, data: str) -> dict[str, Any]:
    """All there is to know of a method."""
    module = catalogue.load(name)
    paper = module.PAPER
    facts: dict[str, Any] = {
        "name": catalogue.short(module.__name__),
        "idea": inspect.cleandoc(module.__doc__ or ""),
        "paper": {"title": paper.title, "year": paper.year, "arxiv": paper.arxiv, "differs": paper.differs},
        "source": inspect.getsourcefile(module),
        "usage": usage(name),
    }
    if hasattr(module, "Config"):
        facts["recipe"] = _recipe(module, data)
    if catalogue.claim(name) is not None:
        from headwater.api.reproduce import of, recorded

        slug, claim = of(name)
        facts["claim"] = {"paper": claim.paper, "claim": claim.claim, "recorded": recorded(slug)}
    return facts


def _recipe(module: Any, data: str) -> list[str]:
    if not data or catalogue.method_class(module) is None:
        kind = "method" if catalogue.method_class(module) else "adapter"
        return flat({kind: module.Config()})
    from headwater.api.recipe import recipe_for
    from headwater.data import open as open_data

    source = open_data(data)
    return flat(recipe_for(module, source.spec, len(source), len(source.classes)))


def print_method(facts: dict[str, Any]) -> None:
    paper = facts["paper"]
    print(facts["idea"])
    print(f"\npaper    {paper['title']} ({paper['year']}), arXiv {paper['arxiv']}")
    if paper["differs"]:
        print(f"differs  {paper['differs']}")
    if "recipe" in facts:
        print("\nrecipe   change any of these with --set path=value")
        for line in facts["recipe"]:
            print(f"  {line}")
    if "claim" in facts:
        print(f"\nclaim    {facts['claim']['claim']}")
        found = facts["claim"]["recorded"]
        told = (
            claim_numbers(found) if found else f"not on record here; `headwater reproduce {facts['name']}` measures it"
        )
        print(f"         {told}")
    print("\nuse      " + "\n         ".join(facts["usage"]))
    print(f"\nsource   {facts['source']}")


def claim_numbers(found: dict[str, Any]) -> str:
    spread = "" if found["spread"] is None else f" ± {found['spread']:.3g}"
    verdict = "holds" if found["holds"] else "does not hold"
    return (
        f"{found['metric']}: {found['ours']:.4g} against {found['baseline']:.4g} ({found['compared_with']}), "
        f"better by {found['margin']:.3g}{spread} over {len(found['seeds'])} seeds: {verdict}"
    )


def print_claim(found: dict[str, Any]) -> None:
    print(f"{found['slug']}\n  paper     {found['paper']}\n  claim     {found['claim']}\n  data      {found['data']}")
    if found["without"]:
        print(f"  without   {found['without']}")
    print(f"  measured  {claim_numbers(found)} (each seed by at least {found['least']:g})")
    for seed, (ours, baseline) in zip(found["seeds"], found["runs"], strict=True):
        print(f"            seed {seed}: {ours:.4g} against {baseline:.4g}")
    print(f"  {found['seconds']:.0f} s")


def print_unreadable(found: dict[str, Any]) -> None:
    for item, why in found["unreadable"][:5]:
        print(f"  unreadable: {item} ({why})")


def print_proof(proof: dict[str, Any]) -> None:
    at, n, differing = " and ".join(str(k) for k in proof["killed_at"]), proof["tensors"], proof["differing"]
    if proof["same"]:
        print(f"Killed at step {at} and resumed: all {n} tensors of weights and optimiser agree bit for bit.")
    else:
        print(f"Killed at step {at} and resumed: {len(differing)} of {n} tensors differ, such as {differing[0]}.")
