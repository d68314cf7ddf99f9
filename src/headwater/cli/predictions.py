"""What `predict` came to: the facts that --json prints, and the same for people."""

from pathlib import Path
from typing import Any

from headwater.cli.show import print_unreadable


def facts(made: Any, out: str) -> dict[str, Any]:
    """What `predict` did."""
    from headwater.api.anomalies import Anomalies
    from headwater.api.detections import Boxes
    from headwater.api.forecasts import Forecasts

    if isinstance(made, Anomalies):
        return {
            "out": out,
            "page": str(Path(out).with_suffix(".html")),
            "scored": len(made.ids),
            "wrong": int((made.scores > made.alarm).sum()),
            "alarm": made.alarm,
            "promised": made.promised,
            "milliseconds": made.milliseconds,
            "device": made.device,
            **made.measured,
            "unreadable": [list(pair) for pair in made.unreadable],
        }
    if isinstance(made, Boxes):
        return {
            "out": out,
            "picture": str(Path(out).with_suffix(".png")),
            "pictures": len(made.ids),
            "boxes": sum(map(len, made.found)),
            "classes": list(made.classes),
            "precision": made.precision,
            "strange": list(made.strange),
            "unreadable": [list(pair) for pair in made.unreadable],
        }
    if not isinstance(made, Forecasts):
        return {"out": out, "items": len(made.ids), "classes": list(made.classes)}
    n, _, h = made.values.shape
    return {
        "out": out,
        "picture": str(Path(out).with_suffix(".png")),
        "series": n,
        "channels": list(made.channels),
        "steps": h,
        "errors": made.errors(),
        "unreadable": [list(pair) for pair in made.unreadable],
    }


def show(found: dict[str, Any]) -> None:
    if "items" in found:
        print(f"{found['items']:,} items, {len(found['classes'])} classes: {found['out']}")
        return
    if "scored" in found:
        _print_anomalies(found)
        return
    if "boxes" in found:
        print(f"{found['boxes']:,} boxes on {found['pictures']:,} pictures: {found['out']}, {found['picture']}")
        if found["precision"]:
            ap, half = 100 * found["precision"]["ap"], 100 * found["precision"]["ap50"]
            print(f"Average precision against the boxes of the data: AP {ap:.1f}, AP50 {half:.1f}.")
        if found["strange"]:
            print(f"  never seen in training, so never found: {', '.join(found['strange'])}")
        print_unreadable(found)
        return
    what = f"{found['series']:,} series, {len(found['channels'])} channels, {found['steps']} steps each"
    print(f"{what}: {found['out']}, {found['picture']}")
    if found["errors"]:
        ours, seasonal = found["errors"]["forecast"], found["errors"]["seasonal_naive"]
        words = "the forecast is nearer" if ours < seasonal else "repeating the last season is nearer"
        print(
            f"Mean absolute error in deviations of the past: {ours:.3f}; the last season repeated {seasonal:.3f}: {words}."
        )
    print_unreadable(found)


def _print_anomalies(found: dict[str, Any]) -> None:
    print(f"{found['wrong']:,} of {found['scored']:,} pictures are called wrong: {found['out']}, {found['page']}")
    print(f"Of good ones at most {100 * found['promised']:.1f} % are, if they are like those that it learned from.")
    print(f"{found['milliseconds']:.1f} ms a picture, one at a time, on {found['device']}")
    told = {"auroc": "AUROC of pictures", "pixel_auroc": "AUROC of pixels", "aupro": "AUPRO"}
    if measured := [f"{words} {100 * found[key]:.1f} %" for key, words in told.items() if key in found]:
        print("; ".join(measured))
    print_unreadable(found)
