"""What the commands print for people."""

import inspect
from typing import Any

from headwater.api import catalogue
from headwater.api.override import flat
from headwater.core.errors import RequestError, unknown

ORDER = ("reconstruct", "agree", "distill", "align", "pretext", "supervise", "adapt", "assess", "continual")


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
    """A cross where a method learns from a modality; what learns from pairs is shown for the modality with captions."""
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
            f"{row['trained_parameters']:>9,} trained parameters   {row['seconds']:.1f} s"
        )
    print(f"Encoder: {result['out']}/encoder    New weights alone: {result['out']}/adapter")


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


def method(name: str, data: str) -> dict[str, Any]:
    """All there is to know of a method."""
    module = catalogue.load(name)
    paper = module.PAPER
    facts: dict[str, Any] = {
        "name": catalogue.short(module.__name__),
        "idea": inspect.cleandoc(module.__doc__ or ""),
        "paper": {"title": paper.title, "year": paper.year, "arxiv": paper.arxiv, "differs": paper.differs},
        "source": inspect.getsourcefile(module),
    }
    if hasattr(module, "Config"):
        facts["recipe"] = _recipe(module, data)
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
    print(f"\nsource   {facts['source']}")


def print_proof(proof: dict[str, Any]) -> None:
    at, n, differing = " and ".join(str(k) for k in proof["killed_at"]), proof["tensors"], proof["differing"]
    if proof["same"]:
        print(f"Killed at step {at} and resumed: all {n} tensors of weights and optimiser agree bit for bit.")
    else:
        print(f"Killed at step {at} and resumed: {len(differing)} of {n} tensors differ, such as {differing[0]}.")
