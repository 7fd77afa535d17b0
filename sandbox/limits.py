"""Resource limits of one session."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one session and its kernel; all must be positive. Raises ValueError otherwise.

    Attributes:
        seconds: wall time of one cell in seconds, unless `execute` is called with a timeout.
        grace_seconds: how long a cell may keep running after it was interrupted at its timeout, before it is killed.
        start_seconds: how long one kernel may take to start before the attempt counts as failed.
        memory_bytes: private memory of each process (RLIMIT_DATA; an idle kernel uses about 100 MB of it).
        memory_in_sum_bytes: total memory of all processes of a session, measured four times a second while a cell runs
            and once a second between cells: it bounds sustained use, not a short peak. Where cgroups are available,
            Linux bounds the peak, too.
        processes: processes plus threads (an idle kernel has one).
        disk_bytes: size of each of the writable file systems (working directory, /tmp, /dev/shm), which live in
            memory. Also the maximum size of a file.
        inodes: files and folders in each of them.
        open_files: file descriptors of each process.
        output_chars: characters of the text that the model reads; longer text is cut in the middle.
        printed_chars: characters that a cell may print before it is stopped with `Outcome.OUTPUT`.
        cells: cells of one session.
        images: images returned for one cell, if requested; further ones are dropped.
        image_bytes: total size of the images of one cell.
        file_bytes: size of one file that the host writes or reads. All files of a session share `disk_bytes`.
        files: number of files in the working directory up to which the host can list them and add new ones.
    """

    seconds: float = 10.0
    grace_seconds: float = 1.0
    start_seconds: float = 30.0
    memory_bytes: int = 1 << 30
    memory_in_sum_bytes: int = 2 << 30
    processes: int = 64
    disk_bytes: int = 64 << 20
    inodes: int = 16_384
    open_files: int = 256
    output_chars: int = 8_000
    printed_chars: int = 1_000_000
    cells: int = 1_000
    images: int = 16
    image_bytes: int = 4 << 20
    file_bytes: int = 16 << 20
    files: int = 1_000

    def __post_init__(self) -> None:
        for field in fields(self):
            if not getattr(self, field.name) > 0:
                raise ValueError(f"Limits.{field.name} must be positive, got {getattr(self, field.name)!r}")
