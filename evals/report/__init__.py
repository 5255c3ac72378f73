"""What an evaluation says: figures, pages, exports."""
