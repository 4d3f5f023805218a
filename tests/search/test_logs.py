"""The log in memory obeys the laws of logs."""

from formwright.search import MemoryLog
from formwright.search.testing import LogContract


class TestMemoryLog(LogContract):
    def make(self):
        return MemoryLog()

    def cancel(self, log):
        log.cancel()
