"""The layers of any network, from its input to its output: what says how deep a weight lies, and what is looked into."""

from collections.abc import Iterator, Mapping

from torch import nn

NEAR_INPUT = ("token", "table", "prefix", "position", "embed", "input_norm", "relative", "types")


def layers(network: nn.Module) -> dict[str, nn.Module]:
    """The blocks, by name and in order: what stands in lists of modules and is itself made of modules with weights."""
    return dict(_blocks(network, ""))


def _blocks(module: nn.Module, name: str) -> Iterator[tuple[str, nn.Module]]:
    listed = isinstance(module, nn.ModuleList | nn.Sequential)
    for leaf, child in module.named_children():
        full = f"{name}.{leaf}".lstrip(".")
        composed = any(any(True for _ in part.parameters()) for part in child.children())
        if listed and composed and not isinstance(child, nn.ModuleList):
            yield full, child
        else:
            yield from _blocks(child, full)


def depths(network: nn.Module) -> Mapping[str, int]:
    """How deep each weight lies: 0 before the first block (tokens, positions), 1 in it, …, one more than blocks after them."""
    blocks = {name: i for i, name in enumerate(layers(network), 1)}
    found, reached = dict[str, int](), 0
    for name, _ in network.named_parameters():
        own = next((i for block, i in blocks.items() if name.startswith(block + ".")), None)
        if own is not None:
            reached = max(reached, own)
        early = any(word in part for part in name.split(".") for word in NEAR_INPUT)
        found[name] = own if own is not None else 0 if early or not reached else len(blocks) + 1
    return found
