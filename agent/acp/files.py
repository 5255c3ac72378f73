"""The user's files through the editor, where it offers that: unsaved text is read and kept right.

An editor's text has line ends and an encoding of its own choice. So it is compared with the file
on disk line by line: where they agree the disk's bytes count, and where not the text gets the line
ends and the encoding that the file has.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any

from acp.exceptions import RequestError
from acp.schema import (
    ReadTextFileRequest,
    ReadTextFileResponse,
    WriteTextFileRequest,
)

from sandboxes.workspace.exchange import LINK, PLAIN, Exchange, File
from tools.text.text_file import TextFile, decode

Ask = Callable[[str, Any], Any]
"""As in ``permission``; here it also raises ``TimeoutError``."""


class EditorFiles:
    """The ``UserFiles`` of one session in an editor.

    Files outside ``below``, the folder that the editor has open, are read and written on disk: the
    protocol bounds what an editor is asked for.
    """

    def __init__(
        self,
        exchange: Exchange,
        session_id: str,
        ask: Ask,
        *,
        reads: bool,
        writes: bool,
        below: str = "",
    ) -> None:
        self._exchange = exchange
        self._session_id = session_id
        self._ask = ask
        self._writes = writes
        self._inside = f"{below}/" if below else ""
        self.asks = reads

    def read(self, path: str) -> File | None:
        """Return the editor's text of the file, else what is on disk. Raises ``OSError``."""
        disk = self._exchange.users(path)
        asks = self.asks and path.startswith(self._inside)
        if not asks or (disk is not None and disk.mode == LINK):
            return disk
        known = TextFile("", "utf-8", b"") if disk is None else decode(disk.content)
        if known is None:
            return disk
        params = ReadTextFileRequest(session_id=self._session_id, path=self._absolute(path))
        try:
            given = self._ask("fs/read_text_file", params)
            text = _lines(ReadTextFileResponse.model_validate(given).content)
        except (RequestError, ValueError):
            return disk  # it has no such file, or will not say
        if text == _lines(known.text) or (disk is None and not text):
            return disk
        try:
            content = known.encode(text.replace("\n", known.newline))
        except UnicodeEncodeError:
            content = text.encode("utf-8", "replace")
        return File(disk.mode if disk is not None else PLAIN, content)

    def write(self, path: str, file: File | None) -> None:
        """Write text through the editor, so that an open buffer has it too; all else to disk."""
        text = None if file is None or file.mode == LINK else decode(file.content)
        writes = self._writes and path.startswith(self._inside)
        if file is None or text is None or text.encoding != "utf-8" or not writes:
            self._exchange.write_users(path, file)
            return
        content = text.bom.decode("utf-8") + text.text
        params = WriteTextFileRequest(
            session_id=self._session_id, path=self._absolute(path), content=content
        )
        try:
            self._ask("fs/write_text_file", params)
        except RequestError as error:
            raise OSError(errno.EIO, f"the editor refused to write it: {error}") from error
        disk = self._exchange.users(path)
        if disk is not None and disk.mode not in (file.mode, LINK):
            self._exchange.write_users(path, File(file.mode, disk.content))

    def _absolute(self, path: str) -> str:
        return str(self._exchange.folder / path)


def _lines(text: str) -> str:
    return text.removeprefix("\ufeff").replace("\r\n", "\n")
