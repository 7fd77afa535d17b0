"""Resource limits of the model's code: the options of ``sandbox.Limits``."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from sandbox import Limits
from start_agent.fields import Runtime

_MIB = 1 << 20
_DEFAULT = Limits()


class SandboxOptions(BaseModel):
    """Limits of one trace's session. The time limit of a cell is ``cell_timeout``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sandbox_memory_mib: int = Field(_DEFAULT.memory_bytes // _MIB, ge=1, description="private memory of each process")
    sandbox_total_memory_mib: int = Field(
        _DEFAULT.memory_in_sum_bytes // _MIB, ge=1, description="memory of a session's processes together"
    )
    sandbox_processes: int = Field(_DEFAULT.processes, ge=1, description="processes and threads of a session")
    sandbox_disk_mib: int = Field(
        _DEFAULT.disk_bytes // _MIB, ge=1, description="size of each writable file system of a session, held in memory"
    )
    sandbox_inodes: int = Field(_DEFAULT.inodes, ge=1, description="files and folders in each writable file system")
    sandbox_open_files: int = Field(_DEFAULT.open_files, ge=1, description="file descriptors of each process")
    sandbox_output_chars: int = Field(
        _DEFAULT.output_chars,
        ge=200,
        description="characters of a cell's output that the model reads; longer output is cut in the middle",
    )
    sandbox_printed_chars: int = Field(
        _DEFAULT.printed_chars, ge=200, description="characters that a cell may print before it is stopped"
    )
    sandbox_cells: int = Field(_DEFAULT.cells, ge=1, description="cells per session")
    sandbox_grace_seconds: float = Field(
        _DEFAULT.grace_seconds, gt=0, description="seconds between a cell's interrupt at its timeout and its kill"
    )
    sandbox_start_seconds: Runtime[float] = Field(
        _DEFAULT.start_seconds, gt=0, description="timeout in seconds for starting a kernel"
    )

    @property
    def limits(self) -> Limits:
        """The options as ``sandbox.Limits``."""
        return Limits(
            grace_seconds=self.sandbox_grace_seconds,
            start_seconds=self.sandbox_start_seconds,
            memory_bytes=self.sandbox_memory_mib * _MIB,
            memory_in_sum_bytes=self.sandbox_total_memory_mib * _MIB,
            processes=self.sandbox_processes,
            disk_bytes=self.sandbox_disk_mib * _MIB,
            inodes=self.sandbox_inodes,
            open_files=self.sandbox_open_files,
            output_chars=self.sandbox_output_chars,
            printed_chars=self.sandbox_printed_chars,
            cells=self.sandbox_cells,
        )
