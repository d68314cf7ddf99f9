"""A folder of WAV files at two sampling rates: learn how they sound without labels, then find the sounds most alike.

python examples/sounds.py [--steps 400] [--out runs/sounds]
"""

import argparse
from pathlib import Path

import numpy as np
import soundfile

import headwater as hw

parser = argparse.ArgumentParser()
parser.add_argument("--steps", type=int, default=400)
parser.add_argument("--out", default="runs/sounds")
given = parser.parse_args()

# Files as a user has them: every third one recorded at twice the rate, the kind of sound as the folder's name.
made = hw.open("tones")
folder = Path(given.out).with_name("sound-files")
for i in range(240):
    kind = made.classes[made.labels[i]].replace(" ", "-")
    (folder / kind).mkdir(parents=True, exist_ok=True)
    wave, rate = made.read(i)["audio"][0].numpy(), 8000
    if i % 3 == 0:
        wave, rate = np.repeat(wave, 2), 16000
    soundfile.write(folder / kind / f"{i}.wav", wave, rate)

data = hw.open(folder)
print("\n".join(hw.doctor(data).lines()))

run = hw.pretrain("simclr", data, out=given.out, steps=given.steps, batch_size=64)
vectors = hw.embed(run.encoder, data)
unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
nearest = (unit @ unit.T - 2 * np.eye(len(unit))).argmax(1)
print(f"\nThe nearest sound is of the same kind for {np.mean(data.labels[nearest] == data.labels):.0%} of the sounds.")
