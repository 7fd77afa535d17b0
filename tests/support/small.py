"""Limits so small that every attack reaches them quickly."""

from sandbox import Limits

LIMITS = Limits(
    seconds=5,
    memory_bytes=512 << 20,
    memory_in_sum_bytes=700 << 20,
    processes=48,
    disk_bytes=16 << 20,
    inodes=2_000,
    images=3,
    image_bytes=1 << 20,
    file_bytes=2 << 20,
    files=100,
)
