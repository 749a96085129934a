"""What one device does in a night: its rules, and the story that asks them.

`device` tells a night in order; `decision`, `observer`, `retuning`, `night` and `state` are its
chapters. The rules stand in `selection`, `placement`, `adaptation`, `start` and `synthesis`, and
never import the story. You may add a rule in those five rooms; `policy` is where it is registered.
"""
