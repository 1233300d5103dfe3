"""The engine on this machine: which device, in what numbers, and how many pages at once."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from worker.engine import golden
from worker.engine.deepseek import checkpoint, weights
from worker.engine.deepseek.blocks import BLOCK_TOKENS, blocks_for
from worker.engine.deepseek.checkpoint import TOKENIZER_FILE, Checkpoint
from worker.engine.deepseek.config import NAMES, LanguageConfig, Version
from worker.engine.deepseek.engine import DeepSeekEngine, Sizes
from worker.engine.deepseek.errors import CheckpointMissing, CheckpointWrong
from worker.engine.deepseek.tokens import Tokenizer

FOLDER = "OCTAVO_MODEL_DIR"

OUTPUT_TOKENS = 4096  # of a page, where nothing is asked for; long ones come to 2,200
CPU = Sizes(rows=4, blocks=0, intake=1, burst=8)
CACHE_BYTES_ON_CPU = 2 * 1024**3


def build(version: Version) -> DeepSeekEngine:
    """The engine of that version, its weights loaded from the folder OCTAVO_MODEL_DIR."""
    folder = os.environ.get(FOLDER)
    if not folder:
        raise CheckpointMissing(f"{FOLDER} is not set: it names the folder with the weights")
    found = checkpoint.inspect(Path(folder))
    if found.config.version != version:
        raise CheckpointWrong(f"{folder} holds {NAMES[found.config.version]}, not {NAMES[version]}")
    return engine(found)


def engine(found: Checkpoint) -> DeepSeekEngine:
    """The engine of a checkpoint, in fp32 on the CPU."""
    device, dtype = torch.device("cpu"), torch.float32
    return DeepSeekEngine(
        name=NAMES[found.config.version],
        model=f"{NAMES[found.config.version]}@{found.fingerprint[:12]}",
        network=weights.load(found, device=device, dtype=dtype),
        tokenizer=Tokenizer(found.folder / TOKENIZER_FILE),
        sizes=sizes(found.config.language, dtype.itemsize),
        golden_text=found.notes.golden_text or golden.SENTENCE,
        output_tokens=found.notes.max_output_tokens or OUTPUT_TOKENS,
        device={"device": "cpu", "dtype": "float32", "threads": str(torch.get_num_threads())},
    )


def sizes(config: LanguageConfig, number_bytes: int) -> Sizes:
    """At least one page of the longest kind has room, and no more than all rows can use."""
    longest = blocks_for(config.max_position_embeddings)
    numbers = 2 * config.num_hidden_layers * config.hidden_size
    affordable = CACHE_BYTES_ON_CPU // (numbers * number_bytes * BLOCK_TOKENS)
    return Sizes(
        rows=CPU.rows,
        blocks=min(max(affordable, longest), CPU.rows * longest),
        intake=CPU.intake,
        burst=CPU.burst,
    )
