"""The one error that loading a checkpoint raises."""


class CheckpointError(ValueError):
    """A checkpoint is missing, damaged, of another network, or not supported."""
