"""What is not used is not paid for: importing Headwater is quick, and optional libraries load when something needs them."""

import json
import subprocess
import sys

LOOK = """
import json, sys, time
import torch
start = time.perf_counter()
import headwater as hw
imported = time.perf_counter() - start
data = hw.open("digits")
data.read(0)
opened = time.perf_counter() - start
print(json.dumps({"imported": imported, "opened": opened, "modules": sorted({m.partition(".")[0] for m in sys.modules})}))
"""
OPTIONAL = {
    "av", "datasets", "huggingface_hub", "imagecodecs", "networkx", "nibabel", "onnx", "onnxruntime", "onnxscript", "peft",
    "pydicom", "soundfile", "soxr", "tifffile", "tokenizers", "torch_geometric", "transformers", "trimesh", "wfdb",
}  # fmt: skip


def test_importing_is_quick_and_loads_no_optional_library() -> None:
    done = subprocess.run([sys.executable, "-c", LOOK], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert not OPTIONAL & {*found["modules"]} - {"networkx"}  # torch itself may load networkx
    assert found["imported"] < 1.5
