"""Which columns of an items table are numbers, which are labels, and which are neither."""

import pandas as pd

from recloop.envs.build.columns import item_columns


def test_numbers_and_labels_by_hand() -> None:
    found = item_columns(
        pd.DataFrame(
            {
                "title": ["a", "b", "c", "d", "e"],
                "price": ["1.5", None, "3", "4", "5"],
                "brand": ["Acme", "Bolt", None, "Acme", "Acme"],
                "adult": [True, False, False, False, False],
                "sku": ["s1", "s2", "s3", "s4", "s5"],
                "genres": [["x"], ["y"], [], ["x"], ["x"]],
                "odd": [1.0, float("inf"), 2.0, 3.0, 4.0],
                "blank": [None] * 5,
            }
        )
    )
    assert list(found.numbers) == ["price"]
    assert found.numbers["price"].isnan().tolist() == [False, True, False, False, False, False]
    assert {name: one.names for name, one in found.labels.items()} == {
        "brand": ("Acme", "Bolt"),
        "adult": ("False", "True"),
    }
    assert found.labels["brand"].codes.tolist() == [0, 1, 2, 0, 0, 2]
