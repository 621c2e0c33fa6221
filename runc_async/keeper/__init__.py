"""Containers that outlive their service: `Keeper`, and the small process that it talks to.

`client` is a service's side, `server` the keeper's; `protocol` has the messages between them, `channel` carries them.
"""

from .client import Keeper as Keeper
from .errors import KeeperError as KeeperError, KeeperLost as KeeperLost, StreamsInUse as StreamsInUse
from .protocol import Kept as Kept
