"""Adapters: placements, patches of low-rank factors, and what a patch changes.

A patch is a frozen value with numpy factors; `updates` adds, merges and shortens what patches
change, and `patch_files` reads and writes them, PEFT's folders as well. You may use all of it in a
rule; the names of factors are a file format and stay as they are.
"""
