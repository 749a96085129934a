"""The configuration of a run, as frozen values that are checked before anything runs.

`build` makes an `Experiment` of what Hydra composed: `settings` and `study_settings` hold its plain
values, `arms` its policies, `device_fleet` the devices' own configuration, `server_settings` what
the server follows, `lexicons` word lists, `option_groups` what can be chosen. `targets` turns one
YAML node into one value, so a rule of one's own needs only a dataclass and a file in ``conf/``;
`removed` says what an earlier version had. Leave the rest alone.
"""
