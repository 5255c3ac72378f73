"""Names of the package that the tests need."""
