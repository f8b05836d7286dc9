"""Runs in DVC's environment: the name of the directory object that DVC's own classes make of `md5<tab>path` lines."""

from __future__ import annotations

import sys

from dvc_data.hashfile.hash_info import HashInfo
from dvc_data.hashfile.tree import Tree

tree = Tree()
for line in sys.stdin:
    md5, _, path = line.rstrip("\n").partition("\t")
    tree.add(tuple(path.split("/")), None, HashInfo("md5", md5))
tree.digest()
print(tree.oid)
