"""The processes that RADIA is made of: what each runs, where it listens, how to ask whether it is well.

`catalogue` is the one place that knows their commands: `radia serve NAME`, `radia up` and docker-compose.yml call it.
"""

from radia.services.catalogue import SERVICES, Command, Place, Service, find
from radia.services.instance import dagster_home
from radia.services.together import serve_all

__all__ = ["SERVICES", "Command", "Place", "Service", "dagster_home", "find", "serve_all"]
