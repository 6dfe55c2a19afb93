"""The committed graphs with which states are kept on a GPU."""

from model.export.row_graphs import FOLDER, row_graphs


def test_they_are_what_their_code_makes() -> None:
    kept = {name: (FOLDER / name).read_bytes() for name in row_graphs()}
    assert kept == row_graphs(), "stale: run python -m model.export.row_graphs"
