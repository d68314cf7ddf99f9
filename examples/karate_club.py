"""One real graph, Zachary's karate club: learn its 34 members without labels, then tell the two factions with one each.

python examples/karate_club.py [--steps 200] [--out runs/club]
"""

import argparse

import networkx

import headwater as hw

parser = argparse.ArgumentParser()
parser.add_argument("--steps", type=int, default=200)
parser.add_argument("--out", default="runs/club")
given = parser.parse_args()

data = hw.open(networkx.karate_club_graph(), labels="club", name="karate club")
print("\n".join(hw.doctor(data).lines()))

hw.pretrain("mae", data, out=given.out, steps=given.steps, holdout=0.5)
result = hw.evaluate(given.out, data, labels_per_class=[1, 5], baselines=["random"])
print(f"\n{result['verdict']['words']}")
