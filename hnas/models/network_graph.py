"""Any network as a graph of its operations."""

from __future__ import annotations

import warnings

import torch
from torch import nn

from hnas.errors import HnasError
from hnas.spaces.cell_graph import CellGraph


def network_graph(network: nn.Module, image_size: int = 32) -> CellGraph:
    """Return the operations that depend on images (2, 3, S, S), in execution order, as `torch.export` traces them.

    Omits weights and what is computed from weights alone. Raises `HnasError` where the network cannot be traced.
    """
    images = torch.zeros(2, 3, image_size, image_size)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.export.export(network.eval(), (images,))
    except Exception as error:  # the tracer raises many types for what it does not support
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise HnasError(f"{type(network).__name__} cannot be drawn because torch cannot trace it: {reason}") from error
    places: dict[torch.fx.Node, int] = {}
    names: list[str] = []
    edges: list[tuple[int, int, str]] = []
    (image_input,) = program.graph_signature.user_inputs
    for node in program.graph.nodes:
        reads = dict.fromkeys(places[source] for source in node.all_input_nodes if source in places)
        if not reads and node.name != image_input:
            continue
        places[node] = len(names)
        edges += [(source, len(names), "") for source in reads]
        target = getattr(node.target, "_opname", None) or getattr(node.target, "__name__", str(node.target))
        names.append("images" if node.name == image_input else "logits" if node.op == "output" else str(target))
    return CellGraph(tuple(names), tuple(edges))
