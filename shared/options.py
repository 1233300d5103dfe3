"""What a tenant may ask of a job, checked at the gateway and kept on the job's row."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    StringConstraints,
    field_validator,
    model_validator,
)

from shared.page_range import PageRange
from shared.status import Lane

MetadataKey = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
MetadataValue = Annotated[str, StringConstraints(max_length=512, pattern=r"^[^\x00]*$")]
Metadata = dict[MetadataKey, MetadataValue]


Words = Annotated[str, StringConstraints(pattern=r"^[^\x00]*[^\x00\s][^\x00]*$")]


class Task(StrEnum):
    """What the engine is to make of a page. Engines without prompts know the first two."""

    MARKDOWN = "markdown"
    TEXT = "text"
    FIGURE = "figure"  # a chart as a table, a formula, a drawing
    DESCRIBE = "describe"
    LOCATE = "locate"  # where the words of `phrase` stand
    CUSTOM = "custom"  # whatever `prompt` asks, where the tenant may


class Mode(StrEnum):
    """How closely a page is looked at, from few tokens to many. Engines without modes ignore it."""

    AUTO = "auto"  # by the page: how small its letters are, and how many
    TINY = "tiny"
    SMALL = "small"
    BASE = "base"
    LARGE = "large"
    GUNDAM = "gundam"  # the page, and tiles of it


class JobOptions(BaseModel):
    """The options of one job."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    task: Task = Task.MARKDOWN
    phrase: Words | None = Field(
        default=None, max_length=500, description="With `task: locate`: the words to look for."
    )
    prompt: Words | None = Field(
        default=None,
        max_length=4_000,
        description="With `task: custom`: what is asked. Only some tenants may.",
    )
    engine: str = Field(
        default="auto",
        pattern=r"^[a-z0-9-]{1,32}$",
        description="Which engine reads the pages; `auto` leaves it to the platform.",
    )
    mode: Mode = Field(
        default=Mode.AUTO,
        description="How closely the pages are looked at, by engines that have modes.",
    )
    pages: str | None = Field(
        default=None,
        description="Which pages to read, from 1: `1-3,5,8-`. All where it is not given.",
        examples=["1-3,5,8-"],
    )
    priority: Lane = Field(
        default=Lane.INTERACTIVE, description="`batch` leaves the front to jobs somebody waits for."
    )
    metadata: Metadata = Field(
        default_factory=dict,
        max_length=32,
        description="Your own words, given back with the job.",
        examples=[{"case": "A-17"}],
    )

    @property
    def words(self) -> str | None:
        """What the asker says in words of their own, if anything."""
        return self.phrase or self.prompt

    @model_validator(mode="after")
    def _words_belong_to_their_task(self) -> Self:
        for name, task in (("phrase", Task.LOCATE), ("prompt", Task.CUSTOM)):
            if (self.task is task) is (getattr(self, name) is None):
                raise ValueError(f"`{name}` and `task: {task}` go together")
        return self

    @field_validator("pages")
    @classmethod
    def _is_page_range(cls, value: str | None) -> str | None:
        if value is not None:
            PageRange.parse(value)
        return value


class SubmitOptions(JobOptions):
    """The options of a submission: a job's, and what must not be kept as they are."""

    password: SecretStr | None = Field(
        default=None,
        max_length=256,
        description="Opens an encrypted PDF. Kept sealed, and only until the job has ended.",
    )
