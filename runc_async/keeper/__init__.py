"""Containers that outlive their service: `Keeper`, and the small process behind it.

`client` is the service's side, `server` the keeper's; `protocol` defines the messages, `channel` carries them.
"""

from .client import Keeper as Keeper
from .errors import KeeperError as KeeperError, KeeperLost as KeeperLost, StreamsInUse as StreamsInUse
from .protocol import Kept as Kept
