"""Copy the database while it is in use, check a copy, and put it back."""
