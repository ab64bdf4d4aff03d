"""`pytest tests/golden -m golden --regenerate` writes the golden CSVs instead of comparing with them."""


def pytest_addoption(parser):
    parser.addoption("--regenerate", action="store_true", help="write the golden CSVs anew; commit them with the reason")
