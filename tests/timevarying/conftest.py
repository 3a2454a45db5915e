"""Two small tables: measurements, and the rows that ask for them."""

import pandas as pd
import pytest


@pytest.fixture
def lab():
    """Subject 1 measured at 0, 2 and 5; subject 2 at 1; rows out of order on purpose."""
    return pd.DataFrame({"id": [1, 2, 1, 1], "t": [5.0, 1.0, 0.0, 2.0], "x": [8.0, 7.0, 10.0, 14.0]})


@pytest.fixture
def visits():
    return pd.DataFrame(
        {"id": [1, 1, 1, 1, 1, 2, 2, 3], "t": [4.0, -1.0, 0.0, 1.0, 6.0, 0.5, 3.0, 1.0]}, index=range(10, 18)
    )
