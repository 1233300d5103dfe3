"""What an operator says of the server: `OCTAVO_REMOTE_<NAME>`, listed in docs/settings.md.

The engine's process reads them, and no other does: it knows none of the platform's.
"""

from __future__ import annotations

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from shared.config import Count, Seconds


class RemoteSettings(BaseSettings):
    """Where the server is, and what is asked of it. The address must be given."""

    model_config = SettingsConfigDict(
        env_prefix="OCTAVO_REMOTE_", frozen=True, extra="ignore", hide_input_in_errors=True
    )

    url: str = Field(
        pattern=r"^https?://[^\s@]+$"
    )  # with `/v1`; a key stands in a setting of its own
    model: str = "deepseek-ai/DeepSeek-OCR"  # as the server calls it
    api_key: SecretStr = SecretStr("")
    concurrency: Count = 32  # pages asked for at once
    connect_seconds: Seconds = 5
    silence_seconds: Seconds = 50  # without a byte; the first comes once the page is begun
    tries: Count = 4  # of one page, where what went wrong may pass
    max_output_tokens: Count = 4096  # of a page that has no limit of its own
    logprobs: bool = True  # ask how sure the server is of each token
    vllm: bool = True  # send what only vLLM knows; strict servers refuse it
