"""A device profile from a user's own power log, for ``fleettune calibrate``.

`power_log` reads the log, `fit_profile` fits the coefficients and tries them on runs held out, and
`profile_file` shows and writes them. No simulation reads this room: leave it alone, and put a
profile of your own into a folder that ``fleet.profiles`` names.
"""
