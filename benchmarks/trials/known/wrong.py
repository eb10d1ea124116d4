"""An operator whose output is wrong by one percent: it must get no latency."""

from offset import Offset, described  # type: ignore[import-not-found,unused-ignore]


class Wrong(Offset):  # type: ignore[misc,unused-ignore]
    by = 0.01


OPERATOR = described(Wrong)
