"""The report: whole and self-contained, true to its files, safe with hostile names, and no worse for missing parts."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from headwater.core.errors import RequestError
from headwater.core.types import Graph, Ragged
from headwater.report import charts
from headwater.report.embedding_map import embedding_map
from headwater.report.page import render
from headwater.report.pictures import views_picture
from headwater.report.seen import seen
from headwater.report.table import evaluation_lines

HOSTILE = "<script>alert(1)</script>"
VOID = {"meta", "img", "input", "br", "link"}


class Page(HTMLParser):
    """Checks that tags close in order and collects what a test asks about."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.links: list[str] = []
        self.cells: list[str] = []
        self.headings: list[str] = []
        self.scripts: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [v or "" for k, v in attrs if k in ("src", "href", "srcset", "action", "data")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        where = self.open[-1] if self.open else ""
        kept = {"td": self.cells, "h2": self.headings, "script": self.scripts}.get(where)
        if kept is not None:
            kept.append(data)


def opened(path: Path) -> Image.Image:
    with Image.open(path) as image:
        image.load()
    return image


def evaluation() -> dict[str, object]:
    def row(features: str, probe: str, budget: int | str, mean: float, half: float) -> dict[str, object]:
        values = [mean - half, mean, mean + half]
        low, high = mean - half, mean + half
        figures = {"mean": mean, "low": low, "high": high, "values": values, "seconds": 1.5}
        return {"features": features, "probe": probe, "budget": budget, **figures}

    return {
        "data": {
            "name": "letters",
            "n_pool": 900,
            "n_test": 300,
            "classes": ["a", HOSTILE],
            "fingerprint": "feed",
            "duplicates_across": 2,
            "seen_unlabelled": True,
        },
        "metric": "accuracy",
        "budgets": [1, "all"],
        "draws": 3,
        "rows": [
            row("raw pixels", "linear", 1, 0.6712, 0.021),
            row("raw pixels", "linear", "all", 0.9, 0.0),
            row("raw pixels", "knn", 1, 0.655, 0.03),
            row("trained from scratch", "fine-tuned", 1, 0.5, 0.02),
            row("pre-trained encoder", "linear", 1, 0.8437, 0.0126),
            row("pre-trained encoder", "linear", "all", 0.9, 0.0),
        ],
        "verdict": {"helped": True, "words": f"It helped {HOSTILE}."},
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run folder with every part in it."""
    g = torch.Generator().manual_seed(0)
    pictures = torch.rand(60, 1, 8, 8, generator=g) ** 6
    vectors, labels = pictures.flatten(1).numpy(), np.arange(60) % 2
    embedding_map(vectors, labels, ["a", HOSTILE], [f"{HOSTILE}{i}" for i in range(60)], pictures, tmp_path)
    views_picture([("original", pictures[:2]), (HOSTILE, pictures[2:4])], tmp_path / "views.png")
    lines = [
        {
            "step": s,
            "loss": 4 / s,
            "gradient_norm": 1.0,
            "rate": 0.1,
            "items_per_second": 9e3,
            "data_wait": 0.1,
            "chance": 5.0,
        }
        | ({"rankme": 5.0 + s, "spread": 0.9, "dim": 64} if s % 2 == 0 else {})
        for s in range(1, 9)
    ]
    events = [{"step": 4, "event": HOSTILE}, {"step": 5, "loss": float("nan")}]
    text = "".join(json.dumps(x) + "\n" for x in [*lines, *events]) + '{"step": 9, "lo'
    (tmp_path / "metrics.jsonl").write_text(text)
    files = {
        "run.json": {
            "method": "simclr",
            "recipe": ["fit.steps=8", f"data.name={HOSTILE}", "method.mask=a=b"],
            "versions": {"torch": "2"},
            "seed": 3,
            "data": {"name": HOSTILE, "fingerprint": "feed", "n": 1200, "summary": [f"1,200 images {HOSTILE}"]},
            "encoder": {"architecture": "resnet"},
            "created": "2026-03-04T05:06:07",
            "seconds": 12.0,
            "outcome": {"done": True, "step": 8, "verdict": {"level": "ok", "words": "learning"}},
            "device": "cpu",
        },
        "health.json": {"level": "ok", "words": "learning"},
        "evaluation.json": evaluation(),
        "unreadable.json": [[f"{HOSTILE}.png", "zero bytes"]],
    }
    for name, content in files.items():
        (tmp_path / name).write_text(json.dumps(content))
    return tmp_path


def test_the_whole_page(folder: Path) -> None:
    target = render(folder)
    assert target == folder / "report.html" and not (folder / ".report.html.part").exists()
    text = target.read_text()
    page = Page(text)
    assert page.headings == [
        "What pre-training bought",
        "A map of the embeddings",
        "What the method sees",
        "Training",
        "Health",
        "The data",
        "To do it again",
    ]
    assert page.links and all(x.startswith("data:image/png;base64,") for x in page.links)
    assert "http:" not in text and "https:" not in text and "@import" not in text and "url(" not in text
    first = text.encode()
    assert render(folder).read_bytes() == first


def test_hostile_names_stay_text(folder: Path) -> None:
    text = render(folder).read_text()
    page = Page(text)
    assert page.tags.count("script") == 2  # the data of the map and the map itself
    assert "alert(1)" in text and HOSTILE not in text
    content = json.loads(page.scripts[0])
    assert content["id"][0] == f"{HOSTILE}0" and content["classes"][1] == HOSTILE


def test_the_tables_say_what_the_file_says(folder: Path) -> None:
    page = Page(render(folder).read_text())
    figures = ["67.1 ±2.1", "90.0", "65.5 ±3.0", "–", "50.0 ±2.0", "–", "84.4 ±1.3", "90.0"]
    assert [c for c in page.cells if c[0].isdigit() or c == "–"][: len(figures)] == figures
    lines = evaluation_lines(evaluation())  # type: ignore[arg-type]
    own = next(x for x in lines if x.startswith("pre-trained"))
    assert own.split() == ["pre-trained", "encoder", "linear", "84.4", "±1.3", "*", "90.0", "*"]
    raw = next(x for x in lines if x.startswith("raw pixels"))
    assert raw.index("±2.1") == own.index("±1.3") and raw.split()[-1] == "*"  # equal as written: both are best


def test_r_squared_is_not_in_percent() -> None:
    scores = evaluation() | {"metric": "r2"}
    lines = evaluation_lines(scores)  # type: ignore[arg-type]
    assert "0.844 ±0.013" in "\n".join(lines) and "%" not in "\n".join(lines)


PARTS = ["metrics.jsonl", "health.json", "evaluation.json", "views.png", "map.json", "map.png", "unreadable.json"]


@pytest.mark.parametrize("part", PARTS)
def test_any_part_may_be_missing(folder: Path, part: str) -> None:
    (folder / part).unlink()
    Page(render(folder).read_text())


def test_a_bare_run_has_no_empty_headings(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(json.dumps({"method": "mae"}))
    page = Page(render(tmp_path).read_text())
    assert page.headings == [] and "h1" in page.tags


def test_what_is_not_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="not a run"):
        render(tmp_path)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(RequestError, match="not valid JSON"):
        render(tmp_path)
    (tmp_path / "run.json").write_text("{}")
    (tmp_path / "evaluation.json").write_text('{"rows": [{"features": "raw"}]}')
    with pytest.raises(RequestError, match="lacks"):
        render(tmp_path)


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_pictures_are_enlarged_by_whole_pixels(tmp_path: Path, channels: int) -> None:
    images = torch.zeros(2, channels, 16, 16)
    images[1, 0, 0, 1] = 1.0
    sheet = opened(views_picture([("a", images), ("b", images)], tmp_path / "v.png"))
    assert sheet.size == (2 * 96 + 8, 26 + 2 * 96 + 8)
    top = 26 + 96 + 8
    lit = (255, 255, 255, 255) if channels == 1 else (255, 0, 0, 255)
    corner = [sheet.getpixel((x, top)) for x in (5, 6, 11, 12)]
    assert corner == [(0, 0, 0, 255), lit, lit, (0, 0, 0, 255)]


def test_series_are_drawn_and_tables_refused(tmp_path: Path) -> None:
    sheet = opened(views_picture([("a", torch.randn(3, 2, 50))], tmp_path / "v.png"))
    assert sheet.size == (220, 26 + 3 * 80 + 2 * 8)
    with pytest.raises(RequestError, match=r"images \[n c h w\]"):
        views_picture([("a", torch.randn(3, 5))], tmp_path / "w.png")
    with pytest.raises(RequestError, match="as many"):
        views_picture([("a", torch.rand(3, 1, 4, 4)), ("b", torch.rand(2, 1, 4, 4))], tmp_path / "w.png")
    assert not (tmp_path / "w.png").exists()


def test_the_map_repeats_and_keeps_neighbours_together(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(90) % 3
    vectors = rng.normal(size=(90, 12)) + 12 * np.eye(3, 12)[labels]
    written = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        embedding_map(vectors, labels, list("abc"), [str(i) for i in range(90)], None, tmp_path / name, limit=60)
        written.append((tmp_path / name / "map.json").read_bytes())
    assert written[0] == written[1]
    content = json.loads(written[0])
    assert len(content["id"]) == 60 and [int(i) % 3 for i in content["id"]] == content["label"]
    place, label = np.array([content["x"], content["y"]]).T, np.array(content["label"])
    assert place.min() == 0 and place.max() == 1
    far = np.linalg.norm(place[:, None] - place[None], axis=-1) + 9 * np.eye(60)
    assert (label[far.argmin(1)] == label).mean() > 0.95
    with pytest.raises(RequestError, match="60 labels"):
        embedding_map(vectors[:60], labels, list("abc"), ["x"] * 60, None, tmp_path)


def test_each_thumbnail_lies_where_the_map_looks_for_it(tmp_path: Path) -> None:
    colours = torch.rand(30, 3, 1, 1, generator=torch.Generator().manual_seed(1)).round()
    vectors = np.random.default_rng(1).normal(size=(30, 5))
    embedding_map(vectors, None, [], [str(i) for i in range(30)], colours.expand(30, 3, 64, 48).clone(), tmp_path)
    sprite = json.loads((tmp_path / "map.json").read_text())["sprite"]
    assert (sprite["width"], sprite["height"], sprite["ink"]) == (24, 32, False)
    sheet = opened(tmp_path / "map.png").convert("RGB")
    for i in range(30):
        at = (i % sprite["columns"] * 24 + 12, i // sprite["columns"] * 32 + 16)
        assert sheet.getpixel(at) == tuple((255 * colours[i].flatten()).int().tolist())


def test_ticks_are_round_and_labels_keep_apart() -> None:
    assert charts.ticks(0, 1, 5) == [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert charts.ticks(51.8, 98.9, 5) == [60, 70, 80, 90]
    steps = [float(i) for i in range(5000)]
    values = [0.0] * 5000
    values[2500] = 7.0
    drawn = charts.curve_chart(charts.Curve("loss", steps, values))
    assert drawn.count("L") < 300 and " 34L" in drawn  # short, and the spike still touches the top
    for mean in (0.5, 1.0):  # in the middle, and at the top, above which there is no room
        drawn = _chart([mean, mean, mean])
        at = sorted(float(y) for y in re.findall(r'<text x="\d+" y="([\d.]+)">', drawn))
        assert len(at) == 3 and min(np.diff(at)) >= 20 and at[0] >= 14


def _chart(means: list[float]) -> str:
    series = [charts.Series(str(m), [charts.Point(0, m, m - 0.1, m + 0.1, "")]) for m in means]
    return charts.budget_chart(series, ["1"], "Labels per class", True)


def test_what_a_sample_looks_like_whatever_it_is() -> None:
    clip = torch.arange(8.0).view(1, 1, 8, 1, 1).expand(2, 3, 8, 5, 6) / 8
    frames = seen("video", clip)
    assert frames.shape == (2, 3, 5, 24) and frames[0, 0, 0, ::6].tolist() == [0.0, 2 / 8, 4 / 8, 7 / 8]

    volume = torch.zeros(1, 1, 6, 4, 4)
    volume[0, 0, 2] = 9.0
    slices = seen("volume", volume)
    assert slices.shape == (1, 1, 4, 16) and slices.max() == 1 and slices[0, 0, 0, 4:8].eq(1).all()

    note = torch.sin(2 * torch.pi * 2000 * torch.arange(8000) / 8000)[None, None]  # half of the highest
    spectrum = seen("audio", note)
    assert abs(int(spectrum[0, 0].mean(1).argmax()) - 48) <= 1 and spectrum.min() >= 0

    cloud = torch.tensor([[[0.0, 1.0], [0.0, 0.0], [0.0, 1.0]]])  # x and z rise together: bottom left and top right
    drawn = seen("points", Ragged(torch.cat([cloud, torch.full((1, 3, 5), 99.0)], 2), torch.tensor([[2]])))
    assert drawn[0, 0, -1, 0] > 0 and drawn[0, 0, 0, -1] > 0 and int((drawn > 0).sum()) == 2

    edges = torch.tensor([[[0, 2], [2, 0], [-1, -1]]])
    links = seen("graph", Graph(torch.zeros(1, 1, 3), torch.tensor([[3]]), edges))
    assert links[0, 0].nonzero().tolist() == [[0, 2], [2, 0]]

    rows = seen("table", torch.tensor([[1.0, torch.nan], [2.0, 5.0], [3.0, 6.0]]))
    assert rows[:, 0, 0, 0].tolist() == pytest.approx([0.15, 0.575, 1.0]) and rows[0, 0, 0, 1] == 0
    assert seen("text", torch.zeros(2, 5, dtype=torch.long)) is None
