"""Reports of an evaluation: figures, pages, exports."""
