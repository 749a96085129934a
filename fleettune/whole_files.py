"""Files and folders that appear whole or not at all, whoever else writes beside.

What is written stands under a name of its own until it is finished. Then it is renamed, which the
file system does in one step. Two writers of one name never see each other's unfinished work, and
nothing finished is ever deleted.
"""

from __future__ import annotations

import secrets
import shutil
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

PARTIAL = ".partial"
"""How the name of unfinished work ends."""


def write_whole(file: Path, content: bytes) -> None:
    """Writes a file at once; one that is there already is replaced.

    Raises:
        OSError: If it cannot be written; what was there stays.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    # not tempfile's, which nobody else may read
    partial = file.with_name(f"{file.name}.{secrets.token_hex(4)}{PARTIAL}")
    try:
        with partial.open("xb") as stream:
            stream.write(content)
        partial.replace(file)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(file)) from error
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def make_folder(folder: Path) -> Generator[Path]:
    """Gives an empty folder to fill, which becomes `folder` when the block ends well.

    Where another writer was first, its folder stays and ours goes.

    Raises:
        OSError: If it cannot be written.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", suffix=PARTIAL, dir=folder.parent))
    try:
        yield partial
        partial.chmod(0o755)  # mkdtemp gives 0700, and a store may be shared
        try:
            partial.rename(folder)
        except OSError:
            if not any(folder.glob("*")):
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
