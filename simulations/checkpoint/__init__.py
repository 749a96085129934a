"""What survives a kill: device states, rows and the server's state, committed round by round.

`store` is the SQLite file, `resume` composes an interrupted run again and refuses another one, and
`versions` refuses a checkpoint of another format. Leave it alone; raise
`versions.CHECKPOINT_FORMAT` where what stands in a checkpoint changes.
"""
