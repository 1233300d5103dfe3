"""A network with the weights of a checkpoint in it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from worker.engine.deepseek.checkpoint import Checkpoint
from worker.engine.deepseek.config import LanguageConfig
from worker.engine.deepseek.errors import CheckpointWrong
from worker.engine.deepseek.network import Network

# What we multiply at once lies apart in the file: our part of a name -> the file's.
_FUSED = {
    "qkv": ("q_proj", "k_proj", "v_proj"),
    "gate_up": ("gate_proj", "up_proj"),
}
_FUSED_PART = re.compile(rf"(?<=\.)({'|'.join(_FUSED)})(?=\.|$)")
_SAM = "model.sam_model."  # its qkv is one in the file too
_EXPERTS = re.compile(r"(.*\.mlp\.experts\.)(gate_up|down_proj)")


def load(checkpoint: Checkpoint, *, device: torch.device, dtype: torch.dtype) -> Network:
    """The network on `device`, whatever types the file has. Raises CheckpointWrong."""
    with torch.device("meta"):
        network = Network(checkpoint.config)
    network.to(dtype).to_empty(device=device)
    network.requires_grad_(False).eval()  # noqa: FBT003 - torch's own signature
    with _Files(checkpoint) as files, torch.no_grad():
        for name, parameter in network.named_parameters():
            _fill(parameter, files, name, checkpoint.config.language)
    return network


def _fill(parameter: Tensor, files: _Files, name: str, config: LanguageConfig) -> None:
    experts = _EXPERTS.fullmatch(name)
    if experts is None:
        parameter.copy_(files.read(sources(name)))
        return
    for number in range(config.n_routed_experts):
        one = f"{experts[1]}{number}.{experts[2]}.weight"
        parameter[number].copy_(files.read(sources(one)))


def sources(name: str) -> list[str]:
    """The tensors of the file that, one below the other, are our parameter `name`."""
    part = _FUSED_PART.search(name)
    if part is None or name.startswith(_SAM):
        return [name]
    return [_FUSED_PART.sub(piece, name) for piece in _FUSED[part[1]]]


class _Files:
    """The open files of a checkpoint."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint
        self._stack = ExitStack()
        self._open: dict[Path, safe_open] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def read(self, names: list[str]) -> Tensor:
        """These tensors one below the other. Raises CheckpointWrong."""
        tensors = list(self._tensors(names))
        return tensors[0] if len(tensors) == 1 else torch.cat(tensors)

    def _tensors(self, names: list[str]) -> Iterator[Tensor]:
        for name in names:
            path = self._checkpoint.files[name]
            try:
                if path not in self._open:
                    opened = safe_open(path, framework="pt")
                    self._open[path] = self._stack.enter_context(opened)
                yield self._open[path].get_tensor(name)
            except SafetensorError as error:
                raise CheckpointWrong(f"{path}: {error}") from error
