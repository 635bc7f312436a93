"""The tests. Their processes share the cores, so threads sleep while they wait, as in commands: before torch comes."""

from hnas.threads import wait_without_spinning

wait_without_spinning()
