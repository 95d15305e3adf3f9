"""Reading tasks from their sources: what has been proven of one is not proven again."""

from __future__ import annotations

from gatehub.backbone import Backbone
from gatehub.errors import TaskUnavailableError
from gatehub.gates.fold import check_backbone
from gatehub.runtime.tasks.packed import PackedTask, Packer
from gatehub.runtime.tasks.served import Served
from gatehub.runtime.tasks.sources import Source


class Reader:
    """Reads tasks, and reads them again when they come back into memory.

    Args:
        backbone: the one that they are served on.
    """

    def __init__(self, backbone: Backbone) -> None:
        self._backbone = backbone
        self._packer = Packer()

    def read(self, source: Source) -> PackedTask:
        """Read a task's gates, or refuse them; whether they fit is for `plan_task` to say.

        Raises:
            AdapterFormatError: the folder is not a sound adapter.
            HubError: it is on a hub that cannot give it.
        """
        reading = source.read()
        return self._packer.pack(reading.adapter, reading.file)

    def read_again(self, task: Served) -> PackedTask:
        """Read the gates of a task that was served, and has a source, once more.

        The same file holds the same tensors, for the same backbone. Of another one both are
        checked; its tensors may be the same in wider dtypes, so they are made as small as they
        can be, and take no more memory than those that were read first.

        Raises:
            TaskUnavailableError: what lies there now is another adapter.
            BackboneMismatchError: it is said to be of another backbone.
            AdapterFormatError: the folder is not sound any more.
            HubError: the hub cannot give it.
        """
        assert task.source is not None
        reading, info = task.source.read(), task.info
        if reading.file is not None and reading.file.digest == task.file_digest:
            return self._packer.pack(reading.adapter, reading.file, digest=info.digest)
        packed = self._packer.pack(reading.adapter)
        if packed.digest != info.digest:
            raise TaskUnavailableError(
                f"Task '{info.task}' had to leave memory, and where it was read from now lies "
                f"another adapter: digest {packed.digest[:12]}… instead of {info.digest[:12]}….",
                hint="Load the task again to serve that one.",
            )
        check_backbone(self._backbone, packed)
        return packed
