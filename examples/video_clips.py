"""Video files, as bytes from a camera: learn what happens in them without labels, then ask with ten labels per class.

python examples/video_clips.py [--steps 200] [--out runs/clips]
"""

import argparse
from pathlib import Path

import av

import headwater as hw

parser = argparse.ArgumentParser()
parser.add_argument("--steps", type=int, default=200)
parser.add_argument("--out", default="runs/clips")
given = parser.parse_args()

made = hw.open("moving-shapes")
folder = Path(given.out).with_name("clip-files")
for i in range(180):
    at = folder / made.classes[made.labels[i]].replace(" ", "-")
    at.mkdir(parents=True, exist_ok=True)
    with av.open(str(at / f"{i}.mp4"), "w") as file:
        stream = file.add_stream("mpeg4", rate=8)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 32, 32, "yuv420p", 400_000
        for frame in made.read(i)["video"][0].numpy():
            file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="gray").reformat(format="yuv420p")))
        file.mux(stream.encode())

data = hw.open(folder)
print("\n".join(hw.doctor(data).lines()))

hw.pretrain("simclr", data, out=given.out, steps=given.steps, batch_size=16, holdout=0.28)
result = hw.evaluate(given.out, data, labels_per_class=[5], baselines=["random"])
print(f"\n{result['verdict']['words']}")
