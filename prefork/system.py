"""What prefork stands on: Linux 5.4, with pidfds that can be waited for.

Any process, before anything else. It imports nothing that another system may
lack, so that it can say so.
"""

import platform
import sys

from prefork.errors import PlatformError


def require_platform() -> None:
    """Raise PlatformError unless this is Linux 5.4 or later."""
    if sys.platform != "linux":
        raise PlatformError(f"prefork needs Linux 5.4 or later; this is {platform.system()}")
    release = platform.release()
    numbers = [int(part) for part in release.replace("-", ".").split(".")[:2] if part.isdecimal()]
    if numbers < [5, 4]:
        raise PlatformError(f"prefork needs Linux 5.4 or later; this kernel is {release}")
