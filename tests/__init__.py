"""The tests. As in commands, idle threads sleep instead of spinning, which must be set before torch is imported."""

from hnas.threads import wait_without_spinning

wait_without_spinning()
