"""LoRA leaves as a folder that peft loads, and says there what it said here."""

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import headwater as hw
from headwater.core.errors import RequestError
from headwater.parts.wrapped import Wrapped
from tests.law.huggingface import relative, written
from tests.story.commands import headwater

t, peft = pytest.importorskip("transformers"), pytest.importorskip("peft")
SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    at = tmp_path_factory.mktemp("data") / "few.npz"
    g = np.random.default_rng(0)
    np.savez(at, x=g.random((40, 3, 16, 16), dtype=np.float32), y=np.arange(40) % 2)
    return at


def adapted(base: Any, data: Path, out: Path, **more: Any) -> Path:
    """With corrections that have moved far."""
    more = {"set": ["adapter.rank=3", "adapter.alpha=9.0", "fit.optimiser.rate=0.05"], **more}
    hw.adapt("lora", base, data, out=out, steps=4, batch_size=8, device="cpu", **more)
    return out


def loaded(model: Any, at: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # what transformers says of what peft asks of it
        return peft.PeftModel.from_pretrained(model, at).eval()


@pytest.mark.parametrize("kind", ["ViT", "CLIPVision", "Dinov2"])
def test_a_model_of_transformers_says_the_same_with_it(kind: str, data: Path, tmp_path: Path) -> None:
    config = getattr(t, f"{kind}Config")(**SIZES, image_size=16, patch_size=4)
    torch.manual_seed(0)
    base = written(getattr(t, f"{kind}Model")(config), tmp_path / "base")
    run = adapted(f"hf:{base}", data, tmp_path / "run")
    made = hw.export(run, tmp_path / "peft", "peft")
    assert made["maps"] == 2 * 4  # of each block queries, keys, values and what follows them
    about = json.loads((tmp_path / "peft" / "adapter_config.json").read_text())
    assert (about["r"], about["lora_alpha"]) == (3, 9.0) and about["base_model_name_or_path"] == str(base)
    ours, x = hw.load(run), torch.rand(4, 3, 16, 16)
    plain = getattr(t, f"{kind}Model").from_pretrained(base).eval()
    with torch.no_grad():
        normal = ours.encoder.get_submodule("tokenizer.normalise")(x) if _normalises(ours.encoder) else x
        before = plain(pixel_values=normal).last_hidden_state
        after = loaded(plain, tmp_path / "peft")(pixel_values=normal).last_hidden_state
        said = ours.encoder(x)
        assert said.prefix is not None
        tokens = torch.cat([said.prefix, said.tokens], 1)
    if kind == "CLIPVision":  # whose last norm is for what it pools alone
        after, before = (plain_norm(plain, v) for v in (after, before))
    assert relative(tokens, after) < 1e-5 and relative(tokens, before) > 1e-2


def plain_norm(model: Any, x: torch.Tensor) -> torch.Tensor:
    norm = next(m for n, m in model.named_modules() if n.endswith("post_layernorm"))
    with torch.no_grad():
        out: torch.Tensor = norm(x)
    return out


def _normalises(encoder: Any) -> bool:
    return any(n == "tokenizer.normalise" for n, _ in encoder.named_modules())


def test_a_wrapped_model_says_the_same_with_it(data: Path, tmp_path: Path) -> None:
    config = t.ViTMSNConfig(**SIZES, image_size=16, patch_size=4)
    base = written(t.ViTMSNModel(config), tmp_path / "base")
    where = [n.rpartition(".")[2] for n, m in t.ViTMSNModel(config).named_modules() if isinstance(m, torch.nn.Linear)]
    names = tuple(dict.fromkeys(where[:2]))
    more = ["adapter.rank=2", f"adapter.where={names!r}", "fit.optimiser.rate=0.05"]
    run = adapted(f"hf:{base}", data, tmp_path / "run", set=more)
    ours = hw.load(run).encoder
    assert isinstance(ours, Wrapped)
    hw.export(run, tmp_path / "peft", "peft")
    x = torch.rand(4, 3, 16, 16)
    with torch.no_grad():
        theirs = loaded(t.ViTMSNModel.from_pretrained(base), tmp_path / "peft")(pixel_values=ours.normalise(x))
        assert relative(ours(x).tokens, theirs.last_hidden_state) < 1e-5


def test_our_own_encoder_says_the_same_with_it(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hw.pretrain("mae", data, out=tmp_path / "mae", steps=2, batch_size=8, device="cpu")
    run = adapted(tmp_path / "mae", data, tmp_path / "run")
    said = headwater(capsys, "export", "-e", run, "--format", "peft", "-o", tmp_path / "peft", "--json")
    assert said.code == 0, said.err
    assert said.json["model_type"] == "" and (tmp_path / "peft").is_dir()
    assert not list(tmp_path.glob(".writing*"))
    base, ours, x = hw.load(tmp_path / "mae").encoder, hw.load(run), torch.rand(4, 3, 16, 16)
    before = base(x).pooled.detach()
    with torch.no_grad():
        told = loaded(base, tmp_path / "peft")(x).pooled
        assert relative(ours.encoder(x).pooled, told) < 1e-5 and relative(before, told) > 1e-3


def test_bad_requests_are_refused(data: Path, tmp_path: Path) -> None:
    hw.pretrain("mae", data, out=tmp_path / "mae", steps=2, batch_size=8, device="cpu")
    with pytest.raises(RequestError, match="has no folder adapter/ beside it"):
        hw.export(tmp_path / "mae", tmp_path / "p", "peft")
    hw.adapt("svfit", tmp_path / "mae", data, out=tmp_path / "svfit", steps=1, batch_size=8, device="cpu")
    with pytest.raises(RequestError, match=r"written of LoRA, and .* is a run of svfit"):
        hw.export(tmp_path / "svfit", tmp_path / "p", "peft")
    run = adapted(tmp_path / "mae", data, tmp_path / "run")
    with pytest.raises(RequestError, match="No vision transformer of transformers is like this encoder"):
        hw.export(run, tmp_path / "p", "peft", model_type="vit")
    assert not (tmp_path / "p").exists() and not list(tmp_path.glob(".writing*"))
