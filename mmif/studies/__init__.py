"""What belongs together: studies in a folder tree, registered slices in folders."""
