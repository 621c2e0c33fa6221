"""`Top`: a table of a container's processes, printed by ps(1)."""

from __future__ import annotations

import msgspec


class Top(msgspec.Struct, frozen=True):
    """A table of processes, as cut by `runc ps` from the output of ps(1) (runc-ps(8)).

    The columns depend on the options of ps; crun has the single column `PID`. Process ids are those of the host. All
    values are text as printed by ps.

    Columns are separated by blanks, as in runc itself, so that only the last column can have values with blanks. In the
    usual formats the last one is the command line; request `lstart`, whose dates have blanks, as the last column or not
    at all.

    Attributes:
        header: The names of the columns: `("UID", "PID", ..., "CMD")`. ps may repeat a name (`-o comm,args`).
        rows: For each process a value for each column; `""` where the line was short.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    @property
    def processes(self) -> list[dict[str, str]]:
        """Return each row as a dictionary by column name: `top.processes[0]["CMD"]`.

        Of two columns with the same name the last one counts; `rows` has both.
        """
        return [dict(zip(self.header, row, strict=True)) for row in self.rows]
