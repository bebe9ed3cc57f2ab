"""The state of the code that rows were measured with."""

import subprocess
from pathlib import Path

from benchmarks.tools.machine import commit_of_checkout


def git(folder: Path, *arguments: str) -> None:
    who = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True)


def test_a_changed_checkout_is_told_from_another_changed_one(tmp_path: Path):
    git(tmp_path, "init")
    (tmp_path / "a.py").write_text("a = 1\n")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "one")
    clean = commit_of_checkout(tmp_path)
    assert clean is not None
    assert "dirty" not in clean
    (tmp_path / "a.py").write_text("a = 2\n")
    changed = commit_of_checkout(tmp_path)
    (tmp_path / "b.py").write_text("b = 1\n")
    with_new_file = commit_of_checkout(tmp_path)
    (tmp_path / "b.py").write_text("b = 2\n")
    assert len({clean, changed, with_new_file, commit_of_checkout(tmp_path)}) == 4
    assert str(changed).startswith(f"{clean}-dirty-")
    (tmp_path / "b.py").unlink()
    assert commit_of_checkout(tmp_path) == changed
