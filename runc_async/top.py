"""The processes of a container as ps(1) shows them: the answer of `ps` in its table format."""

from __future__ import annotations

import msgspec


class Top(msgspec.Struct, frozen=True):
    """A table of processes, as `runc ps` cuts it out of ps(1)'s (runc-ps(8)).

    Which columns there are is up to the options that were given to ps; crun has the one column `PID`. Process ids
    are those of the host. All values are text, just as ps prints them.

    Columns are told apart by blanks, as runc itself does it, so that only the last one can hold values with blanks
    in them. It is a command line in ps's usual formats; ask for `lstart`, whose dates have blanks, last or not at all.

    Attributes:
        header: The names of the columns: `("UID", "PID", ..., "CMD")`. ps may use a name twice (`-o
            comm,args`).
        rows: For each process a value for each column; `""` where the line ended early.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    @property
    def processes(self) -> list[dict[str, str]]:
        """Return each row as a dictionary by name of column: `top.processes[0]["CMD"]`.

        Of two columns with one name the last counts; `rows` has both.
        """
        return [dict(zip(self.header, row, strict=True)) for row in self.rows]
