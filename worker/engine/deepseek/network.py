"""The whole network, its parameters named as in the file. It computes; it keeps no state."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from worker.engine.deepseek import rotary, transfer
from worker.engine.deepseek.clip import Clip
from worker.engine.deepseek.config import ModelConfig
from worker.engine.deepseek.language import Attend, Layer
from worker.engine.deepseek.query_encoder import QueryEncoder
from worker.engine.deepseek.sam import Sam


class Model(nn.Module):
    """Everything but the head."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        language = config.language
        self.embed_tokens = nn.Embedding(language.vocab_size, language.hidden_size)
        self.layers = nn.ModuleList(
            Layer(language, number) for number in range(language.num_hidden_layers)
        )
        self.norm = nn.RMSNorm(language.hidden_size, language.rms_norm_eps)
        self.sam_model = Sam(config.sam, config.sam_channels)
        self.projector = nn.ModuleDict(
            {"layers": nn.Linear(config.feature_size, language.hidden_size)}
        )
        self.view_seperator = nn.Parameter(torch.empty(language.hidden_size))  # so spelled
        if config.clip is not None:
            self.image_newline = nn.Parameter(torch.empty(language.hidden_size))
            self.vision_model = Clip(config.clip)
        if config.query is not None:
            self.qwen2_model = QueryEncoder(config.query)


class Network(nn.Module):
    """Pixels to features, tokens and features to logits."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Model(config)
        language = config.language
        self.lm_head = nn.Linear(language.hidden_size, language.vocab_size, bias=False)
        self._turned: Tensor | None = None

    @property
    def device(self) -> torch.device:
        """Where it lies."""
        return self.lm_head.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """In what it computes."""
        return self.lm_head.weight.dtype

    def see(self, pixels: Tensor) -> Tensor:
        """(B, S, S, 3) uint8 to (B, n * n, C), with n a 64th of S."""
        scaled = transfer.sent(pixels, self.device).permute(0, 3, 1, 2).float() / 127.5 - 1
        patches = self.model.sam_model(scaled.to(self.dtype))
        if self.config.version == 1:
            seen = self.model.vision_model(patches)
            seen = torch.cat([seen, patches.flatten(2).transpose(1, 2)], -1)
        else:
            seen = self.model.qwen2_model(patches)
        features: Tensor = self.model.projector["layers"](seen)
        return features

    def embed(self, ids: Tensor) -> Tensor:
        """(T,) to (T, C)."""
        embedded: Tensor = self.model.embed_tokens(ids)
        return embedded

    def think(self, x: Tensor, attend: Attend) -> Tensor:
        """(T, C) through all layers."""
        turned = self._angles()[attend.positions][:, None]  # the same for all heads
        for layer in self.model.layers:
            x = layer(x, turned, attend)
        return x

    def say(self, x: Tensor) -> Tensor:
        """What `think` gave of the last tokens, (B, C), as logits in fp32, (B, vocabulary)."""
        logits: Tensor = self.lm_head(self.model.norm(x))
        return logits.float()

    def _angles(self) -> Tensor:
        if self._turned is None:
            c = self.config.language
            self._turned = rotary.angles(
                c.max_position_embeddings, c.head_size, c.rope_theta, self.device
            )
        return self._turned
