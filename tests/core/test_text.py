"""Text from outside is escaped before it is shown."""

from vistok.core.text import printable


def test_only_what_prints_reaches_a_terminal():
    assert printable("\x1b[2Jcat\x07\r\n\x9b0m") == r"\x1b[2Jcat\x07\r\n\x9b0m"
    assert printable("a\u202eb\u2066c\u2028\udcff") == r"a\u202eb\u2066c\u2028\udcff"
    assert printable("Katze 猫 größe | 3²") == "Katze 猫 größe | 3²"
    assert printable("a\nb\tc", keep="\n") == "a\nb\\tc"
    assert printable(42) == "42"
