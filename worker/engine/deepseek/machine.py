"""The engine on this machine: which device, in what numbers, and how many pages at once."""

from __future__ import annotations

import os
from dataclasses import replace
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

CARD = Sizes(rows=256, blocks=0, intake=8, burst=8, ahead=32, preparers=8, is_behind=True)
WORK_BYTES_ON_CARD = 12 * 1024**3  # beside weights and cache, for what a step computes
CORES_FOR_ENGINE = 2  # that prepare no pages: its own, and its worker's


def build(version: Version) -> DeepSeekEngine:
    """The engine of that version, its weights loaded from the folder OCTAVO_MODEL_DIR."""
    folder = os.environ.get(FOLDER)
    if not folder:
        raise CheckpointMissing(f"{FOLDER} is not set: it names the folder with the weights")
    found = checkpoint.inspect(Path(folder))
    if found.config.version != version:
        raise CheckpointWrong(f"{folder} holds {NAMES[found.config.version]}, not {NAMES[version]}")
    return engine(found)


def device() -> torch.device:
    """The card that this process sees first; the CPU where it sees none."""
    return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")


def engine(found: Checkpoint, on: torch.device | None = None) -> DeepSeekEngine:
    """The engine of a checkpoint: in bf16 on a card, in fp32 on the CPU."""
    on = on or device()
    dtype = torch.bfloat16 if on.type == "cuda" else torch.float32
    network = weights.load(found, device=on, dtype=dtype)
    return DeepSeekEngine(
        name=NAMES[found.config.version],
        model=f"{NAMES[found.config.version]}@{found.fingerprint[:12]}",
        network=network,
        tokenizer=Tokenizer(found.folder / TOKENIZER_FILE),
        sizes=sizes(found.config.language, dtype.itemsize, on),
        golden_text=found.notes.golden_text or golden.SENTENCE,
        output_tokens=found.notes.max_output_tokens or OUTPUT_TOKENS,
        device=facts(on, dtype),
    )


def facts(on: torch.device, dtype: torch.dtype) -> dict[str, str]:
    """What the engine runs on, in words."""
    said = {"device": on.type, "dtype": str(dtype).removeprefix("torch.")}
    if on.type == "cpu":
        return said | {"threads": str(torch.get_num_threads())}
    card = torch.cuda.get_device_properties(on)
    memory = f"{card.total_memory / 1024**3:.0f} GiB"
    return said | {"card": card.name, "uuid": f"GPU-{card.uuid}", "memory": memory}


def sizes(config: LanguageConfig, number_bytes: int, on: torch.device) -> Sizes:
    """At least one page of the longest kind has room, and no more than all rows can use."""
    base, affordable = CPU, CACHE_BYTES_ON_CPU
    if on.type == "cuda":
        base, affordable = CARD, torch.cuda.mem_get_info(on)[0] - WORK_BYTES_ON_CARD
    longest = blocks_for(config.max_position_embeddings)
    numbers = 2 * config.num_hidden_layers * config.hidden_size
    blocks = affordable // (numbers * number_bytes * BLOCK_TOKENS)
    return replace(
        base,
        blocks=min(max(blocks, longest), base.rows * longest),
        preparers=min(base.preparers, _cores_of_a_card() - CORES_FOR_ENGINE)
        if base.preparers
        else 0,
    )


def _cores_of_a_card() -> int:
    """Where there are few, preparing pages shares them with all else."""
    cores = len(os.sched_getaffinity(0)) // max(1, torch.cuda.device_count())
    return max(cores, CORES_FOR_ENGINE + 1)
