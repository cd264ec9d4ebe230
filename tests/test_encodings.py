"""A few of what `python -m tests.encodings` does by the thousand."""

from tests.encodings import main


def test_pieces_are_what_protobuf_writes() -> None:
    assert main(["150"]) == 0
