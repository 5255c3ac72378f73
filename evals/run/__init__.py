"""One evaluation run: its folder, its attempts, its workers."""
