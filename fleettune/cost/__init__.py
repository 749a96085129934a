"""Cost: work times hardware gives seconds and joules. No module here knows torch or a client.

`work` counts FLOP and bytes from shapes, `workload` keeps them by stage and phase, `hardware` and
`radio` hold coefficients with ranges and sources, and `energy` multiplies. You may add a device
profile or a link: copy a YAML file of ``conf/hardware/`` or ``conf/link/``.
"""

from fleettune.cost.hardware import device_profile
from fleettune.cost.radio import cellular, wifi

__all__ = ["cellular", "device_profile", "wifi"]
