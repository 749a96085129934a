"""Files that appear whole: whoever may read other files may read them, and a fault is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from fleettune.whole_files import write_whole


def test_a_whole_file_has_the_rights_of_any_other_one(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("x")
    write_whole(tmp_path / "deep" / "whole", b"x")
    rights = (tmp_path / "other").stat().st_mode
    assert (tmp_path / "deep" / "whole").stat().st_mode == rights


def test_a_file_that_cannot_be_written_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError, match=r"Is a directory: '.*/taken'"):
        write_whole(tmp_path / "taken", b"x")
    assert [file.name for file in tmp_path.iterdir()] == ["taken"]
