"""The directory object is the one that real DVC makes, for any tree."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from trainer import directory, keys

from tests.integration.dataset_lab import write_tree
from tests.tools.environments import ROOT, executable

TREES = 80

names = st.sampled_from(
    [
        *("a", "a b", " a", "a ", "it's", '"quoted"', "cafe\u0301", "na\u00efve", "\u65e5\u672c\u8a9e", "\U0001f600"),
        *(".hidden", "..two", "a.b", "a-b", "a0", "~", "#", "%41", "&", "{}", "[x]", "*", "?", "$HOME", "!", "x:y"),
        *("n" * 255, "\u00fc" * 127, "data.dvcx", ".dvc.png", "Thumbs.db", ".gitignore", "\u2028", "\u00a0", "\ue000"),
    ]
) | st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6)
paths = st.lists(names, min_size=1, max_size=4).map("/".join)
bodies = st.sampled_from([b"", b"1", b"one", b"two"]) | st.binary(max_size=20)
trees = st.dictionaries(paths, bodies, min_size=3, max_size=12)


def some_trees() -> list[dict[str, bytes]]:
    """The same trees each time, of files whose names a snapshot takes."""
    found: list[dict[str, bytes]] = []

    @settings(
        max_examples=TREES, derandomize=True, database=None, deadline=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(tree=trees)
    def collect(tree: dict[str, bytes]) -> None:
        kept: list[str] = []
        for path in tree:
            if not keys.impossible(sorted([*kept, path])):
                kept.append(path)
        if kept:
            found.append({path: tree[path] for path in kept})

    collect()
    return found


def test_the_directory_object_of_any_tree_is_the_one_that_dvc_makes(tmp_path: Path) -> None:
    made = some_trees()
    folders = [f"tree-{number}" for number in range(len(made))]
    for folder, tree in zip(folders, made, strict=True):
        write_tree(tmp_path / folder, tree)
    done = subprocess.run(
        [executable("dvc", "python"), ROOT / "tests" / "tools" / "dvc_directories.py"],
        cwd=tmp_path,
        env={**os.environ, "DVC_NO_ANALYTICS": "1", "HOME": str(tmp_path)},
        input=json.dumps(folders),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    by_dvc = json.loads(done.stdout.splitlines()[-1])
    assert len(by_dvc) == len(made) > TREES // 2
    for tree, (md5, content) in zip(made, by_dvc, strict=True):
        ours = directory.encode((hashlib.md5(tree[path]).hexdigest(), path) for path in sorted(tree))
        assert ours.decode() == content, tree
        assert directory.name_of(ours) == md5
