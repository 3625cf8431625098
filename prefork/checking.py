"""What `prefork check` does: everything that a start does before it opens anything.

The calling process. It imports what the config names, and resolves addresses
and users; nothing is bound, nothing is started.
"""

from prefork.config import load
from prefork.plan import Plan
from prefork.planning import Planner


def check(path: str) -> str:
    """Return what a config amounts to, for people.

    Raises: ConfigError with all that is wrong.
    """
    config = load(path)
    plans = Planner(config).plans()
    lines = [f"{path}: good"]
    for plan in plans:
        lines += [f"  {plan.name}: {plan.what}", *(f"    {line}" for line in _about(plan))]
    return "\n".join(lines)


def _about(plan: Plan) -> list[str]:
    lines = [f"at {place.where}" for place in plan.places]
    count = plan.settings.workers
    workers = "1 worker" if count == 1 else f"{count} workers"
    if plan.most is not None:
        workers = f"{plan.least} to {plan.most} workers"
    identity = plan.outfit.identity
    lines.append(workers if identity is None else f"{workers}, as {identity.user}")
    return lines
