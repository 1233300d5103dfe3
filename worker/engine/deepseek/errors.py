"""What can be wrong with a folder of weights. All are for the operator; no page ends in them."""

from __future__ import annotations


class CheckpointError(Exception):
    """The folder is no checkpoint that this engine can read; the message says which file and why."""


class CheckpointMissing(CheckpointError):
    """A file that belongs to a checkpoint is not there."""


class CheckpointTruncated(CheckpointError):
    """A file ends before its content does, as after a download that was cut off."""


class CheckpointWrong(CheckpointError):
    """The files are whole, but they are not those of this model."""


class CheckpointModified(CheckpointError):
    """A file is not the one that the manifest names."""
