"""Generated sets whose answers are known, one small twin per modality: what a reader of real files would give, without
the files. Item i is drawn from a generator seeded by (set, i), so it never depends on how many items are drawn.
"""

from collections.abc import Callable, Mapping

from headwater.data.generated import (
    clips,
    clouds,
    detection,
    fields,
    heartbeats,
    inspection,
    motifs,
    sales,
    scenes,
    seasons,
    sounds,
    texts,
    volumes,
    waves,
)
from headwater.data.source import Source

SETS: Mapping[str, Callable[[str], Source]] = {
    **scenes.SETS,
    **waves.SETS,
    **clips.SETS,
    **clouds.SETS,
    **motifs.SETS,
    **sales.SETS,
    **volumes.SETS,
    **sounds.SETS,
    **texts.SETS,
    **detection.SETS,
    **fields.SETS,
    **seasons.SETS,
    **heartbeats.SETS,
    **inspection.SETS,
}

# the set that stands for each modality in tests and measurements
TWINS: Mapping[str, str] = {
    "image": "shapes",
    "series": "waves",
    "video": "moving-shapes",
    "volume": "blobs-3d",
    "audio": "tones",
    "text": "sentences",
    "table": "sales",
    "points": "surfaces",
    "graph": "motifs",
}
