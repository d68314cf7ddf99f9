"""What an encoder needs to know of each modality, read off a few samples. One short function per modality."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any


def same(values: Sequence[Any]) -> Any:
    """The one value they all have, or None if they are mixed."""
    return values[0] if all(v == values[0] for v in values) else None


def dtypes(samples: Sequence[Any]) -> Any:
    return same([str(x.dtype).removeprefix("torch.") for x in samples])


def image(samples: Sequence[Any]) -> dict[str, Any]:
    """`own_unit`, said only where it is so: values leave [0, 1], as those of rasters and scanners do."""
    made = grid(samples)
    within = all(not x.is_floating_point() or bool(((x >= 0) & (x <= 1)).all()) for x in samples)
    return made if within else made | {"own_unit": True}


def grid(samples: Sequence[Any]) -> dict[str, Any]:
    return {
        "channels": same([x.shape[0] for x in samples]),
        "size": same([tuple(x.shape[1:]) for x in samples]),
        "dtype": dtypes(samples),
        "promoted": False,
    }


def series(samples: Sequence[Any]) -> dict[str, Any]:
    return {
        "channels": same([x.shape[0] for x in samples]),
        "length": same([x.shape[1] for x in samples]),
        "dtype": dtypes(samples),
        "gaps": any(bool(x.isnan().any()) for x in samples),
    }


def table(samples: Sequence[Any]) -> dict[str, Any]:
    columns = len(samples[0])
    return {"columns": columns, "names": [f"column {j}" for j in range(columns)]}


def text(samples: Sequence[Any]) -> dict[str, Any]:
    return {"longest": max(len(x) for x in samples)}  # the vocabulary is for whoever made the ids to say


def points(samples: Sequence[Any]) -> dict[str, Any]:
    return {"channels": same([x.shape[0] for x in samples]), "points": min(x.shape[1] for x in samples)}


def graph(samples: Sequence[Any]) -> dict[str, Any]:
    return {"channels": same([x.values.shape[1] for x in samples]), "nodes": max(x.values.shape[2] for x in samples)}


FACTS: Mapping[str, Callable[[Sequence[Any]], dict[str, Any]]] = {
    "image": image,
    "series": series,
    "table": table,
    "text": text,
    "video": grid,
    "volume": grid,
    "audio": series,
    "points": points,
    "graph": graph,
}


def describe(modality: str, samples: Sequence[Any]) -> dict[str, Any]:
    return FACTS[modality](samples)
